"""The three planted experiments: assignment, broken split, harm, and the effects that should be found.

Belongs here: who is in which arm, what the arm changes, and expected values and power in closed form.
Does not belong here: reading an experiment out (the product's `experiments` package does that, independently).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from zantara_pipeline.simulate.consent import Consent
from zantara_pipeline.simulate.parameters import Parameters, iso
from zantara_pipeline.simulate.people import SLOWNESS_SIGMA, Bools, Floats, Ints, People
from zantara_pipeline.simulate.sessions import Sessions
from zantara_pipeline.simulate.truth import Effect, ExperimentTruth, Srm

CHECKOUT, SEARCH, CAROUSEL = "checkout_redesign", "search_ranking", "image_carousel"
EXPERIMENTS = (CHECKOUT, SEARCH, CAROUSEL)
CONVERSION_LIFT = 0.20
# search_ranking: of so many treatment users whose first device is one of these, none of their exposures is logged
LOST_SHARE, LOST_ON = 0.6, "web"
LOAD_FACTOR = 1.15  # image_carousel's treatment
CRASH_CHANCE, CRASH_FACTOR = 0.004, 6.0
LOAD_SIGMA = 0.25  # of log load_ms, between page views of a person
LATENCY_THRESHOLD, CRASH_THRESHOLD = 0.05, -0.002
MIN_POWER = 0.95
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Arms:
    """Per experiment: treatment and lost per person; per visit: exposed (logged), and the variant it logs."""

    treatment: dict[str, Bools]
    logged: dict[str, Bools]
    variant: dict[str, Bools]  # True where the visit logs "treatment"
    contaminated: dict[str, int]
    hazard_factor: float
    buys: Bools
    crashes: Bools
    slow: Bools


def salt_of(experiment: str) -> str:
    return f"{experiment}:v1"


def bucket(salt: str, user_id: str) -> float:
    """Deterministic place of a unit in [0, 1): the first 8 bytes of SHA-256 of "salt:unit". Treatment is >= 0.5."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{user_id}".encode()).digest()[:8], "big") / 2**64


def make_arms(parameters: Parameters, people: People, sessions: Sessions, consent: Consent) -> Arms:
    """Assign, lose, contaminate, and let the treatments act on purchases, crashes and load times."""
    named = ~people.guest
    during = sessions.day >= parameters.days_before
    treatment, logged, variant, contaminated = {}, {}, {}, {}
    for experiment in EXPERIMENTS:
        place = np.array([bucket(salt_of(experiment), u) if u else 0.0 for u in people.user_id])
        treated = (place >= 0.5) & named
        lost = _lost(people, treated) if experiment == SEARCH else np.zeros(len(people), dtype=np.bool_)
        treatment[experiment] = treated
        logged[experiment] = during & (named & ~lost)[sessions.user]
        variant[experiment] = treated[sessions.user]
        contaminated[experiment] = _contaminate(
            parameters, experiment, people, sessions, consent, logged[experiment], variant[experiment]
        )
    acts = during & treatment[CHECKOUT][sessions.user]
    exposed = logged[CHECKOUT] & consent.ok_analytics
    hazard = -np.log1p(-people.buy[sessions.user])
    factor = _hazard_factor(_sum_by_user(sessions, hazard * exposed, len(people)), sessions.user[exposed])
    chance = -np.expm1(-hazard * np.where(acts, factor, 1.0))
    carousel = during & treatment[CAROUSEL][sessions.user]
    return Arms(
        treatment=treatment,
        logged=logged,
        variant=variant,
        contaminated=contaminated,
        hazard_factor=factor,
        buys=sessions.buy_u < chance,
        crashes=sessions.crash_u < CRASH_CHANCE * np.where(carousel, CRASH_FACTOR, 1.0),
        slow=carousel,
    )


def exposed_users(people: People, sessions: Sessions, consent: Consent, arms: Arms) -> dict[str, dict[str, int]]:
    """Users by the variant of their first exposure that gets past consent."""
    counts = {}
    for experiment in EXPERIMENTS:
        seen = np.flatnonzero(arms.logged[experiment] & consent.ok_analytics)
        _, first = np.unique(sessions.user[seen], return_index=True)
        treated = int(arms.variant[experiment][seen[first]].sum())
        counts[experiment] = {"control": len(first) - treated, "treatment": treated}
    return counts


def experiment_truth(
    parameters: Parameters,
    people: People,
    sessions: Sessions,
    consent: Consent,
    arms: Arms,
    exposed: dict[str, dict[str, int]],
    contaminated: dict[str, int],
) -> dict[str, ExperimentTruth]:
    """What a read-out should find, given the exposures that the reference counted."""
    truth = {}
    for experiment in EXPERIMENTS:
        seen = arms.logged[experiment] & consent.ok_analytics
        n0, n1 = exposed[experiment]["control"], exposed[experiment]["treatment"]
        visits = int(seen.sum())
        pages = int(sessions.pages[seen].sum())
        srm = _srm(experiment, n0, n1, people, arms)
        effects = [
            *_purchase_effects(experiment, people, sessions, seen, arms.hazard_factor, n0, n1),
            _latency_effect(experiment, pages, visits, n0, n1),
            _crash_effect(experiment, visits, n0, n1),
        ]
        truth[experiment] = ExperimentTruth(
            start=iso(parameters.experiments_start_ms),
            salt=salt_of(experiment),
            exposed=exposed[experiment],
            contaminated=contaminated[experiment],
            srm=srm,
            effects=effects,
            verdict={CHECKOUT: "positive", SEARCH: "srm", CAROUSEL: "guardrail_harm"}[experiment],
        )
    return truth


def _lost(people: People, treated: Bools) -> Bools:
    place = np.array([bucket("search_ranking:lost", u) if u else 1.0 for u in people.user_id])
    return np.asarray(treated & _on_lost_platform(people) & (place < LOST_SHARE))


def _on_lost_platform(people: People) -> Bools:
    return np.array([first == LOST_ON for first, _ in people.platform], dtype=np.bool_)


def _contaminate(
    parameters: Parameters,
    experiment: str,
    people: People,
    sessions: Sessions,
    consent: Consent,
    logged: Bools,
    variant: Bools,
) -> int:
    """Flip the variant of the second logged visit of a handful of users; returns how many."""
    seen = np.flatnonzero(logged & consent.ok_analytics)
    user, first, visits = np.unique(sessions.user[seen], return_index=True, return_counts=True)
    able = user[(visits >= 2) & consent.stable[user]]
    picked = parameters.rng(f"contaminate:{experiment}").permutation(able)[: max(2, round(0.002 * len(people)))]
    firsts = dict(zip(user.tolist(), seen[first].tolist(), strict=True))
    for one in picked.tolist():
        second = next(s for s in seen[sessions.user[seen] == one].tolist() if s != firsts[one])
        variant[second] = not variant[second]
    return len(picked)


def _sum_by_user(sessions: Sessions, value: Floats, people: int) -> Floats:
    return np.asarray(np.bincount(sessions.user, weights=value, minlength=people), dtype=np.float64)


def _hazard_factor(hazard: Floats, exposed: Ints) -> float:
    """The factor on purchase hazard that lifts expected conversion of the exposed users by CONVERSION_LIFT."""
    mine = hazard[np.unique(exposed)]
    if len(mine) == 0:
        return 1.0
    goal = (1.0 + CONVERSION_LIFT) * float(np.mean(-np.expm1(-mine)))
    low, high = 1.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.mean(-np.expm1(-middle * mine))) < goal:
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 6)


def _purchase_effects(
    experiment: str, people: People, sessions: Sessions, seen: Bools, factor: float, n0: int, n1: int
) -> list[Effect]:
    """Conversion: exact expectation over the exposed. Revenue: expected orders times each user's mean order size."""
    hazard = -np.log1p(-people.buy[sessions.user])
    users = np.unique(sessions.user[seen])
    per_user = _sum_by_user(sessions, hazard * seen, len(people))[users]
    k = factor if experiment == CHECKOUT else 1.0
    c0, c1 = (float(np.mean(-np.expm1(-f * per_user))) if len(users) else 0.0 for f in (1.0, k))
    size = 1.0 + people.bulk[sessions.user]
    r0, r1 = (float(np.sum(seen * size * -np.expm1(-f * hazard))) for f in (1.0, k))
    error = math.sqrt(c0 * (1 - c0) / max(n0, 1) + c1 * (1 - c1) / max(n1, 1))
    power = _power(c1 - c0, error)
    lift = c1 / c0 - 1.0 if c0 else 0.0
    revenue_lift = r1 / r0 - 1.0 if r0 else 0.0
    return [
        Effect("conversion", "primary", c0, c1, lift, power, k != 1.0 and power >= MIN_POWER),
        # Its spread depends on prices drawn later, so no power is claimed for it.
        Effect("revenue_per_user", "secondary", None, None, revenue_lift, None, False),
    ]


def _latency_effect(experiment: str, pages: int, visits: int, n0: int, n1: int) -> Effect:
    """Ratio of 95th percentiles. Its error, on the log scale, is that of a normal quantile with a design effect."""
    relative = LOAD_FACTOR - 1.0 if experiment == CAROUSEL else 0.0
    sigma = math.hypot(LOAD_SIGMA, SLOWNESS_SIGMA)
    z = _NORMAL.inv_cdf(0.95)
    per_page = sigma * math.sqrt(0.95 * 0.05) / _NORMAL.pdf(z)
    users = max(n0 + n1, 1)
    design = 1.0 + max(pages / users * 2 - 1, 0.0) * (SLOWNESS_SIGMA / sigma) ** 2  # twice the mean: activity is skewed
    error = per_page * math.sqrt(design) * math.sqrt(sum(users / max(pages * n, 1) for n in (n0, n1)))
    log_lift = math.log1p(relative)
    power = _power(log_lift, error)
    past = _NORMAL.cdf((log_lift - math.log1p(LATENCY_THRESHOLD)) / error - 1.96)
    return Effect(
        "p95_latency_ms",
        "guardrail",
        None,
        None,
        relative,
        power,
        relative != 0 and power >= MIN_POWER,
        LATENCY_THRESHOLD,
        past,
    )


def _crash_effect(experiment: str, visits: int, n0: int, n1: int) -> Effect:
    """Share of visits without a crash. The normal test is trusted only from five expected crashes in each arm."""
    # Half of everybody is in image_carousel's treatment, so other experiments see the mean of its two arms.
    mixed = CRASH_CHANCE * (1 + CRASH_FACTOR) / 2
    c0, c1 = (CRASH_CHANCE, CRASH_CHANCE * CRASH_FACTOR) if experiment == CAROUSEL else (mixed, mixed)
    users = max(n0 + n1, 1)
    v0, v1 = (max(visits * n / users, 1.0) for n in (n0, n1))
    error = math.sqrt(c0 * (1 - c0) / v0 + c1 * (1 - c1) / v1)
    power = _power(c1 - c0, error)
    past = _NORMAL.cdf((c1 - c0 + CRASH_THRESHOLD * (1 - c0)) / error - 1.96)
    enough = min(c0 * v0, c1 * v1) >= 5
    relative = (1 - c1) / (1 - c0) - 1.0
    found = relative != 0 and power >= MIN_POWER and enough
    return Effect("crash_free_sessions", "guardrail", 1 - c0, 1 - c1, relative, power, found, CRASH_THRESHOLD, past)


def _srm(experiment: str, n0: int, n1: int, people: People, arms: Arms) -> Srm:
    broken = experiment == SEARCH
    lost_share = LOST_SHARE * float(_on_lost_platform(people)[~people.guest].mean())
    expected = 0.5 * (1 - lost_share) / (1 - 0.5 * lost_share) if broken else 0.5
    n = max(n0 + n1, 1)
    chi_square = (n1 - n0) ** 2 / n
    shift = abs(expected - 0.5) * math.sqrt(n) / 0.5
    critical = -_NORMAL.inv_cdf(0.0005)
    power = _NORMAL.cdf(shift - critical) + _NORMAL.cdf(-shift - critical)
    return Srm(
        planted=broken,
        declared_treatment_share=0.5,
        expected_treatment_share=expected,
        lost_treatment_users=int(_lost(people, arms.treatment[experiment]).sum()) if broken else 0,
        chi_square=chi_square,
        p_value=math.erfc(math.sqrt(chi_square / 2)),
        power=power,
        detectable=broken and power >= MIN_POWER,
        lost_platform=LOST_ON if broken else None,
    )


def _power(effect: float, error: float) -> float:
    """Two-sided 5 % normal test: P(|N(effect / error, 1)| > 1.96)."""
    if error == 0:
        return 0.0
    shift = abs(effect) / error
    return _NORMAL.cdf(shift - 1.959964) + _NORMAL.cdf(-shift - 1.959964)
