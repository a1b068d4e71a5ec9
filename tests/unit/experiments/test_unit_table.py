"""Experiments that lie in a table, against tea-tasting, statsmodels and planted truths; and tables that make no sense."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
import tea_tasting as tt
import yaml
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.contracts_io import parse_contract
from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments.unit_table import Analysis, UnitTableFile, analyze_units
from zantara_pipeline.statistics.group_sequential import spending_bounds

HALVES = [{"name": "control", "weight": 0.5}, {"name": "treatment", "weight": 0.5}]
REVENUE = {"name": "revenue", "role": "primary", "type": "mean", "column": "revenue", "direction": "higher_is_better"}
ORDERS = {
    "name": "orders_per_session", "role": "secondary", "type": "ratio", "numerator": "orders", "denominator": "sessions",
    "direction": "higher_is_better",
}  # fmt: skip


def config(metrics: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    return {"experiment": "e", "unit": "user", "variant": "arm", "variants": HALVES, "metrics": metrics} | keys


def analysed(folder: Path, table: dict[str, Any], said: dict[str, Any]) -> Analysis:
    pq.write_table(pa.table(table), folder / "units.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return analyze_units(folder / "units.parquet", parse_contract(UnitTableFile, folder / "config.yaml"))


@pytest.fixture(scope="module")
def users() -> pa.Table:
    return tt.make_users_data(rng=3, n_users=4000, covariates=True)


def as_units(users: pa.Table) -> dict[str, Any]:
    table = {name: users[name] for name in users.column_names if name != "variant"}
    return table | {"arm": np.where(users["variant"].to_numpy() == 1, "treatment", "control")}


def test_mean_and_ratio_with_a_covariate_equal_tea_tasting(tmp_path: Path, users: pa.Table) -> None:
    found = analysed(tmp_path, as_units(users), config([REVENUE | {"covariates": ["revenue_covariate"]}, ORDERS]))
    oracle = tt.Experiment(
        revenue=tt.Mean("revenue", "revenue_covariate"), orders=tt.RatioOfMeans("orders", "sessions")
    ).analyze(users)
    for row, name in zip(found.metrics, ("revenue", "orders"), strict=True):
        assert row.difference == pytest.approx(oracle[name].effect_size, rel=1e-8)
        assert (row.difference_low, row.difference_high) == pytest.approx(
            (oracle[name].effect_size_ci_lower, oracle[name].effect_size_ci_upper), rel=1e-7
        )
        assert row.p_value == pytest.approx(oracle[name].pvalue, rel=1e-6)
    assert found.units == {
        "control": 4000 - sum(users["variant"].to_pylist()),
        "treatment": sum(users["variant"].to_pylist()),
    }


def test_several_covariates_equal_a_regression(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    n = 6000
    treated, x, z = rng.integers(0, 2, n), rng.normal(3, 2, n), rng.gamma(2, 2, n)
    y = 0.3 * treated + 1.5 * x - 0.7 * z + rng.normal(0, 1, n)
    table = {
        "user": range(n),
        "arm": np.where(treated, "treatment", "control"),
        "revenue": y,
        "x": x,
        "z": z,
        "again": 2 * x,
    }
    found = analysed(tmp_path, table, config([REVENUE | {"covariates": ["x", "z", "again"]}]))
    ols = sm.OLS(y, sm.add_constant(np.column_stack([treated, x, z]))).fit(cov_type="HC3")
    [row] = found.metrics
    assert row.difference == pytest.approx(ols.params[1], rel=5e-3)
    assert row.difference_high - row.difference_low == pytest.approx(np.diff(ols.conf_int()[1])[0], rel=1e-2)
    explained = sm.OLS(y, sm.add_constant(np.column_stack([x, z]))).fit().rsquared
    assert row.cuped_correlation == pytest.approx(math.sqrt(explained), rel=1e-9)
    assert row.cuped_variance_reduction == pytest.approx(explained, abs=0.02) and row.verdict == "better"


def test_a_ratio_is_adjusted_without_bias(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    n = 20_000
    eager = rng.normal(0, 1, n)
    treated, sessions = rng.integers(0, 2, n), rng.poisson(3, n) + 1
    orders = sessions * (0.2 + 0.05 * treated + 0.1 * eager)
    table = {"user": range(n), "arm": np.where(treated, "treatment", "control"), "orders": orders, "sessions": sessions,
             "eager": eager}  # fmt: skip
    plain = analysed(tmp_path, table, config([ORDERS | {"role": "primary"}])).metrics[0]
    found = analysed(tmp_path, table, config([ORDERS | {"role": "primary", "covariates": ["eager"]}])).metrics[0]
    error = (found.difference_high - found.difference_low) / 3.92
    assert abs(found.difference - 0.05) < 3.5 * error and found.cuped_variance_reduction > 0.5
    assert found.difference == pytest.approx(plain.difference, abs=0.01)


def test_clusters_are_what_varies(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    of, treated = rng.integers(0, 400, 8000), rng.integers(0, 2, 400)
    y = rng.normal(0, 1, 400)[of] + rng.normal(0, 1, 8000)
    table = {"user": range(8000), "org": of, "arm": np.where(treated[of], "treatment", "control"), "revenue": y}
    by_unit = analysed(tmp_path, table, config([REVENUE])).metrics[0]
    found = analysed(tmp_path, table, config([REVENUE], cluster="org"))
    [row] = found.metrics
    design = sm.add_constant(treated[of])
    ols = sm.OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": of}, use_t=True)
    assert row.difference == pytest.approx(ols.params[1], rel=1e-9)
    width = row.difference_high - row.difference_low
    assert width == pytest.approx(np.diff(ols.conf_int()[1])[0], rel=0.01)
    assert width > 2.5 * (by_unit.difference_high - by_unit.difference_low)
    assert found.clusters == {"control": 400 - int(treated.sum()), "treatment": int(treated.sum())}


def test_families_looks_and_guardrails_are_judged_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    n = 9000
    arm = np.array(["control", "a", "b"])[rng.integers(0, 3, n)]
    table = {"user": range(n), "arm": arm, "revenue": rng.normal(10, 3, n) + 0.25 * (arm == "a"),
             "other": rng.normal(1, 1, n), "crashes": rng.poisson(0.05 + 0.05 * (arm == "b"), n)}  # fmt: skip
    variants = [{"name": name, "weight": 1 / 3} for name in ("control", "a", "b")]
    other = REVENUE | {"name": "other", "column": "other", "role": "secondary"}
    crashes = REVENUE | {"name": "crashes", "column": "crashes", "role": "guardrail", "threshold": "+10%"}
    said = config([REVENUE, other, crashes | {"direction": "lower_is_better"}], variants=variants)
    found = {(row.metric, row.variant): row for row in analysed(tmp_path, table, said).metrics}
    p = sorted(found["revenue", arm].p_value for arm in "ab")
    assert sorted(found["revenue", arm].adjusted_p for arm in "ab") == pytest.approx([2 * p[0], max(2 * p[0], p[1])])
    assert found["revenue", "a"].verdict == "better" and found["revenue", "b"].verdict == "inconclusive"
    assert found["crashes", "b"].verdict == "harm" and found["crashes", "b"].adjusted_p is None
    early = analysed(tmp_path, table, said | {"looks": {"fractions": [0.1, 0.25]}}).metrics[0]
    assert early.significant_below == pytest.approx(spending_bounds([0.1, 0.25], 0.05).p[-1]) and early.p_value < 0.05
    assert early.verdict == "inconclusive"  # an early look needs far more


def test_a_broken_split_makes_every_verdict_invalid(tmp_path: Path) -> None:
    arm = ["control"] * 600 + ["treatment"] * 400
    found = analysed(tmp_path, {"user": range(1000), "arm": arm, "revenue": np.arange(1000.0)}, config([REVENUE]))
    assert found.srm and found.srm_p_value == pytest.approx(
        2.54e-10, rel=0.01
    )  # chi-square 40 with 1 degree of freedom
    assert found.metrics[0].verdict == "invalid: srm"


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        ({"user": [1, 2, 3, 4], "arm": ["control", "treatment"] * 2, "revenue": [0.0] * 4}, "inconclusive"),  # nothing varies
        ({"user": [1], "arm": ["control"], "revenue": [1.0]}, "no data"),
        ({"user": [1, 2], "arm": ["control"] * 2, "revenue": [1.0, 2.0]}, "no data"),
        ({"user": pa.array([], pa.int64()), "arm": pa.array([], pa.string()), "revenue": pa.array([], pa.float64())}, "no data"),
    ],
)  # fmt: skip
def test_a_table_with_too_little_in_it_has_a_verdict_too(tmp_path: Path, table: dict[str, Any], verdict: str) -> None:
    found = analysed(tmp_path, table, config([REVENUE]))
    assert [row.verdict for row in found.metrics] == [verdict] and not found.srm
    json.dumps(found.as_dict(), allow_nan=False)


def test_units_without_a_covariate_and_rows_of_other_variants_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = [None if k % 2 else float(k) for k in range(400)]
    table = {"user": range(400), "arm": ["control", "treatment", "treatment", "control"] * 99 + ["beta", None, "beta", "beta"],
             "revenue": rng.normal(0, 1, 400), "x": x}  # fmt: skip
    found = analysed(tmp_path, table, config([REVENUE | {"covariates": ["x"]}]))
    assert found.notices == [
        "3 rows are left out: their variant is beta, which is not declared",
        "1 rows are left out: their variant is nothing, which is not declared",
        "198 units have no x: they stand at its mean",
    ]
    assert found.metrics[0].cuped_correlation is not None


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("user", [1, 1, 2, 3], "1 units stand in more than one row"),
        ("user", [1, None, 2, 3], "1 rows have no user"),
        ("revenue", [1.0, math.inf, 2.0, -math.inf], "2 units have no finite number in 'revenue'"),
        ("revenue", [1.0, None, 2.0, math.nan], "2 units have no finite number in 'revenue'"),
        ("revenue", ["1", "2", "much", "4"], "1 units have no finite number in 'revenue'"),
    ],
)
def test_rows_that_make_no_sense_are_refused(tmp_path: Path, column: str, values: list[Any], said: str) -> None:
    table = {"user": [1, 2, 3, 4], "arm": ["control", "treatment"] * 2, "revenue": [1.0] * 4} | {column: values}
    with pytest.raises(InputError, match=said):
        analysed(tmp_path, table, config([REVENUE]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": [HALVES[0], HALVES[1] | {"weight": 0.6}]}, "the weights of the variants sum to 1.1"),
        ({"control": "none"}, "control 'none' is not one of the variants"),
        ({"metrics": [REVENUE | {"role": "secondary"}]}, "exactly one primary metric, this one names 0"),
        ({"metrics": [REVENUE | {"role": "guardrail"}]}, "a guardrail needs a threshold"),
        ({"metrics": [REVENUE | {"type": "ratio"}]}, "a ratio metric does not use the key 'column'"),
        ({"metrics": [REVENUE | {"treshold": "+5%"}]}, "treshold"),
        ({"looks": {"fractions": [0.5, 0.2]}}, "every look has more information"),
        ({"unit": "person"}, "there is no column 'person'"),
    ],
)
def test_yaml_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    table = {"user": [1, 2], "arm": ["control", "treatment"], "revenue": [1.0, 2.0]}
    with pytest.raises(InputError, match=said) as error:
        analysed(tmp_path, table, config([REVENUE]) | change)
    assert "\n" not in str(error.value)


def test_the_command_says_the_same_as_text_and_as_json(tmp_path: Path, users: pa.Table) -> None:
    found = analysed(tmp_path, as_units(users), config([REVENUE, ORDERS]))
    given = [
        "experiment",
        "analyze",
        "--units",
        str(tmp_path / "units.parquet"),
        "--config",
        str(tmp_path / "config.yaml"),
    ]
    told = CliRunner().invoke(app, [*given, "--json"])
    assert told.exit_code == 0 and json.loads(told.output) == found.as_dict()
    text = CliRunner().invoke(app, given)
    assert text.exit_code == 0 and "split      as declared" in text.output and "orders_per_session" in text.output
    csv = tmp_path / "units.csv"
    import pyarrow.csv

    pyarrow.csv.write_csv(pq.read_table(tmp_path / "units.parquet"), csv)
    again = analyze_units(csv, parse_contract(UnitTableFile, tmp_path / "config.yaml"))
    assert again.metrics[0].difference == pytest.approx(found.metrics[0].difference, rel=1e-12)


def test_sizes_are_those_of_statsmodels_and_the_command_asks_for_one_question() -> None:
    given = ["experiment", "power", "--rate", "0.04", "--effect", "0.004"]
    units = json.loads(CliRunner().invoke(app, [*given, "--json"]).output)["units"]
    arm = sm.stats.NormalIndPower().solve_power(0.004 / math.sqrt(0.04 * 0.96), None, 0.05, 0.8)
    assert units == pytest.approx(2 * arm, rel=1e-4)
    looks = json.loads(CliRunner().invoke(app, [*given, "--looks", "4", "--correlation", "0.6", "--json"]).output)
    assert 0.64 * units * 1.01 < looks["units"] < 0.64 * units * 1.05 and 0.01 < looks["looks_cost_units"] < 0.05
    for wrong in (["--rate", "0.04"], [*given, "--units", "5"], [*given[:2], "--rate", "4", "--effect", "1"]):
        refused = CliRunner().invoke(app, wrong if wrong[0] == "experiment" else ["experiment", "power", *wrong])
        assert isinstance(refused.exception, InputError)
