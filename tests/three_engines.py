"""Three engines asked the same of the same objects: the compiled checks, pandera itself, and jsonschema-rs.

What is expected of the plan is written here from its definition alone. Where two of them cannot agree by nature:

- Money is judged as it is stored, rounded to four decimals; JSON Schema judges the digits (-0.00001 is 0 here, and below 0
  there). Tests that compare give money four decimals at most.
- A number is judged as the double that it is stored as; JSON Schema compares the digits of whole numbers beyond 2^53.
- In JSON Schema since draft 6 a 2.0 is an integer. The plan wants it written as one, as draft 4 did.

Belongs here: the three verdicts and their comparison. Does not belong here: making objects.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import polars as pl
from event_lines import RULES, event, text
from pandera.errors import SchemaErrors

from zantara_pipeline.tracking.codegen.json_schema import properties_schema
from zantara_pipeline.tracking.pandera_schema import pandera_schema
from zantara_pipeline.tracking.plan import EventPlan
from zantara_pipeline.tracking.validate import FileVerdict, validate_file
from zantara_pipeline.tracking.verdict import Rules

JSON_TYPES = {"string": "string", "number": "number", "integer": "integer", "boolean": "boolean", "money": "number"}
PYTHON_TYPES = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "money": (int, float)}
# what the warehouse's types can hold: DOUBLE, BIGINT, and DECIMAL(18,4) short of where it would round up
LIMITS: dict[str, tuple[float, float]] = {
    "number": (-sys.float_info.max, sys.float_info.max),
    "integer": (-(2**63), 2**63 - 1),
    "money": (-99999999999999.9, 99999999999999.9),
}
Failures = dict[int, set[str]]
"""Number of a failing object: the properties that are there and wrong; empty where only a name is."""


def judged(content: bytes, rules: Rules = RULES) -> FileVerdict:
    """What the pipeline's engine says of lines, each failing one by number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(content)
        return validate_file(path, rules, threads=1, examples=10**6)


def json_schema(plan: EventPlan) -> dict[str, Any]:
    """The plan as JSON Schema, written from its definition alone. In draft 4, as in the plan, 2.0 is no integer."""
    properties = {}
    for name, prop in plan.properties.items():
        nullable = not prop.required if prop.nullable is None else prop.nullable
        rule: dict[str, Any] = {"type": [JSON_TYPES[prop.type], "null"] if nullable else JSON_TYPES[prop.type]}
        low, high = LIMITS.get(prop.type, (None, None))
        bounds = {"minimum": low if prop.min is None else prop.min, "maximum": high if prop.max is None else prop.max}
        listed = None if prop.enum is None else [*prop.enum, *([None] if nullable else [])]
        texts = {"pattern": prop.pattern, "maxLength": prop.max_length, "enum": listed}
        properties[name] = rule | {key: value for key, value in (bounds | texts).items() if value is not None}
    return {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if (required := [n for n, p in plan.properties.items() if p.required]) else {}),
    }


def of_pandera(plan: EventPlan, objects: Sequence[Mapping[str, Any]]) -> Failures:
    """pandera's verdict on objects whose names, JSON types and ranges are settled first, as its schema presupposes."""
    failing: Failures = {}
    rows = []
    for number, found in enumerate(objects):
        wrong = {name for name, value in found.items() if name in plan.properties and not _fits(plan, name, value)}
        names_fit = found.keys() <= plan.properties.keys() and all(
            name in found for name, prop in plan.properties.items() if prop.required
        )
        if wrong or not names_fit:
            failing[number] = wrong
        rows.append({name: None if name in wrong else found.get(name) for name in plan.properties})
    if not plan.properties:
        return failing
    schema = pandera_schema(plan)
    columns = [
        pl.Series(name, [_stored(plan, name, row[name]) for row in rows], dtype=column.dtype.type)
        for name, column in schema.columns.items()
    ]
    try:
        schema.validate(pl.DataFrame(columns), lazy=True)
    except SchemaErrors as errors:
        found_by = defaultdict[int, set[str]](set)
        for name, number in errors.failure_cases.select("column", "index").rows():
            found_by[number].add(name)
        for number, names in found_by.items():
            there = names & objects[number].keys()
            if there or number not in failing:
                failing[number] = failing.get(number, set()) | there
    return failing


def _fits(plan: EventPlan, name: str, value: Any) -> bool:
    prop = plan.properties[name]
    if value is None:
        return prop.nullable is True or (prop.nullable is None and not prop.required)
    if isinstance(value, bool) != (prop.type == "boolean") or not isinstance(value, PYTHON_TYPES[prop.type]):
        return False
    low, high = LIMITS.get(prop.type, (None, None))
    return low is None or high is None or low <= value <= high


def _stored(plan: EventPlan, name: str, value: Any) -> Any:
    if value is None:
        return None
    kind = plan.properties[name].type
    return Decimal(repr(value)) if kind == "money" else float(value) if kind == "number" else value


def of_compiled(plan: EventPlan, objects: Sequence[Mapping[str, Any]], rules: Rules) -> Failures:
    """The pipeline's verdict, on whole lines."""
    lines = text([event(plan.event, dict(found)) for found in objects])
    verdict = judged(lines, rules)
    assert verdict.counts.rows_in == verdict.counts.accepted + verdict.counts.quarantined == len(objects)
    paths = {line["line"] - 1: [r["path"] for r in line["reasons"]] for line in verdict.failing_lines}
    return {number: _there(plan, objects[number], found) for number, found in paths.items()}


def _there(plan: EventPlan, found: Mapping[str, Any], paths: Sequence[str]) -> set[str]:
    names = {path.removeprefix("$.properties.") for path in paths}
    return {name for name in names if name in found and name in plan.properties}


def of_json_schema(
    plan: EventPlan, objects: Sequence[Mapping[str, Any]], schema: dict[str, Any], *, but: str = ""
) -> Failures:
    """jsonschema-rs; but: a type of properties of which none may hold a float (drafts differ on whether 2.0 is an integer)."""
    validator = jsonschema_rs.validator_for(schema)
    failing = {}
    for number, found in enumerate(objects):
        if any(isinstance(found.get(n), float) for n, p in plan.properties.items() if p.type == but):
            continue
        errors = list(validator.iter_errors(found))
        if errors:
            failing[number] = {str(error.instance_path[0]) for error in errors if error.instance_path}
    return failing


def assert_agreement(plan: EventPlan, objects: Sequence[Mapping[str, Any]], rules: Rules = RULES) -> None:
    """All say the same of every object, by name of property."""
    expected = of_json_schema(plan, objects, json_schema(plan))
    published = of_json_schema(plan, objects, properties_schema(plan), but="integer")
    skipped = {
        n for n, found in enumerate(objects)
        if any(isinstance(found.get(name), float) for name, prop in plan.properties.items() if prop.type == "integer")
    }  # fmt: skip
    _same(
        plan,
        objects,
        {n: names for n, names in expected.items() if n not in skipped},
        published,
        "the published schema",
    )
    _same(plan, objects, expected, of_compiled(plan, objects, rules), "the compiled checks")
    _same(plan, objects, expected, of_pandera(plan, objects), "pandera")


def _same(plan: EventPlan, objects: Sequence[Mapping[str, Any]], expected: Failures, found: Failures, who: str) -> None:
    if expected == found:
        return
    differing = [n for n in sorted(expected.keys() | found.keys()) if expected.get(n) != found.get(n)]
    said = []
    for n in differing[:8]:
        of = {k: objects[n].get(k, "absent") for k in (found.get(n, set()) ^ expected.get(n, set())) or objects[n]}
        said.append(f"{who}: {found.get(n, 'right')}, JSON Schema: {expected.get(n, 'right')}, of {str(of)[:200]}")
    raise AssertionError(f"{plan.event}, {len(differing)} objects: " + "\n".join(said))
