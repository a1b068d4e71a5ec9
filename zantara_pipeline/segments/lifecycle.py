"""Who came, who went and why: the history of memberships, kept in the ledger.

The models only know who is a member now. Every run compares that with the memberships that are open and appends what
changed. An open membership remembers until when it was good, so that an exit by time is told from one by the rule.

Belongs here: entries and exits with their reasons. Does not belong here: who qualifies (dbt models), tables that are
written from the history (tables.py), who may read what (visibility.py, reading.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.segments.contract import Segment
from zantara_pipeline.storage.ledger import Ledger


@dataclass(frozen=True)
class MembershipChanges:
    """Entries and exits that a run appended; skipped: its clock lies before the latest one recorded."""

    entered: int
    exited: int
    skipped: bool = False


def record_membership(
    con: duckdb.DuckDBPyConnection, ledger: Ledger, segments: Sequence[Segment], as_of: datetime
) -> MembershipChanges:
    """Append who entered and who left since the last recorded run; the same run again appends nothing.

    An exit is `ttl` at the moment the membership ran out, whenever the next run came; `consent_withdrawn` and `rule` are
    told at the clock of the run that found it. Who qualified again only after that moment left and entered again.
    """
    now = utc_text(as_of)
    with ledger.transaction() as db:
        latest = db.execute(
            "SELECT max(at) FROM (SELECT max(happened_at) AS at FROM membership UNION ALL SELECT max(as_of) FROM segment_sizes)"
        ).fetchone()[0]
        if latest is not None and latest > now:
            return MembershipChanges(0, 0, skipped=True)
        entered = exited = 0
        for segment in segments:
            came, went = _record(con, db, segment, now)
            entered, exited = entered + came, exited + went
        exited += _close_removed(db, [segment.name for segment in segments], now)
    return MembershipChanges(entered, exited)


def _record(con: duckdb.DuckDBPyConnection, db: sqlite3.Connection, segment: Segment, now: str) -> tuple[int, int]:
    """Entries and exits of one segment."""
    open_rows = db.execute(
        "SELECT entity_id, entered_at, expires_at FROM membership_open WHERE segment = ?", [segment.name]
    ).fetchall()
    names = ("entity_id", "entered_at", "expires_at")
    columns = zip(*open_rows, strict=True) if open_rows else ((), (), ())
    con.register(
        "open_members", pa.table({n: pa.array(c, type=pa.string()) for n, c in zip(names, columns, strict=True)})
    )
    try:
        changes = con.execute(_CHANGES_SQL.format(table=segment.table), {"now": now}).fetchall()
        leaving = [row for row in changes if row[1] in ("left", "gap")]
        denied = _denials(con, segment, [row[0] for row in leaving])
    finally:
        con.unregister("open_members")
    exits, entries = [], []
    for entity, change, entered_at, expired, expires in changes:
        if change in ("left", "gap"):
            reason, when = _reason(entered_at, expired, denied.get(entity), now)
            exits.append((segment.name, segment.meta.entity, entity, when, "exit", reason))
        if change in ("came", "gap"):
            entries.append((segment.name, segment.meta.entity, entity, now, "enter", None))
        if change == "renewed":
            db.execute("UPDATE membership_open SET expires_at = ? WHERE segment = ? AND entity_id = ?",
                       [expires, segment.name, entity])  # fmt: skip
    db.executemany("DELETE FROM membership_open WHERE segment = ? AND entity_id = ?", [(s, e) for s, _, e, *_ in exits])
    until = {row[0]: row[4] for row in changes}
    db.executemany(
        "INSERT INTO membership_open VALUES (?, ?, ?, ?)", [(s, e, now, until[e]) for s, _, e, *_ in entries]
    )
    db.executemany(_INSERT_SQL, [*exits, *entries])
    return len(entries), len(exits)


_INSERT_SQL = "INSERT INTO membership (segment, entity_type, entity_id, happened_at, change, exit_reason) VALUES (?, ?, ?, ?, ?, ?)"

# gap: is a member now, and qualified again only after the membership that is open had run out.
_CHANGES_SQL = """
    WITH open AS (
        SELECT entity_id, entered_at, expires_at AS until_text, expires_at::TIMESTAMPTZ AS until FROM open_members
    ), compared AS (
        SELECT coalesce(m.entity_id, o.entity_id) AS entity_id,
            CASE WHEN o.entity_id IS NULL THEN 'came'
                 WHEN m.entity_id IS NULL THEN 'left'
                 WHEN o.until <= $now::TIMESTAMPTZ AND o.until <= m.entered_at THEN 'gap'
                 WHEN o.until IS DISTINCT FROM m.expires_at THEN 'renewed'
                 ELSE 'same' END AS change,
            o.entered_at,
            CASE WHEN o.until <= $now::TIMESTAMPTZ THEN o.until_text END AS expired,
            strftime(m.expires_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') AS expires
        FROM {table} AS m FULL JOIN open AS o USING (entity_id)
    )
    SELECT * FROM compared WHERE change != 'same' ORDER BY entity_id
"""


def _reason(entered_at: str, expired: str | None, denied: str | None, now: str) -> tuple[str, str]:
    """(why, when): what came first, the end of the time or the withdrawal; else the rule no longer holds."""
    if denied is not None and (expired is None or denied <= expired):
        return "consent_withdrawn", now
    return ("rule", now) if expired is None else ("ttl", expired)


def _denials(con: duckdb.DuckDBPyConnection, segment: Segment, entities: Sequence[str]) -> dict[str, str]:
    """When somebody behind each of these entities stopped to allow the purpose; '' where nobody knows since when."""
    if not entities:
        return {}
    con.register("leaving", pa.table({"entity_id": pa.array(entities, type=pa.string())}))
    try:
        people = _PEOPLE_SQL[segment.meta.entity]
        return dict(con.execute(_DENIALS_SQL.format(people=people), {"purpose": segment.meta.purpose}).fetchall())
    finally:
        con.unregister("leaving")


# Who is behind an entity. A device, a session and an organisation are left when a person of theirs withdraws.
_PEOPLE_SQL = {
    "user": "SELECT entity_id, entity_id AS user_id FROM leaving",
    "device": "SELECT DISTINCT l.entity_id, e.user_id FROM leaving l JOIN staging.stg_lake__events e "
    "ON e.device_id = l.entity_id JOIN core.users u ON u.user_id = e.user_id",
    "session": "SELECT DISTINCT l.entity_id, e.user_id FROM leaving l JOIN core.sessions s ON s.session_id = l.entity_id "
    "JOIN staging.stg_lake__events e ON e.stream = s.stream AND e.occurred_at BETWEEN s.started_at AND s.ended_at "
    "JOIN core.users u ON u.user_id = e.user_id",
    "organisation": "SELECT l.entity_id, m.user_id FROM leaving l JOIN core.organisation_members m "
    "ON m.organisation_id = l.entity_id",
}

# For people themselves missing is denied; of the others only a withdrawal while the entity was a member ends anything.
_DENIALS_SQL = """
    SELECT p.entity_id,
        min(CASE WHEN c.status = 'denied' THEN strftime(c.effective_from AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')
                 ELSE '' END)
    FROM ({people}) AS p
    JOIN open_members AS o USING (entity_id)
    LEFT JOIN core.consent_history AS c
        ON c.user_id = p.user_id AND c.purpose = $purpose AND c.effective_to IS NULL
    WHERE (p.user_id = p.entity_id AND c.status IS DISTINCT FROM 'granted')
        OR (p.user_id != p.entity_id AND c.status = 'denied' AND c.effective_from >= o.entered_at::TIMESTAMPTZ)
    GROUP BY p.entity_id
"""


def _close_removed(db: sqlite3.Connection, names: Sequence[str], now: str) -> int:
    """Members of segments that the project no longer declares leave by the rule, or left when their time was over."""
    marks = ", ".join("?" * len(names))
    gone = db.execute(
        "SELECT o.segment, (SELECT m.entity_type FROM membership m WHERE m.segment = o.segment LIMIT 1), o.entity_id, "
        f"o.expires_at FROM membership_open o WHERE o.segment NOT IN ({marks}) ORDER BY o.segment, o.entity_id", [*names],
    ).fetchall()  # fmt: skip
    for segment, kind, entity, expires in gone:
        over = expires is not None and expires <= now
        row = (segment, kind, entity, expires if over else now, "exit", "ttl" if over else "rule")
        db.execute(_INSERT_SQL, row)
    db.execute(f"DELETE FROM membership_open WHERE segment NOT IN ({marks})", [*names])
    return len(gone)
