"""What Dagster is told: every asset's key, group, owner, kinds, dependencies, checks and pool, and what runs by itself.

asset_specs.json is the record of it; after a deliberate change: pytest tests/integration --update-asset-specs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pipeline_homes import with_project

from zantara_pipeline.definitions import build_definitions
from zantara_pipeline.settings import Settings

SNAPSHOT = Path(__file__).with_name("asset_specs.json")
# The embedded engine takes one writer: whatever opens the warehouse waits for this pool.
WRITES_NO_WAREHOUSE = {"privacy/consent_ledger", "lake/items", "lake/accepted", "lake/quarantine", "ops/report"}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory, parsed: Path) -> dg.Definitions:
    return build_definitions(Settings(home=with_project(tmp_path_factory.mktemp("specs"), parsed)))


@pytest.fixture(scope="module")
def repository(definitions: dg.Definitions) -> dg.RepositoryDefinition:
    return definitions.get_repository_def()


@pytest.fixture(scope="module")
def specs(repository: dg.RepositoryDefinition) -> dict[str, dict[str, Any]]:
    """Everything that runs, by key; sources that another asset makes are not listed twice."""
    graph = repository.asset_graph
    checks: dict[str, list[str]] = {}
    for check in graph.asset_check_keys:
        checks.setdefault(check.asset_key.to_user_string(), []).append(check.name)
    found = {}
    for key, assets in repository.assets_defs_by_key.items():
        spec, name = assets.get_asset_spec(key), key.to_user_string()
        found[name] = {
            "group": spec.group_name,
            "owners": sorted(spec.owners),
            "tags": {name: value for name, value in sorted(spec.tags.items()) if "/kind/" not in name},
            "freshness_days": _days(spec.freshness_policy),
            "kinds": sorted(spec.kinds),
            "deps": sorted({dep.asset_key.to_user_string() for dep in spec.deps}),
            "checks": sorted(checks.get(name, [])),
            "pool": assets.op.pool,
            "partitioned": assets.partitions_def is not None,
        }
    return dict(sorted(found.items()))


def _days(policy: Any) -> list[float] | None:
    """After how many days it warns and fails."""
    return policy and [
        window.to_timedelta().total_seconds() / 86400 for window in (policy.warn_window, policy.fail_window)
    ]


def test_asset_specs_are_those_recorded(specs: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-asset-specs"):
        SNAPSHOT.write_text(json.dumps(specs, indent=1) + "\n", encoding="utf-8")
    recorded = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert list(specs) == list(recorded)
    assert {name: spec for name, spec in specs.items() if spec != recorded[name]} == {}


def test_every_asset_says_whose_it_is_and_what_it_holds(
    specs: dict[str, dict[str, Any]], repository: dg.RepositoryDefinition
) -> None:
    for name, spec in specs.items():
        assert spec["owners"] and all("@" in owner for owner in spec["owners"]), name
        assert spec["group"] and spec["group"] != "default", name
        assert spec["group"] == name.split("/")[0], name
        assert spec["kinds"], name
    for key, assets in repository.assets_defs_by_key.items():
        description = assets.get_asset_spec(key).description or ""
        assert len(description) > 20, f"{key.to_user_string()}: {description!r}"


def test_what_a_segment_says_of_itself_is_seen_in_dagster(specs: dict[str, dict[str, Any]]) -> None:
    """Tags, an owner, and a freshness that fails when everybody in it has expired."""
    segments = {name: spec for name, spec in specs.items() if name.startswith("segments/seg_")}
    assert len(segments) >= 8
    assert {spec["tags"]["segment/entity"] for spec in segments.values()} == {
        "user",
        "session",
        "device",
        "organisation",
    }
    for name, spec in segments.items():
        assert spec["freshness_days"][1] == float(spec["tags"]["segment/ttl_days"]) == 2 * spec["freshness_days"][0], (
            name
        )
        assert {"segment/purpose", "segment/legal_basis", "segment/access_level", "segment/min_size"} < set(
            spec["tags"]
        )


def test_whatever_writes_the_warehouse_waits_for_its_pool(specs: dict[str, dict[str, Any]]) -> None:
    assert {name for name, spec in specs.items() if spec["pool"] != "warehouse"} == WRITES_NO_WAREHOUSE


def test_checks_of_the_lake_block_what_follows(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    for name in ("files_balance", "pandera_agrees"):
        key = dg.AssetCheckKey(dg.AssetKey(["lake", "accepted"]), name)
        assert graph.get(key).blocking, name


def test_checks_of_consent_block_whatever_is_made_of_people(repository: dg.RepositoryDefinition) -> None:
    """Segments are checked on core.users: so their history has to come after that, too."""
    graph = repository.asset_graph
    for name, checks in (
        ("core/users", ("nobody_without_consent", "reads_through_consent")),
        ("features/interactions", ("nobody_without_consent",)),
        ("experiments/exposures", ("nobody_without_consent",)),
        ("recommendations/user_recommendations", ("nobody_without_consent",)),
        ("staging/int_events__indexed", ("no_exempt_row",)),
    ):
        for check in checks:
            assert graph.get(dg.AssetCheckKey(dg.AssetKey(name.split("/")), check)).blocking, (name, check)
    for made in ("segments/membership_history", "recommendations/user_recommendations"):
        assert dg.AssetKey(["core", "users"]) in graph.get(dg.AssetKey(made.split("/"))).parent_keys, made


def test_a_broken_promise_about_rejects_blocks_nothing(repository: dg.RepositoryDefinition) -> None:
    key = dg.AssetCheckKey(dg.AssetKey(["lake", "quarantine"]), "rejects_as_promised")
    assert not repository.asset_graph.get(key).blocking


def test_daily_data_is_partitioned_by_day(specs: dict[str, dict[str, Any]]) -> None:
    assert {name for name, spec in specs.items() if spec["partitioned"]} == {"lake/accepted", "lake/quarantine"}


def test_schedule_and_sensors_run_without_being_switched_on(repository: dg.RepositoryDefinition) -> None:
    assert [schedule.name for schedule in repository.schedule_defs] == ["daily_at_two"]
    assert repository.schedule_defs[0].default_status == dg.DefaultScheduleStatus.RUNNING
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    for name in ("new_files_landed", "quarantine_replayed", "deliver_alerts"):
        assert sensors.pop(name) == dg.DefaultSensorStatus.RUNNING
    assert set(sensors) <= {"default_automation_condition_sensor"}


def test_one_graph_for_the_command_the_schedule_and_the_page(repository: dg.RepositoryDefinition) -> None:
    assert {name for name in repository.job_names if not name.startswith("__")} == {"pipeline", "replay"}
    job = repository.get_job("pipeline")
    assert set(job.asset_layer.selected_asset_keys) == set(repository.assets_defs_by_key)
    assert {schedule.job_name for schedule in repository.schedule_defs} == {"pipeline"}
