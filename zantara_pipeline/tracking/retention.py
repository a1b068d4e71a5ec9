"""Retention of the lake: what a run removes, and what it would remove if it were told to.

privacy.yaml says for each store whether retention is enforced (docs/decisions/0015-retention.md).

Belongs here: the stores together, and the report. Does not belong here: how each is done (quarantine_expiry.py,
lake_retention.py), lines that are no JSON (restricted.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.lake_retention import (
    STORES,
    Removed,
    StoreName,
    days_over,
    enforce_lake,
    rows_of,
    values_over,
)
from zantara_pipeline.tracking.landed_retention import LandedOver, landed_over, remove_landed
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.quarantine_expiry import Expired, expire_quarantine, overdue_lines


@dataclass(frozen=True)
class Enforced:
    """What a run did; days_kept: days of the lake that are over and were left because retention is not enforced."""

    quarantine: Expired
    lake: Removed
    days_kept: int
    landed: int = 0

    @property
    def notices(self) -> Iterator[str]:
        """Lines for whoever reads the run."""
        if self.quarantine.removed:
            yield f"{self.quarantine.removed:,} quarantined lines were over their time and are gone; their counts stay"
        if self.quarantine.waiting:
            yield (
                f"{self.quarantine.waiting:,} quarantined lines just taken are over their time already and go with the next "
                "run; replay them before, or see `retention` in privacy.yaml"
            )
        if self.lake.days or self.lake.days_with_values:
            yield (
                f"retention removed {self.lake.days:,} days of the lake with {self.lake.rows:,} rows, and single values "
                f"from {self.lake.days_with_values:,} days"
            )
        if self.landed:
            yield f"retention removed {self.landed:,} landed files; what was taken of them stays"


def enforce(
    home: Home,
    ledger: Ledger,
    plan: TrackingPlan,
    as_of: datetime,
    taken_before: datetime,
    landing: Path | None = None,
) -> Enforced:
    """Do what privacy.yaml says at the clock of the run; after an ingest, before anything is built from the lake.

    Parameters
    ----------
    taken_before : when this run began (wall clock); quarantined lines and files that it took itself stay until the next.
    landing : where events are read from; files of the home's own may be over too.
    """
    wanted, expired, removed, kept = plan.privacy.retention, Expired(), Removed(), 0
    landed = 0
    if wanted.landing.enforce and landing is not None:
        over = landed_over(home, ledger, landing, wanted.landing.days, as_of, taken_before)
        landed = remove_landed(ledger, over, as_of)
    if wanted.quarantine.enforce:
        expired = expire_quarantine(home, ledger, plan, as_of, taken_before)
    if wanted.accepted.enforce:
        removed = enforce_lake(home, ledger, plan, as_of)
    else:
        kept = sum(len(days_over(home, plan, as_of, store)) for store in STORES)
    return Enforced(expired, removed, kept, landed)


@dataclass(frozen=True)
class Overdue:
    """What is over its time in one store (of one event); enforced: the next run removes it."""

    store: str
    event: str | None
    enforced: bool
    rows: int
    days: int
    first_day: date | None
    last_day: date | None
    properties: dict[str, int]


def overdue(
    home: Home, ledger: Ledger, plan: TrackingPlan, as_of: datetime, landing: Path | None = None
) -> list[Overdue]:
    """What is over at a clock and still there; nothing is written. landing : as in `enforce`."""
    found = []
    wanted = plan.privacy.retention
    lines = overdue_lines(home, ledger, plan, as_of)
    if lines:
        found.append(Overdue("quarantine", None, wanted.quarantine.enforce, lines, 0, None, None, {}))
    if landing is not None:
        over = landed_over(home, ledger, landing, wanted.landing.days, as_of)
        found += [_overdue_files(over, enforced=wanted.landing.enforce)] if over else []
    for store in STORES:
        found += _overdue_days(home, plan, as_of, store)
    return found


def _overdue_files(over: list[LandedOver], *, enforced: bool) -> Overdue:
    days = {file.day for file in over}
    rows = sum(file.rows for file in over)
    return Overdue("landing", None, enforced, rows, len(days), min(days), max(days), {})


def _overdue_days(home: Home, plan: TrackingPlan, as_of: datetime, store: StoreName) -> Iterator[Overdue]:
    """Exempt rows are accepted rows: one switch for both."""
    whole, values = days_over(home, plan, as_of, store), values_over(home, plan, as_of, store)
    for event in sorted({part.event for part in [*whole, *values]}):
        parts = [part for part in whole if part.event == event]
        days = [part.day for part in parts]
        properties = Counter(name for part in values if part.event == event for name in part.properties)
        yield Overdue(
            store,
            event,
            plan.privacy.retention.accepted.enforce,
            rows_of(parts),
            len(days),
            min(days, default=None),
            max(days, default=None),
            dict(sorted(properties.items())),
        )
