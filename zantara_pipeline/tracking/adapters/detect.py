"""Which format a landed file has: found by its first lines, or given and held against them.

A wrong guess would be a mess that nobody sees: every line suppressed for want of a consent that stands elsewhere. So what
is given must fit, and what fits two formats is refused.

Belongs here: looking at first lines, and refusing. Does not belong here: reading the rest (stream.py).
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import EventFormat
from zantara_pipeline.storage.text_rows import split
from zantara_pipeline.tracking.adapters import csv_rows, ga4, segment, snowplow
from zantara_pipeline.tracking.adapters.contract import AdaptersContract, load_adapters
from zantara_pipeline.tracking.adapters.layouts import refuse_other_layouts
from zantara_pipeline.tracking.adapters.stream import Adaptation, read_object
from zantara_pipeline.tracking.plan import TrackingPlan

# Twenty lines tell formats apart; a line may be long, but not so long that looking costs more than reading.
LOOK_LINES, LOOK_BYTES = 20, 2**20
NAMES: dict[str, str] = {
    "envelope": "the envelope",
    "segment": "Segment or RudderStack JSON",
    "snowplow": "Snowplow enriched events",
    "ga4": "a GA4 BigQuery export",
    "csv": "a CSV of events",
}
_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_LEDGER = {"user_id", "purpose", "status", "effective_from"}


class NotEvents(InputError):
    """A table that is plainly something else (a catalogue, a consent ledger): it is left where it is."""


@dataclass(frozen=True)
class Intake:
    """How landed files are read: the format given, the contract of adapters, and the plan that types are taken from."""

    given: EventFormat
    contract: AdaptersContract
    plan: TrackingPlan

    def look(self, path: Path) -> Adaptation | None:
        """How to adapt a file; None where it holds our envelope already.

        Raises
        ------
        InputError : its first lines are of another format than given, or of several, or no lines; NotEvents for other tables.
        """
        block = _first_block(path)
        lines = _whole_lines(block)
        _refuse_other_shapes(path, lines)
        refuse_other_layouts(path, block, lines)
        found = Counter(kind for line in lines if (kind := format_of(line)) is not None)
        if "csv" not in found and lines and self._csv_problem(lines[0]) is None:
            found = Counter(csv=1)
        format = self._chosen(path, lines, found)
        return None if format == "envelope" else Adaptation(format, self.contract, self.plan)

    def nothing_to_adapt(self, path: Path) -> InputError:
        """Why a file that `look` leaves as it is gives an adapter nothing to do."""
        lines = _whole_lines(_first_block(path))
        if not lines:
            return InputError("it is empty, or damaged from its start", path, "name a file of events")
        if any(format_of(line) == "envelope" for line in lines):
            what = "nothing to adapt: these are lines of the envelope already"
            return InputError(what, path, "validate and run take it as it is")
        what = f"no format of events is known by its first lines (known: {', '.join(NAMES)})"
        return InputError(what, path, _advice(lines, "check the file, or give its --format"))

    def _chosen(self, path: Path, lines: Sequence[bytes], found: Counter[str]) -> str:
        if len(found) > 1:
            both = " and like ".join(NAMES[name] for name in sorted(found))
            raise InputError(f"its first lines look like {both}", path, "split it into files of one format")
        only = next(iter(found), None)
        if self.given != "auto":
            return self._as_given(path, lines, only)
        if only is None and lines and path.name.endswith(_TABLES):
            self._refuse_table(path, lines[0])
        return only or "envelope"

    def _as_given(self, path: Path, lines: Sequence[bytes], only: str | None) -> str:
        given = self.given
        if only not in (None, given):
            todo = f"give --format {only}, or auto"
            raise InputError(f"its first lines look like {NAMES[str(only)]}, not like {NAMES[given]}", path, todo)
        if only is None and lines and given == "csv":
            what = f"its header is none of events: {self._csv_problem(lines[0])}"
            raise InputError(what, path, _advice(lines, self._columns_advice(lines[0])))
        if only is None and lines and given != "envelope":
            what = f"none of its first lines is one of {NAMES[given]}"
            raise InputError(what, path, _advice(lines, "check the file, or give another --format"))
        return given

    def _refuse_table(self, path: Path, first: bytes) -> None:
        header = set(split(first, self.contract.csv.delimiter) or ())
        if header >= _LEDGER or ("product_id" in header and not header & set(csv_rows.NEEDED)):
            raise NotEvents("a catalogue or a consent ledger by its header; no events are read from it", path)
        what = f"neither Snowplow's {len(snowplow.COLUMNS)} columns nor a header of events: {self._csv_problem(first)}"
        raise InputError(what, path, _advice([first], self._columns_advice(first)))

    def _columns_advice(self, first: bytes) -> str:
        """A header of a single cell that holds another separator is cut wrongly; else its columns bear other names."""
        header = split(first, self.contract.csv.delimiter) or ()
        other = len(header) == 1 and any(mark in header[0] for mark in ",;\t|")
        return "set csv.delimiter in adapters.yaml to what stands between its cells" if other else _MAP_COLUMNS

    def _csv_problem(self, first: bytes) -> str | None:
        """Why a first line is no header of events; JSON is none."""
        header = split(first, self.contract.csv.delimiter)
        if header is None or first.lstrip().startswith((b"{", b"[")):
            return "not a line of a CSV"
        return csv_rows.header_problem(header, self.contract.csv, self.plan.privacy)


_ARRAY = "it begins with a JSON array; write one event a line (jq -c '.[]')"
_MAP_COLUMNS = "name the columns in adapters.yaml (csv.columns), or correct the file"


@dataclass(frozen=True)
class _Shape:
    """What Segment and RudderStack write elsewhere than in a file of messages: every line of it would be suppressed."""

    holds: Callable[[dict[str, Any]], bool]
    name: str
    about: str
    todo: str


_OTHER_SHAPES = (
    _Shape(
        segment.is_batch,
        "requests to the batch API of Segment or RudderStack",
        ", several messages each",
        "write one message a line (jq -c '.batch[]')",
    ),
    _Shape(
        segment.is_warehouse_row,
        "rows of the warehouse tables of Segment or RudderStack",
        ", which name their columns otherwise",
        "export the messages as the tracking API has them, or write the rows as CSV and name the columns in adapters.yaml",
    ),
)


def _refuse_other_shapes(path: Path, lines: Sequence[bytes]) -> None:
    records = [record for line in lines if (record := _object_of(line)) is not None]
    for shape in _OTHER_SHAPES:
        if any(map(shape.holds, records)):
            raise InputError(f"its first lines are {shape.name}{shape.about}", path, shape.todo)


def _advice(lines: Sequence[bytes], otherwise: str) -> str:
    """What to do about lines of no known format; arrays are the most usual of them."""
    return _ARRAY if lines[0].lstrip().startswith(b"[") else otherwise


def load_intake(given: EventFormat, dirs: Sequence[Path], plan: TrackingPlan) -> Intake:
    """The intake of a run.

    Raises
    ------
    InputError : as `load_adapters`.
    """
    return Intake(given, load_adapters(dirs, plan.privacy), plan)


def format_of(line: bytes) -> str | None:
    """The format of one line, if it is any of those that say so in each line."""
    try:
        if snowplow.from_tsv(line.decode("utf-8")) is not None:
            return "snowplow"
    except ValueError:
        return None
    record = _object_of(line)
    return None if record is None else _kind_of(record)


MARKS = (*segment.MARKS, *snowplow.MARKS, *ga4.MARKS)
"""Each object of another tool has one of these keys."""


def other_tool(line: bytes) -> str | None:
    """What a line of another tool looks like, in words; None for our own lines, and for what is nothing known."""
    record = _object_of(line)
    for shape in _OTHER_SHAPES:  # first: a row of a warehouse has an event and a timestamp too
        if record is not None and shape.holds(record):
            return shape.name
    kind = format_of(line)
    return None if kind in (None, "envelope") else NAMES[str(kind)]


def _object_of(line: bytes) -> dict[str, Any] | None:
    try:
        return read_object(line.decode("utf-8"))[0]
    except (ValueError, ArithmeticError, RecursionError):
        return None


def _kind_of(record: dict[str, Any]) -> str | None:
    if snowplow.is_record(record):
        return "snowplow"
    if ga4.is_record(record):
        return "ga4"
    if segment.is_record(record):
        return "segment"
    return "envelope" if "event" in record and ("event_id" in record or "timestamp" in record) else None


def _first_block(path: Path) -> bytes:
    """The first bytes, without a byte order mark of UTF-8. A damaged .gz has none: who reads it whole says what is wrong."""
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as handle:
            return handle.read(LOOK_BYTES).removeprefix(codecs.BOM_UTF8)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""


def _whole_lines(block: bytes) -> list[bytes]:
    """Up to LOOK_LINES lines that are not blank; a last one that is cut off by LOOK_BYTES is left out."""
    lines = block.split(b"\n")
    if len(block) >= LOOK_BYTES - len(codecs.BOM_UTF8):
        lines.pop()
    return [line for line in lines if line.strip()][:LOOK_LINES]
