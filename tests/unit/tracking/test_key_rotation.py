"""Rotation of keys: stored hashes become those of the last key, join with what comes later, and no kill leaves a half."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from event_lines import RULES, Shop, event
from test_direct_identifiers import JOE, ONE, RING, TWO, WRONG, plan_with, signed, stands_in, token
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.keyed_hash import Key, Keyring
from zantara_pipeline.storage.home import home_lock
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking import commits, key_rotation
from zantara_pipeline.tracking.audit import audit_accepted
from zantara_pipeline.tracking.key_rotation import Rotated, rotate_keys
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.replay import replay
from zantara_pipeline.tracking.sources import NOTHING_NEW, mark_staged, prepare

BOTH_KEYS = Keyring((*RING.keys, Key("k2", TWO)))
AS_OF = datetime(2026, 3, 9, tzinfo=UTC)


def on(day: int, line: dict[str, Any]) -> dict[str, Any]:
    when = f"2026-03-{day:02d}T10:00:00Z"
    return line | {"timestamp": when, "received_at": when, "event_id": f"{line['event_id']}-{day}"}


LINES = [
    *(on(day, signed(f"{name}@example.com", n)) for day in (2, 3, 4) for n, name in enumerate(("joe.bloggs", "ann"))),
    on(3, signed(JOE, 7, phone="49")),
    on(3, signed(JOE, 8, plan_name="silver", amount=1.5)),
    on(4, signed(WRONG, 9)),
    on(4, event("product_view", {"product_id": "p-1"}, event_id="e-10")),
    on(4, event("product_view", {"product_id": "p-1", "colour": "red"}, event_id="e-11")),
]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return landed(tmp_path, "home", RING)


def landed(tmp_path: Path, name: str, keyring: Keyring) -> Shop:
    shop = Shop(tmp_path / name, replace(RULES, plan=plan_with(tmp_path / "contracts"), keyring=keyring))
    shop.land("a.jsonl", LINES)
    shop.ingest()
    return shop


def rotated(shop: Shop, keyring: Keyring = BOTH_KEYS, *, dry_run: bool = False) -> Rotated:
    return rotate_keys(shop.home, shop.ledger, shop.rules.plan, keyring, dry_run=dry_run)


def test_a_rotated_home_is_one_that_had_both_keys_from_the_start(tmp_path: Path, shop: Shop) -> None:
    never = landed(tmp_path, "never", BOTH_KEYS)
    assert shop.accepted() != never.accepted() and token(JOE) in str(shop.accepted())
    assert rotated(shop) == Rotated("k2", 3, 7, 2, 2, date(2026, 3, 2))
    assert shop.accepted() == never.accepted() and shop.quarantined() == never.quarantined()
    assert not stands_in(shop, "hashed:k1:") and not stands_in(shop, "unchecked:k1:")
    assert token(JOE, ONE, TWO) in str(shop.accepted()) and token(JOE, ONE, TWO) in str(shop.quarantined())


def test_values_that_come_after_a_rotation_join_with_those_before(shop: Shop) -> None:
    rotated(shop)
    shop.rules = replace(shop.rules, keyring=BOTH_KEYS)
    shop.land("b.jsonl", [on(5, signed(JOE, 1))])
    shop.ingest()
    people: dict[str, int] = {}
    for row in shop.accepted():
        if row.get("email"):
            people[row["email"]] = people.get(row["email"], 0) + 1
    assert people == {token(JOE, ONE, TWO): 4 + 1, token("ann@example.com", ONE, TWO): 3}


def test_a_second_rotation_and_a_dry_run_write_nothing(shop: Shop) -> None:
    before = shop.everything()
    told = rotated(shop, dry_run=True)
    assert shop.everything() == before and not shop.query("SELECT * FROM key_rotations")
    assert rotated(shop) == told
    files = sorted((path, path.stat().st_mtime_ns) for path in shop.home.lake.rglob("*.parquet"))
    assert rotated(shop) == Rotated("k2") == rotated(shop, dry_run=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in shop.home.lake.rglob("*.parquet")) == files
    assert len(shop.query("SELECT * FROM key_rotations")) == 1


def test_only_files_that_hold_older_hashes_are_written_again(shop: Shop) -> None:
    others = {path for path in shop.home.accepted.rglob("*.parquet") if "product_view" in str(path)}
    before = {path: path.stat().st_mtime_ns for path in others}
    rotated(shop)
    assert len(others) == 1 and {path: path.stat().st_mtime_ns for path in others} == before
    assert {path.parent.parent.name for path in shop.home.accepted.rglob("*.parquet")} == {"event=product_view", "event=signed_up"}  # fmt: skip
    kinds = {
        str(duckdb.sql(f"SELECT typeof(email), typeof(phone), typeof(amount) FROM '{path}' LIMIT 1").fetchall())
        for path in shop.home.accepted.glob("event=signed_up/*/*.parquet")
    }
    assert kinds == {"[('VARCHAR', 'VARCHAR', 'DECIMAL(18,4)')]"}


def test_a_line_that_was_rotated_in_quarantine_is_replayed_as_if_it_had_come_now(tmp_path: Path, shop: Shop) -> None:
    right = replace(shop.rules, plan=plan_with(tmp_path / "right", plan_name={"enum": ["silver"]}), keyring=BOTH_KEYS)
    before = shop.reasons()
    rotated(shop)
    assert shop.reasons() == before
    assert replay(shop.home, shop.ledger, right).accepted == 1
    [row] = [row for row in shop.accepted() if row["event_id"] == "e-8-3"]
    assert (row["email"], str(row["amount"])) == (token(JOE, ONE, TWO), "1.5000")
    assert {reason for reasons in shop.reasons().values() for reason in reasons} == {
        ("pattern_mismatch", "$.properties.email"), ("unknown_key", "$.properties.colour"),
    }  # fmt: skip


def test_a_line_that_was_not_rotated_yet_is_replayed_with_the_last_key(tmp_path: Path, shop: Shop) -> None:
    right = replace(shop.rules, plan=plan_with(tmp_path / "right", plan_name={"enum": ["silver"]}), keyring=BOTH_KEYS)
    assert replay(shop.home, shop.ledger, right).accepted == 1
    [row] = [row for row in shop.accepted() if row["event_id"] == "e-8-3"]
    assert row["email"] == token(JOE, ONE, TWO)


def test_three_keys_in_two_steps_are_three_keys_at_once(tmp_path: Path, shop: Shop) -> None:
    three = Keyring((*BOTH_KEYS.keys, Key("k3", b"3" * 40)))
    never = landed(tmp_path, "never", three)
    rotated(shop)
    assert rotated(shop, three).accepted_rows == 7
    assert shop.accepted() == never.accepted() and shop.quarantined() == never.quarantined()


def test_values_stored_before_their_property_was_direct_are_hashed(tmp_path: Path) -> None:
    plain = plan_with(tmp_path / "plain", email={"pii": "none"}, phone={"type": "integer", "pii": "none"})
    shop = Shop(tmp_path / "home", replace(RULES, plan=plain))
    shop.land("a.jsonl", [on(2, signed(JOE, 1, phone=49)), on(2, signed(JOE, 2, plan_name="x")), on(3, signed(WRONG, 3))])  # fmt: skip
    shop.ingest()
    folder = tmp_path / "direct"
    plan_with(folder)
    path = folder / "tracking_plan" / "signed_up.yaml"
    data = yaml.safe_load(path.read_text()) | {"version": "2-0-0"}
    data["migrations"] = [{"property": "phone", "since": "2-0-0", "from": "integer", "to": "string"}]
    path.write_text(yaml.safe_dump(data))
    shop.rules = replace(RULES, plan=load_plan([PACKAGED, folder]), keyring=RING)
    assert stands_in(shop, JOE) and stands_in(shop, WRONG) and shop.accepted()[0]["phone"] == 49
    assert rotated(shop, RING) == Rotated("k1", 1, 1, 2, 2, date(2026, 3, 2))
    assert not stands_in(shop, JOE) and not stands_in(shop, WRONG)
    assert (shop.accepted()[0]["email"], shop.accepted()[0]["phone"]) == (token(JOE), token("49"))
    assert rotated(shop, RING) == Rotated("k1")


def test_hashes_under_an_earlier_name_of_the_property_are_rotated(tmp_path: Path, shop: Shop) -> None:
    folder = tmp_path / "renamed"
    plan_with(folder)
    path = folder / "tracking_plan" / "signed_up.yaml"
    data = yaml.safe_load(path.read_text()) | {"version": "2-0-0"}
    data["properties"]["mail"] = data["properties"].pop("email")
    data["migrations"] = [{"property": "mail", "since": "2-0-0", "renamed_from": "email"}]
    path.write_text(yaml.safe_dump(data))
    shop.rules = replace(shop.rules, plan=load_plan([PACKAGED, folder]))
    assert rotated(shop).accepted_rows == 7 and not stands_in(shop, "hashed:k1:")


def test_hashes_of_an_event_that_left_the_plan_are_rotated(tmp_path: Path, shop: Shop) -> None:
    shop.rules = replace(shop.rules, plan=RULES.plan)
    assert rotated(shop).accepted_rows == 7 and rotated(shop).accepted_rows == 0
    assert not stands_in(shop, "hashed:k1:") and token(JOE, ONE, TWO) in str(shop.accepted())


@pytest.mark.parametrize("keyring", [Keyring((Key("k2", TWO),)), Keyring((Key("k2", TWO), *RING.keys))])
def test_a_keyring_without_the_old_keys_in_their_place_is_refused(shop: Shop, keyring: Keyring) -> None:
    before = shop.everything()
    with pytest.raises(InputError, match="give the old keys back in their order"):
        rotated(shop, keyring)
    assert shop.everything() == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["writing", "staging", "staged", "moving", "removing"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_killed_rotation_is_finished_or_never_was(
    tmp_path: Path, shop: Shop, moment: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, never = shop.everything(), landed(tmp_path, "never", RING)
    rotated(never)
    places: dict[str, tuple[Any, str, int]] = {
        "writing": (key_rotation._Rotation, "_copy", nth), "staging": (key_rotation, "stage", 1),
        "staged": (key_rotation, "move_in", 1), "moving": (Path, "replace", nth), "removing": (Path, "unlink", nth),
    }  # fmt: skip
    where, name, count = places[moment]
    real, calls = getattr(where, name), iter(range(1, 10**6))

    def now_and_then(*arguments: Any, **names: Any) -> Any:
        if next(calls) == count:
            raise Killed
        return real(*arguments, **names)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, now_and_then)
        with pytest.raises(Killed):
            rotated(shop)
    shop.ledger = Ledger(shop.ledger.path)
    commits.recover(shop.home, shop.ledger)
    counted = shop.query("SELECT files, rows, first_received_date FROM key_rotations")
    if moment in ("writing", "staging"):
        assert shop.everything() == before and counted == []
    else:
        assert shop.everything() == never.everything() and counted == [(5, 9, "2026-03-02")]
    rotated(shop)
    assert shop.everything() == never.everything() and not list(shop.home.incoming.glob("*"))
    assert shop.query("SELECT files, rows FROM key_rotations") == [(5, 9)]


@pytest.fixture
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    yield con
    con.close()


def test_the_next_run_stages_from_the_first_rewritten_date(shop: Shop, warehouse: duckdb.DuckDBPyConnection) -> None:
    def staged_from() -> date:
        prepared = prepare(warehouse, shop.home, shop.ledger, shop.rules.plan, build="b", as_of=AS_OF, max_lateness_days=30)  # fmt: skip
        return prepared.rebuild_from

    assert staged_from() == date(1, 1, 1)
    mark_staged(warehouse, "b")
    assert staged_from() == NOTHING_NEW
    rotated(shop)
    assert staged_from() == date(2026, 3, 2) == staged_from()
    emails = {row[0] for row in warehouse.execute("SELECT email FROM lake.signed_up").fetchall()}
    assert emails == {token(JOE, ONE, TWO), token("ann@example.com", ONE, TWO)}
    mark_staged(warehouse, "b")
    assert staged_from() == NOTHING_NEW


def test_pandera_finds_rotated_days_right(shop: Shop) -> None:
    rotated(shop)
    assert audit_accepted(shop.home, shop.rules.plan).problems == []


def test_the_verb_tells_what_it_did_and_never_a_key(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"k1: {ONE.hex()}\nk2: {TWO.hex()}\n")
    keys.chmod(0o600)
    monkeypatch.setenv("ZANTARA_HOME", str(shop.home.root))
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(tmp_path / "contracts"))
    monkeypatch.delenv("ZANTARA_PII_KEYS", raising=False)
    monkeypatch.setenv("ZANTARA_PII_KEYS_FILE", str(keys))
    run = CliRunner().invoke
    dry = json.loads(run(app, ["privacy", "rotate-keys", "--dry-run", "--json"]).stdout)
    assert dry == {"key": "k2", "accepted_files": 3, "accepted_rows": 7, "quarantine_files": 2, "quarantine_lines": 2,
                   "first_date": "2026-03-02", "dry_run": True}  # fmt: skip
    with home_lock(shop.home, "somebody"):
        held = run(app, ["privacy", "rotate-keys"]).exception
        assert isinstance(held, InputError) and "written by somebody" in str(held)
    done = run(app, ["privacy", "rotate-keys"])
    assert done.exit_code == 0 and "7 accepted rows in 3 files and 2 quarantined lines in 2 files are hashed up" in done.stdout  # fmt: skip
    assert "run `zantara run` to rebuild the tables from 2026-03-02" in done.stdout
    assert ONE.hex() not in done.output and TWO.hex() not in done.output
    monkeypatch.delenv("ZANTARA_PII_KEYS_FILE")
    missing = run(app, ["privacy", "rotate-keys"]).exception
    assert isinstance(missing, InputError) and "no key is set" in str(missing)


def test_a_home_whose_ledger_was_copied_with_it_rotates_at_its_new_place(tmp_path: Path, shop: Shop) -> None:
    shutil.copytree(shop.home.root, tmp_path / "copy")
    copy = Shop(tmp_path / "copy", shop.rules)
    rotated(shop)
    rotated(copy)
    assert copy.accepted() == shop.accepted()
