"""The job `replay` and what follows it, run by Dagster itself on small homes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from event_lines import RULES, Shop, event, viewed
from pipeline_homes import assert_same_tables, reading

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.definitions import build_definitions
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.home import Home, home_lock
from zantara_pipeline.tracking.quarantine import kinds

ACCEPTED, QUARANTINE = dg.AssetKey(["lake", "accepted"]), dg.AssetKey(["lake", "quarantine"])
LONG_AGO = "2026-01-10"
DAYS = ("2026-03-01", "2026-03-02", "2026-03-05")


@pytest.fixture
def manifest(parsed: Path) -> Path:
    return parsed


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """Contracts under which no price may be more than 5."""
    overlay = tmp_path / "contracts"
    (overlay / "tracking_plan").mkdir(parents=True)
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / "product_view.yaml").read_text())
    entry["properties"]["price"]["max"] = 5
    entry["examples"] = {}
    (overlay / "tracking_plan" / "product_view.yaml").write_text(yaml.safe_dump(entry, sort_keys=False))
    return overlay


def home_with(root: Path, manifest: Path) -> Home:
    """Views over three days: of each four one costs 4, one 9, one 7 as text, and one has no product; one copy; one old view."""
    shop = Shop(root, RULES)
    home = shop.home.create()
    lines = []
    for number, day in enumerate(DAYS * 4):
        line = [viewed(price=4), viewed(price=9), viewed(price="7"), event("product_view", {})][number // 3]
        times = {"timestamp": f"{day}T10:00:00Z", "received_at": f"{day}T10:00:05Z"}
        lines.append(line | times | {"event_id": f"v{number}", "user_id": f"u{number % 5}", "session_id": "s"})
    lines.append(lines[3] | {"received_at": "2026-03-06T00:00:00Z"})  # a copy of a view that costs 9
    old = {"timestamp": f"{LONG_AGO}T10:00:00Z", "received_at": f"{LONG_AGO}T10:00:05Z", "event_id": "old"}
    lines.append(viewed(price=1) | old)
    (home.landing / "events" / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copytree(manifest, home.dbt / "target", dirs_exist_ok=True)
    return home


def run(
    home: Home, job: str, instance: dg.DagsterInstance, contracts: Path | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    settings = Settings(home=home.root, contracts=contracts)
    definition = build_definitions(settings).resolve_job_def(job)
    wanted = {"ops": {"replay_quarantine": {"config": config}}} if config else {}
    return definition.execute_in_process(instance=instance, run_config=wanted, raise_on_error=False)


def took(home: Home, contracts: Path | None = None) -> None:
    """What landed is in the lake, judged under these contracts; no table is built."""
    from zantara_pipeline.orchestration.pipeline import Pipeline
    from zantara_pipeline.tracking.ingest import ingest

    pipeline = Pipeline(Settings(home=home.root, contracts=contracts))
    ingest(home, pipeline.ledger, pipeline.landing, pipeline.rules, threads=1)


def materialized(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> list[str]:
    events = [e.step_materialization_data.materialization for e in result.all_events if e.is_step_materialization]
    return [found.partition for found in events if found.asset_key == key]


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    [output] = [e.event_specific_data for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in output.metadata.items()}


def lines_in_quarantine(home: Home) -> int:
    return sum(kind.rows for kind in kinds(home))


def test_a_replay_names_the_days_that_it_changed(
    tmp_path: Path, manifest: Path, narrow: Path, instance: dg.DagsterInstance
) -> None:
    home = home_with(tmp_path / "home", manifest)
    took(home, narrow)
    assert lines_in_quarantine(home) == 10
    done = run(home, "replay", instance)
    assert done.success
    # the views of 9 on three days, and the copy of the first on a fourth
    assert materialized(done, ACCEPTED) == [*DAYS, "2026-03-06"] == materialized(done, QUARANTINE)
    found = told(done)
    assert (found["judged"], found["accepted"], found["failed_again"], found["hashed"]) == (10, 4, 6, 0)
    assert (found["touched_dates"], found["duplicate_dates"]) == ([*DAYS, "2026-03-06"], [])
    assert lines_in_quarantine(home) == 6
    again = run(home, "replay", instance)
    assert again.success and materialized(again, ACCEPTED) == materialized(again, QUARANTINE) == []


def test_a_dry_run_says_it_and_writes_nothing(
    tmp_path: Path, manifest: Path, narrow: Path, instance: dg.DagsterInstance
) -> None:
    home = home_with(tmp_path / "home", manifest)
    took(home, narrow)
    done = run(home, "replay", instance, dry_run=True)
    assert told(done)["accepted"] == 4 and told(done)["touched_dates"] == [*DAYS, "2026-03-06"]
    assert materialized(done, ACCEPTED) == [] and lines_in_quarantine(home) == 10


def test_one_kind_of_failure_with_declared_fixes(tmp_path: Path, manifest: Path, instance: dg.DagsterInstance) -> None:
    home = home_with(tmp_path / "home", manifest)
    took(home)
    fixes = tmp_path / "fixes.yaml"
    fix = {"event": "product_view", "cast": {"price": "number"}, "default": {"product_id": "p"}}
    entry = {"version": "1-0-0", "owner": "a@example.com", "reason": "sent as text", "fixes": [fix]}
    fixes.write_text(yaml.safe_dump(entry))
    [as_text] = [kind.fingerprint for kind in kinds(home) if kind.reasons == "wrong_type $.properties.price"]
    done = run(home, "replay", instance, fingerprints=[as_text[:6]], fixes=str(fixes))
    assert (told(done)["judged"], told(done)["accepted"]) == (3, 3)
    assert told(done)["duplicate_dates"] == ["2026-03-06"]  # the copy of another view: it may hold copies of these
    assert lines_in_quarantine(home) == 3


def test_wrong_configuration_is_said_and_changes_nothing(
    tmp_path: Path, manifest: Path, instance: dg.DagsterInstance
) -> None:
    home = home_with(tmp_path / "home", manifest)
    took(home)
    for config, said in (
        ({"fingerprints": ["zzz"]}, "nothing in quarantine begins with 'zzz'"),
        ({"fixes": str(tmp_path / "nowhere.yaml")}, "nowhere.yaml"),
    ):
        failed = run(home, "replay", instance, **config)
        assert not failed.success
        assert said in str(failed.get_step_failure_events()[0].event_specific_data.error)
    assert lines_in_quarantine(home) == 6
    assert failed.dagster_run.tags["dagster/max_retries"] == "0"


def test_a_replay_waits_for_nobody_and_disturbs_nobody(
    tmp_path: Path, manifest: Path, narrow: Path, instance: dg.DagsterInstance
) -> None:
    """It holds the home's lock like a run of the pipeline; while somebody writes it fails and says who."""
    home = home_with(tmp_path / "home", manifest)
    took(home, narrow)
    with home_lock(home, "somebody at work"):
        failed = run(home, "replay", instance)
    assert not failed.success and lines_in_quarantine(home) == 10
    assert any("somebody at work" in str(event.event_specific_data) for event in failed.all_events)


@pytest.mark.parametrize(("dry_run", "starts"), [(False, True), (True, False)])
def test_the_pipeline_follows_a_replay_that_changed_something(
    tmp_path: Path, manifest: Path, narrow: Path, instance: dg.DagsterInstance, dry_run: bool, starts: bool
) -> None:
    home = home_with(tmp_path / "home", manifest)
    took(home, narrow)
    done = run(home, "replay", instance, dry_run=dry_run)
    repository = build_definitions(Settings(home=home.root)).get_repository_def()
    with dg.build_run_status_sensor_context(
        "quarantine_replayed", done.get_run_success_event(), instance, done.dagster_run, repository_def=repository
    ) as context:
        answer = repository.get_sensor_def("quarantine_replayed")(context)
    assert isinstance(answer, dg.RunRequest) is starts
    assert not starts or answer.run_key == done.run_id


@pytest.mark.e2e
def test_replay_then_pipeline_gives_the_tables_of_a_shop_that_was_never_broken(
    tmp_path: Path, manifest: Path, narrow: Path, instance: dg.DagsterInstance
) -> None:
    never, home = (home_with(tmp_path / name, manifest) for name in ("never", "broken"))
    assert run(never, "pipeline", instance).success
    assert run(home, "pipeline", instance, narrow).success
    with reading(home.warehouse) as con:
        assert con.execute("SELECT count(*) FROM staging.stg_lake__product_view").fetchall() == [(4,)]
    assert run(home, "replay", instance).success
    assert run(home, "pipeline", instance).success
    with reading(home.warehouse) as con:
        assert con.execute("SELECT rebuild_from::VARCHAR FROM state.run_clock").fetchall() == [(DAYS[0],)]
        assert con.execute("SELECT count(*) FROM staging.stg_lake__product_view").fetchall() == [(7,)]
    # alerts tell when: the narrow plan's kind of failure was told and is over. So do history and withdrawals: of two runs
    # here, of one there
    told = ["ops.alerts", "ops.withdrawals", "segments.membership_history"]
    assert_same_tables(never.warehouse, home.warehouse, besides=told)
    with reading(home.published) as con:
        over = con.execute(
            "SELECT details->>'code' FROM ops.alerts WHERE kind = 'new_failure' AND resolved_at IS NOT NULL"
        ).fetchall()
    assert over == [("above_maximum",)]
