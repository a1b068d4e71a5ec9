"""What it costs to erase a hundred people in one batch, and what of the home it writes again: `make bench`, part "erase".

A simulated shop lands day by day and is ingested; no tables and no model, whose cost is a rebuild's. The hundred are those
who came last, so that most days hold none of them. Files that hold one are found by the search that proves an erasure,
before it begins.

Belongs here: that shop and those figures. Does not belong here: measuring a process (bench.py), asserting that no other
file is touched (tests/unit/privacy/test_erasure_rewrites_little.py).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.privacy.decoding import scan
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.adapters.contract import CsvRules
from zantara_pipeline.tracking.whose import whose

PEOPLE = 100
STORES = {"landing": "data/landing", "accepted events": "data/lake/accepted", "quarantine": "data/lake/quarantine"}
_LATEST = """
    SELECT user_id FROM read_parquet(?, union_by_name = true, hive_partitioning = false) WHERE user_id IS NOT NULL
    GROUP BY user_id ORDER BY min(received_at) DESC, user_id LIMIT ?
"""


def main(folder: Path, shop: Path, ingest: Callable[[Path, Path], Any], measure: Callable[..., Any]) -> None:
    """shop : landing files of a simulated shop; ingest : of a folder into a home; measure : a command to its end."""
    home = Home(folder / "home").create()
    shutil.copytree(shop / "events", home.landing / "events", dirs_exist_ok=True)
    taken = ingest(home.landing / "events", home.root)
    with closing(duckdb.connect()) as con:
        rows = con.execute(_LATEST, [str(home.accepted / "*" / "*" / "*.parquet"), PEOPLE]).fetchall()
    people = [row[0] for row in rows]
    found = scan(home, whose(home, people, CsvRules()))
    before = {store: _files(home.root / place) for store, place in STORES.items()}
    (folder / "ids.txt").write_text("\n".join(people))
    erase = [sys.executable, "-m", "zantara_pipeline.cli", "privacy", "erase", "--file", str(folder / "ids.txt")]
    erased = measure(erase, ZANTARA_HOME=str(home.root))
    lines = _lines(home)
    print(f"erasing {len(people)} people in one batch from {lines:,} lines (their ingest took {taken.wall:.1f} s):")
    print(f"  {erased.wall:6.1f} s wall  {erased.cpu:6.1f} s CPU  {erased.peak_mb:5.0f} MB")
    for store, place in STORES.items():
        after = _files(home.root / place)
        same = sum(after.get(name) == stamp for name, stamp in before[store].items())
        holding = len(found[store].files) if store in found else 0
        print(
            f"  {store:16} {len(before[store]):6,} files, {holding:6,} hold one of them, {len(before[store]) - same:6,} written again"
        )


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file with what changes when it is written again: its inode and its time."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def _lines(home: Home) -> int:
    from zantara_pipeline.storage.ledger import Ledger

    with Ledger(home.state / "ledger.db").read() as db:
        return int(db.execute("SELECT sum(rows_in) FROM ingested_files").fetchone()[0])
