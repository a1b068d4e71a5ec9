"""What Dagster loads. No logic: it puts the parts of orchestration/ together for one set of settings."""

import sys
from collections.abc import Callable

import dagster as dg

from zantara_pipeline.orchestration.assets import experiments, ops, recommend, tracking
from zantara_pipeline.orchestration.assets.segments import build_segment_assets
from zantara_pipeline.orchestration.checks import CHECKS
from zantara_pipeline.orchestration.consent_checks import build_consent_checks
from zantara_pipeline.orchestration.console import quiet_logger
from zantara_pipeline.orchestration.dbt import build_dbt_assets, dbt_resource, ensure_manifest
from zantara_pipeline.orchestration.pipeline import Pipeline, pipeline_resource
from zantara_pipeline.orchestration.replay_job import replay_job
from zantara_pipeline.orchestration.schedules import daily_schedule
from zantara_pipeline.orchestration.sensors import alert_sensor, landing_sensor, replay_sensor
from zantara_pipeline.privacy.lineage import check_lineage
from zantara_pipeline.segments.contract import check_segments
from zantara_pipeline.settings import Settings, dagster_home_is_set, load_settings


def build_definitions(settings: Settings, say: Callable[[str, str], None] | None = None) -> dg.Definitions:
    """All assets, checks, jobs, schedule and sensors for one home.

    Parameters
    ----------
    say : called with (start | done | failed | note, text) while a run works; None in Dagster's own processes.
    """
    pipeline = Pipeline(settings)
    pipeline.home.create()
    check_segments(pipeline.dbt_project, pipeline.plan.purposes)
    lineage = check_lineage(ensure_manifest(pipeline), pipeline.plan.purposes)
    dbt_models = build_dbt_assets(pipeline)
    segment_keys = [key for key in dbt_models.keys if key.path[-1].startswith("seg_")]
    tables = [
        *tracking.ASSETS,
        dbt_models,
        *build_segment_assets(segment_keys),
        *recommend.ASSETS,
        *experiments.ASSETS,
        ops.alerts,
        ops.withdrawals,
    ]
    internal = {"lake", "privacy", "staging"}
    published = [key for part in tables for key in part.keys if key.path[0] not in internal]
    job = dg.define_asset_job(
        "pipeline",
        selection=dg.AssetSelection.all(),
        executor_def=dg.in_process_executor,
        description="Everything, from what landed to the report. The same graph for the UI, the schedule and `make run`.",
        tags={"dagster/max_retries": "1"},
    )
    return dg.Definitions(
        assets=[*tables, *ops.build_closing_assets(published)],
        asset_checks=[*CHECKS, *build_consent_checks(lineage)],
        jobs=[job, replay_job],
        schedules=[daily_schedule(job)],
        sensors=[landing_sensor(pipeline, job), replay_sensor(replay_job, job), alert_sensor(pipeline)],
        resources={"pipeline": pipeline_resource(settings), "dbt": dbt_resource(pipeline)},
        executor=dg.in_process_executor,
        loggers={"console": quiet_logger(say)} if say else {},
    )


def __getattr__(name: str) -> dg.Definitions:
    """`defs` for Dagster's loaders, made from the environment when they ask, not when this module is imported."""
    if name == "defs":
        if not dagster_home_is_set():
            print(
                "zantara: Dagster runs without this home's instance (history, limits, no telemetry); better: make ui",
                file=sys.stderr,
            )
        return build_definitions(load_settings())
    raise AttributeError(name)
