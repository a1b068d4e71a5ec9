"""Lines of landed files as they stand there, and files without some of them.

Every file of lines below data/landing is read as what it is by its content, whatever it is called: one JSON text a line,
Snowplow's columns, or a table by its header (its rows may hold newlines), gzipped or not. A line that is none of what its
file holds (torn, of another width, behind a quote that was never closed) is a record of its own and has no fields. What
stays, stays byte for byte.

An erasure changes a file's content, and a file is known by its content: what it is now is recorded as taken already,
before it takes the old one's place. Files outside the home belong to whoever named them, and are left alone.

Belongs here: those records and that step. Does not belong here: who is sought (privacy/people.py), reading for an ingest
(reader.py).
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from zantara_pipeline.privacy.people import Matcher, names_columns
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.storage.text_rows import cut, split
from zantara_pipeline.tracking.adapters.contract import CsvRules
from zantara_pipeline.tracking.adapters.snowplow import COLUMNS as SNOWPLOW
from zantara_pipeline.tracking.reader import SUFFIXES

BESIDE = ".erasing"
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
"""What reading raises where a file is not what its name says, or ends too early."""


@dataclass(frozen=True)
class Record:
    """One line, or one row of a table.

    cells : (name of the column, value); None: the line is JSON, or fits nothing.
    columns : what columns are called in the envelope, by the contract of adapters.
    """

    raw: bytes
    cells: tuple[tuple[str, str], ...] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        return self.raw.decode("utf-8-sig", "replace")  # a mark before the first line is none of it

    def may_name(self, matcher: Matcher) -> bool:
        """A quick look; what it refuses names nobody."""
        return matcher.may_be_in(self.raw)

    def names(self, matcher: Matcher) -> bool:
        """Whether an erasure takes it: of a line without fields, any cell may be the id."""
        return matcher.in_line(self.text) if self.cells is None else self._in_cells(matcher)

    def surely_names(self, matcher: Matcher) -> bool:
        """Whether it may be handed to the person: of a line without fields nobody knows whose it is."""
        return matcher.in_text(self.text) if self.cells is None else self._in_cells(matcher)

    def as_json(self) -> str:
        import json

        return self.text if self.cells is None else json.dumps({self.columns.get(n, n): v for n, v in self.cells})

    def _in_cells(self, matcher: Matcher) -> bool:
        return any(matcher.in_field(name, value) for name, value in self.cells or ())


def files_of_lines(home: Home) -> list[Path]:
    """Files below data/landing that are read line by line."""
    found = home.landing.rglob("*") if home.landing.is_dir() else ()
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and path.name.endswith(SUFFIXES))


def people_fields(rules: CsvRules) -> frozenset[str]:
    """Names of columns that hold ids of people because the contract says so."""
    return frozenset(name for name, place in rules.columns.items() if place in ("user_id", "anonymous_id", "device_id"))


def raw_records(path: Path, rules: CsvRules) -> Iterator[Record]:
    """Records of a file, byte for byte; the header of a table is one, too.

    Raises
    ------
    OSError, EOFError, zlib.error : it cannot be read to its end.
    """
    with _open(path) as handle:
        yield from _records(handle, rules)


def erase_landed(home: Home, ledger: Ledger, landing: Path, matcher: Matcher, rules: CsvRules) -> int:
    """Write the files again that name somebody, without those lines; returns how many files. May be done again.

    landing : where events are read from; names of files are relative to it. rules : how the shop's tables are read.
    """
    for left in home.landing.rglob(f"*{BESIDE}"):
        left.unlink()
    done = 0
    for path in files_of_lines(home):
        try:
            changed = False
            # what a line is depends on the first of its file, and that one may go
            while _without(ledger, path, _name(path, landing), matcher, rules):
                changed = True
            done += changed
        except DAMAGED:
            continue  # the proof names it as unreadable
    return done


def _name(path: Path, landing: Path) -> str:
    return path.relative_to(landing).as_posix() if path.is_relative_to(landing) and path != landing else path.name


def _without(ledger: Ledger, path: Path, name: str, matcher: Matcher, rules: CsvRules) -> bool:
    # most files name nobody: reading one costs less than packing it again only to throw the copy away
    if not any(record.may_name(matcher) and record.names(matcher) for record in raw_records(path, rules)):
        return False
    beside = path.with_name(path.name + BESIDE)
    try:
        with _open(path) as source, beside.open("wb") as target, _packing(path, target) as packed:
            for record in _records(source, rules):
                if not (record.may_name(matcher) and record.names(matcher)):
                    packed.write(record.raw)
        with beside.open("rb+") as written:
            os.fsync(written.fileno())
            new = hashlib.file_digest(written, "sha256").hexdigest()
        with path.open("rb") as handle:
            old = hashlib.file_digest(handle, "sha256").hexdigest()
        with ledger.transaction() as db:
            known = "SELECT sha256 FROM ingested_files UNION SELECT sha256 FROM rewritten_files"
            if db.execute(f"SELECT 1 FROM ({known}) WHERE sha256 = ?", [old]).fetchone():
                row = [new, beside.stat().st_size, name]
                db.execute("INSERT OR IGNORE INTO rewritten_files VALUES (?, ?, ?)", row)
        beside.chmod(path.stat().st_mode & 0o777)
        beside.replace(path)
        return True
    finally:
        beside.unlink(missing_ok=True)


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _packing(path: Path, target: BinaryIO) -> Any:
    if path.name.endswith(".gz"):
        return gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0)
    import contextlib

    return contextlib.nullcontext(target)


def _records(handle: BinaryIO, rules: CsvRules) -> Iterator[Record]:
    """By the first line that is not blank."""
    lines = iter(handle)
    blank: list[bytes] = []
    first = next(lines, b"")
    while first and not first.strip():
        blank.append(first)
        first = next(lines, b"")
    yield from map(Record, blank)
    if not first:
        return
    header = first.removeprefix(codecs.BOM_UTF8)
    if _is_json(header) or _snowplow(header) is not None:
        yield from map(_line, chain([first], lines))
        return
    yield Record(first)
    yield from _rows(lines, header, rules)


def _rows(lines: Iterator[bytes], header: bytes, rules: CsvRules) -> Iterator[Record]:
    delimiter = max((rules.delimiter, *",;\t|"), key=lambda mark: len(split(header, mark) or ()))
    names = split(header, delimiter) or []
    known = names_columns(names, people_fields(rules))
    for taken, cells in cut(lines, delimiter, len(names)):
        if cells and known and not _is_json(taken[0]):
            yield Record(b"".join(taken), tuple(zip(names, cells, strict=True)), rules.columns)
        else:  # blank, of another width or another format, or below no header
            yield from map(_line, taken)


def _line(raw: bytes) -> Record:
    return Record(raw, _snowplow(raw))


def _is_json(line: bytes) -> bool:
    return line.lstrip()[:1] in (b"{", b"[")


def _snowplow(line: bytes) -> tuple[tuple[str, str], ...] | None:
    """The cells of a row as the enricher writes it: without a header, and quotes mean nothing there."""
    if line.count(b"\t") != len(SNOWPLOW) - 1:
        return None
    cells = line.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    return tuple(zip(SNOWPLOW, cells, strict=True))
