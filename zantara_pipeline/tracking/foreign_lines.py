"""Lines of another tool in a file of envelope lines, beyond the first lines by which its format was told.

A file is adapted whole or not at all, so such lines are suppressed (their consent stands elsewhere) or unparsable, and
counted among those. Nobody would find out why: they are looked for in what a batch left over, a few a file, and named.

Belongs here: finding them in a judged batch, and the words for them. Does not belong here: telling formats by a line
(adapters/detect.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import duckdb

from zantara_pipeline.storage.text_rows import split
from zantara_pipeline.tracking.adapters.csv_rows import NEEDED
from zantara_pipeline.tracking.adapters.detect import MARKS, other_tool
from zantara_pipeline.tracking.adapters.snowplow import COLUMNS
from zantara_pipeline.tracking.verdict import TEXTS

# Of each file in each batch: one file of half a gigabyte has sixty batches. What bears a mark of another tool and is broken
# takes no place among the named, but some time (30 us), so that too has an end.
_NAMED, _LOOKED_AT, _LOOKED_BYTES = 20, 2_000, 4 * 2**20

# Objects with a tool's key, and lines of as many columns as Snowplow has.
_MARKED = rf"""(regexp_matches(line, '"(?:{"|".join(MARKS)})"\s*:') OR strlen(line) - strlen(replace(line, chr(9), '')) = {len(COLUMNS) - 1})"""
# Text, no JSON, and no piece of a line of it.
_ROW = r"""NOT regexp_matches(line, '^\s*[\[{]|[^"]":|[\x00-\x08\x0e-\x1f\x7f\x{FFFD}]')"""
# Lines of other tools have no event_id beside a readable timestamp, so those that envelope lines lost are not looked at.
# Neither are broken lines of ours: there may be any number of them before the first line that counts.
_LEFT_SQL = f"""
    SELECT file_no, line_no, line, marked FROM (
        SELECT file_no, line_no, line, {_MARKED} AS marked
        FROM parsed JOIN {TEXTS} USING (row_id)
        WHERE stage IN ('suppressed', 'unparsable') AND plain_no IS NULL AND (event_id IS NULL OR occurred_at IS NULL)
    ) WHERE marked OR {_ROW}
    WINDOW before AS (PARTITION BY file_no, marked ORDER BY line_no)
    QUALIFY row_number() OVER before = 1 OR (row_number() OVER before <= {_LOOKED_AT} AND sum(strlen(line)) OVER before <= {_LOOKED_BYTES})
    ORDER BY file_no, line_no
"""
_DELIMITERS = ",;\t|"
_ROWS = "rows of a CSV"


@dataclass(frozen=True)
class Foreign:
    """A line that is one of another tool, by its number in its file and the number of that in the commit; what it looks like."""

    file_no: int
    line_no: int
    looks_like: str


def foreign_lines(con: duckdb.DuckDBPyConnection) -> list[Foreign]:
    """Some lines of other tools in the batch just judged, the first of each file among them."""
    found = list[Foreign]()
    for file_no, lines in groupby(con.execute(_LEFT_SQL).fetchall(), key=lambda row: row[0]):
        left = [(line_no, line.encode(), marked) for _, line_no, line, marked in lines]
        told = ((line_no, other_tool(line)) for line_no, line, marked in left if marked)
        named = list(islice(((line_no, tool) for line_no, tool in told if tool), _NAMED))
        found += [Foreign(file_no, line_no, tool) for line_no, tool in named]
        rows = [(line_no, line) for line_no, line, marked in left if not marked]
        if (first := _first_row(rows)) is not None:
            found.append(Foreign(file_no, first, _ROWS))
    return found


def _first_row(lines: list[tuple[int, bytes]]) -> int | None:
    """Where rows of a table begin, if some are: two with as many cells, enough for an event; one alone may be any text."""
    seen: dict[tuple[str, int], int] = {}
    starts = []
    for line_no, line in lines:
        for delimiter in _DELIMITERS:
            width = len(split(line, delimiter) or ())
            if width < len(NEEDED):
                continue
            if (delimiter, width) in seen:
                starts.append(seen[delimiter, width])
            seen.setdefault((delimiter, width), line_no)
    return min(starts, default=None)


def words(found: Iterable[Foreign]) -> Iterator[str]:
    """One sentence a format, for the lines of one file."""
    by_kind: dict[str, list[int]] = {}
    for line in found:
        by_kind.setdefault(line.looks_like, []).append(line.line_no)
    for kind, numbers in sorted(by_kind.items()):
        yield (
            f"some of its lines look like {kind}, line {min(numbers)} among them, and are not adapted; "
            "split it into files of one format"
        )
