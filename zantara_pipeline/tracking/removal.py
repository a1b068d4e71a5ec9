"""Taking lines out of the quarantine: the files that hold them are written again without them, in one commit of the lake.

Belongs here: that step, which discarding, expiry and erasure share. Does not belong here: which lines, and why
(replay.py, quarantine_expiry.py, quarantine_erasure.py), how a commit survives a kill (commits.py).
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.commits import move_in, stage
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.stored_lines import chosen_rows, parts, read_rows, write_parts

Record = Callable[[sqlite3.Connection, str, int], None]
"""Writes down, in the transaction that stages the commit, what it removes: the ledger, the commit's id, rows."""


def take_out(
    con: duckdb.DuckDBPyConnection,
    home: Home,
    ledger: Ledger,
    files: Sequence[str],
    chosen: str,
    why: str,
    record: Record,
) -> int:
    """Remove the chosen lines of these quarantine files for good; returns how many. Killed, it is finished or never was.

    Parameters
    ----------
    files : what `files_with` found, relative to the lake.
    chosen : SQL over a quarantine row.
    why : a word that keeps commits of different kinds apart.
    """
    commit_id = hashlib.sha256("".join([why, *files]).encode()).hexdigest()[:16]
    folder = home.incoming / commit_id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = count_chosen(con, home, files, chosen)
    write_rest(con, home, folder, files, chosen)
    with ledger.transaction() as db:
        stage(db, commit_id, files)
        record(db, commit_id, rows)
    move_in(home, ledger, commit_id)
    return rows


def count_chosen(con: duckdb.DuckDBPyConnection, home: Home, files: Sequence[str], chosen: str) -> int:
    """How many lines of these quarantine files are chosen."""
    old = read_quarantine(*(str(home.lake / name) for name in files))
    return int(con.execute(f"SELECT count(*) FROM {old} WHERE {chosen}").fetchall()[0][0])


def files_with(
    con: duckdb.DuckDBPyConnection, home: Home, chosen: str, folders: Sequence[Path] | None = None
) -> list[str]:
    """Quarantine files that hold chosen lines, relative to the lake; of all partitions, or of these."""
    places = [home.quarantine / "*"] if folders is None else folders
    if not any(home.quarantine.glob("*/*.parquet")) or not places:
        return []
    everything = read_quarantine(*(str(place / "*.parquet") for place in places))
    with naming_damaged_files(home):
        rows = con.execute(f"SELECT DISTINCT filename FROM {everything} WHERE {chosen} ORDER BY 1").fetchall()
    return [Path(row[0]).relative_to(home.lake).as_posix() for row in rows]


def write_rest(con: duckdb.DuckDBPyConnection, home: Home, folder: Path, files: Sequence[str], chosen: str) -> None:
    """Lines of replaced files that were not chosen are written again, below the folder of the commit."""
    for number, name in enumerate(files):
        target = folder / Path(name).with_name(f"{folder.name}-rest-{number}.parquet")
        for path, rows in chosen_rows(con, [home.lake / name], f"NOT coalesce({chosen}, false)"):
            write_parts(parts(read_rows(path, rows)), target)


def read_quarantine(*globs: str) -> str:
    """The table function over quarantine files, with their names."""
    files = "[" + ", ".join(map(quote, globs)) + "]"
    types = "{'received_date': DATE}"
    return (
        f"read_parquet({files}, filename = true, union_by_name = true, hive_partitioning = true, hive_types = {types})"
    )


@contextmanager
def naming_damaged_files(home: Home) -> Iterator[None]:
    """What the engine says of a quarantine file that it cannot read, as one line that names the file.

    Raises
    ------
    InputError : a file of the quarantine is no Parquet.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException):
        for path in sorted(home.quarantine.glob("*/*.parquet")):
            _refuse_damaged(path)
        raise


def _refuse_damaged(path: Path) -> None:
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        raise InputError(
            "this file of the quarantine is damaged", path, "restore it from a backup, or remove it and lose its lines"
        ) from None
