"""Direct identifiers: nothing of a home holds one, people still join, and replay gives what would have been at first."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from event_lines import BOTH, RULES, Shop, event
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.orchestration.preflight import check_contracts
from zantara_pipeline.privacy.keyed_hash import Key, Keyring
from zantara_pipeline.settings import load_settings
from zantara_pipeline.tracking.audit import audit_accepted
from zantara_pipeline.tracking.fixes import Fix, Fixes
from zantara_pipeline.tracking.lake_files import accepted_sql
from zantara_pipeline.tracking.payloads import Payloads
from zantara_pipeline.tracking.plan import TrackingPlan, load_plan
from zantara_pipeline.tracking.plan_diff import rejected_on_last_day
from zantara_pipeline.tracking.quarantine import kinds
from zantara_pipeline.tracking.quarantine_erasure import erase_quarantined
from zantara_pipeline.tracking.replay import replay
from zantara_pipeline.tracking.sources import prepare
from zantara_pipeline.tracking.validate import validate_file
from zantara_pipeline.tracking.verdict import Rules

ONE, TWO = b"1" * 32, b"2" * 32
RING = Keyring((Key("k1", ONE),))
JOE = "joe.bloggs@example.com"
WRONG = "joe bloggs at example"
SIGNED_UP: dict[str, Any] = {
    "event": "signed_up", "version": "1-0-0", "consent_category": "analytics",
    "properties": {
        "email": {"type": "string", "required": True, "pii": "direct", "pattern": "^[^@ ]+@[^@ ]+$", "max_length": 60},
        "phone": {"type": "string", "pii": "direct"},
        "plan_name": {"type": "string", "enum": ["free", "paid"]},
        "amount": {"type": "money"},
    },
}  # fmt: skip


def token(value: str, *secrets: bytes) -> str:
    """Of one key, or folded over several; by Python's hmac alone."""
    for secret in secrets or (ONE,):
        value = hmac.new(secret, value.encode(), hashlib.sha256).hexdigest()
    return f"hashed:k{len(secrets or (ONE,))}:{value}"


def plan_with(folder: Path, version: str = "1-0-0", **changes: dict[str, Any]) -> TrackingPlan:
    """The packaged plan and signed_up; changes: keys of its properties."""
    properties = {name: prop | changes.get(name, {}) for name, prop in SIGNED_UP["properties"].items()}
    (folder / "tracking_plan").mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(SIGNED_UP | {"properties": properties, "version": version})
    (folder / "tracking_plan" / "signed_up.yaml").write_text(text)
    return load_plan([PACKAGED, folder])


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return replace(RULES, plan=plan_with(tmp_path / "contracts"), keyring=RING)


@pytest.fixture
def shop(tmp_path: Path, rules: Rules) -> Shop:
    return Shop(tmp_path / "home", rules)


def signed(email: Any = JOE, number: int = 1, **properties: Any) -> dict[str, Any]:
    whole = {"email": email} | properties
    return event("signed_up", {k: v for k, v in whole.items() if v is not ...}, event_id=f"e-{number}")


def everything_stored(home: Path, *but: Path) -> Iterator[str]:
    """The values of every Parquet, SQLite and DuckDB file below a home, decoded, and all other files as text."""
    for path in sorted(p for p in home.rglob("*") if p.is_file() and not any(p.is_relative_to(b) for b in but)):
        if path.suffix == ".parquet":
            con = duckdb.connect()
            yield str(con.execute(f"FROM read_parquet('{path}', hive_partitioning = false)").fetchall())
            con.close()
        elif path.suffix == ".db":
            db = sqlite3.connect(path)
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            yield from (str(db.execute(f"SELECT * FROM {name}").fetchall()) for name in tables)
            db.close()
        else:
            yield path.read_bytes().decode("latin-1")


def stands_in(shop: Shop, value: str) -> bool:
    """Whether a home holds a value anywhere but where it landed."""
    return any(value in text for text in everything_stored(shop.home.root, shop.home.landing))


MANY = [
    signed(number=1),
    signed(number=2, plan_name="silver"),  # fails, but not for its e-mail
    signed(WRONG, 3),
    signed(number=4, colour="red"),
    signed(number=5) | {"email": JOE},  # at the wrong place too
    event("signed_up", {"eMail": JOE}, event_id="e-6"),
    event("signed_out", {"email": JOE}, event_id="e-7"),  # nobody declared the event
    event("product_view", {"product_id": "p", "e_mail": JOE}, event_id="e-8"),
    event("signed_up", [JOE], event_id="e-9"),
    event("signed_up", json.dumps({"email": JOE}), event_id="e-10"),
    signed({"address": JOE}, 11),
    signed([JOE, JOE], 12),
    signed(number=13, received_at=...) | {"timestamp": "yesterday"},
    json.dumps(signed(number=14)).replace('"email":', '"email": "joe.bloggs@example.com", "email":'),
    json.dumps(signed(number=15)).replace("joe.", "\\u006aoe\\u002e"),
    json.dumps(signed(number=16, plan_name="x")).replace('"email"', '"\\u0065mail"'),
    event("signed_up", {"email": JOE}, event_id="e-17", context={"email": JOE, "platform": "web"}),
    event("signed_up", {"email": JOE, "x": 1}, event_id="e-18", context={"deep": [{"email": JOE}], "platform": "web"}),
    signed(JOE, 19) | {"consent": {"analytics": False}},
]  # fmt: skip


def test_an_e_mail_address_that_landed_is_nowhere_in_the_home(shop: Shop) -> None:
    shop.land("a.jsonl", MANY)
    assert any(JOE in text for text in everything_stored(shop.home.landing))
    counts = shop.ingest().total
    assert (counts.rows_in, counts.accepted, counts.suppressed, counts.unparsable) == (19, 3, 1, 0)
    assert not stands_in(shop, JOE) and not stands_in(shop, WRONG) and not stands_in(shop, "\\u006aoe")
    assert stands_in(shop, token(JOE)) and len(shop.quarantined()) == 15


def test_lines_whose_consent_nobody_can_read_are_kept_without_identifiers(shop: Shop) -> None:
    lines = [signed() | {"consent": "yes"}, event("gone", {"email": JOE}, consent=["analytics"], event_id="e-2")]
    shop.land("a.jsonl", [*lines, signed("ann@example.com", 3)])
    assert shop.ingest().total.consent_unreadable == 2 and not stands_in(shop, JOE)
    stored = duckdb.sql(f"SELECT line FROM '{shop.home.restricted}/consent_unreadable/*.parquet' ORDER BY line_no")
    assert [json.loads(row[0]) for row in stored.fetchall()] == [
        line | {"properties": {"email": token(JOE)}} for line in lines
    ]


def test_the_same_lines_are_found_in_the_home_when_nothing_is_declared_direct(tmp_path: Path) -> None:
    """The control: what the test above looks for can be found, in the lake and in the quarantine."""
    plan = plan_with(tmp_path / "contracts", email={"pii": "none"}, phone={"pii": "none"})
    shop = Shop(tmp_path / "home", replace(RULES, plan=plan))
    shop.land("a.jsonl", MANY)
    shop.ingest()
    assert stands_in(shop, JOE) and stands_in(shop, WRONG)
    assert [row["email"] for row in shop.accepted()] == [JOE] * 3
    assert sum(JOE in row["payload_raw"] for row in shop.quarantined()) > 10


def test_two_events_of_one_address_join_and_other_values_and_keys_do_not(shop: Shop, tmp_path: Path) -> None:
    shop.land("a.jsonl", [signed(number=1, phone="49"), signed(number=2), signed("ann@example.com", 3), signed(number=4, phone=None)])  # fmt: skip
    shop.ingest()
    emails = [row["email"] for row in shop.accepted()]
    assert emails == [token(JOE), token(JOE), token("ann@example.com"), token(JOE)]
    assert [row["phone"] for row in shop.accepted()] == [token("49"), None, None, None]
    other = Shop(tmp_path / "other", replace(shop.rules, keyring=Keyring((Key("k1", TWO),))))
    other.land("a.jsonl", [signed(number=1)])
    other.ingest()
    assert other.accepted()[0]["email"] == token(JOE, TWO) != token(JOE)


def test_lines_read_by_the_fast_pass_and_by_the_engine_give_one_token(shop: Shop) -> None:
    odd = json.dumps(signed("jöe@example.com", 2)).replace("{", "{ ", 1)
    assert "\\u00f6" in odd
    shop.land("a.jsonl", [signed("jöe@example.com", 1), odd])
    shop.ingest()
    assert {row["email"] for row in shop.accepted()} == {token("jöe@example.com")} and len(shop.accepted()) == 2


def test_checks_are_judged_on_the_value_and_reasons_never_repeat_it(shop: Shop) -> None:
    shop.land("a.jsonl", [signed(WRONG, 1), signed(f"{'x' * 60}@y", 2), signed(7, 3), signed(..., 4)])
    shop.ingest()
    path = "$.properties.email"
    assert shop.reasons() == {
        1: {("pattern_mismatch", path)}, 2: {("too_long", path)}, 3: {("wrong_type", path)}, 4: {("missing_key", path)},
    }  # fmt: skip
    payloads = [json.loads(row["payload_raw"])["properties"].get("email", "") for row in shop.quarantined()]
    assert [text.split(":")[0] for text in payloads] == ["unchecked", "unchecked", "unchecked", ""]


def test_what_looks_like_a_token_in_a_landed_line_is_hashed_as_a_value(shop: Shop, rules: Rules) -> None:
    forged = token("somebody else")
    shop.land("a.jsonl", [signed(number=1, phone=forged), signed(number=2, phone=forged, plan_name="x")])
    shop.ingest()
    assert shop.accepted()[0]["phone"] == token(forged)
    assert json.loads(shop.quarantined()[0]["payload_raw"])["properties"]["phone"] == token(forged)


FAULTS = [
    signed(number=1, plan_name="silver", amount=12.345678901234567),
    signed(number=2, phone="+49 170", seats=3),
    json.dumps(signed("jöe@example.com", 3, amount=1, plan_name="silver"), ensure_ascii=False).replace("1,", "1.10,"),
    signed("ann@example.com", 4, plan_name="silver", phone=None),
]


def mended(folder: Path) -> TrackingPlan:
    plan = plan_with(folder, plan_name={"enum": ["free", "paid", "silver"]})
    path = folder / "tracking_plan" / "signed_up.yaml"
    data = yaml.safe_load(path.read_text())
    data["properties"]["seats"] = {"type": "integer"}
    path.write_text(yaml.safe_dump(data))
    return load_plan([PACKAGED, folder]) if plan else plan


def test_replay_of_a_line_whose_other_fault_was_mended_gives_the_row_of_a_plan_that_was_never_wrong(
    tmp_path: Path, shop: Shop, rules: Rules
) -> None:
    right = replace(rules, plan=mended(tmp_path / "mended"))
    never = Shop(tmp_path / "never", right)
    for each in (shop, never):
        each.land("a.jsonl", FAULTS)
        each.ingest()
    assert len(shop.quarantined()) == 4 and len(never.accepted()) == 4
    assert replay(shop.home, shop.ledger, right).accepted == 4
    assert shop.accepted() == never.accepted() and {row["email"] for row in shop.accepted()} > {token(JOE)}
    assert not stands_in(shop, JOE) and shop.quarantined() == []


def test_a_value_that_failed_stays_failed_with_its_reason_and_a_second_replay_writes_nothing(
    tmp_path: Path, shop: Shop, rules: Rules
) -> None:
    shop.land("a.jsonl", [signed(WRONG, 1), signed(7, 2), signed([JOE], 3, plan_name="silver"), signed({"a": JOE}, 4)])
    shop.ingest()
    before = shop.reasons()
    assert not replay(shop.home, shop.ledger, rules).written and shop.reasons() == before
    loose = plan_with(tmp_path / "loose", email={"pattern": None, "max_length": None}, plan_name={"enum": None})
    assert replay(shop.home, shop.ledger, replace(rules, plan=loose)).written  # `silver` is right now
    path = "$.properties.email"
    assert shop.reasons() == {
        1: {("pattern_mismatch", path)}, 2: {("wrong_type", path)}, 3: {("wrong_type", path)}, 4: {("wrong_type", path)},
    }  # fmt: skip
    assert not replay(shop.home, shop.ledger, replace(rules, plan=loose)).written and shop.accepted() == []


def test_a_rule_that_was_too_narrow_is_said_to_hold_for_identifiers_that_came_before(
    tmp_path: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their values are gone: show, diff and replay say so, and a fix that drops them is the way out."""
    tight = replace(rules, plan=plan_with(tmp_path / "contracts", phone={"max_length": 5}))
    shop = Shop(tmp_path / "home", tight)
    shop.land("a.jsonl", [signed(number=n, phone=f"+49 170 {n}") for n in (1, 2)] + [signed(number=3, amount="x")])
    shop.ingest()
    plan_with(tmp_path / "contracts")  # mended
    for name, value in (
        ("HOME", shop.home.root),
        ("CONTRACTS", tmp_path / "contracts"),
        ("PII_KEYS", f"k1={ONE.hex()}"),
    ):
        monkeypatch.setenv(f"ZANTARA_{name}", str(value))

    def say(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["quarantine", *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    long, wrong = sorted(kinds(shop.home), key=lambda kind: kind.reasons)
    assert (long.reasons, wrong.reasons) == ("too_long $.properties.phone", "wrong_type $.properties.amount")
    told = "  2 of them hold a direct identifier that failed and was hashed then: no change of the plan lets such a line pass;"
    assert told in say("show", long.fingerprint) and "hashed" not in say("show", wrong.fingerprint)
    assert f"3 lines judged again, 3 with the same verdict\n{told}" in say("diff")
    assert f"2 fail again, 0 have no consent any more and would be dropped\n{told}" in say(
        "replay", long.fingerprint, "--dry-run"
    )
    changes = {change["fingerprint"]: change["hashed"] for change in json.loads(say("diff", "--json"))}
    assert changes == {long.fingerprint: 2, wrong.fingerprint: 0}
    assert json.loads(say("show", long.fingerprint, "--json"))["hashed"] == 2
    fixes = tmp_path / "fixes.yaml"
    fixes.write_text(
        "version: 1-0-0\nowner: a@example.com\nreason: too narrow\nfixes: [{event: signed_up, drop: [phone]}]\n"
    )
    assert "hashed" not in say("diff", "--fixes", str(fixes))
    assert "2 are accepted, 1 fail again" in say("replay", "--fixes", str(fixes))


def test_fixes_move_and_drop_hashed_values(shop: Shop, rules: Rules) -> None:
    shop.land("a.jsonl", [event("signed_up", {"eMail": JOE}, event_id="e-1"), signed(JOE, 2, phone=7),
                          event("signed_up", {"eMail": WRONG}, event_id="e-3")])  # fmt: skip
    shop.ingest()
    fix = Fix(event="signed_up", rename={"eMail": "email"}, drop=("phone",))
    fixes = Fixes(version="1-0-0", owner="a@example.com", reason="misspelt", fixes=(fix,))
    assert replay(shop.home, shop.ledger, rules, fixes=fixes).accepted == 2
    assert [row["email"] for row in shop.accepted()] == [token(JOE)] * 2
    assert shop.reasons() == {3: {("unchecked_identifier", "$.properties.email")}}


def test_an_event_that_is_declared_after_its_lines_came_is_accepted_as_if_it_had_been_before(
    tmp_path: Path, rules: Rules
) -> None:
    """Another event's e-mail told that the values are identifiers."""
    text = yaml.safe_dump(SIGNED_UP | {"event": "signed_out"})
    plan_with(tmp_path / "later")
    (tmp_path / "later" / "tracking_plan" / "signed_out.yaml").write_text(text)
    later = replace(rules, plan=load_plan([PACKAGED, tmp_path / "later"]))
    shop, never = Shop(tmp_path / "home", rules), Shop(tmp_path / "never", later)
    for each in (shop, never):
        each.land("a.jsonl", [event("signed_out", {"email": JOE, "amount": 1.5}, event_id="e-1")])
        each.ingest()
    assert shop.reasons() == {1: {("unknown_event", "$.event")}}
    replay(shop.home, shop.ledger, later)
    assert shop.accepted() == never.accepted() != []


def test_lines_that_were_quarantined_before_the_property_was_direct_are_hashed_by_a_replay(
    tmp_path: Path, rules: Rules
) -> None:
    plain = plan_with(tmp_path / "plain", email={"pii": "none"}, phone={"pii": "none"})
    shop = Shop(tmp_path / "home", replace(RULES, plan=plain))
    shop.land("a.jsonl", [signed(number=1, plan_name="silver"), signed(WRONG, 2), signed(number=3, plan_name="gold")])
    shop.ingest()
    assert stands_in(shop, JOE) and stands_in(shop, WRONG)
    right = replace(rules, plan=plan_with(tmp_path / "right", plan_name={"enum": ["silver"]}))
    assert replay(shop.home, shop.ledger, right).accepted == 1
    assert shop.accepted()[0]["email"] == token(JOE) and not stands_in(shop, JOE) and not stands_in(shop, WRONG)


def test_without_a_key_nothing_is_written_and_one_line_names_file_and_line(
    tmp_path: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Shop(tmp_path / "bare", replace(rules, keyring=None))
    bare.land("a.jsonl", [signed()])
    with pytest.raises(InputError, match="'email' is a direct identifier"):
        bare.ingest()
    with pytest.raises(InputError, match="no key is set"):
        accepted_sql("signed_up", bare.rules, None)
    assert bare.query("SELECT count(*) FROM ingested_files") == [(0,)] and not list(bare.home.lake.rglob("*.parquet"))
    for name in ("ZANTARA_PII_KEYS", "ZANTARA_PII_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    contracts, home = tmp_path / "contracts", tmp_path / "fresh"
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(contracts))
    monkeypatch.setenv("ZANTARA_HOME", str(home))
    with pytest.raises(InputError) as caught:
        check_contracts(load_settings())
    file = contracts / "tracking_plan" / "signed_up.yaml"
    number = 1 + next(n for n, line in enumerate(file.read_text().splitlines()) if "pii: direct" in line)
    assert str(caught.value).startswith(f"{file}:{number}: 'email' is a direct identifier, which is stored as a keyed")
    assert "set ZANTARA_PII_KEYS_FILE" in str(caught.value) and "\n" not in str(caught.value)
    for verb in ("replay", "diff"):
        error = CliRunner().invoke(app, ["quarantine", verb]).exception
        assert isinstance(error, InputError) and str(error) == str(caught.value)
    monkeypatch.setenv("ZANTARA_PII_KEYS", f"k1={ONE.hex()}")
    check_contracts(load_settings())


def test_a_file_can_be_judged_without_a_key_because_nothing_of_it_is_kept(tmp_path: Path, rules: Rules) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in (signed(), signed(WRONG, 2))))
    verdict = validate_file(file, replace(rules, keyring=None), threads=1)
    assert (verdict.counts.accepted, verdict.counts.quarantined) == (1, 1) and WRONG not in str(verdict)


@pytest.mark.parametrize("keys", [(("k1", TWO),), (("k2", TWO), ("k1", ONE)), (("k2", TWO),)])
def test_other_keys_than_those_of_the_home_are_refused_before_anything_is_taken(
    shop: Shop, rules: Rules, keys: tuple[tuple[str, bytes], ...]
) -> None:
    shop.land("a.jsonl", [signed()])
    shop.ingest()
    shop.rules = replace(rules, keyring=Keyring(tuple(Key(*key) for key in keys)))
    shop.land("b.jsonl", [signed(number=2)])
    with pytest.raises(InputError, match=r"key 1 of this home is 'k1'.*give the old keys back"):
        shop.ingest()
    assert len(shop.accepted()) == 1
    shop.rules = replace(rules, keyring=Keyring((Key("k1", ONE), Key("k2", TWO))))
    shop.ingest()
    assert [row["email"] for row in shop.accepted()] == [token(JOE), token(JOE, ONE, TWO)]
    assert not any(key.hex() in text for key in (ONE, TWO) for text in everything_stored(shop.home.root))


def test_a_direct_identifier_that_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"signed_up.yaml:\d+.*'pii: direct' is stored as a hash and is for strings"):
        plan_with(tmp_path, amount={"pii": "direct"})


def test_pandera_finds_accepted_identifiers_right_and_says_when_one_is_not_hashed(tmp_path: Path, shop: Shop) -> None:
    shop.land("a.jsonl", [signed(number=1), signed(number=2, phone="49")])
    shop.ingest()
    audit = audit_accepted(shop.home, shop.rules.plan)
    assert (audit.rows, audit.problems) == (2, [])
    plain = plan_with(tmp_path / "plain", email={"pii": "none"}, phone={"pii": "none"})
    raw = Shop(tmp_path / "raw", replace(RULES, plan=plain))
    raw.land("a.jsonl", [signed(number=1)])
    raw.ingest()
    [problem] = audit_accepted(raw.home, shop.rules.plan).problems
    assert problem.startswith("signed_up.email: values of a direct identifier that are not hashed")
    assert JOE not in problem


def test_plan_diff_counts_stored_tokens_as_passed(tmp_path: Path, shop: Shop) -> None:
    shop.land("a.jsonl", [signed(number=1, plan_name="free"), signed(number=2, plan_name="paid")])
    shop.ingest()
    new = plan_with(tmp_path / "new", "1-1-0", email={"max_length": 5}, plan_name={"enum": ["free"]})
    [found] = rejected_on_last_day(shop.home, shop.rules.plan, new, threads=1)
    assert (found.rows, found.rejected) == (2, 1)


def test_erasure_finds_a_quarantined_line_by_the_address_that_is_hashed_there(shop: Shop, rules: Rules) -> None:
    shop.land(
        "a.jsonl", [signed(number=1, plan_name="x"), signed("ann@example.com", 2, plan_name="x"), signed(WRONG, 3)]
    )
    shop.ingest()
    assert erase_quarantined(shop.home, shop.ledger, {JOE}) == 0
    ring = Keyring((*RING.keys, Key("k2", TWO)))
    assert erase_quarantined(shop.home, shop.ledger, {JOE, WRONG}, ring) == 2
    assert [row["event_id"] for row in shop.quarantined()] == ["e-2"]


def test_dbt_reads_tokens(shop: Shop) -> None:
    shop.land("a.jsonl", [signed()])
    shop.ingest()
    con = duckdb.connect()
    prepare(con, shop.home, shop.ledger, shop.rules.plan, build="b", as_of=datetime(2026, 3, 2, tzinfo=UTC), max_lateness_days=30)  # fmt: skip
    assert con.execute("SELECT email FROM lake.signed_up").fetchall() == [(token(JOE),)]
    con.close()


def test_kinds_of_failure_are_those_of_a_plan_without_direct_identifiers(tmp_path: Path, shop: Shop) -> None:
    plain = Shop(
        tmp_path / "plain", replace(RULES, plan=plan_with(tmp_path / "p", email={"pii": "none"}, phone={"pii": "none"}))
    )
    for each in (shop, plain):
        each.land("a.jsonl", MANY)
        each.ingest()
    assert kinds(shop.home) == kinds(plain.home) and shop.reasons() == plain.reasons()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["email", "E-Mail", "a", "x:y", 'q"', "consent"]) | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> Payloads:
    return Payloads(plan_with(tmp_path_factory.mktemp("contracts")), RING, stored=False)


def expected(value: Any, payloads: Payloads) -> Any:
    """The same by a tree: what is not under the name stays, what is becomes a token (a list or an object as a whole)."""
    if isinstance(value, list):
        return [expected(inner, payloads) for inner in value]
    if not isinstance(value, dict):
        return value
    hashed = {"email", "phone"}
    return {
        key: "TOKEN" if "".join(c for c in key.lower() if c in "abcdefghijklmnopqrstuvwxyz0123456789") in hashed and inner is not None
        else expected(inner, payloads) for key, inner in value.items()
    }  # fmt: skip


def masked(value: Any) -> Any:
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    if isinstance(value, dict):
        return {key: masked(inner) for key, inner in value.items()}
    return "TOKEN" if isinstance(value, str) and value.startswith(("hashed:k1:", "unchecked:k1:")) else value


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_all_but_the_identifiers_of_a_payload_stays_as_it_was(
    payloads: Payloads, extra: Any, indent: Any, ascii_only: bool
) -> None:
    line = {"event": "signed_up", "properties": {"email": JOE, "more": extra}, "consent": BOTH, "more": extra}
    text = json.dumps(line, indent=indent, ensure_ascii=ascii_only)
    clean = payloads.without_identifiers("signed_up", text)
    assert masked(json.loads(clean)) == expected(line, payloads) and JOE not in clean
    nothing = json.dumps({"event": "x", "properties": {"mail": extra if isinstance(extra, str) else 1}})
    assert payloads.without_identifiers("x", nothing) == nothing
