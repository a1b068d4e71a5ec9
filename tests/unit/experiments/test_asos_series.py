"""Real experiments (ASOS, NeurIPS 2021): Welch and chi-square on 381 published series."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from scipy import stats

from zantara_pipeline.statistics import Estimate, chi_square, welch_effect

PARQUET = Path(__file__).parents[4] / "shared" / "data" / "asos" / "asos_digital_experiments_dataset.parquet"
LOOKS = """
select experiment_id, variant_id, metric_id, count_c, count_t, mean_c, mean_t, variance_c, variance_t
from read_parquet($path)
where variance_c is not null and variance_t is not null and least(count_c, count_t) > 1
order by experiment_id, variant_id, metric_id, time_since_start
"""


@pytest.fixture(scope="module")
def series():
    if not PARQUET.exists():
        pytest.skip("the ASOS dataset is not beside the project")
    found: dict[tuple, list[tuple]] = {}
    for row in duckdb.connect().execute(LOOKS, {"path": str(PARQUET)}).fetchall():
        found.setdefault(row[:3], []).append(row[3:])
    return found


def _effect(look):
    n_c, n_t, mean_c, mean_t, var_c, var_t = look
    return welch_effect(Estimate(mean_c, var_c / n_c, int(n_c)), Estimate(mean_t, var_t / n_t, int(n_t)))


@pytest.mark.real_data
def test_shares_of_significant_series_are_the_published_ones(series):
    """Published: 59 % of the 381 series are significant at some look of a naive daily test, 28 % at the last."""
    significant = [[(e := _effect(look)) is not None and e.p_value < 0.05 for look in s] for s in series.values()]
    assert len(significant) == 381
    assert round(sum(map(any, significant)) / 381, 2) == 0.59
    assert round(sum(one[-1] for one in significant) / 381, 2) == 0.28


@pytest.mark.real_data
def test_last_looks_equal_scipy(series):
    for looks in series.values():
        n_c, n_t, mean_c, mean_t, var_c, var_t = looks[-1]
        oracle = stats.ttest_ind_from_stats(mean_t, var_t**0.5, n_t, mean_c, var_c**0.5, n_c, equal_var=False)
        assert _effect(looks[-1]).p_value == pytest.approx(oracle.pvalue, rel=1e-7, abs=1e-300)
        counts = (int(n_c), int(n_t))
        assert chi_square(counts, (0.5, 0.5)).p_value == pytest.approx(stats.chisquare(counts).pvalue, rel=1e-9)
