"""A killed run gives back its pool slot and its place in the queue; a living one keeps both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from zantara_pipeline.orchestration.dead_runs import PROCESS_TAG, clear_dead_runs, this_process
from zantara_pipeline.orchestration.instance import open_instance
from zantara_pipeline.storage.home import Home, home_lock


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as instance:
        yield instance


@dg.job
def nothing() -> None:
    """Stands for the pipeline's job: only its record is looked at."""


def start(instance: dg.DagsterInstance, process: str) -> str:
    """A run that says it is under way and holds the warehouse pool's only slot."""
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: process})
    instance.event_log_storage.initialize_concurrency_limit_to_default("warehouse")
    claim = instance.event_log_storage.claim_concurrency_slot("warehouse", run.run_id, "dbt_models")
    assert claim.is_claimed
    return run.run_id


def ended_process() -> str:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return f"{done.pid}:1"


def test_a_killed_run_is_cleared(instance: dg.DagsterInstance, home: Home) -> None:
    run_id = start(instance, ended_process())
    assert clear_dead_runs(instance, home) == 1
    assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE
    start(instance, this_process())  # the slot can be had again
    assert clear_dead_runs(instance, home) == 0


def test_a_number_that_another_process_has_now_is_dead(instance: dg.DagsterInstance, home: Home) -> None:
    start(instance, f"{os.getpid()}:1")
    assert clear_dead_runs(instance, home) == 1


def test_a_run_that_works_is_left_alone(instance: dg.DagsterInstance, home: Home) -> None:
    run_id = start(instance, ended_process())
    with home_lock(home, "a run at work"):
        assert clear_dead_runs(instance, home) == 0
    assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED
    assert instance.event_log_storage.get_concurrency_info("warehouse").claimed_slots
