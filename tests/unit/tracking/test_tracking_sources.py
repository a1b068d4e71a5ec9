"""What dbt is handed: a typed relation per event, the ledgers, and from which day on staging starts again."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import PLAN, Shop, event, utc

from zantara_pipeline.tracking.plan import SQL_TYPES, Property, TrackingPlan
from zantara_pipeline.tracking.sources import BEGINNING, NOTHING_NEW, Prepared, fingerprint, mark_staged, prepare

AS_OF = datetime(2026, 3, 9, tzinfo=UTC)


class Warehouse:
    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.con = duckdb.connect(str(shop.home.warehouse))
        self.con.execute("SET TimeZone = 'UTC'")

    def prepare(self, build: str = "b1", plan: TrackingPlan = PLAN) -> Prepared:
        return prepare(self.con, self.shop.home, self.shop.ledger, plan, build=build, as_of=AS_OF, max_lateness_days=30)

    def staged(self, build: str = "b1") -> None:
        self.prepare(build)
        mark_staged(self.con, build)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(Shop(tmp_path))


def on(day: int, **changes: Any) -> dict[str, Any]:
    when = f"2026-03-{day:02d}T10:00:00Z"
    return event(event_id=f"e-{day}", timestamp=when, received_at=when, **changes)


def test_every_event_has_its_typed_relation_before_anything_landed(warehouse: Warehouse) -> None:
    warehouse.prepare()
    for name, plan in PLAN.events.items():
        described = {row[0]: row[1] for row in warehouse.rows(f"DESCRIBE lake.{name}")}
        assert {key: described[key] for key in plan.properties} == {
            key: SQL_TYPES[prop.type] for key, prop in plan.properties.items()
        }
        assert described["occurred_at"] == "TIMESTAMP WITH TIME ZONE" and described["received_date"] == "DATE"
        assert warehouse.rows(f"SELECT count(*) FROM lake.{name}") == [(0,)]
    assert warehouse.rows("SELECT count(*) FROM lake.items") == [(0,)]


def test_relations_hold_what_was_accepted(warehouse: Warehouse) -> None:
    warehouse.shop.land("a.jsonl", [on(1), on(2), on(3, consent=None)])
    warehouse.shop.ingest()
    warehouse.prepare()
    assert warehouse.rows("SELECT event, event_id, received_date FROM lake.product_view ORDER BY 2") == [
        ("product_view", "e-1", date(2026, 3, 1)),
        ("product_view", "e-2", date(2026, 3, 2)),
    ]
    assert warehouse.rows("SELECT rows_in, suppressed, accepted FROM state.ingested_files") == [(3, 1, 2)]
    assert warehouse.rows("SELECT as_of FROM state.run_clock") == [(AS_OF,)]


def test_a_property_added_later_is_null_in_older_days(warehouse: Warehouse) -> None:
    warehouse.shop.land("a.jsonl", [on(1)])
    warehouse.shop.ingest()
    view = PLAN.events["product_view"]
    grown = view.model_copy(
        update={"properties": view.properties | {"shelf": Property(type="integer", description="d")}}
    )
    warehouse.prepare(plan=TrackingPlan({"product_view": grown}, PLAN.privacy))
    assert warehouse.rows("SELECT event_id, shelf FROM lake.product_view") == [("e-1", None)]


def test_the_first_build_starts_at_the_beginning(warehouse: Warehouse) -> None:
    assert warehouse.prepare() == Prepared(BEGINNING, full=True)


def test_nothing_new_rebuilds_nothing(warehouse: Warehouse) -> None:
    warehouse.shop.land("a.jsonl", [on(1)])
    warehouse.shop.ingest()
    warehouse.staged()
    assert warehouse.prepare() == Prepared(NOTHING_NEW, full=False)
    assert warehouse.rows("SELECT count(*) FROM lake.product_view") == [(0,)]


def test_new_files_rebuild_from_the_first_day_they_touch(warehouse: Warehouse) -> None:
    warehouse.shop.land("a.jsonl", [on(1), on(2), on(5)])
    warehouse.shop.ingest()
    warehouse.staged()
    warehouse.shop.land("b.jsonl", [on(4), on(6)])
    warehouse.shop.land("c.jsonl", [on(1, consent=None), "not json"])  # touches no accepted day
    warehouse.shop.ingest()
    assert warehouse.prepare() == Prepared(date(2026, 3, 4), full=False)
    assert warehouse.rows("SELECT event_id FROM lake.product_view ORDER BY 1") == [("e-4",), ("e-5",), ("e-6",)]


def test_a_build_that_died_is_done_again_from_the_same_day(warehouse: Warehouse) -> None:
    warehouse.shop.land("a.jsonl", [on(1)])
    warehouse.shop.ingest()
    warehouse.staged()
    warehouse.shop.land("b.jsonl", [on(3)])
    warehouse.shop.ingest()
    first = warehouse.prepare()
    assert warehouse.prepare() == first == Prepared(date(2026, 3, 3), full=False)


def test_a_changed_build_starts_at_the_beginning(warehouse: Warehouse) -> None:
    warehouse.shop.land("a.jsonl", [on(1)])
    warehouse.shop.ingest()
    warehouse.staged("b1")
    assert warehouse.prepare("b2") == Prepared(BEGINNING, full=True)


def test_the_fingerprint_follows_plan_and_models(tmp_path: Path) -> None:
    model = tmp_path / "m.sql"
    model.write_text("select 1")
    before = fingerprint(PLAN, [model])
    assert before == fingerprint(PLAN, [model])
    fewer = TrackingPlan({k: v for k, v in PLAN.events.items() if k != "item_tag"}, PLAN.privacy)
    assert fingerprint(fewer, [model]) != before
    model.write_text("select 2")
    assert fingerprint(PLAN, [model]) != before


def test_a_lost_warehouse_is_filled_again(warehouse: Warehouse) -> None:
    warehouse.shop.land("a.jsonl", [on(1), on(2)])
    warehouse.shop.ingest()
    warehouse.staged()
    warehouse.con.close()
    warehouse.shop.home.warehouse.unlink()
    again = Warehouse(warehouse.shop)
    assert again.prepare() == Prepared(BEGINNING, full=True)
    assert again.rows("SELECT count(*) FROM lake.product_view") == [(2,)]
    assert again.rows("SELECT occurred_at FROM lake.product_view ORDER BY 1")[0] == (utc("2026-03-01T10:00:00+00:00"),)
