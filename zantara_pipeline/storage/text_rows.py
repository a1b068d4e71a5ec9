"""Rows of tables of text, as lines of bytes: a quoted cell may hold ends of lines, and a quote may never be closed.

Belongs here: cutting a file into rows and a row into cells. Does not belong here: what the cells mean.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

# A quote that is never closed must cost one line and not the rest of the file.
MOST_LINES, MOST_BYTES = 100, 2**20


def split(line: bytes, delimiter: str) -> list[str] | None:
    """The cells of one whole row; None where it is none."""
    try:
        rows = list(csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows[0] if len(rows) == 1 else None


def cut(lines: Iterator[bytes], delimiter: str, width: int) -> Iterator[tuple[list[bytes], list[str] | None]]:
    """Rows as (their lines as they came, cells); cells are None where the row cannot be read.

    A row goes on while a quote is open. What does not become a row costs its first line, and the next is tried anew.
    """
    waiting: deque[bytes] = deque()
    while True:
        first = waiting.popleft() if waiting else next(lines, None)
        if first is None:
            return
        if not first.strip():
            yield [first], []
            continue
        # Quotes inside a cell are doubled, so an odd number of them means that one is open.
        taken, quotes, size = [first], first.count(b'"'), len(first)
        while quotes % 2 and len(taken) < MOST_LINES and size < MOST_BYTES:
            more = waiting.popleft() if waiting else next(lines, None)
            if more is None:
                break
            taken.append(more)
            quotes, size = quotes + more.count(b'"'), size + len(more)
        cells = split(b"".join(taken), delimiter) if quotes % 2 == 0 else None
        if cells is not None and len(cells) == width:
            yield taken, cells
        else:
            waiting.extendleft(reversed(taken[1:]))
            yield [first], None
