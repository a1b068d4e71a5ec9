"""Dagster's own command line, in its own process, on a home with history: loading, and the run of a scheduled day."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from pipeline_homes import BIN, PATIENCE_S, REPO, copy_home, environment, published, reading

DAY = "2026-02-28"
pytestmark = pytest.mark.e2e


def dagster(home: Path, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    variables = environment(home, env) | {"DAGSTER_HOME": str(home / "data" / "dagster")}
    return subprocess.run(
        [str(BIN / "dagster"), *arguments], cwd=REPO, env=variables, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_the_workspace_loads(small_home: Path, alerting: dict[str, str], tmp_path: Path) -> None:
    home = copy_home(small_home, tmp_path / "home")
    done = dagster(home, "definitions", "validate", "-w", "workspace.yaml", env=alerting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All code locations passed validation" in done.stdout + done.stderr
    shutil.rmtree(home)


def test_a_scheduled_day_without_files_is_green(small_home: Path, alerting: dict[str, str], tmp_path: Path) -> None:
    """The tag is the one that the schedule's tick sets; the day's end is the run's clock."""
    home = copy_home(small_home, tmp_path / "home")
    before = (home / "data" / "published.duckdb").stat().st_mtime_ns
    tags = json.dumps({"dagster/partition": DAY})
    done = dagster(
        home,
        "job",
        "execute",
        "-m",
        "zantara_pipeline.definitions",
        "-a",
        "defs",
        "-j",
        "pipeline",
        "--tags",
        tags,
        env=alerting,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with dg.DagsterInstance.from_config(str(home / "data" / "dagster")) as instance:
        run = instance.get_runs(limit=1)[0]
        assert run.status == dg.DagsterRunStatus.SUCCESS and run.tags["dagster/partition"] == DAY
        ingested = instance.get_latest_materialization_event(dg.AssetKey(["lake", "accepted"]))
        assert ingested is not None and ingested.asset_materialization is not None
        assert ingested.asset_materialization.metadata["said"].value == "nothing new landed"
        checks = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
        results = [record.event_log_entry.dagster_event.asset_check_evaluation_data for record in checks]
        assert {"files_balance", "pandera_agrees"} <= {result.check_name for result in results}
        # the shop is dirty on purpose: the promise about rejects is broken, which warns
        assert all(result.passed for result in results if result.check_name != "rejects_as_promised")
        [promise] = [result for result in results if result.check_name == "rejects_as_promised"]
        assert promise.severity == dg.AssetCheckSeverity.WARN and promise.metadata["day"].value == DAY
    assert (home / "data" / "published.duckdb").stat().st_mtime_ns > before
    with reading(published(home)) as con:
        assert con.execute("SELECT DISTINCT refreshed_at FROM segments.catalog").fetchall() == [
            (datetime(2026, 3, 1, tzinfo=UTC),)
        ]
        assert con.execute(
            "SELECT count(*) FROM core.users WHERE last_seen_at > TIMESTAMPTZ '2026-03-01 00:00:00Z'"
        ).fetchall() == [(0,)]
    shutil.rmtree(home)
