"""One batch of lines: judged on a worker's own connection, written beside the lake, and what is to be known of it.

Belongs here: what a batch leaves (Parquet files, counts, reasons, consent said). Does not belong here: the verdicts
(verdict.py), which files make a commit and when it counts (ingest.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from zantara_pipeline.privacy.consent import objections_of, statements_of
from zantara_pipeline.privacy.keyed_hash import SqlTokens
from zantara_pipeline.privacy.tombstones import load_tombstones
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.consent_words import Heard, heard_in_batch
from zantara_pipeline.tracking.direct import has_direct, refuse_missing_keys, refuse_other_keys
from zantara_pipeline.tracking.foreign_lines import Foreign, foreign_lines
from zantara_pipeline.tracking.lake_files import LakeFiles
from zantara_pipeline.tracking.line_values import values_of
from zantara_pipeline.tracking.payloads import Payloads
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, Exemption, TrackingPlan
from zantara_pipeline.tracking.reasons import Failures
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.typed_columns import typed_column
from zantara_pipeline.tracking.verdict import OTHER_LINES, Judge, Rules

# Failing lines are explained at the end of a commit; more than these, or than 10 MB of them, before it: explaining
# 40,000 took 100 MB in each worker.
MOST_HELD = 20_000
STAGES = ("unparsable", "suppressed", "quarantined", "accepted")
PARTS = ("late", "exempt", "consent_unreadable", "erased")


@dataclass
class FileCounts:
    """Rows of one file per outcome; rows_in is their sum. late, exempt: of accepted; consent_unreadable, erased: of suppressed."""

    unparsable: int = 0
    suppressed: int = 0
    quarantined: int = 0
    accepted: int = 0
    late: int = 0
    exempt: int = 0
    consent_unreadable: int = 0
    erased: int = 0
    min_received_at: datetime | None = None
    max_received_at: datetime | None = None

    @property
    def rows_in(self) -> int:
        return self.unparsable + self.suppressed + self.quarantined + self.accepted

    def add(self, other: FileCounts) -> None:
        for name in (*STAGES, *PARTS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, pick in (("min_received_at", min), ("max_received_at", max)):
            known = [moment for moment in (getattr(self, name), getattr(other, name)) if moment is not None]
            setattr(self, name, pick(known) if known else None)


@dataclass(frozen=True)
class Waits:
    """Which lines of a batch are left for a later one of the commit.

    few : those that are not plain, if they are few: judging them costs a batch as much if they are ten or a thousand.
    exempt : those that a rule may exempt: a denial in a batch to come counts too.
    """

    few: bool = False
    exempt: bool = False


NOTHING_WAITS = Waits()


@dataclass(frozen=True)
class Outcome:
    """What one batch came to; files by their number in the commit. few, exempt: lines that wait (Waits)."""

    counts: list[tuple[int, FileCounts, date | None]]
    dates: set[date]
    quarantined_dates: set[date]
    reasons: Counter[tuple[int, str, str, str]]
    heard: Heard
    foreign: list[Foreign]
    few: pa.Table | None = None
    exempt: pa.Table | None = None


class BatchWorker:
    """Judges and writes batches on one thread, with an in-memory engine of its own."""

    def __init__(self, home: Home, ledger: Ledger, rules: Rules, memory_limit: str) -> None:
        refuse_missing_keys(rules.plan, rules.keyring)
        self.ledger, self.rules, self.plan = ledger, rules, rules.plan
        self.con = open_engine(None, home, threads=1, memory_limit=memory_limit)
        self.con.execute("SET preserve_insertion_order = false")
        self.tokens: SqlTokens | None = None
        if rules.keyring and has_direct(rules.plan):
            refuse_other_keys(ledger, rules.keyring)
            self.tokens = SqlTokens(self.con, rules.keyring)
        self.judge = Judge(self.con, rules, load_tombstones(ledger))
        self.failures = Failures(self.con, rules)
        self.lake_files = LakeFiles(self.con, rules, self.tokens)

    def close(self) -> None:
        self.con.close()

    def begin(self, folder: Path, sources: Sequence[str]) -> None:
        """The next batches belong to the commit whose files go below `folder`."""
        self.folder, self.sources = folder, sources
        self.con.execute("CREATE OR REPLACE TEMP TABLE sources (file_no INTEGER, source VARCHAR)")
        self.con.executemany("INSERT INTO sources VALUES (?, ?)", list(enumerate(sources)))
        self.judge.forget_users()

    def take(self, part: int, lines: pa.Table, waits: Waits = NOTHING_WAITS) -> Outcome:
        """Judge a batch (reader.BATCH_SCHEMA) and write it as the files numbered `part` of the commit."""
        self.name = f"{self.folder.name}-{part:04d}"
        self.judge.learn(statements_of(self.ledger, self.judge.load(lines, leave_few=waits.few)))
        exempt = self._judged(lines, waits.exempt and bool(self.plan.privacy.exemptions))
        self.failures.hold(large=self.judge.any_large)
        self._write_accepted()
        counts = list(batch_counts(self.con))
        if any(of_file.unparsable for _, of_file, _ in counts):
            query = _LINES_SQL.format(which="stage = 'unparsable'")
            self._copy(f"SELECT * EXCLUDE (event) FROM ({query})", self.folder / "unparsable" / "x", None)
        if any(of_file.consent_unreadable for _, of_file, _ in counts):
            self._write_unreadable(_LINES_SQL.format(which="stage = 'suppressed' AND consent_unreadable"))
        dates = self._dates()
        outcome = Outcome(
            counts=counts,
            dates=dates["accepted"],
            quarantined_dates=dates["quarantined"],
            reasons=Counter(),
            heard=heard_in_batch(self.con, self.rules),
            foreign=[] if self.judge.all_plain else foreign_lines(self.con),
            few=self.judge.left,
            exempt=exempt,
        )
        self.judge.forget_lines()
        return replace(outcome, reasons=self.explain()) if self.failures.held > MOST_HELD else outcome

    def _judged(self, lines: pa.Table, put_aside: bool) -> pa.Table | None:
        if put_aside:
            aside: list[pa.Table] = []
            self.judge.judge(lambda: aside.append(self.judge.put_aside(lines)))
            return aside[0] if aside[0].num_rows else None
        if (ids := self.judge.ids_to_exempt()) is not None:
            self.judge.object(objections_of(self.ledger, ids))
        self.judge.judge()
        return None

    def explain(self) -> Counter[tuple[int, str, str, str]]:
        """Write the quarantined lines held since the last call; returns rows per file number, event, code and path."""
        reasons: Counter[tuple[int, str, str, str]] = Counter()
        if self.failures.held:
            self.failures.explain()
            for *key, rows in self.con.execute(_REASONS_SQL).fetchall():
                reasons[tuple(key)] = rows
            query = "SELECT * EXCLUDE (file_no, row_id, large) FROM quarantined WHERE NOT large"
            self._copy(query, self.folder / "quarantine", "received_date")
            for number, (day, rows) in enumerate(self.failures.large_rows()):
                place = self.folder / "quarantine" / f"received_date={day}"
                place.mkdir(parents=True, exist_ok=True)
                pq.write_table(
                    rows, place / f"{self.name}-large-{number}.parquet", use_dictionary=False, write_statistics=False
                )
            self.con.execute("DROP TABLE quarantined")
        return reasons

    def _dates(self) -> dict[str, set[date]]:
        """Dates of receipt by stage."""
        dates: dict[str, set[date]] = defaultdict(set)
        for stage, day in self.con.execute(_DATES_SQL).fetchall():
            dates[stage].add(day)
        return dates

    def _copy(self, query: str, folder: Path, partition: str | None) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if partition is None:
            self.con.execute(f"COPY ({query}) TO {quote(str(folder.parent / f'{self.name}.parquet'))} (FORMAT parquet)")
        else:
            options = (
                f"FORMAT parquet, PARTITION_BY ({partition}), FILENAME_PATTERN '{self.name}-{{i}}', OVERWRITE_OR_IGNORE"
            )
            self.con.execute(f"COPY ({query}) TO {quote(str(folder))} ({options})")

    def _write_accepted(self) -> None:
        self.lake_files.write(
            self.judge.plain, self.sources, self.folder / "accepted", self.name, all_plain=self.judge.all_plain
        )
        for rule in self.plan.privacy.exemptions:
            if self._any(f"parsed WHERE stage = 'accepted' AND exempt AND event = {quote(rule.event)}"):
                query = exempt_sql(rule, self.plan)
                self._copy(query, self.folder / "exempt" / f"event={rule.event}", "received_date")

    def _write_unreadable(self, query: str) -> None:
        """These lines are JSON: what in them is a direct identifier can be found."""
        if self.tokens:
            rows = self.con.execute(f"SELECT source, line_no, event, line FROM ({query})").fetchall()
            payloads = Payloads(self.plan, self.tokens.keyring, stored=self.rules.stored)
            lines = [payloads.without_identifiers(event, line) for _, _, event, line in rows]
            names = ("source", "line_no", "event")
            columns = dict(zip(names, zip(*(row[:3] for row in rows), strict=True), strict=True))
            self.con.register("arrow_unreadable", pa.table(columns | {"line": lines}))
            query = "FROM arrow_unreadable"
        self._copy(f"SELECT source, line_no, line FROM ({query})", self.folder / "consent_unreadable" / "x", None)

    def _any(self, relation: str) -> bool:
        return self.con.execute(f"SELECT EXISTS (FROM {relation})").fetchall() == [(True,)]


def batch_counts(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, FileCounts, date | None]]:
    """(file_no, counts, first accepted received date) of the batch just judged."""
    for number, *values in con.execute(_COUNT_SQL).fetchall():
        yield number, FileCounts(*values[:10]), values[10]


def exempt_sql(rule: Exemption, plan: TrackingPlan) -> str:
    """Exempt rows of one rule: nothing in them names a person, a device or a session."""
    declared = plan.events[rule.event]
    kept = [name for name, prop in declared.properties.items() if prop.pii == "none"]
    properties = "".join(f', v.{typed_column(name, declared)} AS "{name}"' for name in kept)
    context = ", ".join(f"v.{name}" for name in CONTEXT_KEYS)
    countries = ", ".join(map(quote, rule.countries))
    return f"""
        SELECT p.event_id, p.occurred_at, p.received_at, {quote(declared.version)} AS plan_version, s.source, p.line_no,
            'exempt' AS consent_basis, {quote(rule.legal_reference)} AS legal_reference, p.is_late, p.received_at_missing,
            {context}{properties}, p.received_date
        FROM parsed p JOIN {values_of(rule.event)} v USING (row_id) JOIN sources s ON s.file_no = p.file_no
        WHERE p.stage = 'accepted' AND p.exempt AND p.event = {quote(rule.event)} AND p.country IN ({countries})
    """


_COUNT_SQL = """
    SELECT file_no,
        count(*) FILTER (stage = 'unparsable'), count(*) FILTER (stage = 'suppressed'),
        count(*) FILTER (stage = 'quarantined'), count(*) FILTER (stage = 'accepted'),
        count(*) FILTER (stage = 'accepted' AND is_late), count(*) FILTER (stage = 'accepted' AND exempt),
        count(*) FILTER (stage = 'suppressed' AND consent_unreadable), count(*) FILTER (erased),
        min(received_at) FILTER (stage = 'accepted'), max(received_at) FILTER (stage = 'accepted'),
        min(received_date) FILTER (stage = 'accepted')
    FROM parsed GROUP BY file_no
"""

_DATES_SQL = "SELECT DISTINCT stage, received_date FROM parsed WHERE received_date IS NOT NULL"

_REASONS_SQL = """
    SELECT file_no, coalesce(event, ''), reason.code, reason.path, count(DISTINCT line_no)
    FROM (SELECT file_no, line_no, event, unnest(reasons) AS reason FROM quarantined)
    GROUP BY ALL ORDER BY ALL
"""

_LINES_SQL = f"""
    SELECT s.source, p.line_no, p.event, rtrim(coalesce(l.rendering, l.line), chr(10) || chr(13)) AS line
    FROM parsed p JOIN {OTHER_LINES} l USING (row_id) JOIN sources s USING (file_no) WHERE p.{{which}}
"""
