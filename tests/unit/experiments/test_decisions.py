"""Decisions by their rules, stops that are made once and taken back, and what applications and people are told of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import decide_all, load_experiments, open_stops, served, write_served
from zantara_pipeline.experiments.decisions import COLUMNS, decide
from zantara_pipeline.experiments.registry import Experiment
from zantara_pipeline.experiments.scorecard import ScorecardRow
from zantara_pipeline.experiments.stops import all_stops, revert, stop
from zantara_pipeline.storage.ledger import Ledger

REGISTRY = load_experiments()
CHECKOUT = REGISTRY.experiments["checkout_redesign"]
END = CHECKOUT.end
MIDDLE = END - dt.timedelta(days=10)


def row(role: str, verdict: str, variant: str = "treatment", p: float | None = 0.01, **changes: Any) -> ScorecardRow:
    metric = {"srm": "sample_ratio", "primary": "conversion", "guardrail": "p95_latency_ms"}[role]
    whole: dict[str, Any] = {
        "experiment_id": "checkout_redesign", "variant": variant, "metric": metric, "role": role, "as_of": END, "n": 100,
        "value": 0.5, "control_value": 0.5, "lift": 0.1, "ci_low": 0.05, "ci_high": 0.15, "p_value": p,
        "log_p": None if p is None else math.log(p), "method": "m", "verdict": verdict, "control_n": 100,
        "threshold": "+5% relative" if role == "guardrail" else None,
    }  # fmt: skip
    return ScorecardRow(**whole | changes)


SPLIT = row("srm", "ok")
CASES: dict[str, tuple[list[ScorecardRow], dt.datetime, str, tuple[str, ...]]] = {
    "better and safe": ([SPLIT, row("primary", "better"), row("guardrail", "safe")], END, "ship", ("treatment",)),
    "no guardrails": ([SPLIT, row("primary", "better")], END, "ship", ("treatment",)),
    "better, and nobody knows the harm": (
        [SPLIT, row("primary", "better"), row("guardrail", "underpowered")], END, "inconclusive", ()),
    "worse": ([SPLIT, row("primary", "worse"), row("guardrail", "safe")], END, "do_not_ship", ()),
    "neither": ([SPLIT, row("primary", "inconclusive", p=0.5), row("guardrail", "safe")], END, "inconclusive", ()),
    "no data": ([SPLIT, row("primary", "no data", p=None)], END, "inconclusive", ()),
    "nobody came": ([], END, "inconclusive", ()),
    "better, but not over": ([SPLIT, row("primary", "better"), row("guardrail", "safe")], MIDDLE, "continue", ()),
    "nobody came yet": ([], MIDDLE, "continue", ()),
    "broken split": ([row("srm", "srm"), row("primary", "invalid: srm")], MIDDLE, "stop_srm", ()),
    "broken split at the end": ([row("srm", "srm"), row("primary", "invalid: srm")], END, "stop_srm", ()),
    "harm": ([SPLIT, row("primary", "keep running"), row("guardrail", "harm")], MIDDLE, "stop_harm", ("treatment",)),
    "harm of what is better": ([SPLIT, row("primary", "better"), row("guardrail", "harm")], END, "stop_harm", ("treatment",)),
    "one of two ships": (
        [SPLIT, row("primary", "better", "a"), row("guardrail", "safe", "a"), row("primary", "worse", "b")], END, "ship", ("a",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_rule(name: str) -> None:
    rows, as_of, word, variants = CASES[name]
    found = decide(CHECKOUT, rows, as_of)
    assert (found.decision, found.variants) == (word, variants)
    assert found.reasons and all(reason[0] != " " for reason in found.reasons)
    assert decide(CHECKOUT, rows, as_of) == found


def test_its_hashes_tell_the_inputs_apart() -> None:
    one = decide(CHECKOUT, [SPLIT, row("primary", "better")], END)
    other = decide(CHECKOUT, [SPLIT, row("primary", "better", lift=math.nextafter(0.1, 1))], END)
    assert one.input_hash != other.input_hash and one.config_hash == other.config_hash == CHECKOUT.config_hash


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "data" / "state" / "ledger.db")


def decided(ledger: Ledger, verdict: str, experiment: Experiment = CHECKOUT) -> str:
    """One run whose guardrail says this; the experiment's status in experiments.json."""
    registry = dataclasses.replace(REGISTRY, experiments={"checkout_redesign": experiment})
    con = duckdb.connect()
    con.execute("CREATE SCHEMA experiments")
    decide_all(con, registry, [SPLIT, row("primary", "keep running"), row("guardrail", verdict)], MIDDLE, ledger)
    names = [name for name, _, _ in COLUMNS]
    [told] = con.execute("SELECT * FROM experiments.decisions").fetchall()
    assert dict(zip(names, told, strict=True))["stopped"] == bool(open_stops(ledger))
    return str(served(registry, open_stops(ledger), MIDDLE)["experiments"][0]["status"])


def test_a_stop_is_made_once_reaches_serving_and_can_be_taken_back(ledger: Ledger) -> None:
    assert decided(ledger, "safe") == "running"
    assert decided(ledger, "harm") == "stopped" == decided(ledger, "harm")
    [made] = all_stops(ledger, "checkout_redesign")
    assert made.cause == "harm" and "p95_latency_ms" in made.reason and made.as_of == MIDDLE
    assert decided(ledger, "safe") == "stopped", "only a person takes it back"

    revert(ledger, made.token, "the pages were slow for another reason")
    assert decided(ledger, "harm") == "running", "a person has seen that cause"
    changed = dataclasses.replace(CHECKOUT, config_hash="another")
    assert decided(ledger, "harm", changed) == "stopped", "and not of this configuration"
    assert [one.reverted_because for one in all_stops(ledger, "checkout_redesign")] == [
        "the pages were slow for another reason", None,
    ]  # fmt: skip


def test_a_token_reverts_once(ledger: Ledger) -> None:
    made = stop(ledger, "checkout_redesign", "h", "person", "why not", MIDDLE)
    assert made is not None and stop(ledger, "checkout_redesign", "h", "srm", "again", MIDDLE) is None
    revert(ledger, made.token, "because")
    with pytest.raises(InputError, match="already"):
        revert(ledger, made.token, "because")
    with pytest.raises(InputError, match="no stop has this token"):
        revert(ledger, "x' OR 1 = 1 --", "because")
    assert stop(ledger, "checkout_redesign", "h", "person", "a person may always", MIDDLE) is not None


def test_a_person_stops_and_reverts_from_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["experiment", *arguments])

    done = run("stop", "checkout_redesign", "--because", "support is flooded")
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "data" / "serving" / "experiments.json").read_text())
    assert {one["experiment"]: one["status"] for one in told["experiments"]}["checkout_redesign"] == "stopped"
    [token] = [one["stop"]["token"] for one in json.loads(run("list", "--json").output) if one["stop"]]
    assert token in done.output and token in run("list").output
    assert "support is flooded" in run("show", "checkout_redesign").output
    assert run("revert", token, "--because", "it was a holiday").exit_code == 0
    told = json.loads((tmp_path / "data" / "serving" / "experiments.json").read_text())
    assert not any(one["stopped"] for one in told["experiments"])
    shown = json.loads(run("show", "checkout_redesign", "--json").output)
    assert shown["stop"] is None and shown["stops"][0]["reverted_because"] == "it was a holiday"

    for arguments in (
        ["show", "no_such"],
        ["stop", "no_such", "--because", "x"],
        ["stop", "checkout_redesign", "--because", " "],
    ):
        assert isinstance(run(*arguments).exception, InputError)
    assert run("assigner", "typescript", "--out", str(tmp_path / "src")).exit_code == 0
    assert (tmp_path / "src" / "zantara_experiments.ts").exists()


def test_experiments_json_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "serving" / "experiments.json"
    write_served(path, served(REGISTRY, {}, MIDDLE))
    before = path.read_bytes()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_served(path, served(REGISTRY, {}, END))
    assert path.read_bytes() == before
