"""`zantara quarantine` and `zantara plan` as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from event_lines import RULES, Shop, event, viewed
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.errors import InputError

SECRET = "joe.bloggs@example.com"


def say(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path / "home"))
    shop = Shop(tmp_path / "home", RULES)
    shop.land(
        "a.jsonl",
        [event(), viewed(price="5", brand=SECRET), viewed(price="6"), event("wishlist_added", {"product_id": "p"})],
    )
    shop.ingest()
    return shop


def test_an_empty_home_has_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path))
    assert "0 lines in quarantine" in say("quarantine", "list")
    assert "0 lines judged" in say("quarantine", "replay")
    assert json.loads(say("quarantine", "diff", "--json")) == []


def test_list_show_diff_and_discard(shop: Shop) -> None:
    listed = json.loads(say("quarantine", "list", "--json"))
    assert [(kind["event"], kind["rows"]) for kind in listed] == [("product_view", 2), ("wishlist_added", 1)]
    texts = say("quarantine", "list")
    first = listed[0]["fingerprint"][:8]
    shown = say("quarantine", "show", first)
    assert "wrong_type $.properties.price: expected money, is string (2)" in shown
    assert SECRET not in texts + shown and SECRET in say("quarantine", "show", first, "--payloads", "2")
    assert "3 lines judged again, 3 with the same verdict" in say("quarantine", "diff")
    assert "2 lines removed" in say("quarantine", "discard", first, "--reason", "test traffic")
    assert "1 lines in quarantine" in say("quarantine", "list")


def test_a_plan_that_learns_the_event_lets_it_in(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"event": "wishlist_added", "properties": {"product_id": "string"}, "description": "Wished for."}
    (tmp_path / "entry.json").write_text(json.dumps(entry))
    imported = say("plan", "import", str(tmp_path / "entry.json"), "--out", str(tmp_path / "ours"))
    assert "'consent_category' is missing" in imported
    path = tmp_path / "ours" / "tracking_plan" / "wishlist_added.yaml"
    path.write_text(path.read_text() + "consent_category: analytics\n")
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(tmp_path / "ours"))
    assert "wishlist_added: unknown_event $.event -> accepted" in say("quarantine", "diff")
    assert "1 would be accepted" in say("quarantine", "replay", "--dry-run")
    assert json.loads(say("quarantine", "list", "--json"))[-1]["event"] == "wishlist_added"
    replayed = json.loads(say("quarantine", "replay", "--json"))
    assert (replayed["accepted"], replayed["quarantined"], replayed["touched_dates"]) == (1, 2, ["2026-03-01"])
    assert [row["event"] for row in shop.accepted()] == ["product_view", "wishlist_added"]


def test_files_of_the_plan(tmp_path: Path) -> None:
    out = tmp_path / "schemas"
    assert "12 files from the plan" in say("plan", "codegen", "json-schema", "--out", str(out))
    assert (out / "purchase.schema.json").exists()


# Natural mistakes: one line, exit code 2, nothing written

FIXES = """version: 1-0-0
owner: growth-data@example.com
reason: prices came as text
fixes:
  - event: EVENT
    fingerprint: PRINT
    cast: {price: number}
"""


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["quarantine", *arguments])
    assert isinstance(done.exception, InputError) and "\n" not in str(done.exception)
    return str(done.exception)


def test_a_fingerprint_that_is_none_is_refused(shop: Shop) -> None:
    verbs = (["show"], ["diff"], ["replay"], ["discard", "--reason", "x"])
    before = shop.everything()
    for verb in verbs:
        assert "nothing in quarantine begins with 'zz'" in refused(*verb, "zz")
        assert "2 kinds of failure begin with ''" in refused(*verb, "")
    assert shop.everything() == before
    first = json.loads(say("quarantine", "list", "--json"))[0]["fingerprint"]
    say("quarantine", "discard", first, "--reason", "test traffic")
    for verb in verbs:
        assert "a fingerprint is empty" in refused(*verb, " "), "the only kind is not meant by nothing"
    assert len(shop.quarantined()) == 1


def test_a_fingerprint_may_be_typed_in_capitals(shop: Shop) -> None:
    [*_, last] = json.loads(say("quarantine", "list", "--json"))
    assert say("quarantine", "show", last["fingerprint"].upper()) == say("quarantine", "show", last["fingerprint"])


def test_lines_are_not_given_up_without_a_reason(shop: Shop) -> None:
    first = json.loads(say("quarantine", "list", "--json"))[0]["fingerprint"]
    assert refused("discard", first, "--reason", " ").startswith("--reason: the reason is empty")
    assert len(shop.quarantined()) == 3


def test_what_was_discarded_or_replayed_cannot_be_chosen_again(shop: Shop, tmp_path: Path) -> None:
    first, second = (kind["fingerprint"] for kind in json.loads(say("quarantine", "list", "--json")))
    say("quarantine", "discard", second, "--reason", "test traffic")
    file = tmp_path / "fixes.yaml"
    file.write_text(FIXES.replace("EVENT", "product_view").replace("PRINT", first))
    assert "2 are accepted" in say("quarantine", "replay", first, "--fixes", str(file))
    for gone in (first, second):
        assert "nothing in quarantine begins" in refused("replay", gone)
        assert "nothing in quarantine begins" in refused("discard", gone, "--reason", "again")
    assert "0 lines judged" in say("quarantine", "replay", "--fixes", str(file)), "the whole replay may be repeated"


def test_a_fix_for_nothing_is_refused_with_its_key(shop: Shop, tmp_path: Path) -> None:
    first = json.loads(say("quarantine", "list", "--json"))[0]["fingerprint"]
    file = tmp_path / "fixes.yaml"
    for verb in ("diff", "replay"):
        file.write_text(FIXES.replace("EVENT", "product_veiw").replace("PRINT", first))
        said = refused(verb, "--fixes", str(file))
        assert said.startswith(f"{file}: key 'fixes.0.event': no event 'product_veiw' in the plan or in quarantine")
        file.write_text(FIXES.replace("EVENT", "product_view").replace("PRINT", "zz"))
        said = refused(verb, "--fixes", str(file))
        assert said.startswith(f"{file}: key 'fixes.0.fingerprint': nothing in quarantine begins with 'zz'")
    assert len(shop.quarantined()) == 3


def test_the_first_letters_of_a_fingerprint_are_enough_in_a_fix(shop: Shop, tmp_path: Path) -> None:
    first = json.loads(say("quarantine", "list", "--json"))[0]["fingerprint"]
    file = tmp_path / "fixes.yaml"
    file.write_text(FIXES.replace("EVENT", "product_view").replace("PRINT", f'"{first[:6]}"'))
    assert "2 are accepted" in say("quarantine", "replay", "--fixes", str(file))
    assert first in shop.query("SELECT fixes FROM replays")[0][0], "what was done is recorded whole"


def test_a_damaged_file_is_named(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("u-1")
    [path] = shop.home.quarantine.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    erase = ["erase", "--users", str(tmp_path / "ids.txt")]
    for verb in (["list"], ["show", "0f"], ["diff"], ["replay"], ["discard", "0f", "--reason", "x"], erase):
        assert refused(*verb).startswith(f"{path}: this file of the quarantine is damaged; restore it from a backup")
