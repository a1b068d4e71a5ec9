"""What every unit of every experiment has done so far, kept between runs, so that a day costs a day.

state.experiment_rows holds what a unit did, by the date on which it was received; state.experiment_values the two numbers of a
unit that moments are made of; state.experiment_sums their sums. A run removes the rows of dates that were staged again (late
events, corrections, what retention took), of dates with an event that its clock has passed since, and of units whose exposure is another than before;
it reads those again, and moves the sums by what the units concerned were and are. All is DECIMAL, so that taking off what was
added leaves nothing: the sums are those that are made from nothing. The notes of dates are those that core follows
(dbt_project/macros/touched.sql). Erasure drops the warehouse and this with it.

Everything is made from nothing where nobody knows what has changed: no notes, a clock that went back, or, for one experiment,
another configuration.

Belongs here: that state, one named query a step. Does not belong here: what the columns mean (`moments`), quantiles, which
need all observations at once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

MODEL = "moments"
"""Its name in state.touched_seen."""
FORMAT = "1"
"""Part of what a configuration stands for: raised when the queries below change what they count."""

# Made as dbt makes them (macros/touched.sql), for a warehouse that dbt has not built yet.
CREATE_STATE = (
    "create schema if not exists state",
    "create table if not exists state.touched (build bigint, entity varchar, entity_id varchar, "
    "first_at timestamp with time zone, last_at timestamp with time zone)",
    "create table if not exists state.touched_seen (model varchar, build bigint, as_of timestamp with time zone)",
    "create table if not exists state.experiment_definitions (experiment_id varchar, definition varchar)",
    "create table if not exists state.experiment_units (experiment_id varchar, unit_id varchar, variant varchar, "
    "first_exposed_at timestamptz)",
    "create table if not exists state.experiment_rows (experiment_id varchar, metric varchar, part varchar, unit_id varchar, "
    "received_date date, key varchar, during decimal(38, 8), before decimal(38, 8))",
    "create table if not exists state.experiment_values (experiment_id varchar, metric varchar, unit_id varchar, variant varchar, "
    "a decimal(19, 4), b decimal(19, 4))",
    "create table if not exists state.experiment_sums (experiment_id varchar, metric varchar, variant varchar, n bigint, "
    "a decimal(38, 4), b decimal(38, 4), aa decimal(38, 8), ab decimal(38, 8), bb decimal(38, 8))",
)
TABLES = ("experiment_units", "experiment_rows", "experiment_values", "experiment_sums", "experiment_definitions")
TEMPORARY = ("moment_dates", "moment_new", "moment_gone", "moment_changed", "moment_values")

SEEN = "select build, as_of from state.touched_seen where model = $model"

# Dates to read again. A bound that is one value lets the engine skip nearly all of the events.
DATES_AGAIN = """
create or replace temp table moment_dates as
select entity_id::date as received_date from state.touched where entity = 'received_date' and build > $build
union
select received_date from staging.stg_lake__events where occurred_at > $seen and occurred_at <= $as_of
union
select received_date from staging.stg_lake__events where received_at > $seen and received_at <= $as_of
"""
NO_DATES = "create or replace temp table moment_dates (received_date date)"

# Units that the state doesn't know as they are now, and those that are no more what it knows.
UNITS_NEW = """
create or replace temp table moment_new as
select * from experiment_units
anti join state.experiment_units as known using (experiment_id, unit_id, variant, first_exposed_at)
"""
UNITS_GONE = """
create or replace temp table moment_gone as
select known.experiment_id, known.unit_id, known.variant, known.first_exposed_at
from state.experiment_units as known
anti join experiment_units as unit using (experiment_id, unit_id, variant, first_exposed_at)
"""
KEEP_UNITS = (
    "delete from state.experiment_units as known using moment_gone as gone "
    "where known.experiment_id = gone.experiment_id and known.unit_id = gone.unit_id",
    "insert into state.experiment_units select experiment_id, unit_id, variant, first_exposed_at from moment_new",
)

# Units of one metric whose numbers may be others now.
CHANGED_UNITS = """
create or replace temp table moment_changed as
select experiment_id, unit_id from moment_new where list_contains($experiments, experiment_id)
union
select experiment_id, unit_id from moment_gone
union
select experiment_id, unit_id from state.experiment_rows
where
    metric = $metric
    and received_date >= (select min(received_date) from moment_dates)
    and received_date in (select received_date from moment_dates)
"""
REMOVE_ROWS = (
    """
delete from state.experiment_rows
where
    metric = $metric
    and received_date >= (select min(received_date) from moment_dates)
    and received_date in (select received_date from moment_dates)
""",
    *(
        f"""
delete from state.experiment_rows as kept using {units} as units
where kept.metric = $metric and kept.experiment_id = units.experiment_id and kept.unit_id = units.unit_id
"""
        for units in ("moment_new", "moment_gone")
    ),
)
# {rows}: event rows (user_id, occurred_at, received_date, amount, key) of a source. {which}: of which units and dates.
ADD_ROWS = """
insert into state.experiment_rows
with event_rows as ({rows})
select
    unit.experiment_id,
    $metric,
    $part,
    unit.unit_id,
    event_rows.received_date,
    {key},
    coalesce({amount} filter (where event_rows.occurred_at >= unit.first_exposed_at), 0),
    coalesce({amount} filter (where event_rows.occurred_at < unit.starts_at), 0)
from {which}
where
    list_contains($experiments, unit.experiment_id)
    and event_rows.occurred_at >= unit.pre_starts_at
    and event_rows.occurred_at < unit.ends_at
    and (event_rows.occurred_at >= unit.first_exposed_at or event_rows.occurred_at < unit.starts_at)
    {more}
group by all
"""
KNOWN_UNITS = """
(from experiment_units anti join moment_new using (experiment_id, unit_id)) as unit
join event_rows on event_rows.user_id = unit.unit_id
"""
OF_DATES = """
    and event_rows.received_date >= (select min(received_date) from moment_dates)
    and event_rows.received_date in (select received_date from moment_dates)
"""
NEW_UNITS = "moment_new as unit join event_rows on event_rows.user_id = unit.unit_id"
OF_NEW = "and event_rows.occurred_at >= (select min(least(pre_starts_at, first_exposed_at)) from moment_new)"
CHANGED_BY_ROWS = """
insert into moment_changed
select distinct experiment_id, unit_id from state.experiment_rows
where
    metric = $metric
    and received_date >= (select min(received_date) from moment_dates)
    and received_date in (select received_date from moment_dates)
except
select experiment_id, unit_id from moment_changed
"""

# A unit without rows has 0 and 0: it was exposed, so it counts.
NEW_VALUES = """
create or replace temp table moment_values as
with totals as (
    select
        experiment_id,
        unit_id,
        {totals}
    from state.experiment_rows
    where metric = $metric and (experiment_id, unit_id) in (select (experiment_id, unit_id) from moment_changed)
    group by all
)
select unit.experiment_id, unit.unit_id, unit.variant, {a} as a, {b} as b
from experiment_units as unit
semi join moment_changed as changed using (experiment_id, unit_id)
left join totals as total using (experiment_id, unit_id)
where list_contains($experiments, unit.experiment_id)
"""
MOVE_SUMS = """
create or replace temp table moment_sums as
with moved as (
    select experiment_id, variant, 1 as n, a, b, a * a as aa, a * b as ab, b * b as bb from moment_values
    union all
    select experiment_id, variant, -1, -a, -b, -(a * a), -(a * b), -(b * b) from state.experiment_values
    where metric = $metric and (experiment_id, unit_id) in (select (experiment_id, unit_id) from moment_changed)
),
parts as (
    select * from moved
    union all
    select experiment_id, variant, n, a, b, aa, ab, bb from state.experiment_sums where metric = $metric
)
select experiment_id, variant, sum(n) as n, sum(a) as a, sum(b) as b, sum(aa) as aa, sum(ab) as ab, sum(bb) as bb
from parts
group by all
having sum(n) > 0
"""
KEEP_SUMS = (
    "delete from state.experiment_sums where metric = $metric",
    "insert into state.experiment_sums select experiment_id, $metric, variant, n, a, b, aa, ab, bb from moment_sums",
)
KEEP_VALUES = (
    "delete from state.experiment_values where metric = $metric "
    "and (experiment_id, unit_id) in (select (experiment_id, unit_id) from moment_changed)",
    "insert into state.experiment_values select experiment_id, $metric, unit_id, variant, a, b from moment_values",
)
MARK_SEEN = (
    "delete from state.touched_seen where model = $model",
    "insert into state.touched_seen select $model, coalesce(max(build), 0), $as_of from state.touched",
)


@dataclass(frozen=True)
class Part:
    """One source of a metric. rows : SQL of its event rows. distinct : keys are counted, each once; counted : rows are."""

    name: str
    rows: str
    distinct: bool
    counted: bool


def begin_following(con: duckdb.DuckDBPyConnection, definitions: Mapping[str, str], as_of: dt.datetime) -> None:
    """Find what has changed since the last build. After `classify_units`, in the transaction that ends with `mark_followed`.

    definitions : experiment -> what its rows stand for; one that differs from the last is made from nothing.
    """
    for statement in CREATE_STATE:
        con.execute(statement)
    seen = con.execute(SEEN, {"model": MODEL}).fetchall()
    known = dict(con.execute("select experiment_id, definition from state.experiment_definitions").fetchall())
    follow = bool(seen) and as_of >= seen[0][1]
    if follow:
        con.execute(DATES_AGAIN, {"build": seen[0][0], "seen": seen[0][1], "as_of": as_of})
    else:
        con.execute(NO_DATES)
    wanted = {name: f"{FORMAT}:{definition}" for name, definition in definitions.items()}
    stale = [name for name, definition in known.items() if not follow or wanted.get(name) != definition]
    for table in TABLES:
        con.execute(f"delete from state.{table} where list_contains($stale, experiment_id)", {"stale": stale})
    for name, definition in wanted.items():
        if name not in known or name in stale:
            con.execute("insert into state.experiment_definitions values (?, ?)", [name, definition])
    con.execute(UNITS_NEW)
    con.execute(UNITS_GONE)


def follow_metric(
    con: duckdb.DuckDBPyConnection,
    metric: str,
    parts: Sequence[Part],
    experiments: Sequence[str],
    values: tuple[str, str],
    as_of: dt.datetime,
) -> None:
    """Bring the sums of one metric up to date: state.experiment_sums, one row per experiment and variant with units.

    values : SQL of the unit's two numbers, of the columns `<part>_during` and `<part>_before` of `total`, which may be null.
    """
    names = {"metric": metric, "experiments": list(experiments)}
    con.execute(CHANGED_UNITS, names)
    for statement in REMOVE_ROWS:
        con.execute(statement, {"metric": metric})
    for part in parts:
        amount = "max(1)" if part.distinct else "count(*)" if part.counted else "sum(event_rows.amount)"
        key = "event_rows.key" if part.distinct else "null"
        for which, more in ((KNOWN_UNITS, OF_DATES), (NEW_UNITS, OF_NEW)):
            more += " and event_rows.key is not null" if part.distinct else ""
            query = ADD_ROWS.format(rows=part.rows, amount=amount, key=key, which=which, more=more)
            con.execute(query, {**names, "part": part.name, "as_of": as_of})
    con.execute(CHANGED_BY_ROWS, {"metric": metric})
    totals = ", ".join(_totals(part) for part in parts)
    con.execute(NEW_VALUES.format(totals=totals, a=values[0], b=values[1]), names)
    con.execute(MOVE_SUMS, {"metric": metric})
    for statement in (*KEEP_SUMS, *KEEP_VALUES):
        con.execute(statement, {"metric": metric})
    con.execute("drop table temp.moment_sums")


def mark_followed(con: duckdb.DuckDBPyConnection, as_of: dt.datetime) -> None:
    """Keep what was followed up to, with the units as they are now."""
    for statement in KEEP_UNITS:
        con.execute(statement)
    con.execute(MARK_SEEN[0], {"model": MODEL})
    con.execute(MARK_SEEN[1], {"model": MODEL, "as_of": as_of})


def drop_following(con: duckdb.DuckDBPyConnection) -> None:
    """Drop the temporary tables."""
    for table in (*TEMPORARY, "moment_sums"):
        con.execute(f"drop table if exists temp.{table}")


def _totals(part: Part) -> str:
    found = []
    for side in ("during", "before"):
        of_part = f"part = '{part.name}'"
        if part.distinct:
            found.append(f"count(distinct key) filter (where {of_part} and {side} > 0) as {part.name}_{side}")
        else:
            found.append(f"sum({side}) filter (where {of_part}) as {part.name}_{side}")
    return ", ".join(found)
