"""Is every stream of events what its owner promised (the `sla` of its plan), and is the plan what is sent?

Measured on the last whole day: the day of the newest receipt is still filling.

Belongs here: those questions over the lake, the quarantine and the plan. Does not belong here: raising alerts.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

import duckdb

from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

Problem = Literal["reject_rate", "volume_low", "volume_drop", "stale", "never_seen", "unplanned"]
# The same weekday of the last four weeks; fewer than two of them say nothing about what is usual.
WEEKS, FEWEST_WEEKS = 4, 2


@dataclass(frozen=True)
class Broken:
    """One promise that does not hold, or one difference between plan and reality."""

    event: str
    problem: Problem
    said: str


@dataclass(frozen=True)
class Stream:
    """One event as it was on the last whole day; last_seen over all days, None: never accepted."""

    event: str
    day: date
    accepted: int
    rejected: int
    usual: float | None
    last_seen: date | None

    @property
    def reject_pct(self) -> float:
        """Rejected of all that had consent, in percent."""
        rows = self.accepted + self.rejected
        return 100 * self.rejected / rows if rows else 0.0


def streams(home: Home, plan: TrackingPlan, as_of: datetime) -> list[Stream]:
    """One row per event of the plan, and per event that is sent without being in it (its name where that is readable)."""
    day = as_of.date() - timedelta(days=1)
    before = [day - timedelta(days=7 * week) for week in range(1, WEEKS + 1)]
    con = duckdb.connect()
    try:
        accepted = {name: _accepted(con, home, name, {day, *before}) for name in plan.events}
        rejected = _rejected(con, home, day)
    finally:
        con.close()
    return [
        Stream(
            name, day, accepted.get(name, {}).get(day, 0), rejected.get(name, 0),
            _usual([accepted[name][past] for past in before if past in accepted[name]]) if name in accepted else None,
            _last_seen(home, name),
        )
        for name in sorted(plan.events.keys() | rejected.keys())
    ]  # fmt: skip


def broken_promises(home: Home, plan: TrackingPlan, as_of: datetime) -> list[Broken]:
    """Everything that is not as promised or planned at this moment, by event."""
    found: list[Broken] = []
    for stream in streams(home, plan, as_of):
        event = plan.events.get(stream.event)
        if event is None:
            said = f"{stream.rejected:,} events on {stream.day}, but no plan declares it"
            found.append(Broken(stream.event, "unplanned", said))
        elif event.lifecycle.status in ("active", "deprecated"):
            found += _broken(stream, event, as_of)
    return found


def _broken(stream: Stream, event: EventPlan, as_of: datetime) -> Iterator[Broken]:
    promised = event.sla
    if promised.max_reject_pct is not None and stream.reject_pct > promised.max_reject_pct:
        said = f"{stream.reject_pct:.1f} % rejected on {stream.day}; promised: at most {promised.max_reject_pct:g} %"
        yield Broken(stream.event, "reject_rate", said)
    if stream.last_seen is None:
        if event.lifecycle.status == "active":
            yield Broken(stream.event, "never_seen", "the plan declares it, but none was ever accepted")
        return
    if promised.min_daily is not None and stream.accepted < promised.min_daily:
        said = f"{stream.accepted:,} accepted on {stream.day}; promised: at least {promised.min_daily:,}"
        yield Broken(stream.event, "volume_low", said)
    if promised.max_drop_pct is not None and stream.usual:
        drop = 100 * (1 - stream.accepted / stream.usual)
        if drop > promised.max_drop_pct:
            said = (
                f"{stream.accepted:,} accepted on {stream.day}, {drop:.0f} % below the usual {stream.usual:,.0f} of that "
                f"weekday; promised: at most {promised.max_drop_pct:g} %"
            )
            yield Broken(stream.event, "volume_drop", said)
    if promised.freshness_hours is not None:
        # the day is all that is known without reading rows; its last moment is meant, so that nobody is accused wrongly
        hours = (as_of.date() - stream.last_seen).days * 24 - 24 + as_of.hour
        if hours > promised.freshness_hours:
            said = f"none accepted since {stream.last_seen}; promised: at most {promised.freshness_hours} hours old"
            yield Broken(stream.event, "stale", said)


def _usual(counts: list[int]) -> float | None:
    """The median of the same weekday before; None where too few of them are known."""
    return statistics.median(counts) if len(counts) >= FEWEST_WEEKS else None


def _accepted(con: duckdb.DuckDBPyConnection, home: Home, event: str, days: set[date]) -> Mapping[date, int]:
    """Rows per day, from the files' own counts: no row is read."""
    counts: dict[date, int] = {}
    for day in days:
        folder = home.accepted / f"event={event}" / f"received_date={day}"
        if any(folder.glob("*.parquet")):
            query = f"SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata({quote(str(folder / '*.parquet'))})"
            counts[day] = con.execute(query).fetchall()[0][0]
    return counts


def _rejected(con: duckdb.DuckDBPyConnection, home: Home, day: date) -> Mapping[str, int]:
    """Quarantined rows of a day per event; those whose event has no readable name count as one stream."""
    folder = home.quarantine / f"received_date={day}"
    if not any(folder.glob("*.parquet")):
        return {}
    files = quote(str(folder / "*.parquet"))
    rows = con.execute(f"SELECT coalesce(event, '(unreadable name)'), count(*) FROM read_parquet({files}) GROUP BY 1")
    return defaultdict(int, rows.fetchall())


def _last_seen(home: Home, event: str) -> date | None:
    days = [
        folder.name.partition("=")[2]
        for folder in (home.accepted / f"event={event}").glob("received_date=*")
        if any(folder.glob("*.parquet"))
    ]
    return date.fromisoformat(max(days)) if days else None
