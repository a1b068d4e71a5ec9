"""The embedded engine: opening DuckDB with the settings that every part of the pipeline relies on.

Belongs here: connections, sessions settings, the atomic copy for readers. Does not belong here: any model or query.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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


Descriptions = Mapping[tuple[str, str], Mapping[str, str]]
"""(schema, table) -> column -> what it means."""


Keep = Callable[[duckdb.DuckDBPyConnection, str, str], str]
"""(connection, schema, table) -> SQL over a row: whether it stays. The tables are those of the database `w`."""


def publish(
    home: Home,
    *,
    threads: int,
    memory_limit: str,
    descriptions: Descriptions | None = None,
    source: Path | None = None,
    keep: Keep | None = None,
) -> Path:
    """Swap in a fresh read-only copy of the warehouse for analysts, sensors and read verbs.

    Views over the lake become tables of the copy, so that a reader needs no access to the lake; the internal
    schemas (`lake`, `state`, `staging`) stay behind. Columns carry their descriptions as comments: those of the
    warehouse, and `descriptions` for the rest.

    source, keep : another file than the warehouse (the copy itself), and the rows that stay. The new file is written from
        nothing: a row that is not copied leaves no byte, as it would where it is deleted.
    """
    beside = home.published.with_suffix(".duckdb.new")
    beside.unlink(missing_ok=True)
    con = open_engine(None, home, threads=threads, memory_limit=memory_limit)
    try:
        con.execute(f"ATTACH {_literal(source or home.warehouse)} AS w (READ_ONLY)")
        con.execute(f"ATTACH {_literal(beside)} AS p")
        for schema, table in con.execute(_PUBLISHED_RELATIONS).fetchall():
            con.execute(f'CREATE SCHEMA IF NOT EXISTS p."{schema}"')
            rows = f" WHERE {keep(con, schema, table)}" if keep else ""
            con.execute(f'CREATE TABLE p."{schema}"."{table}" AS FROM w."{schema}"."{table}"{rows}')
        _comment(con, descriptions or {})
        con.execute("DETACH p")
    finally:
        con.close()
    with beside.open("rb+") as handle:
        os.fsync(handle.fileno())
    beside.chmod(0o444)
    beside.replace(home.published)
    return home.published


def _comment(con: duckdb.DuckDBPyConnection, descriptions: Descriptions) -> None:
    for schema, table, column, comment in con.execute(_COLUMNS).fetchall():
        text = comment or descriptions.get((schema, table), {}).get(column)
        if text:
            con.execute(
                f'COMMENT ON COLUMN p."{schema}"."{table}"."{column}" IS \'{text.replace(chr(39), chr(39) * 2)}\''
            )


_COLUMNS = """
    SELECT c.schema_name, c.table_name, c.column_name, w.comment
    FROM duckdb_columns() AS c
    JOIN duckdb_columns() AS w USING (schema_name, table_name, column_name)
    WHERE c.database_name = 'p' AND w.database_name = 'w'
    ORDER BY ALL
"""

_PUBLISHED_RELATIONS = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_catalog = 'w' AND table_schema NOT IN ('lake', 'state', 'staging', 'main')
    ORDER BY ALL
"""


@contextmanager
def published(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published copy, read only; says what to do when there is none yet."""
    if not home.published.exists():
        raise InputError("nothing has been published here yet", home.root, "run `zantara run` first")
    con = duckdb.connect(str(home.published), read_only=True)
    con.execute("SET TimeZone = 'UTC'")
    try:
        yield con
    finally:
        con.close()


def clear_scratch(home: Home) -> None:
    """Remove what a killed run left in the scratch folder (nothing there is ever needed again)."""
    for path in home.scratch.iterdir() if home.scratch.exists() else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
