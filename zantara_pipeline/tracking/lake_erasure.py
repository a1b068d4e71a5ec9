"""Erasure of people from the lake and the restricted stores: files that hold them are written again without them.

An accepted row is theirs by its user id, or, where it names no person, by an anonymous id or device that is theirs alone.
A row of somebody else that names them in a property loses that value (the whole row goes where the plan demands one). Of
quarantined and restricted lines, which are kept as they came, a line goes if it names them anywhere.

All of it is one commit (commits.py). The counts of the landed files say afterwards what they would say had the people
been erased before the files landed: their lines are suppressed, and `erased` among those.

Belongs here: finding rows and files, and that commit. Does not belong here: landed files (landed_lines.py), whose an id is
(whose.py), that whoever was erased is not taken again (verdict.py).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.people import PLACEHOLDERS, People, is_distinctive, is_field_of_people
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.commits import move_in, recover, stage
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

MEMORY = "300MB"
_OWN = ("user_id", "anonymous_id", "device_id")
_NEEDED = ("event_id", "plan_version", "source", "consent_basis", "legal_reference", "platform", "country")
"""Columns of the pipeline's own making or minimised ones; a row that names somebody there goes whole."""


def erase_from_lake(home: Home, ledger: Ledger, plan: TrackingPlan, people: People) -> int:
    """Remove these people's rows and lines; returns how many. Done again it finds none; killed, it is finished or never was."""
    recover(home, ledger)
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        work = _Erasure(con, home, plan, people)
        return work.commit(ledger) if work.prepare() else 0
    finally:
        con.close()


@dataclass
class _Moved:
    """Rows of one landed file that leave a stage, and the parts of stages that they are counted in."""

    accepted: int = 0
    late: int = 0
    exempt: int = 0
    quarantined: int = 0
    unparsable: int = 0
    unreadable: int = 0


@dataclass
class _Changed:
    """A file to write again: the rows to keep, as a table or as SQL."""

    path: Path
    target: str
    query: str = ""
    rows: pa.Table | None = None


@dataclass
class _Counts:
    files: dict[str, _Moved] = field(default_factory=dict)
    reasons: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    def of(self, source: str) -> _Moved:
        return self.files.setdefault(source, _Moved())


class _Erasure:
    def __init__(self, con: duckdb.DuckDBPyConnection, home: Home, plan: TrackingPlan, people: People) -> None:
        self.con, self.home, self.plan, self.people = con, home, plan, people
        self.changed: list[_Changed] = []
        self.counts = _Counts()
        for name, ids in (("users", people.users), ("anonymous", people.anonymous), ("devices", people.devices)):
            con.execute(f"CREATE TEMP TABLE erased_{name} AS SELECT unnest(?::VARCHAR[]) AS id", [sorted(ids)])
        con.execute("CREATE TEMP TABLE erased_ids AS SELECT unnest(?::VARCHAR[]) AS id", [sorted(people.ids)])
        con.execute("CREATE TEMP TABLE placeholders AS SELECT unnest(?::VARCHAR[]) AS id", [sorted(PLACEHOLDERS)])
        # a constant of the connection and not of the statement: no plan or message shows an id
        con.execute("SET VARIABLE bounded = ?", [people.matcher.bounded])

    def prepare(self) -> list[_Changed]:
        for store in (self.home.accepted, self.home.exempt):
            for folder in sorted(store.glob("event=*")):
                for path in self._holding(folder):
                    self._typed(path)
        for path in sorted(self.home.quarantine.glob("*/*.parquet")):
            self._lines(path, "payload_raw")
        for store_name in ("unparsable", "consent_unreadable"):
            for path in sorted((self.home.restricted / store_name).glob("*.parquet")):
                self._lines(path, "line")
        return self.changed

    def _holding(self, folder: Path) -> Iterator[Path]:
        """Files of an event that name them in any column of text: one look over all its files."""
        files = sorted(folder.glob("received_date=*/*.parquet"))
        columns = sorted({name for path in files for name in _texts(path)})
        if not files or not columns:
            return
        names = " OR ".join(self._names(column) for column in columns)
        everything = _parquet(files)
        found = self.con.execute(f"SELECT DISTINCT filename FROM {everything} WHERE {names}").fetchall()
        yield from sorted(Path(row[0]) for row in found)

    def _names(self, column: str) -> str:
        """SQL: the column's value names one of them."""
        conditions = []
        if is_field_of_people(column):
            conditions.append(f'"{column}" IN (SELECT id FROM erased_ids)')
        if any(map(is_distinctive, self.people.ids)):
            conditions.append(f"regexp_matches(\"{column}\", getvariable('bounded'))")
        return f"coalesce({' OR '.join(conditions) or 'false'}, false)"

    def _typed(self, path: Path) -> None:
        columns = _texts(path)
        event = self.plan.events.get(path.parent.parent.name.partition("=")[2])
        demanded = {name for name, prop in event.properties.items() if not prop.allows_null} if event else set()
        whole = [name for name in columns if name in _NEEDED or name in demanded]
        theirs = " OR ".join([self._theirs(columns), *(self._names(name) for name in whole)])
        others = [name for name in columns if name not in whole]
        emptied = ", ".join(f'CASE WHEN {self._names(name)} THEN NULL ELSE "{name}" END AS "{name}"' for name in others)
        table = f"read_parquet({quote(str(path))}, hive_partitioning = false)"
        rest = f"SELECT * {f'REPLACE ({emptied})' if emptied else ''} FROM {table} WHERE NOT ({theirs})"
        self.changed.append(_Changed(path, self._name(path), query=rest))
        exempt = path.is_relative_to(self.home.exempt)
        counted = f"SELECT source, count(*), count(*) FILTER (is_late) FROM {table} WHERE {theirs} GROUP BY source"
        for source, rows, late in self.con.execute(counted).fetchall():
            moved = self.counts.of(source)
            moved.accepted, moved.late = moved.accepted + rows, moved.late + late
            moved.exempt += rows if exempt else 0

    def _theirs(self, columns: list[str]) -> str:
        if "user_id" not in columns:
            return "false"
        nobodys = "(user_id IS NULL OR lower(trim(user_id)) IN (SELECT id FROM placeholders))"
        return (
            "coalesce(user_id IN (SELECT id FROM erased_users), false) OR "
            f"({nobodys} AND (coalesce(anonymous_id IN (SELECT id FROM erased_anonymous), false) "
            "OR coalesce(device_id IN (SELECT id FROM erased_devices), false)))"
        )

    def _lines(self, path: Path, column: str) -> None:
        """Of a file of lines as they came."""
        table = pq.read_table(path, partitioning=None)
        matcher = self.people.matcher
        ids = table.column("event_id") if "event_id" in table.column_names else pa.nulls(len(table), pa.string())
        named = [
            (text is not None and matcher.in_text(text)) or (event_id is not None and matcher.in_text(event_id))
            for text, event_id in zip(table.column(column).to_pylist(), ids.to_pylist(), strict=True)
        ]
        if not any(named):
            return
        mask = pa.array(named)
        self._count_lines(table.filter(mask), column, path)
        self.changed.append(_Changed(path, self._name(path), rows=table.filter(pa.compute.invert(mask))))

    def _count_lines(self, gone: pa.Table, column: str, path: Path) -> None:
        for row in gone.drop_columns([column]).to_pylist():
            moved = self.counts.of(row["source"])
            if column == "payload_raw":
                moved.quarantined += 1
                for code, reason_path in {(reason["code"], reason["path"]) for reason in row["reasons"]}:
                    self.counts.reasons[row["source"], row["event"] or "", code, reason_path] += 1
            elif path.parent.name == "unparsable":
                moved.unparsable += 1
            else:
                moved.unreadable += 1

    def _name(self, path: Path) -> str:
        """Below the folder of the commit: restricted files go on being named after the commit that received their lines."""
        number = len(self.changed)
        if path.is_relative_to(self.home.restricted):
            received = path.stem.partition("-")[0]
            return f"{path.parent.name}/{received}-{{commit}}-{number:04d}.parquet"
        return f"{path.parent.relative_to(self.home.lake).as_posix()}/{{commit}}-{number:04d}.parquet"

    def commit(self, ledger: Ledger) -> int:
        files = [os.path.relpath(change.path, self.home.lake) for change in self.changed]
        commit_id = hashlib.sha256("".join(["person", *files]).encode()).hexdigest()[:16]
        folder = self.home.incoming / commit_id
        shutil.rmtree(folder, ignore_errors=True)
        for change in self.changed:
            self._write(change, folder / change.target.format(commit=commit_id))
        moved = self.counts.files
        rows = sum(m.accepted + m.quarantined + m.unparsable + m.unreadable for m in moved.values())
        with ledger.transaction() as db:
            stage(db, commit_id, files)
            for source, counts in sorted(moved.items()):
                _move_counts(db, source, counts)
            for (source, event, code, reason_path), number in sorted(self.counts.reasons.items()):
                db.execute(_REASON_SQL, [number, source, event, code, reason_path])
            db.execute("DELETE FROM quarantine_reasons WHERE rows <= 0")
            now = utc_text(datetime.now(UTC))
            db.execute("INSERT OR REPLACE INTO lake_erasures VALUES (?, ?, ?)", [commit_id, now, rows])
        move_in(self.home, ledger, commit_id)
        return rows

    def _write(self, change: _Changed, target: Path) -> None:
        """A file that keeps no row is not written."""
        if change.rows is not None:
            if len(change.rows):
                target.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(change.rows, target, store_schema=False)
        elif self.con.execute(f"SELECT EXISTS ({change.query})").fetchall() == [(True,)]:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.con.execute(f"COPY ({change.query}) TO {quote(str(target))} (FORMAT parquet)")


def _texts(path: Path) -> list[str]:
    """Columns of text of one file."""
    return [f.name for f in pq.read_schema(path) if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]


def _parquet(files: list[Path]) -> str:
    names = ", ".join(quote(str(path)) for path in files)
    return f"read_parquet([{names}], filename = true, union_by_name = true, hive_partitioning = false)"


def _move_counts(db: sqlite3.Connection, source: str, moved: _Moved) -> None:
    out = moved.accepted + moved.quarantined + moved.unparsable
    db.execute(
        """
        UPDATE ingested_files SET accepted = accepted - ?, late = late - ?, exempt = exempt - ?,
            quarantined = quarantined - ?, unparsable = unparsable - ?, consent_unreadable = consent_unreadable - ?,
            suppressed = suppressed + ?, erased = erased + ?
        WHERE source = ?
        """,
        [moved.accepted, moved.late, moved.exempt, moved.quarantined, moved.unparsable, moved.unreadable,
         out, out + moved.unreadable, source],
    )  # fmt: skip


_REASON_SQL = """
    UPDATE quarantine_reasons SET rows = rows - ?
    WHERE sha256 = (SELECT sha256 FROM ingested_files WHERE source = ?) AND event = ? AND code = ? AND path = ?
"""
