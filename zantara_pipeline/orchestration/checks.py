"""Asset checks that are not dbt tests: what must hold before anything downstream is built, and what owners promised."""

from collections.abc import Sequence

import dagster as dg

from zantara_pipeline.experiments import load_experiments
from zantara_pipeline.experiments.checklist import checklist
from zantara_pipeline.orchestration.assets.experiments import experiment_dirs, moments
from zantara_pipeline.orchestration.assets.tracking import ACCEPTED, QUARANTINE
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.tracking.audit import audit_accepted, unbalanced_files
from zantara_pipeline.tracking.health import Stream, moment_of, streams


@dg.asset_check(asset=ACCEPTED, blocking=True, description="Every landed row has exactly one outcome.")
def files_balance(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    wrong = unbalanced_files(pipeline.ledger)
    return dg.AssetCheckResult(passed=not wrong, metadata={"files_that_do_not_balance": wrong})


@dg.asset_check(
    asset=ACCEPTED,
    blocking=True,
    description="The latest accepted day of every event passes its pandera schema, run by pandera itself and not by the "
    "compiled checks that let it in.",
)
def pandera_agrees(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    audit = audit_accepted(pipeline.home, pipeline.plan)
    return dg.AssetCheckResult(
        passed=not audit.problems,
        metadata={"rows_checked": audit.rows, "events": audit.events, "problems": audit.problems[:20]},
    )


@dg.asset_check(
    asset=QUARANTINE,
    description="Of every event's lines of the last whole day, at most so many are quarantined as its owner promised "
    "(sla.max_reject_pct of its plan). It warns and blocks nothing.",
)
def rejects_as_promised(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.AssetCheckResult:
    moment = moment_of(pipeline.home, pipeline.ledger, pipeline.as_of(context))
    found = streams(pipeline.home, pipeline.plan, moment.day) if moment else []
    return dg.AssetCheckResult(
        passed=not any(stream.rejects_too_many for stream in found),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "day": str(moment.day) if moment else "nothing was accepted yet",
            "rejects": _rejects_table([stream for stream in found if stream.accepted + stream.rejected]),
        },
    )


def _rejects_table(found: Sequence[Stream]) -> dg.TableMetadataValue:
    kinds = {"event": "string", "rejected": "int", "accepted": "int", "pct": "float", "promised_pct": "float"}
    records = [
        {"event": s.event, "rejected": s.rejected, "accepted": s.accepted, "pct": round(s.reject_pct, 2),
         "promised_pct": s.most_rejected_pct}
        for s in found
    ]  # fmt: skip
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in kinds.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], schema)


@dg.asset_check(
    asset=moments,
    blocking=True,
    description="Every experiment that has begun has its checklist settled: stable key, logged exposure, guardrails, sample "
    "ratio check, CUPED or a reason, whole weeks, spillover (`zantara experiment check` says what is missing).",
)
def checklists_are_settled(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.AssetCheckResult:
    as_of = pipeline.as_of(context)
    begun = [one for one in load_experiments(experiment_dirs(pipeline)).experiments.values() if one.start <= as_of]
    required = pipeline.plan.required_properties()
    open_points = [
        f"{one.name}: {point.name}: {point.said}"
        for one in begun
        for point in checklist(one, required)
        if not point.passed
    ]
    for one in open_points:
        context.log.warning(f"open point of {one} (`zantara experiment check`)")
    return dg.AssetCheckResult(passed=not open_points, metadata={"begun": len(begun), "open": open_points})


CHECKS = [files_balance, pandera_agrees, rejects_as_promised, checklists_are_settled]
