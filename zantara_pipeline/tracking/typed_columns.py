"""Properties of a batch as typed columns: their names, their values from text, and the rules of each event over them.

Belongs here: what everything that reads or judges those columns has to agree on. Does not belong here: the checks
themselves (sql_checks.py), who reads the lines (plain_lines.py, other_lines.py).
"""

from __future__ import annotations

from collections.abc import Callable

from zantara_pipeline.tracking.plain_lines import value_column
from zantara_pipeline.tracking.plan import SQL_TYPES, EventPlan, TrackingPlan
from zantara_pipeline.tracking.sql_checks import SqlCheck, quote


def typed_column(name: str, event: EventPlan) -> str:
    """The column of `parsed` that holds a property's values, quoted."""
    return f'"{value_column(name, event.properties[name].type)}"'


def typed_value(text: str, event: EventPlan, name: str) -> str:
    """A value from its text: a number too large for its type becomes null, which `_value_rules` tells from absent."""
    kind = event.properties[name].type
    return text if kind == "string" else f"try_cast({text} AS {SQL_TYPES[kind]})"


def range_rules(event: EventPlan, column: Callable[[str], str], texts: str) -> list[SqlCheck]:
    """Every number of an event fits its type: over its typed columns and the struct of their texts."""
    return [
        SqlCheck(
            f"$.properties.{name}", "out_of_range", "type", SQL_TYPES[prop.type],
            f'({column(name)} IS NOT NULL OR {texts}."{name}" IS NULL)',
        )
        for name, prop in event.properties.items() if prop.type != "string"
    ]  # fmt: skip


def by_event(plan: TrackingPlan, rules: Callable[[EventPlan, Callable[[str], str]], list[SqlCheck]]) -> str:
    """Whether a row's values satisfy the rules of its event."""
    cases = []
    for event in plan.events.values():
        checks = rules(event, lambda name, event=event: typed_column(name, event))  # type: ignore[misc]
        if checks:
            passes = " AND ".join(f"coalesce({check.passes}, true)" for check in checks)
            cases.append(f"WHEN {quote(event.event)} THEN {passes}")
    return f"CASE event {' '.join(cases)} ELSE true END" if cases else "true"
