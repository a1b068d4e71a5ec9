"""One group's estimate of a metric, with the variance of that estimate.

Belongs here: means, ratios and quantiles from moments. Does not belong here: comparing two groups (`effects`).
Units are the randomised units throughout: every variance is clustered by unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zantara_pipeline.statistics.moments import Moments


@dataclass(frozen=True)
class Estimate:
    """A value in the metric's unit, the variance of that value (not of the data), and the units behind it."""

    value: float
    variance: float
    n: int


def mean_estimate(moments: Moments, name: str) -> Estimate | None:
    """Mean per unit; None below two units."""
    if moments.n < 2:
        return None
    return Estimate(moments.mean(name), moments.variance(name) / moments.n, moments.n)


def ratio_estimate(moments: Moments, numerator: str, denominator: str, *, complement: bool = False) -> Estimate | None:
    """Ratio of two sums by the delta method; None below two units or without denominator.

    Var(R) = (Var(N) - 2 R Cov(N, D) + R^2 Var(D)) / (n mean(D)^2): Deng, Knoblich, Lu, "Applying the Delta Method in
    Metric Analytics" (KDD 2018), section 3.1. ``complement`` gives 1 - R, same variance.
    """
    if moments.n < 2 or moments.sum(denominator) <= 0:
        return None
    ratio = moments.sum(numerator) / moments.sum(denominator)
    parts = (
        moments.variance(numerator),
        -2 * ratio * moments.covariance(numerator, denominator),
        ratio * ratio * moments.variance(denominator),
    )
    spread = math.fsum(parts)
    if spread <= 1e-13 * math.fsum(abs(part) for part in parts):  # numerator proportional to denominator: rounding
        spread = 0.0
    return Estimate(1 - ratio if complement else ratio, spread / moments.n / moments.mean(denominator) ** 2, moments.n)


def quantile_estimate(
    moments: Moments, above: str, total: str, *, value: float | None, slope: float | None
) -> Estimate | None:
    """Quantile of all observations of a group's units, unit-clustered; None where it can't be estimated.

    Parameters
    ----------
    moments : of each unit's observations above the quantile and of its total observations.
    value : the sample quantile. slope : dx/dp of the quantile function there (metric units per unit of probability).

    Var(x) = slope^2 Var(share above), the share being a ratio over units: Deng, Knoblich, Lu (KDD 2018), section 4.
    """
    share = ratio_estimate(moments, above, total)
    if share is None or value is None or slope is None:
        return None
    return Estimate(value, slope * slope * share.variance, moments.n)
