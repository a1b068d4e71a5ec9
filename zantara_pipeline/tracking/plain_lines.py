"""Plain lines of a batch as typed Arrow columns, read in one pass (scan.py); the others are named, for the engine to read.

A line is taken here only if it is plain JSON and its shape is as declared. So what comes from here needs no structural
check any more, and every line that may fail one is read by the engine, where its reasons are found.

Belongs here: the plan as the arrays that scan.py wants, and its arrays as Arrow. Does not belong here: verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from zantara_pipeline.privacy.consent import MOST_ID_LENGTH
from zantara_pipeline.tracking import scan
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, TrackingPlan
from zantara_pipeline.tracking.shapes import ENVELOPE, Shape, declared_paths, declared_properties, structural_reasons

# A shape that does not fit is read by the engine: slower, not wrong. Sound plans have a few dozen.
_MOST_SHAPES = 2_000
_JSON_TYPES = (None, "NULL", "BOOLEAN", "BIGINT", "DOUBLE", "VARCHAR", "OBJECT", "ARRAY")
_TIMES = {"timestamp": "occurred_at", "received_at": "stated_received_at"}
_ARROW_TYPES = {
    "string": pa.string(), "number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "money": pa.decimal128(18, 4),
}  # fmt: skip
_MICROSECONDS_A_DAY = 86_400_000_000
_MOMENT = pa.timestamp("us", tz="UTC")
_LEVELS = {"properties": scan.PROPERTIES, "context": scan.CONTEXT, "consent": scan.CONSENT}
_WHOLE = {"integer": scan.TO_INTEGER, "money": scan.TO_MONEY, "boolean": scan.TO_BOOLEAN}


def value_column(name: str, kind: str) -> str:
    """The column that holds a property's values of one declared type (events may declare a name in several)."""
    return f"p_{name}_{kind}"


@dataclass(frozen=True)
class Read:
    """A batch in two parts: `plain` lines as columns (PlainLines.schema), `others` as they were (reader.BATCH_SCHEMA).

    Each block of `plain` is in order of event and day of receipt.
    """

    plain: pa.Table
    others: pa.Table


class PlainLines:
    """Reads the plain lines of batches; remembers the verdict on each shape it met."""

    def __init__(self, plan: TrackingPlan) -> None:
        self.plan = plan
        self._paths = declared_paths(plan)
        self._event_path = self._paths.index("$.event")
        self._events = sorted(plan.events)
        self._values = sorted({(n, p.type) for event in plan.events.values() for n, p in event.properties.items()})
        self._texts = ["event_id", "event", *ENVELOPE_STRINGS, *CONTEXT_KEYS]
        self._ids = [self._texts.index(name) for name in ("event_id", *ENVELOPE_STRINGS)]
        self._texts += [value_column(name, kind) for name, kind in self._values if kind == "string"]
        self._kept_texts = np.array([k for k, name in enumerate(self._texts) if name != "event"])
        self._whole = list(self._whole_columns())
        self._consents = {f"event_consent_{purpose}": f"says_{purpose}" for purpose in plan.purposes}
        self._moments = [
            [column for column, *_ in self._whole].index(name) for name in ("stated_received_at", "occurred_at")
        ]
        self._numbers = [name for name, kind in self._values if kind == "number"]
        self._names = scan.names_table(list(self._all_names()))
        self._targets = self._make_targets()
        self._shapes = scan.no_shapes(_MOST_SHAPES, len(self._paths) + 2)
        self._sound, self._judged = np.zeros(_MOST_SHAPES, dtype=bool), 0
        self._columns = self._room(0)
        self.schema = self._make_schema()

    def read(self, lines: pa.Table) -> Read:
        """Read a batch (reader.BATCH_SCHEMA), block by block."""
        plain: list[pa.RecordBatch] = []
        others, count = [], 0
        for block in lines.to_batches():
            if block.num_rows:
                rows, columns, octets = self._scan(block)
                taken = np.zeros(block.num_rows, dtype=bool)
                taken[rows] = True
                plain.append(self._arrow(block, rows, columns, octets, count))
                others.append(block.filter(pa.array(~taken)))
                count += len(rows)
        return Read(
            pa.Table.from_batches(plain, schema=self.schema), pa.Table.from_batches(others, schema=lines.schema)
        )

    def _all_names(self) -> Iterator[tuple[int, str, int]]:
        for number, path in enumerate(self._paths):
            head, _, tail = path.removeprefix("$.").partition(".")
            yield (_LEVELS[head], tail, number) if tail else (scan.TOP, head, number)
        for number, event in enumerate(self._events):
            yield scan.EVENTS, event, number

    def _whole_columns(self) -> Iterator[tuple[str, int, str]]:
        """Column, row of `targets` and path of everything that is kept as whole numbers."""
        for name, column in _TIMES.items():
            yield column, scan.TO_TIME, f"$.{name}"
        for purpose in self.plan.purposes:
            yield f"event_consent_{purpose}", scan.TO_BOOLEAN, f"$.consent.{purpose}"
        for name, kind in self._values:
            if kind in _WHOLE:
                yield value_column(name, kind), _WHOLE[kind], f"$.properties.{name}"

    def _make_targets(self) -> np.ndarray:
        targets = np.full((scan.TO_BOOLEAN + 1, len(self._paths)), -1, dtype=np.int32)
        at = {path: number for number, path in enumerate(self._paths)}
        for path, level in _LEVELS.items():
            targets[scan.INSIDE, at[f"$.{path}"]] = level
        for number, column in enumerate(self._texts):
            targets[scan.TO_TEXT, at[_path_of_text(column)]] = number
        for number, (_, kind, path) in enumerate(self._whole):
            targets[kind, at[path]] = number
        for number, name in enumerate(self._numbers):
            targets[scan.TO_NUMBER, at[f"$.properties.{name}"]] = number
        return targets

    def _make_schema(self) -> pa.Schema:
        fields = [("plain_no", pa.int32()), ("file_no", pa.int32()), ("line_no", pa.int64())]
        fields += [("event", pa.dictionary(pa.int32(), pa.string()))]
        fields += [(name, pa.string()) for name in ("event_id", *ENVELOPE_STRINGS, *CONTEXT_KEYS)]
        fields += [(column, _MOMENT) for column in _TIMES.values()]
        for purpose in self.plan.purposes:
            fields += [(f"says_{purpose}", pa.bool_()), (f"event_consent_{purpose}", pa.bool_())]
        fields += [("asked_else", pa.bool_())]
        fields += [(value_column(name, kind), _ARROW_TYPES[kind]) for name, kind in self._values]
        return pa.schema(fields)

    def _room(self, lines: int) -> scan.Columns:
        """Columns are used again for the next block: fresh memory costs more than filling it."""
        return scan.columns_for(lines, len(self._texts), len(self._whole), len(self._numbers))

    def _scan(self, block: pa.RecordBatch) -> tuple[np.ndarray, scan.Columns, np.ndarray]:
        """Rows of a block that are plain and as declared, their columns, and the block's bytes."""
        line = block.column("line")
        _, offsets, octets = line.buffers()
        ends = np.frombuffer(offsets, dtype=np.int32)[line.offset : line.offset + len(line) + 1]
        text = np.frombuffer(octets, dtype=np.uint8)
        text.flags.writeable = False  # as it is for most blocks: the pass is compiled for each kind of array (8 s)
        if len(self._columns.shape) < len(line):
            self._columns = self._room(len(line))
        columns = self._columns
        usable = block.column("rendering").is_null().to_numpy(zero_copy_only=False)
        scan.read_lines(text, ends, usable, self._event_path, self._names, self._targets, self._shapes, columns)
        self._judge_new_shapes()
        shape = columns.shape[: len(line)]
        known = (shape >= 0) & (columns.length[self._ids, : len(line)].max(axis=0) <= MOST_ID_LENGTH)
        rows = np.flatnonzero(known & self._sound[np.where(known, shape, 0)])
        return rows[self._order(rows)], columns, text

    def _order(self, rows: np.ndarray) -> np.ndarray:
        """Lines of one file of the lake side by side: writing it is then a slice."""
        (stated, occurred), there = self._columns.values[self._moments, :][:, rows], self._columns.there
        received = np.where(there[self._moments[0]][rows], stated, occurred)
        days = received // _MICROSECONDS_A_DAY + 2**31
        return np.argsort((self._columns.event[rows].astype(np.int64) << 32) + days, kind="stable")

    def _judge_new_shapes(self) -> None:
        for number in range(self._judged, int(self._shapes.met[0])):
            self._sound[number] = self._is_sound(self._shapes.types[number])
            self._judged = number + 1

    def _is_sound(self, types: np.ndarray) -> bool:
        """Whether a shape is as declared. Unknown keys never come here: a line that has one is not plain."""
        kinds = dict(zip(self._paths, (_JSON_TYPES[t] for t in types[:-2]), strict=True))
        said = {kinds[f"$.consent.{purpose}"] for purpose in self.plan.purposes}
        if kinds["$.consent"] not in (None, "NULL", "OBJECT") or said - {None, "NULL", "BOOLEAN"}:
            return False
        keys = sum(kinds[f"$.{name}"] is not None for name in ENVELOPE)
        inner = sum(kinds[f"$.properties.{name}"] is not None for name in declared_properties(self.plan))
        event = self._events[types[-2]]
        return not structural_reasons(Shape(event, list(kinds.values()), keys, inner), self.plan)

    def _arrow(
        self, block: pa.RecordBatch, rows: np.ndarray, c: scan.Columns, octets: np.ndarray, first: int
    ) -> pa.RecordBatch:
        """The chosen rows of a block in the order of `schema`, numbered from `first`."""
        made: dict[str, pa.Array] = {name: block.column(name).take(pa.array(rows)) for name in ("file_no", "line_no")}
        made["plain_no"] = pa.array(np.arange(first, first + len(rows), dtype=np.int32))
        made["event"] = pa.DictionaryArray.from_arrays(pa.array(c.event[rows]), pa.array(self._events, pa.string()))
        made["asked_else"] = pa.array(self._shapes.types[c.shape[rows], -1] > 0)
        made |= self._strings(octets, rows, c) | self._whole_values(rows, c) | self._number_values(rows, c)
        return pa.RecordBatch.from_arrays([made[name] for name in self.schema.names], schema=self.schema)

    def _strings(self, octets: np.ndarray, rows: np.ndarray, c: scan.Columns) -> dict[str, pa.Array]:
        offsets, there, nulls, places, texts = scan.texts_of(octets, rows, self._kept_texts, c.start, c.length)
        buffer, made = pa.py_buffer(texts), {}
        for k, column in enumerate(self._kept_texts.tolist()):
            begin, end = places[k].tolist()
            texts_of_column = buffer.slice(begin, end - begin)
            made[self._texts[column]] = _array(
                pa.string(), len(rows), there[k], int(nulls[k]), offsets[k], texts_of_column
            )
        return made

    def _whole_values(self, rows: np.ndarray, c: scan.Columns) -> dict[str, pa.Array]:
        """Times, whole numbers, money, yes and no. Of a consent, whether it was said is a column of its own."""
        values, there, true, nulls = scan.numbers_of(rows, c.values, c.there)
        made = {}
        for k, (column, kind, _) in enumerate(self._whole):
            if (says := self._consents.get(column)) is not None:
                made[says] = _array(pa.bool_(), len(rows), there[k], 0, there[k])
                made[column] = _array(pa.bool_(), len(rows), there[k], 0, true[k])
            elif kind == scan.TO_MONEY:
                made[column] = _array(_ARROW_TYPES["money"], len(rows), there[k], int(nulls[k]), _halves(values[k]))
            else:
                data = true[k] if kind == scan.TO_BOOLEAN else values[k]
                made[column] = _array(self.schema.field(column).type, len(rows), there[k], int(nulls[k]), data)
        return made

    def _number_values(self, rows: np.ndarray, c: scan.Columns) -> dict[str, pa.Array]:
        """Doubles, which are moved as the 64 bits that they are."""
        values, there, _, nulls = scan.numbers_of(rows, c.numbers.view(np.int64), c.has_number)
        return {
            value_column(name, "number"): _array(pa.float64(), len(rows), there[k], int(nulls[k]), values[k])
            for k, name in enumerate(self._numbers)
        }


def _path_of_text(column: str) -> str:
    if column in CONTEXT_KEYS:
        return f"$.context.{column}"
    return f"$.{column}" if column in ENVELOPE else f"$.properties.{column.removeprefix('p_').removesuffix('_string')}"


def _array(kind: pa.DataType, rows: int, there: np.ndarray, nulls: int, *data: np.ndarray | pa.Buffer) -> pa.Array:
    """An array from its buffers; there: the bitmap of what is no null."""
    if nulls and nulls == rows:
        return pa.nulls(rows, kind)
    bitmap = pa.py_buffer(there) if nulls else None
    return pa.Array.from_buffers(kind, rows, [bitmap, *map(pa.py_buffer, data)], nulls)


def _halves(scaled: np.ndarray) -> np.ndarray:
    """Ten-thousandths as DECIMAL(18, 4): 128 bits a value, low half first."""
    return np.stack((scaled, scaled >> 63), axis=1)
