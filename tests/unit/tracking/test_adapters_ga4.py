"""Rows of the GA4 BigQuery export become envelopes: typed parameters, an id made of the row, no invented identity."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from adapter_files import adapt, declared, fixture, unmapped
from hypothesis import given
from hypothesis import strategies as st

from zantara_pipeline.tracking.adapters.ga4 import row_id


def row(**changes: Any) -> dict[str, Any]:
    return {"event_timestamp": "1772357400123456", "event_name": "view_item", "user_pseudo_id": "1.2"} | changes


def params(**values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def test_a_view_of_one_item_arrives_whole() -> None:
    found = fixture("ga4.jsonl")[0]
    assert found.pop("event_id").startswith("ga4-")
    assert found == {
        "event": "product_view",
        "timestamp": "2026-03-01T09:30:00.123456Z",  # 1772357400 s is 2026-03-01 09:30 UTC
        "user_id": "u-1",
        "anonymous_id": "123.456",
        "session_id": "123.456.1772357000",
        "properties": {"currency": "EUR", "product_id": "p-1", "category": "audio", "price": 19.90},
        "context": {"platform": "web", "country": "Germany"},
        # its ads_storage is said, and the packaged contract does not know what that stands for
        "consent": {"analytics": True, "personalization": "unreadable"},
    }


def test_a_row_without_identity_gets_none_and_no_session() -> None:
    found = fixture("ga4.jsonl")[1]
    assert not {"user_id", "anonymous_id", "session_id", "device_id"} & set(found)


def test_an_integer_that_was_a_text_is_a_text_again_where_the_plan_says_so() -> None:
    # GA4 sends a product id "42" as int_value; BigQuery writes it as "42"
    assert fixture("ga4.jsonl")[1]["properties"] == {"product_id": "42", "price": 5, "currency": "EUR"}


def test_each_kind_of_value_is_read() -> None:
    values = params(
        a={"string_value": "x"}, b={"int_value": "7"}, c={"double_value": 1.5}, d={"float_value": "2.5"}, e={}
    )
    assert adapt("ga4", row(event_params=values))[0]["properties"] == {"a": "x", "b": 7, "c": 1.5, "d": 2.5}


def test_yes_and_no_are_answers_and_unset_is_none() -> None:
    answers = [
        adapt("ga4", row(privacy_info={"analytics_storage": said}))[0].get("consent")
        for said in ("Yes", "No", "Unset", None, "yes", True)
    ]
    unreadable = {"analytics": "unreadable"}
    assert answers == [{"analytics": True}, {"analytics": False}, None, None, unreadable, unreadable]


def test_consent_to_advertising_is_no_consent_to_personalization_unless_declared() -> None:
    whole = row(privacy_info={"analytics_storage": "Yes", "ads_storage": "Yes"})
    assert adapt("ga4", whole)[0]["consent"] == {"analytics": True, "personalization": "unreadable"}
    assert unmapped("ga4", whole) == {"privacy_info.ads_storage": 1}
    nothing = declared("ga4", consent={"analytics_storage": ["analytics"], "ads_storage": []})
    assert adapt("ga4", whole, contract=nothing)[0]["consent"] == {"analytics": True}
    both = {"analytics_storage": ["analytics"], "ads_storage": ["personalization"]}
    found = adapt("ga4", whole, contract=declared("ga4", consent=both))
    assert found[0]["consent"] == {"analytics": True, "personalization": True}


def test_measuring_without_cookies_is_no_answer_of_a_person() -> None:
    whole = row(privacy_info={"analytics_storage": "Unset", "uses_transient_token": "Yes"})
    assert "consent" not in adapt("ga4", whole)[0]
    assert unmapped("ga4", whole) == {"privacy_info.uses_transient_token": 1}


def test_several_items_have_no_place_in_one_event() -> None:
    whole = row(items=[{"item_id": "p-1"}, {"item_id": "p-2"}])
    assert adapt("ga4", whole)[0]["properties"] == {}
    assert unmapped("ga4", whole) == {"items where several": 1}


def test_a_parameter_that_stands_twice_is_taken_once_and_named() -> None:
    twice = row(event_params=[*params(currency={"string_value": "EUR"}), *params(currency={"string_value": "USD"})])
    assert adapt("ga4", twice)[0]["properties"] == {"currency": "EUR"}
    assert unmapped("ga4", twice) == {"event_params.currency": 1}


def test_a_time_that_is_none_is_left_for_the_judge() -> None:
    assert adapt("ga4", row(event_timestamp="soon"))[0]["timestamp"] == "soon"
    assert adapt("ga4", row(event_timestamp=10**30))[0]["timestamp"] == 10**30


def test_the_id_of_a_row_is_the_same_in_every_run() -> None:
    # an id that changed with a release would make every old row a new event; every text is preceded by its length
    written = hashlib.sha256(b"{s10:event_names1:as15:event_timestamps1:1}").hexdigest()
    assert row_id({"event_timestamp": 1, "event_name": "a"}) == f"ga4-{written[:32]}"


def test_a_copy_has_the_same_id_however_it_is_written() -> None:
    original = row(user_id=None, geo={"country": "DE", "city": None}, event_params=params(n={"int_value": "7"}))
    other = {"user_pseudo_id": "1.2", "geo": {"country": "DE"}, "event_name": "view_item",
             "event_params": params(n={"int_value": 7, "string_value": None}), "event_timestamp": 1772357400123456}  # fmt: skip
    assert row_id(original) == row_id(other)


values = st.recursive(
    st.text(max_size=4) | st.integers(-9, 9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
rows = st.dictionaries(st.text(max_size=3), values, max_size=4)


def plain(value: Any) -> Any:
    """What two rows must share to be copies: whole numbers and their digits are the same."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value if isinstance(value, bool) else str(value)


@given(rows, rows, st.randoms(use_true_random=False))
def test_rows_share_an_id_exactly_when_they_are_copies(one: Any, other: Any, chance: random.Random) -> None:
    same = json.dumps(plain(one), sort_keys=True) == json.dumps(plain(other), sort_keys=True)
    assert (row_id(one) == row_id(other)) is same
    keys = list(one)
    chance.shuffle(keys)
    assert row_id({key: one[key] for key in keys}) == row_id(one)
