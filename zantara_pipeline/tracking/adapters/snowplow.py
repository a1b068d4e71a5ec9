"""Snowplow: enriched events, as the enricher's TSV or with the atomic columns as JSON lines.

Facts from its documentation: the TSV has 131 columns in a fixed order and no header, its times are UTC without a zone;
derived = collector - (device sent - device created), or the true time where the tracker states one; self-describing data
is {schema: "iglu:vendor/name/format/version", data}, and the loaders flatten it into columns unstruct_event_<vendor>_<name>_<model>
and contexts_<vendor>_<name>_<model>.

Belongs here: which of its columns goes where. Does not belong here: anything that holds for other formats too (draft.py).
Every column that is not named below or asked for in adapters.yaml stays behind: addresses, places, pages, devices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from zantara_pipeline.tracking.adapters.contract import SnowplowRules
from zantara_pipeline.tracking.adapters.draft import Draft, emptied, envelope, identifier, said, text_as
from zantara_pipeline.tracking.adapters.times import corrected, parse_time, rfc3339

COLUMNS = tuple(
    """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker
    v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid geo_country
    geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization ip_domain
    ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath page_urlquery
    page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery refr_urlfragment refr_medium
    refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign contexts se_category se_action se_label
    se_property se_value unstruct_event tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state tr_country
    ti_orderid ti_sku ti_name ti_category ti_price ti_quantity pp_xoffset_min pp_xoffset_max pp_yoffset_min
    pp_yoffset_max useragent br_name br_family br_version br_type br_renderengine br_lang br_features_pdf
    br_features_flash br_features_java br_features_director br_features_quicktime br_features_realplayer
    br_features_windowsmedia br_features_gears br_features_silverlight br_cookies br_colordepth br_viewwidth
    br_viewheight os_name os_family os_manufacturer os_timezone dvce_type dvce_ismobile dvce_screenwidth
    dvce_screenheight doc_charset doc_width doc_height tr_currency tr_total_base tr_tax_base tr_shipping_base ti_currency
    ti_price_base base_currency geo_timezone mkt_clickid mkt_network etl_tags dvce_sent_tstamp refr_domain_userid
    refr_device_tstamp derived_contexts domain_sessionid derived_tstamp event_vendor event_name event_format
    event_version event_fingerprint true_tstamp
    """.split()  # noqa: SIM905 - 131 names are read more easily as words
)
_USED = ("platform", "collector_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp", "derived_tstamp", "true_tstamp",
         "event", "event_name", "event_id", "user_id", "domain_userid", "domain_sessionid", "geo_country", "os_family",
         "contexts", "derived_contexts", "unstruct_event")  # fmt: skip
_UNSTRUCT, _CONTEXTS = "unstruct_event_", "contexts_"
_IGLU = re.compile(r"iglu:[^/]+/([^/]+)/[^/]+/[^/]+")
_NO_SCHEMA = "(no schema)"
_ALLOWED = ("allow_all", "allow_selected")
_WITHHELD = ("deny_all", "withdrawn", "expired")
_NO_CHOICE = ("pending", "implicit_consent")
# Bases of article 6(1) GDPR, as consent_preferences names them, that rest on no choice of the person.
_OTHER_BASES = (
    "contract",
    "legal_obligation",
    "vital_interests",
    "public_task",
    "public_interest",
    "legitimate_interests",
)

_NO_JSON = ""

Entity = tuple[str, Any]
"""Name (of the schema, or of the flattened column) and data."""
MARKS = ("collector_tstamp",)
"""Keys that each object with the atomic columns has."""


def is_record(record: dict[str, Any]) -> bool:
    """Whether an object has the atomic columns."""
    return "collector_tstamp" in record


def from_tsv(line: str) -> dict[str, Any] | None:
    """The columns of one line of the enricher's TSV that hold something; None where it has not all columns."""
    cells = line.rstrip("\r\n").split("\t")
    if len(cells) != len(COLUMNS):
        return None
    return {name: cell for name, cell in zip(COLUMNS, cells, strict=True) if cell}


def adapt(record: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """One enriched event as an envelope.

    Self-describing data that is no JSON, or has a key twice, is no data: properties of a wrong type, and unreadable consent
    where consent may have stood in it.
    """
    rules = draft.rules
    assert isinstance(rules, SnowplowRules)
    own, entities = _self_describing(record), list(_entities(record))
    asked = [key.removeprefix("atomic.") for key in rules.properties if key.startswith("atomic.")]
    flattened = [key for key in record if key.startswith((_UNSTRUCT, _CONTEXTS))]
    struct = ("se_action",) if record.get("event") == "struct" else ()
    draft.unmapped.add_rest("", record, (*_USED, *asked, *flattened, *struct))
    for name, _ in entities:
        if not any(_is_named(name, known) for known in (*rules.consent_entities, "application")):
            draft.unmapped.add(f"contexts.{name}")
    event = draft.event_name(_event_name(record, own))
    collector = parse_time(record.get("collector_tstamp"), zone_is_utc=True)
    return envelope({
        "event_id": identifier(record.get("event_id")),
        "event": event,
        "timestamp": _timestamp(record),
        "sent_at": _time_text(record.get("dvce_sent_tstamp")),
        "received_at": rfc3339(collector) if collector else emptied(record.get("collector_tstamp")),
        "user_id": identifier(record.get("user_id")),
        "anonymous_id": identifier(record.get("domain_userid")),
        "session_id": identifier(record.get("domain_sessionid")),
        "properties": _properties(record, event, own, draft),
        "context": _context(record, entities) or None,
        "consent": _consent(record, [*entities, own], draft) or None,
    })  # fmt: skip


def _event_name(record: dict[str, Any], own: Entity) -> Any:
    if record.get("event") == "struct":
        return record.get("se_action")
    return record.get("event_name") or own[0] or record.get("event")


def _timestamp(record: dict[str, Any]) -> Any:
    """The true time where stated; else the device's time by the collector's clock; else what is there."""
    true, created, sent, collector, derived = (
        parse_time(record.get(name), zone_is_utc=True)
        for name in ("true_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp", "collector_tstamp", "derived_tstamp")
    )
    if not true and created and sent and collector:
        return rfc3339(corrected(collector, created, sent))
    known = true or derived or collector
    return rfc3339(known) if known else emptied(record.get("collector_tstamp"))


def _time_text(value: Any) -> Any:
    moment = parse_time(value, zone_is_utc=True)
    return rfc3339(moment) if moment else emptied(value)


def _properties(record: dict[str, Any], event: Any, own: Entity, draft: Draft) -> Any:
    """The data of a self-describing event, and the atomic columns that the contract asks for."""
    data = own[1]
    if isinstance(data, list):  # a loader's column of records: the event has one
        data = data[0] if len(data) == 1 else data
    if data is not None and not isinstance(data, dict):
        return emptied(data)
    rules = draft.rules
    assert isinstance(rules, SnowplowRules)
    pairs = list((data or {}).items())
    for theirs, ours in rules.properties.items():
        value = record.get(theirs.removeprefix("atomic."))
        if theirs.startswith("atomic.") and value is not None:
            pairs.append((theirs, text_as(draft.kind(event, ours), value) if isinstance(value, str) else value))
    return draft.properties(event, pairs, "unstruct_event.")


def _context(record: dict[str, Any], entities: list[Entity]) -> dict[str, Any]:
    platform = record.get("platform")
    if platform == "srv":
        platform = "server"
    elif platform == "mob" and str(record.get("os_family")).lower() in ("ios", "android"):
        platform = str(record["os_family"]).lower()
    apps = [data for name, data in entities if _is_named(name, "application") and isinstance(data, dict)]
    version = apps[0].get("version") if apps else None
    kept = {"platform": platform, "country": record.get("geo_country"), "app_version": version}
    return envelope({key: emptied(value) for key, value in kept.items()})


def _self_describing(record: dict[str, Any]) -> Entity:
    """Name and data of the event itself; ("", None) where it is not self-describing."""
    whole = _json(record.get("unstruct_event"))
    if isinstance(whole, dict):
        return next(_described([whole.get("data")]), ("", _NO_JSON))
    if whole is not None:
        return "", _NO_JSON
    for key, data in record.items():
        if key.startswith(_UNSTRUCT) and data is not None:
            return key.removeprefix(_UNSTRUCT), _json(data)
    return "", None


def _entities(record: dict[str, Any]) -> Iterator[Entity]:
    for column in ("contexts", "derived_contexts"):
        whole = _json(record.get(column))
        found = whole.get("data") if isinstance(whole, dict) else whole
        yield from _described(found if isinstance(found, list) else [])
    for key, value in record.items():
        if key.startswith(_CONTEXTS):
            data = _json(value)
            yield from ((key.removeprefix(_CONTEXTS), one) for one in (data if isinstance(data, list) else [data]))


def _described(found: list[Any]) -> Iterator[Entity]:
    for one in found:
        if isinstance(one, dict):
            schema = _IGLU.fullmatch(str(one.get("schema")))
            yield (schema[1] if schema else _NO_SCHEMA), one.get("data")


def _json(value: Any) -> Any:
    """A column that holds JSON, as text (TSV, some loaders) or as it is (others)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_each_key_once)
    except (ValueError, ArithmeticError, RecursionError):
        return _NO_JSON


def _refuse(_: str) -> None:
    raise ValueError


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values holds cannot be known; the first may be a denial."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _is_named(found: str, wanted: str) -> bool:
    """A schema's name is the name; a flattened column is vendor, name and version in one."""
    return found == wanted or re.search(rf"(^|_){re.escape(wanted)}_\d+(_\d+_\d+)?$", found) is not None


def _consent(record: dict[str, Any], entities: list[Entity], draft: Draft) -> dict[str, bool | str]:
    """Over all entities that state consent, and the event itself if it does; denied wins."""
    rules = draft.rules
    assert isinstance(rules, SnowplowRules)
    stated: dict[str, Any] = {}
    garbled = any(_is_broken(record.get(column)) for column in ("contexts", "derived_contexts"))
    for name, data in entities:
        garbled |= name == _NO_SCHEMA
        if any(_is_named(name, known) for known in rules.consent_entities):
            for one in data if isinstance(data, list) else [data]:
                answers = _answers(one, draft) if isinstance(one, dict) else None
                garbled |= answers is None and one is not None
                for scope, answer in (answers or {}).items():
                    stated[scope] = said([stated.get(scope), answer])
    event = record.get("event_name")
    if not isinstance(event, str) or any(_is_named(event, known) for known in rules.consent_entities):
        garbled |= entities[-1] == ("", _NO_JSON)  # the event itself, which may have been the statement
    if garbled:
        draft.unmapped.add("consent")
    return draft.consent(stated, "consent.", garbled=garbled)


def _is_broken(column: Any) -> bool:
    """Whether a column of entities holds something else than entities."""
    whole = _json(column)
    found = whole.get("data") if isinstance(whole, dict) else whole
    return found is not None and not (isinstance(found, list) and all(isinstance(one, dict) for one in found))


def _answers(data: dict[str, Any], draft: Draft) -> dict[str, Any] | None:
    """What one entity says; None where it cannot be read.

    With scopes: those that a person selected are allowed, and the other declared ones are not. A purpose that is known by
    its own name only is not denied by scopes that the contract does not know: one of them may stand for it.
    """
    scopes = data.get("consentScopes", data.get("consent_scopes"))
    kind = data.get("eventType", data.get("event_type"))
    if scopes is None and kind is None:
        return data
    basis = data.get("basisForProcessing", data.get("basis_for_processing"))
    known = {name for purpose in draft.plan.privacy.purposes for name in draft.categories(purpose)}
    if kind in _WITHHELD:
        return dict.fromkeys(known, False)
    if kind in _NO_CHOICE or (kind in _ALLOWED and basis in _OTHER_BASES):
        return {}
    if kind not in _ALLOWED or basis != "consent" or not isinstance(scopes, list):
        return None
    if not all(isinstance(scope, str) for scope in scopes):
        return None
    if not all(draft.knows(scope) for scope in scopes):
        assert isinstance(draft.rules, SnowplowRules)
        known &= draft.rules.consent.keys()
    return dict.fromkeys(known, False) | dict.fromkeys(scopes, True)
