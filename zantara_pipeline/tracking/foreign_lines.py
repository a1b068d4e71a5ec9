"""Lines of another tool in a file of envelope lines, beyond the first lines by which its format was told.

A file is adapted whole or not at all, so such lines are suppressed (their consent stands elsewhere) or unparsable, and
counted among those. Nobody would find out why: they are looked for in what a batch left over, a few a file, and named.

Belongs here: finding them in a judged batch, and the words for them. Does not belong here: telling formats by a line
(adapters/detect.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb

from zantara_pipeline.tracking.adapters.detect import NAMES, format_of
from zantara_pipeline.tracking.verdict import TEXTS

# Of each file in each batch: one file of half a gigabyte has sixty batches.
_LOOKED_AT = 20

# Lines of other tools have no event_id beside a readable timestamp, so those that envelope lines lost are not looked at.
_LEFT_SQL = f"""
    SELECT file_no, line_no, line FROM parsed JOIN {TEXTS} USING (row_id)
    WHERE stage IN ('suppressed', 'unparsable') AND plain_no IS NULL AND (event_id IS NULL OR occurred_at IS NULL)
    QUALIFY row_number() OVER (PARTITION BY file_no ORDER BY line_no) <= {_LOOKED_AT}
"""


@dataclass(frozen=True)
class Foreign:
    """A line that is one of another tool, by its number in its file and the number of that in the commit."""

    file_no: int
    line_no: int
    format: str


def foreign_lines(con: duckdb.DuckDBPyConnection) -> list[Foreign]:
    """Some lines of other tools in the batch just judged, the first of each file among them."""
    left = con.execute(_LEFT_SQL).fetchall()
    kinds = ((file_no, line_no, format_of(line.encode())) for file_no, line_no, line in left)
    return [Foreign(file_no, line_no, kind) for file_no, line_no, kind in kinds if kind and kind != "envelope"]


def words(found: Iterable[Foreign]) -> Iterator[str]:
    """One sentence a format, for the lines of one file."""
    by_format: dict[str, list[int]] = {}
    for line in found:
        by_format.setdefault(line.format, []).append(line.line_no)
    for kind, numbers in sorted(by_format.items()):
        yield (
            f"some of its lines look like {NAMES[kind]}, line {min(numbers)} among them, and are not adapted; "
            "split it into files of one format"
        )
