"""Commits of the lake: many Parquet files and one ledger transaction that all count, or none of them.

Protocol (safe against SIGKILL at any point): a commit writes all its Parquet below lake/.incoming/<commit>; one ledger
transaction records what it means and the commit as staged; the files are renamed into the lake, and those that they
replace are removed; the commit is marked done. `recover` finishes what is staged and drops what is not.

Belongs here: that protocol. Does not belong here: what is committed (ingest.py, replay.py, removal.py, lake_retention.py).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger


def stage(db: sqlite3.Connection, commit_id: str, replaced: Iterable[str] = ()) -> None:
    """Record a commit inside the transaction that says what it means.

    Parameters
    ----------
    replaced : files of the lake that the commit's own replace, relative to the lake.
    """
    db.execute("INSERT OR REPLACE INTO ingest_commits VALUES (?, 'staged')", [commit_id])
    db.executemany("INSERT OR IGNORE INTO replaced_files VALUES (?, ?)", [(commit_id, path) for path in replaced])


def move_in(home: Home, ledger: Ledger, commit_id: str) -> None:
    """Finish a staged commit; may be done again."""
    folder = home.incoming / commit_id
    places = {
        "accepted": home.accepted,
        "quarantine": home.quarantine,
        "exempt": home.exempt,
        "unparsable": home.restricted / "unparsable",
        "consent_unreadable": home.restricted / "consent_unreadable",
    }
    for part, place in places.items():
        for path in sorted((folder / part).rglob("*.parquet")):
            target = place / path.relative_to(folder / part)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    with ledger.read() as db:
        replaced = [row[0] for row in db.execute("SELECT path FROM replaced_files WHERE commit_id = ?", [commit_id])]
    for name in replaced:
        (home.lake / name).unlink(missing_ok=True)
    for partition in {(home.lake / name).parent for name in replaced}:
        _remove_if_empty(partition)
    with ledger.transaction() as db:
        db.execute("DELETE FROM replaced_files WHERE commit_id = ?", [commit_id])
        db.execute("UPDATE ingest_commits SET state = 'done' WHERE commit_id = ?", [commit_id])
    shutil.rmtree(folder, ignore_errors=True)


def _remove_if_empty(partition: Path) -> None:
    """A day that lost its last file is no day of the lake any more."""
    if partition.is_dir() and not any(partition.iterdir()):
        partition.rmdir()


def recover(home: Home, ledger: Ledger) -> None:
    """Finish commits that were staged when a run was killed; drop what was never staged."""
    with ledger.read() as db:
        staged = [row[0] for row in db.execute("SELECT commit_id FROM ingest_commits WHERE state = 'staged'")]
    for commit_id in staged:
        move_in(home, ledger, commit_id)
    shutil.rmtree(home.incoming, ignore_errors=True)
