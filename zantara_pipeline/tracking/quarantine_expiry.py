"""Expiry of the quarantine: a line goes no later than an accepted event of its kind would.

Its time is its event's retention_days, or privacy.yaml's quarantine_expiry_days where there are none, counted from its
receipt (first_seen) on the clock of the run. A receipt that nobody can have known is not believed: where it is missing,
or lies more than a day after the line was landed, the line was received when its landed file was (restricted.py).

A property with fewer days than its event takes the whole line with it: see short_lived.py.

Lines of files that the present run itself has taken stay until the next one, also when they are older: history that was
landed under a wrong plan must be there to be replayed.

Belongs here: when a quarantined line expires, removing it, what is remembered of it. Does not belong here: the lake of
accepted events (lake_retention.py), giving lines up for other reasons (replay.discard, quarantine_erasure.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.removal import files_with, read_quarantine, take_out
from zantara_pipeline.tracking.restricted import received_of_commits
from zantara_pipeline.tracking.retention_seen import Seen
from zantara_pipeline.tracking.short_lived import short_lived
from zantara_pipeline.tracking.sql_checks import quote

MEMORY = "300MB"
_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Expired:
    """Lines over their time: removed, and still there (just taken, or expiry is not enforced)."""

    removed: int = 0
    waiting: int = 0


def expire_quarantine(
    home: Home, ledger: Ledger, plan: TrackingPlan, as_of: datetime, taken_before: datetime | None = None
) -> Expired:
    """Remove the lines whose time was over at `as_of`. Call `commits.recover` (an ingest does) first.

    Opens only partitions in which something can be due: older than the shortest time, and changed or due since the last
    look.

    Parameters
    ----------
    as_of : the clock of the run, with zone.
    taken_before : lines of files that were ingested since then (wall clock) wait for the next run.
    """
    seen = Seen(ledger, "quarantine", _rules(plan))
    held = _partitions(home)
    folders = [f for f in held if not _too_young(f, plan, as_of) and not seen.nothing_due(f.name, f, as_of)]
    gone = seen.gone(folder.name for folder in held)
    if not folders and not gone:
        return Expired()
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        removed = waiting = 0
        if folders:
            _learn_receipts(con, ledger, taken_before)
            due = _due(plan, as_of)
            chosen = f"{due} AND NOT coalesce({_JUST_TAKEN}, false)"
            removed = _remove(con, home, ledger, files_with(con, home, chosen, folders), chosen, as_of)
            left = [folder for folder in folders if folder.is_dir()]
            waiting = _count(con, left, due)
            seen.remember({f.name: (f, moment) for f, moment in _next(con, left, plan)}, gone)
        if gone:
            seen.remember({}, gone)
        return Expired(removed, waiting)
    finally:
        con.close()


def overdue_lines(home: Home, ledger: Ledger, plan: TrackingPlan, as_of: datetime) -> int:
    """How many lines are over their time and there; nothing is written."""
    folders = [folder for folder in _partitions(home) if not _too_young(folder, plan, as_of)]
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        _learn_receipts(con, ledger, None)
        return _count(con, folders, _due(plan, as_of))
    finally:
        con.close()


def _partitions(home: Home) -> list[Path]:
    return sorted(f for f in home.quarantine.glob("received_date=*") if any(f.glob("*.parquet")))


def _days(plan: TrackingPlan) -> dict[str, int]:
    return {name: event.retention_days for name, event in sorted(plan.events.items()) if event.retention_days}


def _rules(plan: TrackingPlan) -> str:
    rules = f"{_days(plan)} {plan.privacy.quarantine_expiry_days}"
    names = short_lived(plan)
    return f"{rules} {names}" if names else rules


def _too_young(folder: Path, plan: TrackingPlan, as_of: datetime) -> bool:
    """Whether every line of a partition is younger than any time to keep. A day to come says nothing of its lines' age."""
    day = date.fromisoformat(folder.name.partition("=")[2])
    shortest = min(
        [plan.privacy.quarantine_expiry_days, *_days(plan).values(), *(name.shortest for name in short_lived(plan))]
    )
    return 0 <= (as_of.astimezone(UTC).date() - day).days < shortest


# `of_source` and not `source`: the name must mean the column of the quarantine's row inside the subqueries.
_RECEIPTS = "(of_source VARCHAR, received TIMESTAMPTZ, taken TIMESTAMPTZ, just_taken BOOLEAN)"
_COMMIT_RECEIVED = "(SELECT received FROM receipts WHERE of_source = source)"
_JUST_TAKEN = "(SELECT just_taken FROM receipts WHERE of_source = source)"
_RECEIPT = f"""CASE
    WHEN first_seen <= (SELECT taken + INTERVAL 1 DAY FROM receipts WHERE of_source = source) THEN first_seen
    ELSE coalesce({_COMMIT_RECEIVED}, first_seen) END"""


def _learn_receipts(con: duckdb.DuckDBPyConnection, ledger: Ledger, taken_before: datetime | None) -> None:
    """A table of the landed files: when they were received on the pipeline's clock, and taken on the wall's."""
    received = received_of_commits(ledger)
    with ledger.read() as db:
        rows = db.execute("SELECT source, commit_id, ingested_at FROM ingested_files").fetchall()
    limit = None if taken_before is None else utc_text(taken_before)
    table = pa.table(
        {
            "of_source": pa.array([source for source, _, _ in rows], pa.string()),
            "received": pa.array([received[commit].isoformat() for _, commit, _ in rows], pa.string()),
            "taken": pa.array([taken for _, _, taken in rows], pa.string()),
            "just_taken": pa.array([limit is not None and taken >= limit for _, _, taken in rows], pa.bool_()),
        }
    )
    con.register("arrow_receipts", table)
    con.execute(f"CREATE TEMP TABLE receipts {_RECEIPTS}")
    con.execute("INSERT INTO receipts SELECT * FROM arrow_receipts")
    con.unregister("arrow_receipts")


def _ends(plan: TrackingPlan) -> str:
    """SQL: when a line's time is over, in microseconds; null where its receipt cannot be known."""
    cases = "".join(f" WHEN {quote(name)} THEN {days}" for name, days in _days(plan).items())
    fallback = plan.privacy.quarantine_expiry_days
    kept = f"CASE event{cases} ELSE {fallback} END" if cases else str(fallback)
    values = [name.days_sql() for name in short_lived(plan)]
    if values:  # least() passes over nulls: names that a line does not carry
        kept = f"least({', '.join([kept, *values])})"
    return f"(epoch_us({_RECEIPT}) + ({kept}) * {_DAY_US})"


def _due(plan: TrackingPlan, as_of: datetime) -> str:
    """SQL: a line whose time is over. One whose age nothing can tell has no right to stay."""
    return f"coalesce({_ends(plan)} < epoch_us(TIMESTAMPTZ {quote(as_of.astimezone(UTC).isoformat())}), true)"


def _count(con: duckdb.DuckDBPyConnection, folders: Sequence[Path], condition: str) -> int:
    if not folders:
        return 0
    lines = read_quarantine(*(str(folder / "*.parquet") for folder in folders))
    return int(con.execute(f"SELECT count(*) FROM {lines} WHERE {condition}").fetchall()[0][0])


def _next(
    con: duckdb.DuckDBPyConnection, folders: Sequence[Path], plan: TrackingPlan
) -> list[tuple[Path, datetime | None]]:
    """When the next line of each partition is due."""
    if not folders:
        return []
    lines = read_quarantine(*(str(folder / "*.parquet") for folder in folders))
    query = f"SELECT received_date, min({_ends(plan)}) FROM {lines} GROUP BY 1"
    moments = {f"received_date={day}": _moment(us) for day, us in con.execute(query).fetchall()}
    return [(folder, moments[folder.name]) for folder in folders]


def _moment(microseconds: int | None) -> datetime | None:
    """A time of the engine; None where it lies beyond the calendar."""
    try:
        return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def _remove(
    con: duckdb.DuckDBPyConnection, home: Home, ledger: Ledger, files: Sequence[str], chosen: str, as_of: datetime
) -> int:
    if not files:
        return 0
    kinds = con.execute(_KINDS_SQL.format(lines=read_quarantine(*(str(home.lake / f) for f in files)), chosen=chosen))
    rows = [(f, event, said, _text(low), _text(high), n) for f, event, said, low, high, n in kinds.fetchall()]

    def record(db: sqlite3.Connection, expiry_id: str, _: int) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO expired_lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(expiry_id, utc_text(as_of), *row) for row in rows],
        )

    return take_out(con, home, ledger, files, chosen, "expiry", record)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)


_KINDS_SQL = """
    SELECT fingerprint, any_value(event),
        any_value(list_aggregate(list_sort(list_transform(reasons, lambda r: r.code || ' ' || r.path)), 'string_agg', ', ')),
        min(first_seen), max(first_seen), count(*)
    FROM {lines} WHERE {chosen} GROUP BY fingerprint
"""
