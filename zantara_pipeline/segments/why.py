"""Why somebody is in a segment: the rows of which events put them there, found by asking the segment itself.

The SELECT that the last run sent is sent again over copies of this one entity's events. Rows are left out for as long as the
membership stays what it is; what is left at the end are rows that suffice, and none of them is superfluous. That works for any
SELECT, without anything that an analyst would have to write or could forget.

Belongs here: finding those rows. Does not belong here: who may ask (the warehouse is restricted), and printing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home

Row = dict[str, Any]


@dataclass(frozen=True)
class Membership:
    """One membership of an entity, with rows that suffice for it."""

    segment: str
    entered_at: datetime
    expires_at: datetime
    says: Row  # the segment's further columns
    evidence: tuple[Row, ...]


@dataclass(frozen=True)
class Answer:
    """Where an entity is now, and where it was."""

    now: tuple[Membership, ...]
    left: tuple[Row, ...]


@contextmanager
def reading_warehouse(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse of the last run, read only, attached as `warehouse`; it is closed to readers while a run writes."""
    if not home.warehouse.exists():
        raise InputError("there is no warehouse yet", home.root, "run `zantara run` first")
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    try:
        path = str(home.warehouse).replace("'", "''")
        con.execute(f"ATTACH '{path}' AS warehouse (READ_ONLY)")
        con.execute("USE warehouse")
        yield con
    except duckdb.IOException:
        raise InputError(
            "the warehouse is being written", home.root, "wait for the run to end, then try again"
        ) from None
    finally:
        con.close()


# Which events are an entity's own: a condition on the columns of an event.
_OWN = {
    "user": "user_id = $id",
    "device": "device_id = $id",
    "organisation": "organisation_id = $id",
    "session": "event_id IN (SELECT e.event_id FROM warehouse.staging.stg_lake__events e JOIN warehouse.core.sessions s "
    "ON s.stream = e.stream AND e.occurred_at BETWEEN s.active_from AND s.active_to WHERE s.session_id = $id)",
}


def why(con: duckdb.DuckDBPyConnection, entity_id: str, entity: str = "user") -> Answer:
    """Memberships of one entity as the last run left them.

    Parameters
    ----------
    con : the warehouse, from `reading_warehouse`.

    Raises
    ------
    InputError : there is no event of such an entity (its id is not repeated in the message).
    """
    known = f"SELECT 1 FROM warehouse.staging.stg_lake__events WHERE {_OWN[entity]} LIMIT 1"
    if not con.execute(known, {"id": entity_id}).fetchall():
        raise InputError(f"no {entity} of this id has an accepted event", None, "check the id, and its kind (--entity)")
    found = []
    for name, sql in con.execute(_SEGMENTS_SQL, {"entity": entity}).fetchall():
        row = _rows(con, f"SELECT * FROM warehouse.segments.{name} WHERE entity_id = $id", entity_id)
        if row:
            found.append(_membership(con, name, sql, entity, entity_id, row[0]))
    left = _rows(con, _LEFT_SQL, entity_id, entity=entity)
    return Answer(tuple(found), tuple(left))


_SEGMENTS_SQL = """
    SELECT segment, kept.sql FROM warehouse.segments.catalog JOIN warehouse.state.segment_sql AS kept USING (segment)
    WHERE entity = $entity ORDER BY segment
"""
_LEFT_SQL = """
    SELECT segment, entered_at, exited_at, exit_reason FROM warehouse.segments.membership_history
    WHERE entity_id = $id AND entity_type = $entity AND exited_at IS NOT NULL ORDER BY ALL
"""


def _rows(con: duckdb.DuckDBPyConnection, sql: str, entity_id: str, **more: str) -> list[Row]:
    done = con.execute(sql, {"id": entity_id, **more})
    names = [column[0] for column in done.description or ()]
    return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def _membership(
    con: duckdb.DuckDBPyConnection, name: str, sql: str, entity: str, entity_id: str, row: Row
) -> Membership:
    events, asked = _replica(con, sql, entity, entity_id)
    core = {key: value for key, value in row.items() if key not in ("entity_id", "entered_at", "expires_at")}

    def stays(kept: Sequence[str]) -> bool:
        con.execute(
            "CREATE OR REPLACE TABLE replica.state.kept AS SELECT unnest($ids::VARCHAR[]) AS event_id",
            {"ids": list(kept)},
        )
        return any(
            {**member, "entered_at": None} == {**row, "entered_at": None} for member in _rows(con, asked, entity_id)
        )

    try:
        kept = set(smallest([event["event_id"] for event in events], stays))
    finally:
        con.execute("USE warehouse; DETACH replica")
    evidence = tuple(event for event in events if event["event_id"] in kept)
    return Membership(name, row["entered_at"], row["expires_at"], core, evidence)


# What of core a segment may read, and by which column its rows belong to events.
_FOLLOWS = {"consent_history": "user_id", "sessions": "stream"}
_RELATION = re.compile(r'"warehouse"\."(?P<schema>\w+)"\."(?P<table>\w+)"')


def _replica(con: duckdb.DuckDBPyConnection, sql: str, entity: str, entity_id: str) -> tuple[list[Row], str]:
    """A database in memory with this entity's rows of every relation that a SELECT reads: its events, and the SELECT on it."""
    con.execute("ATTACH ':memory:' AS replica")
    con.execute("CREATE SCHEMA replica.state; CREATE TABLE replica.state.run_clock AS FROM warehouse.state.run_clock")
    con.execute("CREATE TABLE replica.state.kept (event_id VARCHAR)")
    details = []
    for schema, table in dict.fromkeys(_RELATION.findall(sql)):
        con.execute(f"CREATE SCHEMA IF NOT EXISTS replica.{schema}")
        source = f"warehouse.{schema}.{table}"
        if schema != "staging":
            column = _FOLLOWS[table]
            con.execute(
                f"CREATE TABLE replica.{schema}.{table} AS FROM {source} WHERE {column} IN "
                f"(SELECT {column} FROM warehouse.staging.stg_lake__events WHERE {_OWN[entity]})",
                {"id": entity_id},
            )
            continue
        con.execute(
            f"CREATE TABLE replica.{schema}.{table}_all AS FROM {source} WHERE {_OWN[entity]}", {"id": entity_id}
        )
        con.execute(
            f"CREATE VIEW replica.{schema}.{table} AS FROM replica.{schema}.{table}_all "
            "WHERE event_id IN (SELECT event_id FROM replica.state.kept)"
        )
        details.append(f"FROM replica.{schema}.{table}_all")
    con.execute("USE replica")
    # what an event has beside the envelope differs from event to event; the oldest are left out first
    events = _rows(con, f"SELECT * FROM ({' UNION ALL BY NAME '.join(details)}) WHERE $id IS NOT NULL "
                        "ORDER BY occurred_at, event_id", entity_id)  # fmt: skip
    told = [{key: value for key, value in event.items() if key in _TOLD and value is not None} for event in events]
    asked = _RELATION.sub(lambda found: f"replica.{found['schema']}.{found['table']}", sql)
    return told, f"SELECT * FROM ({asked}) WHERE entity_id = $id"


_TOLD = ("event", "occurred_at", "received_at", "event_id", "source", "line_no", "user_id", "device_id", "organisation_id",
         "product_id", "category", "brand", "price", "currency", "quantity", "order_id", "rating")  # fmt: skip


def smallest(items: Sequence[str], stays: Callable[[Sequence[str]], bool]) -> list[str]:
    """Items of which none can be left out: halves of them are tried first, so that few questions are asked of long lists.

    Zeller and Hildebrandt, Simplifying and isolating failure-inducing input (2002), the complement step of ddmin.
    """
    kept, size = list(items), max(1, len(items) // 2)
    while kept:
        at, before = 0, len(kept)
        while at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            if stays(fewer):
                kept = fewer
            else:
                at += size
        if size == 1 and len(kept) == before:
            break
        size = max(1, size // 2)
    return kept
