"""Reading landed files as raw lines, in bounded batches, with their sha256.

Belongs here: bytes to lines, compression, what is not a readable file. Does not belong here: JSON, the plan, consent.
Lines are cut here and not by the engine's CSV or JSON reader, because those stop at the first invalid byte and a
bad byte must cost one line, not the file.
"""

from __future__ import annotations

import base64
import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.ledger import Ledger

# Of each block an event's day is one piece of a file of the lake: with half of this, writing pieces costs 6 % of an ingest.
CHUNK_BYTES = 8 * 2**20
_TAIL_BYTES = 2**16
# Arrow's offsets of a column of text have 32 bits with a sign; past that they would wrap round without a word. Only one
# line that is nearly as long can fill a block so far, because a block is cut behind its last newline. One byte is left for
# the newline that a last line may lack.
MOST_BLOCK_BYTES = 2**31 - 2
_LAST_ASCII = 0x7F
# event_id, event and timestamp with their keys alone need more; a longer line of blanks counts as unparsable.
_SHORTEST_EVENT = 40
SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz")

BATCH_SCHEMA = pa.schema(
    [("file_no", pa.int32()), ("line_no", pa.int64()), ("line", pa.string()), ("rendering", pa.string())]
)


@dataclass(frozen=True)
class LandedFile:
    """One landed file: its path, the name it is known by, and what it was when first looked at.

    adapt : makes envelope lines of what is read from a file of another format (adapters/); None: it holds them already.
    """

    path: Path
    name: str
    sha256: str
    bytes: int
    adapt: Callable[[Any], Any] | None = None

    @property
    def source(self) -> str:
        """Name in the lake's `source` column; unique per content, so that a grown file is another source."""
        return f"{self.name}#{self.sha256[:8]}"


def landed_paths(landing: Path) -> list[tuple[Path, str]]:
    """Event files below a folder (or the one file), with their relative names, in name order."""
    if landing.is_file():
        return [(landing, landing.name)]
    if not landing.is_dir():
        raise InputError(
            "no such file or folder", landing, "point EVENTS at a .jsonl or .jsonl.gz file or a folder of them"
        )
    found = [path for path in landing.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES)]
    hidden = [path for path in found if any(part.startswith(".") for part in path.relative_to(landing).parts)]
    return sorted(
        ((path, path.relative_to(landing).as_posix()) for path in found if path not in hidden), key=lambda p: p[1]
    )


def identify(path: Path, name: str) -> LandedFile:
    """Hash a file's bytes as they are on disk."""
    try:
        with path.open("rb", buffering=0) as handle:
            return LandedFile(path, name, _sha256(handle), path.stat().st_size)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path, "check its permissions") from None


def _sha256(handle: io.FileIO) -> str:
    """In pieces so large that the interpreter's lock, which other threads hold meanwhile, is waited for a few times only."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
    while count := handle.readinto(buffer):
        digest.update(buffer[:count])
    return digest.hexdigest()


def line_batches(file: LandedFile, file_no: int) -> Iterator[pa.RecordBatch]:
    """Lines of one file as Arrow batches of about 8 MiB (BATCH_SCHEMA); blank lines are left out, numbering keeps them.

    A line keeps its newline: JSON allows it, and cutting it off would copy every byte once more.

    Raises
    ------
    InputError : a truncated or damaged .gz, or a line of 2 GiB (whole file refused, nothing of it is taken).
    """
    line_no = 1
    try:
        with _open(file.path) as handle:
            for block in _blocks(file.adapt(handle) if file.adapt else handle):
                batch, lines = _batch(block, file_no, line_no)
                del block
                yield batch
                del batch
                line_no += lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"the gzip file is truncated or damaged ({type(error).__name__})",
            file.path,
            "land it again; nothing of it was taken",
        ) from None
    except _LineTooLong:
        raise _too_long(file, line_no) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file.path, "check the file") from None


class _LineTooLong(Exception):
    pass


def _too_long(file: LandedFile, line_no: int) -> InputError:
    what = f"a line is longer than can be read ({MOST_BLOCK_BYTES:,} bytes)"
    return InputError(what, f"{file.path}:{line_no}", "end each event with a newline; nothing of the file was taken")


def refuse_long_lines(file: LandedFile) -> None:
    """Find out before a line is taken whether `line_batches` would end at one that is too long (same pieces, same rule).

    Raises
    ------
    InputError : it would.
    """
    if file.bytes <= MOST_BLOCK_BYTES or _has_newlines_throughout(file):
        return
    held = 0
    with file.path.open("rb") as handle:
        while piece := handle.read(CHUNK_BYTES):
            if held + len(piece) > MOST_BLOCK_BYTES:
                raise _too_long(file, _line_at(file.path, handle.tell() - len(piece) - held))
            cut = piece.rfind(b"\n") + 1
            held = len(piece) - cut if cut else held + len(piece)


def _has_newlines_throughout(file: LandedFile) -> bool:
    """Whether a piece at every half of the longest block has a newline: then no line can be too long, and 5 GB need not be read.

    A line then ends within a step and a piece, and at most one more piece is read with it.
    """
    step = MOST_BLOCK_BYTES // 2
    if step + 2 * CHUNK_BYTES > MOST_BLOCK_BYTES:
        return False
    with file.path.open("rb") as handle:
        for position in range(0, file.bytes, step):
            handle.seek(position)
            piece = handle.read(CHUNK_BYTES)
            if b"\n" not in piece and position + len(piece) < file.bytes:
                return False
    return True


def _line_at(path: Path, position: int) -> int:
    """Number of the line that begins there."""
    newlines = 0
    with path.open("rb") as handle:
        while position > 0 and (piece := handle.read(min(CHUNK_BYTES, position))):
            newlines += piece.count(b"\n")
            position -= len(piece)
    return newlines + 1


def _blocks(source: Any) -> Iterator[memoryview]:
    """Whole lines, the last one closed by a newline; each block in memory of its own, which its lines go on using.

    A byte order mark at the start of a file, which editors and exports of Windows write, is none of its first line: blanks
    stand in its place.
    """
    carry, more, first = b"", True, True
    while more:
        block, size = _filled(source, carry)
        if first and bytes(block[: len(codecs.BOM_UTF8)]) == codecs.BOM_UTF8:
            block[: len(codecs.BOM_UTF8)] = b" " * len(codecs.BOM_UTF8)
        first = False
        if size > MOST_BLOCK_BYTES:  # before the block is cut: the line that is open begins at its start
            raise _LineTooLong
        more = size > len(carry)
        cut = _behind_last_newline(block, len(carry), size)
        carry = bytes(block[cut:size])
        if cut:
            yield block[:cut]
        del block  # or it would stay while the next one is filled, which takes as much if a line is very long
    if carry.strip():
        yield memoryview(bytearray(carry + b"\n"))


def _filled(source: Any, carry: bytes) -> tuple[memoryview, int]:
    """A new block that begins with `carry` and goes on with what the source gives, and how much of it is filled.

    Files fill it themselves, and nothing fills it before: each would touch fresh memory once more.
    """
    if not isinstance(source, io.BufferedIOBase):
        block = memoryview(bytearray(carry + source.read(CHUNK_BYTES)))
        return block, len(block)
    block = np.empty(len(carry) + CHUNK_BYTES, dtype=np.uint8).data
    block[: len(carry)] = carry
    return block, len(carry) + source.readinto(block[len(carry) :])


def _behind_last_newline(block: memoryview, first: int, end: int) -> int:
    """Position behind the last newline of block[first:end]; 0 if there is none."""
    while end > first:
        begin = max(first, end - _TAIL_BYTES)
        if (at := bytes(block[begin:end]).rfind(b"\n")) >= 0:
            return begin + at + 1
        end = begin
    return 0


def line_tables(files: Sequence[LandedFile], size: int) -> Iterator[pa.Table]:
    """Lines of several files (numbered as given) in tables of about `size` bytes, BATCH_SCHEMA.

    A block that is half as long holds one very long line; it is a table of its own.
    """
    held: list[pa.RecordBatch] = []
    held_bytes = 0
    for number, file in enumerate(files):
        for batch in line_batches(file, number):
            if held and batch.nbytes >= size // 2:
                yield pa.Table.from_batches(held, schema=BATCH_SCHEMA)
                held, held_bytes = [], 0
            held.append(batch)
            held_bytes += batch.nbytes
            if held_bytes >= size or batch.nbytes >= size // 2:
                yield pa.Table.from_batches(held, schema=BATCH_SCHEMA)
                held, held_bytes = [], 0
            del batch
    if held:
        yield pa.Table.from_batches(held, schema=BATCH_SCHEMA)


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _batch(block: memoryview, file_no: int, first: int) -> tuple[pa.RecordBatch, int]:
    """A block of whole lines as a batch, and how many lines it had (blank ones included)."""
    octets = np.frombuffer(block, dtype=np.uint8)
    offsets, beyond = _line_ends(octets)
    count = len(offsets) - 1
    numbers = np.arange(first, first + count, dtype=np.int64)
    if (filled := _filled_lines(octets, offsets)) is not None:
        offsets, beyond, numbers = np.append(offsets[:-1][filled], offsets[-1]), beyond[filled], numbers[filled]
    text, renderings = _text(octets, offsets, np.flatnonzero(beyond))
    columns = [pa.array(np.full(len(numbers), file_no, dtype=np.int32)), pa.array(numbers), text, renderings]
    batch = pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)
    return _without_blank(batch, np.diff(offsets)), count


def _line_ends(octets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each line begins, and the end of the last (int32, lines + 1); which lines have octets above ASCII."""
    from zantara_pipeline.tracking.scan import line_ends  # numba, which those who only look for files do not need

    return line_ends(octets)


def _filled_lines(octets: np.ndarray, offsets: np.ndarray) -> np.ndarray | None:
    """Which lines are left when empty ones become the end of the line before them; None: all of them.

    To leave them out of the text would copy the block. Only a line too long to be blank takes them: of a short one it is
    still to be found out, by its length.
    """
    lengths = np.diff(offsets)
    empty = lengths <= len(b"\r\n")
    empty &= (lengths == 1) | (octets[offsets[:-1]] == ord("\r"))
    if not empty.any():
        return None
    before = np.maximum.accumulate(np.where(empty, -1, np.arange(len(lengths))))
    return ~(empty & (before >= 0) & (lengths[before] >= _SHORTEST_EVENT))


def _text(octets: np.ndarray, offsets: np.ndarray, suspects: np.ndarray) -> tuple[pa.StringArray, pa.StringArray]:
    """Lines as text, and beside them a readable rendering of each that is not UTF-8 (null for the others).

    suspects : numbers of the lines that have octets above ASCII; no other can be the one.

    The text of such a line is not used; its bytes above ASCII are lowered to ASCII in place, so that the rest stays as it is.
    """
    count = len(offsets) - 1
    text = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(octets))
    if not len(suspects) or _is_utf8(text if 2 * len(suspects) > count else text.take(pa.array(suspects))):
        return text, pa.nulls(count, pa.string())
    renderings: list[str | None] = [None] * count
    for number in suspects.tolist():
        start, end = offsets[number], offsets[number + 1]
        renderings[number] = _rendering(octets[start:end].tobytes())
        if renderings[number] is not None:
            octets[start:end] = np.minimum(octets[start:end], _LAST_ASCII)
    return text, pa.array(renderings, pa.string())


def _is_utf8(text: pa.StringArray) -> bool:
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _without_blank(batch: pa.RecordBatch, lengths: np.ndarray) -> pa.RecordBatch:
    """Only a line shorter than any event can be blank; trimming every line would cost as much as parsing it."""
    short = np.flatnonzero(lengths < _SHORTEST_EVENT)
    if not len(short):
        return batch
    trimmed = pc.utf8_trim_whitespace(batch.column("line").take(pa.array(short)))
    blank = short[pc.equal(pc.utf8_length(trimmed), 0).to_numpy(zero_copy_only=False)]
    if not len(blank):
        return batch
    keep = np.ones(len(lengths), dtype=bool)
    keep[blank] = False
    return batch.filter(pa.array(keep))


def _rendering(line: bytes) -> str | None:
    """None for UTF-8; else the line with each wrong byte written out, or, if it is long and may have many of them, in base64:
    written out, a wrong byte takes four."""
    try:
        line.decode("utf-8")
        return None
    except UnicodeDecodeError:
        if 8 * len(line) > MOST_BLOCK_BYTES:  # the other half is for the block's rest
            raise _LineTooLong from None
        if len(line) > CHUNK_BYTES and np.count_nonzero(np.frombuffer(line, np.uint8) > _LAST_ASCII) > len(line) // 8:
            return "base64:" + base64.b64encode(line).decode()
        return line.decode("utf-8", "backslashreplace")


def untaken(landing: Path, ledger: Ledger, settled_before: float) -> str | None:
    """A key for the set of landed files that the ledger does not know and that no one wrote to lately; None: none.

    Files are told apart by name and size, so that looking costs no reading; a run then hashes them.
    """
    with ledger.read() as db:
        known = set(db.execute("SELECT file, bytes FROM ingested_files UNION SELECT file, bytes FROM rewritten_files"))
    found = []
    for path, name in landed_paths(landing):
        stat = path.stat()
        if (name, stat.st_size) not in known and stat.st_mtime <= settled_before:
            found.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else None
