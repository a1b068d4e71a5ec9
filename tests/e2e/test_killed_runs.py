"""SIGKILL of a run at every step boundary and inside every writing step; the next run works at once and ends alike.

Each case starts from a home with history and new files landed, so that staging is rebuilt from a date, old commits are
in the lake and a champion serves. A case is a chain of kills: killed, started again (which has to get past the place
where the last one died), killed further on, ... and at the end one undisturbed run, whose tables, staging included,
must equal those of a home that was never killed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pipeline_homes import (
    Done,
    assert_same_home,
    copy_home,
    kill_run,
    land,
    model_versions,
    unfinished_training_runs,
    zantara,
)

pytestmark = pytest.mark.e2e

# (step, share of its undisturbed duration after its start line); 1 means: when it says that it is done.
# The asset checks after ingest write nothing, so the boundary after ingest stands for theirs.
CHAINS = {
    "landed": [("preparing", 1), ("lake__items", 0.5), ("lake__items", 1), ("privacy__consent_ledger", 0.5), ("privacy__consent_ledger", 1), ("ingest", 0.3), ("ingest", 0.7), ("ingest", 1)],
    "tables": [("dbt_models", 0.15), ("dbt_models", 0.6), ("dbt_models", 0.9), ("dbt_models", 1), ("experiments__moments", 0.5), ("experiments__moments", 1)],
    "model": [("recommendations__model", 0.3), ("recommendations__model", 0.8), ("recommendations__model", 1), ("segment_lifecycle", 0.5), ("segment_lifecycle", 1), ("experiments__scorecard", 0.5), ("experiments__scorecard", 1)],
    "lists": [("recommendations__offline_metrics", 0.5), ("recommendations__offline_metrics", 1), ("recommendations__user_recommendations", 0.5), ("recommendations__user_recommendations", 1), ("experiments__decisions", 0.5), ("experiments__decisions", 1), ("ops__withdrawals", 0.5), ("ops__withdrawals", 1), ("ops__alerts", 0.5)],
    "closing": [("ops__alerts", 1), ("ops__published", 0.5), ("ops__published", 1), ("ops__report", 0.5), ("ops__report", 1)],
}  # fmt: skip
WRITES_NOTHING = {
    "lake__accepted_files_balance",
    "lake__accepted_pandera_agrees",
    "lake__quarantine_rejects_as_promised",
    "experiments__moments_checklists_are_settled",
    "consent_of_models",
    "recommendations__user_recommendations_nobody_without_consent",
    # no destination in these homes; a write that is killed: tests/unit/segments/test_exports.py
    "exports__segments",
}


@pytest.fixture(scope="module")
def durations(three_steps: Path) -> dict[str, float]:
    """Seconds of each step of the undisturbed run."""
    return Done(0, (three_steps / "run.out").read_text(encoding="utf-8"), "").seconds


def test_every_step_is_killed_somewhere(durations: dict[str, float]) -> None:
    """A step that somebody adds has to be added to the chains as well."""
    at_boundary = {step for chain in CHAINS.values() for step, share in chain if share == 1}
    inside = {step for chain in CHAINS.values() for step, share in chain if share < 1} | {"preparing"}
    assert at_boundary == inside == set(durations) - WRITES_NOTHING


@pytest.mark.parametrize("chain", list(CHAINS))
def test_a_killed_run_leaves_nothing_wrong(
    chain: str,
    third_landed: Path,
    three_steps: Path,
    durations: dict[str, float],
    tmp_path: Path,
    alerting: dict[str, str],
) -> None:
    home = copy_home(third_landed, tmp_path / "home")
    for step, share in CHAINS[chain]:
        if share == 1:
            kill_run(home, "done", step, env=alerting)
        else:
            kill_run(home, "start", step, share * durations[step], env=alerting)
    done = zantara(home, "run", env=alerting)
    assert done.err == ""
    assert_same_home(three_steps, home)
    assert model_versions(home) == model_versions(three_steps)
    assert unfinished_training_runs(home) == 0
    shutil.rmtree(home)


def test_a_first_run_that_is_killed_leaves_nothing_wrong(
    small_shop: Path, small_home: Path, durations: dict[str, float], tmp_path: Path, alerting: dict[str, str]
) -> None:
    """No ledger, warehouse or registry yet: killed while each is made for the first time."""
    home = tmp_path / "home"
    land(home, small_shop)
    kill_run(home, "start", "preparing", 0.3, env=alerting)
    for step in ("ingest", "dbt_models", "recommendations__model"):
        kill_run(home, "start", step, 0.5 * durations[step], env=alerting)
    zantara(home, "run", env=alerting)
    assert_same_home(small_home, home)
    assert model_versions(home) == 1 and unfinished_training_runs(home) == 0
    shutil.rmtree(home)
