"""Segment catalogue and membership history, from the built models and what the build knows of them.

Current members are what a segment's model selected. Who came and went is recorded in the ledger, because the models
only know now: every run compares the members with the open memberships and appends what changed.

Belongs here: catalogue, entries and exits with their reasons. Does not belong here: who qualifies (dbt models).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
from pydantic import Field, ValidationError

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import Contract


class SegmentMeta(Contract):
    """`meta` of a segment model; all of it is required."""

    owner: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    purpose: str = Field(min_length=1)
    legal_basis: Literal["consent", "contract", "legitimate_interest"]
    entity: Literal["user", "session", "device", "organisation"]
    ttl_days: int = Field(ge=1)
    access_level: Literal["restricted", "internal", "export"]
    min_size: int = Field(ge=1)


@dataclass(frozen=True)
class Segment:
    """One segment as the build's manifest declares it."""

    name: str
    description: str
    sql: str
    meta: SegmentMeta

    @property
    def table(self) -> str:
        return f"segments.{self.name}"


def segments_of(manifest: Path) -> list[Segment]:
    """All segments of a dbt manifest, by name.

    Raises
    ------
    InputError : a segment whose meta is missing or malformed.
    """
    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    models = [n for n in nodes if n["resource_type"] == "model" and n["name"].startswith("seg_")]
    return sorted((_segment(node) for node in models), key=lambda segment: segment.name)


def _segment(node: dict[str, Any]) -> Segment:
    try:
        meta = SegmentMeta.model_validate(node["config"]["meta"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        where = (
            f"{node['original_file_path']} (meta in {(node.get('patch_path') or '').rpartition('//')[2] or 'no YAML'})"
        )
        raise InputError(
            f"segment {node['name']}: meta key '{key}': {first['msg']}", where, "complete the meta"
        ) from None
    return Segment(node["name"], node["description"], node["raw_code"].strip(), meta)


@dataclass(frozen=True)
class MembershipChanges:
    """Entries and exits that a run appended; skipped: its clock lies before the latest one recorded."""

    entered: int
    exited: int
    skipped: bool = False


def record_membership(
    con: duckdb.DuckDBPyConnection, ledger: Ledger, segments: Sequence[Segment], as_of: datetime
) -> MembershipChanges:
    """Append who entered and who left since the last recorded run; the same run again appends nothing."""
    now = utc_text(as_of)
    with ledger.transaction() as db:
        latest = db.execute("SELECT max(happened_at) FROM membership").fetchone()[0]
        if latest is not None and latest > now:
            return MembershipChanges(0, 0, skipped=True)
        entered = exited = 0
        for segment in segments:
            open_members = {row[0] for row in db.execute(_OPEN_SQL, [segment.name])}
            members = {row[0] for row in con.execute(f"SELECT entity_id FROM {segment.table}").fetchall()}
            rows: list[tuple[Any, ...]] = [
                (segment.name, segment.meta.entity, entity, now, "enter", None)
                for entity in sorted(members - open_members)
            ]
            entered += len(rows)
            left = sorted(open_members - members)
            reasons = _exit_reasons(con, left)
            rows += [(segment.name, segment.meta.entity, entity, now, "exit", reasons[entity]) for entity in left]
            exited += len(left)
            db.executemany(
                "INSERT INTO membership (segment, entity_type, entity_id, happened_at, change, exit_reason) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
    return MembershipChanges(entered, exited)


# An entity is a member while it has entered more often than it has left.
_OPEN_SQL = """
    SELECT entity_id FROM membership WHERE segment = ?
    GROUP BY entity_id HAVING sum(CASE change WHEN 'enter' THEN 1 ELSE -1 END) > 0
"""


def _exit_reasons(con: duckdb.DuckDBPyConnection, entities: Sequence[str]) -> dict[str, str]:
    """consent_withdrawn where the person no longer allows it; else the rule (its window included) no longer holds."""
    if not entities:
        return {}
    con.register("leaving", pa.table({"entity_id": pa.array(entities, type=pa.string())}))
    rows = con.execute(
        "SELECT l.entity_id, CASE WHEN coalesce(u.personalization_allowed, false) THEN 'rule' ELSE 'consent_withdrawn' END "
        "FROM leaving l LEFT JOIN core.users u ON u.user_id = l.entity_id"
    ).fetchall()
    con.unregister("leaving")
    return dict(rows)


def write_tables(
    con: duckdb.DuckDBPyConnection, ledger: Ledger, segments: Sequence[Segment], as_of: datetime
) -> dict[str, int]:
    """Write segments.catalog and segments.membership_history; returns size per segment."""
    rows = []
    for segment in segments:
        meta = segment.meta
        size = con.execute(f"SELECT count(*) FROM {segment.table}").fetchall()[0][0]
        rows.append((segment.name, segment.description, meta.owner, meta.purpose, meta.legal_basis, meta.entity, meta.ttl_days,
                     meta.access_level, meta.min_size, size, as_of.astimezone(UTC), segment.sql))  # fmt: skip
    columns = {"seq": "BIGINT", "segment": "VARCHAR", "entity_type": "VARCHAR", "entity_id": "VARCHAR", "happened_at": "VARCHAR",
               "change": "VARCHAR", "exit_reason": "VARCHAR"}  # fmt: skip
    ledger.copy_table("membership", con, columns)
    con.execute("BEGIN")
    con.execute("CREATE SCHEMA IF NOT EXISTS segments")
    con.execute(_CATALOG_SQL)
    if rows:
        con.executemany(f"INSERT INTO segments.catalog VALUES ({', '.join('?' * 12)})", rows)
    con.execute(_HISTORY_SQL)
    for column, text in _COMMENTS.items():
        con.execute(f"COMMENT ON COLUMN segments.{column} IS '{text}'")
    con.execute("COMMIT")
    return {row[0]: row[9] for row in rows}


_COMMENTS = {
    "catalog.segment": "Name of the segment; its members are in segments.<name>.",
    "catalog.description": "Who is in it.",
    "catalog.owner": "Who answers for it.",
    "catalog.purpose": "What it is for.",
    "catalog.legal_basis": "Legal basis of using it.",
    "catalog.entity": "What a member is: user, session, device or organisation.",
    "catalog.ttl_days": "Nobody stays longer than this without qualifying again.",
    "catalog.access_level": "Who may read it: restricted, internal, export.",
    "catalog.min_size": "Size below which it says something about single people.",
    "catalog.size": "Members now.",
    "catalog.refreshed_at": "Clock of the run that built it (UTC).",
    "catalog.sql": "The SELECT of the model.",
    "membership_history.segment": "Segment.",
    "membership_history.entity_type": "What a member is.",
    "membership_history.entity_id": "Member.",
    "membership_history.entered_at": "Clock of the run that first saw the member (UTC).",
    "membership_history.exited_at": "Clock of the run that no longer did (UTC); null: still a member.",
    "membership_history.exit_reason": "rule: no longer qualifies; consent_withdrawn: no longer allowed.",
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
    SELECT segment, entity_type, entity_id, moment AS entered_at, next_moment AS exited_at, next_reason AS exit_reason
    FROM changes WHERE change = 'enter' ORDER BY ALL
"""
