"""Blocking asset checks that are not dbt tests: what must hold before anything downstream is built."""

import dagster as dg

from zantara_pipeline.orchestration.assets.tracking import ACCEPTED
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.tracking.audit import audit_accepted, unbalanced_files


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


CHECKS = [files_balance, pandera_agrees]
