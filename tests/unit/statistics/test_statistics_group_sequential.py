"""Bounds of group-sequential tests against published tables, and against simulated walks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from zantara_pipeline.statistics.group_sequential import (
    Bounds,
    crossing_probabilities,
    drift_for_power,
    obrien_fleming_spending,
    pocock_spending,
    power,
    spending_bounds,
    wang_tsiatis_bounds,
)
from zantara_pipeline.statistics.power import fixed_drift


def evenly(looks: int) -> list[float]:
    return [(k + 1) / looks for k in range(looks)]


# rpact's own regression tests: O'Brien & Fleming's form (delta 0) with 3 looks, delta .3 at .2, .5 and 1, one-sided .025.
@pytest.mark.parametrize(
    ("fractions", "delta", "z", "spent"),
    [
        ([1 / 3, 2 / 3, 1], 0.0, [3.4710914, 2.4544323, 2.0040356], [0.00025917372, 0.0071600594, 0.025]),
        ([0.2, 0.5, 1], 0.3, [2.8688923, 2.3885055, 2.0793148], [0.0020595603, 0.0098772988, 0.025]),
    ],
)
def test_bounds_of_a_shape_equal_rpact(
    fractions: list[float], delta: float, z: list[float], spent: list[float]
) -> None:
    bounds = wang_tsiatis_bounds(fractions, 0.025, delta, sides=1)
    assert bounds.z == pytest.approx(z, abs=1e-7)
    assert bounds.spent == pytest.approx(spent, abs=1e-8)


def test_two_sided_bounds_equal_the_table_of_gsdesign() -> None:
    assert wang_tsiatis_bounds(evenly(4), 0.05, 0.0).z == pytest.approx([4.05, 2.86, 2.34, 2.02], abs=0.005)


# Jennison & Turnbull 1999, tables 2.6 and 2.7 (alpha .05 two-sided), as gsDesign's tests have them: percent of a single look.
@pytest.mark.parametrize(
    ("looks", "delta", "wanted", "percent"),
    [(5, 0.0, 0.8, 102.8), (20, 0.0, 0.9, 104.5), (4, 0.5, 0.8, 120.2), (15, 0.5, 0.9, 130.5)],
)
def test_what_looks_cost_equals_the_tables_of_jennison_and_turnbull(
    looks: int, delta: float, wanted: float, percent: float
) -> None:
    bounds = wang_tsiatis_bounds(evenly(looks), 0.05, delta)
    drift = drift_for_power(bounds, wanted)
    assert 100 * (drift / fixed_drift(0.05, wanted)) ** 2 == pytest.approx(percent, abs=0.05)
    assert power(bounds, drift) == pytest.approx(wanted, abs=1e-9)


def test_looking_again_and_again_at_1_96_errs_as_deming_says() -> None:
    # one side of a two-sided .05, gsDesign's manual: 2, 4, 10 and 20 looks
    for looks, error in {2: 0.042, 4: 0.063, 10: 0.097, 20: 0.124}.items():
        bounds = Bounds(tuple(evenly(looks)), (1.959964,) * looks, (0.0,) * looks, 2)
        assert sum(crossing_probabilities(bounds)[0]) == pytest.approx(error, abs=0.0006)


def test_the_spending_of_obrien_and_fleming_equals_expan() -> None:
    found = [obrien_fleming_spending(0.05, t) for t in (0.2, 0.4, 0.6, 0.8, 1.0, 0.5)]
    wanted = [1.17264468e-05, 0.001941913, 0.0113964185, 0.0284296308, 0.05, 0.005574596680784305]
    assert found == pytest.approx(wanted, rel=1e-7)


def test_spending_bounds_of_two_looks_worked_by_hand() -> None:
    # The first look spends its share of a normal tail; the second one what is left, of a bivariate normal with corr sqrt(.5).
    bounds = spending_bounds([0.5, 1.0], 0.05, pocock_spending)
    first = 0.025 * math.log1p((math.e - 1) / 2)
    assert bounds.z[0] == pytest.approx(stats.norm.isf(first), abs=1e-9)
    joint = stats.multivariate_normal([0, 0], [[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]])
    a, b = bounds.z
    inside = joint.cdf([a, b]) - joint.cdf([-a, b]) - joint.cdf([a, -b]) + joint.cdf([-a, -b])
    assert 1 - inside == pytest.approx(0.05, abs=2e-5)


def test_the_error_of_28_daily_looks_and_the_power_that_is_left() -> None:
    bounds = spending_bounds(evenly(28), 0.05)
    above, below = crossing_probabilities(bounds)
    assert sum(above) + sum(below) == pytest.approx(0.05, abs=1e-9)
    assert bounds.z[0] == math.inf and bounds.z[-1] < 2.2
    assert power(bounds, fixed_drift(0.05, 0.8)) > 0.78


def test_simulated_walks_cross_as_often_as_computed() -> None:
    rng = np.random.default_rng(11)
    fractions = [0.1, 0.35, 0.4, 0.8, 1.0]
    bounds = spending_bounds(fractions, 0.05)
    runs, drift = 200_000, 2.5
    steps = np.diff([0.0, *fractions])
    walks = np.cumsum(rng.normal(drift * steps, np.sqrt(steps), (runs, 5)), axis=1) / np.sqrt(fractions)
    crossed = np.abs(walks) >= np.array(bounds.z)
    first = np.where(crossed.any(axis=1), crossed.argmax(axis=1), -1)
    above, below = crossing_probabilities(bounds, drift)
    for look in range(5):
        for sign, chance in ((1, above[look]), (-1, below[look])):
            seen = np.mean((first == look) & (np.sign(walks[:, look]) == sign))
            assert abs(seen - chance) < 3.5 * math.sqrt(chance * (1 - chance) / runs) + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=8, unique=True), st.sampled_from([0.01, 0.05, 0.2]))
def test_any_looks_spend_what_was_planned(percents: list[int], alpha: float) -> None:
    fractions = [percent / 100 for percent in sorted(percents)]
    bounds = spending_bounds(fractions, alpha)
    above, below = crossing_probabilities(bounds)
    assert sum(above) + sum(below) == pytest.approx(2 * obrien_fleming_spending(alpha / 2, fractions[-1]), abs=1e-9)
    # what was decided stands: a later look changes no earlier bound
    assert spending_bounds(fractions[:1], alpha).z == pytest.approx(bounds.z[:1])


@pytest.mark.parametrize("fractions", [[], [0.0], [-0.1, 0.5], [0.5, 0.5], [0.8, 0.4]])
def test_looks_that_make_no_sense_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="look"):
        spending_bounds(fractions, 0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        spending_bounds([1.0], alpha)
