"""Reading the quarantine: which kinds of failures lie in it, and the lines of one of them.

Belongs here: questions that people ask. Does not belong here: changing anything (replay.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow.compute as pc

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.keyed_hash import UNCHECKED_PATTERN
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.fixes import Fixes
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.removal import naming_damaged_files
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.stored_lines import PAYLOAD, read_rows

FINGERPRINT_LETTERS = 32


@dataclass(frozen=True)
class Kind:
    """Lines that failed for the same reasons (same event, codes and paths): those there, or those expired."""

    fingerprint: str
    event: str | None
    reasons: str
    rows: int
    first_seen: datetime | None
    last_seen: datetime | None
    attempts: int
    status: Literal["open", "expired"] = "open"


@dataclass(frozen=True)
class Detail:
    """One kind: its reasons with what was expected and what was there, and where its lines are.

    hashed : lines that hold a direct identifier which failed before it was hashed: no plan can judge that value again.
    """

    kind: Kind
    reasons: list[dict[str, Any]]
    places: list[tuple[str, int, int]]
    hashed: int


def kinds(home: Home) -> list[Kind]:
    """All kinds of failures in quarantine, most lines first."""
    with _lines(home) as con:
        return (
            [] if con is None else [Kind(*row) for row in con.execute(f"{_KINDS_SQL} ORDER BY rows DESC, 1").fetchall()]
        )


def expired_kinds(ledger: Ledger) -> list[Kind]:
    """What retention removed, by kind of failure, most lines first; the ledger kept the counts and nothing else."""
    with ledger.read() as db:
        rows = db.execute(
            "SELECT fingerprint, max(event), max(reasons), sum(rows), min(first_seen), max(last_seen) FROM expired_lines "
            "GROUP BY fingerprint ORDER BY 4 DESC, 1"
        ).fetchall()
    return [
        Kind(name, event, said, count, _moment(first), _moment(last), 0, "expired")
        for name, event, said, count, first, last in rows
    ]


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def fingerprints_of(home: Home, prefixes: Sequence[str]) -> list[str]:
    """Whole fingerprints from their first letters, small or capital; each once.

    Raises
    ------
    InputError : no kind of failure begins so, or several do, or no letter was given.
    """
    known = [kind.fingerprint for kind in kinds(home)]
    found: list[str] = []
    for given in prefixes:
        prefix = given.strip().lower()
        matching = [name for name in known if name.startswith(prefix)]
        if len(matching) != 1:
            how = f"{len(matching)} kinds of failure begin" if matching else "nothing in quarantine begins"
            todo = "give more of it" if matching else "see `zantara quarantine list`"
            raise InputError(f"{how} with '{prefix}'", None, todo)
        if not prefix:  # also where all lines are of one kind: nobody has named it
            raise InputError("a fingerprint is empty", None, "see `zantara quarantine list`")
        found += matching
    return list(dict.fromkeys(found))


def settled(home: Home, plan: TrackingPlan, fixes: Fixes, path: Path) -> Fixes:
    """Fixes whose fingerprints are whole; a mistyped event or fingerprint would else fix nothing without a word.

    A whole fingerprint need not lie there: a replay may be repeated.

    Raises
    ------
    InputError : a fix names an event that is neither in the plan nor in quarantine, or no fingerprint that begins so lies there.
    """
    events = {kind.event for kind in kinds(home)} | plan.events.keys()
    whole = []
    for number, fix in enumerate(fixes.fixes):
        key = f"{path}: key 'fixes.{number}"
        if fix.event not in events:
            raise InputError(
                f"no event '{fix.event}' in the plan or in quarantine", f"{key}.event'", "see `zantara quarantine list`"
            )
        if fix.fingerprint is not None and len(fix.fingerprint) < FINGERPRINT_LETTERS:
            try:
                [name] = fingerprints_of(home, [fix.fingerprint])
            except InputError as error:
                raise InputError(error.what, f"{key}.fingerprint'", error.todo) from None
            fix = fix.model_copy(update={"fingerprint": name})
        whole.append(fix)
    return fixes.model_copy(update={"fixes": tuple(whole)})


def detail(home: Home, fingerprint: str) -> Detail:
    """One kind of failure.

    Raises
    ------
    InputError : see `fingerprints_of`.
    """
    with _lines_of(home, fingerprint) as (con, fingerprint):
        found = con.execute(f"SELECT * FROM ({_KINDS_SQL}) WHERE fingerprint = ?", [fingerprint]).fetchall()
        names = ("code", "path", "keyword", "expected", "actual_type", "rows")
        reasons = [dict(zip(names, row, strict=True)) for row in con.execute(_REASONS_SQL, [fingerprint]).fetchall()]
        places = con.execute(_PLACES_SQL, [fingerprint]).fetchall()
        return Detail(Kind(*found[0]), reasons, places, _hashed(con, fingerprint))


def _hashed(con: duckdb.DuckDBPyConnection, fingerprint: str) -> int:
    """Lines of one kind of failure that hold the hash of a value that had failed."""
    found = 0
    for filename, rows in con.execute(_ROWS_SQL, [fingerprint]).fetchall():
        for lines in read_rows(Path(filename), np.array(rows), [PAYLOAD]):
            matching = pc.match_substring_regex(lines[PAYLOAD], f'"{UNCHECKED_PATTERN.strip("^$")}"')
            found += pc.sum(matching).as_py() or 0
    return found


def payloads(home: Home, fingerprint: str, most: int) -> Iterator[str]:
    """Lines of one kind of failure whole, one at a time: one may have 50 MB. They hold what people did; ask for them only to
    mend a sender.

    Raises
    ------
    InputError : see `fingerprints_of`.
    """
    with _lines_of(home, fingerprint) as (con, fingerprint):
        places = con.execute(_PAYLOADS_SQL, [fingerprint, most]).fetchall()
    # A file at a time, or it would be read again for each line.
    for filename, rows in groupby(sorted(places), key=lambda place: place[0]):
        for lines in read_rows(Path(filename), np.sort([row for _, row in rows]), [PAYLOAD]):
            yield from (line.as_py() for line in lines[PAYLOAD])


@contextmanager
def _lines_of(home: Home, fingerprint: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A connection with the view `lines`, and the whole of a fingerprint that is given by its first letters."""
    [whole] = fingerprints_of(home, [fingerprint])
    with _lines(home) as con:
        assert con is not None  # the fingerprint was found there
        yield con, whole


@contextmanager
def _lines(home: Home) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """A connection with the view `lines`, or None where the quarantine is empty."""
    if not any(home.quarantine.glob("*/*.parquet")):
        yield None
        return
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone = 'UTC'")
        files = quote(str(home.quarantine / "*" / "*.parquet"))
        with naming_damaged_files(home):
            con.execute(f"CREATE VIEW lines AS SELECT * FROM read_parquet({files}, {_AS_LINES})")
            yield con
    finally:
        con.close()


_AS_LINES = "union_by_name = true, filename = true, file_row_number = true"
_KINDS_SQL = """
    SELECT fingerprint, any_value(event) AS event,
        any_value(list_aggregate(list_sort(list_transform(reasons, lambda r: r.code || ' ' || r.path)), 'string_agg', ', ')) AS reasons,
        count(*) AS rows, min(first_seen) AS first_seen, max(first_seen) AS last_seen, max(attempts) AS attempts
    FROM lines GROUP BY fingerprint
"""
_REASONS_SQL = """
    SELECT r.code, r.path, r.keyword, r.expected, r.actual_type, count(*)
    FROM (SELECT unnest(reasons) AS r FROM lines WHERE fingerprint = ?) GROUP BY ALL ORDER BY ALL
"""
_PLACES_SQL = """
    SELECT source, count(*), min(line_no) FROM lines WHERE fingerprint = ? GROUP BY source ORDER BY 2 DESC, 1 LIMIT 20
"""
_ROWS_SQL = """
    SELECT filename, list(file_row_number ORDER BY file_row_number)
    FROM lines WHERE fingerprint = ? AND payload_raw IS NOT NULL GROUP BY filename
"""
_PAYLOADS_SQL = (
    "SELECT filename, file_row_number FROM lines WHERE fingerprint = ? AND payload_raw IS NOT NULL "
    "ORDER BY source, line_no LIMIT ?"
)
