"""Erasure of people from the quarantine: every line that names one of some ids is removed.

A quarantined line is what a sender got wrong, so an id may stand anywhere in it: under the envelope's key or a misspelt
one, in a property, as a number where text belongs, as a key. Every text and number of the payload is compared, at any
depth, keys that stand twice included; whole values only (an id inside a longer text is not seen). Payloads are read as
tokens and not as a tree: no depth or repeated key hides one.

Belongs here: finding the lines of ids, and taking them out. Does not belong here: the other stores (storage/inventory.py
lists them), how lines are taken out (removal.py).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.keyed_hash import Keyring
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.commits import recover
from zantara_pipeline.tracking.removal import files_with, naming_damaged_files, take_out
from zantara_pipeline.tracking.stored_lines import PAYLOAD, parts, read_rows
from zantara_pipeline.tracking.unclear_users import TEXT_OR_NUMBER

MEMORY = "300MB"


def erase_quarantined(home: Home, ledger: Ledger, ids: Collection[str], keyring: Keyring | None = None) -> int:
    """Remove every quarantined line that names one of these user, anonymous or device ids; returns how many.

    With a keyring also e-mail addresses and the like, which stand there as tokens.

    The counts of the landed files and the reasons stay (they hold codes, declared paths and names in the form of a
    program's, key_names.py), and the ledger keeps that lines were removed, not whose. May be done again;
    killed, it is finished by the next ingest, replay or erasure, or never was.
    """
    recover(home, ledger)
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        hashed = {token for value in ids for token in keyring.tokens(value)} if keyring else set[str]()
        with naming_damaged_files(home):
            found = _find(con, home, {*ids, *hashed})
        if not found:
            return 0
        files = files_with(con, home, _FOUND)
        return take_out(con, home, ledger, files, _FOUND, "erasure", _record)
    finally:
        con.close()


def names_one_of(payload: str, ids: Collection[str]) -> bool:
    """Whether a line of JSON holds one of these ids as a whole text, key or number."""
    for token in TEXT_OR_NUMBER.finditer(payload):
        text, number = token.groups()
        if number is not None:
            found = number.removesuffix(".0")  # 17.0 is what a data frame makes of the id 17 where others are missing
        else:
            found = json.loads(f'"{text}"', strict=False) if "\\" in text else text
        if found in ids:
            return True
    return False


# `of_` in the names: they must not mean the columns of the quarantine's row inside the subquery.
_FOUND = "(source, line_no) IN (SELECT (of_source, of_line) FROM found)"


def _find(con: duckdb.DuckDBPyConnection, home: Home, ids: Collection[str]) -> int:
    """Makes the table `found` of the lines' places; returns their number."""
    con.execute("CREATE TEMP TABLE found (of_source VARCHAR, of_line BIGINT)")
    if not any(home.quarantine.glob("*/*.parquet")):
        return 0
    number = 0
    for sources, lines in _matching(home, ids):
        con.register("arrow_found", pa.table({"s": pa.array(sources, pa.string()), "l": pa.array(lines, pa.int64())}))
        con.execute("INSERT INTO found SELECT * FROM arrow_found")
        con.unregister("arrow_found")
        number += len(sources)
    return number


def _matching(home: Home, ids: Collection[str]) -> Iterator[tuple[list[str], list[int]]]:
    columns = ("source", "line_no", "event_id", PAYLOAD)
    files = sorted(home.quarantine.glob("*/*.parquet"))
    for lines in parts(rows for path in files for rows in read_rows(path, columns=columns)):
        rows = zip(*(lines[name].to_pylist() for name in columns), strict=True)
        found = [(s, n) for s, n, event_id, text in rows if event_id in ids or (text and names_one_of(text, ids))]
        if found:
            yield [source for source, _ in found], [line for _, line in found]


def _record(db: sqlite3.Connection, erasure_id: str, rows: int) -> None:
    db.execute(
        "INSERT OR REPLACE INTO quarantine_erasures VALUES (?, ?, ?)", [erasure_id, utc_text(datetime.now(UTC)), rows]
    )
