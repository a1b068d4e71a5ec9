"""Old partitions under today's plan: which types the lake's files hold, and how they are read after a declared change.

A file is read by its own types, which stand in its footer, and not by the version that its rows name: a property whose
type is today's is read as it is; another one goes through the event's migrations, from the last one that starts at the
type found. So what was retyped there and back is read as it was written.

Belongs here: finding types, the SQL of a migration, refusing what none covers. Does not belong here: the model of a
migration (plan.py), the relations for dbt (sources.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zantara_pipeline.contracts_io import load_yaml, overlay_files
from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import SQL_TYPES, EventPlan, Kind, Migration, TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

if TYPE_CHECKING:
    import pyarrow as pa

# What JSON calls a number (a leading plus besides). The engine's cast would also take nan, inf, 1_000 and 0x1f.
_NUMBER = r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?"
_WHOLE = r"[+-]?\d+(\.0+)?"


@dataclass(frozen=True)
class Unread:
    """A property whose stored type nothing in the plan explains; first_day: of the lake; None: of another plan."""

    event: str
    name: str
    stored: str
    wanted: Kind
    first_day: str | None

    @property
    def what(self) -> str:
        place = "the old plan" if self.first_day is None else f"the lake (day {self.first_day})"
        return f"{self.event}.{self.name} is {self.wanted} in the plan and {self.stored} in {place}"

    @property
    def todo(self) -> str:
        return f"declare the change under 'migrations' (from: {self.stored}, to: {self.wanted}), or give the type back"

    def where(self, dirs: Sequence[Path]) -> str | None:
        """File and line of the property's type; None where the folders do not have the event."""
        path = overlay_files(dirs, "tracking_plan/*.yaml").get(f"tracking_plan/{self.event}.yaml")
        return None if path is None else f"{path}:{load_yaml(path)[1]('properties', self.name, 'type')}"

    def refusal(self, dirs: Sequence[Path]) -> InputError:
        """One line: what, file and line, what to do."""
        return InputError(self.what, self.where(dirs), self.todo)


def stored_types(path: Path) -> dict[str, str]:
    """Column -> type of the plan (or the engine's own name of another type), of one Parquet file. Reads the footer only."""
    import pyarrow.parquet as pq

    return {field.name: _kind(field.type) for field in pq.read_schema(path)}


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa

    plain: dict[pa.DataType, str] = {
        pa.string(): "string", pa.float64(): "number", pa.int64(): "integer", pa.bool_(): "boolean",
        pa.decimal128(18, 4): "money",
    }  # fmt: skip
    return plain.get(kind, str(kind))


def typed_as_declared(event: EventPlan, path: Path) -> bool:
    """Whether one file holds every property, where it has it, in the type of today's plan."""
    stored = stored_types(path)
    return all(stored.get(name, prop.type) == prop.type for name, prop in event.properties.items())


def migrated_columns(event: EventPlan, stored: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Properties that one file does not hold as the plan has them: name -> (column of the file, SQL over it).

    Raises
    ------
    KeyError : the name of a property whose stored type no migration starts at.
    """
    found = {}
    for name, prop in event.properties.items():
        column = next((known for known in (name, *event.names_before(name)) if known in stored), None)
        if column is None or (column == name and stored[column] == prop.type):
            continue
        expression = f'"{column}"'
        for change in _steps(event, name, stored[column]):
            expression = _converted(expression, change)
        found[name] = (column, expression)
    return found


def _steps(event: EventPlan, name: str, stored: str) -> list[Migration]:
    changes = event.retypings(name)
    if stored == event.properties[name].type:
        return []
    for first in reversed(range(len(changes))):
        if changes[first].before == stored:
            return changes[first:]
    raise KeyError(name)


def _converted(value: str, change: Migration) -> str:
    assert change.before is not None and change.after is not None  # a change of type
    kind = SQL_TYPES[change.after]
    new = f"({_CASTS[change.how](value, change.before, change.after)})::{kind}"
    if change.default is None:
        return new
    default = f"{quote(str(change.default))}::{kind}"
    return f"CASE WHEN {value} IS NOT NULL THEN coalesce({new}, {default}) END"


def _parse(value: str, _: Kind, after: Kind) -> str:
    text = f"trim({value})"
    if after == "boolean":
        return f"CASE lower({text}) WHEN 'true' THEN true WHEN 'false' THEN false END"
    if after == "integer":
        whole = rf"regexp_replace({text}, '\.0+$', '')"
        return f"CASE WHEN regexp_full_match({text}, '{_WHOLE}') THEN try_cast({whole} AS BIGINT) END"
    number = f"CASE WHEN regexp_full_match({text}, '{_NUMBER}') THEN try_cast({text} AS {SQL_TYPES[after]}) END"
    return f"CASE WHEN isfinite({number}) THEN {number} END" if after == "number" else number


def _round(value: str, before: Kind, after: Kind) -> str:
    if after == "money":  # by way of the text: the number that people see, 1.00005, and not its nearest binary fraction
        return f"try_cast({value}::VARCHAR AS {SQL_TYPES[after]})"
    return f"try_cast(round({value}, 0) AS BIGINT)"


def _text(value: str, before: Kind, _: Kind) -> str:
    """As JSON would write it: an amount without the zeros that its column adds."""
    return rf"regexp_replace({value}::VARCHAR, '\.?0+$', '')" if before == "money" else f"{value}::VARCHAR"


_CASTS: dict[str, Callable[[str, Kind, Kind], str]] = {
    "parse": _parse,
    "round": _round,
    "trunc": lambda value, before, after: f"try_cast(trunc({value}) AS BIGINT)",
    "widen": lambda value, before, after: f"try_cast({value} AS {SQL_TYPES[after]})",
    "text": _text,
    "forget": lambda value, before, after: "NULL",
}


def event_files_sql(event: EventPlan, files: Sequence[Path]) -> list[str]:
    """SELECTs that together read these files of an event under today's plan, one for each way in which they differ.

    read_parquet over files of several types would silently make text of them all, so each kind of file is read and cast
    by itself.

    Raises
    ------
    InputError : a file holds a type that no migration covers (the check before a run says so with file and line).
    """
    groups: dict[tuple[tuple[str, tuple[str, str]], ...], list[Path]] = {}
    for path in files:
        stored = stored_types(path)
        try:
            columns = migrated_columns(event, stored)
        except KeyError as error:
            name = str(error.args[0])
            raise _unread(event, name, stored, path).refusal(()) from None
        groups.setdefault(tuple(sorted(columns.items())), []).append(path)
    return [_group_sql(dict(columns), paths) for columns, paths in sorted(groups.items())]


def _group_sql(columns: Mapping[str, tuple[str, str]], paths: Sequence[Path]) -> str:
    left_out = sorted({column for column, _ in columns.values()})
    star = f"* EXCLUDE ({', '.join(map(_name, left_out))})" if left_out else "*"
    casts = "".join(f", {expression} AS {_name(name)}" for name, (_, expression) in columns.items())
    return f"SELECT {star}{casts} FROM {read_accepted([str(path) for path in paths])}"


def _name(column: str) -> str:
    return f'"{column}"'


def read_accepted(globs: Sequence[str]) -> str:
    """The table function over files of the lake's accepted events."""
    files = "[" + ", ".join(quote(glob) for glob in globs) + "]"
    return (
        f"read_parquet({files}, union_by_name = true, hive_partitioning = true, "
        "hive_types = {'received_date': DATE, 'event': VARCHAR})"
    )


def unread_types(home: Home, plan: TrackingPlan) -> Iterator[Unread]:
    """Properties that the lake holds in a type which the plan can't read; at most one per event.

    Looks at the footers of an event's files only when its types or migrations are not those that the ledger knows to have
    been checked (see `remember_types`): a run writes its own plan's types, so what was right stays right.
    """
    path = home.state / "ledger.db"
    checked = _checked(Ledger(path)) if path.exists() else {}
    for event in plan.events.values():
        if checked.get(event.event) != types_fingerprint(event):
            found = _first_unread(home, event)
            if found is not None:
                yield found


def refuse_unread_types(home: Home, plan: TrackingPlan, dirs: Sequence[Path]) -> None:
    """Before anything is taken: the lake must be readable under the plan.

    Raises
    ------
    InputError : a type changed and no migration says how; file and line of the property.
    """
    for unread in unread_types(home, plan):
        raise unread.refusal(dirs)


def remember_types(ledger: Ledger, plan: TrackingPlan) -> None:
    """The lake is readable under this plan (call it after `refuse_unread_types`, while nobody else writes)."""
    rows = [(event.event, types_fingerprint(event)) for event in plan.events.values()]
    if dict(rows).items() - _checked(ledger).items():
        with ledger.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO lake_types_checked VALUES (?, ?)", rows)


def types_fingerprint(event: EventPlan) -> str:
    """Hash of what decides how an event's files are read."""
    parts = [f"{name} {prop.type}" for name, prop in sorted(event.properties.items())]
    parts += [change.model_dump_json() for change in event.migrations]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _checked(ledger: Ledger) -> dict[str, str]:
    with ledger.read() as db:
        return dict(db.execute("SELECT event, types FROM lake_types_checked").fetchall())


def _first_unread(home: Home, event: EventPlan) -> Unread | None:
    for path in sorted((home.accepted / f"event={event.event}").glob("received_date=*/*.parquet")):
        stored = stored_types(path)
        try:
            migrated_columns(event, stored)
        except KeyError as error:
            return _unread(event, str(error.args[0]), stored, path)
    return None


def _unread(event: EventPlan, name: str, stored: Mapping[str, str], path: Path) -> Unread:
    column = next(known for known in (name, *event.names_before(name)) if known in stored)
    day = path.parent.name.partition("=")[2]
    return Unread(event.event, name, stored[column], event.properties[name].type, day)


def covering(stored: Kind, new: EventPlan, name: str) -> list[Migration] | None:
    """The migrations by which rows of that type are read as a property of the new plan; None: none covers them."""
    try:
        return _steps(new, name, stored)
    except KeyError:
        return None
