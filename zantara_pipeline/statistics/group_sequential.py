"""Group-sequential tests: bounds that keep their error rate over any number of planned looks.

A z-statistic that is looked at while data come in is Brownian motion seen at fractions of the information: B(t) = Z(t) sqrt(t)
has independent increments. The chance to leave between the bounds for the first time at a look is an integral over what has
stayed inside until then (Armitage, McPherson, Rowe, "Repeated Significance Tests on Accumulating Data", JRSS A 1969; Jennison
& Turnbull, "Group Sequential Methods", 1999, chapter 19).

Belongs here: spending functions, bounds, chances to cross. Does not belong here: which looks an experiment has and what a
crossing means (`experiments`), intervals at every moment (`confidence_sequences`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np

Spending = Callable[[float, float], float]
"""Error spent up to a fraction of the information: (alpha, fraction) to a share of alpha."""
Sides = Literal[1, 2]

FARTHEST = 12.0
"""A bound beyond this many standard errors (p = 4e-33) is said to be infinite: nothing was left to spend."""
_NODES_A_STEP = 14  # Gauss-Legendre nodes per standard deviation of an increment; 8 gave 1e-9 on the bounds of 28 looks
_FEWEST_NODES = 96
_LEAST_SPENT = 1e-15


def obrien_fleming_spending(alpha: float, fraction: float) -> float:
    """2 - 2 Phi(z / sqrt(t)) with z the upper alpha / 2 quantile: hardly anything early (Lan & DeMets, Biometrika 1983)."""
    if fraction <= 0:
        return 0.0
    special = _special()
    return float(2 * special.ndtr(special.ndtri(alpha / 2) / math.sqrt(min(fraction, 1.0))))


def pocock_spending(alpha: float, fraction: float) -> float:
    """alpha log(1 + (e - 1) t): about the same at every look (Lan & DeMets, Biometrika 1983)."""
    return alpha * math.log1p((math.e - 1) * min(max(fraction, 0.0), 1.0))


SPENDING: dict[str, Spending] = {"obrien_fleming": obrien_fleming_spending, "pocock": pocock_spending}


@dataclass(frozen=True)
class Bounds:
    """A plan of looks.

    fractions : of the final information, one a look, rising; the last may be below 1 (later looks are still to come).
    z : |z| (sides 2) or z (sides 1) at or above which a look crosses; inf where nothing was left to spend.
    spent : error spent up to and with each look.
    """

    fractions: tuple[float, ...]
    z: tuple[float, ...]
    spent: tuple[float, ...]
    sides: Sides

    @property
    def p(self) -> tuple[float, ...]:
        """Nominal p-values (of as many sides): a look crosses at or below its own."""
        return tuple(self.sides * float(_special().ndtr(-z)) for z in self.z)


def spending_bounds(
    fractions: Sequence[float], alpha: float, spending: Spending = obrien_fleming_spending, sides: Sides = 2
) -> Bounds:
    """Bounds that spend alpha as the function says; looks need not be evenly spaced, nor known beforehand.

    Parameters
    ----------
    fractions : of the final information at each look so far, rising, above 0; more than 1 counts as 1.
    alpha : error of all looks together, both sides together if `sides` is 2; each side then spends half of it by the
        function of alpha / 2 (gsDesign, rpact and Jennison & Turnbull do the same).

    Raises
    ------
    ValueError : fractions do not rise or are not above 0, or alpha is no share.
    """
    looks = _checked(fractions, alpha)
    a_side = alpha / sides
    spent = [spending(a_side, fraction) for fraction in looks]
    walk, bounds, before = _Walk(sides), [], 0.0
    for fraction, total in zip(looks, spent, strict=True):
        bound = walk.bound_for(fraction, total - before)
        walk.stay(fraction, bound)
        bounds.append(bound)
        before = max(before, total)
    return Bounds(tuple(looks), tuple(bounds), tuple(sides * total for total in spent), sides)


def wang_tsiatis_bounds(fractions: Sequence[float], alpha: float, delta: float, sides: Sides = 2) -> Bounds:
    """Bounds C t^(delta - 1/2): delta 0 is O'Brien & Fleming's own form, 1/2 Pocock's (Wang & Tsiatis, Biometrics 1987).

    Raises
    ------
    ValueError : as spending_bounds; the last fraction has to be 1.
    """
    from scipy import optimize

    looks = _checked(fractions, alpha)
    if looks[-1] != 1.0:
        raise ValueError("the looks of a Wang-Tsiatis test end with all of the information")
    shape = [fraction ** (delta - 0.5) for fraction in looks]

    def excess(scale: float) -> float:
        return sum(_crossings(looks, [scale * s for s in shape], sides)) - alpha / sides

    scale = float(optimize.brentq(excess, 0.5, FARTHEST, xtol=1e-13))
    z = [scale * s for s in shape]
    spent = np.cumsum(_crossings(looks, z, sides)) * sides
    return Bounds(tuple(looks), tuple(z), tuple(spent.tolist()), sides)


def crossing_probabilities(bounds: Bounds, drift: float = 0.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Chance to cross first at each look: above and below (below: 0 for one side).

    drift : mean of z at all of the information, that is effect / its final standard error; 0 is no effect.
    """
    above = _crossings(bounds.fractions, bounds.z, bounds.sides, drift)
    below = _crossings(bounds.fractions, bounds.z, bounds.sides, -drift) if bounds.sides == 2 else [0.0] * len(above)
    return tuple(above), tuple(below)


def power(bounds: Bounds, drift: float) -> float:
    """Chance to cross on the side of the effect at any look."""
    return sum(_crossings(bounds.fractions, bounds.z, bounds.sides, abs(drift)))


def drift_for_power(bounds: Bounds, wanted: float) -> float:
    """The drift at which `power` is the wanted one.

    (drift / drift of the test with one look) ** 2 is how much more information the looks cost.
    """
    from scipy import optimize

    if not 0 < wanted < 1:
        raise ValueError(f"a power is a share between 0 and 1, not {wanted}")
    return float(optimize.brentq(lambda drift: power(bounds, drift) - wanted, 0.0, 20.0, xtol=1e-12))


def _checked(fractions: Sequence[float], alpha: float) -> list[float]:
    looks = [min(float(fraction), 1.0) for fraction in fractions]
    if not looks or not all(fraction > 0 for fraction in looks):
        raise ValueError("looks are shares of the information above 0")
    if any(later <= earlier for earlier, later in pairwise(looks)):
        raise ValueError("every look has more information than the one before it")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a share between 0 and 1, not {alpha}")
    return looks


def _crossings(fractions: Sequence[float], z: Sequence[float], sides: Sides, drift: float = 0.0) -> list[float]:
    """Chance to cross first above, look by look."""
    walk, found = _Walk(sides, drift), []
    for fraction, bound in zip(fractions, z, strict=True):
        found.append(walk.crossing(fraction, bound))
        walk.stay(fraction, bound)
    return found


class _Walk:
    """Where B(t) may be, of what stayed between the bounds: a density on Gauss-Legendre nodes.

    What lies inside is smooth, so that a hundred nodes give ten digits; one-sided walks are cut off where nothing comes.
    """

    def __init__(self, sides: Sides, drift: float = 0.0) -> None:
        self.sides, self.drift, self.at = sides, drift, 0.0
        self.nodes, self.mass = np.zeros(1), np.ones(1)  # everything stands at 0

    def crossing(self, fraction: float, bound: float) -> float:
        """Chance to be at or above the bound now and never before."""
        if not math.isfinite(bound):
            return 0.0
        step = fraction - self.at
        beyond = (bound * math.sqrt(fraction) - self.nodes - self.drift * step) / math.sqrt(step)
        return float(self.mass @ _special().ndtr(-beyond))

    def bound_for(self, fraction: float, spend: float) -> float:
        """The bound above which so much of it is."""
        from scipy import optimize

        if spend < _LEAST_SPENT or self.crossing(fraction, FARTHEST) > spend:
            return math.inf
        return float(optimize.brentq(lambda z: self.crossing(fraction, z) - spend, -FARTHEST, FARTHEST, xtol=1e-13))

    def stay(self, fraction: float, bound: float) -> None:
        """Go on with what is between the bounds at this look."""
        step, end = fraction - self.at, min(bound, FARTHEST) * math.sqrt(fraction)
        begin = -end if self.sides == 2 else -FARTHEST * math.sqrt(fraction) + min(self.drift * fraction, 0.0)
        count = max(_FEWEST_NODES, math.ceil(_NODES_A_STEP * (end - begin) / math.sqrt(step) / 2))
        places, weights = _gauss_legendre(-(-count // 64) * 64)
        nodes = begin + (end - begin) * (places + 1) / 2
        distances = (nodes[:, None] - self.nodes[None, :] - self.drift * step) / math.sqrt(step)
        density = np.exp(-distances * distances / 2) @ self.mass / math.sqrt(2 * math.pi * step)
        self.nodes, self.mass, self.at = nodes, density * weights * (end - begin) / 2, fraction


@lru_cache(maxsize=32)
def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finding 512 places takes longer than a look does."""
    return np.polynomial.legendre.leggauss(count)


def _special() -> Any:
    from scipy import special  # half a second, paid only where a bound is asked for

    return special
