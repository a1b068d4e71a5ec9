from __future__ import annotations

import numpy as np
import pytest

from zantara_pipeline.statistics import Moments


def test_means_and_covariances_equal_numpy():
    rng = np.random.default_rng(1)
    columns = {name: rng.lognormal(2, 1, 500) for name in ("a", "b", "c")}
    moments = Moments.from_values(columns)
    expected = np.cov(np.vstack(list(columns.values())))
    for i, a in enumerate(columns):
        assert moments.mean(a) == pytest.approx(columns[a].mean(), rel=1e-13)
        for j, b in enumerate(columns):
            assert moments.covariance(a, b) == pytest.approx(expected[i, j], rel=1e-10)


@pytest.mark.parametrize("constant", [0.0, 1.0, 3.3, 1e9 / 7])
@pytest.mark.parametrize("n", [2, 7, 1001])
def test_a_constant_has_exactly_no_variance(constant, n):
    assert Moments.from_values({"x": [constant] * n}).variance("x") == 0.0


def test_small_spread_around_a_large_mean_is_kept():
    values = [1000.0, 1000.01, 999.99, 1000.0]
    assert Moments.from_values({"x": values}).variance("x") == pytest.approx(np.var(values, ddof=1), rel=1e-4)


def test_moments_of_other_variables_do_not_add():
    with pytest.raises(ValueError, match="cannot be added"):
        Moments.from_values({"a": [1.0]}) + Moments.from_values({"b": [1.0]})


def test_lists_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="need 2 sums and 3 products"):
        Moments(3, ("a", "b"), (1.0, 2.0), (1.0, 2.0))
