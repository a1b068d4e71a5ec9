"""Expiry of the restricted stores: lines without a readable consent go after a few days of the run's clock.

A line that could not be parsed states no consent, and some say of it what nobody can read. They are kept only as long as
somebody may repair their sender.

A file's name says which commit received its lines. A replay brings lines of many receipts at once: they are parted, so
that each expires when it would have, had it come there at first.

Belongs here: how old a stored file is, naming it so, and removing it. Does not belong here: writing the store (batch.py),
the number of days (contracts/privacy.yaml).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.sql_checks import quote

STORES = ("unparsable", "consent_unreadable")


def purge_restricted(home: Home, as_of: datetime, days: int) -> int:
    """Delete files of data/restricted (unparsable, consent_unreadable) that are older than `days` at `as_of`; returns how many.

    Age follows the clock of the run and never the disk's: a file's lines were received by the latest `received_at` of
    its commit. A commit in which nothing was accepted has none; it counts as received when the ledger's clock stood
    where it did as that commit was taken (the latest `received_at` of earlier commits), or, if it was the first, at the
    next one that came. While no commit has any `received_at`, what remains is the wall clock at which it was taken. A
    file of a commit that the ledger doesn't know has no age: it goes.

    Parameters
    ----------
    as_of : the clock of the run, with zone.
    days : whole days that a line is kept (privacy.unparsable_expiry_days).
    """
    files = sorted(path for store in STORES for path in (home.restricted / store).glob("*.parquet"))
    if not files:
        return 0
    received = received_of_commits(Ledger(home.state / "ledger.db"))
    limit = as_of.astimezone(UTC) - timedelta(days=days)
    expired = [path for path in files if _commit(path) not in received or received[_commit(path)] < limit]
    for path in expired:
        path.unlink(missing_ok=True)
    return len(expired)


def _commit(path: Path) -> str:
    """Files are named <commit that received the lines>-<part>.parquet, or <that commit>-<replay>-<part>.parquet."""
    return path.stem.partition("-")[0]


def part_by_receipt(con: duckdb.DuckDBPyConnection, ledger: Ledger, folder: Path) -> None:
    """Below the folder of a replay's commit: lines for the restricted stores in one file for each commit that received them.

    Done before the commit is staged: killed, nothing of it counts.
    """
    paths = [path for store in STORES for path in sorted((folder / store).glob("*.parquet"))]
    if not paths:
        return
    with ledger.read() as db:
        taken_by = dict(db.execute("SELECT source, commit_id FROM ingested_files").fetchall())
    for path in paths:
        lines = f"read_parquet({quote(str(path))}, hive_partitioning = false)"
        sources = [row[0] for row in con.execute(f"SELECT DISTINCT source FROM {lines} ORDER BY 1").fetchall()]
        for commit in sorted({taken_by[source] for source in sources}):
            names = ", ".join(quote(source) for source in sources if taken_by[source] == commit)
            target = quote(str(path.with_name(f"{commit}-{path.name}")))
            con.execute(f"COPY (FROM {lines} WHERE source IN ({names})) TO {target} (FORMAT parquet)")
        path.unlink()


def received_of_commits(ledger: Ledger) -> dict[str, datetime]:
    """When the lines of each commit had been received, on the pipeline's clock."""
    with ledger.read() as db:
        rows = db.execute(_COMMITS_SQL).fetchall()
    return {
        commit: datetime.fromisoformat(own or before or after or taken) for commit, own, before, after, taken in rows
    }


# Times are UTC text with microseconds, so that max() and min() of the text are those of the time.
_COMMITS_SQL = """
    WITH commits AS (
        SELECT commit_id, max(max_received_at) AS own, max(ingested_at) AS taken FROM ingested_files GROUP BY commit_id
    )
    SELECT c.commit_id, c.own,
        (SELECT max(e.own) FROM commits e WHERE e.taken < c.taken) AS before,
        (SELECT l.own FROM commits l WHERE l.taken > c.taken AND l.own IS NOT NULL ORDER BY l.taken LIMIT 1) AS after,
        c.taken
    FROM commits c
"""
