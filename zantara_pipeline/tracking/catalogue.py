"""The catalogue of items: a landed CSV into the lake, replaced whole.

Belongs here: reading items files and their known columns. Does not belong here: merging with events (core.products).
"""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.sources import ITEM_COLUMNS
from zantara_pipeline.tracking.sql_checks import quote

# Shops name one thing differently; the first of these that a file has is taken.
_ALIASES = {"category": ("category", "category_code", "genres"), "provider": ("provider", "seller", "vendor")}


def items_files(place: Path) -> list[Path]:
    """The items file, or every .csv / .csv.gz of a folder; none is fine."""
    if place.is_file():
        return [place]
    return sorted(p for p in place.glob("*.csv*") if p.name.endswith((".csv", ".csv.gz"))) if place.is_dir() else []


def load_catalogue(home: Home, files: list[Path], *, threads: int, memory_limit: str) -> int:
    """Write lake/items from CSV files with a product_id column; returns the number of products.

    Later files win over earlier ones for the same product. Without files the catalogue stays as it is.

    Raises
    ------
    InputError : a file without product_id, or one that is not a CSV.
    """
    if not files:
        return 0
    con = open_engine(None, home, threads=threads, memory_limit=memory_limit)
    try:
        parts = [_select(con, path, number) for number, path in enumerate(files)]
        home.catalogue.parent.mkdir(parents=True, exist_ok=True)
        beside = home.catalogue.with_suffix(".new")
        query = (
            f"SELECT * EXCLUDE (file_no, line_no) FROM ({' UNION ALL '.join(parts)}) WHERE product_id IS NOT NULL AND product_id <> '' "
            "QUALIFY row_number() OVER (PARTITION BY product_id ORDER BY file_no DESC, line_no DESC) = 1 ORDER BY product_id"
        )
        try:
            con.execute(f"COPY ({query}) TO {quote(str(beside))} (FORMAT parquet)")
        except duckdb.InvalidInputException as error:  # a line beyond those that the engine looked at first
            raise _unreadable(error, files) from None
        beside.replace(home.catalogue)
        return int(con.execute(f"SELECT count(*) FROM {quote(str(home.catalogue))}").fetchall()[0][0])
    finally:
        con.close()


def _select(con: duckdb.DuckDBPyConnection, path: Path, number: int) -> str:
    source = f"read_csv({quote(str(path))}, header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"', strict_mode = false)"
    try:
        header = [row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    except duckdb.Error as error:
        raise _unreadable(error, [path]) from None
    if "product_id" not in header:
        raise InputError("no column product_id", f"{path}:1", "name the column of the items' ids product_id")
    columns = []
    for name, kind in ITEM_COLUMNS.items():
        found = next((alias for alias in _ALIASES.get(name, (name,)) if alias in header), None)
        columns.append(f"NULL::{kind} AS {name}" if found is None else f'try_cast("{found}" AS {kind}) AS {name}')
    return f"SELECT {', '.join(columns)}, {number} AS file_no, row_number() OVER () AS line_no FROM {source}"


def _unreadable(error: duckdb.Error, files: list[Path]) -> InputError:
    """The engine's complaint as one line that names the file and, where it is known, the line; never the values."""
    path = next((path for path in files if str(path) in str(error)), files[0])
    line = re.search(r"on Line: (\d+)", str(error))
    where = f"{path}:{line.group(1)}" if line else path
    return InputError(
        "not a readable CSV file", where, "write a header line with product_id and one item a line, in UTF-8"
    )
