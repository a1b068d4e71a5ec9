"""Replay: quarantined lines are judged again, by the plan as it is now, and what passes goes where it belonged.

A replay is one commit of the lake (commits.py): accepted rows keep their times, source and line, so that the tables end
as if the line had never failed; lines that fail again stay in quarantine with the reasons of today; lines whose consent
is gone since are dropped. Nothing is written when no line's fate changes, so a second replay changes nothing.

Discarding is the other way out: the lines are removed, and that they were is recorded.

Belongs here: choosing lines, judging them, recording what became of them. Does not belong here: the verdict (verdict.py),
reading the quarantine for people (quarantine.py).
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.batch import BatchWorker, FileCounts
from zantara_pipeline.tracking.commits import move_in, recover, stage
from zantara_pipeline.tracking.direct import remember_keys
from zantara_pipeline.tracking.fixes import Fixes
from zantara_pipeline.tracking.other_lines import ROWS_PER_FILE
from zantara_pipeline.tracking.reader import BATCH_SCHEMA
from zantara_pipeline.tracking.removal import count_chosen, files_with, read_quarantine, take_out, write_rest
from zantara_pipeline.tracking.restricted import part_by_receipt
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.stored_lines import chosen_rows, parts, read_rows
from zantara_pipeline.tracking.verdict import Rules

MEMORY = "300MB"
_Reasons = Counter[tuple[str, str, str, str]]


@dataclass
class Replayed:
    """What became of the lines chosen.

    hashed : of the quarantined, lines that hold a direct identifier which failed before it was hashed: no plan can let them pass.
    touched_dates : received dates with newly accepted rows.
    duplicate_dates : further received dates that can hold copies of those events; downstream rebuilds both.
    quarantine_dates : received dates whose quarantined lines change.
    """

    rows: int = 0
    accepted: int = 0
    suppressed: int = 0
    quarantined: int = 0
    hashed: int = 0
    touched_dates: set[date] = field(default_factory=set)
    duplicate_dates: set[date] = field(default_factory=set)
    quarantine_dates: set[date] = field(default_factory=set)
    written: bool = False


def replay(
    home: Home,
    ledger: Ledger,
    rules: Rules,
    *,
    fingerprints: Sequence[str] | None = None,
    fixes: Fixes | None = None,
    dry_run: bool = False,
) -> Replayed:
    """Judge quarantined lines again.

    Parameters
    ----------
    fingerprints : kinds of failures to replay (quarantine.py lists them); None: all.
    fixes : done to the lines before they are judged; a line that fails again stays as it came.
    dry_run : say what would become of them, and write nothing.
    """
    recover(home, ledger)
    with _Replay(home, ledger, rules, fingerprints, fixes) as work:
        if not work.files:
            return Replayed()
        work.judge()
        result = work.result()
        if result.written and not dry_run:
            work.commit(result)
    return result


@dataclass(frozen=True)
class Change:
    """How many lines of one kind of failure would come to what, judged by the plan as it is now.

    was, now : reasons as "code path", joined; now may also be accepted, exempt (accepted without consent) or suppressed.
    hashed : of these lines, those that hold a direct identifier which failed before it was hashed: its reason stands, whatever
        the plan says now.
    """

    fingerprint: str
    event: str | None
    was: str
    now: str
    rows: int
    hashed: int = 0


def diff(
    home: Home,
    ledger: Ledger,
    rules: Rules,
    *,
    fingerprints: Sequence[str] | None = None,
    fixes: Fixes | None = None,
) -> list[Change]:
    """The verdicts that stand in quarantine beside those of today; nothing is written."""
    recover(home, ledger)
    with _Replay(home, ledger, rules, fingerprints, fixes) as work:
        if not work.files:
            return []
        work.judge()
        return work.changes()


def discard(home: Home, ledger: Ledger, fingerprint: str, reason: str, *, dry_run: bool = False) -> int:
    """Give up the lines of one kind of failure: they are removed, their counts and the reason stay. Returns the lines.

    dry_run : only count them.

    Raises
    ------
    InputError : no such lines.
    """
    recover(home, ledger)

    def record(db: sqlite3.Connection, discard_id: str, rows: int) -> None:
        now = utc_text(datetime.now(UTC))
        db.execute(
            "INSERT OR REPLACE INTO discards VALUES (?, ?, ?, ?, ?)", [discard_id, now, fingerprint, rows, reason]
        )

    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        chosen = f"fingerprint = {quote(fingerprint)}"
        files = files_with(con, home, chosen)
        if not files:
            raise InputError(
                f"nothing in quarantine has the fingerprint '{fingerprint}'", None, "see `zantara quarantine list`"
            )
        return (
            count_chosen(con, home, files, chosen)
            if dry_run
            else take_out(con, home, ledger, files, chosen, "discard", record)
        )
    finally:
        con.close()


class _Replay:
    """One replay on a worker's connection; leaves nothing behind unless it is committed."""

    def __init__(
        self, home: Home, ledger: Ledger, rules: Rules, fingerprints: Sequence[str] | None, fixes: Fixes | None
    ) -> None:
        self.home, self.ledger, self.rules, self.fixes = home, ledger, replace(rules, stored=True), fixes
        pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what it was given back, as in an ingest
        self.worker = BatchWorker(home, ledger, self.rules, MEMORY)
        self.con = self.worker.con
        names = "" if fingerprints is None else f" AND fingerprint IN ({', '.join(map(quote, fingerprints)) or 'NULL'})"
        self.chosen = f"status = 'open' AND payload_raw IS NOT NULL{names}"  # exempt lines left no payload
        self.files = files_with(self.con, home, self.chosen)
        self.replay_id = hashlib.sha256("".join(self.files).encode()).hexdigest()[:16]
        self.folder: Path = home.incoming / self.replay_id
        self.staged = False
        self.counts: dict[int, FileCounts] = {}
        self.first_dates: dict[int, date] = {}
        self.dates: set[date] = set()
        self.sources: list[str] = []

    def __enter__(self) -> _Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()
        if not self.staged:  # what is staged counts already: its files are moved in by `recover`, even after an error
            shutil.rmtree(self.folder, ignore_errors=True)

    def _old(self) -> str:
        return read_quarantine(*(str(self.home.lake / name) for name in self.files))

    def judge(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        query = f"SELECT DISTINCT source FROM {self._old()} WHERE {self.chosen} ORDER BY 1"
        self.sources = [row[0] for row in self.con.execute(query).fetchall()]
        self.worker.begin(self.folder, self.sources)
        for part, (lines, attempts) in enumerate(self._lines()):
            self.worker.failures.remember(attempts)
            outcome = self.worker.take(part, lines)
            for number, counts, first in outcome.counts:
                self.counts.setdefault(number, FileCounts()).add(counts)
                if first is not None:
                    self.first_dates[number] = min(first, self.first_dates.get(number, first))
            self.dates |= outcome.dates
        self.worker.explain()

    def _lines(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Chosen lines as batches for a judge, and beside them how often each was judged before."""
        sources = pa.array(self.sources, pa.string())
        for table in parts(self._rows()):
            numbers = pc.index_in(table["source"], value_set=sources).cast(pa.int32())
            lines = [numbers, table["line_no"], self._fixed(table), pa.nulls(len(table), pa.string())]
            before = table.select(["line_no", "attempts", "payload_raw", "reasons"]).append_column("file_no", numbers)
            del table
            yield pa.table(lines, schema=BATCH_SCHEMA), before
            del lines, before

    def _rows(self) -> Iterator[pa.Table]:
        names = ("source", "line_no", "payload_raw", "event", "fingerprint", "attempts", "reasons")
        for path, rows in chosen_rows(self.con, [self.home.lake / name for name in self.files], self.chosen):
            yield from read_rows(path, rows, names)

    def _fixed(self, table: pa.Table) -> pa.Array | pa.ChunkedArray:
        if self.fixes is None:
            return table.column("payload_raw")
        rows = zip(*(table.column(name).to_pylist() for name in ("payload_raw", "event", "fingerprint")), strict=True)
        return pa.array([self.fixes.apply(*row) for row in rows], pa.string())

    def _again(self) -> str:
        """The lines that failed again, as they were written beside."""
        return read_quarantine(str(self.folder / "quarantine" / "*" / "*.parquet"))

    def _failed_again(self) -> bool:
        return any((self.folder / "quarantine").glob("*/*.parquet"))

    def result(self) -> Replayed:
        total = FileCounts()
        for counts in self.counts.values():
            total.add(counts)
        [(hashed,)] = self.con.execute("SELECT count(*) FROM hashed_failing").fetchall()
        result = Replayed(total.rows_in, total.accepted, total.suppressed, total.quarantined, hashed, set(self.dates))
        result.duplicate_dates = self._duplicate_dates()
        result.written = total.quarantined < total.rows_in or self._reasons_changed()
        if result.written:
            days = [Path(name).parent.name for name in self.files]
            days += [place.name for place in (self.folder / "quarantine").glob("received_date=*")]
            result.quarantine_dates = {date.fromisoformat(name.partition("=")[2]) for name in days}
        return result

    def _reasons_changed(self) -> bool:
        same = self.con.execute(
            f"SELECT count(*) FROM (SELECT * FROM {self._old()} WHERE {self.chosen}) "
            f"SEMI JOIN {self._again()} AS a USING (source, line_no, fingerprint)"
        ).fetchall()[0][0]
        return bool(same < sum(counts.rows_in for counts in self.counts.values()))

    def _duplicate_dates(self) -> set[date]:
        """Accepted dates within the lateness window of a touched one: a copy lies nowhere else."""
        window = timedelta(days=self.rules.max_lateness_days + 1)
        held = {
            date.fromisoformat(path.name.partition("=")[2]) for path in self.home.accepted.glob("*/received_date=*")
        }
        near = {day for day in held for touched in self.dates if abs(day - touched) <= window}
        return near - self.dates

    def changes(self) -> list[Change]:
        again = f"SELECT source, line_no, {_SAID} AS now FROM {self._again()}" if self._failed_again() else _NO_VERDICT
        for fate in ("accepted", "exempt"):
            taken = self.folder / fate
            if any(taken.glob("*/*/*.parquet")):
                files = f"read_parquet({quote(str(taken / '*' / '*' / '*.parquet'))}, union_by_name = true)"
                again += f" UNION ALL SELECT source, line_no, '{fate}' FROM {files}"
        rows = self.con.execute(
            f"SELECT fingerprint, event, {_SAID} AS was, coalesce(now, 'suppressed'), count(*), count(hashed) FROM "
            f"(SELECT * FROM {self._old()} WHERE {self.chosen}) LEFT JOIN ({again}) USING (source, line_no) "
            f"LEFT JOIN ({_HASHED}) USING (source, line_no) "
            "GROUP BY ALL ORDER BY 5 DESC, 1, 4"
        ).fetchall()
        return [Change(*row) for row in rows]

    def commit(self, result: Replayed) -> None:
        write_rest(self.con, self.home, self.folder, self.files, self.chosen)
        part_by_receipt(self.con, self.ledger, self.folder)
        before, after = self._reasons(self._old(), self.chosen), _Reasons()
        if self._failed_again():
            after = self._reasons(self._again(), "filename NOT LIKE '%-rest-%'")
        self.staged = True  # before the transaction: an interrupt just after its end must find the files kept
        with self.ledger.transaction() as db:
            stage(db, self.replay_id, self.files)
            remember_keys(db, self.rules.plan, self.rules.keyring)
            for number, counts in self.counts.items():
                _update_file(db, self.sources[number], counts, self.first_dates.get(number))
            _update_reasons(db, before, after)
            first = min(self.dates, default=None)
            fixes = self.fixes.model_dump_json() if self.fixes else None
            db.execute(
                "INSERT OR REPLACE INTO replays VALUES (?, ?, ?, ?, ?, ?, ?)",
                [self.replay_id, utc_text(datetime.now(UTC)), result.rows, result.accepted, result.suppressed,
                 first.isoformat() if first else None, fixes],
            )  # fmt: skip
        move_in(self.home, self.ledger, self.replay_id)

    def _reasons(self, relation: str, condition: str) -> _Reasons:
        rows = self.con.execute(
            "SELECT source, coalesce(event, ''), reason.code, reason.path, count(DISTINCT line_no) FROM "
            f"(SELECT source, event, line_no, unnest(reasons) AS reason FROM {relation} WHERE {condition}) GROUP BY ALL"
        ).fetchall()
        return Counter({tuple(key): count for *key, count in rows})


_SAID = "list_aggregate(list_sort(list_transform(reasons, lambda r: r.code || ' ' || r.path)), 'string_agg', ', ')"
_HASHED = (
    f"SELECT source, row_id % {ROWS_PER_FILE} AS line_no, true AS hashed "
    f"FROM hashed_failing JOIN sources ON file_no = row_id // {ROWS_PER_FILE}"
)
_NO_VERDICT = "SELECT NULL::VARCHAR AS source, NULL::BIGINT AS line_no, NULL::VARCHAR AS now WHERE false"


def _update_file(db: sqlite3.Connection, source: str, moved: FileCounts, first: date | None) -> None:
    """Lines leave `quarantined` of their file for where they are now."""
    low, high = (None if m is None else utc_text(m) for m in (moved.min_received_at, moved.max_received_at))
    values: dict[str, Any] = {
        "accepted": moved.accepted, "suppressed": moved.suppressed, "unparsable": moved.unparsable, "late": moved.late,
        "exempt": moved.exempt, "unreadable": moved.consent_unreadable, "erased": moved.erased,
        "left": moved.accepted + moved.suppressed + moved.unparsable, "low": low, "high": high,
        "first": first.isoformat() if first else None, "source": source,
    }  # fmt: skip
    db.execute(
        """
        UPDATE ingested_files SET accepted = accepted + :accepted, suppressed = suppressed + :suppressed,
            unparsable = unparsable + :unparsable, late = late + :late, quarantined = quarantined - :left,
            exempt = exempt + :exempt, consent_unreadable = consent_unreadable + :unreadable,
            erased = erased + :erased,
            min_received_at = coalesce(min(min_received_at, :low), min_received_at, :low),
            max_received_at = coalesce(max(max_received_at, :high), max_received_at, :high),
            first_received_date = coalesce(min(first_received_date, :first), first_received_date, :first)
        WHERE source = :source
        """,
        values,
    )


def _update_reasons(db: sqlite3.Connection, before: _Reasons, after: _Reasons) -> None:
    for key in sorted(before.keys() | after.keys()):
        source, event, code, path = key
        [sha256] = db.execute("SELECT sha256 FROM ingested_files WHERE source = ?", [source]).fetchone()
        db.execute(
            "INSERT INTO quarantine_reasons VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (sha256, event, code, path) DO UPDATE SET rows = rows + excluded.rows",
            [sha256, event, code, path, after[key] - before[key]],
        )
    db.execute("DELETE FROM quarantine_reasons WHERE rows <= 0")
