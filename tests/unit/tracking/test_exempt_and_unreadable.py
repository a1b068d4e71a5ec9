"""Events that the law exempts from consent, and lines whose consent nobody can read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import PLAN, RULES, Shop, event

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking import ingest as ingest_module
from zantara_pipeline.tracking import reader
from zantara_pipeline.tracking.lake_retention import Removed, enforce_lake
from zantara_pipeline.tracking.plan import Enforced, Exemption, PrivacyContract, Retention, TrackingPlan, load_plan
from zantara_pipeline.tracking.quarantine import kinds, payloads
from zantara_pipeline.tracking.replay import replay
from zantara_pipeline.tracking.restricted import purge_restricted
from zantara_pipeline.tracking.retention import enforce, overdue
from zantara_pipeline.tracking.sources import prepare

RULE = Exemption(event="page_timing", countries=("FR",), legal_reference="a guideline")
EXEMPTING = replace(RULES, plan=TrackingPlan(PLAN.events, PLAN.privacy.model_copy(update={"exemptions": (RULE,)})))
DENIED = {"analytics": False, "personalization": False}


def timing(consent: Any = ..., country: str | None = "FR", load_ms: Any = 12.5, **changes: Any) -> dict[str, Any]:
    return event(
        "page_timing",
        {"page": "/checkout", "load_ms": load_ms},
        context={"country": country, "platform": "web"},
        session_id="s-secret", device_id="d-secret", anonymous_id="a-secret",
        consent=consent,
        **changes,
    )  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, EXEMPTING)


def landed(shop: Shop, *lines: Any) -> tuple[int, ...]:
    """Accepted, exempt, suppressed, with unreadable consent, quarantined."""
    shop.land("a.jsonl", lines)
    shop.ingest()
    columns = "accepted, exempt, suppressed, consent_unreadable, quarantined"
    [counts] = shop.query(f"SELECT {columns} FROM ingested_files")
    return counts


def stored(shop: Shop, folder: Path) -> list[dict[str, Any]]:
    if not any(folder.rglob("*.parquet")):
        return []
    return (
        duckdb.sql(f"SELECT * FROM read_parquet('{folder}/**/*.parquet', union_by_name = true)").df().to_dict("records")
    )


def everything(home: Path) -> str:
    """Every value of every Parquet file below a home, decoded."""
    texts = []
    for path in home.rglob("*.parquet"):
        texts += [str(row) for row in duckdb.sql(f"FROM read_parquet('{path}')").fetchall()]
    return "\n".join(texts)


def test_who_was_not_asked_is_counted_where_the_event_is_exempt(shop: Shop) -> None:
    assert landed(shop, timing(), timing(consent=None, event_id="e-2"), timing(consent={}, event_id="e-3")) == (
        3,
        3,
        0,
        0,
        0,
    )
    rows = stored(shop, shop.home.exempt)
    assert [(row["consent_basis"], row["legal_reference"], row["load_ms"]) for row in rows] == [
        ("exempt", "a guideline", 12.5)
    ] * 3
    assert shop.accepted() == []


def test_exempt_rows_hold_no_identifier(shop: Shop) -> None:
    landed(shop, timing(user_id="u-secret"))
    assert "/checkout" in everything(shop.home.root)  # the control: decoding finds what is stored
    assert "secret" not in everything(shop.home.root)


@pytest.mark.parametrize(
    "line",
    [
        timing(consent=DENIED),
        timing(consent={"analytics": False}),
        timing(country="DE"),
        timing(country=None),
        event("session_started", {"entry_page": "/"}, context={"country": "FR"}, consent=...),
    ],
    ids=["denied", "denied for this category", "another country", "no country", "another event"],
)  # fmt: skip
def test_nobody_else_is_exempt(shop: Shop, line: dict[str, Any]) -> None:
    assert landed(shop, line) == (0, 0, 1, 0, 0)
    assert everything(shop.home.root) == ""


def test_who_denied_in_the_ledger_is_not_exempt_before_or_after(shop: Shop) -> None:
    shop.consent(("u-1", "analytics", "denied", "2026-03-09T00:00:00Z"))
    assert landed(shop, timing()) == (0, 0, 1, 0, 0)


def test_without_a_rule_nothing_is_exempt(tmp_path: Path) -> None:
    assert landed(Shop(tmp_path), timing()) == (0, 0, 1, 0, 0)


def test_an_exempt_line_that_fails_leaves_reasons_and_shape_only(shop: Shop) -> None:
    assert landed(shop, timing(load_ms="fast, says joe@example.com", user_id="u-secret")) == (0, 0, 0, 0, 1)
    [row] = shop.quarantined()
    assert row["payload_raw"] is None
    assert [reason["code"] for reason in row["reasons"]] == ["wrong_type"]
    assert "$.properties.load_ms varchar" in row["shape"] and "$.properties.page varchar" in row["shape"]
    assert "joe" not in everything(shop.home.root) and "secret" not in everything(shop.home.root)


def test_a_line_without_payload_can_be_shown_and_is_not_replayed(shop: Shop) -> None:
    landed(shop, timing(load_ms="fast"))
    [kind] = kinds(shop.home)
    assert list(payloads(shop.home, kind.fingerprint, 5)) == []
    assert replay(shop.home, shop.ledger, EXEMPTING).rows == 0


UNREADABLE = {
    "a text": "yes",
    "a list": ["analytics"],
    "true by itself": True,
    "a text where yes or no belongs": {"analytics": "true"},
    "a number where yes or no belongs": {"analytics": 1, "personalization": True},
    "an object where yes or no belongs": {"analytics": {"granted": True}},
}


@pytest.mark.parametrize("consent", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_consent_is_kept_apart_and_used_for_nothing(shop: Shop, consent: Any) -> None:
    line = timing(consent=consent)  # in an exempt country: who said something is not unasked
    assert landed(shop, line) == (0, 0, 1, 1, 0)
    [row] = stored(shop, shop.home.restricted / "consent_unreadable")
    assert json.loads(row["line"]) == line
    assert not any(shop.home.lake.rglob("*.parquet"))


@pytest.mark.parametrize(
    "twice",
    ['"consent":{"analytics":true,"analytics":false}', '"consent":{"analytics":true},"consent":{"analytics":false}'],
)
def test_consent_said_twice_is_unreadable(shop: Shop, twice: str) -> None:
    line = json.dumps(timing())[:-1] + f", {twice}}}"
    assert landed(shop, line) == (0, 0, 1, 1, 0)


@pytest.mark.parametrize("consent", [..., None, {}, {"analytics": None}, DENIED], ids=str)
def test_consent_that_says_nothing_or_no_is_not_kept(tmp_path: Path, consent: Any) -> None:
    shop = Shop(tmp_path)
    assert landed(shop, timing(consent=consent)) == (0, 0, 1, 0, 0)
    assert everything(shop.home.root) == ""


def test_unreadable_lines_expire(shop: Shop) -> None:
    landed(shop, timing(consent="yes"), event(event_id="e-2"))
    received = datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC)
    assert purge_restricted(shop.home, received + timedelta(days=7), 7) == 0
    assert purge_restricted(shop.home, received + timedelta(days=7, seconds=1), 7) == 1
    assert stored(shop, shop.home.restricted) == []


def test_a_ledger_of_an_earlier_version_gets_the_new_columns(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with shop.ledger.transaction() as db:
        for name in ("exempt", "consent_unreadable"):
            db.execute(f"ALTER TABLE ingested_files DROP COLUMN {name}")
    again = Shop(tmp_path)
    assert landed(again, event()) == (1, 0, 0, 0, 0)


def overlay(folder: Path, rules: str) -> tuple[Path, Path]:
    text = (PACKAGED / "privacy.yaml").read_text().replace("exemptions: []", f"exemptions:\n{rules}")
    (folder / "privacy.yaml").write_text(text)
    return PACKAGED, folder


def test_exemptions_are_read_from_the_contract(tmp_path: Path) -> None:
    plan = load_plan(overlay(tmp_path, "  - {event: page_timing, countries: [FR, IT], legal_reference: x}\n"))
    assert plan.privacy.exemptions[0].countries == ("FR", "IT")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("  - {event: page_timings, countries: [FR], legal_reference: x}\n", "no event 'page_timings'"),
        ("  - {event: page_timing, countries: [France], legal_reference: x}\n", "countries"),
        ("  - {event: page_timing, countries: [], legal_reference: x}\n", "countries"),
        ("  - {event: page_timing, countries: [FR]}\n", "legal_reference"),
        ("  - {event: page_timing, countries: [FR, FR], legal_reference: x}\n", "two exemptions"),
    ],
)
def test_a_wrong_exemption_is_one_line_with_its_place(tmp_path: Path, rules: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        load_plan(overlay(tmp_path, rules))
    assert "privacy.yaml:" in str(error.value)


def test_the_packaged_contract_exempts_nothing() -> None:
    assert PrivacyContract.model_validate(PLAN.privacy.model_dump()).exemptions == ()


def test_what_was_plainly_denied_is_not_kept_beside_something_unreadable(shop: Shop) -> None:
    assert landed(shop, timing(consent={"analytics": False, "personalization": "x"})) == (0, 0, 1, 0, 0)
    assert everything(shop.home.root) == ""


def test_unreadable_consent_of_somebody_who_denied_in_the_ledger_is_not_kept(shop: Shop) -> None:
    shop.consent(("u-1", "analytics", "denied", "2026-01-01T00:00:00Z"))
    assert landed(shop, timing(consent={"analytics": "yes"})) == (0, 0, 1, 0, 0)
    assert everything(shop.home.root) == ""


@pytest.mark.parametrize("value", [True, False, None, "yes"])
@pytest.mark.parametrize("more", [{}, {"x": "plain no more: \\"}], ids=["plain", "read by the engine"])
def test_who_was_asked_about_a_purpose_that_nobody_declared_was_asked(
    shop: Shop, value: Any, more: dict[str, Any]
) -> None:
    asked = timing(consent={"marketing": value}) | {"context": {"country": "FR"} | more}
    assert landed(shop, asked, timing(consent={}, event_id="e-2")) == (1, 1, 1, 0, 0)


def test_who_denies_with_one_event_is_not_exempt_with_the_next(shop: Shop) -> None:
    assert landed(shop, timing(consent=DENIED), timing(event_id="e-2")) == (0, 0, 2, 0, 0)


def test_nothing_is_learnt_of_consent_said_twice(shop: Shop) -> None:
    line = json.dumps(event())[:-1] + ', "consent":{"analytics":false}}'
    assert landed(shop, line) == (0, 0, 1, 1, 0)
    assert shop.query("SELECT * FROM consent") == [] and shop.query("SELECT * FROM consent_runs") == []


def test_an_object_in_place_of_an_id_is_not_kept_as_one(shop: Shop) -> None:
    assert landed(shop, timing(event_id={"email": "joe@example.com"})) == (0, 0, 0, 0, 1)
    [row] = shop.quarantined()
    assert row["event_id"] is None and "joe" not in everything(shop.home.root)


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_nesting_deeper_than_python_reads_is_judged_like_any_other(shop: Shop, depth: int) -> None:
    def deep(inner: str) -> str:
        return json.dumps(event())[:-1] + ',"context":{"x":' + "[" * depth + inner + "]" * depth + "}}"

    shop.land("a.jsonl", [deep('"NaN"'), deep("NaN"), event(event_id="e-2")])
    shop.ingest()
    assert shop.query("SELECT rows_in, accepted, unparsable FROM ingested_files") == [(3, 2, 1)]


def test_a_replayed_line_that_is_exempt_now_is_counted_as_exempt(shop: Shop) -> None:
    """Its category changed since, and its person said nothing of the new one."""
    assert landed(shop, timing(consent={"analytics": True}, load_ms="fast")) == (0, 0, 0, 0, 1)
    before = PLAN.events["page_timing"]
    text_now = {"load_ms": before.properties["load_ms"].model_copy(update={"type": "string", "min": None, "max": None})}
    after = before.model_copy(
        update={"consent_category": "personalization", "properties": before.properties | text_now}
    )
    plan = replace(EXEMPTING.plan, events=PLAN.events | {"page_timing": after})
    assert replay(shop.home, shop.ledger, replace(EXEMPTING, plan=plan)).accepted == 1
    assert shop.query("SELECT accepted, exempt, quarantined FROM ingested_files") == [(1, 1, 0)]
    assert [row["load_ms"] for row in stored(shop, shop.home.exempt)] == ["fast"]


# Retention of exempt rows

DAY = timedelta(days=1)
FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


def keeping(days: int, values: int | None = None, *, enforced: bool = True) -> TrackingPlan:
    """The exempting plan with retention_days of page_timing, and of the property that it may do without."""
    timed = PLAN.events["page_timing"]
    changes = {"retention_days": values, "required": False, "nullable": True}
    load_ms = timed.properties["load_ms"].model_copy(update=changes)
    timed = timed.model_copy(update={"retention_days": days, "properties": timed.properties | {"load_ms": load_ms}})
    wanted = Retention(quarantine=Enforced(enforce=True), accepted=Enforced(enforce=enforced))
    privacy = EXEMPTING.plan.privacy.model_copy(update={"retention": wanted})
    return TrackingPlan(PLAN.events | {"page_timing": timed}, privacy)


def timed_on(*days: int) -> list[dict[str, Any]]:
    """An exempt line and one with consent on each of these days."""
    found = []
    for day in days:
        when = f"{FIRST + day * DAY:%Y-%m-%dT%H:%M:%SZ}"
        for user, consent in (("u-unasked", ...), ("u-asked", {"analytics": True})):
            found.append(timing(consent, event_id=f"{day}-{user}", user_id=user, timestamp=when, received_at=when))
    return found


def exempt_days(shop: Shop) -> list[str]:
    return sorted(path.parent.name.partition("=")[2] for path in shop.home.exempt.glob("*/*/*.parquet"))


def test_exempt_days_go_with_those_of_the_lake_one_by_one(shop: Shop) -> None:
    landed(shop, *timed_on(0, 1, 5))
    plan = keeping(10)
    assert enforce_lake(shop.home, shop.ledger, plan, MIDNIGHT + 10 * DAY - timedelta(seconds=1)) == Removed()
    assert enforce_lake(shop.home, shop.ledger, plan, MIDNIGHT + 10 * DAY) == Removed(days=2, rows=2)
    assert exempt_days(shop) == ["2026-03-02", "2026-03-06"]
    assert not (shop.home.exempt / "event=page_timing" / "received_date=2026-03-01").exists()
    assert enforce_lake(shop.home, shop.ledger, plan, MIDNIGHT + 99 * DAY) == Removed(days=4, rows=4)
    assert enforce_lake(shop.home, shop.ledger, plan, MIDNIGHT + 99 * DAY) == Removed()
    assert exempt_days(shop) == [] and shop.accepted() == []
    for table in ("expired_rows", "expired_exempt_rows"):
        rows = shop.query(f"SELECT event, received_date, rows FROM {table} ORDER BY 2")
        assert rows == [("page_timing", f"2026-03-0{day}", 1) for day in (1, 2, 6)]


def test_exempt_days_over_their_time_are_told_and_kept_until_somebody_decides(shop: Shop) -> None:
    landed(shop, *timed_on(0, 1, 5))
    for enforced in (False, True):
        told = overdue(shop.home, shop.ledger, keeping(10, enforced=enforced), MIDNIGHT + 11 * DAY)
        assert [(part.store, part.event, part.enforced, part.rows, part.days) for part in told] == [
            ("accepted", "page_timing", enforced, 2, 2), ("exempt", "page_timing", enforced, 2, 2),
        ]  # fmt: skip
    done = enforce(shop.home, shop.ledger, keeping(10, enforced=False), MIDNIGHT + 11 * DAY, datetime.now(UTC))
    assert (done.days_kept, len(exempt_days(shop))) == (4, 3)
    assert shop.query("SELECT * FROM expired_exempt_rows") == []


def test_exempt_values_become_null_after_their_own_days(shop: Shop) -> None:
    landed(shop, *timed_on(0, 5))
    assert enforce_lake(shop.home, shop.ledger, keeping(100, 3), MIDNIGHT + 4 * DAY) == Removed(days_with_values=2)
    rows = stored(shop, shop.home.exempt)
    assert [(f"{row['received_at']:%d}", str(row["load_ms"])) for row in rows] == [("01", "nan"), ("06", "12.5")]
    assert enforce_lake(shop.home, shop.ledger, keeping(100, 3), MIDNIGHT + 4 * DAY) == Removed()


def test_exempt_events_can_be_counted_and_have_nothing_that_names_anybody(shop: Shop) -> None:
    """The relation that models of counts read, before and after there are any; and the model itself."""
    model = Path(__file__).resolve().parents[3] / "dbt_project/models/ops/audience_counts.sql"
    count = model.read_text(encoding="utf-8").replace("{{ source('exempt', 'exempt_events') }}", "lake.exempt_events")
    con = duckdb.connect()
    told = {"build": "b", "as_of": FIRST + DAY, "max_lateness_days": 30}
    prepare(con, shop.home, shop.ledger, EXEMPTING.plan, **told)
    assert con.execute(count).fetchall() == []
    lines = [timing(None, event_id="e-1"), timing(None, event_id="e-2"), timing(None, "DE", event_id="e-3")]
    assert landed(shop, *lines)[:2] == (2, 2)
    prepare(con, shop.home, shop.ledger, EXEMPTING.plan, **told)
    [(event_name, _, *rest)] = con.execute(count).fetchall()
    assert (event_name, *rest) == ("page_timing", "FR", "web", "a guideline", 2)
    columns = {row[0] for row in con.execute("DESCRIBE lake.exempt_events").fetchall()}
    assert columns == {"event", "received_date", "country", "platform", "legal_reference", "source", "line_no"}
    con.close()


def test_staging_forgets_no_day_because_exempt_rows_of_it_went(shop: Shop) -> None:
    """Only the exempt store holds an old day: accepted rows of that event and day would have to stay in every table."""
    landed(shop, *timed_on(0)[:1], *timed_on(50))
    enforce_lake(shop.home, shop.ledger, keeping(10, 5), MIDNIGHT + 20 * DAY)
    con = duckdb.connect()
    prepare(con, shop.home, shop.ledger, keeping(10), build="b", as_of=FIRST + 50 * DAY, max_lateness_days=30)
    assert con.execute("FROM state.removed_partitions").fetchall() == []
    assert con.execute("SELECT event, rows FROM state.expired_exempt_rows").fetchall() == [("page_timing", 1)]
    con.close()


def in_small_batches(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reader, "CHUNK_BYTES", 300)
    patch.setattr(ingest_module, "BATCH_BYTES", 1)


@pytest.mark.parametrize("same", ["user_id", "anonymous_id", "device_id"])
def test_who_denies_in_a_later_batch_of_the_commit_is_not_exempt(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, same: str
) -> None:
    in_small_batches(monkeypatch)
    ids = dict.fromkeys(("user_id", "anonymous_id", "device_id"), ...) | {same: "one"}
    before = [timing(event_id=f"e-{n}") | ids for n in range(4)]
    others = [timing(event_id=f"o-{n}", user_id=f"u-{n}") for n in range(3)]
    objecting = event("session_started", {"entry_page": "/"}, consent=DENIED, **ids)
    lines = [{key: value for key, value in line.items() if value is not ...} for line in [*before, *others, objecting]]
    lines = [event(event_id="a-1"), *lines, event(event_id="a-2")]
    assert landed(shop, *lines) == (5, 3, 5, 0, 0)
    assert [row["event_id"] for row in shop.accepted()] == ["a-1", "a-2"]
    assert sorted(row["event_id"] for row in stored(shop, shop.home.exempt)) == ["o-0", "o-1", "o-2"]


@pytest.mark.parametrize("same", ["anonymous_id", "device_id"])
def test_who_denied_with_an_earlier_file_and_no_user_is_not_exempt(shop: Shop, same: str) -> None:
    ids = {"user_id": None} | {same: "one"}
    shop.land("a.jsonl", [event(consent=DENIED, **ids), event(event_id="e-2", **(ids | {same: "two"}))])
    shop.ingest()
    shop.land("b.jsonl", [timing() | ids, timing(event_id="e-3") | ids | {same: "two"}])
    shop.ingest()
    assert [row["event_id"] for row in stored(shop, shop.home.exempt)] == ["e-3"]
    assert shop.query("SELECT kind, id, purpose FROM consent_objections") == [(same, "one", "analytics")]


def test_ids_of_those_who_deny_are_not_remembered_where_nothing_is_exempt(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert landed(shop, timing(consent=DENIED)) == (0, 0, 1, 0, 0)
    assert shop.query("SELECT * FROM consent_objections") == []


@pytest.mark.parametrize(
    "twice",
    [
        ('"country": "FR"', '"country": "FR", "country": "DE"'),
        ('"country": "FR"', '"country": "FR", "country": "FR"'),
        ('"context": {', '"context": {"country": "FR"}, "context": {'),
        ('"user_id": "u-1"', '"user_id": "u-1", "user_id": "u-2"'),
        ('"device_id": "d-secret"', '"device_id": "d-secret", "device_id": "d-2"'),
    ],
    ids=["another country", "the same country", "context", "user", "device"],
)
def test_a_line_that_names_a_key_twice_is_not_exempt(shop: Shop, twice: tuple[str, str]) -> None:
    line = json.dumps(timing()).replace(*twice)
    assert line != json.dumps(timing())
    assert landed(shop, line) == (0, 0, 1, 0, 0)
    assert everything(shop.home.root) == ""


def test_lines_that_wait_leave_the_others_of_their_batch_as_they_are(shop: Shop) -> None:
    """One batch: waiting lines stand before, between and after lines of the same event that are taken at once."""
    lines = [timing(event_id="w-0", user_id="u-0")]
    for n in range(1, 4):
        lines += [
            timing({"analytics": True}, event_id=f"a-{n}", user_id=f"v-{n}"),
            timing(event_id=f"w-{n}", user_id=f"u-{n}"),
        ]
    assert landed(shop, *lines, event(event_id="d-1", user_id="u-2", consent=DENIED)) == (6, 3, 2, 0, 0)
    assert [row["event_id"] for row in shop.accepted()] == ["a-1", "a-2", "a-3"]
    assert sorted(row["event_id"] for row in stored(shop, shop.home.exempt)) == ["w-0", "w-1", "w-3"]
