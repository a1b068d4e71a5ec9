"""Lines of landed files as they stand there, and files without some of them.

Every file of lines below data/landing is read as what it is: one JSON text a line, or CSV and TSV by their header (a
record may hold newlines), gzipped or not. What stays, stays byte for byte.

An erasure changes a file's content, and a file is known by its content: what it is now is recorded as taken already,
before it takes the old one's place. Files outside the home belong to whoever named them, and are left alone.

Belongs here: those records and that step. Does not belong here: who is sought (privacy/people.py), reading for an ingest
(reader.py).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from zantara_pipeline.privacy.people import Matcher
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.adapters.snowplow import COLUMNS as SNOWPLOW
from zantara_pipeline.tracking.reader import SUFFIXES

BESIDE = ".erasing"
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, csv.Error)
"""What reading raises where a file is not what its name says, or ends too early."""


@dataclass(frozen=True)
class Record:
    """One line, or one record of a CSV. header : names of its cells; None: the line is JSON."""

    raw: bytes
    header: tuple[str, ...] | None = None
    delimiter: str = ","

    @cached_property
    def text(self) -> str:
        return self.raw.decode("utf-8-sig", "replace")  # a mark before the first line is none of it

    def may_name(self, matcher: Matcher) -> bool:
        """A quick look; what it refuses names nobody."""
        return matcher.may_be_in(self.raw)

    def names(self, matcher: Matcher) -> bool:
        if self.header is None:
            return matcher.in_text(self.text)
        return any(matcher.in_field(name, value) for name, value in self._cells())

    def as_json(self) -> str:
        import json

        return self.text if self.header is None else json.dumps(dict(self._cells()))

    def _cells(self) -> Iterator[tuple[str, str]]:
        csv.field_size_limit(2**31 - 1)
        if self.delimiter == ",":
            rows = csv.reader([self.text])
        else:
            rows = csv.reader([self.text], delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        for row in rows:
            names = self.header if self.header and len(self.header) == len(row) else ("",) * len(row)
            yield from zip(names, row, strict=True)


def files_of_lines(home: Home) -> list[Path]:
    """Files below data/landing that are read line by line."""
    found = home.landing.rglob("*") if home.landing.is_dir() else ()
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and path.name.endswith(SUFFIXES))


def raw_records(path: Path) -> Iterator[Record]:
    """Records of a file, the header of a CSV left out.

    Raises
    ------
    OSError, EOFError, zlib.error : it cannot be read to its end.
    """
    with _open(path) as handle:
        _, records = _head_and_records(path, handle)
        yield from records


def erase_landed(home: Home, ledger: Ledger, landing: Path, matcher: Matcher) -> int:
    """Write the files again that name somebody, without those lines; returns how many files. May be done again.

    landing : where events are read from; names of files are relative to it.
    """
    for left in home.landing.rglob(f"*{BESIDE}"):
        left.unlink()
    done = 0
    for path in files_of_lines(home):
        try:
            done += _without(ledger, path, _name(path, landing), matcher)
        except DAMAGED:
            continue  # the proof names it as unreadable
    return done


def _name(path: Path, landing: Path) -> str:
    return path.relative_to(landing).as_posix() if path.is_relative_to(landing) and path != landing else path.name


def _without(ledger: Ledger, path: Path, name: str, matcher: Matcher) -> bool:
    # most files name nobody: reading one costs less than packing it again only to throw the copy away
    if not any(record.may_name(matcher) and record.names(matcher) for record in raw_records(path)):
        return False
    beside = path.with_name(path.name + BESIDE)
    try:
        with _open(path) as source, beside.open("wb") as target, _packing(path, target) as packed:
            head, records = _head_and_records(path, source)
            packed.write(head)
            for record in records:
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


def _head_and_records(path: Path, handle: BinaryIO) -> tuple[bytes, Iterator[Record]]:
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind not in (".csv", ".tsv"):
        return b"", map(Record, handle)
    delimiter = "\t" if kind == ".tsv" else ","
    whole = _whole_records(handle) if kind == ".csv" else iter(handle)  # quotes mean nothing in a TSV
    head = next(whole, b"")
    names = tuple(next(csv.reader([head.decode("utf-8-sig", "replace")], delimiter=delimiter), []))
    if kind == ".tsv" and len(names) == len(SNOWPLOW):  # the enricher writes no header
        records = (Record(raw, tuple(SNOWPLOW), delimiter) for raw in _chained(head, whole))
        return b"", records
    return head, (Record(raw, names, delimiter) for raw in whole)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _whole_records(handle: BinaryIO) -> Iterator[bytes]:
    """Lines, joined while a quote is open."""
    held = b""
    for line in handle:
        held += line
        if held.count(b'"') % 2 == 0:
            yield held
            held = b""
    if held:
        yield held
