"""Three engines agree on a plan that has a property of every kind, which the packaged plan has not.

Objects are wrong in every way: another type, null, absent, a bound and its nearest neighbours, almost a listed text,
characters of every plane, numbers that no column holds. What no two engines can agree on is said in three_engines.py.
"""

from __future__ import annotations

import math
import random
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from three_engines import assert_agreement, of_compiled, of_json_schema

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.codegen.json_schema import properties_schema
from zantara_pipeline.tracking.plan import EventPlan, Property, load_plan
from zantara_pipeline.tracking.verdict import Rules

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "every_kind"
PLAN = load_plan([PACKAGED, FIXTURE])
RULES = Rules(PLAN, late_after_hours=24, max_lateness_days=30)
OWN = [PLAN.events[name] for name in sorted(PLAN.own)]
GENERATED = 8_000  # objects of each event

OTHER_TYPES = [None, True, False, "", "5", "true", "null", [], [1], {}, {"a": 1}, 0, 1]
NUMBERS = [0, 1, -1, 2, 2.0, -0.0, 0.5, 0.1, 2.5, 0.0001, -0.0001, 100, 1e2, 2**31, 2**53 - 1, 2**53]
HUGE = [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**25, -(10**40), 10**308, 10**309, -(10**400), 1e14, 1e300, -1e300,
        sys.float_info.max, -sys.float_info.max, 5e-324, -5e-324, sys.float_info.min]  # fmt: skip
# Of money the four decimals that it has; its limits are taken a step inside and far outside.
HUGE_MONEY = [n for n in HUGE if abs(n) >= 10**15] + [99999999999999, -99999999999999, 99999999999999.9, 10**14]
TEXTS = ["a", "ab", "abc", "abcd", "é", "e\u0301", "éé", "𝄞", "𝄞𝄞𝄞", "𝄞𝄞𝄞𝄞", "👩‍👩‍👧", "a\nb", "a\n", "\n", "a\rb", "a\u2028b", "\u0000",
         "a\u0000", "\u202eab", "ß", "İ", "\ufeff", "\U0010ffff", "a\\", '"', "'", "a b", " a", "a "]  # fmt: skip


def near(prop: Property) -> list[Any]:
    """What lies on or beside what the plan says of a property."""
    found: list[Any] = []
    for bound in (b for b in (prop.min, prop.max) if b is not None):
        found += [bound, bound + 1, bound - 1]
        if abs(bound) < 2**53:
            found += [math.floor(bound), math.ceil(bound)]
        if prop.type == "number":
            found += [math.nextafter(bound, math.inf), math.nextafter(bound, -math.inf), -bound]
        if prop.type == "integer":
            found += [int(bound) + 1, int(bound) - 1, int(bound), float(bound)]
        if prop.type == "money":
            found += [round(bound + step, 4) for step in (0.0001, -0.0001)]
    for listed in prop.enum or ():
        found += [listed, listed.swapcase(), listed + " ", listed[:-1], listed + "\n", listed + "\u0000"]
        found += [unicodedata.normalize("NFD", listed), listed + listed]
    if prop.max_length is not None:
        found += [char * (prop.max_length + step) for char in ("x", "é", "𝄞") for step in (-1, 0, 1)]
    return found


def patterned(prop: Property, chance: random.Random) -> str:
    """A text of a pattern's own characters, which it often almost is."""
    alphabet = [*"ABCXYZabcx019-.u@yg]é\t\n", "bc", "AB-1", "u-1", "a@b"]
    return "".join(chance.choice(alphabet) for _ in range(chance.randint(0, 4)))


def pool(prop: Property, chance: random.Random) -> list[Any]:
    """One of the kinds of values that a property is given."""
    kinds = [OTHER_TYPES, NUMBERS, HUGE_MONEY if prop.type == "money" else HUGE, TEXTS]
    own = near(prop)
    if own:
        kinds += [own, own, own]
    if prop.type == "string":
        kinds += [TEXTS, [patterned(prop, chance)]]
    elif prop.type == "money":
        kinds += [[chance.randint(-(10**9), 10**9) / 10_000]]
    else:
        kinds += [NUMBERS, [chance.randint(-3, 3)], [chance.uniform(-3, 3)]]
    return chance.choice(kinds)


def generated(plan: EventPlan, rows: int) -> list[dict[str, Any]]:
    """Valid objects with up to three properties changed, left out or too many."""
    chance, found = random.Random(plan.event), []
    samples = plan.examples.valid or ({},)
    for _ in range(rows):
        one = dict(chance.choice(samples))
        names = sorted(plan.properties)
        for name in chance.sample(names, min(len(names), chance.choice([0, 1, 1, 1, 2, 3]))):
            one[name] = chance.choice(pool(plan.properties[name], chance))
            if chance.random() < 0.1:
                del one[name]
        if chance.random() < 0.05:
            one[chance.choice(["zz", "Truth", "event_id", "é"])] = chance.choice(OTHER_TYPES)
        found.append(one)
    return found


def one_by_one(plan: EventPlan) -> list[dict[str, Any]]:
    """Every property with every value of every kind, and absent."""
    whole = plan.examples.valid[-1] if plan.examples.valid else {}
    found: list[dict[str, Any]] = [dict(whole), {}, whole | {"zz": 1}, whole | {"zz": None}]
    for name, prop in plan.properties.items():
        found.append({key: value for key, value in whole.items() if key != name})
        huge = HUGE_MONEY if prop.type == "money" else HUGE
        found += [whole | {name: value} for value in (*OTHER_TYPES, *NUMBERS, *huge, *TEXTS, *near(prop))]
    return found


def test_the_plan_has_a_property_of_every_kind() -> None:
    properties = [prop for event in OWN for prop in event.properties.values()]
    for kind in ("string", "number", "integer", "boolean", "money"):
        said = {(prop.required, prop.nullable) for prop in properties if prop.type == kind}
        assert {(True, None), (True, True), (False, None), (False, False)} <= said
    rules = {key for prop in properties for key, value in prop.model_dump().items() if value is not None}
    assert rules >= Property.model_fields.keys() - {"description", "retention_days"}
    assert {prop.pii for prop in properties} == {"none", "pseudonym", "direct"}
    assert {name for event in OWN for name in event.context} == {"user", "session", "device", "organisation"}


@pytest.mark.parametrize("plan", OWN, ids=lambda plan: plan.event)
def test_three_engines_agree_on_every_value_of_every_kind_of_property(plan: EventPlan) -> None:
    assert_agreement(plan, one_by_one(plan), RULES)


@pytest.mark.parametrize("plan", OWN, ids=lambda plan: plan.event)
def test_three_engines_agree_on_thousands_of_events_of_every_kind(plan: EventPlan) -> None:
    assert_agreement(plan, generated(plan, GENERATED), RULES)


def test_money_is_judged_as_it_is_stored_and_json_schema_judges_its_digits() -> None:
    plan = PLAN.events["every_rule"]
    objects = [plan.examples.valid[0] | {"money_both": value} for value in (-0.00014, 19.90004, -0.00016, 19.90006)]
    assert of_compiled(plan, objects, RULES) == {2: {"money_both"}, 3: {"money_both"}}
    assert of_json_schema(plan, objects, properties_schema(plan)).keys() == {0, 1, 2, 3}
