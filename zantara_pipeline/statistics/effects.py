"""The difference between two groups' estimates: interval, relative lift, p-value.

Belongs here: Welch's comparison of two independent estimates. Does not belong here: what the difference means for a
decision (`experiments.verdicts`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    variance = control.variance + treatment.variance
    if not variance > 0:
        return None
    difference = treatment.value - control.value
    df = _welch_df(control.variance, control.n, treatment.variance, treatment.n)
    half = _t_quantile(df, confidence) * math.sqrt(variance)
    log_p = log_p_t(difference / math.sqrt(variance), df)
    lift, low, high = _lift(control, treatment, confidence)
    return Effect(difference, difference - half, difference + half, lift, low, high, math.exp(log_p), log_p, df)


def _lift(control: Estimate, treatment: Estimate, confidence: float) -> tuple[float | None, float | None, float | None]:
    if control.value <= 0:
        return None, None, None
    ratio = treatment.value / control.value
    control_relative = control.variance / control.value**2
    if treatment.value <= 0:
        spread = treatment.variance / control.value**2 + ratio**2 * control_relative
        df = _welch_df(control.variance, control.n, treatment.variance, treatment.n)
        half = _t_quantile(df, confidence) * math.sqrt(spread)
        return ratio - 1, ratio - 1 - half, ratio - 1 + half
    treatment_relative = treatment.variance / treatment.value**2
    df = _welch_df(control_relative, control.n, treatment_relative, treatment.n)
    factor = math.exp(_t_quantile(df, confidence) * math.sqrt(control_relative + treatment_relative))
    return ratio - 1, ratio / factor - 1, ratio * factor - 1


def _welch_df(variance_a: float, n_a: int, variance_b: float, n_b: int) -> float:
    """Welch-Satterthwaite degrees of freedom."""
    largest = max(variance_a, variance_b)  # scaled: squares of tiny variances would underflow
    a, b = variance_a / largest, variance_b / largest
    return (a + b) ** 2 / (a * a / (n_a - 1) + b * b / (n_b - 1))


def _t_quantile(df: float, confidence: float) -> float:
    from scipy import special  # half a second, paid only where a tail is asked for

    return float(special.stdtrit(df, (1 + confidence) / 2))
