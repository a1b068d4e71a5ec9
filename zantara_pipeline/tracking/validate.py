"""Judging one file without a home: the same engine as ingest, nothing written.

Belongs here: running the judge over a file and collecting its verdict. Does not belong here: printing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.adapters import Intake
from zantara_pipeline.tracking.batch import FileCounts, batch_counts
from zantara_pipeline.tracking.foreign_lines import Foreign, foreign_lines
from zantara_pipeline.tracking.foreign_lines import words as foreign_words
from zantara_pipeline.tracking.ingest import BATCH_BYTES, words_of_counts
from zantara_pipeline.tracking.reader import identify, line_tables
from zantara_pipeline.tracking.reasons import Failures
from zantara_pipeline.tracking.verdict import Judge, Rules


@dataclass
class FileVerdict:
    """Counts of a file, its reasons with their rows, and the first failing lines (never a value of theirs)."""

    file: str
    counts: FileCounts = field(default_factory=FileCounts)
    reasons: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    failing_lines: list[dict[str, Any]] = field(default_factory=list)
    format: str = "envelope"
    unmapped: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        c = self.counts
        names = ("event", "code", "path", "expected")
        reasons = [dict(zip(names, key, strict=True)) | {"rows": rows} for key, rows in sorted(self.reasons.items())]
        return {
            "file": self.file, "rows_in": c.rows_in, "accepted": c.accepted, "quarantined": c.quarantined,
            "suppressed": c.suppressed, "unparsable": c.unparsable, "late": c.late, "exempt": c.exempt,
            "consent_unreadable": c.consent_unreadable, "reasons": reasons,
            "failing_lines": self.failing_lines, "format": self.format, "unmapped": self.unmapped,
            "notices": self.notices,
        }  # fmt: skip


def validate_file(
    path: Path, rules: Rules, *, threads: int, examples: int = 20, intake: Intake | None = None
) -> FileVerdict:
    """Judge every line of a file as ingest would.

    Raises
    ------
    InputError : no such file, a folder, a truncated .gz, another format than given.
    """
    if not path.is_file():
        raise InputError("it is a folder" if path.is_dir() else "no such file", path, "name a .jsonl or .jsonl.gz file")
    file, verdict, foreign = identify(path, path.name), FileVerdict(str(path)), list[Foreign]()
    adaptation = intake.look(path) if intake else None
    if adaptation:
        file = replace(file, adapt=adaptation.open)
    with tempfile.TemporaryDirectory() as folder:
        con = open_engine(None, Home(Path(folder)), threads=threads, memory_limit="600MB")
        try:
            judge, failures = Judge(con, rules), Failures(con, rules, stores=False)
            con.execute("CREATE TEMP TABLE sources AS SELECT 0 AS file_no, ? AS source", [path.name])
            for lines in line_tables([file], BATCH_BYTES):
                judge.load(lines)
                judge.judge()
                failures.hold()
                failures.explain()
                foreign += foreign_lines(con)
                _add(con, verdict, examples)
                judge.forget_lines()
        finally:
            con.close()
    verdict.notices += words_of_counts(verdict.counts) if verdict.counts.rows_in else ()
    verdict.notices += foreign_words(foreign)
    if adaptation:
        report = adaptation.report
        verdict.format, verdict.unmapped = report.format, report.unmapped
        if report.strange:
            told = f"adapted from {report.format}: {report.records:,} records, {report.strange_words()}"
            verdict.notices.append(f"{told}; split it into files of one format")
    return verdict


def _add(con: Any, verdict: FileVerdict, examples: int) -> None:
    for _, counts, _ in batch_counts(con):
        verdict.counts.add(counts)
    for event, code, path, expected, rows in con.execute(_REASONS_SQL).fetchall():
        verdict.reasons[(event, code, path, expected)] += rows
    wanted = examples - len(verdict.failing_lines)
    if wanted > 0:
        failing = con.execute(_FAILING_SQL, [wanted]).fetchall()
        verdict.failing_lines += [
            {"line": line, "event": event, "reasons": reasons} for line, event, reasons in failing
        ]


_REASONS_SQL = """
    SELECT coalesce(event, ''), reason.code, reason.path, reason.expected, count(DISTINCT line_no)
    FROM (SELECT line_no, event, unnest(reasons) AS reason FROM quarantined) GROUP BY ALL ORDER BY ALL
"""

_FAILING_SQL = """
    SELECT line_no, event, reasons FROM (
        SELECT line_no, event, reasons FROM quarantined
        UNION ALL
        SELECT line_no, NULL, [{code: 'unparsable', path: '$', keyword: 'type', expected: 'a JSON object', actual_type: 'text'}]
        FROM parsed WHERE stage = 'unparsable'
    ) ORDER BY line_no LIMIT ?
"""
