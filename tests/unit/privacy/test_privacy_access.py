"""Access requests: what holds of consent and why, a person's data in one folder, the record of processing."""

from __future__ import annotations

import json
import stat
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import PLAN, Shop, event
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.access import standing
from zantara_pipeline.privacy.consent import Statement, append
from zantara_pipeline.storage.inventory import STORES
from zantara_pipeline.storage.ledger import Ledger

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(shop: Shop, *arguments: str) -> Any:
        monkeypatch.setenv("ZANTARA_HOME", str(shop.home.root))
        return CliRunner().invoke(app, ["privacy", *arguments])

    return run


def said(*words: tuple[str, str, int]) -> list[Statement]:
    """(origin, status, day of February 2026)."""
    return [
        Statement("u", "analytics", status, f"2026-02-{day:02}T00:00:00.000000Z", origin)
        for origin, status, day in words
    ]


def status(folder: Path, *words: tuple[str, str, int]) -> tuple[str, str]:
    ledger = Ledger(folder / "ledger.db")
    append(ledger, said(*words))
    [found] = standing(ledger, "u", ["analytics"], datetime(2026, 2, 20, tzinfo=UTC))
    return found.status, found.why


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("denied", "nothing was ever said, which is denied")),
        ([("event", "granted", 1)], ("granted", "granted by the person's events, and denied by no other")),
        ([("event", "granted", 1), ("ledger", "denied", 2)], ("denied", "denied by the company's ledger")),
        ([("ledger", "denied", 1), ("event", "granted", 2)], ("denied", "denied by the company's ledger")),
        ([("ledger", "granted", 5), ("ledger", "denied", 5)], ("denied", "denied by the company's ledger")),
        ([("ledger", "granted", 25)], ("denied", "what was said holds from a later time on")),
        ([("ledger", "granted", 1), ("ledger", "denied", 25)], ("granted", "granted by the company's ledger, and denied by no other")),
    ],
)  # fmt: skip
def test_what_holds_and_why(tmp_path: Path, words: list[tuple[str, str, int]], expected: tuple[str, str]) -> None:
    assert status(tmp_path, *words) == expected


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("home") / "ledger.db")


WORDS = st.tuples(st.sampled_from(["ledger", "event"]), st.sampled_from(["granted", "denied"]), st.integers(1, 28))
ORACLE = """
    WITH heard AS (SELECT * FROM said WHERE since <= '2026-02-20T00:00:00.000000Z'),
    last AS (SELECT origin, min(status) AS status FROM heard h
        WHERE since = (SELECT max(since) FROM heard WHERE origin = h.origin) GROUP BY origin)
    SELECT coalesce(min(status), 'denied') FROM last
"""


@settings(deadline=None, max_examples=50)
@given(st.lists(WORDS, max_size=6))
def test_it_is_the_rule_of_the_models(ledger: Ledger, words: list[tuple[str, str, int]]) -> None:
    """The oracle states the rule of core.consent_history in one query over the statements."""
    con = duckdb.connect()
    con.execute("CREATE TABLE said (origin VARCHAR, status VARCHAR, since VARCHAR)")
    for word in said(*words):
        con.execute("INSERT INTO said VALUES (?, ?, ?)", [word.origin, word.status, word.effective_from])
    [(expected,)] = con.execute(ORACLE).fetchall()
    user = uuid.uuid4().hex  # of nobody before: making a ledger for each case takes longer than the case
    append(ledger, [word._replace(user_id=user) for word in said(*words)])
    [found] = standing(ledger, user, ["analytics"], datetime(2026, 2, 20, tzinfo=UTC))
    assert found.status == expected


def test_a_persons_data_lie_in_one_folder_that_others_cannot_read(tmp_path: Path, invoke: Any) -> None:
    shop = Shop(tmp_path / "home")
    wanted = [
        event(user_id="u-17", anonymous_id="a-17", event_id="e-1"),
        event(user_id=None, anonymous_id="a-17", event_id="e-2"),
    ]
    failed = event(properties={"product_id": 1}, user_id="u-17", event_id="e-3")
    shop.land(
        "a.jsonl",
        [*wanted, failed, event(user_id="u-17", consent=None, event_id="e-4"), event(user_id="u-2", event_id="e-5")],
    )
    shop.ingest()
    folder = tmp_path / "answer"
    done = invoke(shop, "export", "u-17", str(folder))
    assert done.exit_code == 0, done.output
    parts = {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}
    assert [row["event_id"] for row in parts["events"]] == ["e-1", "e-2"]
    assert [json.loads(line)["event_id"] for line in parts["lines_kept_as_they_came"]] == ["e-3"]
    assert [json.loads(entry["line"])["event_id"] for entry in parts["landed_lines"]] == ["e-1", "e-2", "e-3", "e-4"]
    assert parts["identities"] == {"user_id": "u-17", "anonymous_ids": ["a-17"], "device_ids": []}
    assert {entry["purpose"]: entry["status"] for entry in parts["consent"]} == dict.fromkeys(PLAN.purposes, "granted")
    assert "u-2" not in json.dumps(parts)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600} and stat.S_IMODE(folder.stat().st_mode) == 0o700

    again = invoke(shop, "export", "u-17", str(folder))
    assert isinstance(again.exception, InputError) and "something here already" in str(again.exception)
    unknown = invoke(shop, "export", "u-99", str(tmp_path / "other"))
    assert unknown.exit_code == 1 and not (tmp_path / "other").exists()


def test_the_command_shows_every_record_and_which_one_decides(tmp_path: Path, invoke: Any) -> None:
    shop = Shop(tmp_path / "home")
    shop.land("a.jsonl", [event(user_id="u-17")])
    shop.ingest()
    shop.consent(
        ("u-17", "analytics", "withdrawn", "2026-02-01T00:00:00Z"),
        ("u-17", "analytics", "granted", "2027-01-01T00:00:00Z"),
    )
    told = invoke(shop, "consent", "u-17").stdout
    assert "analytics: denied, denied by the company's ledger" in told
    assert "* 2026-02-01T00:00:00.000000Z denied   the company's ledger" in told
    assert "> 2027-01-01T00:00:00.000000Z granted  the company's ledger (not in force yet)" in told
    as_json = json.loads(invoke(shop, "consent", "u-17", "--json").stdout)
    assert as_json["erased"] is False and len(as_json["purposes"]) == len(PLAN.purposes)
    assert (
        json.loads(invoke(shop, "consent", "'; DROP TABLE consent; --", "--json").stdout)["purposes"][0]["status"]
        == "denied"
    )


def test_an_unknown_purpose_is_refused_with_its_line(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home")
    with pytest.raises(InputError, match=r"consent\.csv:2"):
        shop.consent(("u-17", "sorcery", "granted", "2026-02-01T00:00:00Z"))


def test_the_register_names_every_store_its_basis_and_its_recipients(tmp_path: Path, invoke: Any) -> None:
    shop = Shop(tmp_path / "home")
    found = json.loads(invoke(shop, "register", "--json").stdout)
    assert [store["name"] for store in found["stores"]] == [store.name for store in STORES]
    for store in found["stores"]:
        assert all(store[key] for key in ("holds", "owner", "recipients", "retention", "erasure"))
        assert bool(store["legal_basis"]) == store["people"]
    assert {purpose["purpose"]: purpose["legal_basis"] for purpose in found["purposes"]} == dict.fromkeys(
        PLAN.purposes, "consent"
    )
    assert {event["event"] for event in found["events"]} == set(PLAN.events)
    assert "legal basis: consent to the event's category" in invoke(shop, "register").stdout


def test_the_register_names_who_receives_what(tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path / "home")
    assert json.loads(invoke(shop, "register", "--json").stdout)["destinations"] == [], "the packaged example is off"
    (tmp_path / "contracts").mkdir()
    on = (PACKAGED / "privacy.yaml").read_text().replace("enabled: false\n", "enabled: true\n")
    (tmp_path / "contracts" / "privacy.yaml").write_text(on)
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(tmp_path / "contracts"))
    [found] = json.loads(invoke(shop, "register", "--json").stdout)["destinations"]
    assert (found["recipient"], found["purposes"]) == ("Example Ads Ltd, processor", ["personalization"])
    assert found["segments"] == ["seg_recent_buyers"] and "pseudonyms" in found["data"]
    assert "destination ad_network: Example Ads Ltd, processor." in invoke(shop, "register").stdout
