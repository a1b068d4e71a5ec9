"""How many units an effect needs, and which effect so many units can show.

Belongs here: normal approximations for the difference of two means. Does not belong here: where a metric's spread is taken
from (`experiments`), what looks cost (`group_sequential.drift_for_power`).
Source: any textbook, e.g. Chow, Shao, Wang, Lokhnygina, "Sample Size Calculations in Clinical Research", section 3.2.
"""

from __future__ import annotations

import math


def standard_error(deviation: float, units: float, share: float = 0.5) -> float:
    """Of the difference of two means: s sqrt(1 / (n w) + 1 / (n (1 - w))), n units in all, a share w in the treatment."""
    if not (deviation >= 0 and units > 0 and 0 < share < 1):
        raise ValueError("a deviation is not negative, units are more than 0, a share is between 0 and 1")
    return deviation * math.sqrt(1 / (units * share) + 1 / (units * (1 - share)))


def minimum_detectable_effect(
    deviation: float,
    units: float,
    *,
    share: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
    drift: float | None = None,
) -> float:
    """Smallest true difference that a two-sided test shows with this power: drift times the standard error.

    drift : of a test with several looks (group_sequential.drift_for_power); None: z(1 - alpha / 2) + z(power).
    """
    return (drift if drift is not None else fixed_drift(alpha, power)) * standard_error(deviation, units, share)


def units_needed(
    deviation: float,
    effect: float,
    *,
    share: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
    drift: float | None = None,
) -> float:
    """Units of both arms together for a true difference, not rounded; drift as in minimum_detectable_effect."""
    if not effect:
        raise ValueError("no number of units shows an effect of 0")
    of_one = standard_error(deviation, 1.0, share)
    return ((drift if drift is not None else fixed_drift(alpha, power)) * of_one / effect) ** 2


def fixed_drift(alpha: float, power: float) -> float:
    """z(1 - alpha / 2) + z(power): the drift of a two-sided test with one look (its other side is left out: below 1e-4)."""
    from scipy import special  # half a second, paid only where a size is asked for

    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError("alpha and power are shares between 0 and 1")
    return float(special.ndtri(1 - alpha / 2) + special.ndtri(power))
