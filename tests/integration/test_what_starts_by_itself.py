"""The schedule, the landing sensor and the alert sensor, evaluated by Dagster's own machinery on a home of their own."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from pipeline_homes import with_project

from zantara_pipeline.alerts import AlertLedger, Finding
from zantara_pipeline.definitions import build_definitions
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.ingest import ingest
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.verdict import Rules

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def home(settings: Settings) -> Home:
    return Home(settings.home).create()


@pytest.fixture
def repository(settings: Settings, home: Home, parsed: Path) -> dg.RepositoryDefinition:
    with_project(home.root, parsed)
    return build_definitions(settings).get_repository_def()


def land_file(home: Home, name: str = "a.jsonl", *, age_s: float = 3600, text: str = "not json\n") -> Path:
    path = home.landing / "events" / name
    path.write_text(text)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def evaluate(repository: dg.RepositoryDefinition, name: str) -> dg.SensorExecutionData:
    sensor = repository.get_sensor_def(name)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance=instance, repository_def=repository) as context,
    ):
        return sensor.evaluate_tick(context)


def take(home: Home, settings: Settings) -> None:
    from zantara_pipeline.storage.ledger import Ledger

    ingest(
        home,
        Ledger(home.state / "ledger.db"),
        home.landing / "events",
        Rules(load_plan(settings.contract_dirs), 24, 30),
        threads=1,
    )


def test_the_daily_run_is_for_yesterday(repository: dg.RepositoryDefinition) -> None:
    schedule = repository.get_schedule_def("daily_at_two")
    assert schedule.cron_schedule == "0 2 * * *" and schedule.execution_timezone == "UTC"
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 3, 5, 2, tzinfo=UTC), repository_def=repository
    )
    (request,) = schedule.evaluate_tick(context).run_requests
    assert request.partition_key == "2026-03-04"
    assert request.tags["dagster/partition"] == "2026-03-04"


def test_a_settled_file_starts_a_run(repository: dg.RepositoryDefinition, home: Home) -> None:
    land_file(home)
    (request,) = evaluate(repository, "new_files_landed").run_requests
    assert request.run_key


def test_the_same_files_ask_for_the_same_run(repository: dg.RepositoryDefinition, home: Home) -> None:
    """Dagster starts a run key once: two looks before the run has begun do not start two."""
    land_file(home)
    first, second = (evaluate(repository, "new_files_landed").run_requests[0].run_key for _ in range(2))
    assert first == second
    land_file(home, "b.jsonl")
    assert evaluate(repository, "new_files_landed").run_requests[0].run_key != first


def test_a_file_that_is_still_written_is_left_alone(repository: dg.RepositoryDefinition, home: Home) -> None:
    land_file(home, age_s=1)
    assert evaluate(repository, "new_files_landed").run_requests == []


def test_nothing_new_starts_nothing_and_is_said(
    repository: dg.RepositoryDefinition, home: Home, settings: Settings
) -> None:
    land_file(home)
    take(home, settings)
    ticked = evaluate(repository, "new_files_landed")
    assert ticked.run_requests == [] and ticked.skip_message == "no new files have landed"


def test_a_file_that_grew_starts_a_run(repository: dg.RepositoryDefinition, home: Home, settings: Settings) -> None:
    land_file(home)
    take(home, settings)
    land_file(home, text="not json\nnor this\n")
    assert len(evaluate(repository, "new_files_landed").run_requests) == 1


def test_alerts_are_delivered_once(repository: dg.RepositoryDefinition, home: Home) -> None:
    ledger = AlertLedger(home.state / "alerts.db")
    ledger.sync([Finding("srm", "critical", "search_ranking", "the split is broken")], AS_OF, ["srm"])
    said = [evaluate(repository, "deliver_alerts").skip_message for _ in range(2)]
    assert said == ["2 deliveries made", "0 deliveries made"]  # two sinks: log and outbox
    lines = (home.alerts / "outbox.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["srm"]
    # resolved, and wrong again later: that is news
    ledger.sync([], AS_OF, ["srm"])
    assert evaluate(repository, "deliver_alerts").skip_message == "0 deliveries made"
