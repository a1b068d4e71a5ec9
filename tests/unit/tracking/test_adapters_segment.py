"""Segment and RudderStack messages become envelopes: ids, corrected times, consent as it was stated, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from adapter_files import adapt, adapt_bytes, declared, fixture, unmapped


def message(**changes: Any) -> dict[str, Any]:
    whole = {
        "type": "track", "event": "Product Viewed", "messageId": "m-1", "userId": "u-1",
        "timestamp": "2026-03-01T10:00:00.000Z", "properties": {"product_id": "p-1"},
    } | changes  # fmt: skip
    return {key: value for key, value in whole.items() if value is not ...}


def consent_of(context: dict[str, Any], **rules: Any) -> Any:
    found = adapt("segment", message(context=context), contract=declared("segment", **rules))
    return found[0].get("consent")


def preferences(**stated: Any) -> dict[str, Any]:
    return {"consent": {"categoryPreferences": stated}}


def test_a_track_call_arrives_whole() -> None:
    assert fixture("segment.jsonl")[0] == {
        "event_id": "seg-1",
        "event": "product_view",
        "timestamp": "2026-03-01T09:30:01.250Z",
        "sent_at": "2026-03-01T09:30:02.000Z",
        "received_at": "2026-03-01T09:30:03.250Z",
        "user_id": "u-1",
        "anonymous_id": "a-1",
        "properties": {"product_id": "p-1", "price": 19.90, "currency": "EUR", "category": "audio"},
        "context": {"platform": "web", "country": "DE", "app_version": "3.2.0"},
        "consent": {"analytics": True, "personalization": False},
    }


def test_without_a_corrected_time_the_devices_clock_is_corrected_here() -> None:
    # created 09:40:00 and sent 09:40:30 by the device, received 09:45:30: it waited 30 s, so it happened at 09:45:00
    assert fixture("segment.jsonl")[1]["timestamp"] == "2026-03-01T09:45:00Z"


def test_without_a_time_of_sending_the_devices_time_is_taken() -> None:
    (found,) = adapt("segment", message(timestamp=..., originalTimestamp="2026-03-01T09:00:00.000Z"))
    assert found["timestamp"] == "2026-03-01T09:00:00.000Z"


def test_ids_of_sessions_devices_and_organisations_come_from_the_context() -> None:
    found = fixture("segment.jsonl")[1]
    ids = ("user_id", "session_id", "device_id", "organisation_id")
    assert [found[name] for name in ids] == ["17", "1772357400", "d-9", "org-1"]


@pytest.mark.parametrize("kind", ["page", "screen", "identify", "group", "alias"])
def test_other_calls_are_named_by_their_kind_or_as_declared(kind: str) -> None:
    assert adapt("segment", message(type=kind, event=...))[0]["event"] == kind
    renamed = declared("segment", events={kind: "something_else"})
    assert adapt("segment", message(type=kind, event=...), contract=renamed)[0]["event"] == "something_else"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("Order Refunded", "order_refunded"), ("orderRefunded", "order_refunded"), ("refund", "refund"), ("Ⅻ", "Ⅻ")],
)
def test_a_name_that_nobody_declared_becomes_snake_case(theirs: str, ours: str) -> None:
    assert adapt("segment", message(event=theirs))[0]["event"] == ours


def test_a_category_named_like_a_purpose_needs_no_mapping_and_any_other_leaves_the_rest_unreadable() -> None:
    open_question = {"analytics": True, "personalization": "unreadable"}
    assert consent_of(preferences(analytics=True, Analytics=False, Advertising=True)) == open_question
    assert consent_of(preferences(analytics=True, Advertising=None)) == {"analytics": True}
    found = unmapped("segment", message(context=preferences(Advertising=True)))
    assert found == {"context.consent.Advertising": 1}


def test_a_mapped_category_stands_for_its_purposes() -> None:
    rules = {"consent": {"C1": ("analytics", "personalization"), "C2": ("personalization",)}}
    assert consent_of(preferences(C1=True, C2=True), **rules) == {"analytics": True, "personalization": True}
    assert consent_of(preferences(C1=True, C2=False), **rules) == {"analytics": True, "personalization": False}
    # of two categories one is silent: nobody granted the purpose, and yet the person was asked
    assert consent_of(preferences(C1=True), **rules) == {"analytics": True, "personalization": "unreadable"}


def test_a_category_that_stands_for_nothing_leaves_nothing_open() -> None:
    rules = {"consent": {"Necessary": ()}}
    assert consent_of(preferences(Necessary=True), **rules) is None
    found = unmapped("segment", message(context=preferences(Necessary=True)), contract=declared("segment", **rules))
    assert found == {}


def test_a_purpose_denied_by_its_own_name_stays_denied_whatever_a_category_grants() -> None:
    rules = {"consent": {"C1": ("analytics",)}}
    assert consent_of(preferences(C1=True, analytics=False), **rules) == {"analytics": False}


@pytest.mark.parametrize("answer", ["true", 1, {}, [True], "yes", ""])
def test_an_answer_that_is_neither_true_nor_false_is_unreadable(answer: Any) -> None:
    assert consent_of(preferences(analytics=answer)) == {"analytics": "unreadable"}
    assert consent_of(preferences(analytics=answer, personalization=False)) == {
        "analytics": "unreadable",
        "personalization": False,
    }


@pytest.mark.parametrize(
    "context",
    [
        {"consent": {"categoryPreferences": [True]}},
        {"consent": {"analytics": False}},
        {"consent": "all"},
        {"consentManagement": ["analytics"]},
        {"consentManagement": {"deniedConsentIds": "analytics"}},
        {"consentManagement": {"allowedConsentIds": [{"id": "analytics"}]}},
        {"consentManagement": {"denied": ["analytics"]}},
    ],
)
def test_consent_of_another_shape_grants_nothing_and_is_named(context: dict[str, Any]) -> None:
    assert consent_of(context) == {"analytics": "unreadable", "personalization": "unreadable"}
    # what cannot be read may deny what another part grants; what is plainly denied stays denied
    granted = {"consent": {"categoryPreferences": {"analytics": True}}} if "consentManagement" in context else {
        "consentManagement": {"allowedConsentIds": ["analytics"]}
    }  # fmt: skip
    assert consent_of(context | granted) == {"analytics": "unreadable", "personalization": "unreadable"}
    (name,) = context
    assert unmapped("segment", message(context=context)) == {f"context.{name}": 1}


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"consent": None},
        {"consent": {}},
        {"consent": {"categoryPreferences": {}}},
        {"consent": {"categoryPreferences": {"analytics": None, "Advertising": None}}},
        {"consentManagement": {"allowedConsentIds": [], "deniedConsentIds": [], "provider": "x"}},
        {"consentManagement": {"provider": "x", "resolutionStrategy": "and"}},
    ],
)
def test_absent_consent_stays_absent(context: dict[str, Any]) -> None:
    assert consent_of(context) is None


def test_rudderstack_names_what_is_allowed_and_denied_wins() -> None:
    managed = {
        "consentManagement": {
            "allowedConsentIds": ["analytics", "personalization"],
            "deniedConsentIds": ["personalization"],
        }
    }
    assert consent_of(managed) == {"analytics": True, "personalization": False}
    assert consent_of(managed | preferences(analytics=False)) == {"analytics": False, "personalization": False}
    denied = {"consentManagement": {"allowedConsentIds": [], "deniedConsentIds": ["analytics"]}}
    assert consent_of(denied | preferences(analytics=True)) == {"analytics": False}
    assert consent_of(denied | preferences(analytics="yes")) == {"analytics": False}


def test_a_key_that_stands_twice_leaves_consent_unreadable() -> None:
    line = (
        '{"type":"track","event":"Product Viewed","messageId":"m-1","context":{"consent":{"categoryPreferences":{"analytics":false}}},'
        '"context":{"consent":{"categoryPreferences":{"analytics":true}}}}'
    )
    assert adapt("segment", line)[0]["consent"] == {"analytics": "unreadable", "personalization": "unreadable"}


def test_properties_are_renamed_as_declared_and_a_name_that_is_there_already_stays() -> None:
    rules = declared("segment", properties={"productId": "product_id"})
    found = adapt("segment", message(properties={"productId": "p-9"}), contract=rules)
    assert found[0]["properties"] == {"product_id": "p-9"}
    both = message(properties={"productId": "p-9", "product_id": "p-1"})
    assert adapt("segment", both, contract=rules)[0]["properties"] == {"product_id": "p-1"}
    assert unmapped("segment", both, contract=rules) == {"properties.productId": 1}


def test_an_ignored_property_is_kept_where_the_plan_declares_it() -> None:
    ignoring = declared("segment", ignore=["category", "brnad"])
    found = adapt("segment", message(properties={"category": "audio", "brnad": "x"}), contract=ignoring)
    assert found[0]["properties"] == {"category": "audio"}


def test_a_property_that_the_plan_does_not_know_is_left_for_the_plan_to_refuse() -> None:
    assert adapt("segment", message(properties={"shelf": 3}))[0]["properties"] == {"shelf": 3}


def test_lists_and_objects_keep_their_place_but_not_their_content() -> None:
    found = adapt(
        "segment", message(userId={"mail": "x"}, properties={"products": [{"sku": "s"}], "buyer": {"mail": "x"}})
    )
    assert found[0]["properties"] == {"products": [], "buyer": {}}
    assert found[0]["user_id"] == {}


def test_a_price_keeps_its_digits() -> None:
    line = '{"type":"track","event":"x","messageId":"m","properties":{"price":12345678901234.5670}}'
    assert b'"price":12345678901234.5670' in adapt_bytes("segment", line.encode())[0][0]
