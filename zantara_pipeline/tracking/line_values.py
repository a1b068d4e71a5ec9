"""What is in the lines of a batch, by row: the envelope's values and every declared property as a typed column.

Judging stores only what verdicts need of each line (verdict.py); who writes a line, or compares two ways of reading, joins
this to it by row_id. Plain lines are Arrow columns as they were read, the few others a temp table.

Belongs here: those relations. Does not belong here: reading lines (plain_lines.py, other_lines.py), verdicts (verdict.py).
"""

from __future__ import annotations

from zantara_pipeline.tracking.large_lines import whole_text
from zantara_pipeline.tracking.other_lines import ROW_ID, others_sql
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.typed_columns import typed_column

OTHER_VALUES = "other_rows"
"""Temp table: what is in the lines that are not plain."""


def values_of(event: str | None = None, *, others_only: bool = False) -> str:
    """Relation of what is in the lines of a batch, by row_id; of one event, of those that are not plain."""
    if others_only:
        return OTHER_VALUES
    which = "" if event is None else f" WHERE event = {quote(event)}"
    plain = f"SELECT * REPLACE (event::VARCHAR AS event), {ROW_ID} AS row_id FROM arrow_plain"
    return f"(FROM ({plain}) {which} UNION ALL BY NAME FROM {OTHER_VALUES} {which})"


def other_values_sql(plan: TrackingPlan, *, large: bool) -> str:
    """Statement that makes OTHER_VALUES; large: some lines are short ones, whose long texts stand beside them."""
    others = "FROM others"
    if large:
        texts = [*CONTEXT_KEYS, *_text_columns(plan)]
        whole = ", ".join(f"{whole_text('beside', f'n.{name}')} AS {name}" for name in texts)
        others = f"SELECT n.* REPLACE ({whole}) FROM others AS n LEFT JOIN arrow_beside AS beside USING (row_id)"
    return f"CREATE OR REPLACE TEMP TABLE {OTHER_VALUES} AS WITH {others_sql(plan)} {others}"


def _text_columns(plan: TrackingPlan) -> list[str]:
    texts = ((n, event) for event in plan.events.values() for n, p in event.properties.items() if p.type == "string")
    return sorted({typed_column(name, event) for name, event in texts})
