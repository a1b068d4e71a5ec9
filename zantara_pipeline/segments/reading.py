"""What readers of a copy of the warehouse see of segments: nobody past their time, and small ones not at all.

Belongs here: the SELECTs through which a copy is made and read. Does not belong here: making the copy
(storage/engine.py), and deciding which segment is visible (visibility.py).
"""

from __future__ import annotations

from datetime import datetime

import duckdb

from zantara_pipeline.storage.engine import Reading, Relation

SCHEMA = "segments"


def readings(
    con: duckdb.DuckDBPyConnection, *, as_of: datetime, live: bool, restricted: bool
) -> dict[Relation, Reading | None]:
    """How each relation of the schema `segments` is read in a copy; None: it is not in it.

    Parameters
    ----------
    con : the warehouse. A segment of which it does not say that it is visible is hidden.
    live : readers' own clock counts, so that members expire also where nothing ran since. In a home of history nothing
        but the run's clock can count: by today's everybody of last year's data would be gone.
    restricted : for the restricted store, which has every segment whole.
    """
    shown = None if restricted else _visible(con)
    clock = f"TIMESTAMPTZ '{as_of.isoformat()}'"
    clock = f"greatest({clock}, now())" if live else clock
    found: dict[Relation, Reading | None] = {}
    for name, level in con.execute("SELECT segment, access_level FROM segments.catalog ORDER BY segment").fetchall():
        keep = shown is None or name in shown
        view = f"SELECT * FROM {{stored}} WHERE expires_at > {clock}"
        reading = Reading("SELECT * FROM {source}" + ("" if keep else " WHERE false"), view)
        found[SCHEMA, name] = None if level == "restricted" and not restricted else reading
    among = "true" if shown is None else f"{{}} IN ({', '.join(repr(name) for name in shown) or 'NULL'})"
    size = f"CASE WHEN {among.format('segment')} THEN size END AS size"
    found[SCHEMA, "catalog"] = Reading(f"SELECT * REPLACE ({size}) FROM {{source}}")
    found[SCHEMA, "overlap"] = Reading(
        f"SELECT * FROM {{source}} WHERE {among.format('segment_a')} AND {among.format('segment_b')}"
    )
    found[SCHEMA, "membership_history"] = Reading(
        f"SELECT * FROM {{source}} WHERE {among.format('segment')}", _HISTORY_VIEW.format(clock=clock)
    )
    return found


# Of a membership that ran out since the last run the reader sees the end that the next run will record.
_HISTORY_VIEW = """
    SELECT * REPLACE (
        CASE WHEN exited_at IS NULL AND expires_at <= {clock} THEN expires_at ELSE exited_at END AS exited_at,
        CASE WHEN exited_at IS NULL AND expires_at <= {clock} THEN 'ttl' ELSE exit_reason END AS exit_reason)
    FROM {{stored}}
"""


def _visible(con: duckdb.DuckDBPyConnection) -> list[str]:
    there = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'state' AND table_name = 'segment_visibility'"
    if not con.execute(there).fetchall():
        return []
    rows = con.execute("SELECT segment FROM state.segment_visibility WHERE visible ORDER BY segment").fetchall()
    return [row[0] for row in rows]
