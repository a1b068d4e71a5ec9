"""Google Analytics 4: rows of the BigQuery export (events_YYYYMMDD) as JSON lines.

Facts from its schema: event_timestamp is microseconds UTC; event_params is a list of {key, value} with one of string_value,
int_value, float_value and double_value; 64-bit integers are written as text by BigQuery; privacy_info.analytics_storage and
ads_storage are Yes, No or Unset; a row has no id of its own.

Belongs here: which of its fields goes where, and the id made for a row. Does not belong here: anything that holds for other
formats too (draft.py). A row without user_id and user_pseudo_id gets no identity, and no session either: the session's
number is a time in seconds, which strangers share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from zantara_pipeline.tracking.adapters.contract import FormatRules
from zantara_pipeline.tracking.adapters.draft import UNREADABLE, Draft, emptied, envelope, identifier, text_as
from zantara_pipeline.tracking.adapters.times import from_micros, rfc3339
from zantara_pipeline.tracking.plan import Kind

_USED = ("event_timestamp", "event_name", "event_params", "user_id", "user_pseudo_id", "platform", "privacy_info",
         "geo", "app_info", "items", "ecommerce")  # fmt: skip
_ANSWERS = {"Yes": True, "No": False, "Unset": None}
# A field of privacy_info that is no answer of the person: whether ads are measured without cookies.
_NO_CONSENT = "uses_transient_token"
_SESSION = "ga_session_id"
MARKS = ("event_timestamp",)
"""Keys that each row has."""


def is_record(record: dict[str, Any]) -> bool:
    """Whether an object is a row of the export."""
    return "event_timestamp" in record and "event_name" in record


def adapt(record: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """One row as an envelope."""
    geo, app = _object(record, "geo"), _object(record, "app_info")
    draft.unmapped.add_rest("", record, _USED)
    draft.unmapped.add_rest("geo.", geo, ("country",))
    draft.unmapped.add_rest("app_info.", app, ("version",))
    event = draft.event_name(record.get("event_name"))
    person = identifier(record.get("user_pseudo_id"))
    params = list(_params(record.get("event_params")))
    moment = from_micros(record.get("event_timestamp"))
    kept = {
        "platform": _lower(record.get("platform")),
        "country": geo.get("country"),
        "app_version": app.get("version"),
    }
    return envelope({
        "event_id": row_id(record),
        "event": event,
        "timestamp": rfc3339(moment) if moment else emptied(record.get("event_timestamp")),
        "user_id": identifier(record.get("user_id")),
        "anonymous_id": person,
        "session_id": _session(person, params),
        "properties": _properties(record, event, params, draft),
        "context": envelope({key: emptied(value) for key, value in kept.items() if value != ""}) or None,
        "consent": _consent(record.get("privacy_info"), draft) or None,
    })  # fmt: skip


def _consent(info: Any, draft: Draft) -> dict[str, bool | str]:
    """Yes and No are answers, Unset and null are none, and anything else cannot be read."""
    if not isinstance(info, dict):
        if info is not None:
            draft.unmapped.add("privacy_info")
        return draft.consent({}, "privacy_info.", garbled=info is not None)
    if info.get(_NO_CONSENT) is not None and not draft.knows(_NO_CONSENT):
        draft.unmapped.add(f"privacy_info.{_NO_CONSENT}")
        info = {key: value for key, value in info.items() if key != _NO_CONSENT}
    answers = {key: _answer(value) for key, value in info.items()}
    return draft.consent(answers, "privacy_info.")


def _answer(value: Any) -> Any:
    if value is None:
        return None
    return _ANSWERS.get(value, UNREADABLE) if isinstance(value, str) else UNREADABLE


def row_id(record: dict[str, Any]) -> str:
    """The id made for a row: a hash of all it holds. Equal for exact copies, whatever the order of keys; else different.

    A null is the same as an absent field, and a whole number the same as its digits: BigQuery writes both either way.
    """
    return "ga4-" + hashlib.sha256(_canonical(record).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _canonical(value: Any) -> str:
    """One text per value; every text is preceded by its length, so that no two values share one."""
    if isinstance(value, dict):
        pairs = sorted((_canonical(key), _canonical(inner)) for key, inner in value.items() if inner is not None)
        return "{" + "".join(f"{key}{inner}" for key, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + "".join(map(_canonical, value)) + "]"
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        text = str(value)
        return f"s{len(text)}:{text}"
    return f"v{value};"


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _params(found: Any) -> Iterator[tuple[str, Any]]:
    """Key and value of every parameter; those without a value, or of no such shape, are none."""
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict) and isinstance(one.get("key"), str) and isinstance(one.get("value"), dict):
            value = _typed(one["value"])
            if value is not None:
                yield one["key"], value


def _typed(value: dict[str, Any]) -> Any:
    if value.get("string_value") is not None:
        return value["string_value"]
    for name, kind in (("int_value", "integer"), ("double_value", "number"), ("float_value", "number")):
        found = value.get(name)
        if found is not None:
            return text_as(kind, found) if isinstance(found, str) else found  # type: ignore[arg-type]
    return None


def _session(person: Any, params: list[tuple[str, Any]]) -> str | None:
    number = next((value for key, value in params if key == _SESSION), None)
    if not isinstance(person, str) or not isinstance(number, (int, str)) or isinstance(number, bool):
        return None
    return f"{person}.{number}"


def _properties(record: dict[str, Any], event: Any, params: list[tuple[str, Any]], draft: Draft) -> dict[str, Any]:
    """Parameters; fields of the one item and of the ecommerce record that the contract asks for."""
    pairs: dict[str, Any] = {}
    for key, value in params:
        if key in pairs:
            draft.unmapped.add(f"event_params.{key}")
        elif key != _SESSION:
            pairs[key] = value
    items = record.get("items")
    items = items if isinstance(items, list) else []
    if len(items) > 1:
        draft.unmapped.add("items where several")
    one = items[0] if len(items) == 1 and isinstance(items[0], dict) else {}
    rules = draft.rules
    assert isinstance(rules, FormatRules)
    for level, fields in (("items.", one), ("ecommerce.", _object(record, "ecommerce"))):
        asked = [key.removeprefix(level) for key in rules.properties if key.startswith(level)]
        draft.unmapped.add_rest(level, fields, asked)
        pairs |= {f"{level}{name}": fields[name] for name in asked if fields.get(name) is not None}
    fitting = [(key, _fit(draft.kind(event, rules.properties.get(key, key)), value)) for key, value in pairs.items()]
    return draft.properties(event, fitting, "")


def _fit(kind: Kind | None, value: Any) -> Any:
    """GA4 chooses a type by looking at the value: a text of digits is sent as an integer, and integers come as text."""
    if kind == "string" and isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(value)
    return text_as(kind, value) if isinstance(value, str) else value
