"""The embedded engine: opening DuckDB with the settings that every part of the pipeline relies on.

Belongs here: connections, sessions settings, the atomic copy for readers. Does not belong here: any model or query.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home


def open_engine(path: Path | None, home: Home, *, threads: int, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file (None: in memory) in UTC, bounded, spilling into the home's scratch folder."""
    home.scratch.mkdir(parents=True, exist_ok=True)
    try:
        con = duckdb.connect(":memory:" if path is None else str(path))
    except duckdb.IOException as error:
        raise InputError(
            f"the database cannot be opened ({str(error).splitlines()[0]})", path, "close the program that holds it"
        ) from None
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"SET threads = {int(threads)}")
    con.execute(f"SET memory_limit = '{memory_limit}'")
    con.execute(f"SET temp_directory = {_literal(home.scratch)}")
    con.execute("SET autoinstall_known_extensions = false")
    con.execute("SET enable_progress_bar = false")
    return con


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


@contextmanager
def warehouse(home: Home, *, threads: int, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, writable, closed on leaving (dbt needs the file for itself)."""
    con = open_engine(home.warehouse, home, threads=threads, memory_limit=memory_limit)
    try:
        yield con
    finally:
        con.close()


Relation = tuple[str, str]
"""(schema, table)"""
Descriptions = Mapping[Relation, Mapping[str, str]]
"""Relation -> column -> what it means."""
EXPIRING = "expiring"
"""Schema of a copy that holds the rows behind views which end by the reader's clock."""


@dataclass(frozen=True)
class Reading:
    """How one relation of the warehouse is read in a copy.

    Parameters
    ----------
    copied : SELECT over {source}: what is copied.
    view : SELECT over {stored}, if readers see the rows through a view.
    """

    copied: str
    view: str | None = None


Keep = Callable[[duckdb.DuckDBPyConnection, str, str], str]
"""(connection, schema, table) -> SQL over a row: whether it stays. The tables are those of the database `w`."""


def publish(
    home: Home,
    *,
    threads: int,
    memory_limit: str,
    descriptions: Descriptions | None = None,
    readings: Mapping[Relation, Reading | None] | None = None,
    target: Path | None = None,
    schemas: Collection[str] = (),
) -> Path:
    """Swap in a fresh read-only copy of the warehouse for analysts, sensors and read verbs.

    Views over the lake become tables of the copy, so that a reader needs no access to the lake; the internal
    schemas (`lake`, `state`, `staging`) stay behind. Columns carry their descriptions as comments: those of the
    warehouse, and `descriptions` for the rest.

    Parameters
    ----------
    readings : relations that are not copied as they are; None: not copied at all.
    target : the file; the published copy unless said otherwise.
    schemas : only these; empty: all that are published.
    """
    target = target or home.published
    with written_beside(home, home.warehouse, target, threads=threads, memory_limit=memory_limit) as con:
        for relation in con.execute(_PUBLISHED_RELATIONS).fetchall():
            reading = (readings or {}).get(relation, Reading("SELECT * FROM {source}"))
            if reading is not None and (not schemas or relation[0] in schemas):
                _copy(con, relation, reading)
        _comment(con, descriptions or {})
    return target


@contextmanager
def written_beside(
    home: Home, source: Path, target: Path, *, threads: int, memory_limit: str
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with `source` attached as w, read only, and a new file as p, which takes the place of `target` on leaving.

    Whatever goes wrong inside leaves the target as it was; the next attempt removes what lies beside.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".duckdb.new")
    for left in (beside, beside.with_name(beside.name + ".wal")):
        left.unlink(missing_ok=True)
    con = open_engine(None, home, threads=threads, memory_limit=memory_limit)
    try:
        con.execute(f"ATTACH {_literal(source)} AS w (READ_ONLY)")
        con.execute(f"ATTACH {_literal(beside)} AS p")
        yield con
        con.execute("DETACH p")
    finally:
        con.close()
    _swap_in(beside, target)


def copy_without(home: Home, copy: Path, keep: Keep, *, threads: int, memory_limit: str) -> None:
    """Swap in a copy of a published copy that has only the rows to keep; its views stay as they are.

    The new file is written from nothing: a row that is not copied leaves no byte, as it would where it is deleted.
    """
    with written_beside(home, copy, copy, threads=threads, memory_limit=memory_limit) as con:
        for schema, table in con.execute(_TABLES).fetchall():
            con.execute(f'CREATE SCHEMA IF NOT EXISTS p."{schema}"')
            rows = f'FROM w."{schema}"."{table}" WHERE {keep(con, schema, table)}'
            con.execute(f'CREATE TABLE p."{schema}"."{table}" AS {rows}')
        con.execute("USE p")
        for schema, sql in con.execute(_VIEWS).fetchall():
            con.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            con.execute(sql)
        con.execute("USE memory")
        _comment(con, {})


def _swap_in(beside: Path, target: Path) -> None:
    with beside.open("rb+") as handle:
        os.fsync(handle.fileno())
    beside.chmod(0o444)
    beside.replace(target)


def _copy(con: duckdb.DuckDBPyConnection, relation: Relation, reading: Reading) -> None:
    schema, table = relation
    kept = schema if reading.view is None else EXPIRING
    for name in {schema, kept}:
        con.execute(f'CREATE SCHEMA IF NOT EXISTS p."{name}"')
    source = f'w."{schema}"."{table}"'
    con.execute(f'CREATE TABLE p."{kept}"."{table}" AS {reading.copied.format(source=source)}')
    if reading.view is not None:
        # without the name of the database: the file may be attached under any
        con.execute("USE p")
        con.execute(f'CREATE VIEW "{schema}"."{table}" AS {reading.view.format(stored=f"{kept}.{table}")}')
        con.execute("USE memory")


def _comment(con: duckdb.DuckDBPyConnection, descriptions: Descriptions) -> None:
    columns = con.execute(_COLUMNS).fetchall()
    con.execute("BEGIN")  # each comment a transaction of its own was a third of the time of publishing
    for schema, table, column, comment in columns:
        text = comment or descriptions.get((schema, table), {}).get(column)
        if text:
            con.execute(
                f'COMMENT ON COLUMN p."{schema}"."{table}"."{column}" IS \'{text.replace(chr(39), chr(39) * 2)}\''
            )
    con.execute("COMMIT")


_COLUMNS = """
    SELECT c.schema_name, c.table_name, c.column_name, w.comment
    FROM duckdb_columns() AS c
    JOIN duckdb_columns() AS w USING (schema_name, table_name, column_name)
    WHERE c.database_name = 'p' AND w.database_name = 'w'
    ORDER BY ALL
"""

_TABLES = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'w' ORDER BY ALL"
_VIEWS = "SELECT schema_name, sql FROM duckdb_views() WHERE database_name = 'w' AND NOT internal ORDER BY ALL"

_PUBLISHED_RELATIONS = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_catalog = 'w' AND table_schema NOT IN ('lake', 'state', 'staging', 'main')
    ORDER BY ALL
"""


@contextmanager
def published(home: Home, path: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published copy (or another one), read only; says what to do when there is none yet."""
    path = path or home.published
    if not path.exists():
        raise InputError("nothing has been published here yet", home.root, "run `zantara run` first")
    con = duckdb.connect(str(path), read_only=True)
    con.execute("SET TimeZone = 'UTC'")
    try:
        yield con
    finally:
        con.close()


def clear_scratch(home: Home) -> None:
    """Remove what a killed run left in the scratch folder (nothing there is ever needed again)."""
    for path in home.scratch.iterdir() if home.scratch.exists() else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
