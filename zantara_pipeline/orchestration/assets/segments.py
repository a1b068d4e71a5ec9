"""Assets of segments after their SELECT: catalogue and membership history."""

from collections.abc import Iterator

import dagster as dg

from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.segments.lifecycle import record_membership, segments_of, write_tables

_OWNERS = ["growth-data@example.com"]


def build_segment_assets(segment_keys: list[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """Catalogue and history over the segments that the dbt project declares."""

    @dg.multi_asset(
        name="segment_lifecycle",
        pool="warehouse",
        specs=[
            dg.AssetSpec(
                ["segments", "catalog"], deps=segment_keys, group_name="segments", owners=_OWNERS, kinds={"duckdb"},
                description="Every segment with owner, purpose, TTL, size and SQL. Grain: segment. Read by people and the report.",
            ),
            dg.AssetSpec(
                ["segments", "membership_history"], deps=segment_keys, group_name="segments", owners=_OWNERS, kinds={"duckdb"},
                description="Who was in which segment from when to when, and why they left. Grain: segment, entity_id, entered_at.",
            ),
        ],
    )  # fmt: skip
    def segment_lifecycle(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult]:
        segments, as_of = segments_of(pipeline.manifest), pipeline.as_of(context)
        with pipeline.warehouse() as con:
            changes = record_membership(con, pipeline.ledger, segments, as_of)
            sizes = write_tables(con, pipeline.ledger, segments, as_of)
        yield dg.MaterializeResult(["segments", "catalog"], metadata={**sizes})
        yield dg.MaterializeResult(
            ["segments", "membership_history"],
            metadata={"entered": changes.entered, "exited": changes.exited, "clock_before_history": changes.skipped},
        )

    return [segment_lifecycle]
