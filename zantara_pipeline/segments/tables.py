"""The tables about segments: catalogue, membership history, overlap, and which segment is visible.

Belongs here: writing those from the built models and the ledger. Does not belong here: deciding anything about
members (lifecycle.py) or readers (visibility.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import duckdb

from zantara_pipeline.segments.contract import Segment
from zantara_pipeline.segments.visibility import Size
from zantara_pipeline.storage.ledger import Ledger

_MEMBERSHIP = {"seq": "BIGINT", "segment": "VARCHAR", "entity_type": "VARCHAR", "entity_id": "VARCHAR",
               "happened_at": "VARCHAR", "change": "VARCHAR", "exit_reason": "VARCHAR"}  # fmt: skip
_OPEN = {"segment": "VARCHAR", "entity_id": "VARCHAR", "expires_at": "VARCHAR"}


def sizes_of(con: duckdb.DuckDBPyConnection, segments: Sequence[Segment]) -> dict[str, int]:
    """Members of each segment now."""
    return {s.name: con.execute(f"SELECT count(*) FROM {s.table}").fetchall()[0][0] for s in segments}


def write_tables(con: duckdb.DuckDBPyConnection, ledger: Ledger, sizes: Sequence[Size], as_of: datetime) -> None:
    """Write segments.catalog, segments.membership_history, segments.overlap and state.segment_visibility."""
    rows = [
        (s.name, s.description, m.owner, m.purpose, m.legal_basis, m.entity, m.ttl_days, m.access_level, m.min_size,
         size.size, as_of.astimezone(UTC), s.sql)
        for size in sizes for s, m in [(size.segment, size.segment.meta)]
    ]  # fmt: skip
    ledger.copy_table("membership", con, _MEMBERSHIP)
    ledger.copy_table("membership_open", con, _OPEN)
    con.execute("BEGIN")
    con.execute("CREATE SCHEMA IF NOT EXISTS segments")
    con.execute(_CATALOG_SQL)
    con.execute("CREATE OR REPLACE TABLE state.segment_visibility (segment VARCHAR, visible BOOLEAN)")
    if rows:
        con.executemany(f"INSERT INTO segments.catalog VALUES ({', '.join('?' * 12)})", rows)
        shown = [(size.segment.name, size.visible) for size in sizes]
        con.executemany("INSERT INTO state.segment_visibility VALUES (?, ?)", shown)
    con.execute(_HISTORY_SQL)
    con.execute(_overlap_sql([size.segment for size in sizes]))
    for column, text in _COMMENTS.items():
        con.execute(f"COMMENT ON COLUMN segments.{column} IS '{text}'")
    con.execute("COMMIT")


def _overlap_sql(segments: Sequence[Segment]) -> str:
    """Pairs of segments over the same kind of entity; every pair once, also those that share nobody."""
    parts = [
        f"SELECT '{s.name}' AS segment, '{s.meta.entity}' AS entity_type, entity_id FROM {s.table}" for s in segments
    ]
    members = " UNION ALL ".join(parts or ["SELECT NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR WHERE false"])
    return _OVERLAP_SQL.format(members=members)


_OVERLAP_SQL = """
    CREATE OR REPLACE TABLE segments.overlap AS
    WITH members (segment, entity_type, entity_id) AS ({members}),
    shared AS (
        SELECT a.segment AS segment_a, b.segment AS segment_b, count(*) AS shared
        FROM members AS a JOIN members AS b USING (entity_type, entity_id)
        WHERE a.segment < b.segment GROUP BY ALL
    )
    SELECT a.segment AS segment_a, b.segment AS segment_b, a.entity AS entity_type, a.size AS size_a, b.size AS size_b,
        coalesce(s.shared, 0) AS shared,
        coalesce(s.shared, 0) / nullif(a.size + b.size - coalesce(s.shared, 0), 0) AS jaccard
    FROM segments.catalog AS a
    JOIN segments.catalog AS b ON a.entity = b.entity AND a.segment < b.segment
    LEFT JOIN shared AS s ON s.segment_a = a.segment AND s.segment_b = b.segment
    ORDER BY ALL
"""

_COMMENTS = {
    "catalog.segment": "Name of the segment; its members are in segments.<name>.",
    "catalog.description": "Who is in it.",
    "catalog.owner": "Who answers for it.",
    "catalog.purpose": "What its people allowed: a purpose of contracts/privacy.yaml.",
    "catalog.legal_basis": "Legal basis of using it.",
    "catalog.entity": "What a member is: user, session, device or organisation.",
    "catalog.ttl_days": "Nobody stays longer than this without qualifying again.",
    "catalog.access_level": "Who may read it: restricted, internal, export.",
    "catalog.min_size": "Size below which it says something about single people: then only the restricted store has its members.",
    "catalog.size": "Members now; null in the published copy where the segment is not visible there.",
    "catalog.refreshed_at": "Clock of the run that built it (UTC).",
    "catalog.sql": "The SELECT of the model.",
    "membership_history.segment": "Segment.",
    "membership_history.entity_type": "What a member is.",
    "membership_history.entity_id": "Member.",
    "membership_history.entered_at": "Clock of the run that first saw the member (UTC).",
    "membership_history.exited_at": "When the time was over, or the clock of the run that no longer saw the member (UTC); null: still one.",
    "membership_history.exit_reason": "rule: no longer qualifies; ttl: the time was over; consent_withdrawn: no longer allowed; erased.",
    "membership_history.expires_at": "Of a membership that is open: when it ends unless renewed (UTC).",
    "overlap.segment_a": "One segment.",
    "overlap.segment_b": "Another over the same kind of entity, later in the alphabet.",
    "overlap.entity_type": "What their members are.",
    "overlap.size_a": "Members of the one.",
    "overlap.size_b": "Members of the other.",
    "overlap.shared": "Members of both.",
    "overlap.jaccard": "Members of both over members of either, 0 to 1; null where both are empty.",
}

_CATALOG_SQL = """
    CREATE OR REPLACE TABLE segments.catalog (
        segment VARCHAR, description VARCHAR, owner VARCHAR, purpose VARCHAR, legal_basis VARCHAR, entity VARCHAR,
        ttl_days INTEGER, access_level VARCHAR, min_size INTEGER, size BIGINT, refreshed_at TIMESTAMPTZ, sql VARCHAR)
"""

# Two runs on one clock may record an entry and an exit at the same moment: seq says which came first.
_HISTORY_SQL = """
    CREATE OR REPLACE TABLE segments.membership_history AS
    WITH changes AS (
        SELECT *, happened_at::TIMESTAMPTZ AS moment,
            lead(happened_at::TIMESTAMPTZ) OVER w AS next_moment, lead(exit_reason) OVER w AS next_reason
        FROM state.membership
        WINDOW w AS (PARTITION BY segment, entity_id ORDER BY seq)
    )
    SELECT c.segment, c.entity_type, c.entity_id, c.moment AS entered_at, c.next_moment AS exited_at,
        c.next_reason AS exit_reason, CASE WHEN c.next_moment IS NULL THEN o.expires_at::TIMESTAMPTZ END AS expires_at
    FROM changes AS c
    LEFT JOIN state.membership_open AS o ON o.segment = c.segment AND o.entity_id = c.entity_id
    WHERE c.change = 'enter' ORDER BY ALL
"""
