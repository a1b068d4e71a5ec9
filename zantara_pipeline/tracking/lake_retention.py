"""Retention of accepted events: whole days go with their event's retention_days, single values with their property's.

Exempt rows lie in a store of their own and follow the same days. What went from there is counted apart: no table is built
from it, so staging has nothing to forget.

A day is over when all of it is: its last moment and the days to keep lie before the clock of the run. A value that is
over becomes null; its file is written again once.

Belongs here: what is over, and removing it from the lake. Does not belong here: that staging forgets it too (sources.py
tells dbt, from the ledger), quarantine (quarantine_expiry.py), whether it is enforced (retention.py).
"""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import duckdb

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.commits import move_in, stage
from zantara_pipeline.tracking.migrations import stored_types
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan
from zantara_pipeline.tracking.retention_seen import Seen
from zantara_pipeline.tracking.sql_checks import quote

MEMORY = "300MB"
StoreName = Literal["accepted", "exempt"]
STORES: tuple[StoreName, ...] = ("accepted", "exempt")
# Store -> the ledger's tables of removed rows and of removed values.
_TABLES = {
    "accepted": ("expired_rows", "expired_values"),
    "exempt": ("expired_exempt_rows", "expired_exempt_values"),
}
# Partitions of one commit that nulls values: what it writes beside the lake has to fit on the disk.
COMMIT_PARTITIONS = 100


@dataclass(frozen=True)
class Partition:
    """One day of one event; properties: those whose values are over there (none: the whole day is)."""

    event: str
    day: date
    folder: Path
    properties: tuple[str, ...] = ()
    store: StoreName = "accepted"

    @property
    def name(self) -> str:
        return f"{self.event}/{self.day}"


@dataclass(frozen=True)
class Removed:
    """What went from one store of the lake, or from both."""

    days: int = 0
    rows: int = 0
    days_with_values: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.days + other.days, self.rows + other.rows, self.days_with_values + other.days_with_values)


def days_over(home: Home, plan: TrackingPlan, as_of: datetime, store: StoreName = "accepted") -> list[Partition]:
    """Days of a store that are older than their event may be kept. Looks at names of folders only."""
    return [
        Partition(event.event, day, folder, store=store)
        for event in plan.events.values()
        if event.retention_days is not None
        for day, folder in _days(home, event, store)
        if _over(day, event.retention_days, as_of)
    ]


def values_over(home: Home, plan: TrackingPlan, as_of: datetime, store: StoreName = "accepted") -> list[Partition]:
    """Days that stay, but in which some properties are over; those where that was done already among them."""
    found = []
    for event in plan.events.values():
        kept = {name: prop.retention_days for name, prop in event.properties.items() if prop.retention_days}
        for day, folder in _days(home, event, store) if kept else ():
            names = tuple(name for name, days in sorted(kept.items()) if _over(day, days, as_of))
            if names and not (event.retention_days and _over(day, event.retention_days, as_of)):
                found.append(Partition(event.event, day, folder, names, store))
    return found


def enforce_lake(home: Home, ledger: Ledger, plan: TrackingPlan, as_of: datetime) -> Removed:
    """Remove what is over at `as_of`. Killed, a commit is finished by the next ingest or never was."""
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        done = Removed()
        for store in STORES:
            days, rows = _remove_days(con, home, ledger, days_over(home, plan, as_of, store), as_of)
            done += Removed(days, rows, _null_values(con, home, ledger, plan, as_of, store))
        return done
    finally:
        con.close()


def rows_of(partitions: Sequence[Partition]) -> int:
    """Rows of whole days, from the files' own counts."""
    import pyarrow.parquet as pq

    files = (path for part in partitions for path in part.folder.glob("*.parquet"))
    return sum(pq.read_metadata(path).num_rows for path in files)


def _days(home: Home, event: EventPlan, store: StoreName) -> Iterator[tuple[date, Path]]:
    place = home.accepted if store == "accepted" else home.exempt
    for folder in sorted((place / f"event={event.event}").glob("received_date=*")):
        if any(folder.glob("*.parquet")):
            yield date.fromisoformat(folder.name.partition("=")[2]), folder


def _over(day: date, kept: int, as_of: datetime) -> bool:
    """Counted in whole days of the calendar, so that a day of the year 1 or 9999 is no error."""
    return (as_of.astimezone(UTC).date() - day).days >= kept + 1


def _remove_days(
    con: duckdb.DuckDBPyConnection, home: Home, ledger: Ledger, partitions: Sequence[Partition], as_of: datetime
) -> tuple[int, int]:
    if not partitions:
        return 0, 0
    files = [path for part in partitions for path in sorted(part.folder.glob("*.parquet"))]
    expiry_id = _commit_id("days", home, files)
    counted = [
        (expiry_id, utc_text(as_of), part.event, part.day.isoformat(), source, rows)
        for part in partitions
        for source, rows in con.execute(
            f"SELECT source, count(*) FROM read_parquet({quote(str(part.folder / '*.parquet'))}) GROUP BY source"
        ).fetchall()
    ]
    with ledger.transaction() as db:
        stage(db, expiry_id, [path.relative_to(home.lake).as_posix() for path in files])
        table, _ = _TABLES[partitions[0].store]
        db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?)", counted)
    move_in(home, ledger, expiry_id)
    return len(partitions), sum(row[-1] for row in counted)


def _commit_id(kind: str, home: Home, files: Sequence[Path]) -> str:
    names = [path.relative_to(home.lake).as_posix() for path in files]
    return hashlib.sha256("".join(["retention", kind, *names]).encode()).hexdigest()[:16]


def _null_values(
    con: duckdb.DuckDBPyConnection,
    home: Home,
    ledger: Ledger,
    plan: TrackingPlan,
    as_of: datetime,
    store: StoreName,
) -> int:
    done = 0
    wanted = defaultdict(list)
    for part in values_over(home, plan, as_of, store):
        wanted[part.properties].append(part)
    for properties, parts in wanted.items():
        seen = Seen(ledger, store, ",".join(properties))
        new = [part for part in parts if not seen.nothing_due(part.name, part.folder, as_of)]
        for first in range(0, len(new), COMMIT_PARTITIONS):
            done += _null_in(con, home, ledger, plan, new[first : first + COMMIT_PARTITIONS], as_of)
            seen.remember({part.name: (part.folder, None) for part in new[first : first + COMMIT_PARTITIONS]})
    return done


def _null_in(
    con: duckdb.DuckDBPyConnection,
    home: Home,
    ledger: Ledger,
    plan: TrackingPlan,
    partitions: Sequence[Partition],
    as_of: datetime,
) -> int:
    """Write the files again that hold values which are over; returns the partitions that had any."""
    todo = {path: columns for part in partitions for path, columns in _holding(con, plan, part)}
    if not todo:
        return 0
    expiry_id = _commit_id("values", home, list(todo))
    folder = home.incoming / expiry_id
    shutil.rmtree(folder, ignore_errors=True)
    for number, (path, columns) in enumerate(todo.items()):
        target = (folder / path.relative_to(home.lake)).with_name(f"{expiry_id}-{number:04d}.parquet")
        target.parent.mkdir(parents=True, exist_ok=True)
        nothing = ", ".join(f'CASE WHEN false THEN "{name}" END AS "{name}"' for name in columns)  # keeps its type
        con.execute(
            f"COPY (SELECT * REPLACE ({nothing}) FROM {_one_file(path)}) TO {quote(str(target))} (FORMAT parquet)"
        )
    changed = [part for part in partitions if any(path.parent == part.folder for path in todo)]
    with ledger.transaction() as db:
        stage(db, expiry_id, [path.relative_to(home.lake).as_posix() for path in todo])
        db.executemany(
            f"INSERT OR REPLACE INTO {_TABLES[partitions[0].store][1]} VALUES (?, ?, ?, ?, ?)",
            [(expiry_id, utc_text(as_of), p.event, p.day.isoformat(), ",".join(p.properties)) for p in changed],
        )
    move_in(home, ledger, expiry_id)
    return len(changed)


def _holding(
    con: duckdb.DuckDBPyConnection, plan: TrackingPlan, part: Partition
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Files of a partition with values of its properties (under old names too), and the columns that hold some."""
    event = plan.events[part.event]
    names = [known for name in part.properties for known in (name, *event.names_before(name))]
    for path in sorted(part.folder.glob("*.parquet")):
        stored = stored_types(path)
        columns = [name for name in names if name in stored]
        if columns:
            counts = ", ".join(f'count("{name}")' for name in columns)
            [found] = con.execute(f"SELECT {counts} FROM {_one_file(path)}").fetchall()
            holding = tuple(name for name, count in zip(columns, found, strict=True) if count)
            if holding:
                yield path, holding


def _one_file(path: Path) -> str:
    return f"read_parquet({quote(str(path))}, hive_partitioning = false)"
