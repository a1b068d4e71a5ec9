"""When people visit and what they mean to do there: one row per visit, everything drawn but the details.

Belongs here: the visits and the number of lines each will write, so that the total can be met. Does not belong here:
consent, experiments, and the lines themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from zantara_pipeline.simulate.parameters import DAY_MS, HOUR_MS, Parameters
from zantara_pipeline.simulate.people import Bools, Floats, Ints, People

# Visits start in one of three slots of a day and last under an hour, so no visit of a person overlaps another and none
# crosses midnight: consent that changes at the start of a visit then holds for exactly the visits from there on.
SLOT_HOURS = (6, 12, 18)
SLOT_LENGTH_HOURS = 4.9
LIST_LENGTH = 4
LATE_SHARE = 0.01
LATE_LEAST_MS, LATE_MOST_MS = 25 * HOUR_MS, 110 * HOUR_MS  # over 24 h, under 5 days


@dataclass(frozen=True)
class Sessions:
    """Parallel arrays ordered by (start, user). Uniform draws (`*_u`) are compared with chances known only later."""

    user: Ints
    day: Ints
    start_ms: Ints
    device: Ints
    pages: Ints
    views: Ints
    cart_only: Bools
    direct: Bools
    units: Ints  # purchase lines, if it comes to a purchase
    rates: Bools
    tags: Bools
    refunds: Bools
    shows_list: Bools
    buy_u: Floats
    crash_u: Floats
    late_ms: Ints  # 0, or how long the device was offline after the visit

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: Ints) -> Sessions:
        return Sessions(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def make_sessions(parameters: Parameters, people: People, sees_lists: Bools, budget: int) -> Sessions:
    """As many visits as write about `budget` lines, in time order.

    Parameters
    ----------
    sees_lists : per person, whether the client may show recommendations.
    budget : lines that the visits should write.
    """
    wanted = budget // 7
    for _ in range(20):
        pool = _pool(parameters, people, sees_lists, wanted)
        lines = np.cumsum(_expected_lines(parameters, people, pool))
        if lines[-1] >= budget:
            kept = pool.take(np.flatnonzero(lines <= budget))
            return kept.take(np.lexsort((kept.user, kept.start_ms)))
        wanted = int(wanted * 1.3)
    raise AssertionError("the period is too short for so many visits")  # bounds of Parameters keep this away


def sessions_of(sessions: Sessions, people: People) -> list[Ints]:
    """Per person, the indexes of their visits in time order."""
    order = np.argsort(sessions.user, kind="stable")
    cuts = np.searchsorted(sessions.user[order], np.arange(len(people) + 1))
    return [order[a:b] for a, b in pairwise(cuts.tolist())]


def _pool(parameters: Parameters, people: People, sees_lists: Bools, n: int) -> Sessions:
    rng = parameters.rng("sessions")
    present = (parameters.days - people.arrival_day) / parameters.days
    weight = people.activity * present
    user = rng.choice(len(people), n, p=weight / weight.sum())
    arrival = people.arrival_day[user]
    day = arrival + (rng.random(n) * (parameters.days - arrival)).astype(np.int64)
    slot = rng.choice(3, n, p=[0.25, 0.3, 0.45])
    _, first = np.unique((user * parameters.days + day) * 3 + slot, return_index=True)
    keep = np.sort(first)  # in the order drawn, so that cutting the pool short takes a fair sample
    user, day, slot = user[keep], day[keep], slot[keep]
    n = len(keep)
    within = (rng.random(n) * SLOT_LENGTH_HOURS * HOUR_MS).astype(np.int64)
    start_ms = parameters.start_ms + day * DAY_MS + np.array(SLOT_HOURS)[slot] * HOUR_MS + within
    device = (rng.random(n) < 0.25).astype(np.int64)
    late = (rng.random(n) < LATE_SHARE) & (~people.guest[user])
    late_ms = rng.integers(LATE_LEAST_MS, LATE_MOST_MS, n)
    late &= start_ms + late_ms + HOUR_MS < parameters.end_ms
    return Sessions(
        user=user,
        day=day,
        start_ms=start_ms,
        device=device,
        pages=1 + np.minimum(rng.poisson(0.35, n), 4),
        views=1 + np.minimum(rng.poisson(1.7, n), 9),
        cart_only=rng.random(n) < 0.12,
        direct=rng.random(n) < 0.1,
        units=1 + (rng.random(n) < 0.3).astype(np.int64),
        rates=rng.random(n) < 0.1,
        tags=rng.random(n) < 0.02,
        refunds=rng.random(n) < 0.06,
        shows_list=(rng.random(n) < 0.14) & sees_lists[user],
        buy_u=rng.random(n),
        crash_u=rng.random(n),
        late_ms=np.where(late, late_ms, 0),
    )


def _expected_lines(parameters: Parameters, people: People, s: Sessions) -> Floats:
    """Lines a visit will write; what is not yet drawn counts with its mean."""
    exposures = np.where((s.day >= parameters.days_before) & ~people.guest[s.user], 2.88, 0.0)
    bought = s.units * (s.buy_u < people.buy[s.user])
    carts = bought * ~s.direct + s.cart_only
    lists = s.shows_list * (LIST_LENGTH + 0.6)
    return np.asarray(1.0 + exposures + s.pages + s.views + bought + carts + s.rates + s.tags + lists + 0.065)
