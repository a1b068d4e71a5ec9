"""Lines that could not be parsed go after their days, counted on the clock of the run."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from event_lines import Shop, event

from zantara_pipeline.tracking.restricted import purge_restricted

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
