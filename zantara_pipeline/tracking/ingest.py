"""Ingest: landed files into the lake, each committed once, whole, with counts that balance.

Belongs here: groups of files and what is recorded of them. Does not belong here: how a commit survives a kill
(commits.py), one batch (batch.py), verdicts (verdict.py), reading bytes (reader.py).
"""

from __future__ import annotations

import gc
import hashlib
import math
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pyarrow as pa

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.adapters import Adaptation, Intake, NotEvents, total_report
from zantara_pipeline.tracking.batch import NOTHING_WAITS, BatchWorker, FileCounts, Outcome, Waits
from zantara_pipeline.tracking.commits import move_in, recover, stage
from zantara_pipeline.tracking.direct import remember_keys
from zantara_pipeline.tracking.foreign_lines import Foreign
from zantara_pipeline.tracking.foreign_lines import words as foreign_words
from zantara_pipeline.tracking.observed import ObservedConsent
from zantara_pipeline.tracking.packed_tables import packed, unpacked
from zantara_pipeline.tracking.reader import (
    LandedFile,
    identify,
    landed_paths,
    line_batches,
    line_tables,
    refuse_long_lines,
    untaken,
)
from zantara_pipeline.tracking.verdict import Rules

# A batch is judged in memory, one per worker at a time; more than four workers would not stay under 1 GB.
BATCH_BYTES = 32 * 2**20
WORKER_MEMORY = "300MB"
MOST_WORKERS = 4
COMMIT_BYTES = 512 * 2**20
# A file of so many lines of which none grants anything is told: a few may well be of guests.
MANY_LINES = 20
# From here on (four batches) lines that are not plain wait for each other. What is accepted of them are files of their own,
# which a commit of one or two batches would feel: it has as few files as it has events and days.
LARGE_COMMIT = 128 * 2**20
# So much waits at most, packed (of eight million lines it is 16 MB); what comes after is judged in its batch.
MOST_WAITING = 48 * 2**20
# What waited is judged in batches of so much, a quarter of a usual one: it is little, and every worker shall get some of it.
WAITED_BYTES = 8 * 2**20


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
    intake: Intake | None = None,
    progress: Callable[[str], None] | None = None,
) -> IngestResult:
    """Take every landed file that is not in the ledger yet.

    intake : how files of other formats are told and adapted; None: every file holds envelope lines.

    A file that cannot be read whole (a truncated .gz), or whose format is unclear or not the given one, is refused, named
    in `refused`, and nothing of it is taken; the others go on.
    """
    # Arrow's own allocator keeps 130 MB more than the system's, which the blocks of lines are from and goes on using.
    pa.set_memory_pool(pa.system_memory_pool())
    recover(home, ledger)
    result = IngestResult()
    new, workers = _prepared(home, ledger, landing, rules, threads, result)
    commit = _Commit(home, ledger, rules)
    adaptations: list[tuple[str, Adaptation]] = []
    try:
        for group in _groups(new):
            if progress:
                progress(f"{group[0].name}{f' and {len(group) - 1} more' if len(group) > 1 else ''}")
            _ingest_group(commit, workers, _adapted(group, intake, adaptations, result), result)
    finally:
        for worker in workers:
            worker.close()
        gc.unfreeze()
    _notices(result)
    result.notices += _said_of(adaptations)
    return result


def _prepared(
    home: Home, ledger: Ledger, landing: Path, rules: Rules, threads: int, result: IngestResult
) -> tuple[list[LandedFile], list[BatchWorker]]:
    """New files, and workers if there are any. Loading what judges takes as long as hashing half a gigabyte (0.4 s)."""

    def build() -> list[BatchWorker]:
        workers = [BatchWorker(home, ledger, rules, WORKER_MEMORY) for _ in range(min(threads, MOST_WORKERS))]
        gc.freeze()  # a million objects of the libraries, which the collector would look through again and again (0.4 s)
        return workers

    with ThreadPoolExecutor(1) as beside:
        building = beside.submit(build) if untaken(landing, ledger, math.inf) else None
        new = _new_files(ledger, landing, result)
    workers = building.result() if building else build() if new else []
    if not new:
        for worker in workers:
            worker.close()
        workers = []
    return new, workers


def _notices(result: IngestResult) -> None:
    for name, counts in result.files.items():
        result.notices += [f"{name}: {said}" for said in words_of_counts(counts, many=MANY_LINES)]


def words_of_counts(counts: FileCounts, *, many: int = 1) -> Iterator[str]:
    """What the counts of a file say of the whole of it, if it has so `many` lines that this is no chance."""
    if counts.rows_in == 0:
        yield "the file is empty"
    elif counts.unparsable == counts.rows_in:
        yield f"none of its {counts.rows_in} lines is a JSON object; is it an event file?"
    elif counts.suppressed == counts.rows_in >= many and not counts.erased:
        yield (
            f"all of its {counts.rows_in} lines are suppressed, none grants what its event needs; "
            "if another tool wrote them, name their format"
        )


def _new_files(ledger: Ledger, landing: Path, result: IngestResult) -> list[LandedFile]:
    with ledger.read() as db:
        known = {
            row[0] for row in db.execute("SELECT sha256 FROM ingested_files UNION SELECT sha256 FROM rewritten_files")
        }
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


def _ingest_group(
    commit: _Commit, workers: Sequence[BatchWorker], readable: list[LandedFile], result: IngestResult
) -> None:
    if not readable:
        return
    folder = commit.begin(readable)
    for worker in workers:
        worker.begin(folder, [file.source for file in readable])
    large = sum(file.bytes for file in readable) >= LARGE_COMMIT
    commit.take(workers, line_tables(readable, BATCH_BYTES), Waits(few=large, exempt=True))
    commit.take(workers, _together(commit.few), Waits(exempt=True))
    if commit.exempt:
        objections = commit.observed.objections()
        for worker in workers:
            worker.judge.object(objections)
        commit.take(workers, _together(commit.exempt), NOTHING_WAITS)
    with ThreadPoolExecutor(len(workers)) as pool:
        explained = [pool.submit(worker.explain) for worker in workers]
        commit.observed.settle(commit.latest_receipt(), pool)
        commit.finish(explained)
    result.touched_dates |= commit.dates
    result.quarantined_dates |= commit.quarantined_dates
    for number, (file, counts) in enumerate(zip(readable, commit.counts, strict=True)):
        result.files[file.name] = counts
        found = foreign_words(line for line in commit.foreign if line.file_no == number)
        result.notices += [f"{file.name}: {said}" for said in found]


def _adapted(
    group: list[LandedFile], intake: Intake | None, adaptations: list[tuple[str, Adaptation]], result: IngestResult
) -> list[LandedFile]:
    """The files that can be taken, with what adapts them, if anything has to; the others are refused or left."""
    readable = [file for file in group if _readable(file, result)]
    if intake is None:
        return readable
    taken = []
    for file in readable:
        try:
            adaptation = intake.look(file.path)
        except NotEvents as error:
            result.notices.append(str(error))
            continue
        except InputError as error:
            result.refused[file.name] = str(error)
            continue
        if adaptation:
            adaptations.append((file.name, adaptation))
        taken.append(replace(file, adapt=adaptation.open) if adaptation else file)
    return taken


def _said_of(adaptations: Sequence[tuple[str, Adaptation]]) -> Iterator[str]:
    """One notice a format, however many files: what was left behind is much the same in each of them."""
    for format in sorted({adaptation.format for _, adaptation in adaptations}):
        found = [(name, adaptation.report) for name, adaptation in adaptations if adaptation.format == format]
        names = found[0][0] if len(found) == 1 else f"{found[0][0]} and {len(found) - 1} more"
        yield f"{names}: {total_report([report for _, report in found]).words()}"


def _together(waited: Sequence[pa.Buffer]) -> Iterator[pa.Table]:
    """Lines that waited, as batches of WAITED_BYTES; a packed table that is larger is one by itself."""
    tables, size = list[pa.Table](), 0
    for table in map(unpacked, waited):
        if tables and size + table.nbytes > WAITED_BYTES:
            yield pa.concat_tables(tables)
            tables, size = [], 0
        tables.append(table)
        size += table.nbytes
    if tables:
        yield pa.concat_tables(tables)


def _outcomes(
    workers: Sequence[BatchWorker], batches: Iterable[pa.Table], waits: Callable[[], Waits], first: int
) -> Iterator[Outcome]:
    """Outcomes in the order of the batches; at most one batch per worker in memory, and the one being read.

    A batch of one block (of a very long line) is in memory alone.

    waits : asked when a batch is handed out, which depends on the batches before it and not on how fast they were.
    first : number of the first batch in the commit.
    """
    idle: SimpleQueue[BatchWorker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def take(part: int, lines: pa.Table, waits: Waits) -> Outcome:
        worker = idle.get()
        try:
            return worker.take(part, lines, waits)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        running: deque[Future[Outcome]] = deque()
        for part, lines in enumerate(batches, first):
            alone = lines.nbytes >= BATCH_BYTES // 2 and len(lines.column(0).chunks) == 1
            while alone and running:
                yield running.popleft().result()
            outcome = running.popleft().result() if len(running) == len(workers) else None
            running.append(pool.submit(take, part, lines, waits()))
            del lines
            if outcome:  # only now: a worker does not wait while what it brought is added up
                yield outcome
            if alone:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _readable(file: LandedFile, result: IngestResult) -> bool:
    """Only a compressed file, or one that can hold a line of 2 GiB, can turn out unreadable after its first lines.

    Those are read through before any line is taken.
    """
    try:
        if file.path.name.endswith(".gz"):
            for _ in line_batches(file, 0):
                pass
        else:
            refuse_long_lines(file)
    except InputError as error:
        result.refused[file.name] = str(error)
        return False
    return True


class _Commit:
    """Adds up the batches of one group of files and records them in one transaction."""

    def __init__(self, home: Home, ledger: Ledger, rules: Rules) -> None:
        self.home, self.ledger, self.rules, self.plan = home, ledger, rules, rules.plan

    def begin(self, files: Sequence[LandedFile]) -> Path:
        """Forget the last commit; returns the empty folder for this one's Parquet."""
        self.files = list(files)
        self.commit_id = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()[:16]
        self.counts = [FileCounts() for _ in files]
        self.first_dates: list[date | None] = [None] * len(files)
        self.dates: set[date] = set()
        self.quarantined_dates: set[date] = set()
        self.reasons: Counter[tuple[int, str, str, str]] = Counter()
        self.foreign = list[Foreign]()
        self.batches = 0
        self.few, self.exempt = list[pa.Buffer](), list[pa.Buffer]()
        self.observed = ObservedConsent(self.home, self.ledger, self.rules)
        folder = self.home.incoming / self.commit_id
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def take(self, workers: Sequence[BatchWorker], batches: Iterable[pa.Table], waits: Waits) -> None:
        """Judge batches; what waits of them is in `few` and `exempt`."""

        def waiting() -> Waits:
            full = sum(lines.size for lines in self.few) > MOST_WAITING
            return replace(waits, few=False) if full else waits

        for outcome in _outcomes(workers, batches, waiting, self.batches):
            self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        for number, counts, first in outcome.counts:
            self.counts[number].add(counts)
            known = [day for day in (self.first_dates[number], first) if day is not None]
            self.first_dates[number] = min(known, default=None)
        self.foreign += outcome.foreign
        self.dates |= outcome.dates
        self.quarantined_dates |= outcome.quarantined_dates
        self.reasons.update(outcome.reasons)
        self.observed.add(outcome.heard)
        self.batches += 1
        for waiting, lines in ((self.few, outcome.few), (self.exempt, outcome.exempt)):
            if lines is not None:
                waiting.append(packed(lines))

    def latest_receipt(self) -> datetime | None:
        return max((c.max_received_at for c in self.counts if c.max_received_at), default=None)

    def finish(self, explained: Sequence[Future[Counter[tuple[int, str, str, str]]]]) -> None:
        """Record the files as ingested and what was heard with them, as it is found, then move their Parquet in.

        explained : what the workers say of the lines that failed; their Parquet is there when they are done.
        """
        now = utc_text(datetime.now(UTC))
        with self.ledger.transaction() as db:
            stage(db, self.commit_id)
            remember_keys(db, self.plan, self.rules.keyring)
            self.observed.save(db)
            db.executemany(f"INSERT INTO ingested_files VALUES ({', '.join('?' * 18)})", self._ledger_rows(now))
            for reasons in explained:
                self.reasons.update(reasons.result())
            db.executemany(
                "INSERT OR REPLACE INTO quarantine_reasons VALUES (?, ?, ?, ?, ?)",
                [
                    (self.files[n].sha256, event, code, path, rows)
                    for (n, event, code, path), rows in sorted(self.reasons.items())
                ],
            )
        self.observed.close()
        move_in(self.home, self.ledger, self.commit_id)

    def _ledger_rows(self, now: str) -> Iterator[tuple[Any, ...]]:
        for file, c, first in zip(self.files, self.counts, self.first_dates, strict=True):
            low, high = (None if m is None else utc_text(m) for m in (c.min_received_at, c.max_received_at))
            yield (file.sha256, file.name, file.source, file.bytes, c.rows_in, c.unparsable, c.suppressed, c.quarantined,
                   c.accepted, c.late, low, high, first.isoformat() if first else None, self.commit_id, now, c.exempt, c.consent_unreadable, c.erased)  # fmt: skip
