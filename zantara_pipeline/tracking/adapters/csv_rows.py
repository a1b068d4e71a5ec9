"""CSV with a header, one event a row; a column says where it goes by its name, or by the contract.

Belongs here: cutting rows (a quoted cell may hold ends of lines) and placing cells. Does not belong here: anything that
holds for other formats too (draft.py).
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Any

from zantara_pipeline.tracking.adapters.contract import CsvRules, is_place
from zantara_pipeline.tracking.adapters.draft import Draft, envelope, text_as
from zantara_pipeline.tracking.plan import PrivacyContract

NEEDED = ("event_id", "event", "timestamp")
# A quote that is never closed must cost one line and not the rest of the file.
MOST_LINES, MOST_BYTES = 100, 2**20


def places(header: list[str], rules: CsvRules, privacy: PrivacyContract) -> dict[int, str]:
    """Number of a column -> where it goes, for the columns that go anywhere."""
    named = [(number, rules.columns.get(name, name)) for number, name in enumerate(header)]
    return {number: place for number, place in named if is_place(place, privacy)}


def header_problem(header: list[str], rules: CsvRules, privacy: PrivacyContract) -> str | None:
    """Why a header is none of events, if so."""
    found = list(places(header, rules, privacy).values())
    missing = [name for name in NEEDED if name not in found]
    if missing:
        return f"no column for {', '.join(missing)}"
    twice = sorted({name for name in found if found.count(name) > 1})
    return f"two columns for {twice[0]}" if twice else None


def split(line: bytes, delimiter: str) -> list[str] | None:
    """The cells of one whole row; None where it is none."""
    try:
        rows = list(csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows[0] if len(rows) == 1 else None


def cut(lines: Iterator[bytes], delimiter: str, width: int) -> Iterator[tuple[bytes, list[str] | None, int]]:
    """Rows as (first line as it came, cells, lines taken); cells are None where the row cannot be read.

    A row goes on while a quote is open. What does not become a row costs its first line, and the next is tried anew.
    """
    waiting: deque[bytes] = deque()
    while True:
        first = waiting.popleft() if waiting else next(lines, None)
        if first is None:
            return
        if not first.strip():
            yield first, [], 1
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
            yield first, cells, len(taken)
        else:
            waiting.extendleft(reversed(taken[1:]))
            yield first, None, 1


def adapt(cells: list[str], where: dict[int, str], draft: Draft, header: list[str]) -> dict[str, Any]:
    """One row as an envelope; an empty cell is absent.

    A column named consent, or consent.<something>, that stands for no purpose says something of consent all the same: no
    purpose that the row leaves open then counts as one that nobody was asked about.
    """
    parts: dict[str, Any] = {"properties": {}, "context": {}, "consent": {}}
    open_question = False
    for number, cell in enumerate(cells):
        place = where.get(number)
        if not cell:
            continue
        if place is None:
            draft.unmapped.add(header[number])
            open_question |= header[number].strip().lower().partition(".")[0] == "consent"
            continue
        level, _, inner = place.partition(".")
        if inner:
            parts[level][inner] = cell
        else:
            parts[level] = cell
    event = parts["event"] = draft.event_name(parts.get("event"))
    parts["properties"] = {name: text_as(draft.kind(event, name), cell) for name, cell in parts["properties"].items()}
    consent = {purpose: text_as("boolean", cell) for purpose, cell in parts["consent"].items()}
    parts["consent"] = (draft.no_consent_known() if open_question else {}) | consent or None
    parts["context"] = parts["context"] or None
    return envelope(parts)
