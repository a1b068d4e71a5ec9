"""Assets of experiments: moments, the scorecard, and the alerts that follow from it."""

from pathlib import Path
from typing import Any

import dagster as dg

from zantara_pipeline.experiments import (
    build_moments,
    build_scorecard,
    decide_all,
    load_experiments,
    open_stops,
    read_looks,
    read_scorecard,
    served,
    write_served,
)
from zantara_pipeline.orchestration.alert_ledger import alert_ledger
from zantara_pipeline.orchestration.pipeline import Pipeline

_COMMON: dict[str, Any] = {
    "group_name": "experiments",
    "owners": ["experimentation@example.com"],
    "pool": "warehouse",
    "kinds": {"duckdb"},
}
_METRIC_EVENTS = [
    ["staging", f"stg_lake__{name}"] for name in ("purchase", "page_timing", "app_crashed", "session_started")
]
KINDS = (
    "srm", "assignment_disagrees", "variant_leak", "contaminated", "cuped_absent", "cuped_below_floor", "guardrail_harm",
)  # fmt: skip


def experiment_dirs(pipeline: Pipeline) -> list[Path]:
    return [folder / "experiments" for folder in pipeline.settings.contract_dirs]


@dg.asset(
    key=["experiments", "moments"],
    deps=[["experiments", "exposures"], *_METRIC_EVENTS],
    description="Counts, sums and cross products per experiment, variant and metric. Grain: experiment_id, variant, metric, "
    "stratum, as_of. All that the statistics need; no unit leaves the warehouse.",
    **_COMMON,
)
def moments(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    registry = load_experiments(experiment_dirs(pipeline))
    with pipeline.warehouse() as con:
        result = build_moments(con, registry, pipeline.as_of(context))
    return dg.MaterializeResult(metadata={"rows": result.rows, **result.nothing_to_do})


@dg.asset(
    key=["experiments", "scorecard"],
    deps=[moments],
    description="The read-out: sample ratio mismatch, effects with CUPED and interval, guardrails, verdicts. "
    "Grain: experiment_id, variant, metric, role. Raises and resolves alerts.",
    **_COMMON,
)
def scorecard(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    registry, as_of = load_experiments(experiment_dirs(pipeline)), pipeline.as_of(context)
    with pipeline.warehouse() as con:
        result = build_scorecard(con, registry, as_of, read_looks(pipeline.ledger))
    raised, resolved = alert_ledger(pipeline).sync(result.findings, as_of, KINDS)
    return dg.MaterializeResult(
        metadata={"said": result.summary, "alerts_raised": len(raised), "alerts_resolved": len(resolved)}
    )


@dg.asset(
    key=["experiments", "decisions"],
    deps=[scorecard],
    description="Continue, stop, ship or not, with reasons. Grain: experiment_id. Stops what has a broken split or does harm, "
    "and writes experiments.json, by which applications assign.",
    **_COMMON,
)
def decisions(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    registry, as_of = load_experiments(experiment_dirs(pipeline)), pipeline.as_of(context)
    with pipeline.warehouse() as con:
        decided = decide_all(con, registry, read_scorecard(con), as_of, pipeline.ledger)
    document = served(registry, open_stops(pipeline.ledger), as_of)
    write_served(pipeline.home.served_experiments, document)
    said = {one.experiment_id: f"{one.decision}: {'; '.join(one.reasons)}" for one in decided}
    return dg.MaterializeResult(metadata={**said, "served": len(document["experiments"])})


ASSETS = [moments, scorecard, decisions]
