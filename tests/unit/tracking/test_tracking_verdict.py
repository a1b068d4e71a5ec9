"""What becomes of one line: every stage and every reason, through `ingest` and through `validate_file`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from event_lines import BOTH, PLAN, RULES, Shop, event, text, viewed

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.validate import validate_file

P = "$.properties."
SECRET = "joe.bloggs@example.com"
VALID = '{"event_id":"e","event":"product_view","timestamp":"2026-03-01T10:00:00Z",%s,"consent":{"analytics":true}}'


def cart(**properties: Any) -> dict[str, Any]:
    return event("add_to_cart", {"product_id": "p-1"} | properties)


def timing(load_ms: Any) -> dict[str, Any]:
    return event("page_timing", {"page": "/", "load_ms": load_ms})


def at(occurred: Any = "2026-03-01T10:00:00Z", received: Any = "2026-03-01T10:00:05Z") -> dict[str, Any]:
    return event(timestamp=occurred, received_at=received)


UNPARSABLE: dict[str, Any] = {
    "text": "hello",
    "number": "3",
    "string": '"x"',
    "null": "null",
    "array": "[{}]",
    "cut off": '{"event_id":"e',
    "two objects": "{}{}",
    "single quotes": "{'a':1}",
    "NaN": VALID % '"properties":{"product_id":"p","price":NaN}',
    "Infinity": VALID % '"properties":{"product_id":"p","price":Infinity}',
    "-Infinity": VALID % '"properties":{"product_id":"p","price":-Infinity}',
    "NaN where nothing is kept": VALID % '"properties":{"product_id":"p"},"context":{"zoom":NaN}',
    "trailing comma in properties": VALID % '"properties":{"product_id":"p",}',
    "trailing comma in array": VALID % '"properties":{"product_id":"p"},"context":{"a":[1, ]}',
    "trailing comma at the end": json.dumps(event())[:-1] + " , }",
    "comment": json.dumps(event()) + " // seen",
    "hexadecimal": VALID % '"properties":{"product_id":"p","price":0x10}',
    "bad byte": b'{"event_id":"\xff"}',
    "half a surrogate pair": VALID % '"properties":{"product_id":"\\ud800"}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(event()).encode(),
    "raw control character": VALID % '"properties":{"product_id":"a\x01b"}',
}

SUPPRESSED: dict[str, Any] = {
    "no consent": event(consent=...),
    "null": event(consent=None),
    "text": event(consent="granted"),
    "true": event(consent=True),
    "list": event(consent=["analytics"]),
    "empty": event(consent={}),
    "false": event(consent={"analytics": False, "personalization": True}),
    "null flag": event(consent={"analytics": None}),
    "text true": event(consent={"analytics": "true"}),
    "one": event(consent={"analytics": 1}),
    "only another category": event(consent={"personalization": True}),
    "the category of this event is another": event(
        "recommendation_exposed",
        {"list_id": "l", "product_id": "p", "position": 1, "bundle_version": "1"},
        consent={"analytics": True},
    ),
    "unknown event, only personalization": event("wishlist_opened", consent={"personalization": True}),
    "consent comes before the plan": event("product_view", {"price": "five"}, consent=None, extra=1),
    "an empty object": "{}",
}

QUARANTINED: dict[str, tuple[Any, set[tuple[str, str]]]] = {
    "unknown event": (event("wishlist_opened"), {("unknown_event", "$.event")}),
    "empty event": (event(""), {("unknown_event", "$.event")}),
    "event is a number": (event(event=3), {("wrong_type", "$.event")}),
    "event is null": (event(event=None), {("null_not_allowed", "$.event")}),
    "no event": (event(event=...), {("missing_key", "$.event")}),
    "no event_id": (event(event_id=...), {("missing_key", "$.event_id")}),
    "empty event_id": (event(event_id=""), {("too_short", "$.event_id")}),
    "event_id is a number": (event(event_id=7), {("wrong_type", "$.event_id")}),
    "user_id is a number": (event(user_id=7), {("wrong_type", "$.user_id")}),
    "session_id is an object": (event(session_id={}), {("wrong_type", "$.session_id")}),
    "sent_at is a number": (event(sent_at=7), {("wrong_type", "$.sent_at")}),
    "unknown keys of the envelope": (
        event(zebra=1, ip_address="10.0.0.1"),
        {("unknown_key", "$.zebra"), ("unknown_key", "$.ip_address")},
    ),
    "unknown properties": (viewed(zz=1, email=SECRET), {("unknown_key", P + "zz"), ("unknown_key", P + "email")}),
    "a key that is personal itself": (viewed(**{SECRET: 1}), {("unknown_key", P + "(unreadable name)")}),
    "a key that is a phone number": (viewed(**{"+49151234567": 1}), {("unknown_key", P + "(unreadable name)")}),
    "a property of another event": (viewed(quantity=1), {("unknown_key", P + "quantity")}),
    "property twice": (
        VALID % '"properties":{"product_id":"p","product_id":"q"}',
        {("duplicate_key", "$.properties")},
    ),
    "key twice": (VALID % '"properties":{"product_id":"p"},"event_id":"f"', {("duplicate_key", "$")}),
    "no properties": (event(properties=...), {("missing_key", P + "product_id")}),
    "properties null": (event() | {"properties": None}, {("missing_key", P + "product_id")}),
    "properties empty": (event(properties={}), {("missing_key", P + "product_id")}),
    "properties a list": (event(properties=[1]), {("wrong_type", "$.properties")}),
    "context a text": (event(context="web"), {("wrong_type", "$.context")}),
    "country a number": (event(context={"country": 49}), {("wrong_type", "$.context.country")}),
    "required null": (event(properties={"product_id": None}), {("null_not_allowed", P + "product_id")}),
    "number as text": (viewed(price="5.00"), {("wrong_type", P + "price")}),
    "number as boolean": (timing(True), {("wrong_type", P + "load_ms")}),
    "text as number": (event(properties={"product_id": 17}), {("wrong_type", P + "product_id")}),
    "text as object": (event(properties={"product_id": {"id": "p"}}), {("wrong_type", P + "product_id")}),
    "whole number as decimal": (cart(quantity=2.0), {("wrong_type", P + "quantity")}),
    "below minimum": (viewed(price=-0.01), {("below_minimum", P + "price")}),
    "below minimum of a whole number": (cart(quantity=0), {("below_minimum", P + "quantity")}),
    "above maximum": (timing(600_000.5), {("above_maximum", P + "load_ms")}),
    "pattern": (viewed(currency="eur"), {("pattern_mismatch", P + "currency")}),
    "pattern, line end": (viewed(currency="EUR\n"), {("pattern_mismatch", P + "currency")}),
    "too long": (event("item_tag", {"product_id": "p", "tag": "é" * 501}), {("too_long", P + "tag")}),
    "too large for money": (viewed(price=1e15), {("out_of_range", P + "price")}),
    "rounds up to too large": (viewed(price=99999999999999.99999), {("out_of_range", P + "price")}),
    "too large for a whole number": (cart(quantity=2**63), {("out_of_range", P + "quantity")}),
    "too large for any number": (
        VALID % '"properties":{"product_id":"p","price":1e999}',
        {("out_of_range", P + "price")},
    ),
    "time is a word": (at("yesterday"), {("bad_timestamp", "$.timestamp")}),
    "time is a word that the engine knows": (at("infinity"), {("bad_timestamp", "$.timestamp")}),
    "epoch": (at("epoch"), {("bad_timestamp", "$.timestamp")}),
    "no zone": (at("2026-03-01T10:00:00"), {("bad_timestamp", "$.timestamp")}),
    "no such day": (at("2026-02-30T10:00:00Z"), {("bad_timestamp", "$.timestamp")}),
    "only a day": (at("2026-03-01"), {("bad_timestamp", "$.timestamp")}),
    "of the usual length only": (at("2026-03-01T10:00:0xZ"), {("bad_timestamp", "$.timestamp")}),
    "time is a number": (at(1772359200), {("wrong_type", "$.timestamp")}),
    "received_at is a word": (at(received="soon"), {("bad_timestamp", "$.received_at")}),
    "received_at is a number": (at(received=1772359200), {("wrong_type", "$.received_at")}),
    "future": (at("2026-03-02T10:00:05.001Z", "2026-03-01T10:00:05Z"), {("future_timestamp", "$.timestamp")}),
    "too late": (at("2026-01-30T10:00:04Z", "2026-03-01T10:00:05Z"), {("too_late", "$.received_at")}),
    "all at once": (
        event("add_to_cart", {"price": "5", "quantity": 0, "currency": "e", "x": 1}, timestamp="?", user_id=3),
        {
            ("missing_key", P + "product_id"),
            ("wrong_type", P + "price"),
            ("below_minimum", P + "quantity"),
            ("pattern_mismatch", P + "currency"),
            ("unknown_key", P + "x"),
            ("bad_timestamp", "$.timestamp"),
            ("wrong_type", "$.user_id"),
        },
    ),
}

ACCEPTED: dict[str, Any] = {
    "plain": event(),
    "nothing but what is required": VALID % '"properties":{"product_id":"p"}',
    "optional null": viewed(price=None, currency=None, brand=None),
    "ids null": event(user_id=None, session_id=None, device_id=None, anonymous_id=None, organisation_id=None),
    "empty strings": viewed(brand="", category=""),
    "whole number for a number": timing(12),
    "bounds": timing(600_000),
    "lower bound": viewed(price=0),
    "longest": event("item_tag", {"product_id": "p", "tag": "é" * 500}),
    "words of lax JSON inside a text": viewed(brand="x: NaN, Infinity ,} ,]"),
    "escapes": VALID % '"properties":{"product_id":"\\u00e9\\ud834\\udd1e\\"\\\\\\n"}',
    "consent to more than is asked": event(consent=BOTH | {"marketing": True}),
    "context beyond what is kept": event(context={"platform": "web", "user_agent": "x", "screen": {"w": 3}}),
    "context null": event(context=None),
    "refunds have either sign": event("refund", {"product_id": "p", "quantity": -1}),
    "no received_at": event(received_at=...),
    "received_at null": event(received_at=None),
    "offset": at("2026-03-01T12:00:00+02:00"),
    "offset without colon, fractions": at("2026-03-01T04:30:00.123456-0530"),
    "a space for the T": at("2026-03-01 10:00:00Z"),
    "exactly 24 hours ahead": at("2026-03-02T10:00:05Z", "2026-03-01T10:00:05Z"),
    "exactly 30 days late": at("2026-01-30T10:00:05Z", "2026-03-01T10:00:05Z"),
    "exactly 24 hours late": at("2026-02-28T10:00:05Z", "2026-03-01T10:00:05Z"),
    "a second more than 24 hours late": at("2026-02-28T10:00:04Z", "2026-03-01T10:00:05Z"),
}

CASES: dict[tuple[str, str], Any] = {
    **{("unparsable", name): line for name, line in UNPARSABLE.items()},
    **{("suppressed", name): line for name, line in SUPPRESSED.items()},
    **{("quarantined", name): line for name, (line, _) in QUARANTINED.items()},
    **{("accepted", name): line for name, line in ACCEPTED.items()},
}


class Outcome:
    """One file of all cases, ingested once: a line's number is its place among the cases."""

    def __init__(self, root: Path) -> None:
        self.shop = Shop(root)
        self.path = self.shop.land("cases.jsonl", CASES.values())
        self.total = self.shop.ingest().total
        self.stages = self.shop.stages("cases.jsonl")
        self.reasons = self.shop.reasons()
        self.rows = {row["line_no"]: row for row in self.shop.accepted()}

    def row(self, name: str) -> dict[str, Any]:
        return self.rows[number("accepted", name)]


def number(stage: str, name: str) -> int:
    return list(CASES).index((stage, name)) + 1


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("cases"))


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_stage(outcome: Outcome, stage: str, name: str) -> None:
    assert outcome.stages.get(number(stage, name), "suppressed") == stage


@pytest.mark.parametrize("name", QUARANTINED)
def test_reasons(outcome: Outcome, name: str) -> None:
    assert outcome.reasons[number("quarantined", name)] == QUARANTINED[name][1]


def test_counts_are_those_of_the_lines(outcome: Outcome) -> None:
    wanted = Counter(stage for stage, _ in CASES)
    total = outcome.total
    assert {stage: getattr(total, stage) for stage in wanted} == wanted
    assert total.rows_in == len(CASES)


def test_validating_the_file_says_what_ingest_does(outcome: Outcome) -> None:
    verdict = validate_file(outcome.path, RULES, threads=1, examples=1000)
    assert verdict.counts == outcome.total
    told = {line["line"]: {(r["code"], r["path"]) for r in line["reasons"]} for line in verdict.failing_lines}
    unparsable = {number("unparsable", name): {("unparsable", "$")} for name in UNPARSABLE}
    assert told == outcome.reasons | unparsable
    per_reason = Counter(reason for reasons in outcome.reasons.values() for reason in reasons)
    assert Counter({key[1:3]: 0 for key in verdict.reasons}) + Counter(
        {pair: sum(rows for key, rows in verdict.reasons.items() if key[1:3] == pair) for pair in per_reason}
    ) == Counter(per_reason)


def test_the_ledger_counts_rows_per_reason(outcome: Outcome) -> None:
    rows = outcome.shop.query("SELECT code, path, sum(rows) FROM quarantine_reasons GROUP BY 1, 2")
    assert {(code, path): n for code, path, n in rows} == Counter(
        reason for reasons in outcome.reasons.values() for reason in reasons
    )


def test_no_reason_repeats_a_value(outcome: Outcome) -> None:
    values = (SECRET, "+49151234567", "10.0.0.1", "yesterday", "five", "EUR", "wishlist")
    verdict = validate_file(outcome.path, RULES, threads=1, examples=1000).as_dict()
    told = json.dumps([verdict["reasons"], [line["reasons"] for line in verdict["failing_lines"]]], default=str)
    stored = str([row["reasons"] for row in outcome.shop.quarantined()])
    stored += str(outcome.shop.query("SELECT code, path FROM quarantine_reasons"))
    wanted_names = {"wishlist"}  # an event's name is no value of the event; it stands beside the reasons, not in them
    for value in values:
        assert value not in stored
        assert value not in told or value in wanted_names


def test_a_payload_is_kept_only_where_consent_allows(outcome: Outcome) -> None:
    kept = {row["line_no"] for row in outcome.shop.quarantined()}
    assert kept == {number("quarantined", name) for name in QUARANTINED}
    nowhere = {number("suppressed", name) for name in SUPPRESSED}
    assert not nowhere & (kept | set(outcome.rows) | {row["line_no"] for row in outcome.shop.unparsable()})


def test_times_are_the_same_moment_in_utc(outcome: Outcome) -> None:
    assert outcome.row("offset")["occurred_at"] == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert outcome.row("offset without colon, fractions")["occurred_at"] == datetime(2026, 3, 1, 10, 0, 0, 123456, UTC)


@pytest.mark.parametrize("name", ["no received_at", "received_at null"])
def test_a_missing_received_at_is_the_event_time_and_flagged(outcome: Outcome, name: str) -> None:
    row = outcome.row(name)
    assert (row["received_at"], row["received_at_missing"]) == (row["occurred_at"], True)
    assert outcome.row("plain")["received_at_missing"] is False


def test_late_is_more_than_24_hours(outcome: Outcome) -> None:
    late = {name for name in ACCEPTED if outcome.row(name)["is_late"]}
    assert late == {"exactly 30 days late", "a second more than 24 hours late"}
    assert outcome.total.late == 2


def test_only_declared_context_is_kept(outcome: Outcome) -> None:
    row = outcome.row("context beyond what is kept")
    assert row["platform"] == "web"
    assert not {"user_agent", "screen", "context", "consent"} & set(row)


def test_texts_arrive_as_they_were_sent(outcome: Outcome) -> None:
    assert outcome.row("escapes")["product_id"] == 'é𝄞"\\\n'
    assert outcome.row("empty strings")["brand"] == ""


def test_money_is_exact(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    lines = [
        VALID % f'"properties":{{"product_id":"p","price":{price}}}'
        for price in ("0.1", "0.2", "19.99", "123456789012.3456")
    ]
    shop.land("a.jsonl", lines)
    shop.ingest()
    wanted = [Decimal(t) for t in ("0.1", "0.2", "19.99", "123456789012.3456")]
    assert [row["price"] for row in shop.accepted()] == wanted


def test_an_event_lands_under_the_day_it_was_received(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [at("2026-02-28T23:59:59Z", "2026-03-01T00:30:00+01:00"), at("2026-02-28T23:00:00Z", ...)])
    assert {day.isoformat() for day in shop.ingest().touched_dates} == {"2026-02-28"}
    folders = {path.parent.name for path in shop.home.accepted.rglob("*.parquet")}
    assert folders == {"received_date=2026-02-28"}


def test_an_event_name_that_is_a_person_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text([event(SECRET)]))
    assert SECRET not in json.dumps(validate_file(path, RULES, threads=1).as_dict())


def test_a_second_denial_in_one_consent_object_is_heard(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    line = json.dumps(event()).replace('"analytics": true', '"analytics": true, "analytics": false')
    shop.land("a.jsonl", [line, line.replace("true, ", "false, ").replace('false, "pers', 'true, "pers')])
    assert shop.ingest().total.accepted == 0


def test_properties_of_every_type_and_none_at_all(tmp_path: Path) -> None:
    contracts = tmp_path / "contracts" / "tracking_plan"
    contracts.mkdir(parents=True)
    head = "version: 1-0-0\ndescription: d\npurpose: p\nconsent_category: analytics\nowner: a@b.c\nplatforms: [web]\n"
    (contracts / "ping.yaml").write_text("event: ping\n" + head)
    (contracts / "order.yaml").write_text(
        "event: order\n" + head + "properties:\n"
        "  group: {type: boolean, description: d, required: true}\n"
        '  select: {type: string, description: d, enum: ["it\'s", other]}\n'
        "  n: {type: integer, description: d, min: -3, max: 5}\n"
        "  maybe: {type: string, description: d, required: true, nullable: true}\n"
    )
    shop = Shop(tmp_path / "home", replace(RULES, plan=load_plan((PACKAGED, tmp_path / "contracts"))))
    good = {"group": False, "select": "it's", "n": -3, "maybe": None}
    lines = [event("ping", {}), event("ping", {"a": 1}), event("order", good), event("order", good | {"select": "its"})]
    lines += [event("order", good | {"group": 0}), event("order", {"group": True}), event("order", good | {"n": 6})]
    shop.land("a.jsonl", lines)
    shop.ingest()
    assert [(row["line_no"], row.get("group"), row.get("select")) for row in shop.accepted()] == [
        (1, None, None),
        (3, False, "it's"),
    ]
    assert shop.reasons() == {
        2: {("unknown_key", P + "a")},
        4: {("not_in_enum", P + "select")},
        5: {("wrong_type", P + "group")},
        6: {("missing_key", P + "maybe")},
        7: {("above_maximum", P + "n")},
    }


def test_an_empty_file_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert validate_file(tmp_path / "a.jsonl", RULES, threads=1).counts.rows_in == 0
    with pytest.raises(InputError, match="no such file"):
        validate_file(tmp_path / "b.jsonl", RULES, threads=1)
    with pytest.raises(InputError, match="it is a folder"):
        validate_file(tmp_path, RULES, threads=1)


def test_every_event_of_the_plan_can_be_accepted(tmp_path: Path) -> None:
    samples = {"string": "USD", "number": 1.5, "integer": 2, "money": 9.99, "boolean": True}
    lines = [
        event(name, {key: samples[prop.type] for key, prop in plan.properties.items()}, event_id=name)
        for name, plan in PLAN.events.items()
    ]
    shop = Shop(tmp_path)
    shop.land("a.jsonl", lines)
    shop.ingest()
    assert {row["event_id"] for row in shop.accepted()} == set(PLAN.events)
    for row in shop.accepted():
        assert row["plan_version"] == PLAN.events[row["event_id"]].version


@pytest.mark.parametrize("moment", ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-10:00"])
def test_a_time_outside_the_calendar_costs_one_line(tmp_path: Path, moment: str) -> None:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [at(moment, ...), event()])
    shop.ingest()
    assert shop.stages("a.jsonl") == {1: "quarantined", 2: "accepted"}
    assert shop.reasons() == {1: {("bad_timestamp", "$.timestamp")}}


def test_a_receipt_outside_the_calendar_costs_one_line(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [at(received="9999-12-31T23:59:59-10:00"), event()])
    result = shop.ingest()
    assert shop.reasons() == {1: {("bad_timestamp", "$.received_at")}}
    assert all(isinstance(day, date) for day in result.quarantined_dates | result.touched_dates)


def test_an_event_from_the_far_future_does_not_become_the_clock(tmp_path: Path) -> None:
    """One wrong clock of a sender without received_at once moved the whole run to its year."""
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [at("2199-01-01T00:00:00Z", ...), event()])
    assert shop.ingest().total.accepted == 1
    assert shop.reasons() == {1: {("future_timestamp", "$.timestamp")}}
