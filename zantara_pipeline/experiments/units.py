"""From exposures to the units that count: windows, exclusions.

Belongs here: which exposed units an experiment analyses, how many it leaves out and why, how many are in each segment. Does not belong here:
their metrics (`moments`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments.assignment import bounds, place_sql
from zantara_pipeline.experiments.registry import Experiment, ExperimentRegistry

EXPOSURES_EXIST = """
select count(*) from information_schema.tables where table_schema = 'experiments' and table_name = 'exposures'
"""

CREATE_WINDOWS = """
create or replace temp table experiment_windows (
    experiment_id varchar, variant varchar, weight double, pre_starts_at timestamptz, starts_at timestamptz,
    ends_at timestamptz
)
"""

# Every exposure of a registered experiment until as_of falls in exactly one class, the first that applies.
CLASSIFY_UNITS = """
create or replace temp table experiment_classified_units as
select
    exposed.experiment_id,
    exposed.unit_id,
    exposed.variant,
    exposed.first_exposed_at,
    experiment.pre_starts_at,
    experiment.starts_at,
    experiment.ends_at,
    exposed.platform,
    exposed.app_version,
    exposed.country,
    case
        when exposed.contaminated then 'contaminated'
        when exposed.first_exposed_at < experiment.starts_at then 'before_start'
        when exposed.first_exposed_at >= experiment.ends_at then 'after_end'
        when arm.variant is null then 'undeclared_variant'
        when arm.weight = 0 then 'closed_variant'
        else 'eligible'
    end as class
from experiments.exposures as exposed
join (select distinct experiment_id, pre_starts_at, starts_at, ends_at from experiment_windows) as experiment
    on experiment.experiment_id = exposed.experiment_id
left join experiment_windows as arm
    on arm.experiment_id = exposed.experiment_id and arm.variant = exposed.variant
where exposed.first_exposed_at <= $as_of
"""

ELIGIBLE_UNITS = """
create or replace temp table experiment_units as
select experiment_id, unit_id, variant, first_exposed_at, pre_starts_at, starts_at, ends_at
from experiment_classified_units
where class = 'eligible'
"""

COUNT_CLASSES = """
select experiment_id, class, count(*) from experiment_classified_units group by all order by all
"""

# By all that an exposure says of where it was logged.
COUNT_SEGMENTS = """
select dimension, coalesce(nullif(value, ''), 'none') as value, variant, count(*)
from (
    unpivot (
        select
            variant,
            coalesce(platform, '') as platform,
            coalesce(app_version, '') as app_version,
            coalesce(country, '') as country,
            first_exposed_at::date::varchar as day
        from experiment_classified_units
        where class = 'eligible' and experiment_id = $experiment
    )
    on platform, app_version, country, day into name dimension value value
)
group by all
order by all
"""

CREATE_BOUNDS = """
create or replace temp table experiment_bounds (
    experiment_id varchar, salt varchar, variant varchar, from_place bigint, below bigint
)
"""

# First exposures that a salt gives another variant than was logged. Of contaminated units one of two is right.
COUNT_DISAGREEING = f"""
select unit.experiment_id, count(*)
from experiment_units as unit
join experiment_bounds as bound
    on bound.experiment_id = unit.experiment_id
    and {place_sql("bound.salt", "unit.unit_id")} >= bound.from_place
    and {place_sql("bound.salt", "unit.unit_id")} < bound.below
where bound.variant <> unit.variant
group by unit.experiment_id
"""

UNREGISTERED = """
select distinct experiment_id
from experiments.exposures
where experiment_id not in (select experiment_id from experiment_windows) and first_exposed_at <= $as_of
order by experiment_id
"""


@dataclass(frozen=True)
class UnitCounts:
    """Units of one experiment: how many are analysed, how many left out by reason (contaminated, before_start, ...).

    disagreeing : of those analysed, how many were logged in another variant than the salt gives; 0 without a salt.
    """

    eligible: int
    excluded: Mapping[str, int]
    disagreeing: int = 0

    @property
    def exposed(self) -> int:
        """All that are known, analysed or not."""
        return self.eligible + sum(self.excluded.values())

    @property
    def leaked(self) -> int:
        """Units in variants where nobody may be: closed ones, and those that the registration doesn't know."""
        return self.excluded.get("closed_variant", 0) + self.excluded.get("undeclared_variant", 0)


def check_as_of(as_of: dt.datetime) -> dt.datetime:
    """The same instant in UTC; InputError without a time zone."""
    if as_of.tzinfo is None:
        raise InputError("as_of has no time zone", todo="give it in UTC, for example 2026-03-02T00:00:00Z")
    return as_of.astimezone(dt.UTC)


def classify_units(
    con: duckdb.DuckDBPyConnection, registry: ExperimentRegistry, as_of: dt.datetime
) -> tuple[dict[str, UnitCounts], tuple[str, ...]]:
    """Fill the temporary tables of classified and eligible units.

    Returns
    -------
    (counts per registered experiment, ids that were exposed but have no registration).
    """
    if con.execute(EXPOSURES_EXIST).fetchall()[0][0] == 0:
        raise InputError("the relation experiments.exposures does not exist", todo="build the dbt models first")
    con.execute(CREATE_WINDOWS)
    windows = [row for experiment in registry.experiments.values() for row in _windows(experiment)]
    if windows:
        con.executemany("insert into experiment_windows values (?, ?, ?, ?, ?, ?)", windows)
    con.execute(CLASSIFY_UNITS, {"as_of": as_of})
    con.execute(ELIGIBLE_UNITS)
    classes: dict[str, dict[str, int]] = {name: {} for name in registry.experiments}
    for experiment_id, name, count in con.execute(COUNT_CLASSES).fetchall():
        classes[experiment_id][name] = count
    disagreeing = _disagreeing(con, registry)
    counts = {
        name: UnitCounts(found.pop("eligible", 0), found, disagreeing.get(name, 0)) for name, found in classes.items()
    }
    unregistered = tuple(row[0] for row in con.execute(UNREGISTERED, {"as_of": as_of}).fetchall())
    return counts, unregistered


def count_segments(con: duckdb.DuckDBPyConnection, experiment: str) -> dict[tuple[str, str], dict[str, int]]:
    """(platform, app_version, country or day; its value) -> eligible units by variant. After `classify_units`."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for dimension, value, variant, count in con.execute(COUNT_SEGMENTS, {"experiment": experiment}).fetchall():
        found.setdefault((dimension, value), {})[variant] = count
    return found


def drop_units(con: duckdb.DuckDBPyConnection) -> None:
    """Drop the temporary tables of `classify_units`."""
    for table in ("experiment_windows", "experiment_bounds", "experiment_classified_units", "experiment_units"):
        con.execute(f"drop table if exists {table}")


def _windows(experiment: Experiment) -> list[tuple[str, str, float, dt.datetime, dt.datetime, dt.datetime]]:
    before = experiment.start - dt.timedelta(days=experiment.pre_period_days)
    return [
        (experiment.name, variant, weight, before, experiment.start, experiment.end)
        for variant, weight in experiment.variants.items()
    ]


def _disagreeing(con: duckdb.DuckDBPyConnection, registry: ExperimentRegistry) -> dict[str, int]:
    con.execute(CREATE_BOUNDS)
    rows: list[tuple[str, str, str, int, int]] = []
    for experiment in registry.experiments.values():
        start = 0
        for variant, below in bounds(experiment.variants).items() if experiment.salt is not None else ():
            rows.append((experiment.name, str(experiment.salt), variant, start, below))
            start = below
    if rows:
        con.executemany("insert into experiment_bounds values (?, ?, ?, ?, ?)", rows)
    return dict(con.execute(COUNT_DISAGREEING).fetchall())
