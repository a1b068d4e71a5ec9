"""Assets of segments after their SELECT: catalogue, membership history, overlap; alerts about their size."""

from collections.abc import Iterator

import dagster as dg

from zantara_pipeline.orchestration.alert_ledger import alert_ledger
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.segments.contract import segments_of
from zantara_pipeline.segments.history_retention import expire_history, history_over
from zantara_pipeline.segments.lifecycle import record_membership
from zantara_pipeline.segments.tables import sizes_of, write_tables
from zantara_pipeline.segments.visibility import KINDS, load_rules, record_sizes, size_findings

_OWNERS = ["growth-data@example.com"]
_TABLES = {
    "catalog": "Every segment with owner, purpose, TTL, size and SQL. Grain: segment. Read by people and the report.",
    "membership_history": "Who was in which segment from when to when, and why they left. Grain: segment, entity_id, entered_at.",
    "overlap": "How many members two segments share. Grain: segment_a, segment_b (over the same kind of entity).",
}


def build_segment_assets(segment_keys: list[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """Catalogue, history and overlap over the segments that the dbt project declares."""

    @dg.multi_asset(
        name="segment_lifecycle",
        pool="warehouse",
        specs=[
            dg.AssetSpec(
                ["segments", name], deps=[*segment_keys, ["core", "users"]], group_name="segments", owners=_OWNERS, kinds={"duckdb"},
                description=description,
            )
            for name, description in _TABLES.items()
        ],
    )  # fmt: skip
    def segment_lifecycle(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult]:
        segments, as_of = segments_of(pipeline.manifest), pipeline.as_of(context)
        rules = load_rules(pipeline.settings.contract_dirs)
        kept = pipeline.plan.privacy.retention.segment_history
        with pipeline.warehouse() as con:
            changes = record_membership(con, pipeline.ledger, segments, as_of)
            sizes = record_sizes(pipeline.ledger, segments, sizes_of(con, segments), as_of, rules)
            expired = expire_history(pipeline.ledger, kept.days, as_of) if kept.enforce else 0
            write_tables(con, pipeline.ledger, sizes, as_of)
        raised, resolved = alert_ledger(pipeline).sync(size_findings(sizes, rules), as_of, KINDS)
        over = sum(one.memberships for one in history_over(pipeline.ledger, kept.days, as_of))
        hidden = [size.segment.name for size in sizes if not size.visible]
        yield dg.MaterializeResult(
            ["segments", "catalog"],
            metadata={"segments": len(sizes), "in_the_restricted_store_only": hidden,
                      "alerts_raised": len(raised), "alerts_resolved": len(resolved)},
        )  # fmt: skip
        yield dg.MaterializeResult(
            ["segments", "membership_history"],
            metadata={"entered": changes.entered, "exited": changes.exited, "clock_before_history": changes.skipped,
                      "expired": expired, "over_their_retention_and_kept": over},
        )  # fmt: skip
        yield dg.MaterializeResult(["segments", "overlap"])

    return [segment_lifecycle]
