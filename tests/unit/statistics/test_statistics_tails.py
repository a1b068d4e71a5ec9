"""scipy is the oracle where it does not underflow; beyond that the normal tail and closed forms are."""

from __future__ import annotations

import itertools
import math

import pytest
from scipy import stats

from zantara_pipeline.statistics import format_p, log_p_chi_square, log_p_t


@pytest.mark.parametrize("t", [0.0, 0.5, -1.96, 3.0, 8.0, 20.0])
@pytest.mark.parametrize("df", [1, 2.5, 30, 1e4, 1e6])
def test_t_equals_scipy_where_scipy_has_digits(t, df):
    assert log_p_t(t, df) == pytest.approx(math.log(2) + math.log(stats.t.sf(abs(t), df)), abs=1e-10)


def test_t_far_tail_approaches_the_normal_tail():
    # scipy's t.logsf(40, 1e12) is -inf; t^4 / (4 df) is the first correction
    assert log_p_t(40, 1e12) == pytest.approx(math.log(2) + stats.norm.logsf(40), abs=1e-5)
    assert log_p_t(200, 1e15) == pytest.approx(math.log(2) + stats.norm.logsf(200), abs=1e-5)


def test_t_far_tail_against_the_closed_form_of_two_degrees():
    t = 1e146  # P(|T| > t) = 1 - t / sqrt(2 + t^2), about 1 / t^2
    assert log_p_t(t, 2) == pytest.approx(-2 * math.log(t), rel=1e-12)


def test_t_is_continuous_where_the_two_methods_meet():
    df = 5000.0
    logs = [log_p_t(38.5 + step / 100, df) for step in range(200)]
    slopes = [b - a for a, b in itertools.pairwise(logs)]
    assert min(logs) < math.log(1e-290) < max(logs)
    assert all(abs(b - a) < 1e-3 for a, b in itertools.pairwise(slopes))


@pytest.mark.parametrize("df", [1, 2, 3, 9])
def test_chi_square_equals_scipy_where_scipy_has_digits(df):
    for statistic in (0.01, 1.0, 10.83, 200.0, 1000.0):
        assert log_p_chi_square(statistic, df) == pytest.approx(stats.chi2.logsf(statistic, df), rel=1e-11)


@pytest.mark.parametrize("statistic", [2000.0, 5000.0, 1e6])
def test_chi_square_far_tail(statistic):
    one = math.log(2) + stats.norm.logsf(math.sqrt(statistic))  # 1 df is a squared normal
    assert log_p_chi_square(statistic, 1) == pytest.approx(one, rel=1e-12)
    assert log_p_chi_square(statistic, 2) == pytest.approx(-statistic / 2, rel=1e-12)  # 2 df is exponential


def test_a_p_value_never_prints_as_zero():
    assert format_p(-112 * math.log(10)) == "1.0e-112"
    assert format_p(math.log(3.4) - 1203 * math.log(10)) == "3.4e-1203"
    assert format_p(math.log(0.0314)) == "0.031"
    assert format_p(math.log(9.99e-6)) == "1e-5"
    assert format_p(0.0) == "1"
    assert format_p(None) == "-"
