"""CUPED: variance reduction by covariates measured before the experiment.

Belongs here: the coefficients, the adjusted estimate, how much it helped. Does not belong here: which covariates.
Source: Deng, Xu, Kohavi, Walker, "Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment
Data" (WSDM 2013), appendix B for several covariates; a ratio is made linear as in Deng, Knoblich, Lu (KDD 2018), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from zantara_pipeline.statistics.estimates import Estimate
from zantara_pipeline.statistics.moments import Moments

# Directions in which standardised covariates spread less than this are the same covariate again, up to rounding.
_COLLINEAR = 1e-10


@dataclass(frozen=True)
class CupedFit:
    """What is subtracted: thetas times (covariates minus their overall means).

    outcome, denominator : a mean of `outcome`, or the ratio of both sums.
    thetas : Cov(X, X)^-1 Cov(X, Y) over all groups together, one a covariate.
    correlation : Pearson's of Y and X; with several covariates the multiple correlation, which is never negative.
    """

    outcome: str
    denominator: str | None
    covariates: tuple[str, ...]
    thetas: tuple[float, ...]
    covariate_means: tuple[float, ...]
    correlation: float


def fit_cuped(
    groups: Sequence[Moments], outcome: str, *covariates: str, denominator: str | None = None
) -> CupedFit | None:
    """Fit one set of thetas on all groups pooled; None when outcome or covariates do not vary: there is nothing to adjust.

    A covariate that does not vary is left out, and one that others make up adds nothing.
    """
    if not groups:
        return None
    pooled = reduce(add, groups)
    if pooled.n < 2 or (denominator is not None and pooled.sum(denominator) <= 0):
        return None
    linear = _Linear(pooled, outcome, denominator)
    used = tuple(name for name in covariates if pooled.variance(name) > 0)
    variance = linear.variance()
    if not (used and variance > 0):
        return None
    scales = np.array([math.sqrt(pooled.variance(name)) for name in used])
    shared = np.array([linear.covariance(name) for name in used]) / scales
    spread = np.array([[pooled.covariance(a, b) for b in used] for a in used]) / np.outer(scales, scales)
    standard, *_ = np.linalg.lstsq(spread, shared, rcond=_COLLINEAR)
    explained = float(shared @ standard) / variance
    correlation = math.sqrt(min(max(explained, 0.0), 1.0))
    if len(used) == 1:
        correlation = float(shared[0]) / math.sqrt(variance)
    thetas = (standard / scales).tolist()
    return CupedFit(outcome, denominator, used, tuple(thetas), tuple(pooled.mean(name) for name in used), correlation)


def adjusted_estimate(moments: Moments, fit: CupedFit) -> Estimate | None:
    """Mean (or ratio) minus thetas times the covariates' distance from their overall means; None below two units."""
    if moments.n < 2 or (fit.denominator is not None and moments.sum(fit.denominator) <= 0):
        return None
    linear = _Linear(moments, fit.outcome, fit.denominator)
    value, parts = linear.value, [linear.variance()]
    for k, name in enumerate(fit.covariates):
        value -= fit.thetas[k] * (moments.mean(name) - fit.covariate_means[k])
        parts.append(-2 * fit.thetas[k] * linear.covariance(name))
        parts += [
            fit.thetas[k] * theta * moments.covariance(name, other)
            for theta, other in zip(fit.thetas, fit.covariates, strict=True)
        ]
    return Estimate(value, max(math.fsum(parts), 0.0) / moments.n, moments.n)


class _Linear:
    """A mean, or a ratio made linear, as one variable a unit: Y, or (N - R D) / mean(D) + R."""

    def __init__(self, moments: Moments, outcome: str, denominator: str | None) -> None:
        self.moments, self.outcome, self.denominator = moments, outcome, denominator
        self.value, self.scale = moments.mean(outcome), 1.0
        if denominator is not None:
            self.scale = moments.mean(denominator)
            self.value /= self.scale

    def covariance(self, other: str) -> float:
        shared = self.moments.covariance(self.outcome, other)
        if self.denominator is not None:
            shared -= self.value * self.moments.covariance(self.denominator, other)
        return shared / self.scale

    def variance(self) -> float:
        if self.denominator is None:
            return self.moments.variance(self.outcome)
        spread = self.covariance(self.outcome) - self.value * self.covariance(self.denominator)
        return max(spread, 0.0) / self.scale
