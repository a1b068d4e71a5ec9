"""The Python tracking client: one self-contained file, typed by the plan.

A type checker refuses an unknown event, a missing, misspelt or mistyped property and an unknown consent category; the
same is refused at run time.

Belongs here: the part that depends on the plan. Does not belong here: sending (python_runtime.py).
"""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import Any

from zantara_pipeline.tracking.plan import EventPlan, Property, TrackingPlan

_TYPES = {"string": "str", "number": "float", "money": "float", "integer": "int", "boolean": "bool"}
_RUNTIME = Path(__file__).with_name("python_runtime.py")
_HEAD = '''"""Typed tracking client, made by `zantara plan codegen python`: change the tracking plan, not this file.

    client = TrackingClient(FileSink(Path("events.jsonl")), consent=lambda: {"analytics": True})
    client.track("product_view", {"product_id": "p-17"}, consent="analytics")
    client.flush()
"""
'''


def python_client_files(plan: TrackingPlan) -> dict[str, str]:
    """zantara_events.py."""
    runtime = _RUNTIME.read_text(encoding="utf-8").partition('"""\n\n')[2]
    runtime = runtime.replace(
        "from typing import Any, Protocol",
        "from typing import Any, Literal, NotRequired, Protocol, TypedDict, overload",
    )
    events = [event for event in plan.events.values() if event.consent_category and event.lifecycle.status != "retired"]
    parts = [_HEAD, runtime, *(_typed_dict(event) for event in events), _client(events, plan)]
    return {"zantara_events.py": "\n\n".join(part.strip("\n") + "\n" for part in parts)}


def class_name(event: str) -> str:
    """product_view -> ProductView."""
    return "".join(word.capitalize() for word in event.split("_"))


def _typed_dict(event: EventPlan) -> str:
    lines = [
        f"class {class_name(event.event)}(TypedDict):",
        f'    """{_sentence(event.description or event.event)}"""',
        "",
    ]
    lines += [f"    {name}: {_annotation(prop)}" for name, prop in event.properties.items()]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _annotation(prop: Property) -> str:
    kind = f"Literal[{', '.join(repr(value) for value in prop.enum)}]" if prop.enum else _TYPES[prop.type]
    kind = f"{kind} | None" if prop.allows_null else kind
    return kind if prop.required else f"NotRequired[{kind}]"


def _client(events: list[EventPlan], plan: TrackingPlan) -> str:
    rules = {event.event: _rules(event) for event in events}
    lines = [
        "class TrackingClient(ClientCore):",
        '    """The events of the plan."""',
        "",
        f"    PURPOSES = {plan.purposes!r}",
        "    PLAN = " + pprint.pformat(rules, width=110, sort_dicts=False).replace("\n", "\n    "),
        "",
    ]
    for event in events:
        lines += [
            "    @overload",
            f'    def track(self, event: Literal["{event.event}"], properties: {class_name(event.event)}, *, '
            f'consent: Literal["{event.consent_category}"]) -> str | None: ...',
        ]
    if len(events) < 2:
        lines = [line for line in lines if line.strip() != "@overload" and not line.strip().startswith("def track")]
    lines += [
        "    def track(self, event: str, properties: Mapping[str, Any], *, consent: str) -> str | None:",
        '        """Queue one event; returns its id, or None where the person does not allow it."""',
        "        return self._track(event, properties, consent)",
    ]
    return "\n".join(lines)


def _rules(event: EventPlan) -> dict[str, Any]:
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
