"""An erasure of a hundred people in one batch touches the files that hold one of them, and no other.

A made shop of six days: the hundred come on the first three, in some of their files only; everybody else comes on all.
Who stands in a file is read here by the readers of Python, Arrow, DuckDB and SQLite, as text.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from event_lines import Shop, event
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app

GONE = [f"gone-{number}" for number in range(100)]
STAY = [f"stay-{number}" for number in range(60)]
DAYS, WITH_GONE = 6, 3

# Files that an erasure changes whether they name anybody or not, and why.
NECESSARY = {
    "data/state/ledger.db": "takes the tombstones, the commit and the moved counts, and is vacuumed",
    "data/warehouse.duckdb": "dropped: whom its deleted rows named cannot be asked of its tables",
}
# Files that an erasure makes beside those that it writes again.
NEW = ("data/state/erasure.key", "data/receipts/", "data/home.lock")


def at(day: int, number: int) -> dict[str, str]:
    when = f"2026-03-{day + 1:02}T{number % 24:02}:00"
    return {"timestamp": f"{when}:00Z", "received_at": f"{when}:05Z"}


def lines_of(day: int, people: list[str], name: str) -> list[Any]:
    """For each person an event that is right, one that is not, one whose consent cannot be read."""
    found: list[Any] = []
    for number, user in enumerate(people):
        about = {"user_id": user, "anonymous_id": f"a-{user}", **at(day, number)}
        ids = [f"{name}-{day}-{user}-{which}" for which in range(3)]
        found += [event(name, {"product_id": "p-1"}, event_id=ids[0], **about)]
        found += [event(name, {"product_id": 1}, event_id=ids[1], **about)]
        found += [event(name, {"product_id": "p-1"}, event_id=ids[2], consent="perhaps", **about)]
        found += [f"no JSON: {user}"]
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "home")
    for day in range(DAYS):
        gone = GONE[day::WITH_GONE] if day < WITH_GONE else []
        shop.land(f"{day}-views.jsonl", lines_of(day, STAY[day::DAYS] + gone, "product_view"))
        shop.land(f"{day}-carts.jsonl.gz", lines_of(day, STAY[day::DAYS], "add_to_cart"))
        if day in (WITH_GONE - 1, DAYS - 1):
            shop.ingest()  # restricted lines lie in a file a commit
    (shop.home.landing / "items").mkdir()
    (shop.home.landing / "items" / "items.csv").write_text("product_id,title\np-1,A chair\n")
    shop.consent(*((user, "analytics", "granted", "2026-01-01T00:00:00Z") for user in GONE + STAY))
    for path, people in ((shop.home.warehouse, STAY), (shop.home.published, STAY)):
        with closing(duckdb.connect(str(path))) as con:
            con.execute(
                "CREATE SCHEMA core; CREATE TABLE core.users AS SELECT unnest(?::VARCHAR[]) AS user_id", [people]
            )
    return shop


@dataclass(frozen=True)
class File:
    inode: int
    changed_ns: int
    sha256: str
    named: frozenset[str]


def read(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pq.read_table(path, partitioning=None).to_pylist())
    if path.suffix == ".duckdb":
        with closing(duckdb.connect(str(path), read_only=True)) as con:
            tables = con.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
            return str([con.execute(f'FROM "{schema}"."{table}"').fetchall() for schema, table in tables])
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as db:
            return "\n".join(db.iterdump())
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("latin-1")


def files(shop: Shop) -> dict[str, File]:
    found = {}
    for path in sorted(path for path in shop.home.root.rglob("*") if path.is_file()):
        if path.name.endswith(("-wal", "-shm")):  # SQLite's own, which come and go with a connection
            continue
        named = frozenset(re.findall(r"gone-\d+", read(path)))
        stat = path.stat()
        name = path.relative_to(shop.home.root).as_posix()
        found[name] = File(stat.st_ino, stat.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest(), named)
    return found


def test_a_hundred_people_leave_every_other_file_as_it_is(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(shop)
    holding = {name for name, file in before.items() if file.named}
    assert set().union(*(file.named for file in before.values())) == set(GONE)
    for store in (
        "landing/events",
        "lake/accepted",
        "lake/quarantine",
        "restricted/unparsable",
        "restricted/consent_unreadable",
    ):
        inside = {name for name in before if name.startswith(f"data/{store}/")}
        assert inside & holding and inside - holding, store

    (tmp_path / "ids.txt").write_text("\n".join(GONE))
    monkeypatch.setenv("ZANTARA_HOME", str(shop.home.root))
    done = CliRunner().invoke(app, ["privacy", "erase", "--file", str(tmp_path / "ids.txt")])
    assert done.exit_code == 0 and "(complete)" in done.stdout and "100 people" in done.stdout

    after = files(shop)
    assert not any(file.named for file in after.values())
    untouched = {name for name, file in before.items() if after.get(name) == file}
    assert untouched == before.keys() - holding - NECESSARY.keys(), "files that hold nobody are the same, and only they"
    made = after.keys() - before.keys()
    rewritten = {name.rpartition("/")[0] for name in holding}
    assert {name for name in made if not name.startswith(NEW) and name.rpartition("/")[0] not in rewritten} == set()
    assert len([name for name in made if not name.startswith(NEW)]) <= len(holding)
