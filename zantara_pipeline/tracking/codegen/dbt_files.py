"""The dbt files of every event: its source, its staging model, and their documented columns.

`zantara plan codegen dbt --out dbt_project` writes them; a test requires that they are what the plan says.

Belongs here: those files. Does not belong here: models written by hand.
"""

from __future__ import annotations

import json

from zantara_pipeline.tracking.plan import EventPlan, Property, TrackingPlan

_WRITTEN_BY = "made by `zantara plan codegen dbt --out dbt_project`; change the tracking plan, not this file"
_ENVELOPE = {
    "event_id": "Id of the event, unique after deduplication.",
    "event": "Name of the event in the tracking plan.",
    "occurred_at": "When it happened (UTC).",
    "received_at": "When the collector received it (UTC); occurred_at where the collector did not say.",
    "received_date": "Day of received_at; the partition of the lake.",
    "user_id": "The company's own opaque id of the person; null for guests.",
    "anonymous_id": "Id of the browser or app before login.",
    "session_id": "Session as the collector cut it.",
    "device_id": "Device.",
    "organisation_id": "Organisation the person acted for.",
    "plan_version": "Version of the event in the tracking plan that it was validated against.",
    "source": "Landed file it came from (name and first digits of its sha256).",
    "line_no": "Line in that file, from 1.",
    "consent_basis": "granted or exempt.",
    "consent_analytics": "Did the person allow analytics when it happened?",
    "consent_personalization": "Did the person allow personalization when it happened?",
    "is_late": "Received later than ZANTARA_LATE_AFTER_HOURS after it happened.",
    "received_at_missing": "The collector did not say when it received the event.",
    "platform": "web, ios or android.",
    "country": "Country, as the collector states it.",
    "app_version": "Version of the app or page.",
}


def dbt_files(plan: TrackingPlan) -> dict[str, str]:
    """Relative path below the dbt project -> text."""
    events = list(plan.events.values())
    files = {
        f"models/staging/stg_lake__{event.event}.sql": f"{{{{ staged_event('{event.event}') }}}}\n" for event in events
    }
    return files | {
        "models/staging/_lake_events.yml": _yaml(events),
        "macros/lake_events.sql": _macro([event.event for event in events]),
    }


def _macro(names: list[str]) -> str:
    listed = "".join(f"        '{name}',\n" for name in names).rstrip(",\n")
    return (
        f"{{# The events of the tracking plan; {_WRITTEN_BY}. #}}\n"
        f"{{% macro lake_events() %}}\n    {{{{ return([\n{listed}\n    ]) }}}}\n{{% endmacro %}}\n"
    )


def _yaml(events: list[EventPlan]) -> str:
    lines = [f"# Events of the lake; {_WRITTEN_BY}.", "version: 2", "", "sources:", "  - name: lake"]
    lines += ["    schema: lake", "    tables:"]
    for event in events:
        lines += [f"      - name: {event.event}", f"        description: {_text(event.description)}"]
    lines += ["", "models:"]
    for event in events:
        lines += [
            f"  - name: stg_lake__{event.event}",
            f"    description: {_text(f'{event.description or event.event} Copies removed. Grain: event_id.')}",
            "    config:", "      meta:", f"        owner: {event.owner or 'nobody'}", "    columns:",
        ]  # fmt: skip
        described = _ENVELOPE | {name: _described(prop) for name, prop in event.properties.items()}
        for name, description in described.items():
            lines += [f"      - name: {name}", f"        description: {_text(description)}"]
    return "\n".join(lines) + "\n"


def _described(prop: Property) -> str:
    stored = " Stored as a keyed hash." if prop.pii == "direct" else ""
    return f"{prop.description or ''}{stored}".strip()


def _text(description: str | None) -> str:
    """A YAML double-quoted scalar: JSON's strings are a subset of those."""
    return json.dumps(description or "", ensure_ascii=False)
