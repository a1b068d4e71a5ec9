"""Retention of segment history: a membership that has ended goes so many days after its end, on the clock of the run.

Belongs here: which memberships are over, and removing them with an audit row. Does not belong here: whether it is enforced
(privacy.yaml: retention.segment_history), the lake (tracking/retention.py). Open memberships stay however old.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.ledger import Ledger


@dataclass(frozen=True)
class HistoryOver:
    """Memberships of one segment that are over, and the days on which the first and the last of them ended."""

    segment: str
    memberships: int
    first_day: date
    last_day: date


def history_over(ledger: Ledger, days: int, as_of: datetime) -> list[HistoryOver]:
    """What is older than so many days, by segment; nothing is written."""
    with ledger.read() as db:
        return _over(db, utc_text(as_of - timedelta(days=days)))


def expire_history(ledger: Ledger, days: int, as_of: datetime) -> int:
    """Remove it, entry and exit, with an audit row a segment; returns the memberships removed."""
    limit = utc_text(as_of - timedelta(days=days))
    with ledger.transaction() as db:
        db.execute("PRAGMA secure_delete = ON")  # SQLite leaves the bytes of deleted rows in the file otherwise
        over = _over(db, limit)
        db.executemany(
            "INSERT INTO expired_memberships VALUES (?, ?, ?, ?, ?) ON CONFLICT (as_of, segment) DO UPDATE SET "
            "memberships = memberships + excluded.memberships, first_day = min(first_day, excluded.first_day), "
            "last_day = max(last_day, excluded.last_day)",
            [
                (utc_text(as_of), o.segment, o.memberships, o.first_day.isoformat(), o.last_day.isoformat())
                for o in over
            ],
        )
        if over:
            db.execute(_REMOVE_SQL, [limit])
    return sum(one.memberships for one in over)


def _over(db: sqlite3.Connection, limit: str) -> list[HistoryOver]:
    rows = db.execute(
        "SELECT segment, count(*), min(happened_at), max(happened_at) FROM membership "
        "WHERE change = 'exit' AND happened_at < ? GROUP BY segment ORDER BY segment", [limit],
    ).fetchall()  # fmt: skip
    return [HistoryOver(segment, n, _day(first), _day(last)) for segment, n, first, last in rows]


def _day(text: str) -> date:
    return datetime.fromisoformat(text).date()


# Entries and exits of one entity take turns, and time never goes back: what stands before an exit that is over is over too.
_REMOVE_SQL = """
    DELETE FROM membership WHERE seq IN (
        SELECT m.seq FROM membership AS m JOIN (
            SELECT segment, entity_type, entity_id, max(seq) AS last_seq FROM membership
            WHERE change = 'exit' AND happened_at < ? GROUP BY segment, entity_type, entity_id
        ) AS over USING (segment, entity_type, entity_id)
        WHERE m.seq <= over.last_seq
    )
"""
