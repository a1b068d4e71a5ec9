"""What is made from the plan: schemas that other validators accept, files that are written only when they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from event_lines import PLAN, event

from zantara_pipeline.cli.plan import Output
from zantara_pipeline.tracking.codegen import OUTPUTS, write_output
from zantara_pipeline.tracking.codegen.json_schema import DIALECT, json_schema, json_schema_files
from zantara_pipeline.tracking.codegen.plan_page import plan_page_files


@pytest.mark.parametrize("name", sorted(PLAN.events))
def test_every_schema_is_one_and_takes_the_examples_of_its_event(name: str) -> None:
    plan = PLAN.events[name]
    schema = json_schema(plan, PLAN)
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"] == DIALECT
    validator = jsonschema_rs.validator_for(schema)
    assert all(validator.is_valid(event(name, properties)) for properties in plan.examples.valid)
    assert not any(validator.is_valid(event(name, example.properties)) for example in plan.examples.invalid)


@pytest.mark.parametrize(
    "change",
    [{"event": "purchase"}, {"event_id": ""}, {"timestamp": 3}, {"user_id": 3}, {"shelf": 1}, {"consent": {"analytics": "yes"}}, {"properties": ...}],
)  # fmt: skip
def test_the_envelope_is_part_of_the_schema(change: dict[str, Any]) -> None:
    validator = jsonschema_rs.validator_for(json_schema(PLAN.events["product_view"], PLAN))
    assert validator.is_valid(event())
    assert not validator.is_valid(event(**change))


def test_the_page_names_every_event_and_property() -> None:
    page = plan_page_files(PLAN)["tracking-plan.md"]
    for name, plan in PLAN.events.items():
        section = page[page.index(f"## {name}\n") :].partition("\n## ")[0]
        assert plan.owner in section and plan.purpose in section
        assert all(f"| `{prop}` |" in section for prop in plan.properties)
        assert all(step in section for step in plan.qa_steps)


@pytest.mark.parametrize("output", sorted(OUTPUTS))
def test_files_are_written_once(tmp_path: Path, output: str) -> None:
    files = OUTPUTS[output](PLAN)
    assert {path.relative_to(tmp_path).as_posix() for path in write_output(files, tmp_path)} == set(files)
    assert write_output(files, tmp_path) == []
    first = next(iter(files))
    (tmp_path / first).write_text("changed by hand")
    assert write_output(files, tmp_path) == [tmp_path / first]
    assert not list(tmp_path.rglob("*.new"))


def test_the_command_offers_every_output() -> None:
    assert {output.value for output in Output} == set(OUTPUTS)


def test_schemas_are_json() -> None:
    for name, content in json_schema_files(PLAN).items():
        assert json.loads(content)["title"] == name.removesuffix(".schema.json")
