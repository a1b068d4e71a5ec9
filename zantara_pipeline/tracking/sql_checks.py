"""pandera checks compiled into SQL: one boolean and one reason per check, for one projection over a whole batch.

Belongs here: the closed list of checks that are understood, read from the public `Check.name` and
`Check.statistics`. Does not belong here: structural rules (shapes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.keyed_hash import TOKEN_PATTERN, UNCHECKED_PATTERN
from zantara_pipeline.tracking.pandera_schema import pandera_schema
from zantara_pipeline.tracking.plan import EventPlan

FAILED_BEFORE = "unchecked_identifier"
"""Code of a direct identifier whose value failed before it was hashed; nobody can judge it again."""


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def sql_list(items: Sequence[str]) -> str:
    """A SQL list of string literals."""
    return "[" + ", ".join(quote(item) for item in items) + "]"


@dataclass(frozen=True)
class SqlCheck:
    """One compiled check: `passes` is a SQL boolean (null passes), the rest is the reason when it does not."""

    path: str
    code: str
    keyword: str
    expected: str
    passes: str


Compiler = Callable[[str, dict[str, Any]], tuple[str, str, str, str]]


def _number(value: int | float | Decimal) -> str:
    """A bound as SQL and as people read it: whole numbers and amounts exactly, others as the double that is meant."""
    return (
        repr(int(value)) if value == int(value) else format(value, "f") if isinstance(value, Decimal) else repr(value)
    )


# pandera check name -> (code, JSON Schema keyword, expected, SQL)
_COMPILERS: dict[str, Compiler] = {
    "isin": lambda c, s: (
        "not_in_enum", "enum", ", ".join(s["allowed_values"]), f"{c} IN ({', '.join(quote(v) for v in s['allowed_values'])})"
    ),
    "str_matches": lambda c, s: (
        "pattern_mismatch", "pattern", _source(s["pattern"]), f"regexp_full_match({c}, {quote(_source(s['pattern']))})"
    ),
    "str_length": lambda c, s: ("too_long", "maxLength", str(s["max_value"]), f"length({c}) <= {int(s['max_value'])}"),
    "greater_than_or_equal_to": lambda c, s: (
        "below_minimum", "minimum", _number(s["min_value"]), f"{c} >= {_number(s['min_value'])}"
    ),
    "less_than_or_equal_to": lambda c, s: (
        "above_maximum", "maximum", _number(s["max_value"]), f"{c} <= {_number(s['max_value'])}"
    ),
}  # fmt: skip


def _source(pattern: Any) -> str:
    return pattern.pattern if hasattr(pattern, "pattern") else str(pattern)


def compile_checks(
    plan: EventPlan, column_of: Callable[[str], str] = '"{}"'.format, *, stored: bool = False
) -> list[SqlCheck]:
    """Compile every value check of an event's pandera schema, over the SQL columns that hold its properties.

    Parameters
    ----------
    stored : values come from our own store: a direct identifier that is a token passed its checks as a value.

    Raises
    ------
    InputError : a check outside the closed list (so that none is silently skipped).
    """
    compiled = []
    for name, column in pandera_schema(plan).columns.items():
        sql_name = column_of(name)
        if plan.properties[name].type in ("number", "money"):
            compiled.append(
                SqlCheck(
                    f"$.properties.{name}", "not_finite", "type", "a finite number", f"isfinite({sql_name}::DOUBLE)"
                )
            )
        for check in column.checks:
            if check.name not in _COMPILERS:
                raise InputError(f"the check '{check.name}' has no SQL form", f"event {plan.event}, property {name}")
            code, keyword, expected, passes = _COMPILERS[check.name](sql_name, check.statistics)
            if stored and plan.properties[name].pii == "direct":
                passes = f"({_is(TOKEN_PATTERN, sql_name)} OR {_is(UNCHECKED_PATTERN, sql_name)} OR {passes})"
            compiled.append(SqlCheck(f"$.properties.{name}", code, keyword, expected, passes))
        if stored and plan.properties[name].pii == "direct":
            wrong = _is(UNCHECKED_PATTERN, sql_name)
            compiled.append(
                SqlCheck(f"$.properties.{name}", FAILED_BEFORE, "pii", "a value that passed", f"NOT {wrong}")
            )
    return compiled


def _is(pattern: str, column: str) -> str:
    return f"regexp_full_match({column}, {quote(pattern)})"
