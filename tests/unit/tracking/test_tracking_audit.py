"""pandera's own look at the lake: agrees with what was let in, notices what was not let in by ingest."""

from __future__ import annotations

from pathlib import Path

import duckdb
from event_lines import PLAN, Shop, event, viewed

from zantara_pipeline.tracking.audit import audit_accepted
from zantara_pipeline.tracking.plan import Property, TrackingPlan
from zantara_pipeline.tracking.verdict import Rules


def ingested(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [viewed(price=3, currency="EUR"), event("page_timing", {"page": "/", "load_ms": 3})])
    shop.ingest()
    return shop


def spoil(shop: Shop, change: str) -> None:
    (path,) = shop.home.accepted.glob("event=product_view/*/*.parquet")
    duckdb.execute(f"CREATE OR REPLACE TABLE t AS SELECT * REPLACE ({change}) FROM '{path}'")
    duckdb.execute(f"COPY t TO '{path}' (FORMAT parquet)")


def test_what_ingest_accepted_passes(tmp_path: Path) -> None:
    audit = audit_accepted(ingested(tmp_path).home, PLAN)
    assert (audit.rows, audit.events, audit.problems) == (2, 2, [])


def test_a_row_that_got_in_otherwise_is_named_without_its_value(tmp_path: Path) -> None:
    shop = ingested(tmp_path)
    spoil(shop, "'secret' AS currency, (-7.5)::DECIMAL(18,4) AS price")
    problems = audit_accepted(shop.home, PLAN).problems
    assert [problem.partition(":")[0] for problem in problems] == ["product_view.currency", "product_view.price"]
    assert "secret" not in str(problems) and "7.5" not in str(problems)


def test_a_null_where_none_may_be_is_named(tmp_path: Path) -> None:
    shop = ingested(tmp_path)
    spoil(shop, "NULL::VARCHAR AS product_id")
    (problem,) = audit_accepted(shop.home, PLAN).problems
    assert problem.startswith("product_view.product_id: not_nullable")


def grown(version: str, required: bool) -> TrackingPlan:
    view = PLAN.events["product_view"]
    properties = view.properties | {"shelf": Property(type="integer", description="d", required=required)}
    changed = view.model_copy(update={"properties": properties, "version": version})
    return TrackingPlan(PLAN.events | {"product_view": changed}, PLAN.privacy)


def test_a_property_added_later_is_no_fault_of_older_files(tmp_path: Path) -> None:
    shop = ingested(tmp_path)
    assert audit_accepted(shop.home, grown("1-0-0", required=False)).problems == []
    assert audit_accepted(shop.home, grown("2-0-0", required=True)).problems == []


def test_an_empty_lake_is_fine(tmp_path: Path) -> None:
    assert audit_accepted(Shop(tmp_path).home, PLAN).rows == 0


def test_what_may_be_absent_but_never_null_is_no_fault_where_it_was_absent(tmp_path: Path) -> None:
    view = PLAN.events["product_view"]
    shelf = Property(type="integer", description="d", nullable=False)
    changed = view.model_copy(update={"properties": view.properties | {"shelf": shelf}})
    plan = TrackingPlan(PLAN.events | {"product_view": changed}, PLAN.privacy)
    shop = Shop(tmp_path, Rules(plan, late_after_hours=24, max_lateness_days=30))
    shop.land("a.jsonl", [viewed(), viewed(shelf=3), viewed(shelf=None)])
    counts = shop.ingest().total
    assert (counts.accepted, counts.quarantined) == (2, 1)
    audit = audit_accepted(shop.home, plan)
    assert (audit.rows, audit.problems) == (2, [])
