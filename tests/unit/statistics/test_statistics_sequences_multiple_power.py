"""Confidence sequences against simulation, adjusted p-values against statsmodels, sample sizes against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower

from zantara_pipeline.statistics import Estimate, always_valid_effect, welch_effect
from zantara_pipeline.statistics.confidence_sequences import (
    always_valid_half_width,
    log_always_valid_p,
    mixture_variance,
)
from zantara_pipeline.statistics.multiple import benjamini_hochberg, holm
from zantara_pipeline.statistics.power import fixed_drift, minimum_detectable_effect, units_needed


def test_the_half_width_is_the_papers_formula_for_a_mean() -> None:
    n, sigma, rho, alpha = 400, 2.0, 0.05, 0.05
    said = sigma * math.sqrt(2 * (n * rho**2 + 1) / (n**2 * rho**2) * math.log(math.sqrt(n * rho**2 + 1) / alpha))
    assert always_valid_half_width(sigma**2 / n, (sigma * rho) ** 2, alpha) == pytest.approx(said, rel=1e-12)


def test_no_other_mixture_is_clearly_narrower_at_the_moment_it_was_made_for() -> None:
    best = optimize.minimize_scalar(
        lambda log_tau: always_valid_half_width(1.0, math.exp(log_tau), 0.05), bounds=(-5, 8), method="bounded"
    )
    assert always_valid_half_width(1.0, mixture_variance(1.0, 0.05), 0.05) == pytest.approx(best.fun, rel=2e-3)


def test_the_p_value_is_alpha_where_the_interval_reaches_zero() -> None:
    for alpha in (0.2, 0.05, 1e-6, 1e-300):
        width = always_valid_half_width(0.3, 2.0, alpha)
        assert log_always_valid_p(width, 0.3, 2.0) == pytest.approx(math.log(alpha), rel=1e-12)
    assert log_always_valid_p(0.0, 0.3, 2.0) == 0.0 and log_always_valid_p(1e9, 0.3, 2.0) < -1e18 / 10


def test_the_truth_stays_inside_at_all_moments_of_95_walks_in_100() -> None:
    rng = np.random.default_rng(5)
    runs, n = 4_000, 1_000
    moments = np.arange(20, n + 1)
    tau = mixture_variance(1 / 300, 0.05)
    widths = np.array([always_valid_half_width(1 / k, tau, 0.05) for k in moments])
    means = np.cumsum(rng.standard_normal((runs, n)), axis=1)[:, 19:] / moments
    outside = float(np.mean((np.abs(means) > widths).any(axis=1)))
    assert outside <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_nothing_known_is_everything_possible() -> None:
    assert always_valid_half_width(math.inf, 1.0, 0.05) == math.inf and always_valid_half_width(0.0, 1.0, 0.05) == 0.0
    assert log_always_valid_p(3.0, math.inf, 1.0) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=12))
def test_adjusted_p_values_equal_statsmodels(p: list[float]) -> None:
    logs = [math.log(value) for value in p]
    assert np.exp(holm(logs)) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-9)
    assert np.exp(benjamini_hochberg(logs)) == pytest.approx(multipletests(p, method="fdr_bh")[1], rel=1e-9)


def test_p_values_below_the_smallest_number_are_adjusted_too_and_missing_ones_count_for_nothing() -> None:
    logs = [-5000.0, math.nan, -1.0]
    assert holm(logs) == pytest.approx([-5000 + math.log(2), math.nan, -1.0], nan_ok=True)
    assert benjamini_hochberg(logs) == pytest.approx([-5000 + math.log(2), math.nan, -1.0], nan_ok=True)
    assert holm([]) == [] and math.isnan(holm([math.nan])[0])


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 0.8), (0.2, 0.9), (0.1, 0.95)])
def test_units_needed_equal_statsmodels(share: float, wanted: float) -> None:
    effect, deviation = 0.03, 1.7
    of_control = NormalIndPower().solve_power(effect / deviation, None, 0.05, wanted, ratio=share / (1 - share))
    units = units_needed(deviation, effect, share=share, power=wanted)
    assert units == pytest.approx(of_control / (1 - share), rel=1e-4)
    assert minimum_detectable_effect(deviation, units, share=share, power=wanted) == pytest.approx(effect, rel=1e-9)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="effect of 0"):
        units_needed(1.0, 0.0)
    for alpha, power in ((0.0, 0.8), (0.05, 1.0), (math.nan, 0.5)):
        with pytest.raises(ValueError, match="shares"):
            fixed_drift(alpha, power)
    with pytest.raises(ValueError, match="share"):
        minimum_detectable_effect(1.0, 100, share=1.0)


def test_the_always_valid_effect_by_hand() -> None:
    """2,000 units, a difference of 0.1 with variance 0.001: half a width from the published formula, t / z wider."""
    from scipy import stats

    control, treatment = Estimate(1.0, 0.0005, 1000), Estimate(1.1, 0.0005, 1000)
    found = always_valid_effect(control, treatment, horizon_units=10_000)
    assert found is not None
    rho = (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 10_000  # per unit of sigma^2
    n, sigma2 = 2000, 0.001 * 2000
    half = math.sqrt(sigma2) * math.sqrt((n * rho + 1) / (n * n * rho) * math.log((n * rho + 1) / 0.05**2))
    half *= stats.t.ppf(0.975, 1998) / stats.norm.ppf(0.975)
    assert (found.difference_low, found.difference_high) == pytest.approx((0.1 - half, 0.1 + half), rel=1e-9)
    assert (found.p_value < 0.05) == (found.difference_low > 0)
    assert found.difference_low < welch_effect(control, treatment).difference_low


def test_the_always_valid_p_and_interval_agree() -> None:
    for difference in (0.05, 0.1, 0.11, 0.12, 0.13, 0.2):
        found = always_valid_effect(Estimate(1, 0.0005, 40), Estimate(1 + difference, 0.0005, 50), horizon_units=100)
        assert found is not None
        assert (found.p_value < 0.05) == (found.difference_low > 0)


def test_looking_daily_at_harm_that_is_none_is_wrong_at_most_as_often_as_said() -> None:
    """p95 of clustered page views, 28 daily looks, no difference: the whole sequence misses 0 in at most 5 %."""
    rng = np.random.default_rng(20261127)
    wrong = sum(_p95_run_misses(rng) for _ in range(400))
    assert wrong / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def _p95_run_misses(rng: np.random.Generator) -> bool:
    """Units arrive day by day, 1 to 7 views each; is 0 outside the interval on any of 28 days?"""
    units = 28 * 60
    views = rng.integers(1, 8, units)
    owner = np.repeat(np.arange(units), views)
    loads = np.exp(rng.normal(6, 0.3, units))[owner] * np.exp(rng.normal(0, 0.2, len(owner)))
    treated = rng.random(units) < 0.5
    for day in range(1, 29):
        seen = owner < day * 60
        arms = []
        for arm in (False, True):
            mine = seen & (treated[owner] == arm)
            arms.append(_p95(loads[mine], owner[mine]))
        effect = always_valid_effect(arms[0], arms[1], horizon_units=1000)
        if effect is not None and not effect.difference_low <= 0 <= effect.difference_high:
            return True
    return False


def _p95(values: np.ndarray, owners: np.ndarray) -> Estimate:
    """By the same published formula as the SQL, written anew with numpy."""
    _, unit = np.unique(owners, return_inverse=True)
    n, total = unit.max() + 1, np.bincount(unit)
    centre = np.quantile(values, 0.95)
    above = np.bincount(unit, weights=values > centre)
    share = above.sum() / total.sum()
    error = math.sqrt(np.var(above - share * total, ddof=1) / n) / total.mean()
    ranked, size = np.sort(values), len(values)
    low = max(1, math.floor(size * (0.95 - 1.96 * error)))
    high = min(size, math.ceil(size * (0.95 + 1.96 * error)))
    slope = (ranked[high - 1] - ranked[low - 1]) * size / max(high - low, 1)
    return Estimate(float(centre), float((slope * error) ** 2), int(n))
