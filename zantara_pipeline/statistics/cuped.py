"""CUPED: variance reduction by a covariate measured before the experiment.

Belongs here: the coefficient, the adjusted estimate, how much it helped. Does not belong here: which covariate.
Source: Deng, Xu, Kohavi, Walker, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
Pre-Experiment Data" (WSDM 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from zantara_pipeline.statistics.estimates import Estimate
from zantara_pipeline.statistics.moments import Moments


@dataclass(frozen=True)
class CupedFit:
    """theta = Cov(Y, X) / Var(X) over all groups together, X's overall mean, and the correlation of Y and X."""

    outcome: str
    covariate: str
    theta: float
    covariate_mean: float
    correlation: float


def fit_cuped(groups: Sequence[Moments], outcome: str, covariate: str) -> CupedFit | None:
    """Fit one theta on all groups pooled; None when outcome or covariate does not vary (there is nothing to adjust)."""
    if not groups:
        return None
    pooled = reduce(add, groups)
    spread_x, spread_y = pooled.variance(covariate), pooled.variance(outcome)
    if not (spread_x > 0 and spread_y > 0):
        return None
    shared = pooled.covariance(outcome, covariate)
    return CupedFit(
        outcome, covariate, shared / spread_x, pooled.mean(covariate), shared / math.sqrt(spread_x * spread_y)
    )


def adjusted_estimate(moments: Moments, fit: CupedFit) -> Estimate | None:
    """Mean of Y - theta (X - mean X) in one group; None below two units."""
    if moments.n < 2:
        return None
    value = moments.mean(fit.outcome) - fit.theta * (moments.mean(fit.covariate) - fit.covariate_mean)
    variance = (
        moments.variance(fit.outcome)
        - 2 * fit.theta * moments.covariance(fit.outcome, fit.covariate)
        + fit.theta**2 * moments.variance(fit.covariate)
    )
    return Estimate(value, max(variance, 0.0) / moments.n, moments.n)
