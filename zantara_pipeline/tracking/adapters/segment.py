"""Segment and RudderStack: messages of the tracking API (track, page, screen, identify, group, alias), one JSON a line.

Facts from their specifications: messageId is the id of a message; `timestamp` is the device's time corrected by
receivedAt - (sentAt - originalTimestamp); consent is in context.consent.categoryPreferences (Segment) or in
context.consentManagement.allowedConsentIds and deniedConsentIds (RudderStack).

Belongs here: which of their fields goes where. Does not belong here: anything that holds for other formats too (draft.py).
Traits, addresses and every context but platform, country and version of the app stay behind.
"""

from __future__ import annotations

from typing import Any

from zantara_pipeline.tracking.adapters.draft import Draft, emptied, envelope, identifier, said
from zantara_pipeline.tracking.adapters.times import corrected, parse_time, rfc3339

TYPES = ("track", "page", "screen", "identify", "group", "alias")
_OWN_FIELDS = ("messageId", "anonymousId", "userId", "originalTimestamp", "sentAt")
_USED = ("type", "event", "messageId", "userId", "anonymousId", "groupId", "timestamp", "originalTimestamp", "sentAt",
         "receivedAt", "channel", "properties", "context")  # fmt: skip
_USED_CONTEXT = ("consent", "consentManagement", "sessionId", "groupId", "app", "device", "location")
# What stands beside the lists of RudderStack and says nothing of what was allowed.
_ABOUT_CONSENT = ("provider", "resolutionStrategy")
_PLATFORMS = {"browser": "web", "web": "web", "server": "server"}
MARKS = (*_OWN_FIELDS, "batch", "original_timestamp")
"""One of these keys is in each of their messages, requests and rows."""


def is_record(record: dict[str, Any]) -> bool:
    """Whether an object is one of their messages."""
    return record.get("type") in TYPES and any(key in record for key in _OWN_FIELDS)


def is_batch(record: dict[str, Any]) -> bool:
    """Whether an object is a request to their batch API."""
    batch = record.get("batch")
    return isinstance(batch, list) and any(isinstance(one, dict) and is_record(one) for one in batch)


def is_warehouse_row(record: dict[str, Any]) -> bool:
    """Whether an object is a row as they load it into a warehouse: context flattened, names in snake_case."""
    return "original_timestamp" in record and any(key.startswith("context_") for key in record)


def adapt(record: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """One message as an envelope."""
    context = _object(record, "context")
    app, device, place = (_object(context, name) for name in ("app", "device", "location"))
    draft.unmapped.add_rest("", record, _USED)
    draft.unmapped.add_rest("context.", context, _USED_CONTEXT)
    draft.unmapped.add_rest("context.app.", app, ("version",))
    draft.unmapped.add_rest("context.device.", device, ("id", "type"))
    draft.unmapped.add_rest("context.location.", place, ("country",))
    event = draft.event_name(record.get("event") if record.get("type") == "track" else record.get("type"))
    group = record.get("groupId") or context.get("groupId")
    kept = {"platform": _platform(device, record), "country": place.get("country"), "app_version": app.get("version")}
    return envelope({
        "event_id": identifier(record.get("messageId")),
        "event": event,
        "timestamp": _timestamp(record),
        "sent_at": emptied(record.get("sentAt")),
        "received_at": emptied(record.get("receivedAt")),
        "user_id": identifier(record.get("userId")),
        "anonymous_id": identifier(record.get("anonymousId")),
        "session_id": identifier(context.get("sessionId")),
        "device_id": identifier(device.get("id")),
        "organisation_id": identifier(group),
        "properties": _properties(record, event, draft),
        "context": envelope({key: emptied(value) for key, value in kept.items()}) or None,
        "consent": _consent(context, draft) or None,
    })  # fmt: skip


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _timestamp(record: dict[str, Any]) -> Any:
    """Their corrected time; else the same correction made here; else what the device said, or when it was received."""
    if record.get("timestamp"):
        return emptied(record["timestamp"])
    created, sent, received = (parse_time(record.get(key)) for key in ("originalTimestamp", "sentAt", "receivedAt"))
    if created and sent and received:
        return rfc3339(corrected(received, created, sent))
    return emptied(record.get("originalTimestamp") or record.get("receivedAt"))


def _platform(device: dict[str, Any], record: dict[str, Any]) -> str | None:
    kind = str(device.get("type")).lower()
    return kind if kind in ("ios", "android") else _PLATFORMS.get(str(record.get("channel")).lower())


def _properties(record: dict[str, Any], event: Any, draft: Draft) -> Any:
    found = record.get("properties")
    if found is None or isinstance(found, dict):
        return draft.properties(event, (found or {}).items(), "properties.")
    return [] if isinstance(found, (list, str)) else found


def _consent(context: dict[str, Any], draft: Draft) -> dict[str, bool | str]:
    """What both tools say is combined, and denied wins."""
    preferences, garbled = _preferences(context.get("consent"))
    managed, unclear = _managed(context.get("consentManagement"))
    for wrong, name in ((garbled, "context.consent"), (unclear, "context.consentManagement")):
        if wrong:
            draft.unmapped.add(name)
    stated = {name: said(part.get(name) for part in (preferences, managed)) for name in {**preferences, **managed}}
    return draft.consent(stated, "context.consent.", garbled=garbled or unclear)


def _preferences(consent: Any) -> tuple[dict[str, Any], bool]:
    """Category -> answer of Segment's consent; and whether it holds something in another shape."""
    if not isinstance(consent, dict):
        return {}, consent is not None
    found = consent.get("categoryPreferences")
    if isinstance(found, dict):
        return found, False
    return {}, any(value not in (None, {}) for value in consent.values())


def _managed(management: Any) -> tuple[dict[str, Any], bool]:
    """Category -> answer of RudderStack's two lists; and whether it holds something in another shape."""
    if not isinstance(management, dict):
        return {}, management is not None
    allowed, denied = management.get("allowedConsentIds"), management.get("deniedConsentIds")
    stated = dict.fromkeys(_texts(allowed), True) | dict.fromkeys(_texts(denied), False)
    silent = allowed is None and denied is None
    beside = [management[key] for key in management.keys() - set(_ABOUT_CONSENT)] if silent else []
    return stated, _misshapen(allowed) or _misshapen(denied) or any(value is not None for value in beside)


def _texts(found: Any) -> list[str]:
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _misshapen(found: Any) -> bool:
    return found is not None and not (isinstance(found, list) and len(_texts(found)) == len(found))
