"""Whose an event is and where a session ends: the stated rules case by case, and against a naive reading of them."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import pytest
from core_shop import CoreShop, Lake, Recorded, Row, at, row
from test_core_follows_the_lake import WORLDS, world

IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=12)


@pytest.fixture
def build(recorded: Recorded) -> Any:
    def built(*rows: Row, consent: list[tuple[str, str, str, str, str]] | None = None) -> CoreShop:
        shop = CoreShop(recorded)
        shop.build(Lake(list(rows), consent or []), as_of=at(20))
        return shop

    return built


def people(shop: CoreShop) -> dict[str, str | None]:
    return dict(shop.read("SELECT event_id, person_id FROM staging.int_events__stitched"))


def test_browsing_before_and_after_the_only_login_is_that_persons(build: Any) -> None:
    shop = build(
        row("before", at(0), anonymous_id="a"),
        row("login", at(3), anonymous_id="a", user_id="u"),
        row("after", at(6), anonymous_id="a"),
    )
    assert people(shop) == {"before": "u", "login": "u", "after": "u"}


def test_the_last_login_wins_on_a_shared_browser(build: Any) -> None:
    shop = build(
        row("before", at(0), anonymous_id="a"),
        row("first", at(1), anonymous_id="a", user_id="u"),
        row("between", at(2), anonymous_id="a"),
        row("second", at(3), anonymous_id="a", user_id="v"),
        row("after", at(4), anonymous_id="a"),
    )
    assert people(shop) == {"before": None, "first": "u", "between": "u", "second": "v", "after": "v"}
    assert shop.read("SELECT user_id FROM core.identity_map") == [("v",)]


def test_a_guest_on_a_known_device_stays_a_guest(build: Any) -> None:
    """Another browser on the family's tablet: the device is asked only where an event has no anonymous id."""
    shop = build(
        row("login", at(0), device_id="d", anonymous_id="a", user_id="u"),
        row("guest", at(1), device_id="d", anonymous_id="b"),
        row("app", at(2), device_id="d"),
    )
    assert people(shop) == {"login": "u", "guest": None, "app": "u"}


@pytest.mark.parametrize("word", ["guest", "", "  ", "Undefined", "NULL", "00000000-0000-0000-0000-000000000000"])
def test_words_that_stand_for_no_id_make_nobody_of_guests(build: Any, word: str) -> None:
    shop = build(
        row("one", at(0), user_id=word, device_id="d1"),
        row("two", at(0, minutes=1), user_id=word, device_id="d2"),
        row("login", at(1), user_id="u", anonymous_id=word, device_id=word),
        row("other", at(2), anonymous_id=word, device_id=word),
        row("nothing", at(2)),
    )
    assert people(shop) == {"one": None, "two": None, "login": "u", "other": None, "nothing": None}
    assert shop.read("SELECT user_id FROM core.users") == [("u",)]
    assert sorted(shop.read("SELECT device_id FROM core.devices")) == [("d1",), ("d2",)]
    assert shop.read("SELECT count(*) FROM core.identity_map") == [(0,)]


def test_a_kiosk_says_nothing_about_guests(build: Any) -> None:
    logins = [row(f"login{n}", at(n), anonymous_id="kiosk", user_id=f"u{n}") for n in range(11)]
    shop = build(*logins, row("guest", at(15), anonymous_id="kiosk"))
    assert people(shop)["guest"] is None
    assert people(build(*logins[:10], row("guest", at(15), anonymous_id="kiosk")))["guest"] == "u9"


def test_a_session_with_one_login_is_that_persons_and_a_shared_one_nobodys(build: Any) -> None:
    shop = build(
        row("old", at(0), device_id="d", anonymous_id="a", user_id="u"),
        row("browse", at(1), device_id="d", anonymous_id="a"),
        row("login", at(1, minutes=5), device_id="d", anonymous_id="a", user_id="v"),
        row("one", at(2), device_id="d", anonymous_id="a", user_id="u"),
        row("two", at(2, minutes=5), device_id="d", anonymous_id="a", user_id="v"),
        row("unclear", at(2, minutes=9), device_id="d", anonymous_id="a"),
    )
    assert people(shop) == {"old": "u", "browse": "v", "login": "v", "one": "u", "two": "v", "unclear": None}
    owners = "SELECT started_at, user_id, users, is_shared, anonymous_events FROM core.sessions ORDER BY 1"
    assert shop.read(owners) == [(at(0), "u", 1, False, 0), (at(1), "v", 1, False, 1), (at(2), None, 2, True, 1)]


def test_browsing_is_not_given_to_a_person_who_had_denied(build: Any) -> None:
    denied = [
        ("u", "analytics", "ledger", at(1).isoformat(), "denied"),
        ("u", "analytics", "ledger", at(3).isoformat(), "granted"),
    ]
    shop = build(
        row("login", at(0), anonymous_id="a", user_id="u"),
        row("while", at(2), anonymous_id="a"),
        row("again", at(4), anonymous_id="a"),
        consent=denied,
    )
    assert people(shop) == {"login": "u", "while": None, "again": "u"}


def test_midnight_cuts_nothing_and_thirty_minutes_do(build: Any) -> None:
    times = [at(0, hours=23, minutes=50), at(1, minutes=20), at(1, minutes=50, seconds=1)]
    shop = build(*(row(f"e{n}", time, user_id="u") for n, time in enumerate(times)))
    assert shop.read("SELECT started_at, ended_at, events FROM core.sessions ORDER BY 1") == [
        (times[0], times[1], 2), (times[2], times[2], 1)
    ]  # fmt: skip


def test_activity_that_never_pauses_is_cut_at_the_maximum(build: Any) -> None:
    shop = build(*(row(f"e{n}", at(0, minutes=20 * n), device_id="tv") for n in range(100)))
    starts = [start for (start,) in shop.read("SELECT started_at FROM core.sessions ORDER BY 1")]
    assert starts == [at(0), at(0, hours=12), at(1)]


def test_a_person_belongs_to_the_organisation_of_their_latest_event(build: Any) -> None:
    shop = build(
        row("first", at(0), user_id="u", organisation_id="o1"),
        row("moved", at(5), user_id="u", organisation_id="o2"),
        row("colleague", at(2), user_id="v", organisation_id="o1"),
        row("guest", at(3), organisation_id="o1"),
    )
    members = "SELECT organisation_id, user_id, is_current FROM core.organisation_members ORDER BY 1, 2"
    assert shop.read(members) == [("o1", "u", False), ("o1", "v", True), ("o2", "u", True)]
    assert shop.read("SELECT organisation_id, users, events FROM core.organisations ORDER BY 1") == [
        ("o1", 2, 3),
        ("o2", 1, 1),
    ]


# --- the same rules, read naively -------------------------------------------------------------------------------------


def _known(text: str | None) -> str | None:
    return None if text is None or text.strip().lower() in ("", "guest", "undefined") else text


def naive_sessions(events: list[Row]) -> dict[str, list[list[Row]]]:
    """Stream -> sessions, one event after the other."""
    streams: dict[str, list[Row]] = defaultdict(list)
    for event in events:
        kinds = ("device_id", "anonymous_id", "user_id", "session_id")
        name = next((kind[:-3] + " " + event[kind] for kind in kinds if _known(event[kind])), None)
        if name:
            streams[name].append(event)
    cut: dict[str, list[list[Row]]] = {}
    for name, rows in streams.items():
        rows.sort(key=lambda event: event["occurred_at"])
        sessions: list[list[Row]] = []
        before: datetime | None = None
        for event in rows:
            if before is None or event["occurred_at"] - before > IDLE:
                began = event["occurred_at"]
                sessions.append([])
                piece = 0
            if (event["occurred_at"] - began) // LONGEST > piece:
                piece = (event["occurred_at"] - began) // LONGEST
                sessions.append([])
            sessions[-1].append(event)
            before = event["occurred_at"]
        cut[name] = sessions
    return cut


def naive_people(events: list[Row]) -> dict[str, str | None]:
    """Person of every event, by looking at all logins again for each."""
    session_of = {
        event["event_id"]: {_known(one["user_id"]) for one in session} - {None}
        for sessions in naive_sessions(events).values()
        for session in sessions
        for event in session
    }
    found: dict[str, str | None] = {}
    for event in events:
        there = session_of.get(event["event_id"], set())
        if _known(event["user_id"]) or there:
            found[event["event_id"]] = _known(event["user_id"]) or (there.pop() if len(there) == 1 else None)
            continue
        kind = "anonymous_id" if _known(event["anonymous_id"]) else "device_id"
        logins = [
            (login["occurred_at"], login["event_id"], login["user_id"])
            for login in events
            if _known(event[kind]) and login[kind] == event[kind] and _known(login["user_id"])
        ]
        earlier = [login for login in logins if login[0] <= event["occurred_at"]]
        single = len({user for _, _, user in logins}) == 1
        found[event["event_id"]] = max(earlier)[2] if earlier else (logins[0][2] if single else None)
    return found


def test_sessions_and_people_equal_a_naive_reading(recorded: Recorded) -> None:
    rng = random.Random(11)
    rows = [event for name in range(WORLDS) for _, event in world(rng, name)]
    first: dict[str, Row] = {}
    for event in sorted(rows, key=lambda event: (event["received_at"], event["line_no"])):
        first.setdefault(event["event_id"], event)
    events = list(first.values())
    shop = CoreShop(recorded)
    shop.build(Lake(rows), as_of=at(20))
    found = shop.read("SELECT stream, started_at, ended_at, events FROM core.sessions")
    assert sorted(found) == sorted(
        (name, session[0]["occurred_at"], session[-1]["occurred_at"], len(session))
        for name, sessions in naive_sessions(events).items()
        for session in sessions
    )
    assert people(shop) == naive_people(events)
    assert {*people(shop).values()} > {None, "u1.0"}
