"""The Python tracking client: one self-contained file, typed by the plan.

A type checker refuses an unknown event, a missing, misspelt or mistyped property and an unknown consent category; the
same is refused at run time.

Belongs here: the part that depends on the plan. Does not belong here: sending (python_runtime.py), which rules an event
has (client_rules.py).
"""

from __future__ import annotations

import keyword
import pprint
import re
from pathlib import Path

from zantara_pipeline.tracking.codegen.client_rules import client_events, client_rules
from zantara_pipeline.tracking.plan import EventPlan, Property, TrackingPlan

_TYPES = {"string": "str", "number": "float", "money": "float", "integer": "int", "boolean": "bool"}
_RUNTIME = Path(__file__).with_name("python_runtime.py")
# Every capitalised name of the runtime (a few words of its comments among them), and what the typed part needs.
_TAKEN = {
    *re.findall(r"\b[A-Z]\w*", _RUNTIME.read_text(encoding="utf-8")),
    *("Literal", "NotRequired", "TrackingClient", "TypedDict"),
}
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
        "from typing import Any, Generic, Protocol, TypeVar",
        "from typing import Any, Generic, Literal, NotRequired, Protocol, TypedDict, TypeVar, overload",
    )
    events = client_events(plan)
    names = _class_names(events)
    typed = [_typed_dict(event, names[event.event]) for event in events]
    parts = [_HEAD, runtime, *typed, _client(events, names, plan)]
    return {"zantara_events.py": "\n\n".join(part.strip("\n") + "\n" for part in parts)}


def class_name(event: str) -> str:
    """product_view -> ProductView."""
    return "".join(word.capitalize() for word in event.split("_"))


def _class_names(events: list[EventPlan]) -> dict[str, str]:
    """Event -> class, with an underscore more where the name is taken: by `Event`, say, or because of a_1 and a1."""
    names: dict[str, str] = {}
    taken = set(_TAKEN)
    for event in events:
        name = class_name(event.event)
        while name in taken:
            name += "_"
        taken.add(name)
        names[event.event] = name
    return names


def _typed_dict(event: EventPlan, name: str) -> str:
    fields = {prop_name: _annotation(prop) for prop_name, prop in event.properties.items()}
    if any(keyword.iskeyword(field) for field in fields):  # a property may be called `class`
        inner = "".join(f'    "{field}": {kind},\n' for field, kind in fields.items())
        return f'{name} = TypedDict("{name}", {{\n{inner}}})'
    lines = [f"class {name}(TypedDict):", f'    """{_sentence(event.description or event.event)}"""', ""]
    return "\n".join([*lines, *(f"    {field}: {kind}" for field, kind in fields.items())])


def _sentence(text: str) -> str:
    """What may stand between the quotes of a docstring."""
    return text.replace("\\", "\\\\").replace('"', "'")


def _annotation(prop: Property) -> str:
    kind = f"Literal[{', '.join(repr(value) for value in prop.enum)}]" if prop.enum else _TYPES[prop.type]
    kind = f"{kind} | None" if prop.allows_null else kind
    return kind if prop.required else f"NotRequired[{kind}]"


def _client(events: list[EventPlan], names: dict[str, str], plan: TrackingPlan) -> str:
    rules = {event.event: client_rules(event) for event in events}
    lines = [
        "class TrackingClient(ClientCore):",
        '    """The events of the plan."""',
        "",
        f"    PURPOSES = {plan.purposes!r}",
        "    PLAN = " + pprint.pformat(rules, width=110, sort_dicts=False).replace("\n", "\n    "),
        "",
    ]
    typed = [
        f'event: Literal["{event.event}"], properties: {names[event.event]}, *, consent: Literal["{event.consent_category}"]'
        for event in events
    ]
    if len(typed) > 1:
        for arguments in typed:
            lines += ["    @overload", f"    def track(self, {arguments}) -> str | None: ..."]
    # One overload alone is an error of Python's type checkers: a single event's types are those of the method itself.
    arguments = typed[0] if len(typed) == 1 else "event: str, properties: Mapping[str, Any], *, consent: str"
    lines += [
        f"    def track(self, {arguments}) -> str | None:",
        '        """Queue one event; returns its id, or None where the person does not allow it."""',
        "        return self._track(event, properties, consent)",
    ]
    return "\n".join(lines)
