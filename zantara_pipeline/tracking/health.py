"""Is every stream of events what its owner promised (the `sla` of its plan), and is the plan what is sent?

Measured on the last whole day: a day is whole once something of a later day was accepted, so that a file that lands an
hour late accuses nobody. What was rejected or is not planned is a fact about lines, whenever they came. Freshness,
volume and absence are promises about a living feed: a home that holds history only breaks none of them.

Belongs here: those questions over the lake, the quarantine and the plan. Does not belong here: raising alerts
(watch.py makes findings of what is told here).
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import duckdb

from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.clock import LIVE_WITHIN, is_live, latest_received_at
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

Problem = Literal["reject_rate", "volume_low", "volume_drop", "stale", "never_seen", "unplanned"]
# The same weekday of the last four weeks; fewer than two of them say nothing about what is usual.
WEEKS, FEWEST_WEEKS = 4, 2
# Every weekday has been seen once before anybody is told that an event never comes.
SETTLED = timedelta(days=7)
_ABSENT = "the plan declares it, but none was ever accepted"
Facts = Mapping[str, int | float | str | None]


@dataclass(frozen=True)
class Broken:
    """One promise that does not hold, or one difference between plan and reality; facts are the numbers behind it."""

    event: str
    problem: Problem
    said: str
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """When a home is looked at.

    as_of : the clock of the run.
    day : the last whole received day.
    first_day : the first received day of the feed as it is fed now; it may have begun at noon.
    live : is this home fed as events happen (clock.py)?
    """

    as_of: datetime
    day: date
    first_day: date
    live: bool


def moment_of(home: Home, ledger: Ledger, as_of: datetime) -> Moment | None:
    """The moment at which a run looks at its home; None where nothing was ever accepted."""
    as_of, latest = as_of.astimezone(UTC), latest_received_at(ledger)
    if latest is None:
        return None
    now = min(as_of, latest).date()
    return Moment(as_of, now - timedelta(days=1), _first_day(home, now), is_live(ledger))


def _first_day(home: Home, now: date) -> date:
    """Where the feed began, walking back from now: beyond days without anything it is another feed than today's.

    A collector that was silent for longer than LIVE_WITHIN begins anew; and one line with a clock of 1960, which a file may
    bring at any time, makes no home old.
    """
    parts = (folder for part in (home.accepted, home.exempt) for folder in part.glob("event=*/received_date=*"))
    first = now
    for day in sorted({date.fromisoformat(folder.name.partition("=")[2]) for folder in parts}, reverse=True):
        if day > first:
            continue
        if first - day > LIVE_WITHIN:
            break
        first = day
    return first


@dataclass(frozen=True)
class Stream:
    """One event as it was on a day; most_rejected_pct as promised.

    last_seen : over all days; None: never accepted with consent. came : or at least as exempt.
    """

    event: str
    day: date
    accepted: int
    rejected: int
    usual: float | None
    last_seen: date | None
    most_rejected_pct: float | None = None
    exempt_came: bool = False

    @property
    def came(self) -> bool:
        return self.last_seen is not None or self.exempt_came

    @property
    def reject_pct(self) -> float:
        """Rejected of all that had consent, in percent."""
        rows = self.accepted + self.rejected
        return 100 * self.rejected / rows if rows else 0.0

    @property
    def rejects_too_many(self) -> bool:
        return self.most_rejected_pct is not None and self.reject_pct > self.most_rejected_pct


def streams(home: Home, plan: TrackingPlan, day: date) -> list[Stream]:
    """One row per event of the plan, and per event that is sent without being in it (its name where that is readable)."""
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
            _last_seen(home.accepted, name), _promised_rejects(plan.events.get(name)),
            _last_seen(home.exempt, name) is not None,
        )
        for name in sorted(plan.events.keys() | rejected.keys())
    ]  # fmt: skip


def broken_promises(home: Home, plan: TrackingPlan, moment: Moment) -> list[Broken]:
    """Everything that is not as promised or planned at this moment, by event."""
    found: list[Broken] = []
    for stream in streams(home, plan, moment.day):
        event = plan.events.get(stream.event)
        if event is None:
            said = f"{stream.rejected:,} events on {stream.day}, but no plan declares it"
            found.append(Broken(stream.event, "unplanned", said, {"day": str(stream.day), "rejected": stream.rejected}))
        elif _is_promised(event):
            found += _of_lines(stream)
            found += _of_the_feed(stream, event, moment) if moment.live else ()
            if moment.live and _is_missed(stream, event, moment, own=stream.event in plan.own):
                found.append(Broken(stream.event, "never_seen", _ABSENT, {"day": str(stream.day)}))
    return found


def _is_missed(stream: Stream, event: EventPlan, moment: Moment, *, own: bool) -> bool:
    """Whether an event that never came should have.

    A shop that declares an event means to send it. The packaged plan is for all shops, most of which send some of it: of
    those events only the ones that promise to come are missed. `lifecycle.expected` says otherwise of either
    (docs/decisions/0022-events-never-seen.md).
    """
    comes = event.lifecycle.expected
    if comes is None:
        comes = own or event.sla.freshness_hours is not None or event.sla.min_daily is not None
    settled = moment.day - moment.first_day >= SETTLED
    return comes and settled and not stream.came and event.lifecycle.status == "active"


def _is_promised(event: EventPlan | None) -> bool:
    """Nobody promises an event that is not sent yet, or not any more."""
    return event is not None and event.lifecycle.status in ("active", "deprecated")


def _promised_rejects(event: EventPlan | None) -> float | None:
    return event.sla.max_reject_pct if event is not None and _is_promised(event) else None


def _of_lines(stream: Stream) -> Iterator[Broken]:
    """What holds for lines whenever they came."""
    if stream.rejects_too_many:
        said = (
            f"{stream.reject_pct:.1f} % rejected on {stream.day} ({stream.rejected:,} of "
            f"{stream.rejected + stream.accepted:,}); promised: at most {stream.most_rejected_pct:g} %"
        )
        yield Broken(stream.event, "reject_rate", said, _facts(stream, stream.most_rejected_pct))


def _of_the_feed(stream: Stream, event: EventPlan, moment: Moment) -> Iterator[Broken]:
    """What holds for a feed that lives, of an event that comes."""
    promised = event.sla
    if stream.last_seen is None:
        return  # one finding is enough: `_is_missed`
    if promised.min_daily is not None and stream.accepted < promised.min_daily and moment.first_day < stream.day:
        said = f"{stream.accepted:,} accepted on {stream.day}; promised: at least {promised.min_daily:,}"
        yield Broken(stream.event, "volume_low", said, _facts(stream, promised.min_daily))
    if promised.max_drop_pct is not None and stream.usual:
        drop = 100 * (1 - stream.accepted / stream.usual)
        if drop > promised.max_drop_pct:
            said = (
                f"{stream.accepted:,} accepted on {stream.day}, {drop:.0f} % below the usual {stream.usual:,.0f} of that "
                f"weekday; promised: at most {promised.max_drop_pct:g} %"
            )
            yield Broken(stream.event, "volume_drop", said, _facts(stream, promised.max_drop_pct))
    if promised.freshness_hours is not None:
        # the day is all that is known without reading rows; its last moment is meant, so that nobody is accused wrongly
        hours = (moment.as_of.date() - stream.last_seen).days * 24 - 24 + moment.as_of.hour
        if hours > promised.freshness_hours:
            said = f"none accepted since {stream.last_seen}; promised: at most {promised.freshness_hours} hours old"
            yield Broken(stream.event, "stale", said, _facts(stream, promised.freshness_hours))


def _facts(stream: Stream, promised: float | None) -> Facts:
    seen = None if stream.last_seen is None else str(stream.last_seen)
    return {
        "day": str(stream.day), "accepted": stream.accepted, "rejected": stream.rejected, "usual": stream.usual,
        "last_seen": seen, "promised": promised,
    }  # fmt: skip


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
    name = "coalesce(event, '(unreadable name)')"
    rows = con.execute(f"SELECT {name}, count(*) FROM read_parquet({files}, union_by_name = true) GROUP BY 1")
    return defaultdict(int, rows.fetchall())


def _last_seen(part: Path, event: str) -> date | None:
    """The newest day that holds a file: names of folders, newest first, and of files in the first of them only."""
    folders = sorted((part / f"event={event}").glob("received_date=*"), reverse=True)
    newest = next((folder for folder in folders if any(folder.glob("*.parquet"))), None)
    return None if newest is None else date.fromisoformat(newest.name.partition("=")[2])
