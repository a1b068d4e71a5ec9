"""The checklist of an experiment, what it can find, and deciding again, each as a person meets it in a shell."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import PACKAGED_EXPERIMENTS, decide_all, load_experiments
from zantara_pipeline.experiments.checklist import checklist
from zantara_pipeline.experiments.planning import smallest_effect
from zantara_pipeline.experiments.scorecard import COLUMNS, ScorecardRow
from zantara_pipeline.statistics import Moments
from zantara_pipeline.storage.ledger import Ledger

REGISTRY = load_experiments()
CHECKOUT = REGISTRY.experiments["checkout_redesign"]
REQUIRED = {"experiment_exposed": frozenset(("experiment_id", "variant"))}
OPEN: dict[str, dict[str, Any]] = {
    "stable key": {"salt": None},
    "primary metric with guardrails": {"guardrails": ()},
    "CUPED or a reason": {"variance_reduction": "none"},
    "whole weeks": {"min_duration_days": 10},
    "spillover": {"spillover": None},
}


def open_points(experiment: Any = CHECKOUT, required: Any = None) -> list[str]:
    points = checklist(experiment, REQUIRED if required is None else required)
    assert len(points) == 7
    return [point.name for point in points if not point.passed]


@pytest.mark.parametrize("name", OPEN)
def test_each_point_opens_by_itself(name: str) -> None:
    assert open_points(dataclasses.replace(CHECKOUT, **OPEN[name])) == [name]


def test_exposures_have_to_be_in_the_plan() -> None:
    assert open_points() == []
    assert open_points(required={}) == ["logged exposure"]
    assert open_points(required={"experiment_exposed": frozenset(("variant",))}) == ["logged exposure"]


def test_a_reason_closes_the_point_of_cuped() -> None:
    reasoned = dataclasses.replace(CHECKOUT, variance_reduction="none", without_cuped_because="nobody was here before")
    assert open_points(reasoned) == []


def test_every_packaged_experiment_is_settled() -> None:
    assert [open_points(one) for one in REGISTRY.experiments.values()] == [[], [], []]


def test_the_smallest_effect_is_statsmodels_effect_size() -> None:
    """A mean of 2 with deviation 3: the effect size that 10,000 units show, one look, in units of the deviation."""
    rng = np.random.default_rng(5)
    y = rng.normal(2, 3, 4000)
    moments = Moments(len(y), ("value",), (float(y.sum()),), (float((y * y).sum()),))
    size = NormalIndPower().solve_power(nobs1=5000, alpha=0.05, power=0.9, alternative="two-sided")
    wanted = size * np.std(y, ddof=1) / y.mean()
    experiment = dataclasses.replace(CHECKOUT, power=0.9)
    assert smallest_effect(experiment, moments, "value") == pytest.approx(wanted, rel=1e-4)
    looks = smallest_effect(dataclasses.replace(experiment, looks=(14, 28)), moments, "value")
    assert looks is not None and wanted < looks < 1.02 * wanted, "O'Brien-Fleming looks cost little"
    pocock = smallest_effect(dataclasses.replace(experiment, looks=(14, 28), spending="pocock"), moments, "value")
    assert pocock is not None and pocock > looks
    third = dataclasses.replace(experiment, variants={"control": 0.5, "treatment": 0.25, "bold": 0.25})
    shared = smallest_effect(third, moments, "value")
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.9)
    assert shared == pytest.approx(z * np.std(y, ddof=1) * (1 / 5000 + 1 / 2500) ** 0.5 / y.mean(), rel=1e-9)


@pytest.mark.parametrize("values", [[0.0] * 50, [-1.0, -2.0] * 50, [3.0]])
def test_what_does_not_vary_or_is_not_positive_has_no_smallest_effect(values: list[float]) -> None:
    moments = Moments(len(values), ("value",), (sum(values),), (sum(v * v for v in values),))
    assert smallest_effect(CHECKOUT, moments, "value") is None


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["experiment", *arguments])


def test_check_tells_every_point_and_ends_with_1_where_one_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path / "none"))
    done = run("check", "checkout_redesign")
    assert done.exit_code == 0 and "unknown before a run has seen exposures" in done.output
    folder = tmp_path / "contracts" / "experiments"
    folder.mkdir(parents=True)
    packaged = (PACKAGED_EXPERIMENTS / "checkout_redesign.yaml").read_text()
    (folder / "checkout_redesign.yaml").write_text(packaged.replace("min_duration_days: 14", "min_duration_days: 15"))
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(tmp_path / "contracts"))
    done = run("check", "checkout_redesign", "--json")
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert [one["point"] for one in told["points"] if not one["passed"]] == ["whole weeks"]
    assert isinstance(run("check", "no_such").exception, InputError)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  possible: false", "  possible: true", "analyse this one by its clusters"),
        ("  because: a person", "  whatever: a person", "spillover.whatever"),
        ("primary: conversion", "primary: conversion\nminimum_effect: 5", "minimum_effect"),
        ("primary: conversion", 'primary: conversion\nminimum_effect: "+0%"', "must look like"),
        ("primary: conversion", "primary: conversion\npower: 1", "power"),
        ("weight: 0.5\n  - name: treatment\n    weight: 0.5", "weight: 0\n  - name: treatment\n    weight: 1", "fewer than two"),
        ("    weight: 0.5\ncontrol: control", "    weight: 0.5\n  - name: old\n    weight: 0\ncontrol: old", "has no weight"),
    ],
)  # fmt: skip
def test_answers_that_make_no_sense_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = (PACKAGED_EXPERIMENTS / "checkout_redesign.yaml").read_text()
    assert old in text
    (tmp_path / "checkout_redesign.yaml").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=says):
        load_experiments((PACKAGED_EXPERIMENTS, tmp_path))


def test_a_decision_is_made_again_by_what_the_run_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path))
    assert isinstance(run("decide", "checkout_redesign").exception, InputError)
    as_of = CHECKOUT.end - dt.timedelta(days=10)
    split = ScorecardRow(
        "checkout_redesign", "control", "sample_ratio", "srm", as_of, 10, 0.5, 0.5, 0.0, None, None, 0.5, -0.69, "m", "ok", 20,
    )  # fmt: skip
    state = tmp_path / "data" / "state"
    state.mkdir(parents=True)
    ledger = Ledger(state / "ledger.db")
    assert run("decide", "no_such").exit_code != 0
    with duckdb.connect(str(tmp_path / "data" / "published.duckdb")) as con:
        con.execute("SET TimeZone = 'UTC'; CREATE SCHEMA experiments")
        con.execute(f"CREATE TABLE experiments.scorecard ({', '.join(f'{n} {k}' for n, k, _ in COLUMNS)})")
        con.execute(f"INSERT INTO experiments.scorecard VALUES ({', '.join('?' * len(COLUMNS))})", list(astuple(split)))
        decide_all(con, REGISTRY, [split], as_of, ledger)
    done = run("decide", "checkout_redesign")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("checkout_redesign: continue") and done.output.count("as the run wrote it") == 3

    with duckdb.connect(str(tmp_path / "data" / "published.duckdb")) as con:  # the last bit of one number
        con.execute("UPDATE experiments.scorecard SET log_p = ?", [float(np.nextafter(-0.69, 0))])
    done = run("decide", "checkout_redesign", "--json")
    assert done.exit_code == 1
    assert json.loads(done.output)["same"] == {"decision": True, "input_hash": False, "config_hash": True}

    with duckdb.connect(str(tmp_path / "data" / "published.duckdb")) as con:
        con.execute("ALTER TABLE experiments.scorecard DROP COLUMN mismatch_at")
    with pytest.raises(InputError, match="another version wrote it"):
        raise run("decide", "checkout_redesign").exception
