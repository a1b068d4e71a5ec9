"""What events say of consent must not depend on the order in which their files land."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from event_lines import Shop, event

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.ingest import ingest
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.verdict import Rules

START = datetime(2026, 3, 1, tzinfo=UTC)


def _line(day: int, granted: bool) -> str:
    moment = (START + timedelta(days=day)).isoformat().replace("+00:00", "Z")
    consent = {"analytics": True, "personalization": granted}
    event = {"event_id": f"e{day}", "event": "session_started", "timestamp": moment, "user_id": "u1"}
    return json.dumps(event | {"properties": {"entry_page": "home"}, "consent": consent})


def _statements(home: Home, files: list[list[tuple[int, bool]]]) -> list[tuple[str, str]]:
    rules = Rules(load_plan([PACKAGED]), 24, 30)
    ledger = Ledger(home.create().state / "ledger.db")
    for number, days in enumerate(files):
        (home.landing / "events" / f"{number}.jsonl").write_text("\n".join(_line(*day) for day in days))
        ingest(home, ledger, home.landing / "events", rules, threads=1)
    with ledger.read() as db:
        rows = db.execute(
            "SELECT effective_from, status FROM consent WHERE purpose = 'personalization' ORDER BY 1, 2"
        ).fetchall()
    return [(moment[8:10], status) for moment, status in rows]


def test_a_late_event_does_not_override_what_the_person_said_after_it(tmp_path: Path) -> None:
    """Denied on day 5 and 9; a late grant of day 7 must not leave the person granted (this once failed open)."""
    assert _statements(Home(tmp_path), [[(5, False)], [(9, False)], [(7, True)]]) == [
        ("06", "denied"),
        ("08", "granted"),
        ("10", "denied"),
    ]


def test_the_same_word_again_is_not_kept(tmp_path: Path) -> None:
    assert _statements(Home(tmp_path), [[(1, True), (2, True)], [(3, True)], [(4, True)]]) == [("02", "granted")]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]])
def test_the_latest_word_is_the_same_whatever_landed_first(tmp_path: Path, order: list[int]) -> None:
    said = [(1, True), (4, False), (6, True), (9, False)]
    found = _statements(Home(tmp_path), [[said[i]] for i in order])
    assert found == [("02", "granted"), ("05", "denied"), ("07", "granted"), ("10", "denied")]


def _heard(tmp_path: Path, *lines: dict[str, object]) -> list[tuple[str, str]]:
    """What the ledger says of u-1's personalization after one ingest."""
    shop = Shop(tmp_path)
    shop.land("a.jsonl", lines)
    shop.ingest()
    return [(since[:16], status) for _, of, status, since in shop.statements() if of == "personalization"]


NO = {"analytics": True, "personalization": False}


@pytest.mark.parametrize("stamp", ["yesterday", "2099-01-01T00:00:00Z", ..., None], ids=str)
def test_a_withdrawal_without_a_usable_timestamp_holds_from_its_receipt(tmp_path: Path, stamp: object) -> None:
    line = event(timestamp=stamp, received_at="2026-03-01T12:00:00Z", consent=NO)
    assert _heard(tmp_path, line) == [("2026-03-01T12:00", "denied")]


@pytest.mark.parametrize("stamp", ["yesterday", "2099-01-01T00:00:00Z", ...], ids=str)
def test_a_grant_without_a_usable_timestamp_is_not_learnt(tmp_path: Path, stamp: object) -> None:
    assert _heard(tmp_path, event(timestamp=stamp, received_at="2026-03-01T12:00:00Z")) == []


def test_a_withdrawal_without_any_usable_time_holds_from_the_latest_receipt_known(tmp_path: Path) -> None:
    said = event(timestamp="2026-03-01T10:00:00Z", received_at="2026-03-01T10:00:05Z")
    timeless = event(timestamp="?", received_at="?", consent=NO)
    assert _heard(tmp_path, said, timeless) == [("2026-03-01T10:00", "granted"), ("2026-03-01T10:00", "denied")]


def test_a_withdrawal_from_the_future_is_in_force_from_its_receipt_and_a_grant_from_its_time(tmp_path: Path) -> None:
    """A device three hours ahead: what it granted meanwhile does not count."""
    denied = event(timestamp="2026-03-01T13:00:00Z", received_at="2026-03-01T10:00:00Z", consent=NO)
    meanwhile = event(timestamp="2026-03-01T12:00:00Z", received_at="2026-03-01T12:00:00Z")
    later = event(timestamp="2026-03-01T15:00:00Z", received_at="2026-03-01T14:00:00Z")
    assert _heard(tmp_path, denied, meanwhile, later) == [
        ("2026-03-01T10:00", "denied"),
        ("2026-03-01T15:00", "granted"),
    ]


def test_a_ledger_of_an_earlier_version_counts_what_it_forgot_as_denied(tmp_path: Path) -> None:
    """Denied on day 5 and, last, on day 9: a late grant of day 7 does not count, for there may have been a day 8."""
    shop = Shop(tmp_path)
    with shop.ledger.transaction() as db:
        db.execute(
            "CREATE TABLE consent_seen (user_id TEXT, purpose TEXT, status TEXT, effective_from TEXT, "
            "PRIMARY KEY (user_id, purpose)) WITHOUT ROWID"
        )
        names = "user_id, purpose, status, effective_from"
        for table, day, more in (("consent (" + names + ", origin)", "05", ", 'event'"), ("consent_seen", "09", "")):
            db.execute(
                f"INSERT INTO {table} VALUES ('u-1', 'personalization', 'denied', '2026-03-{day}T00:00:00.000000Z'{more})"
            )
    again = [event(timestamp=f"2026-03-{day}T00:00:00Z", received_at=...) for day in ("07", "10")]
    assert _heard(tmp_path, *again) == [("2026-03-05T00:00", "denied"), ("2026-03-10T00:00", "granted")]
