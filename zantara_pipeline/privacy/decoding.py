"""The proof of an erasure: every file of a home is decoded, whatever its format, and searched for people.

A search of raw bytes proves nothing: of 50 ids that stood there, 2 were found in Snappy Parquet, 1 in zstd, none in gzip
and 39 in a DuckDB file. So each format is read as its readers read it: Parquet and DuckDB column by column (nested values
too), SQLite cell by cell, NumPy archives, the strings of pickles (never loaded), gzip, JSON with its escapes, tables of
text by their header, and everything else as text. A file of lines is what its first line says, whatever it is called.

It shares the comparison of values (people.py) and the cutting of text into rows with what erases, and nothing else: no
query, no list of tables or columns.

Belongs here: decoding and counting. Does not belong here: erasing, and what a hit means for an erasure (erasure.py).
"""

from __future__ import annotations

import codecs
import gzip
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zantara_pipeline.privacy.people import Matcher, People, names_columns
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.inventory import EXPORTS, store_of
from zantara_pipeline.storage.text_rows import cut, split

BATCH_ROWS = 65_536
_SQLITE = b"SQLite format 3\0"
_OF_LINES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
# The enricher of Snowplow writes no header. By its documentation the columns with these numbers hold ids of people.
_SNOWPLOW_COLUMNS = 131
_SNOWPLOW = {12: "user_id", 15: "domain_userid", 17: "network_userid", 120: "refr_domain_userid"}
_ARROW_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
UNEXPLAINED = "(no store explains it)"


@dataclass
class Found:
    """What was found in one store: values or lines that name somebody, the files that hold them, files no one can read."""

    hits: int = 0
    files: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def scan(home: Home, people: People, besides: Collection[Path] = ()) -> dict[str, Found]:
    """Search every file below data/ and mlflow/; store -> what was found there (paths below the home).

    In exports people are sought by their pseudonyms, too.

    besides : files that are left out, because they hold the request itself.
    """
    found: dict[str, Found] = defaultdict(Found)
    for path in _files(home, besides):
        relative = path.relative_to(home.root).as_posix()
        store = store_of(relative)
        place = found[store.name if store else UNEXPLAINED]
        try:
            hits = hits_in(path, people.matcher)
            if store is not None and store.name == EXPORTS:
                hits += hits_in(path, people.pseudonym_matcher)
        except FileNotFoundError:  # a log that rotated, a socket that closed
            continue
        except (
            OSError,
            EOFError,
            ValueError,
            zlib.error,
            pa.ArrowException,
            duckdb.Error,
            sqlite3.DatabaseError,
        ):
            place.unreadable.append(relative)
            continue
        if hits:
            place.hits += hits
            place.files.append(relative)
    return dict(found)


def _files(home: Home, besides: Collection[Path]) -> Iterator[Path]:
    for top in (home.data, home.mlflow):
        for path in sorted(top.rglob("*")):
            if path.is_file() and not path.is_symlink() and path not in besides:
                yield path


def hits_in(path: Path, matcher: Matcher) -> int:
    """How many values (of a typed file) or lines (of a text) name somebody."""
    decode = _DECODERS.get(path.suffix)
    if decode is not None:
        return decode(path, matcher)
    with path.open("rb") as handle:
        head = handle.read(len(_SQLITE))
    if head == _SQLITE:
        return _in_sqlite(path, matcher)
    if head[:4] == b"PAR1":
        return _in_parquet(path, matcher)
    return _in_text_file(path, matcher)


def _in_parquet(path: Path, matcher: Matcher) -> int:
    with pq.ParquetFile(path) as file:
        return sum(_in_batch(batch, path.stem, matcher) for batch in file.iter_batches(BATCH_ROWS))


def _in_duckdb(path: Path, matcher: Matcher) -> int:
    hits = 0
    with closing(duckdb.connect(str(path), read_only=True)) as con:
        tables = con.execute("SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
        for schema, table in tables:
            quoted = ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))
            with closing(con.cursor()) as cursor:
                for batch in cursor.sql(f"FROM {quoted}").to_arrow_reader(BATCH_ROWS):
                    hits += _in_batch(batch, table, matcher)
    return hits


def _in_batch(batch: pa.RecordBatch, table: str, matcher: Matcher) -> int:
    named = zip(batch.schema.names, batch.columns, strict=True)
    return sum(_in_column(column, f"{table}.{name}", matcher) for name, column in named)


def _in_column(column: pa.Array, name: str, matcher: Matcher) -> int:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_nested(kind):
        nested = (json.dumps(value, default=_text) for value in column.to_pylist() if value is not None)
        return sum(matcher.in_field(name, value) for value in nested)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return sum(matcher.in_text(_text(value)) for value in column.to_pylist() if value is not None)
    if not any(is_text(kind) for is_text in _ARROW_TEXT):
        return 0
    values = matcher.values_in(name, column)
    if not values:
        return 0
    return int(pc.sum(pc.is_in(column.cast(pa.string()), value_set=pa.array(values, pa.string()))).as_py())


def _in_sqlite(path: Path, matcher: Matcher) -> int:
    hits = 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            cursor = db.execute('SELECT * FROM "' + table.replace('"', '""') + '"')
            names = [f"{table}.{column[0]}" for column in cursor.description]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    if isinstance(value, (str, bytes)) and matcher.in_field(name, _text(value)):
                        hits += 1
    return hits


def _in_numpy(path: Path, matcher: Matcher) -> int:
    import numpy as np

    loaded = np.load(path, allow_pickle=False)
    arrays = {path.stem: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    texts = {name: array for name, array in arrays.items() if array.dtype.kind in "US"}
    return sum(
        matcher.in_field(name, _text(value)) for name, array in texts.items() for value in array.ravel().tolist()
    )


def _in_pickle(path: Path, matcher: Matcher) -> int:
    """The strings in it, by its operations; nothing of it is executed."""
    import pickletools

    arguments = (argument for _, argument, _ in pickletools.genops(path.read_bytes()))
    return sum(matcher.in_text(_text(a)) for a in arguments if isinstance(a, (str, bytes)))


def _in_gzip(path: Path, matcher: Matcher) -> int:
    with gzip.open(path, "rb") as handle:
        return _in_lines(handle, path.with_suffix("").suffix, matcher)


def _in_text_file(path: Path, matcher: Matcher) -> int:
    if path.suffix == ".json":  # one document, or one a line
        raw = path.read_bytes()
        if not matcher.may_be_in(raw):
            return 0
        text = raw.decode("utf-8-sig", "replace")
        if text.count("\n{") == 0 and text.lstrip()[:1] in ("{", "["):
            return int(matcher.in_text(text))
    with path.open("rb") as handle:
        return _in_lines(handle, path.suffix, matcher)


def _in_lines(handle: Iterable[bytes], suffix: str, matcher: Matcher) -> int:
    if suffix not in _OF_LINES:
        return sum(matcher.may_be_in(line) and matcher.in_text(line.decode("utf-8-sig", "replace")) for line in handle)
    lines = (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line for number, line in enumerate(handle))
    first = next((line for line in lines if line.strip()), b"")
    hits = int(_in_line(first, matcher))
    if _is_json(first) or first.count(b"\t") == _SNOWPLOW_COLUMNS - 1:
        return hits + sum(_in_line(line, matcher) for line in lines)
    delimiter = max(",;\t|", key=lambda mark: len(split(first, mark) or ()))
    header = split(first, delimiter) or []
    known = names_columns(header, matcher.fields)
    for row, cells in cut(lines, delimiter, len(header)):
        if cells and known and not _is_json(row[0]):
            hits += any(matcher.in_field(name, value) for name, value in zip(header, cells, strict=True))
        else:
            hits += sum(_in_line(line, matcher) for line in row)
    return hits


def _in_line(line: bytes, matcher: Matcher) -> bool:
    """A line that stands for itself: JSON, a row of the enricher of Snowplow, or nothing that anybody knows."""
    if not matcher.may_be_in(line):
        return False
    text = line.decode("utf-8", "replace")
    cells = text.split("\t")
    if len(cells) == _SNOWPLOW_COLUMNS:
        return any(matcher.in_field(_SNOWPLOW.get(number, ""), cell.strip()) for number, cell in enumerate(cells))
    return matcher.in_line(text)


def _is_json(line: bytes) -> bool:
    return line.lstrip()[:1] in (b"{", b"[")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


_DECODERS: dict[str, Callable[[Path, Matcher], int]] = {
    ".parquet": _in_parquet,
    ".duckdb": _in_duckdb,
    ".npz": _in_numpy,
    ".npy": _in_numpy,
    ".pkl": _in_pickle,
    ".pickle": _in_pickle,
    ".gz": _in_gzip,
}
