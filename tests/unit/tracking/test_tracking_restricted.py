"""Lines that could not be parsed go after their days, counted on the clock of the run."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import PLAN, RULES, Shop, event

from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.replay import replay
from zantara_pipeline.tracking.restricted import part_by_receipt, purge_restricted

DAY = timedelta(days=1)
FIRST = datetime(2019, 6, 1, 12, tzinfo=UTC)


def land(shop: Shop, name: str, received: datetime | None) -> None:
    when = f"{received:%Y-%m-%dT%H:%M:%SZ}" if received else ""
    accepted = [event(event_id=name, timestamp=when, received_at=when)] if received else []
    shop.land(name, [*accepted, f"not json {name}"])
    shop.ingest()


def kept(shop: Shop) -> set[str]:
    return {row["source"].partition("#")[0] for row in shop.unparsable()}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_old_data_is_as_old_as_its_own_clock_says(shop: Shop) -> None:
    land(shop, "a.jsonl", FIRST)
    land(shop, "b.jsonl", FIRST + 3 * DAY)
    assert purge_restricted(shop.home, FIRST + 7 * DAY, 7) == 0
    assert purge_restricted(shop.home, FIRST + 7 * DAY + timedelta(seconds=1), 7) == 1
    assert kept(shop) == {"b.jsonl"}
    assert purge_restricted(shop.home, FIRST + 11 * DAY, 7) == 1
    assert purge_restricted(shop.home, FIRST + 99 * DAY, 7) == 0


def test_the_disk_has_no_say(shop: Shop) -> None:
    land(shop, "a.jsonl", FIRST)
    for path in (shop.home.restricted / "unparsable").iterdir():
        os.utime(path, (0, 0))
    assert purge_restricted(shop.home, FIRST, 7) == 0


def test_a_file_of_nothing_but_bad_lines_ages_from_the_clock_as_it_stood(shop: Shop) -> None:
    land(shop, "a.jsonl", FIRST)
    land(shop, "bad.jsonl", None)
    land(shop, "c.jsonl", FIRST + 20 * DAY)
    assert purge_restricted(shop.home, FIRST + 8 * DAY, 7) == 2
    assert kept(shop) == {"c.jsonl"}


def test_the_very_first_file_ages_from_the_first_clock_after_it(shop: Shop) -> None:
    land(shop, "bad.jsonl", None)
    assert purge_restricted(shop.home, FIRST + 99 * DAY, 7) == 0
    land(shop, "a.jsonl", FIRST)
    assert purge_restricted(shop.home, FIRST + 6 * DAY, 7) == 0
    assert purge_restricted(shop.home, FIRST + 8 * DAY, 7) == 2


def test_where_no_clock_ever_was_the_day_of_ingest_counts(shop: Shop) -> None:
    land(shop, "bad.jsonl", None)
    now = datetime.now(UTC)
    assert purge_restricted(shop.home, now + 6 * DAY, 7) == 0
    assert purge_restricted(shop.home, now + 8 * DAY, 7) == 1


def test_a_file_that_the_ledger_does_not_know_goes(shop: Shop) -> None:
    land(shop, "a.jsonl", FIRST)
    place = shop.home.restricted / "unparsable"
    (path,) = place.iterdir()
    path.rename(place / "0123456789abcdef-0000.parquet")
    assert purge_restricted(shop.home, FIRST, 7) == 1


def test_nothing_to_purge(shop: Shop) -> None:
    assert purge_restricted(shop.home, FIRST, 7) == 0


def test_the_run_clock_may_be_in_any_zone(shop: Shop) -> None:
    land(shop, "a.jsonl", FIRST)
    limit = FIRST + 7 * DAY
    assert purge_restricted(shop.home, limit.astimezone(), 7) == 0
    assert purge_restricted(shop.home, (limit + timedelta(minutes=1)).astimezone(), 7) == 1


# Lines that a replay brings

VIEW = PLAN.events["product_view"]
# By this plan the lines below are suppressed, and what they say of consent cannot be read.
STRICTER = replace(
    RULES,
    plan=TrackingPlan(
        PLAN.events | {"product_view": VIEW.model_copy(update={"consent_category": "personalization"})}, PLAN.privacy
    ),
)


def half_said(day: float, number: int) -> dict[str, Any]:
    when = f"{FIRST + day * DAY:%Y-%m-%dT%H:%M:%SZ}"
    consent = {"analytics": True, "personalization": "perhaps"}
    return event("product_view", {}, event_id=f"{number}", timestamp=when, received_at=when, consent=consent)


def feed(root: Path, rules: Any) -> Shop:
    """Two files that came four days apart, both with lines whose consent is half a word."""
    shop = Shop(root, rules)
    for name, day in (("a.jsonl", 0), ("b.jsonl", 4)):
        when = f"{FIRST + day * DAY:%Y-%m-%dT%H:%M:%SZ}"
        good = event("session_started", {"entry_page": "/"}, event_id=name, timestamp=when, received_at=when)
        shop.land(name, [good, half_said(day - 1, 1), half_said(day - 2, 2)])
        shop.ingest()
    return shop


def unreadable(shop: Shop) -> list[tuple[str, int]]:
    files = str(shop.home.restricted / "consent_unreadable" / "*.parquet")
    if not any((shop.home.restricted / "consent_unreadable").glob("*.parquet")):
        return []
    return duckdb.sql(f"SELECT source, line_no FROM read_parquet('{files}') ORDER BY ALL").fetchall()


def test_lines_that_a_replay_sets_apart_expire_with_the_file_they_came_in(tmp_path: Path) -> None:
    """As if they had been there from the start, which a home that knew the stricter plan at once says."""
    shop, never = feed(tmp_path / "shop", RULES), feed(tmp_path / "never", STRICTER)
    assert len(shop.quarantined()) == 4 and never.quarantined() == []
    assert replay(shop.home, shop.ledger, STRICTER).suppressed == 4
    assert shop.query("SELECT consent_unreadable FROM ingested_files") == [(2,), (2,)]
    left = []
    for after in (timedelta(), 7 * DAY, 7 * DAY + timedelta(seconds=1), 11 * DAY, 11 * DAY + timedelta(seconds=1)):
        for home in (shop.home, never.home):
            purge_restricted(home, FIRST + after, 7)
        assert unreadable(shop) == unreadable(never)
        left.append(len(unreadable(shop)))
    assert left == [4, 4, 2, 2, 0]


def test_lines_of_many_receipts_are_parted_in_both_stores(tmp_path: Path) -> None:
    shop = feed(tmp_path, RULES)
    commits = dict(shop.query("SELECT source, commit_id FROM ingested_files"))
    for store in ("unparsable", "consent_unreadable"):
        place = tmp_path / "commit" / store
        place.mkdir(parents=True)
        values = ", ".join(f"('{source}', 1, 'x')" for source in commits)
        duckdb.sql(
            f"COPY (FROM (VALUES {values}) t(source, line_no, line)) TO '{place}/beef-0000.parquet' (FORMAT parquet)"
        )
    con = duckdb.connect()
    part_by_receipt(con, Ledger(shop.ledger.path), tmp_path / "commit")
    con.close()
    for store in ("unparsable", "consent_unreadable"):
        found = {
            path.name: duckdb.sql(f"SELECT source FROM read_parquet('{path}')").fetchall()
            for path in (tmp_path / "commit" / store).iterdir()
        }
        assert found == {f"{commit}-beef-0000.parquet": [(source,)] for source, commit in commits.items()}


def test_a_purge_that_was_killed_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = feed(tmp_path, STRICTER)

    class Killed(BaseException):
        pass

    real, removed = Path.unlink, []

    def once(path: Path, missing_ok: bool = False) -> None:
        if removed:
            raise Killed
        removed.append(path)
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", once)
        with pytest.raises(Killed):
            purge_restricted(shop.home, FIRST + 99 * DAY, 7)
    assert len(unreadable(shop)) == 2, "whole files only"
    assert purge_restricted(shop.home, FIRST + 99 * DAY, 7) == 1
    assert unreadable(shop) == []
