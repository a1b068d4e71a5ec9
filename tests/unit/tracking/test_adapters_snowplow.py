"""Snowplow's enriched events become envelopes, from the TSV and from atomic columns; times are worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from adapter_files import adapt, adapt_bytes, declared, fixture, unmapped

from zantara_pipeline.tracking.adapters.snowplow import COLUMNS


def row(**columns: Any) -> dict[str, Any]:
    whole = {
        "event_id": "s-1",
        "event": "unstruct",
        "event_name": "product_view",
        "collector_tstamp": "2026-03-01 10:00:00.000",
    }
    return whole | columns


def tsv(**columns: str) -> str:
    return "\t".join((row() | columns).get(name, "") for name in COLUMNS)


def described(*entities: tuple[str, Any]) -> str:
    data = [{"schema": f"iglu:com.acme/{name}/jsonschema/1-0-0", "data": inner} for name, inner in entities]
    return json.dumps({"schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1", "data": data})


def scopes(*names: str, kind: str = "allow_selected", basis: str = "consent") -> tuple[str, Any]:
    return "consent_preferences", {"eventType": kind, "basisForProcessing": basis, "consentScopes": list(names)}


def consent_of(*entities: tuple[str, Any], **rules: Any) -> Any:
    found = adapt("snowplow", row(contexts=described(*entities)), contract=declared("snowplow", **rules))
    return found[0].get("consent")


def test_columns_stand_where_the_vendor_documents_them() -> None:
    documented = {
        0: "app_id", 3: "collector_tstamp", 6: "event_id", 12: "user_id", 15: "domain_userid", 18: "geo_country",
        52: "contexts", 58: "unstruct_event", 71: "ti_price", 98: "os_family", 119: "dvce_sent_tstamp",
        122: "derived_contexts", 123: "domain_sessionid", 124: "derived_tstamp", 126: "event_name", 130: "true_tstamp",
    }  # fmt: skip
    assert len(COLUMNS) == len(set(COLUMNS)) == 131
    assert {number: COLUMNS[number] for number in documented} == documented


def test_a_self_describing_event_arrives_whole_from_both_shapes() -> None:
    expected = {
        "event_id": "sp-1",
        "event": "product_view",
        # by the device created 09:29:00 and sent 09:29:45.5; received 10:00:00: 45.5 s before that
        "timestamp": "2026-03-01T09:59:14.500Z",
        "sent_at": "2026-03-01T09:29:45.500Z",
        "received_at": "2026-03-01T10:00:00Z",
        "user_id": "u-1",
        "anonymous_id": "dom-1",
        "session_id": "ses-1",
        "properties": {"product_id": "p-1", "price": 19.90, "currency": "EUR"},
        "context": {"platform": "web", "country": "DE"},
        "consent": {"analytics": True, "personalization": False},
    }
    assert fixture("snowplow.tsv")[0] == expected
    assert fixture("snowplow.jsonl")[0] == expected


@pytest.mark.parametrize(
    ("created", "sent", "true", "expected"),
    [
        ("2026-03-01 09:00:00", "2026-03-01 09:10:00", None, "2026-03-01T09:50:00Z"),  # it waited ten minutes
        ("2026-02-28 10:00:00", "2026-03-01 10:00:00", None, "2026-02-28T10:00:00Z"),  # a day offline
        ("2030-01-01 00:00:00.100", "2030-01-01 00:00:00.350", None, "2026-03-01T09:59:59.750Z"),  # clock years ahead
        ("2026-03-01 09:10:00", "2026-03-01 09:00:00", None, "2026-03-01T10:00:00Z"),  # the clock was set back: receipt
        ("2026-03-01 09:00:00", None, None, "2026-03-01T10:00:00Z"),  # nothing to correct with: receipt
        ("2026-03-01 09:00:00", "2026-03-01 09:10:00", "2026-03-01 08:00:00", "2026-03-01T08:00:00Z"),  # stated
    ],
)
def test_the_time_of_an_event_is_the_devices_time_by_the_collectors_clock(
    created: str, sent: str | None, true: str | None, expected: str
) -> None:
    times = {"dvce_created_tstamp": created, "dvce_sent_tstamp": sent, "true_tstamp": true}
    (found,) = adapt("snowplow", row(**times))
    assert found["timestamp"] == expected


def test_a_time_that_is_none_is_left_for_the_judge() -> None:
    (found,) = adapt("snowplow", row(collector_tstamp="yesterday"))
    assert (found["timestamp"], found["received_at"]) == ("yesterday", "yesterday")


def test_a_structured_event_is_named_by_its_action_and_takes_columns_that_are_declared() -> None:
    rules = declared("snowplow", properties={"atomic.ti_sku": "product_id", "atomic.ti_price": "price"})
    line = tsv(event="struct", event_name="event", se_action="Product View", ti_sku="17", ti_price="19.90")
    lines, report = adapt_bytes("snowplow", line.encode(), rules)
    found = json.loads(lines[0])
    assert (found["event"], found["properties"]) == ("product_view", {"product_id": "17", "price": 19.90})
    assert "ti_sku" not in report.unmapped


def test_nobody_is_allowed_to_ask_for_an_address() -> None:
    with pytest.raises(ValueError, match="identifies a person"):
        declared("snowplow", properties={"atomic.user_ipaddress": "ip"})


def test_selected_scopes_are_granted_and_the_others_denied() -> None:
    assert consent_of(scopes("analytics")) == {"analytics": True, "personalization": False}
    mapped = {"consent": {"statistics": ("analytics",), "marketing": ("personalization",)}}
    assert consent_of(scopes("statistics"), **mapped) == {"analytics": True, "personalization": False}


@pytest.mark.parametrize("kind", ["deny_all", "withdrawn", "expired"])
def test_a_refusal_denies_every_purpose_whatever_scopes_it_lists(kind: str) -> None:
    assert consent_of(scopes("analytics", kind=kind)) == {"analytics": False, "personalization": False}


@pytest.mark.parametrize("stated", [scopes("analytics", kind="implicit_consent"), scopes("analytics", kind="pending"),
                                    scopes("analytics", basis="legitimate_interests"), ("consent_preferences", {}),
                                    ("consent_preferences", None), ("consent_preferences", {"eventType": "pending"})])  # fmt: skip
def test_what_is_no_choice_of_the_person_is_no_consent(stated: tuple[str, Any]) -> None:
    assert consent_of(stated) is None


UNREADABLE = {"analytics": "unreadable", "personalization": "unreadable"}


@pytest.mark.parametrize("stated", [scopes("analytics", kind="allowed"), scopes("analytics", basis="?"),
                                    ("consent_preferences", {"eventType": "allow_all", "basisForProcessing": "consent"}),
                                    ("consent_preferences", "analytics"), ("consent_preferences", ["analytics"]),
                                    ("consent_preferences", {"consentScopes": ["analytics"]}),
                                    scopes("analytics", 1)])  # type: ignore[arg-type]  # fmt: skip
def test_a_choice_that_cannot_be_read_grants_nothing(stated: tuple[str, Any]) -> None:
    assert consent_of(stated) == UNREADABLE
    # it may deny what another entity grants; a plain refusal beside it stays one
    assert consent_of(stated, scopes("analytics", "personalization")) == UNREADABLE
    assert consent_of(stated, scopes(kind="deny_all")) == {"analytics": False, "personalization": False}


def test_a_refusal_needs_no_scopes() -> None:
    assert consent_of(("consent_preferences", {"eventType": "deny_all"})) == {
        "analytics": False,
        "personalization": False,
    }


def test_scopes_that_nobody_declared_deny_only_what_was_declared() -> None:
    assert consent_of(scopes("statistics", "marketing")) == UNREADABLE
    mapped = {"consent": {"statistics": ("analytics",)}}
    assert consent_of(scopes("marketing"), **mapped) == {"analytics": False, "personalization": "unreadable"}
    assert consent_of(scopes("statistics", "marketing"), **mapped) == {
        "analytics": True,
        "personalization": "unreadable",
    }
    assert unmapped("snowplow", row(contexts=described(scopes("marketing")))) == {"consent.marketing": 1}


def test_an_entity_of_ones_own_states_consent_when_declared() -> None:
    own = ("privacy_choice", {"analytics": True, "personalization": "yes", "note": "x"})
    assert consent_of(own) is None
    assert consent_of(own, consent_entities=["privacy_choice"]) == {"analytics": True, "personalization": "unreadable"}


def test_of_two_entities_the_denial_wins() -> None:
    assert consent_of(scopes("analytics"), scopes("personalization")) == {"analytics": False, "personalization": False}


def test_entities_and_columns_that_are_left_behind_are_named() -> None:
    found = unmapped("snowplow", row(user_ipaddress="203.0.113.7", contexts=described(("user", {"mail": "x"}))))
    assert found == {"contexts.user": 1, "user_ipaddress": 1}


@pytest.mark.parametrize("column", ["unstruct_event", "contexts"])
def test_self_describing_data_that_is_no_json_grants_nothing(column: str) -> None:
    found = adapt("snowplow", row(**{column: '{"schema": "iglu:com.acme/consent_pref'}))
    assert found[0].get("consent") == (None if column == "unstruct_event" else UNREADABLE)
    # an event that states consent, or that does not say what it is, may have denied
    for name in ("consent_preferences", None):
        (found_too,) = adapt("snowplow", row(event_name=name, **{column: '{"schema": "iglu:com.acme/consent_pref'}))
        assert found_too["consent"] == UNREADABLE
    assert found[0]["properties"] == ("" if column == "unstruct_event" else {})


def test_a_key_that_stands_twice_inside_an_entity_leaves_consent_unreadable() -> None:
    text = described(("consent_preferences", {"analytics": True}))
    twice = text.replace('"analytics": true', '"analytics": false, "analytics": true')
    assert adapt("snowplow", row(contexts=text))[0]["consent"] == {"analytics": True}
    assert adapt("snowplow", row(contexts=twice))[0]["consent"] == UNREADABLE


def test_platforms_have_our_names() -> None:
    platforms = [
        adapt("snowplow", row(platform=code, os_family=system))[0]["context"]["platform"]
        for code, system in (("web", None), ("srv", None), ("mob", "Android"), ("mob", "iOS"), ("tv", None))
    ]
    assert platforms == ["web", "server", "android", "ios", "tv"]


def test_an_app_says_its_version_in_an_entity() -> None:
    assert fixture("snowplow.jsonl")[1]["context"] == {"platform": "app", "app_version": "3.2.0"}


@pytest.mark.parametrize("cells", [1, 130, 132])
def test_a_row_of_another_width_stays_as_it_came(cells: int) -> None:
    line = "\t".join(["x"] * cells).encode() + b"\n"
    lines, report = adapt_bytes("snowplow", line)
    assert (lines, report.unreadable) == ([line], 1)
