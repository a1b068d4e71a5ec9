"""The packaged contracts load, cover the plan, and a slip of the pen in any of them is told with file, line and key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from event_lines import REQUIRED_ENTRY

from zantara_pipeline.alerts import load_alerts_config
from zantara_pipeline.contracts_io import PACKAGED, load_yaml, overlay_files
from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import load_experiments
from zantara_pipeline.recommend.config import load_config
from zantara_pipeline.segments.visibility import load_rules
from zantara_pipeline.tracking.adapters import load_adapters
from zantara_pipeline.tracking.codegen.dbt_files import dbt_files
from zantara_pipeline.tracking.pandera_schema import pandera_schema
from zantara_pipeline.tracking.plan import SQL_TYPES, load_plan

PLAN = load_plan((PACKAGED,))
EVENTS = {
    "session_started", "page_timing", "app_crashed", "product_view", "add_to_cart", "purchase", "refund", "rating",
    "item_tag", "recommendation_exposed", "recommendation_clicked", "experiment_exposed",
}  # fmt: skip

REQUIRED_EXAMPLE = json.loads(REQUIRED_ENTRY)

Loader = Callable[[Sequence[Path]], Any]
# one file of each kind, and what loads it over packaged contracts and an overlay
KINDS: dict[str, tuple[str, Loader]] = {
    "event": ("tracking_plan/purchase.yaml", load_plan),
    "privacy": ("privacy.yaml", load_plan),
    "recommendation": ("recommendation.yaml", load_config),
    "adapters": ("adapters.yaml", lambda dirs: load_adapters(dirs, load_plan(dirs).privacy)),
    "alerts": ("alerts.yaml", lambda dirs: load_alerts_config(overlay_files(dirs, "alerts.yaml")["alerts.yaml"])),
    "segments": ("segments.yaml", load_rules),
    "guardrails": (
        "experiments/ab-test-guardrails.yaml",
        lambda dirs: load_experiments([d / "experiments" for d in dirs]),
    ),
    "metrics": ("experiments/metrics.yaml", lambda dirs: load_experiments([d / "experiments" for d in dirs])),
    "experiment": (
        "experiments/checkout_redesign.yaml",
        lambda dirs: load_experiments([d / "experiments" for d in dirs]),
    ),
}


def overlay(tmp_path: Path, name: str, change: Callable[[str], str]) -> tuple[Path, Path]:
    """An overlay folder with a changed copy of one packaged file."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(change((PACKAGED / name).read_text()))
    return path, tmp_path


def load_with(tmp_path: Path, kind: str, change: Callable[[str], str]) -> tuple[Path, str]:
    """Load a changed contract; returns the file and what was said against it."""
    name, loader = KINDS[kind]
    path, folder = overlay(tmp_path, name, change)
    with pytest.raises(InputError) as error:
        loader((PACKAGED, folder))
    said = str(error.value)
    assert "\n" not in said
    return path, said


def test_every_packaged_contract_is_of_a_kind_that_is_tested_and_loads() -> None:
    names = {path.relative_to(PACKAGED).as_posix() for path in PACKAGED.rglob("*.yaml")}
    kinds = {name.rpartition("/")[0] if "tracking_plan" in name else name for name, _ in KINDS.values()}
    experiments = {name for name in names if name.startswith("experiments/")}
    assert {name.rpartition("/")[0] if "tracking_plan" in name else name for name in names - experiments} <= kinds
    for _, loader in KINDS.values():
        assert loader((PACKAGED,)) is not None
    assert len(load_experiments().experiments) == len(experiments) - 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_copy_as_overlay_changes_nothing(tmp_path: Path, kind: str) -> None:
    name, loader = KINDS[kind]
    _, folder = overlay(tmp_path, name, lambda text: text)
    assert loader((PACKAGED, folder)) == loader((PACKAGED,))


def misspelt(text: str) -> tuple[str, int, str]:
    """The first key of the file with its last two letters swapped; line and right name with it."""
    for number, line in enumerate(text.splitlines()):
        if line and line[0].isalpha() and ":" in line:
            key = line.partition(":")[0]
            wrong = key[:-2] + key[-1] + key[-2] if key[-1] != key[-2] else key + "x"
            lines = text.splitlines()
            lines[number] = wrong + line[len(key) :]
            return "\n".join(lines), number + 1, key
    raise AssertionError("no key")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "metrics"])
def test_a_misspelt_key_is_named_with_its_line_and_the_right_name(tmp_path: Path, kind: str) -> None:
    text = (PACKAGED / KINDS[kind][0]).read_text()
    changed, line, key = misspelt(text)
    path, said = load_with(tmp_path, kind, lambda _: changed)
    assert said.startswith(f"{path}:{line}: key '") and "unknown key" in said
    assert f"did you mean '{key}'?" in said


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_inner_key_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    text = (PACKAGED / KINDS[kind][0]).read_text()
    lines = text.splitlines()
    number, line = next(
        (n, line)
        for n, line in enumerate(lines)
        if line.startswith("  ") and line.strip()[0].isalpha() and ": " in line
    )
    indent = line[: len(line) - len(line.lstrip())]
    lines.insert(number, f"{indent}nonsense_key: 1")
    path, said = load_with(tmp_path, kind, lambda _: "\n".join(lines))
    assert f"{path}:{number + 1}:" in said and "nonsense_key" in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("a: [1, 2\nb: 3\n", "not valid YAML"),
        ("a: 1\na: 2\n", "stands twice"),
        ("- a\n- b\n", "no mapping"),
        ("", "no mapping"),
        ("a: 2026-02-30\n", "not a valid value: day is out of range"),
        ("{{ a }}: 1\n", "not valid YAML"),
    ],
    ids=["open bracket", "twice", "a list", "empty", "no such day", "template"],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, kind: str, broken: str, said: str) -> None:
    path, text = load_with(tmp_path, kind, lambda _: broken)
    assert str(path) in text and said in text


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"a\.yaml: it is no UTF-8 text; save it as UTF-8"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("old", "new", "line_of", "said"),
    [
        ("type: money", "type: cash", "type: cash", "key 'properties.price.type'"),
        ("consent_category: analytics", "consent_category: sales", "consent_category", "no purpose 'sales'; known: analytics"),
        ("version: 1-0-0", "version: '1.0'", "version", "key 'version'"),
        ("owner: growth-data@example.com", "owner: me", "owner", "key 'owner'"),
        ("platforms: [web", "platforms: [web, fridge", "platforms", "key 'platforms.1'"),
        ("event: purchase", "event: Purchase", "event", "key 'event'"),
        ('pattern: "^[A-Z]{3}$"', 'pattern: "[A-Z]"', "pattern", "anchored"),
        ('pattern: "^[A-Z]{3}$"', 'pattern: "^(?=A)$"', "pattern", "look-around"),
        ('pattern: "^[A-Z]{3}$"', 'pattern: "^[A-Z$"', "pattern", "not a regular expression"),
        ('pattern: "^[A-Z]{3}$"', "enum: []", "enum", "at least 1 item"),
        ('pattern: "^[A-Z]{3}$"', "min: 3", "currency", "is for numbers"),
        ("    min: 1", "    max_length: 1", "quantity", "is for strings"),
        ("  order_id:", "  user_id:", "", "belongs to the envelope"),
        ("  order_id:", "  Order-ID:", "", "Order-ID"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_named(tmp_path: Path, old: str, new: str, line_of: str, said: str) -> None:
    path, text = load_with(tmp_path, "event", lambda whole: whole.replace(old, new, 1))
    assert said in text and text.startswith(f"{path}:")
    line = int(text.removeprefix(f"{path}:").partition(":")[0])
    # a rule between two keys points at the property that holds them
    near = path.read_text().splitlines()[max(line - 1, 0) : line + 4]
    assert any(line_of in candidate for candidate in near)


def test_a_file_named_otherwise_than_its_event_is_named(tmp_path: Path) -> None:
    path, folder = overlay(tmp_path, "tracking_plan/purchase.yaml", lambda text: text)
    other = path.rename(path.with_name("order.yaml"))
    with pytest.raises(InputError) as error:
        load_plan((PACKAGED, folder))
    assert str(error.value) == f"{other}: the file declares event 'purchase'; name it purchase.yaml"


def test_an_overlay_adds_and_replaces_events(tmp_path: Path) -> None:
    shutil.copytree(PACKAGED / "tracking_plan", tmp_path / "tracking_plan")
    for path in (tmp_path / "tracking_plan").iterdir():
        if path.stem != "rating":
            path.unlink()
    rating = (tmp_path / "tracking_plan" / "rating.yaml").read_text()
    (tmp_path / "tracking_plan" / "rating.yaml").write_text(rating.replace("version: 1-0-0", "version: 1-0-1"))
    (tmp_path / "tracking_plan" / "review.yaml").write_text(rating.replace("event: rating", "event: review"))
    plan = load_plan((PACKAGED, tmp_path))
    assert set(plan.events) == EVENTS | {"review"}
    assert plan.events["rating"].version == "1-0-1"
    assert plan.events["purchase"] == PLAN.events["purchase"]


def test_contracts_without_privacy_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no privacy\.yaml among the contracts"):
        load_plan((tmp_path,))


@pytest.mark.parametrize("purpose", ["analytics", "personalization"])
def test_the_pipelines_own_purposes_must_be_declared(tmp_path: Path, purpose: str) -> None:
    _, said = load_with(tmp_path, "privacy", lambda text: text.replace(f"  {purpose}:", f"  {purpose}_x:"))
    assert purpose in said


def test_the_plan_covers_all_events_and_documents_every_one() -> None:
    assert set(PLAN.events) == EVENTS
    for name, plan in PLAN.events.items():
        assert plan.event == name and plan.consent_category in PLAN.purposes
        for text in (plan.description, plan.purpose, *(prop.description for prop in plan.properties.values())):
            assert len(text) >= 5 and text[0].isupper() and text.endswith(".")


def test_money_is_always_exact_and_never_negative() -> None:
    money = [prop for plan in PLAN.events.values() for prop in plan.properties.values() if prop.type == "money"]
    assert money and all(prop.min == 0 and SQL_TYPES[prop.type] == "DECIMAL(18,4)" for prop in money)
    named = {name for plan in PLAN.events.values() for name, prop in plan.properties.items() if prop.type == "money"}
    assert named == {name for plan in PLAN.events.values() for name in plan.properties if name == "price"}


def test_one_property_name_has_one_type() -> None:
    types: dict[str, set[str]] = {}
    for plan in PLAN.events.values():
        for name, prop in plan.properties.items():
            types.setdefault(name, set()).add(prop.type)
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}


def test_every_event_has_a_pandera_schema_of_its_properties() -> None:
    for plan in PLAN.events.values():
        columns = pandera_schema(plan).columns
        assert list(columns) == list(plan.properties)
        for name, column in columns.items():
            assert column.nullable is not plan.properties[name].required


def test_the_dbt_files_of_events_are_those_of_the_plan() -> None:
    """They are made by `zantara plan codegen dbt --out dbt_project`; nobody writes them by hand."""
    project = PACKAGED.parent.parent / "dbt_project"
    expected = dbt_files(PLAN)
    assert {name: (project / name).read_text() for name in expected} == expected
    staged = {path.stem for path in (project / "models" / "staging").glob("stg_lake__*.sql")} - {"stg_lake__events"}
    assert staged == {f"stg_lake__{name}" for name in EVENTS}


def test_the_example_of_the_requirements_is_the_product_view_of_the_plan() -> None:
    plan = PLAN.events[REQUIRED_EXAMPLE["event"]]
    assert plan.description.rstrip(".") == REQUIRED_EXAMPLE["description"]
    for name, kind in REQUIRED_EXAMPLE["properties"].items():
        assert plan.properties[name].type in ({"money", "number"} if kind == "number" else {kind})
    assert list(plan.platforms) == REQUIRED_EXAMPLE["platforms"]
    assert plan.owner.partition("@")[0] == REQUIRED_EXAMPLE["owner"].partition("@")[0]
    from zantara_pipeline.tracking.plan import ENVELOPE_STRINGS

    assert {f"{entity}_id" for entity in REQUIRED_EXAMPLE["context"]} <= set(ENVELOPE_STRINGS)


def test_the_guardrails_of_the_requirements_are_the_defaults() -> None:
    defaults = load_experiments().defaults
    assert (defaults.srm_check, defaults.variance_reduction, defaults.min_duration_days) == ("chi_square", "cuped", 14)
    assert [(rule.name, rule.direction, rule.threshold) for rule in defaults.guardrails] == [
        ("p95_latency_ms", "lower_is_better", "+5%"),
        ("crash_free_sessions", "higher_is_better", "-0.2%"),
    ]
