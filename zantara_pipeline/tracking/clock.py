"""What the ledger says of time: the latest event received, and whether this home is fed as events happen.

Belongs here: those two questions. Does not belong here: which clock a run takes (orchestration/pipeline.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from zantara_pipeline.storage.ledger import Ledger

# A collector that lands a file a day, and a week of trouble with it, is still live; loading last year's export is not.
LIVE_WITHIN = timedelta(days=7)
# Ingest refuses what lies further ahead than this.
CLOCK_SKEW = timedelta(days=1)


def latest_received_at(ledger: Ledger) -> datetime | None:
    """The pipeline's default clock: the latest received_at of any accepted event."""
    with ledger.read() as db:
        latest = db.execute("SELECT max(max_received_at) FROM ingested_files").fetchone()[0]
    return None if latest is None else datetime.fromisoformat(latest)


def is_live(ledger: Ledger) -> bool:
    """Was any file ever ingested within LIVE_WITHIN of its latest event?

    Once live, always live: when a live feed breaks, what has expired must still go.
    """
    with ledger.read() as db:
        rows = db.execute(
            "SELECT max_received_at, ingested_at FROM ingested_files WHERE max_received_at IS NOT NULL "
            "ORDER BY max_received_at DESC"
        )
        delays = [datetime.fromisoformat(done) - datetime.fromisoformat(latest) for latest, done in rows]
    return any(-CLOCK_SKEW <= delay <= LIVE_WITHIN for delay in delays)
