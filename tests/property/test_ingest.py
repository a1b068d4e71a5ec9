"""Invariants of ingest: no line gets lost, order and batches do not matter, three engines agree on the plan's values."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from event_lines import PLAN, Shop, event, text
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from three_engines import assert_agreement, judged

from zantara_pipeline.tracking import ingest as ingest_module
from zantara_pipeline.tracking import reader, verdict
from zantara_pipeline.tracking.plan import EventPlan

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
STAGES = ("unparsable", "suppressed", "quarantined", "accepted")

# ---- lines ----------------------------------------------------------------------------------------------------------
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
consents = st.sampled_from([{"analytics": a, "personalization": p} for a in (True, False) for p in (True, False)])
users = st.sampled_from(["u-1", "u-2", "u-3"])


@st.composite
def good_events(draw: st.DrawFn) -> dict[str, Any]:
    """Events that are fine but for, perhaps, their consent; within four days, in any order."""
    minute = draw(st.integers(0, 4 * 24 * 60 - 1))
    when = f"2026-03-{1 + minute // 1440:02d}T{minute % 1440 // 60:02d}:{minute % 60:02d}:00Z"
    name = draw(st.sampled_from(["product_view", "session_started"]))
    properties = {"product_id": "p"} if name == "product_view" else {"entry_page": "/"}
    return event(
        name,
        properties,
        event_id=draw(st.uuids()).hex,
        timestamp=when,
        received_at=draw(st.sampled_from([when, ...])),
        user_id=draw(users),
        consent=draw(consents),
    )


@st.composite
def mutated_events(draw: st.DrawFn) -> dict[str, Any]:
    """A good event with one or two of its parts replaced, removed or added, at either level."""
    whole = draw(good_events())
    for _ in range(draw(st.integers(1, 2))):
        target = whole["properties"] if draw(st.booleans()) and isinstance(whole.get("properties"), dict) else whole
        key = draw(st.sampled_from([*sorted(target), "price", "quantity", "context"]) | st.text(max_size=8))
        if draw(st.booleans()):
            target[key] = draw(anything)
        else:
            target.pop(key, None)
    return whole


def as_bytes(value: Any) -> bytes:
    return text([value]).removesuffix(b"\n")


raw = st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")) | st.text(max_size=30).map(
    lambda t: t.encode("utf-8", "replace").replace(b"\n", b"")
)
torn = good_events().map(as_bytes).flatmap(lambda line: st.integers(0, len(line)).map(lambda cut: line[:cut]))
dirty = st.one_of(raw, torn, anything.map(lambda v: json.dumps(v).encode()), mutated_events().map(as_bytes))
lines = st.one_of(dirty, good_events().map(as_bytes))


def is_blank(line: bytes) -> bool:
    try:
        return line.decode().strip() == ""
    except UnicodeDecodeError:
        return False


def is_json_object(line: bytes) -> bool:
    """The standard library as the independent judge of what is a JSON object."""

    def refuse(_: str) -> None:
        raise ValueError

    try:
        return isinstance(json.loads(line.decode(), parse_constant=refuse), dict)
    except (ValueError, RecursionError):
        return False


@settings(max_examples=40, **SLOW)
@given(st.lists(lines, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
@example([b'{"a":nan}', b'{"a":\xed\xa0\x80}', b"[" * 5000, b'{"a":' * 300 + b"1" + b"}" * 300], b"\n", True)
def test_rows_in_are_rows_out(found: list[bytes], end: bytes, last_end: bool) -> None:
    content = end.join(found) + (end if last_end else b"")
    rows = [line for line in content.split(b"\n") if not is_blank(line)]
    counts = judged(content).counts
    assert counts.rows_in == len(rows) == sum(getattr(counts, stage) for stage in STAGES)
    no_json = sum(not is_json_object(row) for row in rows if b"nan" not in row)
    assert counts.unparsable >= no_json
    # a lone surrogate is text to Python's parser, but no UTF-8 can hold it
    assert counts.unparsable <= sum(not is_json_object(row) or b"\\u" in row for row in rows)


# ---- order and batches ----------------------------------------------------------------------------------------------
@contextmanager
def landed(*files: list[bytes]) -> Iterator[Shop]:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        shop.consent(("u-3", "analytics", "denied", "2026-03-02T12:00:00Z"))
        for number, content in enumerate(files):
            shop.land(f"{number:02d}.jsonl", content)
            shop.ingest()
        yield shop


def without(rows: list[dict[str, Any]], *names: str) -> Counter[str]:
    return Counter(str({key: value for key, value in row.items() if key not in names}) for row in rows)


def outcome(shop: Shop) -> dict[str, Any]:
    """What became of the lines, without where they stood."""
    (counts,) = shop.query(f"SELECT {', '.join(f'sum({stage})' for stage in STAGES)}, sum(late) FROM ingested_files")
    return {
        "counts": counts,
        "accepted": without(shop.accepted(), "source", "line_no"),
        "quarantined": without(shop.quarantined(), "source", "line_no"),
        "unparsable": without(shop.unparsable(), "source", "line_no"),
        "said": said(shop),
    }


def said(shop: Shop) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """What each person's events said, as a function of time: (since, status) wherever it changes; denied wins a tie."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for user, purpose, status, since in shop.statements():
        moments = found.setdefault((user, purpose), {})
        moments[since] = min(status, moments.get(since, status))
    changes = {}
    for key, moments in found.items():
        ordered = sorted(moments.items())
        changes[key] = [pair for n, pair in enumerate(ordered) if n == 0 or pair[1] != ordered[n - 1][1]]
    return changes


@settings(max_examples=10, **SLOW)
@given(st.data(), st.lists(lines, min_size=2, max_size=12))
def test_the_order_of_lines_does_not_matter(data: st.DataObject, found: list[bytes]) -> None:
    shuffled = data.draw(st.permutations(found))
    with landed(found) as one, landed(shuffled) as other:
        first, second = outcome(one), outcome(other)
    assert first == second


@settings(max_examples=7, **SLOW)
@given(st.lists(lines, min_size=2, max_size=12), st.integers(40, 600))
def test_batches_and_commits_do_not_matter(found: list[bytes], chunk: int) -> None:
    middle = len(found) // 2
    with landed(found[:middle], found[middle:]) as one:
        wanted = outcome(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CHUNK_BYTES", chunk)
        patch.setattr(ingest_module, "BATCH_BYTES", 1)
        patch.setattr(ingest_module, "COMMIT_BYTES", 1)
        with landed(found[:middle], found[middle:]) as other:
            assert outcome(other) == wanted


@settings(max_examples=10, **SLOW)
@given(
    st.lists(lines, min_size=2, max_size=12), st.integers(40, 600), st.integers(1, 2000), st.sampled_from([0, 10**6])
)
def test_lines_that_wait_for_each_other_end_as_they_would_in_their_batch(
    found: list[bytes], chunk: int, together: int, room: int
) -> None:
    with landed(found) as one:
        wanted = outcome(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CHUNK_BYTES", chunk)
        sizes = {"BATCH_BYTES": 1, "LARGE_COMMIT": 0, "WAITED_BYTES": together, "MOST_WAITING": room}
        for name, size in sizes.items():
            patch.setattr(ingest_module, name, size)
        patch.setattr(verdict, "FEW", 2.0)  # however many they are
        with landed(found) as other:
            assert outcome(other) == wanted


@settings(max_examples=8, **SLOW)
@given(st.lists(good_events(), min_size=3, max_size=14), st.data())
def test_what_people_said_last_does_not_depend_on_what_landed_first(
    found: list[dict[str, Any]], data: st.DataObject
) -> None:
    ordered = sorted(found, key=lambda line: line["timestamp"])
    shuffled = data.draw(st.permutations(found))
    cut = data.draw(st.integers(1, len(found) - 1))
    with landed(ordered) as one, landed(shuffled[:cut], shuffled[cut:]) as other:  # type: ignore[arg-type]
        first = {key: changes[-1][1] for key, changes in said(one).items()}
        second = {key: changes[-1][1] for key, changes in said(other).items()}
    assert first == second


# ---- three engines on the plan's values -----------------------------------------------------------------------------
STRINGS = ["", "EUR", "eur", "EURO", "EUR\n", "ÉUR", "x" * 500, "x" * 501, "é" * 500, "𝄞" * 501]
NUMBERS = [0, 1, -1, 0.5, -0.0, 1.0, 600_000, 600_001, 600_000.5, -0.0001, 0.9999, 2**31, 2**62]
HUGE = [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 1e14, 1e300, -1e300, 10**25]
OTHER = [None, True, False, "5", [], {}]
strings = st.sampled_from(STRINGS) | st.text(max_size=9)
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 700_000)
huge = st.sampled_from(HUGE)
fractions = st.integers(-(10**9), 10**9).map(lambda n: n / 10_000)  # money has four decimals
other = st.sampled_from(OTHER)


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind == "string":
        return st.one_of(strings, strings, strings, numbers, other)
    return st.one_of(numbers, numbers, fractions, huge, strings, other)


def usual(plan: EventPlan, name: str) -> Any:
    samples = {"string": "EUR", "number": 2.5, "integer": 2, "money": 9.99, "boolean": True}
    return samples[plan.properties[name].type]


@st.composite
def property_objects(draw: st.DrawFn, plan: EventPlan) -> dict[str, Any]:
    """Mostly valid, so that single violations are seen alone."""
    found = {name: usual(plan, name) for name in plan.properties}
    for name in draw(st.lists(st.sampled_from(sorted(found)), max_size=3, unique=True)):
        if draw(st.integers(0, 4)):
            found[name] = draw(values_of(plan.properties[name].type))
        else:
            del found[name]
    if not draw(st.integers(0, 9)):
        found["zz"] = draw(other)
    return found


def one_by_one(plan: EventPlan) -> list[dict[str, Any]]:
    """Every property with every interesting value, absent, and beside one too many."""
    whole = {name: usual(plan, name) for name in plan.properties}
    found = [whole, whole | {"zz": 1}, whole | {"zz": None}, {}]
    for name in plan.properties:
        found.append({key: value for key, value in whole.items() if key != name})
        found += [whole | {name: value} for value in (*STRINGS, *NUMBERS, *HUGE, *OTHER)]
    return found


@pytest.mark.parametrize("name", sorted(PLAN.events))
def test_three_engines_agree_on_every_rule_of_the_plan(name: str) -> None:
    assert_agreement(PLAN.events[name], one_by_one(PLAN.events[name]))


@settings(max_examples=8, **SLOW)
@given(st.sampled_from(sorted(PLAN.events)), st.data())
def test_three_engines_agree_on_arbitrary_properties(name: str, data: st.DataObject) -> None:
    plan = PLAN.events[name]
    assert_agreement(plan, data.draw(st.lists(property_objects(plan), min_size=10, max_size=40)))


GENERATED = 20_000  # the fewest events on which the three engines have to agree


def generated(plan: EventPlan, rows: int) -> list[dict[str, Any]]:
    """Objects with up to three properties changed: any interesting value, a number near a bound, absent, or one too many."""
    chance = random.Random(plan.event)
    found = []
    for _ in range(rows):
        one = {name: usual(plan, name) for name in plan.properties}
        for name in chance.sample(sorted(one), min(len(one), chance.choice([0, 1, 1, 1, 2, 3]))):
            prop = plan.properties[name]
            bounds = [b + step for b in (prop.min, prop.max) if b is not None for step in (-0.0001, 0, 0.0001, 1)]
            pool = [STRINGS, NUMBERS, HUGE, OTHER, bounds or NUMBERS, [chance.randint(-(10**9), 10**9) / 10_000]]
            one[name] = chance.choice(chance.choice(pool))
            if chance.random() < 0.15:
                del one[name]
        if chance.random() < 0.05:
            one["zz"] = chance.choice(OTHER)
        found.append(one)
    return found


@pytest.mark.parametrize("name", sorted(PLAN.events))
def test_three_engines_agree_on_thousands_of_generated_events(name: str) -> None:
    plan = PLAN.events[name]
    assert_agreement(plan, generated(plan, -(-GENERATED // len(PLAN.events))))
