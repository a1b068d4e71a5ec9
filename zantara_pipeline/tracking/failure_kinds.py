"""Which kinds of failure lie in the quarantine, without reading again what was read before.

A run asks after every ingest. So the ledger keeps per quarantine file which kinds it holds; only files that are new or
changed are read, and those that are gone (replayed, discarded, expired) are forgotten. It is a cache: emptied, it is
made again from the files, whatever killed whom in between.

Belongs here: that cache. Does not belong here: what people ask about one kind (quarantine.py), telling them (watch.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.sql_checks import quote

# So many files are read by one query: the first look at a long history would otherwise hold all their footers.
FILES_AT_ONCE = 500
MEMORY = "300MB"


@dataclass(frozen=True)
class FailureKind:
    """Open lines of the same event that failed for the same reasons ("code path", in the order of their names)."""

    fingerprint: str
    event: str | None
    reasons: tuple[str, ...]
    rows: int


def failure_kinds(home: Home, ledger: Ledger) -> list[FailureKind]:
    """All kinds that lie in the quarantine now, those of the earliest received date first."""
    _refresh(home, ledger)
    with ledger.read() as db:
        rows = db.execute(
            "SELECT fingerprint, max(event), max(reasons), sum(rows) FROM quarantine_files WHERE fingerprint <> '' "
            "GROUP BY fingerprint ORDER BY min(path), fingerprint"
        ).fetchall()
    return [FailureKind(name, event, tuple(json.loads(reasons)), count) for name, event, reasons, count in rows]


def _refresh(home: Home, ledger: Ledger) -> None:
    lying = dict(_files(home))
    with ledger.read() as db:
        known = dict(db.execute("SELECT DISTINCT path, stamp FROM quarantine_files").fetchall())
    gone = [path for path, stamp in known.items() if lying.get(path) != stamp]
    new = sorted(path for path, stamp in lying.items() if known.get(path) != stamp)
    found = list(_read(home, new))
    if not gone and not found:
        return
    with ledger.transaction() as db:
        db.executemany("DELETE FROM quarantine_files WHERE path = ?", [(path,) for path in gone])
        db.executemany(
            "INSERT INTO quarantine_files VALUES (?, ?, ?, ?, ?, ?)",
            [
                (path, lying[path], fingerprint, event, reasons, rows)
                for path, fingerprint, event, reasons, rows in found
            ],
        )


def _files(home: Home) -> Iterator[tuple[str, str]]:
    """Path below the lake and stamp of every quarantine file: names and sizes only."""
    for folder in home.quarantine.glob("received_date=*"):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".parquet"):
                    status = entry.stat()
                    yield f"{home.quarantine.name}/{folder.name}/{entry.name}", f"{status.st_size} {status.st_mtime_ns}"


def _read(home: Home, paths: Sequence[str]) -> Iterator[tuple[str, str, str | None, str, int]]:
    """(path, fingerprint, event, reasons, rows) of each kind; a file without an open line has the fingerprint ''."""
    if not paths:
        return
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        for start in range(0, len(paths), FILES_AT_ONCE):
            part = paths[start : start + FILES_AT_ONCE]
            whole = {str(home.lake / path): path for path in part}
            rows = con.execute(_KINDS_SQL.format(files=", ".join(map(quote, whole)))).fetchall()
            yield from ((whole[name], *rest) for name, *rest in rows)
            yield from ((path, "", None, "[]", 0) for path in set(part) - {whole[row[0]] for row in rows})
    finally:
        con.close()


_KINDS_SQL = """
    SELECT filename, fingerprint, any_value(event),
        to_json(list_sort(list_distinct(any_value(list_transform(reasons, lambda r: r.code || ' ' || r.path)))))::VARCHAR,
        count(*)
    FROM read_parquet([{files}], filename = true, union_by_name = true, hive_partitioning = false)
    WHERE status = 'open' GROUP BY filename, fingerprint
"""
