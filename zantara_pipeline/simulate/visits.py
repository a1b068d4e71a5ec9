"""One visit told as events: what is looked at, put in the cart, bought, rated, shown.

Belongs here: the clean story of a visit, event by event, with its properties. Does not belong here: the envelope
around an event (`lines`), faults (`faults`), and who visits when (`sessions`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zantara_pipeline.simulate.catalogue import ANY_CLUSTER, Catalogue
from zantara_pipeline.simulate.effects import EXPERIMENTS, LOAD_FACTOR, LOAD_SIGMA, Arms
from zantara_pipeline.simulate.parameters import Parameters
from zantara_pipeline.simulate.people import People
from zantara_pipeline.simulate.sessions import LIST_LENGTH, Sessions

SIGNAL = 0.8  # share of views that follow the visitor's own taste
FIRST_TASTE = 0.75  # of those, the share that follows the first of the two clusters
GAP_MS, GAP_MOST_MS = 20_000.0, 80_000  # between events; 40 events stay under an hour
LOAD_MEDIAN_MS = 900.0
PLATFORM_SLOWNESS = {"web": 1.0, "ios": 0.95, "android": 1.05}
TAGS = ["gift", "cosy", "for the office", "as pictured", "too small", "great value"]
PAGES = ["/home", "/search", "/product", "/cart", "/category"]
Event = tuple[int, str, dict[str, Any]]  # occurred_ms, name, properties


class Draws:
    """The day's random numbers, drawn in vectors and handed out one by one."""

    def __init__(self, rng: np.random.Generator) -> None:
        u, gap, load, delay, bits = rng.spawn(5)
        self.uniform = self._stream(lambda: u.random(4096))
        self.gap_ms = self._stream(lambda: np.minimum(gap.exponential(GAP_MS, 4096), GAP_MOST_MS).astype(np.int64) + 1)
        self.load = self._stream(lambda: load.lognormal(0.0, LOAD_SIGMA, 4096))
        # Collectors receive within seconds; two minutes at most keeps the last visit of a day within the day.
        self.delay_ms = self._stream(lambda: np.minimum(delay.lognormal(7.6, 0.8, 4096), 120_000).astype(np.int64))
        self.ids = self._ids(bits)

    def u(self) -> float:
        return float(next(self.uniform))

    @staticmethod
    def _stream(draw: Callable[[], Any]) -> Iterator[Any]:
        while True:
            yield from draw().tolist()

    @staticmethod
    def _ids(rng: np.random.Generator) -> Iterator[str]:
        while True:
            text = rng.bytes(16 * 1024).hex()
            for i in range(0, len(text), 32):
                h = text[i : i + 32]
                yield f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


@dataclass
class Shop:
    """Everything that is fixed before the first day, and each person's last purchase as the days go by."""

    parameters: Parameters
    catalogue: Catalogue
    people: People
    sessions: Sessions
    arms: Arms
    last_bought: dict[int, dict[str, Any]] = field(default_factory=dict)


def visit_events(shop: Shop, visit: int, choices: list[list[float]], draws: Draws) -> list[Event]:
    """The events of one visit in time order.

    Parameters
    ----------
    choices : the day's cumulative view probabilities (`Catalogue.choices`).
    """
    s, catalogue, user = shop.sessions, shop.catalogue, int(shop.sessions.user[visit])
    now = int(s.start_ms[visit])
    told: list[Event] = []

    def tell(name: str, properties: dict[str, Any]) -> None:
        nonlocal now
        told.append((now, name, properties))
        now += next(draws.gap_ms)

    referrer = None if draws.u() < 0.3 else "https://search.example/"
    tell("session_started", {"entry_page": PAGES[int(draws.u() * 3)], "referrer": referrer})
    for experiment in EXPERIMENTS:
        if shop.arms.logged[experiment][visit]:
            variant = "treatment" if shop.arms.variant[experiment][visit] else "control"
            tell("experiment_exposed", {"experiment_id": experiment, "variant": variant})
    for _ in range(s.pages[visit]):
        tell("page_timing", {"page": PAGES[int(draws.u() * 5)], "load_ms": _load_ms(shop, visit, user, draws)})
    if s.shows_list[visit]:
        list_id = f"list-{next(draws.ids)[:13]}"
        shown = [_choose(shop.people.taste[user], choices, draws) for _ in range(LIST_LENGTH)]
        entries: list[dict[str, Any]] = [
            {"list_id": list_id, "product_id": catalogue.product_id[i], "position": p, "bundle_version": "sim-0"}
            for p, i in enumerate(shown, start=1)
        ]
        told += [(now, "recommendation_exposed", entry) for entry in entries]
        now += next(draws.gap_ms)
        for item, entry in zip(shown, entries, strict=True):
            liked = catalogue.cluster[item] in shop.people.taste[user]
            if draws.u() < (0.25 if liked else 0.06) / entry["position"] ** 0.5:
                tell("recommendation_clicked", entry)
    viewed = [_choose(shop.people.taste[user], choices, draws) for _ in range(s.views[visit])]
    for item in viewed:
        tell("product_view", catalogue.properties(item))
    if s.cart_only[visit]:
        tell("add_to_cart", {**catalogue.properties(viewed[-1]), "quantity": 1})
    if shop.arms.buys[visit]:
        _buy(shop, visit, user, viewed, draws, tell)
    elif s.refunds[visit] and user in shop.last_bought:
        tell("refund", _refund(shop.last_bought.pop(user), draws))
    if s.rates[visit]:
        tell("rating", _rating(shop, user, viewed[0], draws))
    if s.tags[visit]:
        tell("item_tag", {"product_id": catalogue.product_id[viewed[0]], "tag": TAGS[int(draws.u() * len(TAGS))]})
    if shop.arms.crashes[visit]:
        tell("app_crashed", {"error_class": "OutOfMemoryError" if draws.u() < 0.5 else "RenderError"})
    return told


def _choose(taste: tuple[int, int], choices: list[list[float]], draws: Draws) -> int:
    cluster = ANY_CLUSTER
    if draws.u() < SIGNAL:
        cluster = taste[0] if draws.u() < FIRST_TASTE else taste[1]
    table = choices[cluster]
    return min(bisect_right(table, draws.u()), len(table) - 1)


def _load_ms(shop: Shop, visit: int, user: int, draws: Draws) -> float:
    platform = shop.people.platform[user][int(shop.sessions.device[visit])]
    load = LOAD_MEDIAN_MS * PLATFORM_SLOWNESS[platform] * float(shop.people.slowness[user]) * float(next(draws.load))
    return round(load * (LOAD_FACTOR if shop.arms.slow[visit] else 1.0), 1)


def _buy(
    shop: Shop, visit: int, user: int, viewed: list[int], draws: Draws, tell: Callable[[str, dict[str, Any]], None]
) -> None:
    """One order of one or two lines of what was viewed; nine in ten go through the cart."""
    order_id = f"order-{next(draws.ids)[:13]}"
    for line in range(int(shop.sessions.units[visit])):
        properties = shop.catalogue.properties(viewed[line % len(viewed)])
        # Geometric with mean `bulk` (how many more than one this person takes), at most nine more.
        more = float(shop.people.bulk[user])
        quantity = 1 + min(9, int(np.log(1.0 - draws.u()) / np.log(more / (1.0 + more)))) if more > 0.01 else 1
        if not shop.sessions.direct[visit]:
            tell("add_to_cart", {**properties, "quantity": quantity})
        bought = {**properties, "order_id": order_id, "quantity": quantity}
        tell("purchase", bought)
        shop.last_bought[user] = bought


def _refund(bought: dict[str, Any], draws: Draws) -> dict[str, Any]:
    """All of the last order line; one source in three writes the quantity with a minus sign."""
    kept = {key: bought[key] for key in ("product_id", "order_id", "category", "price", "currency")}
    return {**kept, "quantity": -bought["quantity"] if draws.u() < 0.3 else bought["quantity"]}


def _rating(shop: Shop, user: int, item: int, draws: Draws) -> dict[str, Any]:
    """4 or 5 for what fits the visitor's taste, most of the time; 1 to 3 otherwise."""
    liked = shop.catalogue.cluster[item] in shop.people.taste[user]
    high = draws.u() < (0.85 if liked else 0.2)
    stars = 4 + int(draws.u() * 2) if high else 1 + int(draws.u() * 3)
    return {"product_id": shop.catalogue.product_id[item], "rating": stars, "scale_min": 1, "scale_max": 5}
