"""Retention of the lake on the run's clock: what goes, what stays, what is opened, and that a kill leaves no half of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from event_lines import PLAN, RULES, Shop, event, viewed
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking import commits, lake_retention, quarantine_expiry, removal
from zantara_pipeline.tracking.lake_retention import Removed, enforce_lake
from zantara_pipeline.tracking.plan import Enforced, Retention, TrackingPlan, load_plan
from zantara_pipeline.tracking.quarantine import expired_kinds, kinds
from zantara_pipeline.tracking.quarantine_expiry import Expired, expire_quarantine
from zantara_pipeline.tracking.replay import replay
from zantara_pipeline.tracking.retention import enforce, overdue
from zantara_pipeline.tracking.sources import mark_staged, prepare

DAY = timedelta(days=1)
FIRST = datetime(2019, 6, 1, 12, tzinfo=UTC)
SECRET = "joe.bloggs@example.com"


def kept(**days: int) -> TrackingPlan:
    """The packaged plan with other retention_days of events."""
    events = {
        name: plan.model_copy(update={"retention_days": days.get(name, 1000)}) for name, plan in PLAN.events.items()
    }
    return TrackingPlan(events, PLAN.privacy.model_copy(update={"quarantine_expiry_days": 20}))


PLANNED = kept(product_view=10, purchase=30)


def at(day: float, line: dict[str, Any], number: object = 0) -> dict[str, Any]:
    when = (FIRST + day * DAY).isoformat().replace("+00:00", "Z")
    return line | {"timestamp": when, "received_at": when, "event_id": f"{line['event']}-{day}-{number}"}


def wrong(name: str = "product_view") -> dict[str, Any]:
    return event(name, {"product_id": "p", "colour": SECRET})


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "home")


def left(shop: Shop) -> set[str]:
    return {row["event_id"] for row in shop.quarantined()}


class Killed(BaseException):
    pass


def kill(*_: Any, **__: Any) -> None:
    raise Killed


# Quarantine


def test_a_quarantined_line_goes_when_an_accepted_event_of_its_kind_would(shop: Shop) -> None:
    shop.land(
        "a.jsonl", [at(0, wrong()), at(0, wrong("purchase")), at(0, wrong("wish")), at(3, wrong()), at(3, viewed())]
    )
    shop.ingest()
    counts = shop.query("SELECT quarantined, accepted FROM ingested_files")
    assert expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 10 * DAY) == Expired()
    assert expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 10 * DAY + timedelta(seconds=1)) == Expired(1)
    assert left(shop) == {"purchase-0-0", "wish-0-0", "product_view-3-0"}
    assert expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 20.5 * DAY) == Expired(2)
    assert left(shop) == {"purchase-0-0"}
    assert expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 31 * DAY) == Expired(1)
    assert not any(shop.home.quarantine.iterdir()) and len(shop.accepted()) == 1
    assert shop.query("SELECT quarantined, accepted FROM ingested_files") == counts == [(4, 1)]


def test_no_payload_remains_and_the_counts_of_what_expired_do(shop: Shop) -> None:
    shop.land("a.jsonl", [at(0, wrong(), n) for n in range(3)] + [at(0, wrong("purchase"))])
    shop.ingest()
    before = {kind.event: kind for kind in kinds(shop.home)}
    assert all(SECRET in row["payload_raw"] for row in shop.quarantined()) and before["product_view"].rows == 3
    expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 15 * DAY)
    [gone] = expired_kinds(shop.ledger)
    assert (gone.event, gone.rows, gone.status) == ("product_view", 3, "expired")
    assert (gone.fingerprint, gone.reasons, gone.first_seen) == (
        before["product_view"].fingerprint, "unknown_key $.properties.colour", FIRST,
    )  # fmt: skip
    assert [kind.event for kind in kinds(shop.home)] == ["purchase"]
    expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 99 * DAY)
    assert shop.quarantined() == [] and not list(shop.home.incoming.glob("*"))
    assert SECRET not in str(shop.query("SELECT * FROM expired_lines")) and kinds(shop.home) == []


def test_lines_that_this_run_took_wait_for_the_next(shop: Shop) -> None:
    """Years of history under a wrong plan: nobody could have replayed a line that went within the run that took it."""
    began = datetime.now(UTC)
    shop.land("a.jsonl", [at(-3000, wrong()), at(0, viewed())])
    shop.ingest()
    done = enforce(shop.home, shop.ledger, PLANNED, FIRST, began)
    assert done.quarantine == Expired(0, waiting=1) and "go with the next run; replay them before" in next(done.notices)
    later = datetime.now(UTC) + timedelta(seconds=1)
    assert enforce(shop.home, shop.ledger, PLANNED, FIRST, later).quarantine == Expired(1)
    assert shop.quarantined() == []


def test_a_receipt_that_cannot_be_is_not_believed(shop: Shop) -> None:
    far = event("product_view", event_id="far", received_at="9999-01-01T00:00:00Z", timestamp="9999-01-01T00:00:00Z")
    none = event("product_view", event_id="none", received_at="yesterday", timestamp="2019-06-01T12:00:00Z")
    shop.land("a.jsonl", [at(0, viewed()), far, none])
    shop.ingest()
    assert left(shop) == {"far", "none"}
    assert expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 10 * DAY) == Expired()
    assert expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 11 * DAY) == Expired(2)


def test_the_wall_clock_has_no_say(shop: Shop) -> None:
    shop.land("a.jsonl", [at(0, wrong()), at(0, viewed())])
    shop.ingest()
    assert expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST) == Expired()
    assert enforce_lake(shop.home, shop.ledger, PLANNED, FIRST) == Removed()
    assert len(shop.accepted()) == len(shop.quarantined()) == 1


def test_only_partitions_in_which_something_can_be_due_are_opened(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.land("a.jsonl", [at(day, wrong("purchase")) for day in range(0, 24, 4)])
    shop.ingest()
    opened: list[str] = []
    real = quarantine_expiry.read_quarantine

    def look(*globs: str) -> str:
        opened.extend(globs)
        return real(*globs)

    monkeypatch.setattr(quarantine_expiry, "read_quarantine", look)
    monkeypatch.setattr(removal, "read_quarantine", look)

    def days(as_of: datetime, plan: TrackingPlan = PLANNED) -> set[str]:
        opened.clear()
        expire_quarantine(shop.home, shop.ledger, plan, as_of)
        return {f"{date.fromisoformat(glob.split('received_date=')[1][:10])}" for glob in opened}

    assert days(FIRST + 20 * DAY) == {"2019-06-01", "2019-06-05", "2019-06-09"}
    assert days(FIRST + 21 * DAY) == set()
    assert days(FIRST + 31 * DAY) == {"2019-06-01", "2019-06-13", "2019-06-17", "2019-06-21"}
    assert days(FIRST + 31 * DAY) == set()
    shop.land("b.jsonl", [at(12, wrong("purchase"), "late")])
    shop.ingest()
    assert days(FIRST + 31 * DAY) == {"2019-06-13"}
    shorter = kept(product_view=10, purchase=25)
    assert days(FIRST + 31 * DAY, shorter) == {f"2019-06-{day:02d}" for day in (5, 9, 13, 17, 21)}


@pytest.mark.parametrize("moment", ["writing", "staging", "staged", "moving"])
def test_a_killed_expiry_is_finished_or_never_was(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def landed(name: str) -> Shop:
        shop = Shop(tmp_path / name)
        shop.land(
            "a.jsonl",
            [at(day, wrong(name), n) for n, name in enumerate(("product_view", "purchase")) for day in (0, 1)],
        )
        shop.ingest()
        return shop

    never, shop = landed("never"), landed("shop")
    as_of = FIRST + 15 * DAY
    expire_quarantine(never.home, never.ledger, PLANNED, as_of)
    with monkeypatch.context() as patch:
        target = {"writing": "write_rest", "staging": "stage", "staged": "move_in"}.get(moment)
        patch.setattr(*((removal, target) if target else (commits, "_remove_if_empty")), kill)
        with pytest.raises(Killed):
            expire_quarantine(shop.home, shop.ledger, PLANNED, as_of)
    again = Ledger(shop.ledger.path)
    commits.recover(shop.home, again)
    expire_quarantine(shop.home, again, PLANNED, as_of)
    query = "SELECT event, reasons, rows FROM expired_lines ORDER BY 1"
    assert shop.quarantined() == never.quarantined() and shop.query(query) == never.query(query)
    assert len(shop.query(query)) == 1 and not list(shop.home.incoming.glob("*"))


def test_what_is_left_can_still_be_replayed(shop: Shop, tmp_path: Path) -> None:
    shop.land("a.jsonl", [at(day, wrong()) for day in (0, 5)])
    shop.ingest()
    expire_quarantine(shop.home, shop.ledger, PLANNED, FIRST + 12 * DAY)
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / "product_view.yaml").read_text())
    entry["properties"]["colour"] = {"type": "string"}
    (tmp_path / "tracking_plan").mkdir()
    (tmp_path / "tracking_plan" / "product_view.yaml").write_text(yaml.safe_dump(entry))
    done = replay(shop.home, shop.ledger, replace(RULES, plan=load_plan([PACKAGED, tmp_path])))
    assert (done.rows, done.accepted) == (1, 1)
    [(rows, parts)] = shop.query("SELECT rows_in, unparsable + suppressed + quarantined + accepted FROM ingested_files")
    assert rows == parts == 2


# Values of a property with days of its own, in quarantine

# Two ways to write one line: what a quarantined line carries has to be seen whichever way its sender got it wrong.
CARRYING = {
    "as declared": wrong() | {"properties": {"product_id": "p", "colour": 1, "brand": "Acme"}},
    "in capitals": event("product_view", {"product_id": "p", "Brand": "Acme"}),
    "with a hyphen": event("product_view", {"product_id": "p", "br-and": "Acme"}),
    "one level too high": event("product_view", brand="Acme"),
    "deeper": event("product_view", {"product_id": {"of": [{"brand": "Acme"}]}}),
    "a text of JSON": event("product_view", properties='{"brand": "Acme"}'),
    "a list": event("product_view", properties=["Acme"]),
    "another event": event("purchase", {"product_id": "p", "brand": "Acme"}),
    "an event nobody declared": event("wish", {"brand": "Acme"}),
}
ESCAPED = (
    r'{"event_id":"%s","event":"product_view","timestamp":"%s","received_at":"%s","user_id":"u-1",'
    r'"properties":{"product_id":"p","colour":1,"br\u0061nd":"Acme"},"consent":{"analytics":true}}'
)


def brand_kept(days: int) -> TrackingPlan:
    """brand is kept for some days in product_view, and declared by no other event; lines for 30 and more."""
    plan = kept(product_view=30, purchase=30)
    view = plan.events["product_view"]
    brand = view.properties["brand"].model_copy(update={"retention_days": days})
    events = {
        name: planned.model_copy(update={"properties": {k: v for k, v in planned.properties.items() if k != "brand"}})
        for name, planned in plan.events.items()
    }
    events["product_view"] = view.model_copy(update={"properties": view.properties | {"brand": brand}})
    return TrackingPlan(events, plan.privacy)


def test_a_line_goes_no_later_than_the_shortest_lived_property_that_it_carries(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home", replace(RULES, plan=brand_kept(5)))
    when = "2019-06-01T12:00:00Z"
    carrying = [at(0, line) | {"event_id": f"carries {name}"} for name, line in CARRYING.items()]
    others = [
        at(0, event("product_view", {"product_id": "p", "colour": "brand"})) | {"event_id": "a value"},
        at(0, event("product_view", {"product_id": "p", "brand_new": "x", "über": "\u00fc"})) | {"event_id": "longer"},
        at(0, event("purchase", {"product_id": "p", "colour": 1})) | {"event_id": "none"},
    ]
    shop.land("a.jsonl", [*carrying, ESCAPED % ("carries escaped", when, when), *others])
    shop.ingest()
    assert len(left(shop)) == len(CARRYING) + 4
    plan = brand_kept(5)
    assert expire_quarantine(shop.home, shop.ledger, plan, FIRST + 5 * DAY) == Expired()
    late = FIRST + 5 * DAY + timedelta(seconds=1)
    [told] = overdue(shop.home, shop.ledger, plan, late)
    assert (told.store, told.rows) == ("quarantine", len(CARRYING) + 1)
    assert expire_quarantine(shop.home, shop.ledger, plan, late) == Expired(len(CARRYING) + 1)
    assert left(shop) == {"a value", "longer", "none"}
    assert "Acme" not in str(shop.quarantined())
    assert expire_quarantine(shop.home, shop.ledger, plan, FIRST + 31 * DAY) == Expired(3)


def test_an_event_that_declares_the_name_itself_keeps_its_own_days(shop: Shop) -> None:
    plan = brand_kept(5)
    brand = plan.events["product_view"].properties["brand"].model_copy(update={"retention_days": None})
    bought = plan.events["purchase"]
    bought = bought.model_copy(update={"properties": bought.properties | {"brand": brand}})
    plan = TrackingPlan(plan.events | {"purchase": bought}, plan.privacy)
    shop.land("a.jsonl", [at(0, event(name, {"brand": "Acme"})) for name in ("purchase", "product_view", "wish")])
    shop.ingest()
    assert expire_quarantine(shop.home, shop.ledger, plan, FIRST + 6 * DAY) == Expired(2)
    assert left(shop) == {"purchase-0-0"}


def test_days_given_to_a_property_later_count_for_lines_that_were_seen(shop: Shop) -> None:
    """A partition in which nothing was due is opened again when the rules changed."""
    shop.land("a.jsonl", [at(0, CARRYING["as declared"])])
    shop.ingest()
    assert expire_quarantine(shop.home, shop.ledger, kept(product_view=30), FIRST + 25 * DAY) == Expired()
    assert expire_quarantine(shop.home, shop.ledger, brand_kept(5), FIRST + 25 * DAY) == Expired(1)


def test_a_replay_after_the_days_of_a_property_brings_none_of_its_values_back(shop: Shop, tmp_path: Path) -> None:
    """The same lines, mended and replayed before and after: what is left of brand is what the lake would have left."""
    lines = [at(0, CARRYING["as declared"]), at(0, wrong(), "plain")]
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / "product_view.yaml").read_text())
    entry["properties"]["colour"] = {"type": "string"}
    entry["properties"]["brand"]["retention_days"] = 5
    (tmp_path / "tracking_plan").mkdir()
    (tmp_path / "tracking_plan" / "product_view.yaml").write_text(yaml.safe_dump(entry))
    mended = load_plan([PACKAGED, tmp_path])
    lines[0]["properties"]["colour"] = "red"
    shop.land("a.jsonl", lines)
    shop.ingest()
    expire_quarantine(shop.home, shop.ledger, mended, FIRST + 6 * DAY)
    done = replay(shop.home, shop.ledger, replace(RULES, plan=mended))
    assert (done.rows, done.accepted) == (1, 1)
    assert [row["brand"] for row in shop.accepted()] == [None]
    assert shop.query("SELECT rows FROM expired_lines") == [(1,)]
    early = Shop(tmp_path / "early")
    early.land("a.jsonl", lines)
    early.ingest()
    assert replay(early.home, early.ledger, replace(RULES, plan=mended)).accepted == 2
    enforce_lake(early.home, early.ledger, mended, FIRST + 7 * DAY)
    assert [row["brand"] for row in early.accepted()] == [None, None]


# Accepted


def shown(shop: Shop) -> list[tuple[str, str]]:
    return [(row["event"], f"{row['received_date']}") for row in shop.accepted()]


def test_a_day_of_the_lake_goes_when_all_of_it_is_over(shop: Shop) -> None:
    shop.land(
        "a.jsonl", [at(day, line) for day in (0, 1) for line in (viewed(), event("purchase", {"product_id": "p"}))]
    )
    shop.ingest()
    midnight = datetime(2019, 6, 2, tzinfo=UTC)
    assert enforce_lake(shop.home, shop.ledger, PLANNED, midnight + 10 * DAY - timedelta(seconds=1)) == Removed()
    assert enforce_lake(shop.home, shop.ledger, PLANNED, midnight + 10 * DAY) == Removed(days=1, rows=1)
    assert sorted(shown(shop)) == [
        ("product_view", "2019-06-02"),
        ("purchase", "2019-06-01"),
        ("purchase", "2019-06-02"),
    ]
    assert not (shop.home.accepted / "event=product_view" / "received_date=2019-06-01").exists()
    assert enforce_lake(shop.home, shop.ledger, PLANNED, midnight + 10 * DAY) == Removed()
    assert shop.query("SELECT event, received_date, rows FROM expired_rows") == [("product_view", "2019-06-01", 1)]


def test_the_packaged_plan_counts_and_removes_nothing_accepted(shop: Shop) -> None:
    shop.land("a.jsonl", [at(-8000, viewed()), at(0, viewed())])
    shop.ingest()
    done = enforce(shop.home, shop.ledger, PLAN, FIRST, datetime.now(UTC))
    assert (done.lake, done.days_kept, list(done.notices)) == (Removed(), 1, [])
    assert len(shop.accepted()) == 2
    [part] = overdue(shop.home, shop.ledger, PLAN, FIRST)
    assert (part.store, part.event, part.enforced, part.rows, part.days) == ("accepted", "product_view", False, 1, 1)
    enforced = Retention(quarantine=Enforced(enforce=True), accepted=Enforced(enforce=True))
    wanted = TrackingPlan(PLAN.events, PLAN.privacy.model_copy(update={"retention": enforced}))
    assert enforce(shop.home, shop.ledger, wanted, FIRST, datetime.now(UTC)).lake == Removed(days=1, rows=1)
    assert len(shop.accepted()) == 1 and overdue(shop.home, shop.ledger, wanted, FIRST) == []


def short_lived(days: int) -> TrackingPlan:
    view = PLANNED.events["product_view"]
    brand = view.properties["brand"].model_copy(update={"retention_days": days})
    changed = view.model_copy(update={"properties": view.properties | {"brand": brand}, "retention_days": 100})
    return TrackingPlan(PLANNED.events | {"product_view": changed}, PLANNED.privacy)


def test_a_value_is_null_after_its_own_days_and_its_file_is_written_once(shop: Shop) -> None:
    shop.land("a.jsonl", [at(day, viewed(brand="Acme", price=5)) for day in (0, 1)] + [at(1, viewed(), "plain")])
    shop.ingest()
    plan, as_of = short_lived(5), FIRST + 6 * DAY
    assert enforce_lake(shop.home, shop.ledger, plan, as_of) == Removed(days_with_values=1)
    found = {row["event_id"]: (row["brand"], row["price"]) for row in shop.accepted()}
    assert found["product_view-0-0"][0] is None and str(found["product_view-0-0"][1]) == "5.0000"
    assert found["product_view-1-0"][0] == "Acme"
    types = {
        str(duckdb.sql(f"SELECT typeof(brand) FROM '{p}' LIMIT 1").fetchall())
        for p in shop.home.accepted.rglob("*.parquet")
    }
    assert types == {"[('VARCHAR',)]"}
    files = sorted(shop.home.accepted.rglob("*.parquet"))
    assert enforce_lake(shop.home, shop.ledger, plan, as_of) == Removed()
    assert sorted(shop.home.accepted.rglob("*.parquet")) == files
    shop.land("b.jsonl", [at(0, viewed(brand="Late"), "late")])
    shop.ingest()
    assert enforce_lake(shop.home, shop.ledger, plan, as_of) == Removed(days_with_values=1)
    assert "Late" not in str(shop.accepted())


def test_files_without_anything_due_are_not_opened_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.land("a.jsonl", [at(day, viewed(brand="Acme")) for day in range(5)])
    shop.ingest()
    plan, opened = short_lived(5), []
    real = lake_retention.stored_types

    def look(path: Path) -> dict[str, str]:
        opened.append(path.parent.name)
        return real(path)

    monkeypatch.setattr(lake_retention, "stored_types", look)
    counts = []
    for day in (7, 8, 8, 9):
        opened.clear()
        enforce_lake(shop.home, shop.ledger, plan, FIRST + day * DAY)
        counts.append(len(opened))
    assert counts == [2, 1, 0, 1]


@pytest.mark.parametrize("moment", ["stage", "move_in", "moving"])
def test_a_killed_retention_of_the_lake_is_finished_or_never_was(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def landed(name: str) -> Shop:
        shop = Shop(tmp_path / name)
        shop.land("a.jsonl", [at(day, viewed(brand="Acme")) for day in (-95, 0, 9)])
        shop.ingest()
        return shop

    plan, as_of = short_lived(5), FIRST + 9 * DAY
    never = landed("never")
    enforce_lake(never.home, never.ledger, plan, as_of)
    assert [row["brand"] for row in never.accepted()] == [None, "Acme"]
    for nth in (1, 2):
        shop = landed(f"shop{nth}")
        with monkeypatch.context() as patch:
            where = (commits, "_remove_if_empty") if moment == "moving" else (lake_retention, moment)
            real, calls = getattr(*where), []

            def now_and_then(
                *arguments: Any, real: Any = real, calls: list[int] = calls, nth: int = nth, **names: Any
            ) -> Any:
                calls.append(1)
                return kill() if len(calls) == nth else real(*arguments, **names)

            patch.setattr(*where, now_and_then)
            with pytest.raises(Killed):
                enforce_lake(shop.home, shop.ledger, plan, as_of)
        again = Ledger(shop.ledger.path)
        commits.recover(shop.home, again)
        enforce_lake(shop.home, again, plan, as_of)
        rows = "SELECT event, received_date, rows FROM expired_rows"
        assert shop.accepted() == never.accepted() and shop.query(rows) == never.query(rows)


def test_what_becomes_null_must_be_nullable(tmp_path: Path) -> None:
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / "product_view.yaml").read_text())
    entry["properties"]["product_id"]["retention_days"] = 30
    (tmp_path / "tracking_plan").mkdir()
    (tmp_path / "tracking_plan" / "product_view.yaml").write_text(yaml.safe_dump(entry))
    with pytest.raises(InputError, match="the property has to be nullable"):
        load_plan([PACKAGED, tmp_path])


# What staging is told


@pytest.fixture
def con(shop: Shop) -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    yield con
    con.close()


def test_a_build_learns_once_which_days_went_and_which_to_stage_again(
    shop: Shop, con: duckdb.DuckDBPyConnection
) -> None:
    shop.land("a.jsonl", [at(day, viewed(brand="Acme")) for day in (-95, 0, 9)])
    shop.ingest()
    plan, as_of = short_lived(5), FIRST + 9 * DAY

    def told() -> tuple[list[Any], list[Any], list[Any]]:
        prepare(con, shop.home, shop.ledger, plan, build="b", as_of=as_of, max_lateness_days=30)
        return (
            con.execute("SELECT event, received_date FROM state.removed_partitions").fetchall(),
            con.execute("SELECT received_date FROM state.restaged_dates").fetchall(),
            con.execute("SELECT received_date, brand FROM lake.product_view").fetchall(),
        )

    told()
    mark_staged(con, "b")
    assert told() == ([], [], [])
    enforce_lake(shop.home, shop.ledger, plan, as_of)
    news = ([("product_view", date(2019, 2, 26))], [(date(2019, 6, 1),)], [(date(2019, 6, 1), None)])
    assert told() == news
    assert told() == news, "a build that died is told again"
    mark_staged(con, "b")
    assert told() == ([], [], [])


# As people type it


def test_the_verbs_say_what_is_over_and_what_expired(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(shop.home.root))
    monkeypatch.setenv("ZANTARA_AS_OF", (FIRST + 500 * DAY).isoformat())
    assert "nothing was ever accepted" not in CliRunner().invoke(app, ["plan", "retention"]).output
    shop.land("a.jsonl", [at(0, wrong()), at(0, viewed()), at(0, event("purchase", {"product_id": "p"}))])
    shop.ingest()
    said = CliRunner().invoke(app, ["plan", "retention"], catch_exceptions=False).output
    assert "quarantine: 1 lines (the next run removes them)" in said
    assert "accepted product_view: 1 rows of 1 days (kept: not enforced)" in said and "purchase" not in said
    expire_quarantine(shop.home, shop.ledger, PLAN, FIRST + 500 * DAY)
    said = CliRunner().invoke(app, ["quarantine", "list"], catch_exceptions=False).output
    assert "0 lines in quarantine" in said and "product_view: unknown_key $.properties.colour  (expired)" in said
    found = json.loads(CliRunner().invoke(app, ["quarantine", "list", "--json"], catch_exceptions=False).output)
    assert [(kind["status"], kind["rows"]) for kind in found] == [("expired", 1)]
    machine = json.loads(CliRunner().invoke(app, ["plan", "retention", "--json"], catch_exceptions=False).output)
    assert [(part["store"], part["days"], part["enforced"]) for part in machine] == [
            ("landing", 1, False), ("accepted", 1, False),
        ]  # fmt: skip
