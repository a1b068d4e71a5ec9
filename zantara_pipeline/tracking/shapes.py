"""The structural check on raw JSON: is the shape of this line what the plan declares?

A million lines have a few dozen distinct shapes (JSON type of every declared path, plus the count of keys), so a
verdict is made once per shape, in plain Python. It comes before any typed read, because typed JSON readers turn
"53.0" into 53.0 and drop unknown keys without a word.

Belongs here: shapes and structural reasons. Does not belong here: values (sql_checks.py) or consent (verdict.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, EventPlan, TrackingPlan

ENVELOPE = (
    "event_id",
    "event",
    "timestamp",
    "sent_at",
    "received_at",
    *ENVELOPE_STRINGS,
    "properties",
    "context",
    "consent",
)
_REQUIRED = ("event_id", "event", "timestamp")
_JSON_NAMES = {
    "VARCHAR": "string", "DOUBLE": "number", "BIGINT": "integer", "UBIGINT": "integer", "HUGEINT": "integer",
    "UHUGEINT": "integer", "BOOLEAN": "boolean", "OBJECT": "object", "ARRAY": "array", "NULL": "null",
}  # fmt: skip
_ACCEPTS = {
    "string": {"string"},
    "number": {"number", "integer"},
    "money": {"number", "integer"},
    "integer": {"integer"},
    "boolean": {"boolean"},
}


class Reason(NamedTuple):
    """Why a line failed; never the offending value itself."""

    code: str
    path: str
    keyword: str
    expected: str
    actual_type: str


def declared_properties(plan: TrackingPlan) -> list[str]:
    """Names of all properties that any event declares, sorted."""
    return sorted({name for event in plan.events.values() for name in event.properties})


def declared_paths(plan: TrackingPlan) -> list[str]:
    """JSON paths whose types make up a shape: envelope, kept context, consent purposes, all declared properties."""
    return [
        *(f"$.{name}" for name in ENVELOPE),
        *(f"$.context.{name}" for name in CONTEXT_KEYS),
        *(f"$.consent.{name}" for name in plan.purposes),
        *(f"$.properties.{name}" for name in declared_properties(plan)),
    ]


class Shape(NamedTuple):
    """One distinct shape: event name, JSON type per declared path (None: absent), keys seen at the two levels.

    property_keys is None where there is no `properties` at all.
    """

    event: str | None
    types: Sequence[str | None]
    keys: int
    property_keys: int | None


def structural_reasons(shape: Shape, plan: TrackingPlan) -> list[Reason]:
    """All structural reasons against one shape; empty when it is as declared.

    An unknown key is reported as one reason per level with the path of the level; ingest.py adds the names of the
    keys, which are not part of the shape.
    """
    kinds = {
        path: None if t is None else _JSON_NAMES.get(t, t.lower())
        for path, t in zip(declared_paths(plan), shape.types, strict=True)
    }
    event = plan.events.get(shape.event or "") if kinds["$.event"] == "string" else None
    reasons = _envelope_reasons(kinds)
    if kinds["$.event"] == "string" and event is None:
        reasons.append(Reason("unknown_event", "$.event", "enum", "an event of the tracking plan", "string"))
    if event is not None and event.lifecycle.status == "retired":
        successor = event.lifecycle.replaced_by
        expected = f"{successor}, which replaced it" if successor else "an event that is not retired"
        reasons.append(Reason("retired_event", "$.event", "deprecated", expected, "string"))
    present = sum(kinds[f"$.{name}"] is not None for name in ENVELOPE)
    if shape.keys > present:
        reasons.append(Reason("unknown_key", "$", "additionalProperties", "declared keys only", "object"))
    if event is not None and kinds["$.properties"] in ("object", "null", None):
        reasons += _property_reasons(kinds, event, shape.property_keys or 0)
    return reasons


def _envelope_reasons(kinds: dict[str, str | None]) -> list[Reason]:
    reasons = [
        Reason("missing_key", f"$.{name}", "required", "string", "absent")
        for name in _REQUIRED
        if kinds[f"$.{name}"] is None
    ]
    texts = [f"$.{name}" for name in (*_REQUIRED, "sent_at", "received_at", *ENVELOPE_STRINGS)]
    texts += [f"$.context.{name}" for name in CONTEXT_KEYS]
    for path in texts:
        kind = kinds[path]
        required = path.removeprefix("$.") in _REQUIRED
        if kind is not None and kind != "string" and (required or kind != "null"):
            code = "null_not_allowed" if kind == "null" else "wrong_type"
            reasons.append(Reason(code, path, "type", "string", kind))
    for path in ("$.properties", "$.context"):
        if kinds[path] not in (None, "null", "object"):
            reasons.append(Reason("wrong_type", path, "type", "object", str(kinds[path])))
    return reasons


def _property_reasons(kinds: dict[str, str | None], event: EventPlan, keys: int) -> list[Reason]:
    reasons = []
    present = 0
    for name, prop in event.properties.items():
        path = f"$.properties.{name}"
        kind = kinds[path]
        present += kind is not None
        if kind is None:
            if prop.required:
                reasons.append(Reason("missing_key", path, "required", prop.type, "absent"))
        elif kind == "null":
            if not prop.allows_null:
                reasons.append(Reason("null_not_allowed", path, "type", prop.type, "null"))
        elif kind not in _ACCEPTS[prop.type]:
            reasons.append(Reason("wrong_type", path, "type", prop.type, kind))
    if keys > present:
        reasons.append(
            Reason("unknown_key", "$.properties", "additionalProperties", "declared properties only", "object")
        )
    return reasons
