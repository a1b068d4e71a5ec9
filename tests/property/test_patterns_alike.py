"""What a plan may write as a pattern says the same to every engine that reads it, and stops none."""

from __future__ import annotations

import re
from collections.abc import Callable

import duckdb
import jsonschema_rs
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from zantara_pipeline.tracking.patterns import pattern_problem
from zantara_pipeline.tracking.sql_checks import quote

PIECES = [
    "a", "b", "é", "𝄞", "]", "}", "-", "&", "~", " ", "#", "/", "<", ".", "|", "^", "$", "*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}",
    "{", "[ab]", "[^a]", "[a-c]", "[]a]", "[^]a]", "[]-a]", "[a-]", "[-a]", "[^-a]", "[a&&b]", "[a--b]", "[a~~b]", "[[a]", "[[:alpha:]]",
    "[a-c-e]", r"[\]\-]", r"[\x41-\x43]", "[é-ü]", "[a^]", "[.$|(]", r"\.", r"\-", r"\<", r"\_", r"\x41", r"\u0041", r"\a", r"\0", r"\n", r"\v",
    r"\é", r"\d", r"\b", "(?=a)", "(?i)", "(?P<x>a)", r"(a)\1", "(?>a)",
]  # fmt: skip
pieces = st.sampled_from(PIECES)
patterns = st.recursive(
    st.lists(pieces, min_size=1, max_size=3).map("".join),
    lambda inner: st.tuples(st.sampled_from(["(", "(?:"]), inner, inner, st.sampled_from([")", ")*", "){2}", ")??"])).map(
        lambda parts: parts[0] + parts[1] + "|" + parts[2] + parts[3]
    ),
    max_leaves=3,
).map(lambda inner: f"^{inner}$")  # fmt: skip
SINGLE = [*"aAbBce1_é𝄞ü]}[{-&~ #/<>.|^$*+?,(:=)\\\n\r\t\x0b\x00\u2028", ""]
texts = st.lists(st.sampled_from(SINGLE), max_size=4).map("".join)


def of_duckdb(pattern: str, found: list[str]) -> list[bool]:
    query = f"SELECT regexp_full_match(t, {quote(pattern)}) FROM (SELECT unnest(?::VARCHAR[]) AS t)"
    return [row[0] for row in duckdb.execute(query, [found]).fetchall()]


def of_polars(pattern: str, found: list[str]) -> list[bool]:
    return pl.Series(found, dtype=pl.String).str.contains(pattern).to_list()


def of_json_schema(pattern: str, found: list[str]) -> list[bool]:
    validator = jsonschema_rs.validator_for({"pattern": pattern})
    return [validator.is_valid(text) for text in found]


def of_python(pattern: str, found: list[str]) -> list[bool]:
    return [re.fullmatch(pattern, text) is not None for text in found]


ENGINES: list[Callable[[str, list[str]], list[bool]]] = [of_duckdb, of_polars, of_json_schema]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(patterns, st.lists(texts, max_size=8))
@example("^(?:[^a]{10}){100}$", ["é" * 1000]).via("as often as RE2 repeats anything")
@example("^.{1000}$", ["𝄞" * 1000])
def test_a_pattern_that_a_plan_may_have_says_the_same_to_every_engine(pattern: str, found: list[str]) -> None:
    assume(pattern_problem(pattern) is None)
    found = [*SINGLE, *found]
    expected = of_python(pattern, found)
    for engine in ENGINES:
        assert engine(pattern, found) == expected, (pattern, engine.__name__)


@pytest.mark.parametrize(
    "pattern",
    ["^a{,3}$", "^a++$", "^a*+$", "^[[a]$", "^[a&&b]$", "^[a~~b]$", r"^\0$", r"^\u00e9$", r"^\a$", "^a{1001}$", "^(?:a{500}){3}$", r"^\<$",
     "^[[:alpha:]]$", "^a{2}??+$", "^a{$", "^[a-c-e]$", r"^a\$", "^(?=a)a$", r"^(a)\1$", "^(?i)a$", r"^\d$", "a", "^a|b$", "^(?>a)$", "^(a$"],
)  # fmt: skip
def test_what_engines_read_differently_is_no_pattern_of_a_plan(pattern: str) -> None:
    assert pattern_problem(pattern) is not None


WIDE = "[^\x7f-\u0801\u1000-\U00010010]"


@pytest.mark.parametrize("count", [1, 3, 10, 30, 100])
@pytest.mark.parametrize("piece", [".{1000}", "[^a]{0,999}", f"(?:{WIDE}{{40}}){{20}}", "(?:a|b.){500}"])
def test_a_pattern_is_taken_as_long_as_every_engine_holds_it(piece: str, count: int) -> None:
    pattern = f"^{piece * count}$"
    if pattern_problem(pattern) is None:
        for engine in ENGINES:
            assert engine(pattern, ["a"]) == of_python(pattern, ["a"])
    else:
        assert count >= 10, "what every engine holds is taken"


@pytest.mark.parametrize(
    "pattern", ["^" + ".{1000}" * 30 + "$", "^(a{1000}){1000}$", "^" + "(" * 300 + "a" + ")" * 300 + "$"]
)
def test_a_pattern_that_is_too_large_for_an_engine_is_refused(pattern: str) -> None:
    assert pattern_problem(pattern) is not None


@pytest.mark.parametrize(
    "token",
    [
        "[^a]",
        "[^ab-c]",
        WIDE,
        "[" + "".join(f"{chr(a)}-{chr(a + 1500)}" for a in range(200, 60_000, 2000) if not 0xD000 < a < 0xE000) + "]",
    ],
)
def test_what_is_not_tried_out_is_held(token: str) -> None:
    """Of the heaviest classes as many as weigh no more than what is taken for granted."""
    times = min(4_000 // len(token), 1_000)
    pattern = f"^{token}{{{times}}}$"
    assert pattern_problem(pattern) is None
    for engine in ENGINES:
        assert engine(pattern, ["a"]) == of_python(pattern, ["a"])


@pytest.mark.parametrize(
    "pattern",
    ["^[A-Z]{3}$", r"^(?:[A-Z]{2}[\-\_].{1,3}|0)$", r"^[^@\s]+$".replace(r"\s", " "), "^$", r"^a\\$", "^[0-9]{4}-[0-9]{2}$", "^(a|b)+?$", "^[]a]$"],
)  # fmt: skip
def test_usual_patterns_are_taken(pattern: str) -> None:
    assert pattern_problem(pattern) is None
