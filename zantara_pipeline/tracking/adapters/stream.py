"""A file of another tool as a stream of envelope lines, in bounded memory.

Every record becomes exactly one line. One that cannot be read passes through as it came, so that ingest counts it as
unparsable: nothing is lost and counts balance. Blank lines stand where a record took several lines (a CSV's header, a cell
with ends of lines in it), so that the numbers of lines are those of the file.

Belongs here: bytes to records, envelopes to bytes, counting. Does not belong here: which field goes where (the formats),
which format a file has (detect.py).
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from zantara_pipeline.storage.text_rows import cut, split
from zantara_pipeline.tracking.adapters import csv_rows, ga4, segment, snowplow
from zantara_pipeline.tracking.adapters.contract import AdaptersContract
from zantara_pipeline.tracking.adapters.draft import Draft, Unreadable
from zantara_pipeline.tracking.plan import TrackingPlan

# Enough to keep the reader busy, little beside its own batches of 8 MiB.
READ_BYTES = 2**20
# Shorter lines are looked at for blanks beyond ASCII, as the reader of landed files does.
_SHORT = 40
# Numbers keep their digits on the way (price 19.90 stays 19.90); a float would not keep 18 of them.
_ENCODER = msgspec.json.Encoder(decimal_format="number")

IsRecord = Callable[[dict[str, Any]], bool]
Adapt = Callable[[dict[str, Any], Draft], dict[str, Any]]
JSON_FORMATS: dict[str, tuple[IsRecord, Adapt]] = {
    "segment": (segment.is_record, segment.adapt),
    "snowplow": (snowplow.is_record, snowplow.adapt),
    "ga4": (ga4.is_record, ga4.adapt),
}


class Source(Protocol):
    """What lines are read from and adapted lines are offered as: an opened file, as far as reading goes."""

    def read(self, size: int = ..., /) -> bytes: ...


@dataclass
class Report:
    """What became of the records of one file, and the fields that have no place in the envelope with their counts.

    strange : of the adapted, objects of JSON that do not look like the format's: another tool's, or our own lines.
    first_strange : the number of the first of them in its file.
    """

    format: str
    records: int = 0
    adapted: int = 0
    unreadable: int = 0
    strange: int = 0
    first_strange: int | None = None
    unmapped: dict[str, int] = field(default_factory=dict)

    def words(self, most: int = 12) -> str:
        """In one line: names and counts, never values."""
        told = f"{self.records:,} records from {self.format}"
        if self.unreadable:
            told += f", {self.unreadable:,} of them unreadable"
        if self.strange:
            told += f", {self.strange_words()} (a file of one format each, please)"
        if not self.unmapped:
            return told
        named = ", ".join(f"{name} {count:,}" for name, count in list(self.unmapped.items())[:most])
        rest = len(self.unmapped) - most
        return f"{told}; without a place: {named}{f' and {rest} more' if rest > 0 else ''}"

    def strange_words(self) -> str:
        """How many records are not like the format's, and which is the first."""
        first = "" if self.first_strange is None else f", line {self.first_strange} the first"
        return f"{self.strange:,} of them not like its records by their keys{first}"


def total_report(reports: Sequence[Report]) -> Report:
    """Reports of one format added up; lines have numbers in one file only."""
    if len(reports) == 1:
        return reports[0]
    counts = Counter[str]()
    for report in reports:
        counts.update(report.unmapped)
    names = ("records", "adapted", "unreadable", "strange")
    totals = {name: sum(getattr(report, name) for report in reports) for name in names}
    return Report(reports[0].format, **totals, unmapped=_by_frequency(counts))


def _by_frequency(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda found: (-found[1], found[0])))


class Adaptation:
    """How one file of a known format is turned into envelope lines; `open` starts it, `report` says how it went."""

    def __init__(self, format: str, contract: AdaptersContract, plan: TrackingPlan) -> None:
        self.format, self.contract, self.plan = format, contract, plan
        self._begin()

    def _begin(self) -> None:
        self._draft = Draft(getattr(self.contract, self.format), self.plan)
        self._report = Report(self.format)
        self._line_no = 0

    def open(self, source: Source) -> Source:
        """The file's envelope lines as something to read from; counting starts anew."""
        self._begin()
        return _Joined(self._numbered(_lines(source)))

    def lines(self, source: Source) -> Iterator[bytes]:
        """One line a record, without blank ones; counting starts anew."""
        self._begin()
        return (line for line in self._numbered(_lines(source)) if not _is_blank(line))

    @property
    def report(self) -> Report:
        """Of what was read so far; most frequent fields first."""
        self._report.unmapped = _by_frequency(self._draft.unmapped.counts)
        return self._report

    def _numbered(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        return self._csv(lines) if self.format == "csv" else map(self._json_line, lines)

    def _json_line(self, line: bytes) -> bytes:
        self._line_no += 1
        return line if _is_blank(line) else self._counted(line, lambda: self._event(line))

    def _event(self, line: bytes) -> dict[str, Any]:
        """
        Raises
        ------
        Unreadable and what `read_object` raises : no JSON object (for Snowplow: and no row of its TSV).
        """
        text, (is_record, adapt) = line.decode("utf-8"), JSON_FORMATS[self.format]
        if self.format == "snowplow" and not text.lstrip(" ").startswith("{"):
            row = snowplow.from_tsv(text)
            if row is None:
                raise Unreadable("neither JSON nor all columns")
            return adapt(row, self._draft)
        record, once = read_object(text)
        if not is_record(record):
            self._report.strange += 1
            self._report.first_strange = self._report.first_strange or self._line_no
        found = adapt(record, self._draft)
        if not once:  # which of two holds cannot be known, and the first may have denied
            found["consent"] = self._draft.no_consent_known()
        return found

    def _csv(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        rules, privacy = self.contract.csv, self.plan.privacy
        header: list[str] | None = None
        where: dict[int, str] = {}
        for line in lines:
            if not _is_blank(line):
                header = split(line, rules.delimiter) or []
                where = csv_rows.places(header, rules, privacy)
                yield b"\n"
                break
            yield line
        names = header or []
        for taken, cells in cut(lines, rules.delimiter, len(names)):
            line = taken[0]
            if _is_blank(line):
                yield line
                continue
            yield from [b"\n"] * (len(taken) - 1)
            yield self._counted(line, lambda cells=cells: self._row(cells, where, names))  # type: ignore[misc]

    def _row(self, cells: list[str] | None, where: dict[int, str], names: list[str]) -> dict[str, Any]:
        if cells is None:
            raise Unreadable("not a row of the header's width")
        return csv_rows.adapt(cells, where, self._draft, names)

    def _counted(self, line: bytes, make: Callable[[], dict[str, Any]]) -> bytes:
        """The adapted line; the line as it came where that fails. Either ends with a newline."""
        self._report.records += 1
        try:
            adapted = _ENCODER.encode(make()) + b"\n"
        except (ValueError, ArithmeticError, RecursionError):  # UnicodeError is a ValueError: no UTF-8 can hold it
            self._report.unreadable += 1
            return line if line.endswith(b"\n") else line + b"\n"
        self._report.adapted += 1
        return adapted


def read_object(text: str) -> tuple[dict[str, Any], bool]:
    """A JSON object, strictly, numbers with their digits; and whether each key stands once.

    Raises
    ------
    ValueError, ArithmeticError, RecursionError : it is none.
    """
    try:
        found, once = (
            json.loads(text, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_each_key_once),
            True,
        )
    except _KeyTwice:
        found, once = json.loads(text, parse_float=Decimal, parse_constant=_refuse), False
    if not isinstance(found, dict):
        raise Unreadable("no JSON object")
    return found, once


class _KeyTwice(Exception):
    pass


def _refuse(_: str) -> None:
    raise Unreadable("not a number of JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _KeyTwice
    return found


def _is_blank(line: bytes) -> bool:
    if len(line) >= _SHORT or not line.strip():
        return not line.strip()
    return not line.decode("utf-8", "replace").strip()


def _lines(source: Source) -> Iterator[bytes]:
    """Lines with their ends; a byte order mark before the first is none of its content."""
    carry, first = b"", True
    while chunk := source.read(READ_BYTES):
        if first:
            chunk, first = chunk.removeprefix(codecs.BOM_UTF8), False
        block = (carry + chunk).split(b"\n")
        carry = block.pop()
        for line in block:
            yield line + b"\n"
    if carry:
        yield carry


class _Joined:
    """Lines as one stream of bytes. `read` gives whole lines of about the size asked for, and b"" at the end."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)

    def read(self, size: int = READ_BYTES, /) -> bytes:
        held: list[bytes] = []
        found = 0
        for line in self._lines:
            held.append(line)
            found += len(line)
            if found >= min(size, READ_BYTES):
                break
        return b"".join(held)
