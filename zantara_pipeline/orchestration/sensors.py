"""What starts by itself: a run when files land or lines were replayed, and the delivery of alerts."""

import time
from typing import Any

import dagster as dg

from zantara_pipeline.alerts import deliver
from zantara_pipeline.orchestration.alert_ledger import alert_ledger, alerts_config
from zantara_pipeline.orchestration.dead_runs import clear_dead_runs
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.tracking.reader import untaken

# A collector may still be writing: a file is left alone until it has not changed for this long.
SETTLED_SECONDS = 30


def landing_sensor(pipeline: Pipeline, job: Any) -> dg.SensorDefinition:
    """A run when settled files are in the landing folder that the ledger does not know."""

    @dg.sensor(
        job=job,
        name="new_files_landed",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a run when new event files have landed and are no longer being written.",
    )
    def new_files_landed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        clear_dead_runs(context.instance, pipeline.home)
        if not pipeline.landing.exists():
            return dg.SensorResult(skip_reason="the landing folder does not exist yet")
        new = untaken(pipeline.landing, pipeline.ledger, settled_before=time.time() - SETTLED_SECONDS)
        if not new:
            return dg.SensorResult(skip_reason="no new files have landed")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=new)])

    return new_files_landed


def replay_sensor(replay: Any, job: Any) -> dg.SensorDefinition:
    """A run of the pipeline after a replay that changed the lake; its first step finds from which day to rebuild."""

    @dg.run_status_sensor(
        name="quarantine_replayed",
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[replay],
        request_job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a run that rebuilds the tables after a replay changed something.",
    )
    def quarantine_replayed(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
        run_id = context.dagster_run.run_id
        changed = context.instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=1
        )
        return dg.RunRequest(run_key=run_id) if changed.records else dg.SkipReason("the replay changed nothing")

    return quarantine_replayed


def alert_sensor(pipeline: Pipeline) -> dg.SensorDefinition:
    """Delivers what the ledger holds and a sink has not had yet; once each."""

    @dg.sensor(
        name="deliver_alerts",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Delivers new alerts to the sinks of contracts/alerts.yaml, each once.",
    )
    def deliver_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        result = deliver(alert_ledger(pipeline), alerts_config(pipeline), pipeline.home.root)
        for sink, problem in result.failed.items():
            context.log.warning(f"sink {sink}: {problem}")
        return dg.SkipReason(f"{result.total} deliveries made")

    return deliver_alerts
