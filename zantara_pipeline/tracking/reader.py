"""Reading landed files as raw lines, in bounded batches, with their sha256.

Belongs here: bytes to lines, compression, what is not a readable file. Does not belong here: JSON, the plan, consent.
Lines are cut here and not by the engine's CSV or JSON reader, because those stop at the first invalid byte and a
bad byte must cost one line, not the file.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.ledger import Ledger

CHUNK_BYTES = 8 * 2**20
SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")

BATCH_SCHEMA = pa.schema([("file_no", pa.int32()), ("line_no", pa.int64()), ("line", pa.string()), ("bad_bytes", pa.bool_())])


@dataclass(frozen=True)
class LandedFile:
    """One landed file: its path, the name it is known by, and what it was when first looked at."""

    path: Path
    name: str
    sha256: str
    bytes: int

    @property
    def source(self) -> str:
        """Name in the lake's `source` column; unique per content, so that a grown file is another source."""
        return f"{self.name}#{self.sha256[:8]}"


def landed_paths(landing: Path) -> list[tuple[Path, str]]:
    """Event files below a folder (or the one file), with their relative names, in name order."""
    if landing.is_file():
        return [(landing, landing.name)]
    if not landing.is_dir():
        raise InputError("no such file or folder", landing, "point EVENTS at a .jsonl or .jsonl.gz file or a folder of them")
    found = [path for path in landing.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES)]
    hidden = [path for path in found if any(part.startswith(".") for part in path.relative_to(landing).parts)]
    return sorted(((path, path.relative_to(landing).as_posix()) for path in found if path not in hidden), key=lambda p: p[1])


def identify(path: Path, name: str) -> LandedFile:
    """Hash a file's bytes as they are on disk."""
    try:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return LandedFile(path, name, digest, path.stat().st_size)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path, "check its permissions") from None


def line_batches(file: LandedFile, file_no: int) -> Iterator[pa.RecordBatch]:
    """Lines of one file as Arrow batches of about 8 MiB (BATCH_SCHEMA); blank lines are left out, numbering keeps them.

    Raises
    ------
    InputError : a truncated or damaged .gz (whole file refused, nothing of it is taken).
    """
    carry, line_no = b"", 1
    try:
        with _open(file.path) as handle:
            while chunk := handle.read(CHUNK_BYTES):
                *lines, carry = (carry + chunk).split(b"\n")
                if lines:
                    yield _batch(lines, file_no, line_no)
                    line_no += len(lines)
        if carry.strip():
            yield _batch([carry], file_no, line_no)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"the gzip file is truncated or damaged ({type(error).__name__})", file.path, "land it again; nothing of it was taken"
        ) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file.path, "check the file") from None


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _batch(lines: list[bytes], file_no: int, first: int) -> pa.RecordBatch:
    raw = pa.array(lines, type=pa.binary())
    numbers = pa.array(range(first, first + len(lines)), type=pa.int64())
    try:
        text = raw.cast(pa.string())
        bad = pa.array([False] * len(lines))
    except pa.ArrowInvalid:  # some line is not UTF-8: find which, keep a readable rendering of it
        decoded = [_decode(line) for line in lines]
        text = pa.array([line for line, _ in decoded], type=pa.string())
        bad = pa.array([flag for _, flag in decoded])
    batch = pa.RecordBatch.from_arrays([pa.array([file_no] * len(lines), type=pa.int32()), numbers, text, bad], schema=BATCH_SCHEMA)
    blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0)
    return batch if not pc.any(blank).as_py() else batch.filter(pc.invert(blank))


def _decode(line: bytes) -> tuple[str, bool]:
    try:
        return line.decode("utf-8"), False
    except UnicodeDecodeError:
        return line.decode("utf-8", "backslashreplace"), True


def untaken(landing: Path, ledger: Ledger, settled_before: float) -> str | None:
    """A key for the set of landed files that the ledger does not know and that no one wrote to lately; None: none.

    Files are told apart by name and size, so that looking costs no reading; a run then hashes them.
    """
    with ledger.read() as db:
        known = set(db.execute("SELECT file, bytes FROM ingested_files"))
    found = []
    for path, name in landed_paths(landing):
        stat = path.stat()
        if (name, stat.st_size) not in known and stat.st_mtime <= settled_before:
            found.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else None
