"""Segments that follow equal segments made whole: late, withdrawn, erased, changed in place, killed, at any clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from core_shop import CoreShop, Lake, Recorded, Row, at, row
from test_segment_models import LAST, world

from zantara_pipeline.tracking.sources import BEGINNING

WORLDS, REGULARS, BUILDS = 20, 5, 14
FIRST = LAST - 45  # days, of the first clock: what is older lies at the edges of the long windows


def regular(rng: random.Random, name: int) -> Iterator[Row]:
    """Somebody who comes, looks at what is dear, buys mostly what is cheap, and one day stays away: rare in other worlds."""
    day = float(FIRST - rng.randrange(60))
    for number in range(rng.randrange(8, 14)):
        for kind, price in (("product_view", 200), ("purchase", rng.choice((20, 20, 150)))):
            when = at(day, minutes=number + (kind == "purchase"))
            yield row(f"r{name}-{number}-{kind}", when, event=kind, user_id=f"r{name}", device_id=f"dr{name}",
                      product_id="p1", category="a", currency="EUR", price=Decimal(price), line_no=number) | (
                {"quantity": 1, "order_id": f"r{name}-{number}"} if kind == "purchase" else {}
            )  # fmt: skip
        day += rng.choice((1, 2, 5, 9))


@dataclass
class Story:
    """What happens to a shop from build to build; told at random."""

    rng: random.Random
    lake: Lake = field(default_factory=Lake)
    clock: datetime = field(default_factory=lambda: at(FIRST))

    def __post_init__(self) -> None:
        self.coming = [event for name in range(WORLDS) for event in world(self.rng, name)]
        self.coming += [event for name in range(REGULARS) for event in regular(self.rng, name)]
        self.people = sorted({event["user_id"] for event in self.coming} - {None, "guest", ""})
        early = at(FIRST - 20).isoformat()
        self.lake.consent = [(user, "personalization", "ledger", early, "granted") for user in self.people[::8]]
        self.lake.consent += [
            (user, "personalization", "event", early, "granted") for n, user in enumerate(self.people) if n % 8
        ]

    def goes_on(self) -> dict[str, Any]:
        """The next build: its clock, and what staging has to make again."""
        rng = self.rng
        hours = rng.choice((0, 5, 24, 24, 24, 24, 48, 24 * 7, 24 * 14, 24 * 29, -24, -24 * 9))
        self.clock += timedelta(hours=hours, minutes=rng.randrange(60))
        self.lake.latest_clock = max(self.lake.latest_clock or self.clock, self.clock)
        staged = {event["received_date"] for event in self._land()} | set(self._change()) | set(self._say())
        told: dict[str, Any] = {"as_of": self.clock, "since": min(staged, default=None)}
        return told | (self._expire() if rng.random() < 0.2 else {})

    def _land(self) -> list[Row]:
        """What was received by now and a part of what was received a little later, as a run of a past clock finds it."""
        limit = self.clock + timedelta(days=self.rng.choice((0, 0, 1, 10)))
        landed = [e for e in self.coming if e["received_at"] <= limit and self.rng.random() < 0.85]
        self.coming = [e for e in self.coming if not any(e is one for one in landed)]
        self.lake.rows += landed
        return landed

    def _change(self) -> Iterator[date]:
        """Values change where they are, as after a fix that was replayed: also those that no index of events has."""
        if self.rng.random() < 0.4 and self.lake.rows:
            for place in self.rng.sample(range(len(self.lake.rows)), min(8, len(self.lake.rows))):
                event = self.lake.rows[place]
                change: dict[str, Any] = self.rng.choice((
                    {"price": Decimal(500)}, {"category": "b"}, {"price": None}, {"product_id": "p0"},
                    {"consent_personalization": False}, {"consent_personalization": True},
                    {"user_id": self.rng.choice(self.people)}, {"device_id": "d0.0"}, {"order_id": "order0"},
                ))  # fmt: skip
                self.lake.rows[place] = event | {key: value for key, value in change.items() if key in event}
                yield event["received_date"]

    def _say(self) -> Iterator[date]:
        """Statements of consent, some of which take effect later or were not known at the clock; a person may be erased."""
        for user in self.rng.sample(self.people, self.rng.choice((0, 0, 1, 3))):
            when = self.clock + timedelta(hours=self.rng.choice((-300, -30, -1, 30)))
            unknown_at = self.rng.choice(("", "", self.clock.isoformat()))
            said = (user, "personalization", self.rng.choice(("ledger", "event")), when.isoformat())
            if said not in [known[:4] for known in self.lake.consent]:
                self.lake.consent.append((*said, self.rng.choice(("granted", "denied")), unknown_at))
        if self.rng.random() < 0.15:
            gone = self.rng.choice(self.people)
            yield from (event["received_date"] for event in self.lake.rows if event["user_id"] == gone)
            self.lake.rows = [event for event in self.lake.rows if event["user_id"] != gone]
            self.lake.consent = [said for said in self.lake.consent if said[0] != gone]

    def _expire(self) -> dict[str, Any]:
        """Retention takes one kind of event of a few dates; dates that hold copies of them are staged again."""
        kind, until = self.rng.choice(("product_view", "purchase")), self.clock.date() - timedelta(days=25)
        over = [e for e in self.lake.rows if e["event"] == kind and e["received_date"] <= until]
        self.lake.rows = [event for event in self.lake.rows if not any(event is gone for gone in over)]
        gone = {event["event_id"] for event in over}
        return {
            "removed": {(event["event"], event["received_date"]) for event in over},
            "restaged": {event["received_date"] for event in self.lake.rows if event["event_id"] in gone},
        }


def names_of_followers(recorded: Recorded) -> set[str]:
    return {name for name, segment in recorded.segments.items() if segment.can_follow}


@pytest.mark.parametrize("seed", range(4))
def test_following_equals_making_whole(recorded: Recorded, seed: int) -> None:
    rng = random.Random(seed)
    story, shop = Story(rng), CoreShop(recorded)
    followed: set[str] = set()
    sizes: dict[str, int] = {}
    pending: dict[str, Any] = {}
    for _ in range(BUILDS):
        told = story.goes_on()
        told = _together(pending, told)
        pending = {}
        if rng.random() < 0.25:  # killed in core: the next build begins where this one did
            shop.build(story.lake, **told, killed_after=rng.randrange(len(recorded.follow))) if not shop.empty else None
            pending = told
            continue
        assert shop.build(story.lake, **told)
        if rng.random() < 0.15:  # a build without segments
            continue
        if rng.random() < 0.25:  # killed among segments: staging begins where this build did
            shop.build_segments(killed_after=rng.randrange(60))
            pending = told
            continue
        members = shop.build_segments(alone=rng.random() < 0.1)
        followed |= shop.followed
        anew = CoreShop(recorded)
        anew.build(story.lake, as_of=told["as_of"])
        assert members == anew.build_segments(), sorted(shop.followed)
        sizes = {name: max(len(found), sizes.get(name, 0)) for name, found in members.items()}
    assert followed == names_of_followers(recorded)
    assert all(sizes[name] for name in followed), f"never tried: {[name for name in followed if not sizes[name]]}"


def _together(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What a build has to stage after one that did not reach its end."""
    if not before:
        return now
    since = [told["since"] for told in (before, now) if told["since"]]
    more = {key: set(before.get(key, ())) | set(now.get(key, ())) for key in ("removed", "restaged")}
    return now | {"since": min(since, default=None)} | more


def test_a_session_stays_as_it_was_known_while_core_knows_more(recorded: Recorded) -> None:
    """Its first event was landed with the others, and received two days later than they: core has another session by then."""
    seen = row("e1", at(0, minutes=50), at(3), user_id="u", device_id="d")
    cart = row("e2", at(0, minutes=60), event="add_to_cart", user_id="u", device_id="d", product_id="p1", quantity=1)
    said = ("u", "personalization", "ledger", at(-1).isoformat(), "granted")
    lake, shop = Lake([seen, cart], [said], latest_clock=at(9)), CoreShop(recorded)
    entered = {}
    for day in (1, 2, 4, 5):
        shop.build(lake, as_of=at(day), since=None if day > 1 else BEGINNING)
        members = shop.build_segments()["seg_cart_sessions"]
        assert ("seg_cart_sessions" in shop.followed) == (day > 1)
        anew = CoreShop(recorded)
        anew.build(lake, as_of=at(day))
        assert members == anew.build_segments()["seg_cart_sessions"]
        entered[day] = [member[1] for member in members]
    assert entered == {
        1: [cart["occurred_at"]],
        2: [cart["occurred_at"]],
        4: [seen["occurred_at"]],
        5: [seen["occurred_at"]],
    }


def test_the_extract_of_a_scope_has_the_columns_that_the_select_names(recorded: Recorded) -> None:
    extracts = {
        name: " ".join(sql.split("from")[0].split())
        for name, segment in recorded.segments.items()
        for _, sql in segment.follow
        if "temporary table scope_events" in sql
    }
    assert {"seg_multi_device_users", "seg_shared_devices"} <= set(extracts) and "seg_cart_sessions" not in extracts
    assert extracts["seg_multi_device_users"].endswith(
        "select occurred_at, received_at, user_id, device_id, consent_personalization"
    )
