"""Two variants compared on one metric: which estimator, with or without CUPED, said in words.

Belongs here: from a metric's moments to an effect and its method text. Does not belong here: verdicts and rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zantara_pipeline.experiments.contract import Metric
from zantara_pipeline.experiments.moments import VariantMoments
from zantara_pipeline.experiments.verdicts import CONFIDENCE
from zantara_pipeline.statistics import (
    CupedFit,
    Effect,
    Estimate,
    adjusted_estimate,
    always_valid_effect,
    fit_cuped,
    mean_estimate,
    quantile_estimate,
    ratio_estimate,
    welch_effect,
)


@dataclass(frozen=True)
class Cuped:
    """How CUPED fared for one metric: ``fit`` None means absent, ``absent_because`` says why in a few words."""

    fit: CupedFit | None
    absent_because: str | None


@dataclass(frozen=True)
class Comparison:
    """One treatment against control. Estimates are None without data, the effect also when nothing varies.

    ``control`` and ``treatment`` are CUPED-adjusted where CUPED applies; the ``raw`` ones never are. ``always`` is the effect
    with the interval that may be looked at at any time.
    """

    control: Estimate | None
    treatment: Estimate | None
    raw_control: Estimate | None
    raw_treatment: Estimate | None
    effect: Effect | None
    always: Effect | None
    cuped_reduction: float | None
    cuped_correlation: float | None
    method: str


def fit_metric_cuped(
    metric: Metric, variants: Mapping[str, VariantMoments], variance_reduction: str, pre_period_days: int
) -> Cuped:
    """One theta for all variants of an experiment; says why when there is none."""
    if metric.type not in ("mean", "proportion"):
        return Cuped(None, f"not used for {metric.type} metrics")
    if variance_reduction == "none":
        return Cuped(None, "declared variance_reduction: none")
    groups = [entry.moments for entry in variants.values()]
    fit = fit_cuped(groups, "value", "covariate")
    if fit is None:
        constant = all(group.variance("covariate") == 0 for group in groups if group.n > 1)
        reason = f"nothing in the {pre_period_days} days before the start" if constant else "the metric does not vary"
        return Cuped(None, reason)
    return Cuped(fit, None)


def compare(
    metric: Metric,
    control: VariantMoments | None,
    treatment: VariantMoments | None,
    cuped: Cuped,
    pre_period_days: int,
    confidence: float,
    horizon_units: int,
) -> Comparison:
    """Estimate both variants and their difference with its intervals."""
    raw = [_raw_estimate(metric, entry) for entry in (control, treatment)]
    used = raw
    if cuped.fit is not None:
        used = [adjusted_estimate(e.moments, cuped.fit) if e else None for e in (control, treatment)]
    effect = always = None
    if used[0] and used[1]:
        effect = welch_effect(used[0], used[1], confidence)
        always = always_valid_effect(used[0], used[1], horizon_units=horizon_units, alpha=1 - CONFIDENCE)
    reduction = None
    if cuped.fit is not None and effect is not None and raw[0] and raw[1] and used[0] and used[1]:
        reduction = 1 - (used[0].variance + used[1].variance) / (raw[0].variance + raw[1].variance)
    correlation = cuped.fit.correlation if cuped.fit else None
    return Comparison(
        used[0], used[1], raw[0], raw[1], effect, always, reduction, correlation,
        _method(metric, cuped, pre_period_days),
    )  # fmt: skip


def _raw_estimate(metric: Metric, entry: VariantMoments | None) -> Estimate | None:
    if entry is None:
        return None
    if metric.type == "ratio":
        return ratio_estimate(entry.moments, "numerator", "denominator", complement=metric.complement)
    if metric.type == "quantile":
        return quantile_estimate(
            entry.moments, "above", "total", value=entry.quantile_value, slope=entry.quantile_slope
        )
    return mean_estimate(entry.moments, "value")


def _method(metric: Metric, cuped: Cuped, pre_period_days: int) -> str:
    if metric.type == "ratio":
        return "ratio of sums, delta method clustered by unit, Welch t"
    if metric.type == "quantile":
        return f"quantile {metric.quantile}, delta method clustered by unit, Welch t"
    if cuped.fit is not None:
        return (
            f"Welch t with CUPED (covariate: same metric in the {pre_period_days} days before the start, "
            "0 for units without)"
        )
    return f"Welch t without CUPED ({cuped.absent_because})"
