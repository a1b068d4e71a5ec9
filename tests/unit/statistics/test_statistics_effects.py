"""Effects against independent implementations: scipy, statsmodels, tea-tasting, and one case by hand."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
import tea_tasting as tt
from scipy import stats

from zantara_pipeline.statistics import (
    Estimate,
    Moments,
    adjusted_estimate,
    chi_square,
    fit_cuped,
    mean_estimate,
    quantile_estimate,
    ratio_estimate,
    welch_effect,
)


@pytest.fixture(scope="module")
def users():
    return tt.make_users_data(rng=7, n_users=3000, covariates=True)


def _moments(users: pa.Table, variant: int, *names: str) -> Moments:
    chosen = users.filter(pa.compute.equal(users["variant"], variant))
    return Moments.from_values({name: chosen[name].to_pylist() for name in names})


def _assert_same(effect, oracle):
    assert effect.difference == pytest.approx(oracle.effect_size, rel=1e-9)
    assert effect.difference_low == pytest.approx(oracle.effect_size_ci_lower, rel=1e-8)
    assert effect.difference_high == pytest.approx(oracle.effect_size_ci_upper, rel=1e-8)
    assert effect.lift == pytest.approx(oracle.rel_effect_size, rel=1e-9)
    assert effect.lift_low == pytest.approx(oracle.rel_effect_size_ci_lower, rel=1e-8)
    assert effect.lift_high == pytest.approx(oracle.rel_effect_size_ci_upper, rel=1e-8)
    assert effect.p_value == pytest.approx(oracle.pvalue, rel=1e-8)


def test_by_hand():
    # control 1, 2, 3, 4: mean 2.5, variance 5/3; treatment 3, 5: mean 4, variance 2.
    control = mean_estimate(Moments.from_values({"x": [1, 2, 3, 4]}), "x")
    treatment = mean_estimate(Moments.from_values({"x": [3, 5]}), "x")
    effect = welch_effect(control, treatment)
    # variance of the difference 5/12 + 1 = 17/12; df = (17/12)^2 / ((5/12)^2 / 3 + 1) = 289 / (25/3 + 144)
    assert effect.difference == 1.5
    assert effect.df == pytest.approx(289 / (25 / 3 + 144))
    assert effect.lift == pytest.approx(0.6)


def test_welch_equals_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.gamma(2, 3, 400), rng.gamma(2, 3.5, 150)
    effect = welch_effect(
        mean_estimate(Moments.from_values({"x": a}), "x"), mean_estimate(Moments.from_values({"x": b}), "x")
    )
    oracle = stats.ttest_ind(b, a, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert effect.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
    assert effect.df == pytest.approx(oracle.df, rel=1e-9)
    assert (effect.difference_low, effect.difference_high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_mean_equals_tea_tasting(users):
    groups = [_moments(users, variant, "revenue") for variant in (0, 1)]
    effect = welch_effect(*(mean_estimate(group, "revenue") for group in groups))
    _assert_same(effect, tt.Experiment(m=tt.Mean("revenue")).analyze(users)["m"])


def test_cuped_equals_tea_tasting(users):
    groups = [_moments(users, variant, "revenue", "revenue_covariate") for variant in (0, 1)]
    fit = fit_cuped(groups, "revenue", "revenue_covariate")
    effect = welch_effect(*(adjusted_estimate(group, fit) for group in groups))
    _assert_same(effect, tt.Experiment(m=tt.Mean("revenue", "revenue_covariate")).analyze(users)["m"])


def test_cuped_agrees_with_regression_adjustment(users):
    """ANCOVA takes theta within groups, CUPED over all: apart by the chance imbalance of the covariate alone."""
    groups = [_moments(users, variant, "revenue", "revenue_covariate") for variant in (0, 1)]
    fit = fit_cuped(groups, "revenue", "revenue_covariate")
    effect = welch_effect(*(adjusted_estimate(group, fit) for group in groups))
    design = sm.add_constant(np.column_stack([users["variant"].to_numpy(), users["revenue_covariate"].to_numpy()]))
    ols = sm.OLS(users["revenue"].to_numpy(), design).fit(cov_type="HC3")
    assert effect.difference == pytest.approx(ols.params[1], rel=2e-3)
    assert effect.difference_high - effect.difference_low == pytest.approx(np.diff(ols.conf_int()[1])[0], rel=1e-2)


def test_cuped_correlation_is_pearsons_and_sets_the_reduction(users):
    groups = [_moments(users, variant, "revenue", "revenue_covariate") for variant in (0, 1)]
    fit = fit_cuped(groups, "revenue", "revenue_covariate")
    pearson = stats.pearsonr(users["revenue"].to_numpy(), users["revenue_covariate"].to_numpy()).statistic
    assert fit.correlation == pytest.approx(pearson, rel=1e-9)
    raw = sum(mean_estimate(group, "revenue").variance for group in groups)
    adjusted = sum(adjusted_estimate(group, fit).variance for group in groups)
    assert 1 - adjusted / raw == pytest.approx(pearson**2, rel=0.02)


def test_cuped_is_absent_without_spread():
    group = Moments.from_values({"y": [1, 2, 3], "x": [0, 0, 0]})
    assert fit_cuped([group, group], "y", "x") is None
    assert fit_cuped([], "y", "x") is None


def test_ratio_equals_tea_tasting(users):
    groups = [_moments(users, variant, "orders", "sessions") for variant in (0, 1)]
    effect = welch_effect(*(ratio_estimate(group, "orders", "sessions") for group in groups))
    _assert_same(effect, tt.Experiment(m=tt.RatioOfMeans("orders", "sessions")).analyze(users)["m"])


def test_the_interval_of_an_adjusted_ratio_holds_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    runs, inside = 300, 0
    for _ in range(runs):
        n = 2000
        eager, treated, sessions = rng.normal(0, 1, n), rng.integers(0, 2, n), rng.poisson(3, n) + 1
        orders = sessions * (0.2 + 0.05 * treated + 0.1 * eager)
        groups = []
        for arm in (0, 1):
            values = np.array([orders, sessions, eager])[:, treated == arm]
            products = values @ values.T
            upper = tuple(products[i, j] for i in range(3) for j in range(i, 3))
            groups.append(Moments(values.shape[1], ("orders", "sessions", "eager"), tuple(values.sum(axis=1)), upper))
        fit = fit_cuped(groups, "orders", "eager", denominator="sessions")
        effect = welch_effect(*(adjusted_estimate(group, fit) for group in groups))
        inside += effect.difference_low < 0.05 < effect.difference_high
    assert abs(inside / runs - 0.95) < 3 * math.sqrt(0.95 * 0.05 / runs)


def test_complement_keeps_the_variance_and_mirrors_the_value(users):
    group = _moments(users, 0, "orders", "sessions")
    plain, mirrored = (ratio_estimate(group, "orders", "sessions", complement=flag) for flag in (False, True))
    assert mirrored.value == pytest.approx(1 - plain.value)
    assert mirrored.variance == plain.variance


def test_ratio_of_equal_columns_does_not_vary():
    group = Moments.from_values({"a": [0.1, 0.7, 2.3], "b": [0.1, 0.7, 2.3]})
    assert ratio_estimate(group, "a", "b") == Estimate(1.0, 0.0, 3)


def test_nothing_to_estimate_is_none_not_nan():
    one = Moments.from_values({"x": [1.0], "d": [1.0]})
    empty = Moments.from_values({"x": [0.0, 0.0], "d": [0.0, 0.0]})
    assert mean_estimate(one, "x") is None
    assert ratio_estimate(one, "x", "d") is None
    assert ratio_estimate(empty, "x", "d") is None
    assert quantile_estimate(empty, "x", "d", value=None, slope=None) is None


def test_no_variance_gives_no_interval():
    assert welch_effect(Estimate(1.0, 0.0, 10), Estimate(1.0, 0.0, 10)) is None


def test_lift_is_undefined_where_control_is_not_positive():
    effect = welch_effect(Estimate(0.0, 0.0, 10), Estimate(0.5, 0.1, 10))
    assert (effect.lift, effect.lift_low, effect.lift_high) == (None, None, None)
    assert effect.difference == 0.5


def test_lift_of_a_treatment_at_zero_still_has_an_interval():
    effect = welch_effect(Estimate(0.5, 0.01, 100), Estimate(0.0, 0.0, 100))
    assert effect.lift == -1.0
    assert effect.lift_low <= -1.0 <= effect.lift_high


def test_overwhelming_evidence_keeps_its_logarithm():
    effect = welch_effect(Estimate(1.0, 1e-6, 10**6), Estimate(2.0, 1e-6, 10**6))
    assert effect.p_value == 0.0
    assert -260_000 < effect.log_p < -200_000
    assert math.isfinite(effect.log_p)


@pytest.mark.parametrize(
    ("counts", "shares"), [((5000, 5300), (0.5, 0.5)), ((10, 20, 70), (0.1, 0.25, 0.65)), ((0, 40), (0.1, 0.9))]
)
def test_chi_square_equals_scipy(counts, shares):
    ours = chi_square(counts, shares)
    oracle = stats.chisquare(counts, np.array(shares) * sum(counts))
    assert ours.statistic == pytest.approx(oracle.statistic, rel=1e-12)
    assert ours.p_value == pytest.approx(oracle.pvalue, rel=1e-10)


@pytest.mark.parametrize(
    ("counts", "shares"), [((5,), (1.0,)), ((0, 0), (0.5, 0.5)), ((1, 2), (0.0, 1.0)), ((1,), (0.5, 0.5))]
)
def test_chi_square_refuses_what_it_cannot_test(counts, shares):
    with pytest.raises(ValueError, match="chi-square needs"):
        chi_square(counts, shares)


def test_a_a_false_positive_rate_of_skewed_revenue_with_cuped():
    """2,000 A/A splits of zero-inflated revenue with a correlated covariate: 5 % within 3 standard errors."""
    rng = np.random.default_rng(11)
    runs, units = 2000, 400
    rejected = 0
    for _ in range(runs):
        taste = rng.normal(size=units)
        x = np.where(rng.random(units) < 0.5, np.exp(1 + taste), 0)
        y = np.where(rng.random(units) < 0.5, np.exp(1 + taste), 0)
        side = rng.random(units) < 0.5
        groups = [_numpy_moments(y[mask], x[mask]) for mask in (side, ~side)]
        fit = fit_cuped(groups, "y", "x")
        effect = welch_effect(*(adjusted_estimate(group, fit) for group in groups))
        rejected += effect.p_value < 0.05
    assert abs(rejected / runs - 0.05) < 3 * math.sqrt(0.05 * 0.95 / runs)


def _numpy_moments(y: np.ndarray, x: np.ndarray) -> Moments:
    return Moments(len(y), ("y", "x"), (float(y.sum()), float(x.sum())), (float(y @ y), float(y @ x), float(x @ x)))
