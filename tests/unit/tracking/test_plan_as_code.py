"""`zantara plan`: lint, import and diff on small plans; the diff's count of rejects against judging the lines again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from event_lines import REQUIRED_ENTRY, Shop, event

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.lint import Finding, lint
from zantara_pipeline.tracking.plan import load_plan, load_plan_folder
from zantara_pipeline.tracking.plan_diff import changes, rejected_on_last_day, version_problems
from zantara_pipeline.tracking.plan_import import read_foreign_plan, snake_case, write_events
from zantara_pipeline.tracking.validate import validate_file
from zantara_pipeline.tracking.verdict import Rules

COMPLETE: dict[str, Any] = {
    "event": "wishlist_added",
    "version": "1-0-0",
    "description": "A product was put on the wish list.",
    "purpose": "Interest.",
    "consent_category": "analytics",
    "lawful_basis": "consent",
    "owner": "a@b.c",
    "platforms": ["web"],
    "context": ["user"],
    "retention_days": 90,
    "properties": {"product_id": {"type": "string", "description": "Which.", "required": True}},
    "examples": {"valid": [{"product_id": "p"}], "invalid": [{"properties": {}, "reasons": ["missing_key"]}]},
    "qa_steps": ["Add one."],
    "sla": {"max_reject_pct": 5},
    "uses": ["nobody yet"],
}


def folder(root: Path, *entries: dict[str, Any]) -> Path:
    """A plan that stands by itself."""
    (root / "tracking_plan").mkdir(parents=True, exist_ok=True)
    (root / "privacy.yaml").write_bytes((PACKAGED / "privacy.yaml").read_bytes())
    for entry in entries:
        (root / "tracking_plan" / f"{entry['event']}.yaml").write_text(yaml.safe_dump(entry, sort_keys=False))
    return root


def linted(root: Path, **changes: Any) -> list[Finding]:
    return lint(
        [folder(root, {key: value for key, value in (COMPLETE | changes).items() if value is not ...})], threads=1
    )


def test_the_packaged_plan_has_no_errors() -> None:
    assert [str(finding) for finding in lint([PACKAGED], threads=2) if finding.level == "error"] == []


def test_a_complete_event_has_no_findings(tmp_path: Path) -> None:
    assert linted(tmp_path) == []


@pytest.mark.parametrize(
    ("changed", "said", "level"),
    [
        ({"event": "wish__list"}, "is not snake_case", "error"),
        ({"event": "w" * 40}, None, None),
        ({"event": "ga_wish"}, "starts with 'ga_'", "error"),
        ({"event": "firebase_wish"}, "starts with 'firebase_'", "error"),
        ({"event": "google_wish"}, "starts with 'google_'", "error"),
        ({"event": "session_start"}, "GA4 reserves this event name", "error"),
        ({"event": "first_open"}, "GA4 reserves this event name", "error"),
        ({"purpose": ...}, "'purpose' is missing", "error"),
        ({"owner": ...}, "'owner' is missing", "error"),
        ({"consent_category": ...}, "until it is named, all of it is suppressed", "error"),
        ({"retention_days": ...}, "'retention_days' is missing", "error"),
        ({"sla": {}}, "'sla' is missing", "error"),
        ({"lifecycle": {"status": "deprecated"}}, "names no successor", "warning"),
        ({"lifecycle": {"replaced_by": "purchase"}}, "which is no event of the plan", "error"),
        ({"lifecycle": {"supersedes": "wishlist_added"}}, "'supersedes' names the event itself", "error"),
    ],
)  # fmt: skip
def test_lint_says(tmp_path: Path, changed: dict[str, Any], said: str | None, level: str | None) -> None:
    found = linted(tmp_path, **changed)
    assert [f.level for f in found if said and said in f.message] == ([level] if said else [])
    assert said is not None or found == []


def test_lint_names_listed_values_that_never_pass(tmp_path: Path) -> None:
    prop = {
        "type": "string",
        "description": "How wide.",
        "enum": ["XS", "s", "XXXL"],
        "pattern": "^[A-Z]+$",
        "max_length": 3,
    }
    found = [
        f for f in linted(tmp_path, properties=COMPLETE["properties"] | {"size": prop}) if "never passes" in f.message
    ]
    said = {f.message: f.level for f in found}
    assert said == {
        "the value 's' of 'size' never passes: it does not match '^[A-Z]+$'": "error",
        "the value 'XXXL' of 'size' never passes: max_length is 3": "error",
    }
    assert {f.line for f in found} == {
        number for number, line in enumerate(Path(found[0].file).read_text().splitlines(), 1) if "enum:" in line
    }


def test_lint_judges_examples_by_the_engine_and_names_their_line(tmp_path: Path) -> None:
    examples = {
        "valid": [{"product_id": "p"}, {"product_id": 3}],
        "invalid": [{"properties": {"product_id": "p"}, "reasons": ["missing_key"]}],
    }
    found = linted(tmp_path, examples=examples)
    assert [f.message for f in found] == [
        "example valid[1] should pass; it fails with wrong_type",
        "example invalid[0] should fail with missing_key; it passes",
    ]
    lines = Path(found[0].file).read_text().splitlines()
    assert "product_id: 3" in lines[found[0].line - 1] and "properties:" in lines[found[1].line - 1]


def test_lint_counts_properties_and_warns_of_their_names(tmp_path: Path) -> None:
    many = {f"p{n}": {"type": "string", "description": "x"} for n in range(25)} | {
        "currency": {"type": "string", "description": "x"}
    }
    found = linted(
        tmp_path,
        properties=many,
        examples={"valid": [{}], "invalid": [{"properties": {"p": 1}, "reasons": ["unknown_key"]}]},
    )
    assert [(f.level, f.message.split(";")[0][:30]) for f in found] == [
        ("error", "26 properties"),
        ("warning", "'currency' collides with a par"),
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"type": "string", "pattern": "^a|b$"}, "write ^(?:...|...)$"),
        ({"type": "number", "min": float("nan")}, "finite"),
        ({"type": "money", "max": 1e300}, "'max' is 1e+300, and money holds 99999999999999 at most"),
        (
            {"type": "integer", "min": -1e19},
            "'min' is -10000000000000000000, and integer holds 9223372036854774784 at most",
        ),
        ({"type": "integer", "min": 10, "max": 1}, "no value is 10 at least and 1 at most"),
        ({"type": "number", "min": 1234567.5, "max": 1234567}, "no value is 1234567.5 at least and 1234567 at most"),
    ],
)
def test_a_rule_that_engines_would_read_differently_or_not_at_all_is_one_error(
    tmp_path: Path, rule: dict[str, Any], said: str
) -> None:
    [found] = linted(tmp_path, properties={"product_id": rule | {"description": "Which."}}, examples={})
    assert found.level == "error" and said in found.message and found.line > 1


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"properties": {"size": {"type": "number", "min": True}}}, "properties.size.min"),
        ({"properties": {"size": {"type": "integer", "max": False}}}, "properties.size.max"),
        ({"properties": {"size": {"type": "string", "max_length": True}}}, "properties.size.max_length"),
        ({"retention_days": True}, "retention_days"),
        ({"sla": {"max_drop_pct": True}}, "sla.max_drop_pct"),
    ],
)
def test_a_truth_value_is_no_number(tmp_path: Path, changed: dict[str, Any], key: str) -> None:
    [found] = linted(tmp_path, **changed)
    assert f"key '{key}': " in found.message and "is no number" in found.message and found.line > 1


@pytest.mark.parametrize("pattern", ["^(?:a|b)$", "^[a|b]$", r"^a\|b$", "^[^|]+$", r"^(?:(?:a|b)c|[\]|(])$"])
def test_alternatives_inside_a_group_or_a_class_are_taken(tmp_path: Path, pattern: str) -> None:
    rule = {"type": "string", "pattern": pattern, "description": "Which."}
    assert [f for f in linted(tmp_path, properties={"product_id": rule}, examples={}) if "pattern" in f.message] == []


def test_a_date_in_an_example_that_is_not_quoted_is_told(tmp_path: Path) -> None:
    place = folder(tmp_path, COMPLETE) / "tracking_plan" / "wishlist_added.yaml"
    place.write_text(place.read_text().replace("product_id: p\n", "product_id: 2026-01-01\n"))
    [found] = lint([tmp_path], threads=1)
    assert "write dates and times in quotes" in found.message and found.line > 1


def test_a_plan_that_cannot_be_read_is_one_error_with_its_line(tmp_path: Path) -> None:
    [found] = linted(tmp_path, consent_categry="analytics")
    assert found.level == "error" and "consent_categry" in found.message and found.line > 1


def test_the_entry_of_the_requirements_is_imported_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "entry.json"
    file.write_text(REQUIRED_ENTRY)
    out = folder(tmp_path / "out")
    [path] = write_events(read_foreign_plan(file).events, out / "tracking_plan")
    written = yaml.safe_load(path.read_text())
    assert written["context"] == ["user", "session", "device"]
    assert {name: p["type"] for name, p in written["properties"].items()} == json.loads(REQUIRED_ENTRY)["properties"]
    missing = {f.message.split("'")[1] for f in lint([out], threads=1) if "is missing" in f.message}
    assert missing == {"purpose", "consent_category", "lawful_basis", "retention_days", "qa_steps", "sla", "uses"}
    with pytest.raises(InputError, match="is there already"):
        write_events(read_foreign_plan(file).events, out / "tracking_plan")


def test_an_imported_event_without_a_consent_category_is_suppressed(tmp_path: Path) -> None:
    plan = load_plan_folder(folder(tmp_path, {k: v for k, v in COMPLETE.items() if k != "consent_category"}))
    file = tmp_path / "lines.jsonl"
    file.write_text(json.dumps(event("wishlist_added", {"product_id": "p"})) + "\n")
    counts = validate_file(file, Rules(plan, 24, 30), threads=1).counts
    assert (counts.rows_in, counts.suppressed) == (1, 1)


SCHEMA = {
    "type": "object",
    "properties": {
        "properties": {
            "type": "object",
            "required": ["productId"],
            "properties": {
                "productId": {"type": "string", "description": "Which."},
                "price": {"type": ["number", "null"], "minimum": 0},
                "colour": {"type": "string", "enum": ["red", "blue"]},
                "parts": {"type": "array"},
            },
        }
    },
}


@pytest.mark.parametrize(
    "document",
    [
        {"name": "Shop", "rules": {"events": [{"name": "Product Viewed", "description": "Seen.", "version": 1, "rules": SCHEMA}]}},
        {"rules": [{"type": "TRACK", "key": "Product Viewed", "version": 1, "jsonSchema": SCHEMA | {"description": "Seen."}}, {"type": "IDENTIFY", "jsonSchema": {}}]},
        {"data": {"rules": [{"type": "TRACK", "key": "Product Viewed", "jsonSchema": SCHEMA | {"description": "Seen."}}]}},
    ],
    ids=["older", "newer", "wrapped"],
)  # fmt: skip
def test_segment_plans_are_imported(tmp_path: Path, document: dict[str, Any]) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    [imported] = read_foreign_plan(file).events
    assert imported.entry == {
        "event": "product_viewed",
        "version": "1-0-0",
        "description": "Seen.",
        "properties": {
            "product_id": {"type": "string", "description": "Which.", "required": True},
            "price": {"type": "number", "nullable": True, "min": 0},
            "colour": {"type": "string", "enum": ["red", "blue"]},
        },
    }
    assert any("'parts' is left out" in note for note in imported.notes)
    assert any("'Product Viewed' is named 'product_viewed'" in note for note in imported.notes)
    assert write_events([imported], tmp_path / "out")


@pytest.mark.parametrize(
    ("rules", "about"),
    [
        ({"events": [{"name": "viewed", "rules": SCHEMA}], "global": {"required": ["x"]}, "identify": {}}, "'rules.global'"),
        ([{"type": "TRACK", "key": "viewed", "jsonSchema": SCHEMA}, {"type": "COMMON", "jsonSchema": {}}], 'rules of type "COMMON"'),
    ],
    ids=["older", "newer"],
)  # fmt: skip
def test_rules_of_a_segment_plan_that_are_of_no_event_are_named(tmp_path: Path, rules: Any, about: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"rules": rules}))
    [note] = read_foreign_plan(file).notes
    assert note.startswith(f"{about} left out: ")


@pytest.mark.parametrize(("content", "said"), [("{", "not JSON"), ("{}", "no events"), ("[1]", "no events")])
def test_what_is_no_plan_is_refused(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    with pytest.raises(InputError, match=said):
        read_foreign_plan(file)


TRACK = {"type": "TRACK", "key": "A"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"rules": [1]}, "its 'rules' is no list of objects"),
        ({"rules": {"events": [1]}}, "its 'rules.events' is no list of objects"),
        ({"rules": {"events": {"a": 1}}}, "its 'rules.events' is no list of objects"),
        ({"rules": [TRACK | {"jsonSchema": "no"}]}, "what it says of event 'a' is no object"),
        ({"rules": [TRACK | {"jsonSchema": {"properties": {"properties": {"properties": ["x"]}}}}]}, "is no object"),
        (
            {"rules": [TRACK | {"jsonSchema": {"properties": {"properties": {"required": 1}}}}]},
            "has a 'required' that is no list",
        ),
        ([{"event": "Gift Sent"}, {"event": "gift_sent"}], "two of its events would be named 'gift_sent' here"),
        ([event("purchase", {"price": 3})], "it holds events that were sent, and no plan of them"),
        ({"event": None, "properties": {}}, "an entry's 'event' is null, which is no name"),
    ],
)
def test_a_plan_of_another_shape_is_refused_in_one_line(tmp_path: Path, document: Any, said: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as error:
        read_foreign_plan(file)
    assert said in str(error.value) and str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


def test_an_entry_carries_every_key_of_our_own_plan(tmp_path: Path) -> None:
    """All but the version: an import is the first one here."""
    file = tmp_path / "plan.json"
    entry = {key: value for key, value in COMPLETE.items() if key != "version"}
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(entry).encode())
    [imported] = read_foreign_plan(file).events
    assert imported.entry == COMPLETE and imported.notes == []


def test_what_a_property_may_not_have_here_leaves_the_others_alone(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    properties = {"size": {"type": "integer", "enum": [1, 2], "required": True}, "event_id": "string"}
    file.write_text(json.dumps({"event": "gift_sent", "properties": properties}))
    [imported] = read_foreign_plan(file).events
    assert imported.entry["properties"] == {"size": {"type": "integer", "required": True}}
    assert ["'enum' is left out" in note or "the envelope has that name" in note for note in imported.notes] == [
        True
    ] * 2
    write_events([imported], tmp_path / "out")


def imported_from(tmp_path: Path, document: Any) -> list[Any]:
    """The events of a foreign plan; each of them can be written."""
    (tmp_path / "plan.json").write_text(json.dumps(document))
    events = read_foreign_plan(tmp_path / "plan.json").events
    write_events(events, tmp_path / "out" / "tracking_plan")
    return events


@pytest.mark.parametrize(
    ("rule", "left", "why"),
    [
        ({"type": "string", "pattern": r"^\d+$"}, "pattern", "write the pattern anchored"),
        ({"type": "string", "pattern": "[a-z]"}, "pattern", "write the pattern anchored"),
        ({"type": "string", "pattern": "^(a$"}, "pattern", "not a regular expression"),
        ({"type": "integer", "maximum": 1e19}, "maximum", "integer holds"),
        ({"type": "string", "minimum": 3}, "minimum", "for numbers"),
        ({"type": "string", "maxLength": 0}, "maxLength", "greater than or equal to 1"),
        ({"type": "string", "enum": [1, 2]}, "enum", "string"),
        ({"type": "string", "enum": [None]}, "enum", "at least 1"),
        ({"type": "string", "description": {"de": "Was."}}, "description", "string"),
        ({"type": "number", "minimum": 3, "maximum": 2}, "maximum", "no value is"),
    ],
)
def test_a_rule_that_has_no_place_here_is_named_and_costs_nothing_else(
    tmp_path: Path, rule: dict[str, Any], left: str, why: str
) -> None:
    inner = {"properties": {"size": rule, "name": {"type": "string", "maxLength": 9}}, "required": ["size"]}
    shape = {"type": "TRACK", "key": "sent", "jsonSchema": {"properties": {"properties": inner}}}
    [sent] = imported_from(tmp_path, {"rules": [shape]})
    [note] = sent.notes
    assert note.startswith(f"property 'size': '{left}' is left out: ") and why in note and "\n" not in note
    assert sent.entry["properties"]["name"] == {"type": "string", "max_length": 9}
    size = sent.entry["properties"]["size"]
    assert (size["type"], size["required"]) == (rule["type"], True) and (left == "maximum" or len(size) <= 3)


def test_null_among_the_values_of_a_property_makes_it_nullable(tmp_path: Path) -> None:
    kinds = {
        "colour": {"type": ["string", "null"], "enum": ["red", None]},
        "size": {"type": "string", "enum": [None, "s"]},
    }
    [sent] = imported_from(tmp_path, {"event": "sent", "properties": kinds})
    assert sent.notes == []
    assert sent.entry["properties"] == {
        "colour": {"type": "string", "nullable": True, "enum": ["red"]},
        "size": {"type": "string", "nullable": True, "enum": ["s"]},
    }


def test_a_property_of_an_entry_carries_every_rule_of_our_own_plan(tmp_path: Path) -> None:
    rules = {"type": "string", "max_length": 9, "pii": "pseudonym", "retention_days": 3, "nullable": True}
    [sent] = imported_from(
        tmp_path, {"event": "sent", "properties": {"size": rules, "price": {"type": "money", "min": 0}}}
    )
    assert sent.notes == []
    assert sent.entry["properties"] == {"size": rules, "price": {"type": "money", "min": 0}}


def test_what_an_entry_says_otherwise_than_our_plan_is_named_and_costs_nothing_else(tmp_path: Path) -> None:
    entry = {"event": "sent", "owner": "the web team", "platforms": ["Web"], "purpose": "To know."}
    [sent] = imported_from(tmp_path, entry | {"properties": {"size": "string", "2nd": "string", "x" * 41: "string"}})
    assert [note.split(":")[0] for note in sent.notes] == [
        'property "2nd" is left out', f'property "{"x" * 41}" is left out', "'owner' is left out", "'platforms' is left out",
    ]  # fmt: skip
    assert sent.entry == {
        "event": "sent", "version": "1-0-0", "purpose": "To know.", "properties": {"size": {"type": "string"}},
    }  # fmt: skip


def test_an_event_that_cannot_have_a_name_here_leaves_the_others_alone(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    schema: dict[str, Any] = {"type": "TRACK", "jsonSchema": {}}
    file.write_text(
        json.dumps({"rules": [schema | {"key": name} for name in ("購入", "閲覧", "3D Viewed", "sent")] + [schema]})
    )
    plan = read_foreign_plan(file)
    assert [event.entry["event"] for event in plan.events] == ["sent"]
    assert [note.partition(" is left out: ")[0] for note in plan.notes] == [
        'event "購入"', 'event "閲覧"', 'event "3D Viewed"', 'event ""',
    ]  # fmt: skip
    file.write_text(json.dumps({"event": "購入"}))
    with pytest.raises(InputError, match="no event is left"):
        read_foreign_plan(file)


def test_a_plan_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read_foreign_plan(file)


def test_what_an_import_cannot_carry_is_noted_and_not_lost_without_a_word(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    shapes = {"size": "string", "Size": "number", "odd": {"type": {"a": 1}}, "mixed": {"type": ["string", {"a": 1}]}}
    file.write_text(json.dumps({"event": "gift_sent", "properties": shapes}))
    [imported] = read_foreign_plan(file).events
    assert imported.entry["properties"] == {"size": {"type": "string"}}
    left_out = [note for note in imported.notes if "is left out" in note]
    assert [note.split("'")[1] for note in left_out] == ["Size", "odd", "mixed"]


def test_a_plan_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(REQUIRED_ENTRY.encode("utf-16"))
    with pytest.raises(InputError, match="it is no UTF-8 text; save it as UTF-8"):
        read_foreign_plan(tmp_path / "plan.json")


def test_an_import_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(REQUIRED_ENTRY)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="cannot be written into"):
        write_events(read_foreign_plan(tmp_path / "plan.json").events, tmp_path / "out" / "tracking_plan")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tracking_plan/gift.yml", "contracts end with .yaml; name it gift.yaml"),
        ("tracking-plan/gift.yaml", "did you mean 'tracking_plan'?"),
        ("adapter.yaml", "did you mean 'adapters.yaml'?"),
        ("privacy.yml", "did you mean 'privacy.yaml'?"),
    ],
)
def test_a_contract_whose_name_is_nearly_right_is_not_left_out_without_a_word(
    tmp_path: Path, name: str, said: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("event: gift\n")
    with pytest.raises(InputError) as error:
        load_plan([PACKAGED, tmp_path])
    assert str(error.value).endswith(said) and str(tmp_path) in str(error.value)
    [found] = lint([PACKAGED, tmp_path], threads=1)
    assert found.level == "error" and said in str(found)


@pytest.mark.parametrize(
    ("files", "named", "said"),
    [
        (("shop/tracking_plan/gift.yaml",), "shop/tracking_plan", "it is a part of a folder of contracts; name the folder above it, {root}/shop"),
        (("shop/experiments/gift.yaml",), "shop/experiments", "it is a part of a folder of contracts; name the folder above it, {root}/shop"),
        (("shop/contracts/tracking_plan/gift.yaml",), "shop", "no contract in this folder; name {root}/shop/contracts"),
        (("shop/gift.yaml",), "shop", "an event stands in the folder of contracts itself; put it into tracking_plan/ there"),
        (("shop/gift.yaml", "shop/tracking_plan/gift.yaml"), "shop", "an event stands in the folder of contracts itself"),
        (("shop/tracking_plan/notes.md",), "shop", "no contract in this folder; put one there: adapters.yaml, alerts.yaml, "),
        (("shop/notes/a.yaml",), "shop/notes", "an event stands in the folder of contracts itself"),
    ],
)  # fmt: skip
def test_a_folder_that_is_none_of_contracts_is_refused_and_the_right_one_named(
    tmp_path: Path, files: tuple[str, ...], named: str, said: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("event: gift\nversion: 1-0-0\n")
    with pytest.raises(InputError) as error:
        load_plan([PACKAGED, tmp_path / named])
    assert said.format(root=tmp_path) in str(error.value) and "\n" not in str(error.value)
    [found] = lint([PACKAGED, tmp_path / named], threads=1)
    assert found.level == "error"


def test_contracts_in_another_encoding_say_so(tmp_path: Path) -> None:
    path = folder(tmp_path, COMPLETE) / "tracking_plan" / "wishlist_added.yaml"
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes(yaml.safe_dump(COMPLETE | {"description": "é"}, allow_unicode=True).encode(encoding))
        [found] = lint([tmp_path], threads=1)
        assert found.message == "it is no UTF-8 text; save it as UTF-8"


def test_a_diff_of_a_folder_that_is_one_too_deep_names_the_right_one(tmp_path: Path) -> None:
    deep = folder(tmp_path / "shop", COMPLETE) / "tracking_plan"
    with pytest.raises(InputError, match="name the folder above it"):
        load_plan_folder(deep)


def test_other_files_beside_the_contracts_disturb_nobody(tmp_path: Path) -> None:
    folder(tmp_path, COMPLETE)
    for name in ("README.md", "docker-compose.yaml", ".git", "tracking_plan/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert load_plan([PACKAGED, tmp_path]).events.keys() == load_plan([PACKAGED]).events.keys() | {"wishlist_added"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("event: gift\nversion: 1.0.0\n", "gift.yaml:2: key 'version': String should match pattern '^\\d+-\\d+-\\d+$'; write it like 1-0-0"),
        ("event: gift\nversion: 1-0-0\nowner: web team\n", "; give an e-mail address"),
        ("event: gift\nversion: 1-0-0\nproperties:\n  giftSize: {type: string}\n", "write small letters, digits and underscores, a letter first, 40 characters at most"),
        ("event: gift\nversion: 1-0-0\nproperties:\n  size: string\n", "gift.yaml:4: key 'properties.size': Input should be a valid dictionary; write its keys and values, or leave it out"),
        ("event: gift\nversion: 1-0-0\nproperties:\n  size: {type: number, min: a}\n", "gift.yaml:4: key 'properties.size.min': Input should be a valid integer, unable to parse string as an integer"),
        ("event: gift\nversion: 1-0-0\nproperties:\n  user_id: {type: string}\n", "gift.yaml:4: key 'properties.user_id': the name belongs to the envelope; send it there, or give the property another; mend that entry"),
        ("event: gift\nversion: 1-0-0\nproperties:\n  size: {type: string, enum: []}\n", "gift.yaml:4: key 'properties.size.enum': List should have at least 1 item after validation, not 0"),
        ('event: gift\nversion: 1-0-0\nproperties:\n  size: {type: string, enum: ["\\ud800"]}\n', "gift.yaml:4: a text that UTF-8 cannot carry, or with a NUL; write it without"),
        ('event: gift\nversion: 1-0-0\ndescription: "a\\0"\n', "gift.yaml:3: a text that UTF-8 cannot carry, or with a NUL; write it without"),
        ("event: gift\nversion: 1-0-0\ndescription: a\x01\n", "gift.yaml:3: not valid YAML: a character that no YAML may hold; mend that line"),
        (f"event: gift\nversion: 1-0-0\nproperties:\n  size: {{type: number, min: {10**400}}}\n", "'min' is 1.000e+400, and number holds 1.7976931348623157e+308 at most"),
        (f"event: gift\nversion: 1-0-0\nretention_days: {10**20}\n", "gift.yaml:3: key 'retention_days': Input should be less than or equal to 100000"),
        ("event: gift\nversion: 1.0\n", "gift.yaml:2: key 'version': Input should be a valid string; put it in quotes"),
        ("event: gift\n", "gift.yaml:1: key 'version': Field required; add it"),
        ("event: gift\nversion: 1-0-0\nevent: gift\n", "gift.yaml:3: key 'event' stands twice; remove one of the two"),
        ("event: gift\nversion: 1-0-0\nowner: [me]\n", "gift.yaml:3: key 'owner': Input should be a valid string; give a text"),
        ("event: gift\nversion: 1-0-0\nuses: shop\n", "gift.yaml:3: key 'uses': Input should be a valid list; write it as [a, b]"),
        ("event: gift\nversion: 1-0-0\nproperties:\n  1: {type: string}\n", "key 'properties.1': a name is text, and this is none; put it in quotes"),
        ("event: gift\ndescription: &a [*a]\n", "gift.yaml: not valid YAML: it refers to itself, or is nested too deeply; write it without aliases"),
    ],
)  # fmt: skip
def test_a_slip_in_yaml_is_one_line_that_says_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tracking_plan").mkdir()
    (tmp_path / "tracking_plan" / "gift.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load_plan([PACKAGED, tmp_path])
    assert str(error.value).endswith(said) and "\n" not in str(error.value)
    assert str(error.value).count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "snake"),
    [("Product Viewed", "product_viewed"), ("productViewed", "product_viewed"), ("a--b", "a_b"), ("ok_1", "ok_1")],
)
def test_snake_case(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def product(**keys: Any) -> dict[str, Any]:
    return {"properties": {"product_id": {"type": "string", "description": "Which."} | keys}}


OLD = product(required=True, max_length=9)


@pytest.mark.parametrize(
    ("new", "level", "needs"),
    [
        (product(required=True, max_length=9), None, None),
        (product(required=True, max_length=10), "addition", "1-0-1"),
        (product(required=True), "addition", "1-0-1"),
        (product(max_length=9), "addition", "1-0-1"),
        (product(required=True, max_length=8), "revision", "1-1-0"),
        (product(required=True, max_length=9, pattern="^p$"), "revision", "1-1-0"),
        (product(required=True, max_length=9, enum=["p"]), "revision", "1-1-0"),
        ({"properties": OLD["properties"] | {"n": {"type": "integer"}}}, "addition", "1-0-1"),
        ({"properties": OLD["properties"] | {"n": {"type": "integer", "required": True}}}, "revision", "1-1-0"),
        ({"properties": {"product_id": {"type": "integer", "required": True}}}, "model", "2-0-0"),
        ({"properties": {}}, "model", "2-0-0"),
        (OLD | {"consent_category": "personalization"}, "revision", "1-1-0"),
        (OLD | {"lifecycle": {"status": "retired"}}, "model", "2-0-0"),
        (OLD | {"lifecycle": {"status": "deprecated", "replaced_by": "wishlist_added"}}, "none", None),
        (OLD | {"retention_days": 5}, "none", None),
        (OLD | {"lawful_basis": "contract"}, "none", None),
        (OLD | {"owner": "d@e.f"}, "none", None),
        (OLD | {"sla": {"max_reject_pct": 6}}, "none", None),
    ],
)
def test_a_change_and_the_version_it_needs(
    tmp_path: Path, new: dict[str, Any], level: str | None, needs: str | None
) -> None:
    before = load_plan_folder(folder(tmp_path / "old", COMPLETE | OLD))
    after = load_plan_folder(folder(tmp_path / "new", COMPLETE | new))
    found = changes(before, after)
    assert [change.level for change in found] == ([level] if level else [])
    assert [problem.needs for problem in version_problems(before, after, found)] == ([needs] if needs else [])
    if needs:
        bumped = load_plan_folder(folder(tmp_path / "bumped", COMPLETE | new | {"version": needs}))
        assert version_problems(before, bumped, found) == []


def test_events_come_and_go(tmp_path: Path) -> None:
    one, both = folder(tmp_path / "one", COMPLETE), folder(tmp_path / "both", COMPLETE, COMPLETE | {"event": "other"})
    plans = load_plan_folder(one), load_plan_folder(both)
    assert [(c.event, c.level, c.breaking) for c in changes(*plans)] == [("other", "addition", False)]
    assert [(c.event, c.level, c.breaking) for c in changes(*reversed(plans))] == [("other", "model", True)]


def test_an_event_that_comes_back_is_an_addition_and_a_diff_says_what_a_word_became(tmp_path: Path) -> None:
    gone = COMPLETE | {"lifecycle": {"status": "retired"}, "retention_days": 400}
    plans = [load_plan_folder(folder(tmp_path / name, entry)) for name, entry in (("gone", gone), ("back", COMPLETE))]
    assert [(c.path, c.level, c.what) for c in changes(*plans)] == [
        ("lifecycle.status", "addition", "retired becomes active"),
        ("retention_days", "none", "400 becomes 90"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"price": {"type": "money", "max": 10}},
        {"price": {"type": "integer"}},
        {"price": {"type": "string"}},
        {"category": {"type": "string", "required": True}},
        {"category": {"type": "string", "enum": ["audio"]}},
        {"category": ...},
        {"quantity": {"type": "number", "min": 2}},
    ],
)
def test_rejects_of_the_last_day_are_those_of_judging_the_lines_again(tmp_path: Path, change: dict[str, Any]) -> None:
    shop = Shop(tmp_path / "home")
    rows = [
        {"price": p, "quantity": q} | ({"category": c} if c else {})
        for p in (5, 9.5, 12, None)
        for q in (1, 2)
        for c in ("audio", "tv", None)
    ]
    lines = [event("add_to_cart", {"product_id": "p"} | row, event_id=f"e{n}") for n, row in enumerate(rows)]
    shop.land("a.jsonl", lines)
    shop.ingest()
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / "add_to_cart.yaml").read_text())
    entry["properties"] = {k: v for k, v in (entry["properties"] | change).items() if v is not ...}
    overlay = tmp_path / "overlay" / "tracking_plan"
    overlay.mkdir(parents=True)
    (overlay / "add_to_cart.yaml").write_text(yaml.safe_dump(entry))
    new = load_plan_folder(overlay.parent)
    [found] = rejected_on_last_day(shop.home, load_plan([PACKAGED]), new, threads=1)
    file = tmp_path / "again.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = validate_file(file, Rules(new, 24, 30), threads=1).counts
    assert (found.rows, found.rejected) == (len(rows), again.quarantined)
    assert 0 < found.rejected < found.rows


def test_a_property_that_the_last_days_files_do_not_have_yet_is_null_there(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home")
    shop.land("a.jsonl", [event("add_to_cart", {"product_id": "p"}, event_id=f"e{n}") for n in range(3)])
    shop.ingest()
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / "add_to_cart.yaml").read_text())
    plans = []
    for number, required in enumerate((False, True)):
        entry["properties"]["gift"] = {"type": "boolean", "required": required}
        place = tmp_path / str(number) / "tracking_plan"
        place.mkdir(parents=True)
        (place / "add_to_cart.yaml").write_text(yaml.safe_dump(entry))
        plans.append(load_plan_folder(place.parent))
    old, new = plans
    for plan, rejected in ((old, 0), (new, 3)):
        [found] = rejected_on_last_day(shop.home, old, plan, threads=1)
        assert (found.rows, found.rejected) == (3, rejected)


def test_lines_of_a_retired_event_fail_as_the_diff_says_and_pass_again_when_it_comes_back(tmp_path: Path) -> None:
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / "add_to_cart.yaml").read_text())
    plans = {}
    for status in ("active", "deprecated", "retired"):
        entry["lifecycle"] = {"status": status, "replaced_by": "purchase"} if status != "active" else {}
        place = tmp_path / status / "tracking_plan"
        place.mkdir(parents=True)
        (place / "add_to_cart.yaml").write_text(yaml.safe_dump(entry))
        (place / "purchase.yaml").write_bytes((PACKAGED / "tracking_plan" / "purchase.yaml").read_bytes())
        plans[status] = load_plan_folder(place.parent)
    shop = Shop(tmp_path / "home", Rules(plans["active"], 24, 30))
    lines = [event("add_to_cart", {"product_id": page}, event_id=page) for page in ("plain", 'with an "escape"')]
    shop.land("a.jsonl", lines)
    shop.ingest()
    [found] = rejected_on_last_day(shop.home, plans["active"], plans["retired"], threads=1)
    file = tmp_path / "again.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = {status: validate_file(file, Rules(plan, 24, 30), threads=1) for status, plan in plans.items()}
    assert [again[status].counts.quarantined for status in plans] == [0, 0, found.rejected] and found.rejected == 2
    reasons = [reason for line in again["retired"].failing_lines for reason in line["reasons"]]
    assert {(r["code"], r["expected"]) for r in reasons} == {("retired_event", "purchase, which replaced it")}
