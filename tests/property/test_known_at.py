"""Since when a statement of consent is known: runs of random clocks against a record of what the ledger held at each."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zantara_pipeline.privacy.consent import Statement, append, date_new_statements, utc_text
from zantara_pipeline.storage.ledger import Ledger

START = datetime(2026, 3, 1, tzinfo=UTC)
# (how far the clock moves, whether the next statements deny); a run takes one statement and then builds
runs = st.lists(st.tuples(st.integers(-2, 3), st.booleans()), min_size=1, max_size=12)


class QuickLedger(Ledger):
    """Nothing here outlives the test."""

    def connect(self) -> sqlite3.Connection:
        db = super().connect()
        db.execute("PRAGMA synchronous = OFF")
        return db


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with tempfile.TemporaryDirectory() as folder:
        yield QuickLedger(Path(folder) / "ledger.db")


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def counted(ledger: Ledger, as_of: datetime) -> set[str]:
    """Whose statements count at a clock, all of them effective long before."""
    with ledger.read() as db:
        rows = db.execute("SELECT user_id, unknown_at FROM consent").fetchall()
    return {user for user, unknown_at in rows if not unknown_at or unknown_at < utc_text(as_of)}


def run(ledger: Ledger, number: int, clock: int, *, denies: bool) -> None:
    """Take one statement and build for a clock; history is recorded as segments do, never backwards."""
    said = Statement(f"u{number}", "analytics", "denied" if denies else "granted", utc_text(day(-99)), "ledger")
    append(ledger, [said])
    date_new_statements(ledger, day(clock))
    with ledger.transaction() as db:
        latest = db.execute("SELECT max(as_of) FROM segment_sizes").fetchone()[0] or ""
        if latest <= utc_text(day(clock)):
            db.execute("INSERT OR REPLACE INTO segment_sizes VALUES ('s', ?, 1, 1)", [utc_text(day(clock))])


def emptied(ledger: Ledger) -> Ledger:
    with ledger.transaction() as db:
        db.execute("DELETE FROM consent")
        db.execute("DELETE FROM segment_sizes")
    return ledger


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=runs)
def test_every_past_clock_counts_what_its_run_counted(ledger: Ledger, said: list[tuple[int, bool]]) -> None:
    """Clocks that only go forward, or stay: of two runs on one clock the later is remembered."""
    emptied(ledger)
    clock, then = 0, dict[int, set[str]]()
    for number, (forward, denies) in enumerate(said):
        clock += max(0, forward)
        run(ledger, number, clock, denies=denies)
        then[clock] = {f"u{n}" for n in range(number + 1)}
    assert {clock: counted(ledger, day(clock)) for clock in then} == then


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=runs)
def test_a_run_that_goes_back_obeys_every_denial_and_adds_nobody_to_the_past(
    ledger: Ledger, said: list[tuple[int, bool]]
) -> None:
    emptied(ledger)
    clock, then = 0, dict[int, set[str]]()
    for number, (moves, denies) in enumerate(said):
        clock += moves
        run(ledger, number, clock, denies=denies)
        back = any(later > clock for later in then)
        assert (f"u{number}" in counted(ledger, day(clock))) == (denies or not back)
        if not back:
            then[clock] = counted(ledger, day(clock))
    granting = {f"u{number}" for number, (_, denies) in enumerate(said) if not denies}
    for clock, members in then.items():
        assert counted(ledger, day(clock)) & granting == members & granting


def test_a_ledger_of_an_earlier_version_counts_denials_always_and_grants_for_its_latest_run_only(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    append(ledger, [Statement(kind, "analytics", kind, utc_text(day(-99)), "event") for kind in ("granted", "denied")])
    with ledger.transaction() as db:
        db.execute("ALTER TABLE consent DROP COLUMN unknown_at")
        db.executemany("INSERT INTO segment_sizes VALUES ('s', ?, 1, 1)", [(utc_text(day(n)),) for n in (1, 2, 3)])
    old = Ledger(path)
    date_new_statements(old, day(4))
    assert [counted(old, day(n)) for n in (0, 2)] == [{"denied"}] * 2
    assert [counted(old, day(n)) for n in (3, 4)] == [{"denied", "granted"}] * 2


def test_a_statement_that_lands_again_keeps_the_day_on_which_it_was_heard_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    run(ledger, 1, 1, denies=False)
    run(ledger, 1, 5, denies=False)
    assert counted(ledger, day(1)) == {"u1"}


def test_the_latest_clock_is_that_of_the_latest_run_and_not_of_the_one_that_asks(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert date_new_statements(ledger, day(2)) == day(2)
    run(ledger, 1, 5, denies=True)
    assert date_new_statements(ledger, day(2)) == day(5)
    assert date_new_statements(ledger, day(9)) == day(9)
