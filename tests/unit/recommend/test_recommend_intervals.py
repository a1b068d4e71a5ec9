"""Intervals against theory and against the definition computed the slow way."""

from __future__ import annotations

import numpy as np
import pytest

from zantara_pipeline.recommend.intervals import bootstrap_means, coverage_interval


def test_bootstrap_of_a_mean_agrees_with_normal_theory():
    values = np.random.default_rng(1).normal(2.0, 1.0, size=(400, 1))
    low, high = bootstrap_means(values, np.arange(400), samples=4000, confidence=0.95, seed=9)
    half = 1.959964 * values.std() / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.01)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.01)


def test_bootstrap_is_seeded_and_paired():
    rng = np.random.default_rng(2)
    first = rng.random(50)
    columns = np.column_stack([first, first + 0.25, (first + 0.25) - first])
    low, high = bootstrap_means(columns, np.arange(50), samples=500, confidence=0.9, seed=4)
    again = bootstrap_means(columns, np.arange(50), samples=500, confidence=0.9, seed=4)
    assert (low == again[0]).all() and (high == again[1]).all()
    # The difference is constant: resampled together, its interval has no width, though both parts vary.
    assert low[2] == pytest.approx(0.25) and high[2] == pytest.approx(0.25)
    assert high[0] - low[0] > 0.05


def test_rows_of_one_user_are_drawn_together():
    """Every user twice, with the same values: as wide as once, where rows alone would give an interval of 1/sqrt(2)."""
    values = np.random.default_rng(5).random((60, 1))
    once = bootstrap_means(values, np.arange(60), samples=400, confidence=0.95, seed=4)
    twice = bootstrap_means(
        np.repeat(values, 2, axis=0), np.repeat(np.arange(60), 2), samples=400, confidence=0.95, seed=4
    )
    assert once[0] == pytest.approx(twice[0]) and once[1] == pytest.approx(twice[1])


def test_coverage_interval_is_the_jackknife_and_holds_the_value():
    rng = np.random.default_rng(6)
    lists = np.array([rng.choice(60, size=5, replace=False) for _ in range(12)], dtype=np.int32)
    lists[3, 2:] = -1
    n = len(lists)

    def covered(some):
        return len(set(some[some >= 0].tolist())) / 60

    left_out = np.array([covered(np.delete(lists, i, axis=0)) for i in range(n)])
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    low, high = coverage_interval(lists, 60, 0.95)
    assert low == pytest.approx(covered(lists) - 1.959964 * error, abs=1e-6)
    assert high == pytest.approx(min(1.0, covered(lists) + 1.959964 * error), abs=1e-6)


def test_coverage_of_equal_lists_has_no_width():
    lists = np.tile(np.arange(5, dtype=np.int32), (7, 1))
    assert coverage_interval(lists, 50, 0.95) == (0.1, 0.1)
