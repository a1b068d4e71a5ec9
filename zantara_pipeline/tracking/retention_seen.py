"""What retention knows of partitions that it has seen, so that a day's run opens only those in which something is due.

A partition needs no look before its next due time while its files and the rules are those of the last look.

Belongs here: that memory. Does not belong here: what is due (quarantine_expiry.py, lake_retention.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.storage.ledger import Ledger


class Seen:
    """The partitions of one store that were looked at under certain rules.

    Parameters
    ----------
    rules : whatever decides when something is due, as text.
    """

    def __init__(self, ledger: Ledger, store: str, rules: str) -> None:
        self.ledger, self.store, self.rules = ledger, store, rules
        with ledger.read() as db:
            rows = db.execute("SELECT partition, state, due FROM retention_seen WHERE store = ?", [store]).fetchall()
        self._known = {partition: (state, due) for partition, state, due in rows}

    def nothing_due(self, partition: str, folder: Path, as_of: datetime) -> bool:
        """Whether a look at the partition would find nothing: its files and the rules are known, its time has not come."""
        known = self._known.get(partition)
        if known is None or known[0] != self._state(folder):
            return False
        return known[1] is None or utc_text(as_of) <= known[1]

    def remember(self, due: Mapping[str, tuple[Path, datetime | None]], gone: Iterable[str] = ()) -> None:
        """Partition -> its folder and when the next thing is due there (None: never); partitions that are no more."""
        rows = [
            (self.store, partition, self._state(folder), None if moment is None else utc_text(moment.astimezone(UTC)))
            for partition, (folder, moment) in due.items()
        ]
        with self.ledger.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO retention_seen VALUES (?, ?, ?, ?)", rows)
            db.executemany(
                "DELETE FROM retention_seen WHERE store = ? AND partition = ?", [(self.store, name) for name in gone]
            )

    def gone(self, held: Iterable[str]) -> set[str]:
        """Partitions that are remembered and not held any more."""
        return self._known.keys() - set(held)

    def _state(self, folder: Path) -> str:
        names = sorted(path.name for path in folder.glob("*.parquet"))
        return hashlib.sha256("\n".join([self.rules, *names]).encode()).hexdigest()[:16]
