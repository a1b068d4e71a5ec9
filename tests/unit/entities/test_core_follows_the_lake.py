"""Core that follows the lake day by day equals core made from nothing: late, twice, out of order, withdrawn, killed.

Each history holds many small worlds that share no id, so that one build plays many cases.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from core_shop import CoreShop, Lake, Recorded, Row, at, row

WORLDS, DAYS = 40, 5
NO_IDS = (None, None, "guest", "", " Undefined ")


def world(rng: random.Random, name: int) -> Iterator[tuple[int, Row]]:
    """(day on which its file arrives, event) of a few people, devices and browsers around pauses of half an hour."""
    sits_down = [at(rng.randrange(DAYS - 1), minutes=rng.choice((0, 715, 1405, 1435))) for _ in range(3)]
    for number in range(rng.randrange(4, 16)):
        occurred = rng.choice(sits_down) + timedelta(
            minutes=rng.choice((0, 1, 10, 29, 30, 31, 60, 61)) * rng.choice((1, 1, 2))
        )
        received = occurred + rng.choice((timedelta(seconds=2),) * 6 + (timedelta(hours=30), timedelta(hours=-20)))
        event = row(
            f"{name}-{number}",
            occurred,
            received,
            event=rng.choice(("product_view", "session_started", "purchase", "rating")),
            user_id=_id(rng, name, "u", 2),
            device_id=_id(rng, name, "d", 2),
            anonymous_id=_id(rng, name, "a", 3),
            session_id=f"s{name}",
            organisation_id=_id(rng, name, "o", 2),
            platform=rng.choice(("web", "ios")),
        )
        if event["event"] != "session_started":
            event |= {
                "product_id": f"p{name % 7}",
                "price": rng.choice((None, 1, 2)),
                "brand": rng.choice((None, "x", "y")),
                "rating": rng.choice((1.0, 4.0)),
            }
        arrives = (received - at()).days + rng.choice((0,) * 9 + (1, 2))
        yield arrives, event
        if rng.random() < 0.2:  # a copy, received before or after, that may name another person
            again = received + timedelta(hours=rng.choice((-30, -1, 1, 30)))
            copy = event | {"received_at": again, "received_date": again.date(), "line_no": 2}
            yield arrives + rng.choice((0, 1)), copy | {"user_id": rng.choice((event["user_id"], f"u{name}.0"))}


def _id(rng: random.Random, name: int, kind: str, many: int) -> str | None:
    return rng.choice(NO_IDS) if rng.random() < 0.35 else f"{kind}{name}.{rng.randrange(many)}"


def history(rng: random.Random) -> list[list[Row]]:
    """Files by the day on which they arrive; a day without one is possible."""
    days: list[list[Row]] = [[] for _ in range(DAYS + 2)]
    for name in range(WORLDS):
        for day, event in world(rng, name):
            days[max(0, min(day, len(days) - 1))].append(event)
    lines = iter(range(10**6))
    return [
        [event | {"source": f"file{day}", "line_no": next(lines)} for event in rows] for day, rows in enumerate(days)
    ]


def say(rng: random.Random, lake: Lake, day: int) -> None:
    """A few statements of consent, some of which only take effect later; now and then a person's are erased."""
    for _ in range(WORLDS // 4):
        user, purpose = f"u{rng.randrange(WORLDS)}.{rng.randrange(2)}", rng.choice(("analytics", "personalization"))
        when = at(day, hours=rng.randrange(-20, 40)).isoformat()
        unknown_at = rng.choice(("", "", at(day - 1).isoformat(), at(day).isoformat()))
        said = (rng.choice(("ledger", "event")), when, rng.choice(("granted", "denied")), unknown_at)
        if (user, purpose, *said[:3]) not in [known[:5] for known in lake.consent]:  # the ledger keeps the first of two
            lake.consent.append((user, purpose, *said))
    if rng.random() < 0.3:
        gone = rng.choice(lake.consent)[0]
        lake.consent = [statement for statement in lake.consent if statement[0] != gone]


@pytest.mark.parametrize("seed", range(2))
def test_following_equals_making_anew(recorded: Recorded, seed: int) -> None:
    rng = random.Random(seed)
    shop, lake = CoreShop(recorded), Lake()
    for day, rows in enumerate(history(rng)):
        lake.rows += rows
        say(rng, lake, day)
        since = min((event["received_date"] for event in rows), default=None)
        told: dict[str, Any] = {"as_of": at(day + rng.choice((1, 1, 1, -1))), "since": since}
        lake.latest_clock = max(lake.latest_clock or told["as_of"], told["as_of"])
        if day == 3:  # values change where they are, as after a fix that was replayed
            changed = rng.sample(range(len(lake.rows)), 10)
            for place in changed:
                lake.rows[place] = lake.rows[place] | {
                    "user_id": lake.rows[place - 1]["user_id"],
                    "brand": "z",
                    "rating": 5.0,
                }
            told["since"] = min(since or at(99).date(), *(lake.rows[place]["received_date"] for place in changed))
        if day == 5:
            told |= expire(lake)
        if day and rng.random() < 0.5:
            assert not shop.build(lake, **told, killed_after=rng.randrange(len(recorded.follow)))
        assert shop.build(lake, **told)
        anew = CoreShop(recorded)
        anew.build(lake, as_of=told["as_of"])
        assert shop.tables() == anew.tables(), f"day {day}"
    assert all(rows for name, rows in shop.tables().items() if name.startswith(("core.", "features.")))


def expire(lake: Lake) -> dict[str, Any]:
    """Retention takes the first two days of views; dates that hold copies of them are staged again."""
    over = [event for event in lake.rows if event["event"] == "product_view" and event["received_date"] <= at(1).date()]
    lake.rows = [event for event in lake.rows if not any(event is gone for gone in over)]
    gone = {event["event_id"] for event in over}
    return {
        "removed": {(event["event"], event["received_date"]) for event in over},
        "restaged": {event["received_date"] for event in lake.rows if event["event_id"] in gone},
    }


def test_a_new_day_touches_only_what_it_can_change(recorded: Recorded) -> None:
    """Rows that are marked by hand keep their mark unless the new day has something to say about them."""
    lake = Lake([
        row("old", at(0), user_id="resting", device_id="d1", anonymous_id="a1", organisation_id="o1"),
        row("morning", at(0, hours=9), user_id="comes-back", device_id="d2", anonymous_id="a2", organisation_id="o2"),
        row("night", at(0, hours=23, minutes=50), user_id="comes-back", device_id="d2", anonymous_id="a2"),
    ])  # fmt: skip
    shop = CoreShop(recorded)
    shop.build(lake, as_of=at(1))
    for table in ("users", "sessions", "devices", "organisations", "organisation_members"):
        shop.con.execute(f"UPDATE core.{table} SET events = -1")
    for table in ("identities", "identity_map"):
        shop.con.execute(f"UPDATE core.{table} SET users = -1")
    lake.rows.append(row("after midnight", at(1, minutes=10), user_id="comes-back", device_id="d2", anonymous_id="a2"))
    shop.build(lake, as_of=at(2), since=at(1).date())
    assert sorted(shop.read("SELECT user_id, events FROM core.users")) == [("comes-back", 3), ("resting", -1)]
    assert sorted(shop.read("SELECT device_id, started_at, events FROM core.sessions")) == [
        ("d1", at(0), -1), ("d2", at(0, hours=9), -1), ("d2", at(0, hours=23, minutes=50), 2)
    ]  # fmt: skip
    assert sorted(shop.read("SELECT device_id, events FROM core.devices")) == [("d1", -1), ("d2", 3)]
    assert sorted(shop.read("SELECT organisation_id, events FROM core.organisations")) == [("o1", -1), ("o2", -1)]
    assert sorted(shop.read("SELECT organisation_id, events FROM core.organisation_members")) == [("o1", -1), ("o2", 1)]
    assert sorted(shop.read("SELECT id, users FROM core.identities")) == [("a1", -1), ("a2", 1), ("d1", -1), ("d2", 1)]
    assert sorted(shop.read("SELECT anonymous_id, users FROM core.identity_map")) == [("a1", -1), ("a2", 1)]


def test_a_day_without_files_and_a_later_clock_touch_nobody(recorded: Recorded) -> None:
    lake = Lake(
        [row("e", at(0), user_id="u", device_id="d")], [("u", "analytics", "ledger", at(0).isoformat(), "granted")]
    )
    shop = CoreShop(recorded)
    shop.build(lake, as_of=at(1))
    shop.con.execute("UPDATE core.users SET events = -1; UPDATE core.sessions SET events = -1")
    shop.build(lake, as_of=at(9), since=None)
    assert shop.read("SELECT events FROM core.users UNION ALL SELECT events FROM core.sessions") == [(-1,), (-1,)]
