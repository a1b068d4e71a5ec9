"""The plan as JSON Schema 2020-12: one schema a line of each event, envelope included.

For those who produce events and want to check them before sending. What a property was called before, or which type it
had, is a `$comment`: validators that refuse keywords of other people take that one. Four things that the pipeline asks and JSON Schema
cannot say: a number without a fraction is an integer there however it is written (2.0), times have to exist in the
calendar and be near the time of receipt, money is judged as it is stored, rounded to four decimals (-0.00001 is 0), and a
number as the double that it is stored as.

Belongs here: that translation. Does not belong here: judging (verdict.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from zantara_pipeline.privacy.consent import MOST_ID_LENGTH
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, EventPlan, Property, TrackingPlan

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {"string": "string", "number": "number", "money": "number", "integer": "integer", "boolean": "boolean"}
# What the warehouse's types hold: DOUBLE, DECIMAL(18,4) and BIGINT.
_LIMITS: dict[str, tuple[float, float]] = {
    "number": (-sys.float_info.max, sys.float_info.max),
    "money": (-99999999999999.9, 99999999999999.9),
    "integer": (-(2**63), 2**63 - 1),
}
_TIME = {"type": "string", "format": "date-time"}


def json_schema(event: EventPlan, plan: TrackingPlan) -> dict[str, Any]:
    """The schema of one event's lines."""
    optional_text = {"type": ["string", "null"]}
    properties = properties_schema(event)
    return {
        "$schema": DIALECT,
        "$id": f"{event.event}-{event.version}.schema.json",
        "title": event.event,
        **({"description": event.description} if event.description else {}),
        "type": "object",
        "properties": {
            "event_id": {"type": "string", "minLength": 1, "maxLength": MOST_ID_LENGTH},
            "event": {"const": event.event},
            "timestamp": _TIME,
            "sent_at": _TIME | {"type": ["string", "null"]},
            "received_at": _TIME | {"type": ["string", "null"]},
            **dict.fromkeys(ENVELOPE_STRINGS, optional_text | {"maxLength": MOST_ID_LENGTH}),
            "properties": properties,
            "context": {"type": ["object", "null"], "properties": dict.fromkeys(CONTEXT_KEYS, optional_text)},
            "consent": {"type": "object", "properties": {name: {"type": "boolean"} for name in plan.purposes}},
        },
        "required": ["event_id", "event", "timestamp", *(["properties"] if properties.get("required") else [])],
        "additionalProperties": False,
    }


def properties_schema(event: EventPlan) -> dict[str, Any]:
    """The schema of `properties` alone."""
    required = [name for name, prop in event.properties.items() if prop.required]
    return {
        "type": "object" if required else ["object", "null"],
        "properties": {name: _property(prop, event.past(name)) for name, prop in event.properties.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _property(prop: Property, past: Sequence[str]) -> dict[str, Any]:
    kind = _TYPES[prop.type]
    low, high = _LIMITS.get(prop.type, (None, None))
    rules = {
        "description": prop.description,
        "$comment": "; ".join(past) or None,
        "minimum": low if prop.min is None else prop.min,
        "maximum": high if prop.max is None else prop.max,
        "pattern": prop.pattern,
        "maxLength": prop.max_length,
        "enum": None if prop.enum is None else [*prop.enum, *([None] if prop.allows_null else [])],
    }
    return {"type": [kind, "null"] if prop.allows_null else kind} | {k: v for k, v in rules.items() if v is not None}


def json_schema_files(plan: TrackingPlan) -> dict[str, str]:
    """<event>.schema.json of every event."""
    return {
        f"{name}.schema.json": json.dumps(json_schema(event, plan), indent=2, ensure_ascii=False) + "\n"
        for name, event in plan.events.items()
    }
