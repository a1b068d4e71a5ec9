"""`zantara plan diff OLD NEW`: what changed, whether it breaks anything, whether the version says so.

Versions are SchemaVer (Snowplow): MODEL-REVISION-ADDITION.
model    : data of the old plan cannot be read as the new one (an event or property gone, another type).
revision : some events that the old plan takes fail the new one (a rule made tighter, another consent).
addition : whatever the old plan takes, the new one takes too.

Belongs here: comparing two plans, and asking the last accepted day. Does not belong here: lint (lint.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import duckdb

from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.migrations import Unread, covering
from zantara_pipeline.tracking.plan import SQL_TYPES, EventPlan, Kind, Property, TrackingPlan, version_numbers
from zantara_pipeline.tracking.sql_checks import compile_checks, quote

Level = Literal["model", "revision", "addition", "none"]
LEVELS: tuple[Level, ...] = ("model", "revision", "addition", "none")


@dataclass(frozen=True)
class Change:
    """One difference; breaking when an event that was right before may be wrong now."""

    event: str
    path: str
    level: Level
    what: str

    @property
    def breaking(self) -> bool:
        return self.level in ("model", "revision")


@dataclass(frozen=True)
class VersionProblem:
    """An event whose version does not say what its changes are."""

    event: str
    old: str
    new: str
    needs: str


def changes(old: TrackingPlan, new: TrackingPlan) -> list[Change]:
    """All differences, by event and path."""
    found: list[Change] = []
    for name in sorted(old.events.keys() | new.events.keys()):
        before, after = old.events.get(name), new.events.get(name)
        if before is None:
            found.append(Change(name, "$", "addition", "event added"))
        elif after is None:
            found.append(Change(name, "$", "model", "event removed"))
        else:
            found += _event_changes(before, after)
    return found


def version_problems(old: TrackingPlan, new: TrackingPlan, found: list[Change]) -> list[VersionProblem]:
    """Events in both plans whose new version is lower than their changes need, or changed for nothing."""
    problems = []
    for name in sorted(old.events.keys() & new.events.keys()):
        levels: list[Level] = [change.level for change in found if change.event == name]
        level: Level = min(levels, key=LEVELS.index, default="none")
        before, after = old.events[name].version, new.events[name].version
        needs = _next_version(before, level)
        if version_numbers(after) < version_numbers(needs):
            problems.append(VersionProblem(name, before, after, needs))
    return problems


def _next_version(version: str, level: Level) -> str:
    model, revision, addition = version_numbers(version)
    steps = {
        "model": (model + 1, 0, 0), "revision": (model, revision + 1, 0),
        "addition": (model, revision, addition + 1), "none": (model, revision, addition),
    }  # fmt: skip
    return "-".join(str(part) for part in steps[level])


def _event_changes(old: EventPlan, new: EventPlan) -> Iterator[Change]:
    if old.consent_category != new.consent_category:
        what = f"consent category {old.consent_category} becomes {new.consent_category}"
        yield Change(old.event, "consent_category", "revision", what)
    yield from _lifecycle_changes(old, new)
    for key in _SAYINGS:
        if getattr(old, key) != getattr(new, key):
            yield Change(old.event, key, "none", _words_of_change(getattr(old, key), getattr(new, key)))
    for name in sorted(old.properties.keys() | new.properties.keys()):
        path = f"$.properties.{name}"
        before, after = old.properties.get(name), new.properties.get(name)
        if before is None and after is not None:
            level: Level = "revision" if after.required else "addition"
            yield Change(old.event, path, level, f"{'required ' if after.required else ''}property added")
        elif after is None:
            now = next((m.name for m in new.migrations if m.renamed_from == name), None)
            said = (
                "property removed" if now is None else f"property renamed to {now} (a migration reads older partitions)"
            )
            yield Change(old.event, path, "model", said)
        elif before is not None and before.type != after.type:
            yield Change(
                old.event,
                path,
                "model",
                f"type {before.type} becomes {after.type} ({_reading(before.type, new, name)})",
            )
        elif before is not None:
            yield from (Change(old.event, path, level, what) for level, what in _property_changes(before, after))


# What an event says of itself besides which data is right: no version changes for it, and whoever reads a diff wants to know.
_SAYINGS = ("description", "purpose", "lawful_basis", "owner", "platforms", "context", "retention_days", "sla", "uses", "qa_steps")  # fmt: skip


def _lifecycle_changes(old: EventPlan, new: EventPlan) -> Iterator[Change]:
    before, after = old.lifecycle.status, new.lifecycle.status
    if before != after:
        level: Level = "model" if after == "retired" else "addition" if before == "retired" else "none"
        what = "retired" if after == "retired" else f"{before} becomes {after}"
        yield Change(old.event, "lifecycle.status", level, what)


def _words_of_change(old: Any, new: Any) -> str:
    """Short values in full; of long ones only that they changed."""
    if all(value is None or isinstance(value, int | str) for value in (old, new)):
        before, after = ("nothing" if value is None else str(value) for value in (old, new))
        if len(before) + len(after) <= 80:
            return f"{before} becomes {after}"
    return "changed"


def _reading(old: Kind, new: EventPlan, name: str) -> str:
    steps = covering(old, new, name)
    if steps is None:
        return "no migration says how older partitions are read"
    return f"older partitions are read by migration: {', '.join(step.how for step in steps)}"


def unread_changes(old: TrackingPlan, new: TrackingPlan) -> list[Unread]:
    """Types that changed without a migration: a home that holds the event could not run under the new plan."""
    found = []
    for name in sorted(old.events.keys() & new.events.keys()):
        before, after = old.events[name].properties, new.events[name]
        for prop, now in after.properties.items():
            known = next((past for past in (prop, *after.names_before(prop)) if past in before), None)
            if known is not None and covering(before[known].type, after, prop) is None:
                found.append(Unread(name, prop, before[known].type, now.type, None))
    return found


def _property_changes(old: Property, new: Property) -> Iterator[tuple[Level, str]]:
    if old.required != new.required:
        yield ("revision", "becomes required") if new.required else ("addition", "is required no more")
    elif old.allows_null != new.allows_null:
        yield ("addition", "may be null") if new.allows_null else ("revision", "may be null no more")
    yield from _bound("min", old.min, new.min, lambda a, b: b <= a)
    yield from _bound("max", old.max, new.max, lambda a, b: b >= a)
    yield from _bound("max_length", old.max_length, new.max_length, lambda a, b: b >= a)
    yield from _bound("enum", old.enum, new.enum, lambda a, b: set(b) >= set(a))
    yield from _bound("pattern", old.pattern, new.pattern, lambda a, b: False)
    if (old.description, old.pii, old.retention_days) != (new.description, new.pii, new.retention_days):
        yield "none", "description, pii or retention changed"


def _bound(name: str, old: Any, new: Any, looser: Callable[[Any, Any], bool]) -> Iterator[tuple[Level, str]]:
    if old == new:
        return
    if new is None:
        yield "addition", f"{name} {_words(old)} is gone"
    elif old is None:
        yield "revision", f"{name} {_words(new)} is new"
    else:
        yield ("addition" if looser(old, new) else "revision"), f"{name} {_words(old)} becomes {_words(new)}"


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Rejected:
    """Accepted events of one day, and how many of them the new plan would reject."""

    event: str
    day: date
    rows: int
    rejected: int


def rejected_on_last_day(home: Home, old: TrackingPlan, new: TrackingPlan, *, threads: int) -> list[Rejected]:
    """Judge the last accepted received date of the lake by the new plan's rules, event by event.

    The lake holds typed values, so what is asked is what can be asked of values: removed and required properties, other
    types, tighter rules, retired events.
    """
    days = sorted({folder.name for folder in home.accepted.glob("event=*/received_date=*")})
    if not days:
        return []
    con = duckdb.connect(config={"threads": threads})
    try:
        found = []
        for event in old.events.values():
            files = home.accepted / f"event={event.event}" / days[-1]
            if files.is_dir():
                query = _reject_sql(event, new.events.get(event.event), _with_all_columns(con, event, files))
                rows, wrong = con.execute(query).fetchall()[0]
                found.append(Rejected(event.event, date.fromisoformat(days[-1].split("=")[1]), rows, wrong))
        return found
    finally:
        con.close()


def _with_all_columns(con: duckdb.DuckDBPyConnection, event: EventPlan, files: Path) -> str:
    """Relation of a day's rows with every declared property: files that were written before one was are without it."""
    source = f"read_parquet({quote(str(files / '*.parquet'))}, union_by_name = true)"
    there = {row[0] for row in con.execute(f"DESCRIBE FROM {source}").fetchall()}
    lacking = "".join(
        f', NULL::{SQL_TYPES[prop.type]} AS "{name}"' for name, prop in event.properties.items() if name not in there
    )
    return f"(SELECT *{lacking} FROM {source})"


def _reject_sql(old: EventPlan, new: EventPlan | None, source: str) -> str:
    if new is None or new.lifecycle.status == "retired":
        return f"SELECT count(*), count(*) FROM {source}"
    rules = [f's."{name}" IS NULL' for name in old.properties if name not in new.properties]
    typed = []
    for name, prop in new.properties.items():
        before = old.properties.get(name)
        if before is None:
            typed.append(f'NULL::{SQL_TYPES[prop.type]} AS "{name}"')
        elif _readable_as(before.type, prop.type):
            typed.append(f'try_cast("{name}" AS {SQL_TYPES[prop.type]}) AS "{name}"')
            rules.append(f'(c."{name}" IS NOT NULL OR s."{name}" IS NULL)')
            if prop.type == "integer" and before.type != "integer":
                rules.append(f's."{name}" IS NOT DISTINCT FROM c."{name}"')
        else:
            typed.append(f'NULL::{SQL_TYPES[prop.type]} AS "{name}"')
            rules.append(f's."{name}" IS NULL')
        if prop.required:
            rules.append(f'c."{name}" IS NOT NULL')
    rules += [
        f"coalesce({check.passes}, true)" for check in compile_checks(new, lambda name: f'c."{name}"', stored=True)
    ]
    keeps = " AND ".join(rules) or "true"
    columns = ", ".join(typed) or "1 AS nothing"
    return f"""
        WITH s AS (SELECT *, row_number() OVER () AS n FROM {source}),
        c AS (SELECT n, {columns} FROM s)
        SELECT count(*), count(*) FILTER (NOT ({keeps})) FROM s JOIN c USING (n)
    """


def _readable_as(old: str, new: str) -> bool:
    """Whether a JSON value of one type can be one of the other: all numbers are alike, a text is never a number."""
    numbers = {"number", "integer", "money"}
    return old == new or (old in numbers and new in numbers)
