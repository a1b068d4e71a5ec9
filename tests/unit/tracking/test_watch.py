"""What people are told of streams and quarantine: each kind of failure once, and nothing that is not so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from event_lines import RULES, Shop, event, viewed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zantara_pipeline.alerts import AlertLedger, Finding
from zantara_pipeline.tracking import failure_kinds as index
from zantara_pipeline.tracking import watch
from zantara_pipeline.tracking.failure_kinds import failure_kinds
from zantara_pipeline.tracking.fixes import Fixes
from zantara_pipeline.tracking.quarantine import kinds
from zantara_pipeline.tracking.replay import discard, replay
from zantara_pipeline.tracking.watch import KINDS, findings

DAY = date(2026, 3, 31)
AS_OF = datetime(2026, 4, 1, tzinfo=UTC)
WRONG_PRICE = "wrong_type $.properties.price"
NO_PRODUCT = "missing_key $.properties.product_id"


def at(day: date, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    times = {"timestamp": f"{day}T10:00:00Z", "received_at": f"{day}T10:00:05Z"}
    return [line | times | {"event_id": f"{day}-{number}"} for number, line in enumerate(lines)]


def took(shop: Shop, name: str, lines: list[dict[str, Any]], day: date = DAY) -> Shop:
    shop.land(name, at(day, lines))
    shop.ingest()
    return shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Two lines with a text for a price, one without a product, and four that are right."""
    lines = [viewed(price="x"), viewed(price="y"), event("product_view", {}), *[viewed(price=1, currency="EUR")] * 4]
    return took(Shop(tmp_path, RULES), "a.jsonl", lines)


def told(shop: Shop, as_of: datetime = AS_OF) -> list[Finding]:
    return findings(shop.home, shop.ledger, RULES.plan, as_of)


def failures(shop: Shop) -> dict[str, int]:
    return {
        " ".join((finding.details["code"], finding.details["path"])): finding.details["rows"]
        for finding in told(shop)
        if finding.kind == "new_failure"
    }


def live(shop: Shop) -> None:
    """As if every file had been taken an hour after its last event."""
    with shop.ledger.transaction() as db:
        db.execute("UPDATE ingested_files SET ingested_at = replace(max_received_at, 'T10:', 'T11:')")


def test_each_kind_of_failure_is_told_with_its_lines_and_without_their_values(shop: Shop) -> None:
    assert failures(shop) == {WRONG_PRICE: 2, NO_PRODUCT: 1}
    finding = next(found for found in told(shop) if found.details.get("rows") == 2)
    known = {kind.fingerprint for kind in kinds(shop.home)}
    assert finding.details["quarantine_fingerprint"] in known and finding.details["event"] == "product_view"
    assert finding.severity == "warning" and finding.subject == "event/product_view"
    assert "2 lines" in finding.message and WRONG_PRICE in finding.message
    assert set(finding.details) == {"quarantine_fingerprint", "event", "code", "path", "reasons", "rows"}


def test_an_alert_is_raised_once_and_again_only_after_it_was_over(shop: Shop) -> None:
    ledger = AlertLedger(shop.home.state / "alerts.db")

    def run(hours: int) -> tuple[int, int]:
        raised, resolved = ledger.sync(told(shop), AS_OF + timedelta(hours=hours), KINDS)
        return len(raised), len(resolved)

    assert run(0) == (2, 0)
    took(shop, "b.jsonl", [viewed(price="z")])  # more of the same
    assert run(1) == (0, 0)
    price = next(kind.fingerprint for kind in kinds(shop.home) if kind.reasons == WRONG_PRICE)
    discard(shop.home, shop.ledger, price, "test traffic")
    assert run(2) == (0, 1)
    took(shop, "c.jsonl", [viewed(price="w")], DAY + timedelta(days=1))
    assert run(3) == (1, 0)


def test_a_replay_ends_the_alert_of_what_it_mended(shop: Shop) -> None:
    fix = {"event": "product_view", "default": {"product_id": "p"}}
    fixes = Fixes.model_validate({"version": "1-0-0", "owner": "a@example.com", "reason": "r", "fixes": [fix]})
    told(shop)
    done = replay(shop.home, shop.ledger, RULES, fixes=fixes)
    assert (done.accepted, done.quarantine_dates) == (1, {DAY})
    assert failures(shop) == {WRONG_PRICE: 2}


def test_only_new_quarantine_files_are_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    failure_kinds(shop.home, shop.ledger)
    read: list[str] = []
    genuine = index._read
    monkeypatch.setattr(index, "_read", lambda home, paths: read.extend(paths) or genuine(home, paths))
    failure_kinds(shop.home, shop.ledger)
    assert read == []
    took(shop, "b.jsonl", [event("rating", {})], DAY + timedelta(days=1))
    assert len(failure_kinds(shop.home, shop.ledger)) == 3
    assert len(read) == 1 and f"received_date={DAY + timedelta(days=1)}" in read[0]


def test_files_that_went_behind_the_ledgers_back_are_forgotten(shop: Shop) -> None:
    assert len(failure_kinds(shop.home, shop.ledger)) == 2
    shutil.rmtree(shop.home.quarantine)
    assert failure_kinds(shop.home, shop.ledger) == []


LINES = [viewed(price="x"), event("product_view", {}), event("rating", {}), event("nobody_knows", {}), viewed()]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.lists(st.integers(0, len(LINES) - 1), max_size=6) | st.just("discard"), max_size=5))
def test_the_kinds_known_are_always_those_that_lie_there(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against quarantine.kinds, which reads every file each time."""
    shop = Shop(tmp_path_factory.mktemp("kinds"), RULES)
    for number, step in enumerate(steps):
        lying = kinds(shop.home)
        if step == "discard" and lying:
            discard(shop.home, shop.ledger, lying[0].fingerprint, "no reason")
        elif step != "discard":
            took(shop, f"{number}.jsonl", [LINES[n] for n in step], DAY + timedelta(days=number % 2))
        found = {(kind.fingerprint, kind.event, kind.rows) for kind in failure_kinds(shop.home, shop.ledger)}
        assert found == {(kind.fingerprint, kind.event, kind.rows) for kind in kinds(shop.home)}


def test_a_sender_that_writes_ids_into_names_does_not_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MOST_FAILURES", 3)
    monkeypatch.setattr(watch, "MOST_UNPLANNED", 4)
    shop = took(Shop(tmp_path, RULES), "a.jsonl", [*[event(f"viewed {n}", {}) for n in range(5)], viewed()])
    took(shop, "b.jsonl", [viewed()], DAY + timedelta(days=1))
    found = told(shop)
    assert [finding.kind for finding in found] == ["new_failure"] * 4 + ["unplanned"]
    assert found[3].details == {"quarantine_fingerprint": "others", "kinds": 2, "rows": 2}
    assert found[4].details == {"names": 5}


def test_what_no_name_can_be_is_not_repeated(tmp_path: Path) -> None:
    shop = took(
        Shop(tmp_path, RULES), "a.jsonl", [event("anna@example.com", {}), viewed(**{"bob@example.com": 1}), viewed()]
    )
    took(shop, "b.jsonl", [viewed()], DAY + timedelta(days=1))
    found = told(shop)
    assert {finding.subject for finding in found} == {"event/(unreadable name)", "event/product_view"}
    assert not any("example.com" in finding.message + finding.details_json() for finding in found)


def test_a_living_feed_is_watched_and_history_is_not(tmp_path: Path) -> None:
    """product_view promises 48 hours and at most 60 % less than usual; others that promise to come never did."""
    shop = Shop(tmp_path, RULES)
    right = viewed(price=1, currency="EUR")
    for weeks, count in ((2, 10), (1, 10), (0, 3)):
        took(shop, f"{weeks}.jsonl", [right] * count, DAY - timedelta(days=7 * weeks))
    took(shop, "later.jsonl", [event("item_tag", {"product_id": "p", "tag": "t"})], DAY + timedelta(days=1))
    assert told(shop, AS_OF + timedelta(days=2)) == []
    live(shop)
    found = told(shop, AS_OF + timedelta(days=2))
    by_kind = {
        (finding.kind, finding.severity): finding for finding in found if finding.subject == "event/product_view"
    }
    assert set(by_kind) == {("volume_drop", "warning")}
    assert by_kind["volume_drop", "warning"].details["usual"] == 10
    absent = {finding.subject for finding in found if finding.kind == "never_seen"}
    assert absent == {
        f"event/{name}"
        for name in ("add_to_cart", "page_timing", "purchase", "recommendation_exposed", "session_started")
    }
    stale = [finding for finding in told(shop, AS_OF + timedelta(days=2, hours=1)) if finding.kind == "stale"]
    assert [(finding.subject, finding.severity) for finding in stale] == [("event/product_view", "critical")]


def test_a_plan_that_was_imported_whole_is_one_alert_and_not_one_per_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = took(Shop(tmp_path, RULES), "a.jsonl", [viewed(price=1, currency="EUR")])
    for days in (5, 9):  # a feed that paused for longer would begin anew, and be too young for the alert
        took(shop, f"{days}.jsonl", [viewed(price=1, currency="EUR")], DAY + timedelta(days=days))
    live(shop)
    rating = RULES.plan.events["rating"]
    names = [f"imported_{number}" for number in range(4)]
    imported = {name: rating.model_copy(update={"event": name}) for name in names}
    plan = replace(
        RULES.plan, events={"product_view": RULES.plan.events["product_view"]} | imported, own=frozenset(names)
    )

    def absent() -> list[tuple[str, str]]:
        found = findings(shop.home, shop.ledger, plan, AS_OF + timedelta(days=9))
        return [(f.subject, f.severity) for f in found if f.kind == "never_seen"]

    assert absent() == [(f"event/{name}", "info") for name in names]
    monkeypatch.setattr(watch, "MOST_NEVER_SEEN", 3)
    assert absent() == [("events", "info")]
