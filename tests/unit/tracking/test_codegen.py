"""What is made from the plan: schemas that other validators accept, files that are written only when they change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from event_lines import PLAN, event
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.cli.plan import Output
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.codegen import OUTPUTS, write_output
from zantara_pipeline.tracking.codegen.json_schema import DIALECT, json_schema, json_schema_files
from zantara_pipeline.tracking.codegen.plan_page import plan_page_files
from zantara_pipeline.tracking.plan import EventPlan


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


def test_the_page_shows_every_digit_of_a_bound_and_what_may_be_null() -> None:
    properties = {
        "amount": {"type": "money", "min": 0, "max": 1234567.25, "required": True},
        "count": {"type": "integer", "max": 12345678901234567, "required": True, "nullable": True},
        "share": {"type": "number", "min": 1e-7, "max": 1e16, "nullable": False},
        "note": {"type": "string", "max_length": 1234567},
    }
    entry = EventPlan.model_validate(
        {"event": "parcel_sent", "version": "1-0-0", "properties": properties, "sla": {"min_daily": 1234567}}
    )
    page = plan_page_files(replace(PLAN, events={"parcel_sent": entry}))["tracking-plan.md"]
    assert "| property | type | must be there | may be null | rules |" in page
    assert "| `amount` | money | yes | no | at least 0, at most 1234567.25 |" in page
    assert "| `count` | integer | yes | yes | at most 12345678901234567 |" in page
    assert "| `share` | number | no | no | at least 1e-07, at most 10000000000000000 |" in page
    assert "| `note` | string | no | yes | characters at most 1234567 |" in page
    assert "- Promised: min_daily 1234567\n" in page


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


MOVED = EventPlan.model_validate({
    "event": "parcel_sent", "version": "3-0-0", "properties": {"weight": {"type": "money"}, "note": {"type": "string"}},
    "migrations": [
        {"property": "weight", "renamed_from": "wieght", "since": "2-0-0"},
        {"property": "weight", "from": "string", "to": "integer", "since": "1-2-0"},
        {"property": "weight", "from": "integer", "to": "money", "since": "3-0-0"},
    ],
})  # fmt: skip
PAST = ["integer before 3-0-0", "called wieght before 2-0-0", "string before 1-2-0"]


def test_what_a_property_was_before_stands_on_the_page_and_in_the_schema() -> None:
    plan = replace(PLAN, events={"parcel_sent": MOVED})
    assert f"- `weight`: {', '.join(PAST)}\n" in plan_page_files(plan)["tracking-plan.md"]
    schema = json.loads(json_schema_files(plan)["parcel_sent.schema.json"])
    jsonschema_rs.meta.validate(schema)
    properties = schema["properties"]["properties"]["properties"]
    assert properties["weight"]["$comment"] == "; ".join(PAST)
    assert "$comment" not in properties["note"]


def test_a_plan_without_migrations_says_nothing_of_them() -> None:
    assert "was before" not in plan_page_files(PLAN)["tracking-plan.md"]
    assert "$comment" not in "".join(json_schema_files(PLAN).values())


def codegen(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["plan", "codegen", "json-schema", "--json", *map(str, arguments)])
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_machines_are_told_which_files_would_change_and_which_did(tmp_path: Path) -> None:
    out = tmp_path / "schemas"
    every = {str(out / name) for name in json_schema_files(PLAN)}
    would = codegen("--out", out, "--dry-run")
    assert would["output"] == "json-schema" and would["dry_run"] and not out.exists()
    assert {file["path"] for file in would["files"] if file["changed"]} == every
    did = codegen("--out", out)
    assert did["files"] == would["files"] and {str(path) for path in out.iterdir()} == every
    (out / "purchase.schema.json").write_text("changed by hand")
    again = codegen("--out", out, "--dry-run")["files"]
    assert {file["path"] for file in again} == every
    assert [file["path"] for file in again if file["changed"]] == [str(out / "purchase.schema.json")]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    for dry_run in (True, False):
        with pytest.raises(InputError, match="cannot be written into"):
            write_output({"a.json": "x"}, out, dry_run=dry_run)
    assert out.read_text() == "mine"
