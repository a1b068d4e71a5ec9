"""Ingest: landed files into the lake, each committed once, whole, with counts that balance.

Protocol (safe against SIGKILL at any point): a commit writes all its Parquet below lake/.incoming/<commit>, then one
ledger transaction records the files as ingested and the commit as staged, then the files are renamed into the lake,
then the commit is marked done. `recover` finishes what is staged and drops what is not.

Belongs here: batches, commits, recovery. Does not belong here: verdicts (verdict.py), reading bytes (reader.py).
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import statements_of, utc_text
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.observed import ObservedConsent
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, TrackingPlan
from zantara_pipeline.tracking.reader import BATCH_SCHEMA, LandedFile, identify, landed_paths, line_batches
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.verdict import LINES, REASON_TYPE, Judge, Rules, typed_column, unknown_keys_sql

# One batch is judged in memory: 64 MB of raw lines keep the engine's peak under its 600 MB limit.
BATCH_BYTES = 64 * 2**20
COMMIT_BYTES = 512 * 2**20
STAGES = ("unparsable", "suppressed", "quarantined", "accepted")


@dataclass
class FileCounts:
    """Rows of one file per outcome; rows_in is their sum."""

    unparsable: int = 0
    suppressed: int = 0
    quarantined: int = 0
    accepted: int = 0
    late: int = 0
    min_received_at: datetime | None = None
    max_received_at: datetime | None = None

    @property
    def rows_in(self) -> int:
        return self.unparsable + self.suppressed + self.quarantined + self.accepted

    def add(self, other: FileCounts) -> None:
        for name in (*STAGES, "late"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, pick in (("min_received_at", min), ("max_received_at", max)):
            known = [moment for moment in (getattr(self, name), getattr(other, name)) if moment is not None]
            setattr(self, name, pick(known) if known else None)


@dataclass
class IngestResult:
    """What one ingest did: counts per new file, received dates touched, files known already, files refused."""

    files: dict[str, FileCounts] = field(default_factory=dict)
    touched_dates: set[date] = field(default_factory=set)
    quarantined_dates: set[date] = field(default_factory=set)
    known: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def total(self) -> FileCounts:
        total = FileCounts()
        for counts in self.files.values():
            total.add(counts)
        return total


def ingest(
    home: Home,
    ledger: Ledger,
    landing: Path,
    rules: Rules,
    *,
    threads: int,
    memory_limit: str = "600MB",
    progress: Callable[[str], None] | None = None,
) -> IngestResult:
    """Take every landed file that is not in the ledger yet.

    A file that cannot be read whole (a truncated .gz) is refused, named in `refused`, and nothing of it is taken;
    the others go on.
    """
    recover(home, ledger)
    result = IngestResult()
    new = _new_files(ledger, landing, result)
    con = open_engine(None, home, threads=threads, memory_limit=memory_limit)
    try:
        con.execute("SET preserve_insertion_order = false")
        judge = Judge(con, rules)
        for group in _groups(new):
            if progress:
                progress(f"{group[0].name}{f' and {len(group) - 1} more' if len(group) > 1 else ''}")
            _ingest_group(_Sink(home, con, rules.plan), judge, ledger, group, result)
    finally:
        con.close()
    _notices(result)
    return result


def _notices(result: IngestResult) -> None:
    for name, counts in result.files.items():
        if counts.rows_in == 0:
            result.notices.append(f"{name}: the file is empty")
        elif counts.unparsable == counts.rows_in:
            result.notices.append(f"{name}: none of its {counts.rows_in} lines is a JSON object; is it an event file?")


def _new_files(ledger: Ledger, landing: Path, result: IngestResult) -> list[LandedFile]:
    with ledger.read() as db:
        known = {row[0] for row in db.execute("SELECT sha256 FROM ingested_files")}
    new = []
    for path, name in landed_paths(landing):
        file = identify(path, name)
        if file.sha256 in known:
            result.known += 1
        else:
            known.add(file.sha256)
            new.append(file)
    return new


def _groups(files: Sequence[LandedFile]) -> Iterator[list[LandedFile]]:
    """Files of one commit: up to COMMIT_BYTES on disk, so that a kill costs at most that much work."""
    group: list[LandedFile] = []
    size = 0
    for file in files:
        if group and size + file.bytes > COMMIT_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.bytes
    if group:
        yield group


def _ingest_group(sink: _Sink, judge: Judge, ledger: Ledger, group: list[LandedFile], result: IngestResult) -> None:
    readable = [file for file in group if _readable(file, result)]
    if not readable:
        return
    sink.begin(hashlib.sha256("".join(file.sha256 for file in readable).encode()).hexdigest()[:16], readable)
    for _ in judged_batches(judge, readable, lambda users: statements_of(ledger, users)):
        sink.write()
    sink.commit(ledger)
    result.touched_dates |= sink.dates
    result.quarantined_dates |= sink.quarantined_dates
    for file, counts in zip(readable, sink.counts, strict=True):
        result.files[file.name] = counts


def judged_batches(
    judge: Judge, files: Sequence[LandedFile], statements: Callable[[pa.Array], pa.Table]
) -> Iterator[None]:
    """Judge the lines of files batch by batch; at each yield the judge's temp tables hold one batch.

    Parameters
    ----------
    statements : user ids -> their consent statements; asked once per user and call.
    """
    judge.forget_users()
    for lines in _tables(files):
        judge.learn(statements(judge.load(lines)))
        judge.judge()
        yield


def batch_counts(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, FileCounts, date | None]]:
    """(file_no, counts, first accepted received date) of the batch just judged."""
    for number, *values in con.execute(_COUNT_SQL).fetchall():
        yield number, FileCounts(*values[:7]), values[7]


def quarantined_sql(con: duckdb.DuckDBPyConnection, plan: TrackingPlan) -> str:
    """Query of the failing rows of the batch just judged, with all reasons (unknown keys by name)."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE unknown_keys AS {unknown_keys_sql(plan)}")
    versions = "".join(f" WHEN {quote(name)} THEN {quote(event.version)}" for name, event in plan.events.items())
    return _QUARANTINE_SQL.format(
        name=_EVENT_NAME, reasons=_named_unknown_keys(), versions=f"CASE p.event{versions} END" if versions else "NULL"
    )


def _readable(file: LandedFile, result: IngestResult) -> bool:
    """Only a compressed file can turn out damaged after its first lines: read it through before taking any."""
    if not file.path.name.endswith(".gz"):
        return True
    try:
        for _ in line_batches(file, 0):
            pass
    except InputError as error:
        result.refused[file.name] = str(error)
        return False
    return True


def _tables(files: Sequence[LandedFile]) -> Iterator[pa.Table]:
    """Batches of whole lines over the files of a commit."""
    held: list[pa.RecordBatch] = []
    size = 0
    for number, file in enumerate(files):
        for batch in line_batches(file, number):
            held.append(batch)
            size += batch.nbytes
            if size >= BATCH_BYTES:
                yield pa.Table.from_batches(held, schema=BATCH_SCHEMA)
                held, size = [], 0
    if held:
        yield pa.Table.from_batches(held, schema=BATCH_SCHEMA)


class _Sink:
    """Writes judged batches beside the lake and commits them."""

    def __init__(self, home: Home, con: duckdb.DuckDBPyConnection, plan: TrackingPlan) -> None:
        self.home, self.con, self.plan = home, con, plan

    def begin(self, commit_id: str, files: Sequence[LandedFile]) -> None:
        self.commit_id, self.files, self.part = commit_id, list(files), 0
        self.counts = [FileCounts() for _ in files]
        self.first_dates: list[date | None] = [None] * len(files)
        self.dates: set[date] = set()
        self.quarantined_dates: set[date] = set()
        self.reasons: Counter[tuple[int, str, str, str]] = Counter()
        self.observed = ObservedConsent(self.con, self.plan)
        self.folder = self.home.incoming / commit_id
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def write(self) -> None:
        """Write what the judge's temp tables hold and add up the counts."""
        self.con.execute("CREATE OR REPLACE TEMP TABLE sources (file_no INTEGER, source VARCHAR)")
        self.con.executemany("INSERT INTO sources VALUES (?, ?)", [(n, f.source) for n, f in enumerate(self.files)])
        self._count()
        for name in self.plan.events:
            self._write_accepted(name)
        self._write_quarantine()
        self._write_unparsable()
        self.observed.add_batch()
        self.part += 1

    def _count(self) -> None:
        for number, counts, first in batch_counts(self.con):
            self.counts[number].add(counts)
            if first is not None:
                known = self.first_dates[number]
                self.first_dates[number] = first if known is None else min(known, first)
        for name, stage in (("dates", "accepted"), ("quarantined_dates", "quarantined")):
            found = self.con.execute(_DATES_SQL, [stage]).fetchall()
            getattr(self, name).update(row[0] for row in found)

    def _copy(self, query: str, folder: Path, partition: str | None) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        name = f"{self.commit_id}-{self.part:04d}"
        if partition is None:
            self.con.execute(f"COPY ({query}) TO {quote(str(folder.parent / f'{name}.parquet'))} (FORMAT parquet)")
        else:
            options = (
                f"FORMAT parquet, PARTITION_BY ({partition}), FILENAME_PATTERN '{name}-{{i}}', OVERWRITE_OR_IGNORE"
            )
            self.con.execute(f"COPY ({query}) TO {quote(str(folder))} ({options})")

    def _write_accepted(self, event: str) -> None:
        if not self._any(f"parsed WHERE stage = 'accepted' AND event = {quote(event)}"):
            return
        version = quote(self.plan.events[event].version)
        query = accepted_sql(event, version, self.plan)
        self._copy(query, self.folder / "accepted" / f"event={event}", "received_date")

    def _write_quarantine(self) -> None:
        if self._any("failed"):
            self.con.execute(f"CREATE OR REPLACE TEMP TABLE quarantined AS {quarantined_sql(self.con, self.plan)}")
            for *key, rows in self.con.execute(_REASONS_SQL).fetchall():
                self.reasons[tuple(key)] += rows
            self._copy("SELECT * EXCLUDE (file_no) FROM quarantined", self.folder / "quarantine", "received_date")

    def _write_unparsable(self) -> None:
        if self._any("parsed WHERE stage = 'unparsable'"):
            self._copy(_UNPARSABLE_SQL, self.folder / "unparsable" / "x", None)

    def _any(self, relation: str) -> bool:
        return self.con.execute(f"SELECT EXISTS (FROM {relation})").fetchall() == [(True,)]

    def commit(self, ledger: Ledger) -> None:
        now = utc_text(datetime.now(UTC))
        with ledger.transaction() as db:
            db.execute("INSERT OR REPLACE INTO ingest_commits VALUES (?, 'staged')", [self.commit_id])
            self.observed.save(db)
            db.executemany(f"INSERT INTO ingested_files VALUES ({', '.join('?' * 15)})", self._ledger_rows(now))
            db.executemany(
                "INSERT OR REPLACE INTO quarantine_reasons VALUES (?, ?, ?, ?, ?)",
                [
                    (self.files[n].sha256, event, code, path, rows)
                    for (n, event, code, path), rows in sorted(self.reasons.items())
                ],
            )
        _move_in(self.home, ledger, self.commit_id)

    def _ledger_rows(self, now: str) -> Iterator[tuple[Any, ...]]:
        for file, c, first in zip(self.files, self.counts, self.first_dates, strict=True):
            low, high = (None if m is None else utc_text(m) for m in (c.min_received_at, c.max_received_at))
            yield (file.sha256, file.name, file.source, file.bytes, c.rows_in, c.unparsable, c.suppressed, c.quarantined,
                   c.accepted, c.late, low, high, first.isoformat() if first else None, self.commit_id, now)  # fmt: skip


def recover(home: Home, ledger: Ledger) -> None:
    """Finish commits that were staged when a run was killed; drop what was never staged."""
    with ledger.read() as db:
        staged = [row[0] for row in db.execute("SELECT commit_id FROM ingest_commits WHERE state = 'staged'")]
    for commit_id in staged:
        _move_in(home, ledger, commit_id)
    shutil.rmtree(home.incoming, ignore_errors=True)


def _move_in(home: Home, ledger: Ledger, commit_id: str) -> None:
    folder = home.incoming / commit_id
    places = {"accepted": home.accepted, "quarantine": home.quarantine, "unparsable": home.restricted / "unparsable"}
    for part, place in places.items():
        for path in sorted((folder / part).rglob("*.parquet")):
            target = place / path.relative_to(folder / part)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    with ledger.transaction() as db:
        db.execute("UPDATE ingest_commits SET state = 'done' WHERE commit_id = ?", [commit_id])
    shutil.rmtree(folder, ignore_errors=True)


def accepted_sql(event: str, version: str, plan: TrackingPlan) -> str:
    """Accepted rows of one event as the lake's columns."""
    ids = ", ".join(f"p.{name}" for name in ENVELOPE_STRINGS)
    context = ", ".join(f"p.{name}" for name in CONTEXT_KEYS)
    declared = plan.events[event]
    properties = "".join(f', p.{typed_column(name, declared)} AS "{name}"' for name in declared.properties)
    return f"""
        SELECT p.event_id, p.occurred_at, p.received_at, {ids}, {version} AS plan_version, s.source, p.line_no,
            'granted' AS consent_basis, p.consent_analytics, p.consent_personalization, p.is_late, p.received_at_missing,
            {context}{properties}, p.received_at::DATE AS received_date
        FROM parsed p JOIN sources s USING (file_no)
        WHERE p.stage = 'accepted' AND p.event = {quote(event)}
    """


def _named_unknown_keys() -> str:
    """Reasons with the names of unknown keys filled in: one reason per key; a repeated declared key has its own code."""
    expand = (
        "flatten(list_transform({source}, lambda r: CASE WHEN r.code = 'unknown_key' AND r.path = {level} THEN "
        "CASE WHEN len({names}) = 0 THEN [struct_update(r, code := 'duplicate_key', keyword := 'uniqueKeys', expected := 'each key once')] "
        "ELSE list_transform({names}, lambda k: struct_update(r, path := {level} || '.' || k)) END ELSE [r] END))"
    )
    top = expand.format(source="f.reasons", level="'$'", names="u.top")
    return expand.format(source=top, level="'$.properties'", names="u.inner_keys")


_COUNT_SQL = """
    SELECT file_no,
        count(*) FILTER (stage = 'unparsable'), count(*) FILTER (stage = 'suppressed'),
        count(*) FILTER (stage = 'quarantined'), count(*) FILTER (stage = 'accepted'),
        count(*) FILTER (stage = 'accepted' AND is_late),
        min(received_at) FILTER (stage = 'accepted'), max(received_at) FILTER (stage = 'accepted'),
        min(received_at::DATE) FILTER (stage = 'accepted')
    FROM parsed GROUP BY file_no
"""

_DATES_SQL = "SELECT DISTINCT received_at::DATE FROM parsed WHERE stage = ? AND received_at IS NOT NULL"

# The name of an event that nobody declared is a value of its sender: it is repeated only where it looks like a name.
_EVENT_NAME = "CASE WHEN regexp_full_match(p.event, '[A-Za-z][A-Za-z0-9_ -]{0,39}') THEN p.event END"

_QUARANTINE_SQL = f"""
    WITH named AS (
        SELECT f.row_id, {{reasons}}::{REASON_TYPE} AS reasons FROM failed f JOIN unknown_keys u USING (row_id)
    )
    SELECT p.event_id, {{name}} AS event, rtrim(l.line, chr(10) || chr(13)) AS payload_raw, s.source, p.file_no, p.line_no,
        {{versions}} AS plan_version, n.reasons,
        md5(coalesce(p.event, '') || list_aggregate(list_sort(list_transform(n.reasons, lambda r: r.code || r.path)), 'string_agg', ' ')) AS fingerprint,
        coalesce(p.received_at, p.stated_received_at) AS first_seen, 1 AS attempts, 'open' AS status,
        coalesce(p.received_at::DATE, p.stated_received_at::DATE, DATE '1970-01-01') AS received_date
    FROM parsed p JOIN named n USING (row_id) JOIN {LINES} l USING (row_id) JOIN sources s USING (file_no)
"""

_REASONS_SQL = """
    SELECT file_no, coalesce(event, ''), reason.code, reason.path, count(DISTINCT line_no)
    FROM (SELECT file_no, line_no, event, unnest(reasons) AS reason FROM quarantined)
    GROUP BY ALL ORDER BY ALL
"""

_UNPARSABLE_SQL = f"""
    SELECT s.source, p.line_no, rtrim(l.line, chr(10) || chr(13)) AS line
    FROM parsed p JOIN {LINES} l USING (row_id) JOIN sources s USING (file_no) WHERE p.stage = 'unparsable'
"""
