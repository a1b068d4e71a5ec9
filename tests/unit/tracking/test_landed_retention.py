"""Landed files of the home go when their days are over: only those that were taken, only there, and it is written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from event_lines import PLAN, Shop, event

from zantara_pipeline.tracking.plan import Enforced, LandedFiles, Retention, TrackingPlan
from zantara_pipeline.tracking.retention import enforce, overdue

RECEIVED = datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC)
DAY = timedelta(days=1)


def keeping(days: int, *, enforced: bool) -> TrackingPlan:
    kept = Retention(quarantine=Enforced(enforce=False), landing=LandedFiles(enforce=enforced, days=days))
    return TrackingPlan(PLAN.events, PLAN.privacy.model_copy(update={"retention": kept}))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "home")
    shop.land("old.jsonl", [event(event_id="e-1"), event(event_id="e-2", consent=None)])
    shop.ingest()
    shop.land("suppressed.jsonl", [event(event_id="e-3", consent=None)])
    shop.ingest()
    shop.land("new.jsonl", [event(event_id="e-4")])
    return shop


def run(
    shop: Shop, plan: TrackingPlan, as_of: datetime, *, landing: Path | None = None, began: datetime | None = None
) -> int:
    return enforce(shop.home, shop.ledger, plan, as_of, began or datetime.now(UTC), landing or shop.landing).landed


def left(shop: Shop) -> list[str]:
    return sorted(path.name for path in shop.landing.iterdir())


def test_a_taken_file_goes_when_all_its_days_are_over_and_not_before(shop: Shop) -> None:
    assert run(shop, keeping(10, enforced=True), RECEIVED + 10 * DAY) == 0
    [told] = overdue(shop.home, shop.ledger, keeping(10, enforced=True), RECEIVED + 11 * DAY, shop.landing)
    assert (told.store, told.rows, told.enforced) == ("landing", 3, True) and len(left(shop)) == 3, (
        "a look removes nothing"
    )
    assert run(shop, keeping(10, enforced=True), RECEIVED + 11 * DAY) == 2
    assert left(shop) == ["new.jsonl"], "which no run has taken yet"
    audit = "SELECT file, received_date, rows FROM expired_landed_files ORDER BY file"
    assert shop.query(audit) == [("old.jsonl", "2026-03-01", 2), ("suppressed.jsonl", "2026-03-01", 1)]
    assert len(shop.accepted()) == 1 and shop.query("SELECT count(*) FROM ingested_files") == [(2,)]


def test_as_packaged_it_is_counted_only(shop: Shop) -> None:
    assert run(shop, PLAN, RECEIVED + 999 * DAY) == 0 and len(left(shop)) == 3
    assert [part.enforced for part in overdue(shop.home, shop.ledger, PLAN, RECEIVED + 91 * DAY, shop.landing)] == [
        False
    ]


def test_a_file_of_another_content_stays_whatever_its_name_and_size(shop: Shop) -> None:
    old = shop.landing / "old.jsonl"
    old.write_bytes(old.read_bytes().replace(b"e-1", b"e-9"))
    assert run(shop, keeping(10, enforced=True), RECEIVED + 11 * DAY) == 1 and "old.jsonl" in left(shop)


def test_what_a_run_took_itself_and_what_lies_elsewhere_stays(shop: Shop, tmp_path: Path) -> None:
    assert run(shop, keeping(10, enforced=True), RECEIVED + 11 * DAY, began=datetime.now(UTC) - DAY) == 0
    elsewhere = tmp_path / "elsewhere"
    shop.landing.rename(elsewhere)
    shop.landing.mkdir()
    assert run(shop, keeping(10, enforced=True), RECEIVED + 11 * DAY, landing=elsewhere) == 0
    assert len(list(elsewhere.iterdir())) == 3
