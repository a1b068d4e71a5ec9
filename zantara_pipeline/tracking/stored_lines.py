"""Quarantined lines, read and written a bounded part at a time: one payload may have 50 MB, and 50,000 of them may lie there.

The engine reads 2,048 rows at once, and needs five times the memory of a text that it writes. So it is asked which rows
are meant; their payloads are read, and written again, past it.

A file of ours holds 52 MB of payloads at most, or one line that is longer (what batch.py held when it was written): a row
group is read whole. One that is larger than that, from elsewhere, is read row by row.

Belongs here: reading and writing such files in parts. Does not belong here: which lines, and what becomes of them
(replay.py, removal.py, quarantine_erasure.py, key_rotation.py, quarantine.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zantara_pipeline.tracking.sql_checks import quote

PAYLOAD = "payload_raw"
PART_LINES = 50_000
PART_BYTES = 32 * 2**20
"""As large as a batch of ingest."""
_LARGEST_GROUP = 2 * PART_BYTES


def chosen_rows(con: duckdb.DuckDBPyConnection, files: Sequence[Path], chosen: str) -> list[tuple[Path, np.ndarray]]:
    """Which rows of some files are meant: a file and the numbers of its rows, for those that have any.

    chosen : SQL over a quarantine row.
    """
    if not files:
        return []
    names = ", ".join(quote(str(path)) for path in files)
    source = (
        f"read_parquet([{names}], filename = true, file_row_number = true, union_by_name = true, hive_partitioning = true, "
        "hive_types = {'received_date': DATE})"
    )
    found = con.sql(
        f"SELECT filename, list(file_row_number ORDER BY file_row_number) AS rows FROM {source} WHERE {chosen} "
        "GROUP BY filename ORDER BY filename"
    ).to_arrow_table()
    numbers = (rows.values.to_numpy() for rows in found["rows"])
    return list(zip(map(Path, found["filename"].to_pylist()), numbers, strict=True))


def read_rows(path: Path, rows: np.ndarray | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Some rows of one file (None: all), as its row groups come."""
    with pq.ParquetFile(path) as file:
        first = 0
        for number in range(file.num_row_groups):
            count = file.metadata.row_group(number).num_rows
            if rows is None or np.searchsorted(rows, first) < np.searchsorted(rows, first + count):
                for table in _read_group(file, number, columns):
                    if rows is not None:
                        wanted = rows[(rows >= first) & (rows < first + len(table))] - first
                        first += len(table)
                        table = table if len(wanted) == len(table) else table.take(wanted)
                    if len(table):
                        yield table
            else:
                first += count


def _read_group(file: pq.ParquetFile, number: int, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    names = None if columns is None else list(columns)
    group = file.metadata.row_group(number)
    places = [group.column(n) for n in range(group.num_columns)]
    size = sum(place.total_uncompressed_size for place in places if place.path_in_schema == PAYLOAD)
    if size <= _LARGEST_GROUP or group.num_rows == 1:
        yield file.read_row_group(number, columns=names, use_threads=False)
        return
    for row in file.iter_batches(1, row_groups=[number], columns=names, use_threads=False):
        yield pa.Table.from_batches([row])


def parts(tables: Iterable[pa.Table], *, lines: int | None = None, size: int | None = None) -> Iterator[pa.Table]:
    """The same rows in tables of at most so many lines and bytes of payloads; a longer line is alone."""
    lines, size = lines or PART_LINES, size or PART_BYTES
    held, held_lines, held_bytes = list[pa.Table](), 0, 0
    for table in tables:
        ends = np.cumsum(pc.fill_null(pc.binary_length(table[PAYLOAD]), 0).to_numpy(), dtype=np.int64)
        start = 0
        while start < len(table):
            before = int(ends[start - 1]) if start else 0
            fitting = int(np.searchsorted(ends, before + size - held_bytes, side="right"))
            end = min(fitting, start + lines - held_lines)
            if end > start or not held:
                end = max(end, start + 1)
                held.append(table.slice(start, end - start))
                held_lines, held_bytes = held_lines + end - start, held_bytes + int(ends[end - 1]) - before
                start = end
            if start < len(table):
                yield _together(held)
                held_lines, held_bytes = 0, 0
        del table
    if held:
        yield _together(held)


def _together(held: list[pa.Table]) -> pa.Table:
    """One block of each column; what was held is given back."""
    table = held[0] if len(held) == 1 else pa.concat_tables(held, promote_options="default").combine_chunks()
    held.clear()
    return table


def write_parts(tables: Iterable[pa.Table], target: Path) -> None:
    """A file of some tables, a row group each; without any, none. Payloads have neither a dictionary nor minimum and maximum,
    which would hold them again."""
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            if writer is None:
                target.parent.mkdir(parents=True, exist_ok=True)
                others = [name for name in table.column_names if name != PAYLOAD]
                writer = pq.ParquetWriter(
                    target, table.schema, use_dictionary=others, write_statistics=others, store_schema=False
                )
            writer.write_table(table)
            del table
    finally:
        if writer is not None:
            writer.close()
