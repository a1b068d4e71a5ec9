"""Consent decides first: what the company's ledger says at the time of the event, and what is learnt from events."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from event_lines import BOTH, PLAN, RULES, Shop, event
from hypothesis import given, settings
from hypothesis import strategies as st

from zantara_pipeline.tracking import ingest as ingest_module
from zantara_pipeline.tracking import reader
from zantara_pipeline.tracking.plan import Exemption

NO = {"analytics": False, "personalization": False}


def said(hour: int, user: str = "u-1", **changes: Any) -> dict[str, Any]:
    when = f"2026-03-01T{hour:02d}:00:00Z"
    usual = {"event_id": f"e-{user}-{hour}", "user_id": user, "timestamp": when, "received_at": when}
    return event(**usual | changes)


def stamp(hour: int) -> str:
    return f"2026-03-01T{hour:02d}:00:00.000000Z"


def taken(shop: Shop, *lines: Any) -> list[str]:
    shop.land("a.jsonl", lines)
    shop.ingest()
    stages = shop.stages("a.jsonl")
    return [stages.get(number, "suppressed") for number in range(1, len(lines) + 1)]


def test_denied_in_the_ledger_wins_over_a_granting_event(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.consent(("u-1", "analytics", "denied", "2026-01-01T00:00:00Z"))
    assert taken(shop, said(9), said(9, "u-2")) == ["suppressed", "accepted"]


def test_granted_in_the_ledger_does_not_replace_a_missing_flag(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.consent(("u-1", "analytics", "granted", "2026-01-01T00:00:00Z"))
    assert taken(shop, said(9, consent=None), said(10, consent=NO)) == ["suppressed", "suppressed"]


def test_the_ledger_holds_from_the_very_moment_on(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.consent(
        ("u-1", "analytics", "withdrawn", "2026-03-01T10:00:00Z"),
        ("u-1", "analytics", "granted", "2026-03-01T12:00:00Z"),
    )
    before = said(9, timestamp="2026-03-01T09:59:59.999999Z")
    assert taken(shop, before, said(10), said(11), said(12)) == ["accepted", "suppressed", "suppressed", "accepted"]


def test_denied_wins_where_one_moment_has_both(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    when = "2026-03-01T10:00:00Z"
    shop.consent(("u-1", "analytics", "granted", when), ("u-1", "analytics", "denied", when))
    assert taken(shop, said(9), said(10)) == ["accepted", "suppressed"]


def test_an_event_without_a_readable_time_meets_the_latest_statement(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.consent(("u-1", "analytics", "denied", "2030-01-01T00:00:00Z"))
    broken = {"timestamp": "?", "received_at": "2026-03-01T10:00:00Z"}
    assert taken(shop, said(9, **broken), said(9, "u-2", **broken)) == ["suppressed", "quarantined"]


def test_the_ledger_speaks_for_one_purpose(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.consent(("u-1", "personalization", "denied", "2026-01-01T00:00:00Z"))
    shown = event("recommendation_exposed", {"list_id": "l", "product_id": "p", "position": 1, "bundle_version": "1"})
    assert taken(shop, said(9), shown) == ["accepted", "suppressed"]
    (row,) = shop.accepted()
    assert (row["consent_analytics"], row["consent_personalization"]) == (True, False)


def test_the_ledger_reaches_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 300)
    monkeypatch.setattr(ingest_module, "BATCH_BYTES", 1)
    shop = Shop(tmp_path)
    shop.consent(("u-1", "analytics", "denied", "2026-01-01T00:00:00Z"))
    lines = [said(hour, user) for hour in (8, 9, 10) for user in ("u-1", "u-2")]
    assert taken(shop, *lines) == ["suppressed", "accepted"] * 3


def test_guests_have_no_ledger(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.consent(("u-1", "analytics", "denied", "2026-01-01T00:00:00Z"))
    assert taken(shop, said(9, user_id=None), said(10, user_id=..., anonymous_id="u-1")) == ["accepted", "accepted"]
    assert shop.statements() == []


def test_events_teach_changes_of_mind(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    taken(shop, said(8), said(9), said(10, consent=BOTH | {"personalization": False}), said(11), said(12))
    assert [row[1:] for row in shop.statements()] == [
        ("analytics", "granted", stamp(8)),
        ("personalization", "granted", stamp(8)),
        ("personalization", "denied", stamp(10)),
        ("personalization", "granted", stamp(11)),
    ]


def test_a_withdrawal_is_learnt_from_a_line_that_is_dropped(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert taken(shop, said(8), said(9, consent=NO)) == ["accepted", "suppressed"]
    assert {row[1:] for row in shop.statements()} >= {
        ("analytics", "denied", stamp(9)),
        ("personalization", "denied", stamp(9)),
    }


def test_only_a_boolean_is_a_statement(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    taken(
        shop, *(said(8, consent=consent) for consent in (None, {}, "no", {"analytics": "false"}, {"analytics": None}))
    )
    assert shop.statements() == []


def test_what_was_learnt_in_one_file_is_known_in_the_next(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    taken(shop, said(8))
    shop.land("b.jsonl", [said(9)])
    shop.ingest()
    assert len(shop.statements()) == 2


def latest(shop: Shop, purpose: str = "personalization") -> str:
    """What u-1 said last, as the ledger tells it."""
    return max((since, status) for user, said_of, status, since in shop.statements() if said_of == purpose)[1]


@pytest.mark.parametrize(("first", "then"), [(NO, BOTH), (BOTH, NO)], ids=["withdrawal", "consent"])
def test_what_was_said_last_holds_although_an_older_event_comes_with_it(tmp_path: Path, first: Any, then: Any) -> None:
    # said: first at 8 (arrives late), then at 9, first again at 10
    shop = Shop(tmp_path)
    taken(shop, said(9, consent=then))
    shop.land("b.jsonl", [said(8, consent=first), said(10, consent=first)])
    shop.ingest()
    assert latest(shop) == ("denied" if first is NO else "granted")


@pytest.mark.parametrize(("always", "late"), [(NO, BOTH), (BOTH, NO)], ids=["withdrawal", "consent"])
def test_what_was_said_last_holds_although_an_older_event_comes_after_it(
    tmp_path: Path, always: Any, late: Any
) -> None:
    # said: the same at 8 and at 10, and in between at 9 the opposite, which arrives last
    shop = Shop(tmp_path)
    taken(shop, said(8, consent=always), said(10, consent=always))
    shop.land("b.jsonl", [said(9, consent=late)])
    shop.ingest()
    assert latest(shop) == ("denied" if always is NO else "granted")


def test_a_line_that_is_no_json_states_no_consent(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    line = (
        '{"event_id":"e","user_id":"u-1","timestamp":"2026-03-01T08:00:00Z","consent":{"personalization":true},"x":NaN}'
    )
    assert taken(shop, line) == ["unparsable"]
    assert shop.statements() == []


def test_a_user_id_that_is_an_object_does_not_reach_the_consent_ledger(tmp_path: Path) -> None:
    # the line is dropped, so nothing it carries may be kept
    shop = Shop(tmp_path)
    assert taken(shop, said(8, user_id={"email": "joe@example.com"}, consent=NO)) == ["suppressed"]
    assert shop.statements() == []


UNCLEAR = {
    "a number": ('"user_id": "17"', '"user_id": 17'),
    "a number with a fraction of zero": ('"user_id": "17"', '"user_id": 17.0'),
    "a list": ('"user_id": "17"', '"user_id": ["17"]'),
    "an object": ('"user_id": "17"', '"user_id": {"id": 17}'),
    "the key twice, first": ('"user_id": "17"', '"user_id": "17", "user_id": "u-2"'),
    "the key twice, second": ('"user_id": "17"', '"user_id": "u-2", "user_id": "17"'),
    "deeper than Python reads": ('"user_id": "17"', '"user_id": ' + "[" * 50_000 + '"17"' + "]" * 50_000),
}


@pytest.mark.parametrize("unclear", UNCLEAR.values(), ids=UNCLEAR.keys())
@pytest.mark.parametrize(("denied", "stage"), [("17", "suppressed"), ("18", "quarantined")])
def test_a_line_that_may_be_of_somebody_who_denied_leaves_no_payload(
    tmp_path: Path, unclear: tuple[str, str], denied: str, stage: str
) -> None:
    """A denial counts whatever was said after it: nobody knows whose line it is."""
    shop = Shop(tmp_path)
    shop.consent(
        (denied, "analytics", "denied", "2026-01-01T00:00:00Z"),
        (denied, "analytics", "granted", "2026-01-02T00:00:00Z"),
    )
    line = json.dumps(said(9, "17")).replace(*unclear)
    assert taken(shop, line) == [stage]
    assert len(shop.quarantined()) == (stage == "quarantined")
    assert shop.query("SELECT rows_in = suppressed + quarantined FROM ingested_files") == [(1,)]


def test_a_denial_of_another_purpose_does_not_suppress_an_unclear_line(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.consent(("17", "personalization", "denied", "2026-01-01T00:00:00Z"))
    assert taken(shop, said(9, user_id=17)) == ["quarantined"]


@pytest.mark.parametrize(
    ("unclear", "who"),
    [("17", {"17"}), ("17.0", {"17", "17.0"}), ("-2e1", {"-2e1", "-20"}), ('["17", [18]]', {"17", "18"}),
     ('"17", "user_id": "u-2"', {"17", "u-2"}), ('"u-2", "user_id": 17', {"17", "u-2"}), ('{"id": 17}', set()),
     (f'["{"9" * 1_001}"]', set()), ("7" * 40, {"7" * 40}), ("7" * 41, set()), ("[" * 50_000 + '"17"' + "]" * 50_000, set()), ("true", set())],
    ids=["number", "fraction of zero", "exponent", "list", "twice", "twice and a number", "object", "no id", "long number", "too long a number", "deep", "boolean"],
)  # fmt: skip
def test_a_denial_under_an_id_that_is_no_text_is_a_denial_of_everybody_whom_it_names(
    tmp_path: Path, unclear: str, who: set[str]
) -> None:
    consent = {"analytics": False, "personalization": True}
    shop, clear = Shop(tmp_path / "shop"), Shop(tmp_path / "clear")
    assert taken(shop, json.dumps(said(9, "@", consent=consent)).replace('"@"', unclear)) == ["suppressed"]
    denied = {purpose: word for purpose, word in consent.items() if not word}
    taken(clear, *(said(9, user, consent=denied) for user in sorted(who)))
    assert shop.statements() == clear.statements() and len(shop.statements()) == len(who) * len(denied)


@pytest.mark.parametrize("unclear", ["17", '["17"]', '"17", "user_id": "u-2"'])
def test_a_grant_under_an_id_that_is_no_text_is_heard_of_nobody(tmp_path: Path, unclear: str) -> None:
    shop = Shop(tmp_path)
    assert taken(shop, json.dumps(said(9, "@")).replace('"@"', unclear)) == ["quarantined"]
    assert shop.statements() == []


PEOPLE = {"17": [17, 17.0, ["17"], "17"], "18": [18, [18], "18"]}
WORDS = st.tuples(
    st.sampled_from(sorted(PEOPLE)),
    st.integers(0, 3),
    st.integers(0, 23),
    st.sampled_from([NO, BOTH, {"analytics": False}]),
)


@settings(max_examples=6, deadline=None)
@given(commits=st.lists(st.lists(WORDS, min_size=1, max_size=6), min_size=1, max_size=3))
def test_denials_under_numbers_are_those_under_the_texts_and_grants_are_none(
    commits: list[list[tuple[str, int, int, dict[str, bool]]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the same commit and in later ones, before and after what the person says under the right id."""
    root = tmp_path_factory.mktemp("homes")
    shop, clear = Shop(root / "shop"), Shop(root / "clear")
    for number, words in enumerate(commits):
        for home, as_text in ((shop, False), (clear, True)):
            lines = []
            for line, (user, spelling, hour, consent) in enumerate(words):
                spelt = PEOPLE[user][spelling % len(PEOPLE[user])]
                if not as_text or spelt == user:
                    lines.append(said(hour, user_id=spelt, event_id=f"{number}-{line}", consent=consent))
                elif consent is not BOTH:
                    lines.append(said(hour, user_id=user, event_id=f"{number}-{line}", consent=consent))
            home.land(f"{number}.jsonl", [*lines, {"commit": number}])
            home.ingest()
    spelt_otherwise = {"17.0"}
    assert [row for row in shop.statements() if row[0] not in spelt_otherwise] == clear.statements()
    assert {status for user, _, status, _ in shop.statements() if user in spelt_otherwise} <= {"denied"}


def test_nobody_is_exempt_who_denied_under_a_number(tmp_path: Path) -> None:
    rule = Exemption(event="page_timing", countries=("FR",), legal_reference="a guideline")
    privacy = PLAN.privacy.model_copy(update={"exemptions": (rule,)})
    shop = Shop(tmp_path, replace(RULES, plan=replace(PLAN, privacy=privacy)))

    def timed(hour: int, user: str) -> dict[str, Any]:
        page = {"page": "/", "load_ms": 1.5}
        return said(hour, user, event="page_timing", properties=page, context={"country": "FR"}, consent=None)

    shop.land("a.jsonl", [timed(8, "17"), timed(8, "18"), said(9, user_id=17, consent=NO), timed(10, "17")])
    shop.ingest()
    shop.land("b.jsonl", [timed(11, "17"), timed(11, "18")])
    shop.ingest()
    assert shop.query("SELECT exempt, suppressed, quarantined FROM ingested_files ORDER BY file") == [
        (1, 3, 0),
        (1, 1, 0),
    ]
