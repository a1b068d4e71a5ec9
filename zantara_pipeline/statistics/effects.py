"""The difference between two groups' estimates: interval, relative lift, p-value.

Belongs here: Welch's comparison of two independent estimates, and the one that may be looked at at any time. Does not belong
here: what the difference means for a decision (`experiments.verdicts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from zantara_pipeline.statistics.confidence_sequences import (
    always_valid_half_width,
    log_always_valid_p,
    mixture_variance,
)
from zantara_pipeline.statistics.estimates import Estimate
from zantara_pipeline.statistics.tails import log_p_t


@dataclass(frozen=True)
class Effect:
    """Treatment against control. Lift fields are shares (0.05 is +5 %) and None where control is not positive."""

    difference: float
    difference_low: float
    difference_high: float
    lift: float | None
    lift_low: float | None
    lift_high: float | None
    p_value: float
    log_p: float
    df: float


def welch_effect(control: Estimate, treatment: Estimate, confidence: float = 0.95) -> Effect | None:
    """Two-sided Welch t comparison of two independent estimates; None when neither varies.

    The p-value and the interval of the difference agree with each other. The lift's interval is the delta method on
    log(treatment / control) with its own Welch degrees of freedom, so it never reaches below -100 %; where treatment
    is 0 the logarithm doesn't exist and the plain delta method is used.
    """

    def half_width(variance: float, df: float) -> float:
        return _t_quantile(df, confidence) * math.sqrt(variance)

    def log_p(difference: float, variance: float, df: float) -> float:
        return log_p_t(difference / math.sqrt(variance), df)

    return _effect(control, treatment, half_width, log_p)


def always_valid_effect(
    control: Estimate, treatment: Estimate, *, horizon_units: int, alpha: float = 0.05
) -> Effect | None:
    """The same with intervals and a p-value that hold at all looks together; None when neither varies.

    horizon_units : units of both groups at which the interval is to be narrowest; set before anything is seen. A tenth or
        ten times as many cost a few percent of width.

    The normal mixture of `confidence_sequences`, wider by t / z at the estimate's Welch degrees of freedom: with few units a
    variance is too small more often than the mixture, which takes it as known, allows for.
    """
    known = _normal_quantile(1 - alpha)
    share = (control.n + treatment.n) / horizon_units

    def half_width(variance: float, df: float) -> float:
        tau_squared = mixture_variance(variance * share, alpha)
        return _t_quantile(df, 1 - alpha) / known * always_valid_half_width(variance, tau_squared, alpha)

    def log_p(difference: float, variance: float, df: float) -> float:
        wide = (_t_quantile(df, 1 - alpha) / known) ** 2
        return log_always_valid_p(difference, variance * wide, mixture_variance(variance * share, alpha) * wide)

    return _effect(control, treatment, half_width, log_p)


def _effect(
    control: Estimate,
    treatment: Estimate,
    half_width: Callable[[float, float], float],
    log_p: Callable[[float, float, float], float],
) -> Effect | None:
    """half_width : of an interval, from an estimate's variance and degrees of freedom."""
    variance = control.variance + treatment.variance
    if not variance > 0:
        return None
    difference = treatment.value - control.value
    df = _welch_df(control.variance, control.n, treatment.variance, treatment.n)
    half = half_width(variance, df)
    lift, low, high = _lift(control, treatment, half_width)
    log = log_p(difference, variance, df)
    return Effect(difference, difference - half, difference + half, lift, low, high, math.exp(log), log, df)


def _lift(
    control: Estimate, treatment: Estimate, half_width: Callable[[float, float], float]
) -> tuple[float | None, float | None, float | None]:
    if control.value <= 0:
        return None, None, None
    ratio = treatment.value / control.value
    control_relative = control.variance / control.value**2
    if treatment.value <= 0:
        spread = treatment.variance / control.value**2 + ratio**2 * control_relative
        df = _welch_df(control.variance, control.n, treatment.variance, treatment.n)
        half = half_width(spread, df)
        return ratio - 1, ratio - 1 - half, ratio - 1 + half
    treatment_relative = treatment.variance / treatment.value**2
    df = _welch_df(control_relative, control.n, treatment_relative, treatment.n)
    factor = math.exp(half_width(control_relative + treatment_relative, df))
    return ratio - 1, ratio / factor - 1, ratio * factor - 1


def _welch_df(variance_a: float, n_a: int, variance_b: float, n_b: int) -> float:
    """Welch-Satterthwaite degrees of freedom."""
    largest = max(variance_a, variance_b)  # scaled: squares of tiny variances would underflow
    a, b = variance_a / largest, variance_b / largest
    return (a + b) ** 2 / (a * a / (n_a - 1) + b * b / (n_b - 1))


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _t_quantile(df: float, confidence: float) -> float:
    from scipy import special  # half a second, paid only where a tail is asked for

    return float(special.stdtrit(df, (1 + confidence) / 2))
