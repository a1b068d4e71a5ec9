"""Promises of streams: each counted by hand on lines of known days."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from event_lines import PLAN, RULES, Shop, event, viewed

from zantara_pipeline.tracking.health import broken_promises, streams
from zantara_pipeline.tracking.plan import Lifecycle, Sla, TrackingPlan

LAST = date(2026, 3, 31)
AS_OF = datetime(2026, 4, 1, 6, tzinfo=UTC)


def views(day: date, right: int, wrong: int = 0) -> list[dict[str, Any]]:
    moment = {"timestamp": f"{day}T10:00:00Z", "received_at": f"{day}T10:00:05Z"}
    lines = [viewed() | moment | {"event_id": f"{day}-{n}"} for n in range(right)]
    return lines + [viewed(price="x") | moment | {"event_id": f"{day}-w{n}"} for n in range(wrong)]


def shop(root: Path, *days: list[dict[str, Any]]) -> Shop:
    found = Shop(root, RULES)
    for number, lines in enumerate(days):
        found.land(f"{number}.jsonl", lines)
    found.ingest()
    return found


def only(sla: Sla, status: str = "active", name: str = "product_view") -> TrackingPlan:
    """The plan with one event, which promises this."""
    changed = PLAN.events[name].model_copy(update={"sla": sla, "lifecycle": Lifecycle(status=status)})  # type: ignore[arg-type]
    return replace(PLAN, events={name: changed})


def problems(home: Shop, plan: TrackingPlan, as_of: datetime = AS_OF) -> list[str]:
    return [broken.problem for broken in broken_promises(home.home, plan, as_of)]


def test_a_day_counted_by_hand(tmp_path: Path) -> None:
    weeks = [views(LAST - timedelta(days=7 * week), 10 * week) for week in (1, 2, 3)]
    found = shop(tmp_path, *weeks, views(LAST, 6, wrong=2), views(LAST + timedelta(days=1), 1))
    [stream] = streams(found.home, only(Sla()), AS_OF)
    assert (stream.day, stream.accepted, stream.rejected, stream.usual) == (LAST, 6, 2, 20)
    assert stream.reject_pct == 25 and stream.last_seen == date(2026, 4, 1)


@pytest.mark.parametrize(
    ("sla", "expected"),
    [
        (Sla(), []),
        (Sla(max_reject_pct=25), []),
        (Sla(max_reject_pct=24.9), ["reject_rate"]),
        (Sla(min_daily=6), []),
        (Sla(min_daily=7), ["volume_low"]),
        (Sla(max_drop_pct=70), []),
        (Sla(max_drop_pct=69), ["volume_drop"]),
        (Sla(freshness_hours=6), []),
        (Sla(freshness_hours=5), ["stale"]),
    ],
)
def test_a_promise_is_broken_exactly_beyond_its_bound(tmp_path: Path, sla: Sla, expected: list[str]) -> None:
    weeks = [views(LAST - timedelta(days=7 * week), 20) for week in (1, 2)]
    assert problems(shop(tmp_path, *weeks, views(LAST, 6, wrong=2)), only(sla)) == expected


def test_one_week_says_nothing_about_what_is_usual(tmp_path: Path) -> None:
    found = shop(tmp_path, views(LAST - timedelta(days=7), 20), views(LAST, 1))
    assert problems(found, only(Sla(max_drop_pct=1))) == []


@pytest.mark.parametrize(
    ("status", "expected"), [("active", ["never_seen"]), ("planned", []), ("deprecated", []), ("retired", [])]
)
def test_an_event_that_never_came(tmp_path: Path, status: str, expected: list[str]) -> None:
    found = shop(tmp_path, views(LAST, 3))
    assert problems(found, only(Sla(freshness_hours=1), status, "rating")) == expected


def test_an_event_that_nobody_planned(tmp_path: Path) -> None:
    moment = {"timestamp": f"{LAST}T10:00:00Z", "received_at": f"{LAST}T10:00:05Z"}
    found = shop(tmp_path, [*views(LAST, 1), event("wishlist_added", {}) | moment])
    [broken] = broken_promises(found.home, only(Sla()), AS_OF)
    assert (broken.event, broken.problem) == ("wishlist_added", "unplanned") and broken.said.startswith(
        "1 events on 2026-03-31"
    )
