"""`zantara plan import`: plans written for other tools become YAML of ours.

Understood: one JSON entry (or a list of them) of the shape {event, description, properties: {name: type}, context,
owner, platforms}; Segment's tracking plan, as its older API gives it (rules.events[].rules) and as the newer one does
(rules[] of type TRACK with a jsonSchema).

Belongs here: reading those shapes, and saying what they hold that ours cannot. Does not belong here: what is missing
from the result (lint.py says that).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.plan import RESERVED, EventPlan, Property

_TYPES = {
    "string": "string",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "float": "number",
    "money": "money",
}
# Rules of a JSON Schema by their names here, and our own, which the short entry may have.
_RULES = {
    "description": "description", "enum": "enum", "pattern": "pattern", "minimum": "min", "maximum": "max",
    "maxLength": "max_length", "min": "min", "max": "max", "max_length": "max_length", "nullable": "nullable", "pii": "pii",
    "retention_days": "retention_days",
}  # fmt: skip

_NO_NAME = "a name here begins with a letter and has 40 letters, digits and underscores at most"

# Rules for traits, for every event, for pages.
_NO_EVENT = "left out: a plan has events of its own only; declare there what each of them needs"


class _Odd(ValueError):
    """A part of a foreign plan that has another shape than the rest promises; says which."""


@dataclass
class Imported:
    """One event as the keys of our YAML, and what of the original has no place there."""

    entry: dict[str, Any]
    original: str
    notes: list[str] = field(default_factory=list)


@dataclass
class ForeignPlan:
    """The events of a file, and what else it says that has no place in a plan of ours."""

    events: list[Imported]
    notes: list[str]


def read_foreign_plan(path: Path) -> ForeignPlan:
    """All events of a JSON file; what of them has no place in a plan of ours is left out and named, the rest is taken.

    Raises
    ------
    InputError : not JSON, none of the shapes understood, or nothing that can be taken.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path, "check the path") from None
    except UnicodeDecodeError:
        raise InputError("it is no UTF-8 text", path, "save it as UTF-8") from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}", path, "export the plan again") from None
    except RecursionError:
        raise InputError("not a plan: it is nested too deeply", path, "export the plan again") from None
    notes: list[str] = []
    try:
        events = list(_events(data, notes))
    except _Odd as odd:
        raise InputError(str(odd), path, "export the plan again, or correct it there") from None
    if not events:
        known = "an entry with 'event' and 'properties', a list of them, or a Segment tracking plan"
        raise InputError("no events of a tracking plan in it", path, f"give {known}")
    events = _nameable(events, notes, path)
    names = [event.entry["event"] for event in events]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise InputError(f"two of its events would be named '{twice}' here", path, "rename one of them there")
    return ForeignPlan(events, notes)


def _nameable(events: list[Imported], notes: list[str], path: Path) -> list[Imported]:
    """Events that can have their names here; the others are noted."""
    misnamed = [event for event in events if not _is_name(event.entry["event"])]
    if len(misnamed) == len(events):
        raise InputError(f"{_misnamed('event', misnamed[0].original)}; so no event is left", path, "rename it there")
    notes += [f"{_misnamed('event', event.original)}; rename it there" for event in misnamed]
    return [event for event in events if event not in misnamed]


def _is_name(text: str) -> bool:
    return _problem(EventPlan, _head("a") | {"event": text}) is None


def _misnamed(kind: str, original: str) -> str:
    return f"{kind} {json.dumps(original, ensure_ascii=False)} is left out: {_NO_NAME}"


def _problem(model: type[BaseModel], value: dict[str, Any]) -> tuple[str, str] | None:
    """The first key of a value that a contract does not take (empty: several together), and why."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = first["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
        return str(first["loc"][0]) if first["loc"] else "", why
    return None


def write_events(events: list[Imported], folder: Path) -> list[Path]:
    """Write each event as <folder>/<event>.yaml.

    Raises
    ------
    InputError : a file of that name is there already (nothing is written then), or an event that cannot be a plan.
    """
    written = {folder / f"{e.entry['event']}.yaml": e for e in events}
    for path, event in written.items():
        if path.exists():
            raise InputError("is there already", path, "import into another folder, or remove it first")
        try:
            EventPlan.model_validate(event.entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"event '{event.entry['event']}', key '{key}': {first['msg']}", None, "mend it there"
            ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, event in written.items():
            path.write_text(yaml.safe_dump(event.entry, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        what = f"cannot be written into ({error.strerror})"
        raise InputError(what, folder, "give another --out, or change its permissions") from None
    return list(written)


def _events(data: Any, notes: list[str]) -> Iterator[Imported]:
    if isinstance(data, list):
        for entry in data:
            yield from _events(entry, notes)
    elif isinstance(data, dict):
        rules = data.get("rules", data.get("data", {}).get("rules") if isinstance(data.get("data"), dict) else None)
        if "event" in data and isinstance(data.get("properties", {}), dict):
            yield _entry(data)
        elif isinstance(rules, dict):
            listed = _objects(rules.get("events") or [], "rules.events")
            notes += [f"'rules.{key}' {_NO_EVENT}" for key, rule in rules.items() if key != "events" and rule]
            yield from (_segment(rule.get("name"), rule, rule.get("rules")) for rule in listed)
        elif isinstance(rules, list):
            listed = _objects(rules, "rules")
            tracked = [rule for rule in listed if rule.get("type") == "TRACK"]
            others = sorted({json.dumps(rule.get("type")) for rule in listed if rule.get("type") != "TRACK"})
            notes += [f"rules of type {kind} {_NO_EVENT}" for kind in others]
            yield from (_segment(rule.get("key"), rule, rule.get("jsonSchema")) for rule in tracked)


def _objects(found: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _Odd(f"its '{name}' is no list of objects")
    return found


def _object(found: Any, name: str) -> dict[str, Any]:
    """A part that may be absent or null."""
    if found is not None and not isinstance(found, dict):
        raise _Odd(f"{name} is no object")
    return found or {}


def _entry(data: dict[str, Any]) -> Imported:
    """The short entry: property types are words; it may have any key of our own plan."""
    if not isinstance(data["event"], str):
        raise _Odd(f"an entry's 'event' is {json.dumps(data['event'])}, which is no name")
    if "event_id" in data or "timestamp" in data:
        raise _Odd("it holds events that were sent, and no plan of them")
    result = Imported(_head(data["event"]), data["event"])
    _rename_note(result)
    ours = [key for key in EventPlan.model_fields if key not in ("event", "version", "properties", "migrations")]
    result.entry |= {key: data[key] for key in ours if key in data}
    result.notes += [f"'{key}' has no place in the plan" for key in data if key not in (*result.entry, "properties")]
    declared = data.get("properties", {})
    shapes = {name: shape if isinstance(shape, dict) else {"type": shape} for name, shape in declared.items()}
    _add_properties(result, shapes, required=())
    return _fitting(result)


def _segment(name: Any, rule: dict[str, Any], schema: Any) -> Imported:
    """A TRACK rule: the event's properties are a JSON Schema below properties.properties."""
    name = name if isinstance(name, str) else ""
    result = Imported(_head(name), name)
    _rename_note(result)
    part = f"what it says of event '{result.entry['event']}'"
    schema = _object(schema, part)
    described = rule.get("description") or schema.get("description")
    if described:
        result.entry["description"] = described
    inner = _object(_object(schema.get("properties"), part).get("properties"), part)
    required = inner.get("required") or []
    if not isinstance(required, list):
        raise _Odd(f"{part} has a 'required' that is no list")
    _add_properties(result, _object(inner.get("properties"), part), required=required)
    return _fitting(result)


def _fitting(result: Imported) -> Imported:
    """Without the keys of the event that our plan does not take: an owner without an address, say."""
    named = result.entry | {"event": "named"}  # of its name `_nameable` speaks
    while (found := _problem(EventPlan, named)) is not None and found[0] in result.entry:
        key, why = found
        result.notes.append(f"'{key}' is left out: {why}")
        del result.entry[key], named[key]
    return result


def _head(name: str) -> dict[str, Any]:
    return {"event": snake_case(name), "version": "1-0-0"}


def snake_case(name: str) -> str:
    """'Product Viewed' and 'productViewed' become product_viewed."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def _rename_note(result: Imported) -> None:
    if result.entry["event"] != result.original:
        result.notes.append(
            f"'{result.original}' is named '{result.entry['event']}' here; have it sent under that name"
        )


def _add_properties(result: Imported, shapes: dict[str, Any], required: Collection[Any]) -> None:
    properties: dict[str, Any] = {}
    for original, shape in shapes.items():
        name = snake_case(original)
        if not _is_name(name):
            result.notes.append(_misnamed("property", original))
            continue
        if name in RESERVED:
            result.notes.append(f"property '{original}' is left out: the envelope has that name, send it there")
            continue
        if name in properties:
            result.notes.append(f"property '{original}' is left out: another one is named '{name}' here already")
            continue
        if name != original:
            result.notes.append(f"property '{original}' is named '{name}' here; have it sent under that name")
        converted = _property(name, shape if isinstance(shape, dict) else {}, result.notes)
        if converted is not None:
            asked = original in required or (isinstance(shape, dict) and shape.get("required") is True)
            properties[name] = converted | ({"required": True} if asked else {})
    result.entry["properties"] = properties


def _property(name: str, shape: dict[str, Any], notes: list[str]) -> dict[str, Any] | None:
    kinds = shape.get("type", "string")
    kinds = list(kinds) if isinstance(kinds, list) else [kinds]
    plain = [kind for kind in kinds if kind != "null"]
    if len(plain) != 1 or not isinstance(plain[0], str) or plain[0] not in _TYPES:
        notes.append(f"property '{name}' is left out: its type {json.dumps(shape.get('type'))} has no counterpart")
        return None
    converted: dict[str, Any] = {"type": _TYPES[plain[0]]}
    if "null" in kinds:
        converted["nullable"] = True
    for theirs in [key for key in _RULES if shape.get(key) not in (None, "")]:
        converted = _with_rule(converted, theirs, shape[theirs], notes, name)
    known = {"required", "type", "id", "$id", "title", *_RULES}
    notes += [f"property '{name}': '{key}' is left out" for key in shape if key not in known]
    return converted


def _with_rule(converted: dict[str, Any], theirs: str, value: Any, notes: list[str], name: str) -> dict[str, Any]:
    """A property with one rule more, if our plan takes it; else as it is, with a note that says why."""
    if theirs == "enum" and converted["type"] != "string":
        notes.append(f"property '{name}': 'enum' is left out: only texts are listed one by one")
        return converted
    if theirs == "enum" and isinstance(value, list) and None in value:
        converted, value = converted | {"nullable": True}, [one for one in value if one is not None]
    wanted = converted | {_RULES[theirs]: value}
    found = _problem(Property, wanted)
    if found is None:
        return wanted
    notes.append(f"property '{name}': '{theirs}' is left out: {found[1]}")
    return converted
