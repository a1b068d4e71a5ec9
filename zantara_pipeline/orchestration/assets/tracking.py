"""Assets of what lands: consent ledger, catalogue, and the lake of accepted and quarantined events."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from zantara_pipeline.alerts import Finding
from zantara_pipeline.orchestration.alert_ledger import alert_ledger
from zantara_pipeline.orchestration.partitions import RECEIVED_DAYS
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.privacy.consent import append_ledger_file, consent_files
from zantara_pipeline.tracking.catalogue import items_files, load_catalogue
from zantara_pipeline.tracking.ingest import ingest
from zantara_pipeline.tracking.restricted import purge_restricted
from zantara_pipeline.tracking.retention import enforce
from zantara_pipeline.tracking.watch import KINDS, findings

ACCEPTED, QUARANTINE = dg.AssetKey(["lake", "accepted"]), dg.AssetKey(["lake", "quarantine"])


@dg.asset(
    key=["privacy", "consent_ledger"],
    group_name="privacy",
    owners=["privacy@example.com"],
    kinds={"sqlite"},
    description="Append-only statements of consent. Grain: user_id, purpose, origin, effective_from. "
    "Read by ingest (was it allowed when it happened?) and by core.consent_history.",
)
def consent_ledger(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    files = consent_files(pipeline.consent)
    added = sum(append_ledger_file(pipeline.ledger, file, pipeline.plan.purposes) for file in files)
    return dg.MaterializeResult(metadata={"files": len(files), "new_statements": added})


@dg.asset(
    key=["lake", "items"],
    group_name="lake",
    owners=["growth-data@example.com"],
    kinds={"parquet"},
    description="The catalogue as last landed. Grain: product_id. Read by core.products.",
)
def items(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    files = items_files(pipeline.items)
    s = pipeline.settings
    products = load_catalogue(pipeline.home, files, threads=s.threads, memory_limit=s.memory_limit)
    return dg.MaterializeResult(metadata={"files": len(files), "products": products})


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            ACCEPTED,
            deps=[["privacy", "consent_ledger"]],
            group_name="lake",
            owners=["growth-data@example.com"],
            kinds={"parquet", "duckdb"},
            description="Events that passed the tracking plan, typed, one folder per event and received date. "
            "Grain: one accepted row, copies included. Read by staging.",
        ),
        dg.AssetSpec(
            QUARANTINE,
            deps=[["privacy", "consent_ledger"]],
            group_name="lake",
            owners=["growth-data@example.com"],
            kinds={"parquet", "duckdb"},
            description="Events that failed the tracking plan, with reasons, kept for replay. Grain: one failed row.",
        ),
    ],
    partitions_def=RECEIVED_DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="ingest",
)
def ingest_landed_files(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.MaterializeResult]:
    """Takes whatever landed and was not taken yet, and reports the received days that it touched."""
    threads, intake = pipeline.settings.threads, pipeline.intake
    began = datetime.now(UTC)
    result = ingest(pipeline.home, pipeline.ledger, pipeline.landing, pipeline.rules, threads=threads, intake=intake)
    total = result.total
    refused = [Finding("unreadable_file", "critical", f"file/{name}", said) for name, said in result.refused.items()]
    purged = purge_restricted(pipeline.home, pipeline.as_of(context), pipeline.plan.privacy.unparsable_expiry_days)
    as_of, landing = pipeline.as_of(context), pipeline.landing
    expired = enforce(pipeline.home, pipeline.ledger, pipeline.plan, as_of, began, landing)
    watched = findings(pipeline.home, pipeline.ledger, pipeline.plan, pipeline.as_of(context))
    raised, resolved = alert_ledger(pipeline).sync(
        [*refused, *watched], pipeline.as_of(context), ["unreadable_file", *KINDS]
    )
    for notice in [*result.notices, *result.refused.values(), *expired.notices]:
        context.log.warning(notice)
    for day in sorted(result.touched_dates):
        context.log_event(dg.AssetMaterialization(ACCEPTED, partition=day.isoformat()))
    for day in sorted(result.quarantined_dates):
        context.log_event(dg.AssetMaterialization(QUARANTINE, partition=day.isoformat()))
    told = "nothing new landed" if not result.files else f"{len(result.files)} new files"
    yield dg.MaterializeResult(
        ACCEPTED,
        metadata={
            "said": told, "rows_in": total.rows_in, "accepted": total.accepted, "suppressed": total.suppressed,
            "unparsable": total.unparsable, "late": total.late, "unparsable_files_expired": purged, "days_touched": len(result.touched_dates),
            "files_known_already": result.known, "files_refused": len(result.refused),
            "days_expired": expired.lake.days, "days_with_values_expired": expired.lake.days_with_values,
            "landed_files_expired": expired.landed, "days_over_their_retention_and_kept": expired.days_kept,
        },
    )  # fmt: skip
    yield dg.MaterializeResult(
        QUARANTINE,
        metadata={
            "quarantined": total.quarantined, "expired": expired.quarantine.removed,
            "alerts_raised": len(raised), "alerts_resolved": len(resolved),
        },
    )  # fmt: skip


ASSETS = [consent_ledger, items, ingest_landed_files]
