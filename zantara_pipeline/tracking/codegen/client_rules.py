"""What every generated client checks at run time: the plan's events as plain values, the same for all languages.

Belongs here: which events a client has, and their rules. Does not belong here: a language.
"""

from __future__ import annotations

from typing import Any

from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan


def client_events(plan: TrackingPlan) -> list[EventPlan]:
    """Events that can be sent: those with a consent category that are not retired."""
    return [event for event in plan.events.values() if event.consent_category and event.lifecycle.status != "retired"]


def client_rules(event: EventPlan) -> dict[str, Any]:
    """{"consent": category, "properties": {name: rule}}; a rule has `type` and what else the plan says of it."""
    properties = {}
    for name, prop in event.properties.items():
        rule: dict[str, Any] = {"type": prop.type}
        if prop.required:
            rule["required"] = True
        if prop.allows_null:
            rule["nullable"] = True
        for key in ("enum", "pattern", "max_length", "min", "max"):
            value = getattr(prop, key)
            if value is not None:
                rule[key] = value
        properties[name] = rule
    return {"consent": event.consent_category, "properties": properties}
