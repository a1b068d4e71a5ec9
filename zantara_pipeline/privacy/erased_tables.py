"""Erasure of people from the tables beside the lake: the published copies, and the rows of the state ledger.

DuckDB keeps the bytes of deleted rows, whatever is done to the file. So the warehouse is dropped, and the next run makes
it anew from the lake and the ledgers; the published copy is copied, without the rows that name them, into a new file that
takes its place, so that readers have one all the time. SQLite is made to overwrite what it deletes, and vacuumed.

A membership of a segment is closed with the reason `erased`, and its entity becomes a random word: how large a segment was
stays true, who was in it is gone, and no two memberships can be joined.

Belongs here: those rows. Does not belong here: files of models (recommend/erasure.py), of the lake (tracking/).
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.privacy.people import Matcher, People, is_field_of_people
from zantara_pipeline.storage.engine import copy_without
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger

ERASED = "erased"


def erase_published(home: Home, matcher: Matcher) -> None:
    """Swap in copies without the rows that name somebody: what was published, and all segments in the restricted store.

    A copy that names nobody stays as it is: it was written from nothing, so no deleted row has left its bytes there.
    """
    for copy in (home.published, home.restricted_segments):
        if copy.exists() and any(_rows_naming(copy, matcher)):
            copy_without(home, copy, _Keep(matcher), threads=1, memory_limit="500MB")


class _Keep:
    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self._prepared = False

    def __call__(self, con: duckdb.DuckDBPyConnection, schema: str, table: str) -> str:
        if not self._prepared:
            con.execute("CREATE TEMP TABLE erased_ids AS SELECT unnest(?::VARCHAR[]) AS id", [sorted(self.matcher.ids)])
            con.execute("SET VARIABLE bounded = ?", [self.matcher.bounded])
            self._prepared = True
        columns = con.execute(_TEXTS_SQL, [schema, table]).fetchall()
        conditions = [self._names(table, column, kind) for column, kind in columns]
        return f"NOT ({' OR '.join(filter(None, conditions)) or 'false'})"

    def _names(self, table: str, column: str, kind: str) -> str:
        quoted = '"' + column.replace('"', '""') + '"'
        found = []
        if kind == "VARCHAR" and is_field_of_people(f"{table}.{column}"):
            found.append(f"{quoted} IN (SELECT id FROM erased_ids)")
        if self.matcher.distinctive:
            found.append(f"regexp_matches({quoted}::VARCHAR, getvariable('bounded'))")
        return f"coalesce({' OR '.join(found)}, false)" if found else ""


def published_rows(home: Home, matcher: Matcher) -> dict[str, list[dict[str, Any]]]:
    """Rows of the published copy that name somebody, by table; for an access request."""
    if not home.published.exists():
        return {}
    return dict(_rows_naming(home.published, matcher))


def _rows_naming(copy: Path, matcher: Matcher) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(table, its rows that name somebody) of the tables that have such rows."""
    with closing(duckdb.connect()) as con:
        con.execute("SET TimeZone = 'UTC'")
        path = str(copy).replace("'", "''")
        con.execute(f"ATTACH '{path}' AS w (READ_ONLY)")
        keep = _Keep(matcher)
        tables = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'w' ORDER BY ALL"
        for schema, table in con.execute(tables).fetchall():
            cursor = con.execute(f'FROM w."{schema}"."{table}" WHERE NOT ({keep(con, schema, table)})')
            names = [column[0] for column in cursor.description]
            if rows := [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]:
                yield f"{schema}.{table}", rows


_TEXTS_SQL = """
    SELECT column_name, data_type FROM duckdb_columns()
    WHERE database_name = 'w' AND schema_name = ? AND table_name = ?
        AND (data_type IN ('VARCHAR', 'JSON') OR data_type LIKE '%[]' OR data_type LIKE 'STRUCT%' OR data_type LIKE 'MAP%')
    ORDER BY column_index
"""


def drop_warehouse(home: Home) -> None:
    """The next run makes it again."""
    for path in (home.warehouse, home.warehouse.with_name(home.warehouse.name + ".wal")):
        path.unlink(missing_ok=True)


Rule = Callable[[sqlite3.Connection, People, str], None]


def _by_user(table: str) -> Rule:
    def erase(db: sqlite3.Connection, people: People, now: str) -> None:
        db.executemany(f"DELETE FROM {table} WHERE user_id = ?", [(user,) for user in sorted(people.users)])

    return erase


def _objections(db: sqlite3.Connection, people: People, now: str) -> None:
    rows = [(f"{kind}_id", text) for kind in ("anonymous", "device") for text in sorted(people.of_kind(kind))]
    db.executemany("DELETE FROM consent_objections WHERE kind = ? AND id = ?", rows)


def _membership(db: sqlite3.Connection, people: People, now: str) -> None:
    for entity in sorted(people.ids):
        found = db.execute(_MEMBERSHIPS_SQL, [entity]).fetchall()
        for segment, kind, is_open in found:
            nobody = f"{ERASED}-{uuid.uuid4().hex[:16]}"
            db.execute(
                "UPDATE membership SET entity_id = ? WHERE segment = ? AND entity_type = ? AND entity_id = ?",
                [nobody, segment, kind, entity],
            )
            if is_open:
                db.execute(_CLOSE_SQL, {"segment": segment, "kind": kind, "entity": nobody, "now": now})


def _open_memberships(db: sqlite3.Connection, people: People, now: str) -> None:
    db.executemany("DELETE FROM membership_open WHERE entity_id = ?", [(entity,) for entity in sorted(people.ids)])


_MEMBERSHIPS_SQL = """
    SELECT segment, entity_type, sum(CASE change WHEN 'enter' THEN 1 ELSE -1 END) > 0
    FROM membership WHERE entity_id = ? GROUP BY segment, entity_type ORDER BY 1, 2
"""
# Not before the last thing that is recorded: history never goes back, and a run of an earlier clock would be skipped.
_CLOSE_SQL = """
    INSERT INTO membership (segment, entity_type, entity_id, happened_at, change, exit_reason)
    SELECT :segment, :kind, :entity, max(happened_at), 'exit', 'erased' FROM membership
"""

NOBODY = "names nobody"
LEDGER_TABLES: dict[str, Rule | str] = {
    "consent": _by_user("consent"),
    "consent_runs": _by_user("consent_runs"),
    "consent_objections": _objections,
    "membership": _membership,
    "membership_open": _open_memberships,
    **dict.fromkeys(
        (
            "schema_version", "ingested_files", "rewritten_files", "quarantine_reasons", "ingest_commits", "replaced_files",
            "replays", "discards", "quarantine_files", "lake_types_checked", "expired_lines", "expired_rows",
            "expired_values", "expired_exempt_rows", "expired_exempt_values", "expired_landed_files", "retention_seen", "quarantine_erasures",
            "lake_erasures", "tombstones", "tombstones_in_fields", "pii_keys", "key_rotations",
            "segment_sizes", "withdrawals", "experiment_stops", "experiment_looks",
            "experiment_configurations", "expired_memberships", "expired_models", "export_keys", "model_decisions",
        ),
        NOBODY,
    ),
}  # fmt: skip
"""Every table of the state ledger: what an erasure does there, or why there is nothing to do. A test compares the names."""


def erase_from_ledger(ledger: Ledger, people: People, now: str) -> None:
    """Delete these people's rows and overwrite their bytes; may be done again."""
    with ledger.transaction() as db:
        db.execute("PRAGMA secure_delete = ON")
        for rule in LEDGER_TABLES.values():
            if not isinstance(rule, str):
                rule(db, people, now)
    with ledger.read() as db:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
