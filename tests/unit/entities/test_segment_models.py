"""Who is in which segment: against a naive reading of the stated rules, and the same again when the past is built anew."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from core_shop import CoreShop, Lake, Recorded, Row, at, row
from test_identity_rules import naive_sessions

from zantara_pipeline.tracking.sources import BEGINNING

Statement = tuple[str, ...]  # as in core_shop.Lake.consent
Members = dict[str, list[tuple[Any, ...]]]
DAY = timedelta(days=1)
WORLDS, LAST = 40, 130
NO_IDS = (None, "guest", "")
SHOPPING = ("product_view", "product_view", "product_view", "add_to_cart", "purchase", "purchase", "refund")
OTHERS = ("session_started", "rating")


# --- random shops -----------------------------------------------------------------------------------------------------


def world(rng: random.Random, name: int) -> Iterator[Row]:
    """A few people around two devices: rushes, long silences, late arrivals, copies, denials that come with events."""
    starts = [at(rng.choice((rng.randrange(LAST), LAST - rng.randrange(15)))) for _ in range(rng.randrange(2, 8))]
    shy = rng.random() < 0.4
    for number in range(rng.randrange(6, 30)):
        occurred = rng.choice(starts) + timedelta(
            minutes=rng.choice((0, 1, 20, 31, 45, 700, 800)) * rng.choice((1, 1, 2))
        )
        late = rng.choice((timedelta(seconds=2),) * 5 + (timedelta(days=2), timedelta(days=9)))
        user = rng.choice(NO_IDS) if rng.random() < 0.15 else f"u{name}.{rng.choice((0, 0, 1))}"
        kind = rng.choice(SHOPPING + OTHERS)
        event = row(f"{name}-{number}", occurred, occurred + late, event=kind, user_id=user,
                    device_id=f"d{name}.{rng.randrange(2)}", organisation_id=rng.choice((None, f"o{name % 7}")),
                    consent_personalization=rng.choice((False, None)) if shy and rng.random() < 0.1 else True,
                    line_no=name * 1000 + number)  # fmt: skip
        if kind in SHOPPING:
            event |= {"product_id": f"p{rng.randrange(4)}", "category": rng.choice((None, "a", "a", "b")), "currency": "EUR",
                      "price": rng.choice((None, Decimal(10), Decimal(60), Decimal(200)))}  # fmt: skip
        if kind in ("add_to_cart", "purchase", "refund"):
            event |= {"quantity": rng.choice((None, 1, 2)), "order_id": rng.choice((None, f"order{rng.randrange(3)}"))}
        if kind == "refund":
            event.pop("brand", None)
        yield event
        if rng.random() < 0.1:
            again = event["received_at"] + timedelta(days=rng.choice((0, 3)), seconds=5)
            yield event | {"received_at": again, "received_date": again.date(), "line_no": event["line_no"] + 500}


def consent(rng: random.Random, rows: list[Row]) -> list[Statement]:
    """Most people grant before they come; some withdraw, some grant again, some never said anything."""
    said: list[Statement] = []
    for user in sorted({event["user_id"] for event in rows} - set(NO_IDS)):
        kind = rng.random()
        if kind < 0.08:
            continue
        said.append((user, "personalization", "ledger", at(-5).isoformat(), "granted"))
        if kind > 0.75:
            gone = rng.randrange(LAST)
            said.append((user, "personalization", "ledger", at(gone, hours=1).isoformat(), "denied"))
            if kind > 0.9:
                said.append((user, "personalization", "ledger", at(gone + 20).isoformat(), "granted"))
    return said


def told_later(rng: random.Random, rows: list[Row], clock: datetime) -> list[Statement]:
    """Withdrawals and grants that took effect before a clock, and came after a run had been built for it."""
    users = sorted({event["user_id"] for event in rows} - set(NO_IDS))
    return [
        (user, "personalization", "ledger", at(rng.randrange(LAST - 5)).isoformat(), rng.choice(("denied", "granted")),
         clock.isoformat())
        for user in rng.sample(users, len(users) // 3)
    ]  # fmt: skip


# --- the rules, read naively ------------------------------------------------------------------------------------------


def naive(rows: list[Row], said: list[Statement], as_of: datetime) -> Members:
    """Every segment, person by person, from what had happened and was received by the clock."""
    first: dict[str, Row] = {}
    for event in sorted(rows, key=lambda event: (event["received_at"], event["line_no"])):
        first.setdefault(event["event_id"], event)
    known = [event for event in first.values() if event["occurred_at"] <= as_of and event["received_at"] <= as_of]
    latest: dict[str, tuple[str, str]] = {}
    for user, _, _, since, status, *unknown_at in said:
        was_known = not unknown_at or as_of > datetime.fromisoformat(unknown_at[0])
        if datetime.fromisoformat(since) <= as_of and was_known:
            latest[user] = max(latest.get(user, ("", "")), (since, status))
    people = {user for user, (_, status) in latest.items() if status == "granted"} - set(NO_IDS)
    allowed = [event for event in known if event["user_id"] in people and event["consent_personalization"] is True]
    mine: dict[str, list[Row]] = defaultdict(list)
    for event in allowed:
        mine[event["user_id"]].append(event)
    found: Members = defaultdict(list)
    for user, events in mine.items():
        for name, member in _of_person(sorted(events, key=lambda event: event["occurred_at"]), as_of):
            found[name].append((user, *member))
    for name, member in _of_others(known, allowed, people, as_of):
        found[name].append(member)
    return {name: sorted(members) for name, members in found.items()}


def _within(events: list[Row], as_of: datetime, days: int, *kinds: str) -> list[Row]:
    return [e for e in events if e["occurred_at"] > as_of - days * DAY and (not kinds or e["event"] in kinds)]


def _money(event: Row) -> Decimal:
    amount = (event["price"] or Decimal(0)) * (1 if event.get("quantity") is None else event["quantity"])
    return -amount if event["event"] == "refund" else amount


def _of_person(events: list[Row], as_of: datetime) -> Iterator[tuple[str, tuple[Any, ...]]]:
    def times(chosen: list[Row], ttl: int) -> tuple[datetime, datetime]:
        return chosen[0]["occurred_at"], chosen[-1]["occurred_at"] + ttl * DAY

    if bought := _within(events, as_of, 30, "purchase"):
        yield "seg_recent_buyers", times(bought, 30)
    all_bought = [e for e in events if e["event"] == "purchase"]
    carts = [
        cart
        for cart in _within(events, as_of, 7, "add_to_cart")
        if not any(
            b["product_id"] == cart["product_id"] and b["occurred_at"] >= cart["occurred_at"] for b in all_bought
        )
    ]
    if carts:
        yield "seg_cart_abandoners", times(carts, 7)
    paid = _within(events, as_of, 90, "purchase", "refund")
    if sum(map(_money, paid)) >= 500:
        yield "seg_high_spenders", times(paid, 90)
    yield from _rfm_and_lapsing(events, as_of)
    weights: dict[str, int] = defaultdict(int)
    looked = [e for e in _within(events, as_of, 30, "product_view", "add_to_cart", "purchase") if e["category"]]
    for event in looked:
        weights[event["category"]] += {"product_view": 1, "add_to_cart": 3, "purchase": 5}[event["event"]]
    if weights:
        best = min(weights, key=lambda category: (-weights[category], category))
        if weights[best] >= 5 and weights[best] * 2 >= sum(weights.values()):
            yield "seg_category_affinity", (*times([e for e in looked if e["category"] == best], 30), best)
    yield from _price_sensitive(events, as_of)
    began = events[0]["occurred_at"]
    if began > as_of - 14 * DAY:
        kinds = {e["event"] for e in events}
        stage = "bought" if "purchase" in kinds else "interested" if kinds & {"add_to_cart", "rating"} else "looked"
        yield "seg_new_users", (began, began + 14 * DAY, stage)
    lately = _within(events, as_of, 30)
    if (devices := len({e["device_id"] for e in lately})) >= 2:
        yield "seg_multi_device_users", (*times(lately, 30), devices)


def _rfm_and_lapsing(events: list[Row], as_of: datetime) -> Iterator[tuple[str, tuple[Any, ...]]]:
    bought = _within(events, as_of, 365, "purchase")
    if not bought:
        return
    last, orders = bought[-1]["occurred_at"], len({e["order_id"] or e["event_id"] for e in bought})
    money = sum(map(_money, _within(events, as_of, 365, "purchase", "refund")))
    r = 3 if last > as_of - 30 * DAY else 2 if last > as_of - 90 * DAY else 1
    f = min(orders, 3)
    m = 3 if money >= 300 else 2 if money >= 100 else 1
    if r == 3:
        name = {(3, 3): "champion", (3, 2): "loyal", (3, 1): "loyal", (1, 3): "big spender", (2, 3): "big spender"}.get((f, m), "promising")  # fmt: skip
    else:
        name = "lost" if r == 1 else "at risk" if f + m >= 5 else "cooling"
    yield "seg_rfm_classes", (bought[0]["occurred_at"], last + 365 * DAY, name, r, f, m)
    if orders >= 2 and as_of - 90 * DAY < last <= as_of - 30 * DAY:
        yield "seg_lapsing_customers", (last + 30 * DAY, last + 90 * DAY)


def _price_sensitive(events: list[Row], as_of: datetime) -> Iterator[tuple[str, tuple[Any, ...]]]:
    views = [e for e in _within(events, as_of, 90, "product_view") if e["category"] and e["price"] is not None]
    compared = []
    for event in _within(events, as_of, 90, "purchase"):
        seen = [view["price"] for view in views if view["category"] == event["category"]]
        if seen and event["price"] is not None:
            compared.append((event["occurred_at"], event["price"] <= Decimal("0.8") * sum(seen) / len(seen)))
    cheap = [when for when, is_cheap in compared if is_cheap]
    if len(compared) >= 2 and len(cheap) * 2 >= len(compared):
        yield "seg_price_sensitive_buyers", (cheap[0], cheap[-1] + 90 * DAY)


def _of_others(
    known: list[Row], allowed: list[Row], people: set[str], as_of: datetime
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    denied = {e["device_id"] for e in known if e["user_id"] not in {*NO_IDS, *people}}
    for name, key, taken in (
        ("seg_shared_devices", "device_id", [e for e in allowed if e["device_id"] not in denied]),
        ("seg_active_organisations", "organisation_id", allowed),
    ):
        grouped: dict[str, list[Row]] = defaultdict(list)
        for event in _within(taken, as_of, 30):
            if event[key]:
                grouped[event[key]].append(event)
        for entity, events in grouped.items():
            times = [event["occurred_at"] for event in events]
            if (count := len({event["user_id"] for event in events})) >= 2:
                yield name, (entity, min(times), max(times) + 30 * DAY, count)
    for sessions in naive_sessions(known).values():
        for events in sessions:
            users = {event["user_id"] for event in events} - set(NO_IDS)
            kinds = [event["event"] for event in events]
            began, ended = events[0]["occurred_at"], events[-1]["occurred_at"]
            fine = users and users <= people and all(event["consent_personalization"] is True for event in events)
            over = as_of - 7 * DAY < ended < as_of - timedelta(minutes=30)
            if fine and over and "purchase" not in kinds and (carts := kinds.count("add_to_cart")):
                yield "seg_cart_sessions", (began, ended + 7 * DAY, carts)


def without_session_ids(members: Members) -> Members:
    """A session's id is a hash that the naive reading does not make; what else it says is compared."""
    return {
        name: sorted(row[1:] for row in rows) if name == "seg_cart_sessions" and rows and len(rows[0]) == 4 else rows
        for name, rows in members.items()
        if rows
    }


# --- what must hold ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_members_follow_the_stated_rules_and_the_past_built_anew_has_the_same(recorded: Recorded, seed: int) -> None:
    """Two clocks; at each the lake holds what was received by then. Then the first again, with everything in the lake and all
    that people said, also what they said later of the time before."""
    rng = random.Random(seed)
    rows = [event for name in range(WORLDS) for event in world(rng, name)]
    said = consent(rng, rows)
    early, late = at(LAST - 4, hours=5), at(LAST + 9)
    shop = CoreShop(recorded)
    landed = [event for event in rows if event["received_at"] <= early]
    heard = [statement for statement in said if datetime.fromisoformat(statement[3]) <= early]
    shop.build(Lake(landed, heard), as_of=early)
    then = shop.build_segments()
    assert without_session_ids(then) == without_session_ids(naive(rows, said, early))
    assert all(then.values()), "a segment that is never tried"
    later = told_later(rng, rows, early)
    assert naive(rows, [*said, *(words[:5] for words in later)], early) != naive(rows, said, early)
    said += later
    since = min(event["received_date"] for event in rows if event["received_at"] > early)
    shop.build(Lake(rows, said), as_of=late, since=since)
    assert without_session_ids(shop.build_segments()) == without_session_ids(naive(rows, said, late))
    anew = CoreShop(recorded)
    for replaying in (shop, anew):
        lake = Lake(rows, said, latest_clock=late)
        replaying.build(lake, as_of=early, since=since if replaying is shop else BEGINNING)
        assert replaying.build_segments() == then
    assert len(landed) < len(rows) and any(e["occurred_at"] <= early < e["received_at"] for e in rows)


def test_a_segment_ends_at_its_ttl_and_qualifying_again_renews_it(recorded: Recorded) -> None:
    lake = Lake([row("b", at(0), user_id="u", event="purchase", product_id="p", price=Decimal(5), quantity=1)],
                [("u", "personalization", "ledger", at(-1).isoformat(), "granted")])  # fmt: skip
    shop = CoreShop(recorded)

    def expires(days: float) -> list[tuple[Any, ...]]:
        shop.build(lake, as_of=at(days), since=at(0).date())
        return [member[1:] for member in shop.build_segments()["seg_recent_buyers"]]

    assert expires(29.99) == [(at(0), at(30))]
    assert expires(30) == []
    lake.rows.append(row("again", at(29), user_id="u", event="purchase", product_id="p"))
    assert expires(29.5) == [(at(0), at(59))]
    assert expires(31) == [(at(29), at(59))]


def test_whoever_never_said_anything_or_withdrew_is_in_no_segment_of_any_kind(recorded: Recorded) -> None:
    """Two people who share a device and a company, with carts and purchases: nothing is left when one of them withdraws."""
    events = [
        row(f"{user} {device} {number}", at(1, minutes=number), event=kind, user_id=user, device_id=device, organisation_id="o",
            product_id="p", category="c", price=Decimal(300))
        for user in ("u", "v") for device in ("shared", user)
        for number, kind in enumerate(("product_view", "add_to_cart", "add_to_cart"))
    ]  # fmt: skip
    granted = [(user, "personalization", "ledger", at(0).isoformat(), "granted") for user in ("u", "v")]
    shop = CoreShop(recorded)
    shop.build(Lake(events, granted), as_of=at(2))
    both = shop.build_segments()
    assert [m[0] for m in both["seg_shared_devices"]] == ["shared"] and [
        m[0] for m in both["seg_active_organisations"]
    ] == ["o"]
    assert [m[0] for m in both["seg_cart_abandoners"]] == ["u", "v"] and len(both["seg_cart_sessions"]) == 3
    withdrawn = [*granted, ("v", "personalization", "ledger", at(2).isoformat(), "denied")]
    shop.build(Lake(events, withdrawn), as_of=at(2, hours=1), since=None)
    one = shop.build_segments()
    assert one["seg_shared_devices"] == one["seg_active_organisations"] == []
    assert [m[0] for m in one["seg_cart_abandoners"]] == ["u"] and len(one["seg_cart_sessions"]) == 1
    shop.build(Lake(events, []), as_of=at(2, hours=2), since=None)
    assert not any(shop.build_segments().values())
