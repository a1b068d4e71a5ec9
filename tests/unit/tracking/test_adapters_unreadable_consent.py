"""Consent that an adapter cannot read or map, from the file of each format to the engine's verdict, in an exempt country.

The engine takes people who said nothing for exempt. Whoever said something that nobody can read is not among them: such
lines are suppressed, counted as unreadable and kept in the restricted store.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapter_files import adapt_bytes, intake
from event_lines import PLAN, RULES, Shop

from zantara_pipeline.tracking.adapters.snowplow import COLUMNS
from zantara_pipeline.tracking.ingest import ingest
from zantara_pipeline.tracking.plan import Exemption, TrackingPlan

RULE = Exemption(event="page_timing", countries=("FR",), legal_reference="a guideline")
EXEMPTING = replace(RULES, plan=TrackingPlan(PLAN.events, PLAN.privacy.model_copy(update={"exemptions": (RULE,)})))
TIMING = {"page": "/checkout", "load_ms": 12.5}


def segment(number: int, context: dict[str, Any]) -> str:
    return json.dumps({
        "type": "track", "event": "page_timing", "messageId": f"m-{number}", "userId": f"u-{number}",
        "timestamp": "2026-03-01T10:00:00Z", "receivedAt": "2026-03-01T10:00:05Z", "properties": TIMING,
        "context": {"location": {"country": "FR"}} | context,
    })  # fmt: skip


def ga4(number: int, privacy_info: Any) -> str:
    values = [("page", {"string_value": "/checkout"}), ("load_ms", {"double_value": 12.5})]
    return json.dumps({
        "event_timestamp": 1772359200000000 + number, "event_name": "page_timing", "user_id": f"u-{number}",
        "geo": {"country": "FR"}, "privacy_info": privacy_info,
        "event_params": [{"key": key, "value": value} for key, value in values],
    })  # fmt: skip


def snowplow(number: int, contexts: str) -> str:
    own = {"schema": "iglu:com.acme/page_timing/jsonschema/1-0-0", "data": TIMING}
    columns = {
        "event_id": f"s-{number}", "event": "unstruct", "event_name": "page_timing", "user_id": f"u-{number}",
        "collector_tstamp": "2026-03-01 10:00:00.000", "geo_country": "FR", "contexts": contexts,
        "unstruct_event": json.dumps({"schema": "iglu:x/y/jsonschema/1-0-0", "data": own}),
    }  # fmt: skip
    return "\t".join(columns.get(name, "") for name in COLUMNS)


def entity(data: Any, name: str = "consent_preferences") -> str:
    one = {"schema": f"iglu:com.acme/{name}/jsonschema/1-0-0", "data": data}
    return json.dumps({"schema": "iglu:x/contexts/jsonschema/1-0-0", "data": [one]})


def row(number: int, cells: str) -> str:
    return f"c-{number},page_timing,2026-03-01T10:00:00Z,u-{number},FR,/checkout,12.5,{cells}"


HEADER = "event_id,event,timestamp,user_id,context.country,properties.page,properties.load_ms,consent.analytics,consent.sales"


def preferences(**stated: Any) -> dict[str, Any]:
    return {"consent": {"categoryPreferences": stated}}


def scopes(*names: str) -> str:
    return entity({"eventType": "allow_selected", "basisForProcessing": "consent", "consentScopes": names})


MAKE: dict[str, Any] = {"segment": segment, "snowplow": snowplow, "ga4": ga4, "csv": row}
SILENT: dict[str, list[Any]] = {
    "segment": [{}, {"consent": None}, preferences(), preferences(analytics=None)],
    "snowplow": ["", entity({}), entity({"eventType": "pending", "consentScopes": ["analytics"]})],
    "ga4": [None, {}, {"analytics_storage": "Unset", "ads_storage": "Unset"}, {"uses_transient_token": "No"}],
    "csv": [","],
}
UNREADABLE: dict[str, list[Any]] = {
    "segment": [preferences(analytics="no"), preferences(Marketing=False), preferences(Marketing="x"), {"consent": "no"},
                {"consent": {"analytics": False}}, {"consentManagement": {"deniedConsentIds": ["C0002"]}},
                {"consentManagement": {"deniedConsentIds": "analytics"}}],
    "snowplow": [entity({"analytics": "no"}), entity({"marketing": False}), entity("no"), scopes("statistics"),
                 entity({"eventType": "refused", "consentScopes": []}), '{"data": [{"schema": "iglu:com.ac', '["no"]'],
    "ga4": [{"analytics_storage": "no"}, {"analytics_storage": False}, {"ads_storage": "No"}, {"consent_mode": "x"}, "No"],
    "csv": ["no,", "0,", ",false", ",x"],
}  # fmt: skip
DENIED: dict[str, list[Any]] = {
    "segment": [
        preferences(analytics=False, Marketing=True),
        preferences(analytics=False) | {"consentManagement": "x"},
    ],
    "snowplow": [entity({"analytics": False, "marketing": True}), entity({"eventType": "deny_all"})],
    "ga4": [{"analytics_storage": "No", "ads_storage": "Yes"}, {"analytics_storage": "No", "ads_storage": "x"}],
    "csv": ["false,", "false,true"],
}
GRANTED: dict[str, list[Any]] = {
    "segment": [preferences(analytics=True, Marketing=False)],
    "snowplow": [entity({"analytics": True, "marketing": False})],
    "ga4": [{"analytics_storage": "Yes", "ads_storage": "No"}],
    "csv": ["true,false"],
}


def content(format: str, stated: list[Any]) -> bytes:
    lines = [MAKE[format](number, one) for number, one in enumerate(stated)]
    return "".join(f"{line}\n" for line in ([HEADER] if format == "csv" else []) + lines).encode()


@pytest.mark.parametrize("format", MAKE)
def test_only_who_said_nothing_is_exempt_and_what_cannot_be_read_is_kept_apart(tmp_path: Path, format: str) -> None:
    shop = Shop(tmp_path, EXEMPTING)
    groups = {"silent": SILENT, "unreadable": UNREADABLE, "denied": DENIED, "granted": GRANTED}
    for name, group in groups.items():
        # people of one group must not be those of another: a denial would be learnt of all of them
        shop.land(f"{name}.json", content(format, group[format]).replace(b"u-", f"{name}-".encode()))
    ingest(shop.home, shop.ledger, shop.landing, EXEMPTING, threads=1, intake=intake(format))  # type: ignore[arg-type]
    columns = "accepted, exempt, suppressed, consent_unreadable, quarantined + unparsable"
    counts = {row[0]: row[1:] for row in shop.query(f"SELECT file, {columns} FROM ingested_files")}
    silent, unreadable, denied, granted = (len(group[format]) for group in groups.values())
    assert counts == {
        "silent.json": (silent, silent, 0, 0, 0),
        "unreadable.json": (0, 0, unreadable, unreadable, 0),
        "denied.json": (0, 0, denied, 0, 0),
        "granted.json": (granted, 0, 0, 0, 0),
    }
    files = f"read_parquet('{shop.home.restricted}/consent_unreadable/*.parquet')"
    import duckdb

    kept = [json.loads(line) for (line,) in duckdb.sql(f"SELECT line FROM {files}").fetchall()]
    assert sorted(line["user_id"] for line in kept) == [f"unreadable-{number}" for number in range(unreadable)]
    # nothing is learnt of what nobody can read
    assert {user for user, *_ in shop.statements()} == {f"denied-{number}" for number in range(denied)} | {"granted-0"}


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("segment", "context.consent.Marketing"),
        ("snowplow", "consent.marketing"),
        ("ga4", "privacy_info.ads_storage"),
        ("csv", "consent.sales"),
    ],
)
def test_a_category_that_nobody_declared_is_named_among_the_fields_without_a_place(format: str, name: str) -> None:
    assert adapt_bytes(format, content(format, GRANTED[format]))[1].unmapped == {name: 1}
