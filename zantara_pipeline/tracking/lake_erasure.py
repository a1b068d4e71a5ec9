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
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.people import PLACEHOLDERS, People, is_field_of_people
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.commits import move_in, recover, stage
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

MEMORY = "300MB"
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
    """A file to write again, with the rows that it keeps."""

    path: Path
    target: str
    rows: pa.Table


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
        con.execute("CREATE TEMP TABLE erased_ids AS SELECT unnest(?::VARCHAR[]) AS id", [sorted(people.ids)])
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
        if self.people.matcher.distinctive:
            conditions.append(f"regexp_matches(\"{column}\", getvariable('bounded'))")
        return f"coalesce({' OR '.join(conditions) or 'false'}, false)"

    def _typed(self, path: Path) -> None:
        table = pq.read_table(path, partitioning=None)
        texts = _texts(path)
        event = self.plan.events.get(path.parent.parent.name.partition("=")[2])
        demanded = {name for name, prop in event.properties.items() if not prop.allows_null} if event else set()
        gone, emptied_any = self._theirs(table, texts), False
        for name in texts:
            values = self.people.matcher.values_in(name, table.column(name))
            if not values:
                continue
            named = pc.is_in(table.column(name), value_set=pa.array(values, pa.string()))
            if name in _NEEDED or name in demanded:
                gone = pc.or_(gone, named)
            else:
                emptied = pc.if_else(named, pa.scalar(None, pa.string()), table.column(name))
                table = table.set_column(table.schema.get_field_index(name), name, emptied)
                emptied_any = True
        if not emptied_any and not pc.any(gone).as_py():
            return  # the quick look takes too much rather than too little
        self._count_rows(table.filter(gone), exempt=path.is_relative_to(self.home.exempt))
        self.changed.append(_Changed(path, self._name(path), table.filter(pc.invert(gone))))

    def _theirs(self, table: pa.Table, texts: list[str]) -> pa.ChunkedArray:
        """Whose row it is: by its user, or, where it names none, by an id that is theirs alone."""
        if "user_id" not in texts:
            return pa.chunked_array([pa.array([False] * len(table))])
        user = table.column("user_id")
        nobodys = pc.or_(pc.is_null(user), pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(user)), _set(PLACEHOLDERS)))
        own = pc.or_(
            pc.is_in(table.column("anonymous_id"), _set(self.people.anonymous)),
            pc.is_in(table.column("device_id"), _set(self.people.devices)),
        )
        return pc.or_(pc.is_in(user, _set(self.people.users)), pc.and_(nobodys, own))

    def _count_rows(self, gone: pa.Table, *, exempt: bool) -> None:
        for source, late in zip(gone.column("source").to_pylist(), gone.column("is_late").to_pylist(), strict=True):
            moved = self.counts.of(source)
            moved.accepted += 1
            moved.late += bool(late)
            moved.exempt += exempt

    def _lines(self, path: Path, column: str) -> None:
        """Of a file of lines as they came."""
        table = pq.read_table(path, partitioning=None)
        columns = [name for name in (column, "event_id") if name in table.column_names]
        named = {name: self.people.matcher.values_in(name, table.column(name)) for name in columns}
        if not any(named.values()):
            return
        gone = pa.chunked_array([pa.array([False] * len(table))])
        for name, values in named.items():
            gone = pc.or_(gone, pc.is_in(table.column(name), value_set=pa.array(values, pa.string())))
        self._count_lines(table.filter(gone), column, path)
        self.changed.append(_Changed(path, self._name(path), table.filter(pc.invert(gone))))

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
        if len(change.rows):
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(change.rows, target, store_schema=False, store_decimal_as_integer=True)


def _set(ids: Collection[str]) -> pa.Array:
    return pa.array(sorted(ids), pa.string())


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
