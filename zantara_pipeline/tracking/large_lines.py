"""Large lines of a batch, each judged by a short line with the same verdict.

The engine's JSON functions need 5 to 20 times the bytes of a line, in one piece, and a worker has 300 MB: a line of 50 MB
ended the run. So a line of more than LARGE_BYTES is passed over once (large_scan.py), and in its place the engine reads a
short one with all that a verdict looks at:

- declared members with their values; in place of a long text a mark, the text itself stands beside the line (of an id that
  is too long as much as shows that);
- of an object or a list that nobody looks into, only that it is one;
- so many of the undeclared members that they count as a map (key_names.py), and one of them twice if any stood twice.

What is stored of a line is never the short one.

Belongs here: that short line. Does not belong here: verdicts (verdict.py), reasons (reasons.py).
"""

from __future__ import annotations

import json
import math
import secrets
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from zantara_pipeline.privacy.consent import MOST_ID_LENGTH
from zantara_pipeline.tracking import large_scan as scan
from zantara_pipeline.tracking.key_names import MOST_KEYS
from zantara_pipeline.tracking.other_lines import ROWS_PER_FILE
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, TrackingPlan
from zantara_pipeline.tracking.scan import ARRAY, OBJECT, STRING, past_blanks
from zantara_pipeline.tracking.shapes import ENVELOPE, declared_properties

# The engine reads 2,048 lines at a time, in 300 MB; of usual events none is as long as this.
LARGE_BYTES = 16 * 2**10
# Longer texts stand beside their line.
LONG_BYTES = 2 * 2**10
# No number of so many digits is in the range of any type, and doubles have 17.
_LONG_NUMBER = 400
# Whom a line is about whose `user_id` is no text is sought in a tree of it (unclear_users.py): 20 MB for so many bytes.
_MOST_USER_BYTES = 2**20
_LONGEST_NAME = 200
_IDS = {name.encode() for name in ("event_id", *ENVELOPE_STRINGS)}
_BESIDE = pa.schema([("row_id", pa.int64()), ("long", pa.map_(pa.string(), pa.string())), ("anybody", pa.bool_())])


@dataclass(frozen=True)
class Texts:
    """A batch (reader.BATCH_SCHEMA) with short lines in place of the large ones, which come last.

    beside : a row a large line: row_id, `long` (mark -> text), and whether it may be `anybody`'s: its user_id is too long
        to be looked through.
    """

    lines: pa.Table
    beside: pa.Table

    def joined(self, others: Texts) -> Texts:
        return Texts(*(pa.concat_tables(parts) for parts in ((self.lines, others.lines), (self.beside, others.beside))))


def only(lines: pa.Table, row_ids: np.ndarray) -> pa.Table:
    """The lines of a batch with these numbers."""
    blocks = [block.filter(pa.array(np.isin(_row_ids(block), row_ids))) for block in lines.to_batches()]
    return pa.Table.from_batches(blocks, schema=lines.schema)


@dataclass
class _Short:
    """text: None if the line is not a JSON object."""

    text: bytes | None = None
    long: dict[str, str] = field(default_factory=dict)
    anybody: bool = False


def whole_text(beside: str, text: str) -> str:
    """SQL: a text of a short line, the long one where it is a mark; `beside` is the joined row of `Texts.beside`."""
    return f"coalesce({beside}.long[{text}], {text})"


def is_object(line: str) -> bool:
    """Whether a line is an object of strict JSON, however deep."""
    octets = np.frombuffer(line.encode(), dtype=np.uint8)
    return _Line(octets, {"": set()}).short().text is not None


class LargeLines:
    """Makes the large lines of batches short."""

    def __init__(self, plan: TrackingPlan) -> None:
        levels = {
            "": ENVELOPE, "properties": declared_properties(plan), "context": CONTEXT_KEYS, "consent": plan.purposes
        }  # fmt: skip
        self._declared = {level: {name.encode() for name in names} for level, names in levels.items()}

    def shortened(self, lines: pa.Table) -> Texts:
        """A batch with its large lines made short."""
        usual, short, rows = [], [], []
        for block in lines.to_batches():
            large = np.flatnonzero(np.diff(_offsets(block)) > LARGE_BYTES)
            for row in large.tolist():
                made = self._short(block, row)
                short.append((block.slice(row, 1), made))
                rows.append(
                    {"row_id": int(_row_ids(block)[row]), "long": list(made.long.items()), "anybody": made.anybody}
                )
            if len(large):
                keep = np.ones(block.num_rows, dtype=bool)
                keep[large] = False
                block = block.filter(pa.array(keep))
            usual.append(block)
        texts = pa.Table.from_batches([*usual, *_blocks(short)], schema=lines.schema)
        return Texts(texts, pa.Table.from_pylist(rows, schema=_BESIDE))

    def _short(self, block: pa.RecordBatch, row: int) -> _Short:
        if block.column("rendering")[row].is_valid:  # not UTF-8: unparsable, and its text is not used
            return _Short()
        start, end = _offsets(block)[row : row + 2].tolist()
        octets = np.frombuffer(block.column("line").buffers()[2], dtype=np.uint8)[start:end]
        octets.flags.writeable = False  # the pass is compiled for each kind of array
        return _Line(octets, self._declared).short()


class _Line:
    """One large line on its way to a short one."""

    def __init__(self, octets: np.ndarray, declared: dict[str, set[bytes]]) -> None:
        self.octets, self.declared, self.line = octets, declared, octets.data
        self._objects, self._places = scan.room_for(len(octets))
        self._made, self._user_bytes, self._end = _Short(), 0, 0
        self._secret = secrets.token_hex(8)

    def short(self) -> _Short:
        start = past_blanks(self.octets, 0, len(self.octets))
        if start == len(self.octets) or self.octets[start] != ord("{"):
            return _Short()
        try:
            self._made.text = self._object("", start)
            strict = past_blanks(self.octets, self._end, len(self.octets)) == len(self.octets)
        except _NotStrictError:
            return _Short()
        return self._made if strict else _Short()

    def _members(self, start: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Key, start, end and type of the value of every member of the object that begins there."""
        at, count = start + 1, len(self._places)
        while count == len(self._places):
            count, at = scan.next_members(self.octets, at, len(self.octets), self._objects, self._places)
            if count == scan.NOT_STRICT:
                raise _NotStrictError
            for key_start, key_end, *value in self._places[:count].tolist():
                yield _unescaped(bytes(self.line[key_start:key_end])), *value
        self._end = at

    def _object(self, level: str, start: int) -> bytes:
        """The object that begins there with what matters of it: of a declared key that stands again and again so many copies
        that they count like all of them (readers take the first)."""
        declared, kept, others = self.declared[level], defaultdict[bytes, list[bytes]](list), _Others()
        for key, first, end, kind in self._members(start):
            if key not in declared:
                others.add(key)
            elif len(kept[key]) <= MOST_KEYS:
                kept[key].append(self._value(level, key, first, end, kind))
            else:
                self._made.anybody |= not level and key == b"user_id"
        members = [_member(key, value) for key, values in kept.items() for value in values]
        return b"{" + b",".join([*members, *others.members()]) + b"}"

    def _value(self, level: str, key: bytes, start: int, end: int, kind: int) -> bytes:
        if not level and key == b"user_id" and kind in (OBJECT, ARRAY):
            self._user_bytes += end - start
            self._made.anybody |= self._user_bytes > _MOST_USER_BYTES
            return b"[]" if self._made.anybody else bytes(self.line[start:end])
        if kind == OBJECT:
            return self._object(key.decode(), start) if not level and key.decode() in self.declared else b"{}"
        if kind == ARRAY:
            return b"[]"
        value = bytes(self.line[start:end])
        if kind == STRING and len(value) > LONG_BYTES:
            text = str(json.loads(value))
            return self._mark(text) if level or key not in _IDS else json.dumps(text[: MOST_ID_LENGTH + 1]).encode()
        if kind == STRING:
            return value
        return value if len(value) <= _LONG_NUMBER else _short_number(value)

    def _mark(self, text: str) -> bytes:
        """What stands for a long text; nobody can have written it in the line."""
        mark = f"(long text {self._secret} {len(self._made.long)})"
        self._made.long[mark] = text
        return json.dumps(mark).encode()


class _NotStrictError(Exception):
    pass


class _Others:
    """Undeclared members of one object: how many, the first names, and whether any stood twice."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._hashes = array("q")

    def add(self, name: bytes) -> None:
        self._hashes.append(hash(name))
        if len(self._names) <= MOST_KEYS:
            self._names.append(name if len(name) <= _LONGEST_NAME else f"(long name {hash(name):x})".encode())

    def members(self) -> list[bytes]:
        names = self._names
        if len(self._hashes) > len(names) and len(np.unique(np.frombuffer(self._hashes, np.int64))) < len(self._hashes):
            names = [*names, names[0]]
        return [_member(name, b"null") for name in names]


def _member(name: bytes, value: bytes) -> bytes:
    return json.dumps(name.decode()).encode() + b":" + value


def _unescaped(name: bytes) -> bytes:
    return str(json.loads(b'"' + name + b'"')).encode() if b"\\" in name else name


def _short_number(number: bytes) -> bytes:
    """A number of the same type, in the range of any type that this one is in, and there the same."""
    if b"e" not in number.lower():
        return number[:_LONG_NUMBER] + b"0"  # a digit, should the point have been the last
    value = float(number)
    return repr(value).encode() if math.isfinite(value) else b"-1e999" if value < 0 else b"1e999"


def _offsets(block: pa.RecordBatch) -> np.ndarray:
    line = block.column("line")
    return np.frombuffer(line.buffers()[1], dtype=np.int32)[line.offset : line.offset + len(line) + 1]


def _row_ids(rows: pa.RecordBatch) -> np.ndarray:
    files, lines = (rows.column(name).to_numpy() for name in ("file_no", "line_no"))
    numbers: np.ndarray = files.astype(np.int64) * ROWS_PER_FILE + lines
    return numbers


def _blocks(short: list[tuple[pa.RecordBatch, _Short]]) -> Iterator[pa.RecordBatch]:
    """A block a line: the engine reads a block at a time."""
    for row, made in short:
        text, rendering = ("", "") if made.text is None else (made.text.decode(), None)
        columns = [row.column("file_no"), row.column("line_no"), pa.array([text]), pa.array([rendering], pa.string())]
        yield pa.RecordBatch.from_arrays(columns, schema=row.schema)
