"""Intervals that may be looked at after every unit: they hold the truth at all moments together.

Belongs here: the normal mixture's half-width, its tuning, its p-value. Does not belong here: tests with planned looks
(`group_sequential`), which are sharper where looks are few and known.
Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences"
(Annals of Statistics 2024), theorem 2.2 and appendix B.2; the mixture is Robbins' (Annals of Mathematical Statistics 1970).
"""

from __future__ import annotations

import math


def mixture_variance(variance: float, alpha: float) -> float:
    """Variance of the mixture that makes the sequence narrowest about when an estimate has this variance.

    rho^2 = (-2 log alpha + log(-2 log alpha + 1)) / n, said of the estimate: n rho^2 / n stands for tau^2 / V.
    The sequence holds with any; one that is chosen by looking at results does not.

    Raises
    ------
    ValueError : variance not above 0, or alpha no share.
    """
    if not (variance > 0 and 0 < alpha < 1):
        raise ValueError("a mixture needs a variance above 0 and an alpha between 0 and 1")
    twice = -2 * math.log(alpha)
    return variance * (twice + math.log1p(twice))


def always_valid_half_width(variance: float, tau_squared: float, alpha: float) -> float:
    """Half the width of the two-sided interval at this moment.

    sqrt(V (V + tau^2) / tau^2 (2 log(1 / alpha) + log((V + tau^2) / V))) with V the estimate's variance now: inf before
    anything is known, above any interval with one look.
    """
    if not math.isfinite(variance):
        return math.inf
    if variance <= 0:
        return 0.0
    ratio = tau_squared / variance
    return math.sqrt(variance * (1 + 1 / ratio) * (-2 * math.log(alpha) + math.log1p(ratio)))


def log_always_valid_p(estimate: float, variance: float, tau_squared: float) -> float:
    """Natural log of the p-value against 0 at this moment, at most 0; the least so far may be reported at any time.

    The inverse of the mixture's likelihood ratio: it is alpha where the interval of that alpha just reaches 0.
    """
    if not (math.isfinite(variance) and variance > 0):
        return 0.0
    ratio = tau_squared / variance
    return min(0.0, 0.5 * math.log1p(ratio) - estimate * estimate / (2 * variance) * ratio / (1 + ratio))
