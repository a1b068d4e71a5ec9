"""Assets that close a run: alerts in the warehouse, the published copy, exports, the report."""

from typing import Any

import dagster as dg

from zantara_pipeline.orchestration.alert_ledger import alert_ledger
from zantara_pipeline.orchestration.dbt import column_descriptions
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.privacy.withdrawals import record_withdrawals
from zantara_pipeline.recommend import PERSONAL_TABLES
from zantara_pipeline.segments.contract import segments_of
from zantara_pipeline.segments.destinations import load_export_keys
from zantara_pipeline.segments.exports import Clock, remove_others, write_exports
from zantara_pipeline.segments.reading import SCHEMA, readings
from zantara_pipeline.storage.engine import publish
from zantara_pipeline.tracking.clock import is_live

_COMMON: dict[str, Any] = {"group_name": "ops", "owners": ["data-platform@example.com"]}


@dg.asset(
    key=["ops", "alerts"],
    deps=[["experiments", "decisions"]],
    kinds={"duckdb"},
    pool="warehouse",
    description="Everything that was ever raised, with when it was resolved. Grain: alert_id. A copy of the alert ledger; "
    "a sensor delivers from the ledger.",
    **_COMMON,
)
def alerts(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    ledger = alert_ledger(pipeline)
    with pipeline.warehouse() as con:
        rows = ledger.copy_to_warehouse(con)
    return dg.MaterializeResult(metadata={"alerts": rows, "open": len(ledger.alerts(open_only=True))})


@dg.asset(
    key=["ops", "withdrawals"],
    deps=[
        ["segments", "membership_history"],
        ["recommendations", "user_recommendations"],
        ["features", "interactions"],
    ],
    kinds={"duckdb"},
    pool="warehouse",
    description="How many people withdrew since the run before, by purpose, and what of theirs ended. Grain: as_of, purpose. "
    "Counts only; read by the closing table and the report.",
    **_COMMON,
)
def withdrawals(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    of_segment = {segment.name: segment.meta.purpose for segment in segments_of(pipeline.manifest)}
    with pipeline.warehouse() as con:
        found = record_withdrawals(
            con, pipeline.ledger, pipeline.as_of(context), of_segment, PERSONAL_TABLES, pipeline.home.published,
            pipeline.plan.purposes,
        )  # fmt: skip
    return dg.MaterializeResult(metadata={withdrawn.purpose: str(withdrawn) for withdrawn in found})


def build_closing_assets(published_inputs: list[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """The published copy comes after every table; the report reads only the copy."""

    @dg.asset(
        key=["ops", "published"],
        deps=published_inputs,
        kinds={"duckdb"},
        pool="warehouse",
        description="data/published.duckdb: the read-only copy for analysts, sensors and read verbs, swapped in whole. Small and "
        "restricted segments are in data/restricted/segments_whole.duckdb only, made in the same step.",
        **_COMMON,
    )
    def published(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
        s, home, as_of, live = pipeline.settings, pipeline.home, pipeline.as_of(context), is_live(pipeline.ledger)
        with pipeline.warehouse() as con:
            whole, outside = (readings(con, as_of=as_of, live=live, restricted=r) for r in (True, False))
        about: dict[str, Any] = {
            "threads": s.threads,
            "memory_limit": s.memory_limit,
            "descriptions": column_descriptions(pipeline.manifest),
        }
        publish(home, **about, readings=whole, target=home.restricted_segments, schemas=[SCHEMA])
        path = publish(home, **about, readings=outside)
        return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(path), "bytes": path.stat().st_size})

    @dg.asset(
        key=["exports", "segments"],
        group_name="exports",
        owners=["privacy@example.com"],
        deps=[published, ["segments", "catalog"]],
        kinds={"duckdb"},
        pool="warehouse",
        description="data/exports/<destination>/segments.duckdb: what each destination of privacy.yaml receives, by pseudonyms "
        "of its own. Grain: one file a destination. Read by its recipient.",
    )
    def exports(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
        s, home, wanted = pipeline.settings, pipeline.home, pipeline.plan.privacy.exports
        removed = remove_others(home, [destination.name for destination in wanted])
        written = write_exports(
            home, pipeline.ledger, wanted, load_export_keys(s), Clock(pipeline.as_of(context), is_live(pipeline.ledger)),
            threads=s.threads, memory_limit=s.memory_limit,
        )  # fmt: skip
        for one in written:
            if one.replaced_key:
                context.log.warning(one.told)
        sizes = {one.destination.name: one.members for one in written}
        return dg.MaterializeResult(metadata={"members": sizes, "removed": removed})

    @dg.asset(
        key=["ops", "report"],
        deps=[published],
        kinds={"html"},
        description="data/reports/index.html: what the run found, self-contained, from the published copy.",
        **_COMMON,
    )
    def report(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
        from zantara_pipeline.report import build_report

        path = build_report(pipeline.home.published, pipeline.home.reports / "index.html")
        return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(path)})

    return [published, exports, report]
