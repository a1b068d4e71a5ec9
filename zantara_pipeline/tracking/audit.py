"""An independent look at the lake after ingest: pandera itself on accepted rows, and the ledger's balance.

Belongs here: read-only audits. Does not belong here: the engine that let the rows in (verdict.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.direct import direct_properties
from zantara_pipeline.tracking.migrations import typed_as_declared
from zantara_pipeline.tracking.pandera_schema import pandera_schema
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan

# Rows of one event that pandera reads at most: 50,000 rows of 20 columns are about 10 MB.
MAX_ROWS = 50_000
_NOT_HASHED = "values of a direct identifier that are not hashed; run `zantara privacy rotate-keys`"


@dataclass
class Audit:
    """Rows and events looked at, and what pandera said against them (never a value)."""

    rows: int = 0
    events: int = 0
    problems: list[str] = field(default_factory=list)


def audit_accepted(home: Home, plan: TrackingPlan, max_rows: int = MAX_ROWS) -> Audit:
    """Validate up to `max_rows` rows of the latest accepted day of every event with pandera on polars."""
    audit = Audit()
    for event in plan.events.values():
        days = sorted((home.accepted / f"event={event.event}").glob("received_date=*"))
        if days:
            _audit_day(event, days[-1], max_rows, audit)
    return audit


def _audit_day(event: EventPlan, day: Path, max_rows: int, audit: Audit) -> None:
    import polars as pl
    from pandera.errors import SchemaErrors

    schema = pandera_schema(event, stored=True)
    # rows of a file that an older plan typed otherwise are not this plan's to judge, and cannot be read as its types
    files = [path for path in sorted(day.glob("*.parquet")) if typed_as_declared(event, path)]
    if not files:
        return
    stored = {"plan_version": pl.String, **{name: column.dtype.type for name, column in schema.columns.items()}}
    # files of one day may have been written under different plans: rows of another version are not this plan's to judge
    rows = pl.scan_parquet(
        files, schema=stored, hive_partitioning=False, missing_columns="insert", extra_columns="ignore"
    )
    frame = rows.filter(pl.col("plan_version") == event.version).head(max_rows).select(list(schema.columns)).collect()
    audit.rows += frame.height
    audit.events += 1
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        failed = errors.failure_cases.select("column", "check").unique().sort("column", "check").rows()
        for column, check in failed:
            said = _NOT_HASHED if column in direct_properties(event) and check.startswith("str_matches") else check
            audit.problems.append(f"{event.event}.{column}: {said} ({day.name})")


def unbalanced_files(ledger: Ledger) -> list[str]:
    """Files whose outcomes do not add up to their rows."""
    with ledger.read() as db:
        rows = db.execute(
            "SELECT file FROM ingested_files WHERE rows_in <> unparsable + suppressed + quarantined + accepted ORDER BY file"
        ).fetchall()
    return [row[0] for row in rows]
