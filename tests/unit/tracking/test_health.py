"""Promises of streams: each counted by hand on lines of known days."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from event_lines import PLAN, RULES, Shop, event, viewed

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.health import Moment, broken_promises, moment_of, streams
from zantara_pipeline.tracking.plan import Exemption, Lifecycle, Sla, TrackingPlan, load_plan

LAST = date(2026, 3, 31)
AS_OF = datetime(2026, 4, 1, 6, tzinfo=UTC)
# A feed that has lived for two months.
LIVING = Moment(AS_OF, LAST, LAST - timedelta(days=60), live=True)


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


def problems(home: Shop, plan: TrackingPlan, moment: Moment = LIVING) -> list[str]:
    return [broken.problem for broken in broken_promises(home.home, plan, moment)]


def test_a_day_counted_by_hand(tmp_path: Path) -> None:
    weeks = [views(LAST - timedelta(days=7 * week), 10 * week) for week in (1, 2, 3)]
    found = shop(tmp_path, *weeks, views(LAST, 6, wrong=2), views(LAST + timedelta(days=1), 1))
    [stream] = streams(found.home, only(Sla()), LAST)
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
    [broken] = broken_promises(found.home, only(Sla()), LIVING)
    assert (broken.event, broken.problem) == ("wishlist_added", "unplanned") and broken.said.startswith(
        "1 events on 2026-03-31"
    )


EVERYTHING = Sla(freshness_hours=1, min_daily=100, max_drop_pct=1, max_reject_pct=1)


def test_history_breaks_no_promise_about_a_living_feed(tmp_path: Path) -> None:
    weeks = [views(LAST - timedelta(days=7 * week), 20) for week in (1, 2)]
    found = shop(tmp_path, *weeks, views(LAST, 6, wrong=2))
    assert problems(found, only(EVERYTHING)) == ["reject_rate", "volume_low", "volume_drop", "stale"]
    history = replace(LIVING, live=False)
    assert problems(found, only(EVERYTHING), history) == ["reject_rate"]
    assert problems(shop(tmp_path / "other", views(LAST, 6)), only(EVERYTHING, name="rating"), history) == []


def test_a_home_that_is_a_day_old_accuses_nobody_of_volume_or_absence(tmp_path: Path) -> None:
    found = shop(tmp_path, views(LAST, 6))
    young = replace(LIVING, first_day=LAST, as_of=datetime(2026, 4, 1, tzinfo=UTC))
    assert problems(found, only(EVERYTHING), young) == []
    assert problems(found, only(EVERYTHING, name="rating"), young) == []


@pytest.mark.parametrize(("days", "expected"), [(6, []), (7, ["never_seen"])])
def test_absence_is_told_after_a_week(tmp_path: Path, days: int, expected: list[str]) -> None:
    found = shop(tmp_path, views(LAST, 1))
    moment = replace(LIVING, first_day=LAST - timedelta(days=days))
    assert problems(found, only(Sla(min_daily=1), name="rating"), moment) == expected


def test_an_event_of_which_nobody_promised_that_it_comes_may_stay_away(tmp_path: Path) -> None:
    found = shop(tmp_path, views(LAST, 1))
    assert problems(found, only(Sla(max_reject_pct=1, max_drop_pct=1), name="refund")) == []


def test_a_day_is_whole_when_something_of_a_later_day_came(tmp_path: Path) -> None:
    found = shop(tmp_path, views(LAST, 1))
    moment = moment_of(found.home, found.ledger, AS_OF)
    assert moment is not None and (moment.day, moment.first_day) == (LAST - timedelta(days=1), LAST)
    found.land("later.jsonl", views(LAST + timedelta(days=1), 1))
    found.ingest()
    moment = moment_of(found.home, found.ledger, AS_OF)
    assert moment is not None and moment.day == LAST


def test_a_home_without_events_is_not_looked_at(tmp_path: Path) -> None:
    empty = Shop(tmp_path, RULES)
    assert moment_of(empty.home, empty.ledger, AS_OF) is None


@pytest.mark.parametrize(
    ("days_ago", "begun"),
    [((0, 1), 1), ((0, 7, 14), 14), ((0, 8), 0), ((0, 3, 24_000), 3), ((0, 2, 40, 41), 2)],
    ids=["two days", "a file a week", "silent for longer", "one line from 1960", "a feed of last month"],
)
def test_a_feed_is_as_old_as_it_came_without_a_gap_of_more_than_a_week(
    tmp_path: Path, days_ago: tuple[int, ...], begun: int
) -> None:
    found = shop(tmp_path, *(views(LAST - timedelta(days=ago), 1) for ago in days_ago))
    moment = moment_of(found.home, found.ledger, AS_OF)
    assert moment is not None and moment.first_day == LAST - timedelta(days=begun)


ONCE = "rating"  # of the packaged plan, without a promise that it comes


@pytest.mark.parametrize(
    ("own", "expected", "status", "missed"),
    [
        (True, None, "active", True),
        (True, False, "active", False),
        (True, None, "planned", False),
        (True, True, "planned", False),
        (False, None, "active", False),
        (False, True, "active", True),
    ],
)
def test_a_shop_misses_what_it_declared_itself_and_of_the_package_only_what_is_expected(
    tmp_path: Path, own: bool, expected: bool | None, status: str, missed: bool
) -> None:
    plan = only(Sla(), name=ONCE)
    lifecycle = Lifecycle(status=status, expected=expected)  # type: ignore[arg-type]
    changed = plan.events[ONCE].model_copy(update={"lifecycle": lifecycle})
    plan = replace(plan, events={ONCE: changed}, own=frozenset({ONCE} if own else ()))
    found = shop(tmp_path, views(LAST, 1))
    assert problems(found, plan) == (["never_seen"] if missed else [])
    assert problems(found, plan, replace(LIVING, live=False)) == []
    assert problems(found, plan, replace(LIVING, first_day=LAST - timedelta(days=6))) == []


def test_an_event_that_is_told_not_to_be_expected_is_not_missed_whatever_it_promises(tmp_path: Path) -> None:
    plan = only(Sla(freshness_hours=1), name=ONCE)
    changed = plan.events[ONCE].model_copy(update={"lifecycle": Lifecycle(expected=False)})
    assert problems(shop(tmp_path, views(LAST, 1)), replace(plan, events={ONCE: changed})) == []


def test_an_event_that_comes_as_exempt_only_is_not_missed(tmp_path: Path) -> None:
    rule = Exemption(event="page_timing", countries=("FR",), legal_reference="a guideline")
    exempting = replace(PLAN, privacy=PLAN.privacy.model_copy(update={"exemptions": (rule,)}))
    found = Shop(tmp_path, replace(RULES, plan=exempting))
    times = {"timestamp": f"{LAST}T10:00:00Z", "received_at": f"{LAST}T10:00:05Z"}
    timing = event("page_timing", {"page": "/", "load_ms": 1}, context={"country": "FR"}, consent=..., **times)
    found.land("a.jsonl", [timing, *views(LAST, 1)])
    found.ingest()
    assert problems(found, replace(only(Sla(), name="page_timing"), own=frozenset({"page_timing"}))) == []
    assert problems(found, replace(only(Sla(), name="purchase"), own=frozenset({"purchase"}))) == ["never_seen"]


def test_an_events_file_in_a_folder_of_the_shop_makes_it_the_shops_own(tmp_path: Path) -> None:
    (tmp_path / "tracking_plan").mkdir()
    (tmp_path / "tracking_plan" / "refund.yaml").write_text((PACKAGED / "tracking_plan" / "refund.yaml").read_text())
    (tmp_path / "tracking_plan" / "gift_sent.yaml").write_text("{event: gift_sent, version: 1-0-0}")
    assert load_plan((PACKAGED,)).own == set()
    assert load_plan((PACKAGED, tmp_path)).own == {"refund", "gift_sent"}
