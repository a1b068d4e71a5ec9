"""Retention of landed files: a file of the home that was taken goes some days after its lines were received.

Landed files hold more than the lake, also what nobody consented to; a run needs a file once. So privacy.yaml may say for how
many days they are kept. Only files below data/landing go, and only those whose content is known to be taken: what lies
elsewhere belongs to whoever named it. Their counts stay in the ledger.

Belongs here: which files are over, and removing them. Does not belong here: whether it is enforced (retention.py), lines of
single people (landed_lines.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.reader import identify, landed_paths
from zantara_pipeline.tracking.restricted import received_of_commits


@dataclass(frozen=True)
class LandedOver:
    """A landed file that is over: its lines, and the day on which the last of them was received."""

    path: Path
    name: str
    rows: int
    day: date


def landed_over(
    home: Home, ledger: Ledger, landing: Path, days: int, as_of: datetime, taken_before: datetime | None = None
) -> list[LandedOver]:
    """Files that are older than so many whole days, by name and size; nothing is read.

    taken_before : files that were taken since (wall clock) are left: the run that took them may have had a wrong plan.
    """
    if not landing.exists() or not landing.resolve().is_relative_to(home.landing.resolve()):
        return []
    with ledger.read() as db:
        taken = {row[:2]: row[2:] for row in db.execute(_TAKEN_SQL)}
    received = received_of_commits(ledger)
    found = []
    for path, name in landed_paths(landing):
        rows, commit_id, ingested_at = taken.get((name, path.stat().st_size), (0, "", ""))
        if commit_id not in received or (taken_before is not None and ingested_at >= utc_text(taken_before)):
            continue
        day = received[commit_id].astimezone(UTC).date()
        if (as_of.astimezone(UTC).date() - day).days > days:
            found.append(LandedOver(path, name, rows, day))
    return found


def remove_landed(ledger: Ledger, over: list[LandedOver], as_of: datetime) -> int:
    """Remove them and write down how many lines went; a file whose content was never taken stays."""
    done = 0
    for file in over:
        sha256 = identify(file.path, file.name).sha256
        with ledger.transaction() as db:
            known = "SELECT sha256 FROM ingested_files UNION SELECT sha256 FROM rewritten_files"
            if not db.execute(f"SELECT 1 FROM ({known}) WHERE sha256 = ?", [sha256]).fetchone():
                continue
            db.execute(
                "INSERT OR REPLACE INTO expired_landed_files VALUES (?, ?, ?, ?, ?)",
                [sha256, file.name, utc_text(as_of), file.day.isoformat(), file.rows],
            )
        file.path.unlink(missing_ok=True)
        done += 1
    return done


# A file that an erasure wrote again is as old as the one it was.
_TAKEN_SQL = """
    SELECT file, bytes, rows_in, commit_id, ingested_at FROM ingested_files
    UNION ALL
    SELECT r.file, r.bytes, max(i.rows_in), max(i.commit_id), max(i.ingested_at)
    FROM rewritten_files r JOIN ingested_files i ON i.file = r.file GROUP BY r.file, r.bytes
"""
