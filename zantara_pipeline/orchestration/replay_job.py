"""The job `replay`: quarantined lines judged again from the UI or `dagster job launch`, as `zantara quarantine replay` does.

Belongs here: the job, its configuration, and which partitions it says it changed. Does not belong here: judging
(tracking/replay.py); rebuilding tables (the pipeline does, started by the sensor `quarantine_replayed`).
"""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from zantara_pipeline.orchestration.assets.tracking import ACCEPTED, QUARANTINE
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.tracking.fixes import load_fixes
from zantara_pipeline.tracking.quarantine import fingerprints_of, settled
from zantara_pipeline.tracking.replay import Replayed, replay


class ReplayConfig(dg.Config):
    """What to replay; the defaults replay everything.

    fingerprints : kinds of failure, by the first letters of their fingerprints; none: all.
    dry_run : say what would become of the lines; write nothing.
    fixes : a YAML of fixes to do to the lines first; a path that Dagster's process can read.
    """

    fingerprints: list[str] = Field(default_factory=list)
    dry_run: bool = False
    fixes: str | None = None


@dg.op(
    description="Judges quarantined lines by the plan as it is now; those that pass go to the received days where they belong.",
    tags={"kind": "parquet"},
)
def replay_quarantine(
    context: dg.OpExecutionContext, config: ReplayConfig, pipeline: dg.ResourceParam[Pipeline]
) -> None:
    chosen = fingerprints_of(pipeline.home, config.fingerprints) if config.fingerprints else None
    fixes = None
    if config.fixes:
        fixes = settled(pipeline.home, pipeline.plan, load_fixes(Path(config.fixes)), Path(config.fixes))
    done = replay(
        pipeline.home, pipeline.ledger, pipeline.rules, fingerprints=chosen, fixes=fixes, dry_run=config.dry_run
    )
    told = _told(done)
    context.log.info("dry run, nothing is written: %s" if config.dry_run else "%s", told)
    context.add_output_metadata(told)
    if done.written and not config.dry_run:
        for key, days in ((ACCEPTED, done.touched_dates), (QUARANTINE, done.quarantine_dates)):
            for day in sorted(days):
                context.log_event(dg.AssetMaterialization(key, partition=day.isoformat(), metadata=told))


def _told(done: Replayed) -> dict[str, Any]:
    return {
        "judged": done.rows, "accepted": done.accepted, "failed_again": done.quarantined, "without_consent_now": done.suppressed,
        "hashed": done.hashed,  # of what failed again: no change of the plan lets these pass
        "touched_dates": [day.isoformat() for day in sorted(done.touched_dates)],
        "duplicate_dates": [day.isoformat() for day in sorted(done.duplicate_dates)],
    }  # fmt: skip


@dg.job(
    name="replay",
    executor_def=dg.in_process_executor,
    description="Judges quarantined lines again, by the plan as it is now. A run of the pipeline follows when something changed.",
    # a second try of wrong configuration is wrong again; a killed replay is finished by whoever writes the home next
    tags={"dagster/max_retries": "0"},
)
def replay_job() -> None:
    replay_quarantine()
