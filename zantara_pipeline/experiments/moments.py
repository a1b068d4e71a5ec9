"""Moments per experiment, variant and metric: all that the statistics need to know of units.

Belongs here: which event rows a metric reads, quantiles, publishing counts, sums and cross products. Does not belong here: what
single units did so far (`unit_state`), estimates and tests on the moments (`scorecard`). User rows never leave DuckDB.

Sums are exact: values are DECIMAL(19,4), products DECIMAL(38,8), cast to DOUBLE once at the end, because sums of DOUBLE
differ from run to run with the order of threads. 19 digits, not 18: DuckDB gives the product of two DECIMAL(18,4) 18
digits again, and it overflows from a revenue of 100,000 a unit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments.contract import Metric, Source
from zantara_pipeline.experiments.registry import METRICS_FILE, ExperimentRegistry
from zantara_pipeline.experiments.unit_state import Part, begin_following, drop_following, follow_metric, mark_followed
from zantara_pipeline.experiments.units import UnitCounts, check_as_of, classify_units, drop_units
from zantara_pipeline.statistics import Moments

# Columns of experiments.moments: name, type, what it holds.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("experiment_id", "varchar", "Experiment (name of its YAML file)."),
    ("variant", "varchar", "Declared variant."),
    ("metric", "varchar", "Metric of metrics.yaml."),
    ("stratum", "varchar", "Group of units the moments are of; 'all' is everyone."),
    ("as_of", "timestamptz", "Instant up to which events count."),
    ("n", "bigint", "Eligible units of the variant, with or without events of the metric."),
    ("names", "varchar[]", "The k unit-level variables (value, covariate / numerator, denominator / above, total)."),
    ("sums", "double[]", "Sum of each variable over units, in the order of names."),
    ("products", "double[]", "Sums of cross products over units: upper triangle by row, k (k + 1) / 2 entries."),
    ("quantile_value", "double", "Quantile metrics: the sample quantile over all observations; else null."),
    ("quantile_slope", "double", "Quantile metrics: slope of the quantile function there, unit per probability."),
)

RELATION_COLUMNS = """
select column_name from information_schema.columns where table_schema = 'staging' and table_name = $relation
"""

CREATE_MOMENTS = "create or replace temp table experiment_moments ({columns})"

# Rows of one event that may be counted. Analysis of experiments is the analytics purpose.
EVENT_ROWS = """
select user_id, occurred_at, received_date, {amount} as amount, {key} as key
from staging.stg_lake__{event}
where consent_analytics and user_id is not null and occurred_at <= $as_of and received_at <= $as_of
"""

# The numbers of units, summed (unit_state.py): value and covariate, or numerator and denominator.
FROM_SUMS = """
insert into experiment_moments
select
    experiment_id, variant, metric, 'all', $as_of, n, $names, [a::double, b::double],
    [aa::double, ab::double, bb::double], null, null
from state.experiment_sums
where metric = $metric and list_contains($experiments, experiment_id)
"""

OBSERVATIONS = """
create or replace temp table unit_observations as
with event_rows as ({rows})
select unit.experiment_id, unit.variant, unit.unit_id, event_rows.amount as value
from experiment_units as unit
join event_rows
    on event_rows.user_id = unit.unit_id
    and event_rows.occurred_at >= unit.first_exposed_at
    and event_rows.occurred_at < unit.ends_at
where list_contains($experiments, unit.experiment_id) and event_rows.amount is not null
"""

# Quantile: per unit, observations above the variant's quantile and in total. The slope of the quantile function is the
# secant between the order statistics at quantile -+ 1.96 clustered standard errors of the share above (at least one
# observation each way): Deng, Knoblich, Lu (KDD 2018) section 4, no density bandwidth to choose.
QUANTILE_MOMENTS = """
insert into experiment_moments
with centre as (
    select experiment_id, variant, count(*) as observations, quantile_cont(value, {quantile})::double as value
    from unit_observations
    group by all
),
per_unit as (
    select o.experiment_id, o.variant, o.unit_id, count(*) as total, count(*) filter (o.value > centre.value) as above
    from unit_observations as o
    join centre using (experiment_id, variant)
    group by all
),
units as (
    select experiment_id, variant, count(*)::double as n
    from experiment_units
    where list_contains($experiments, experiment_id)
    group by all
),
totals as (
    select
        units.experiment_id,
        units.variant,
        units.n,
        coalesce(sum(above), 0)::double as a,
        coalesce(sum(total), 0)::double as t,
        coalesce(sum(above * above), 0)::double as aa,
        coalesce(sum(above * total), 0)::double as a_t,
        coalesce(sum(total * total), 0)::double as tt
    from units
    left join per_unit using (experiment_id, variant)
    group by all
),
spread as (
    select
        totals.*,
        centre.value,
        centre.observations,
        greatest(
            1.96 * sqrt(greatest(aa - 2 * (a / t) * a_t + (a / t) * (a / t) * tt, 0) * n / nullif(n - 1, 0)) / t,
            1 / centre.observations
        ) as half
    from totals
    left join centre using (experiment_id, variant)
),
ranks as (
    select
        *,
        greatest(1, floor(observations * ({quantile} - half)))::bigint as low_rank,
        least(observations, ceil(observations * ({quantile} + half)))::bigint as high_rank
    from spread
),
ordered as (
    select experiment_id, variant, value, row_number() over (partition by experiment_id, variant order by value) as rank
    from unit_observations
),
ends as (
    select
        ranks.experiment_id,
        ranks.variant,
        max(ordered.value) filter (ordered.rank = high_rank)
        - max(ordered.value) filter (ordered.rank = low_rank) as rise
    from ranks
    join ordered
        on ordered.experiment_id = ranks.experiment_id
        and ordered.variant = ranks.variant
        and (ordered.rank = low_rank or ordered.rank = high_rank)
    group by all
)
select
    ranks.experiment_id, ranks.variant, $metric, 'all', $as_of, n::bigint,
    ['above', 'total'],
    [a, t],
    [aa, a_t, tt],
    ranks.value,
    case when high_rank > low_rank then ends.rise * observations / (high_rank - low_rank) end
from ranks
left join ends using (experiment_id, variant)
"""

PUBLISH_MOMENTS = """
create or replace table experiments.moments as
select * from experiment_moments order by experiment_id, metric, variant, stratum
"""

FOLLOWED = "select 1 from state.experiment_values where metric = $metric limit 1"

READ_MOMENTS = """
select experiment_id, metric, variant, n, names, sums, products, quantile_value, quantile_slope
from experiments.moments
where stratum = 'all' and as_of = $as_of
"""


@dataclass(frozen=True)
class MomentsResult:
    """What was built: rows of experiments.moments, unit counts per experiment, experiments without units and why."""

    rows: int
    units: Mapping[str, UnitCounts]
    nothing_to_do: Mapping[str, str]
    unregistered: tuple[str, ...]


@dataclass(frozen=True)
class VariantMoments:
    """One row of experiments.moments as the statistics read it."""

    moments: Moments
    quantile_value: float | None
    quantile_slope: float | None


def build_moments(con: duckdb.DuckDBPyConnection, registry: ExperimentRegistry, as_of: dt.datetime) -> MomentsResult:
    """Rebuild experiments.moments (create or replace, one transaction) from exposures and staged events.

    Raises
    ------
    InputError : as_of without time zone; a missing relation; a metric that names an event or column that doesn't exist;
        values too large for exact sums.
    """
    as_of = check_as_of(as_of)
    try:
        counts, unregistered = classify_units(con, registry, as_of)
        with_units = {name for name, count in counts.items() if count.eligible}
        con.execute(CREATE_MOMENTS.format(columns=", ".join(f"{name} {kind}" for name, kind, _ in COLUMNS)))
        with transaction(con):
            definitions = {name: experiment.config_hash for name, experiment in registry.experiments.items()}
            begin_following(con, definitions, as_of)
            for metric, experiments in registry.metrics_in_use().items():
                if with_units & set(experiments) or con.execute(FOLLOWED, {"metric": metric}).fetchall():
                    _add_metric(con, metric, registry.metrics[metric], list(experiments), as_of)
            mark_followed(con, as_of)
            con.execute("create schema if not exists experiments")
            con.execute(PUBLISH_MOMENTS)
            comment_columns(con, "experiments.moments", COLUMNS)
        rows = con.execute("select count(*) from experiments.moments").fetchall()[0][0]
    finally:
        drop_units(con)
        drop_following(con)
        for table in ("experiment_moments", "unit_observations"):
            con.execute(f"drop table if exists temp.{table}")
    idle = {name: _why_idle(count) for name, count in counts.items() if not count.eligible}
    return MomentsResult(rows, counts, idle, unregistered)


def read_moments(
    con: duckdb.DuckDBPyConnection, as_of: dt.datetime
) -> dict[tuple[str, str], dict[str, VariantMoments]]:
    """(experiment, metric) -> variant -> moments, as built for as_of."""
    found: dict[tuple[str, str], dict[str, VariantMoments]] = {}
    for experiment, metric, variant, n, names, sums, products, value, slope in con.execute(
        READ_MOMENTS, {"as_of": as_of}
    ).fetchall():
        moments = Moments(n, tuple(names), tuple(sums), tuple(products))
        found.setdefault((experiment, metric), {})[variant] = VariantMoments(moments, value, slope)
    return found


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit on success, roll back on any error."""
    con.begin()
    try:
        yield
    except BaseException:
        con.rollback()
        raise
    con.commit()


def comment_columns(con: duckdb.DuckDBPyConnection, table: str, columns: Sequence[tuple[str, str, str]]) -> None:
    """Put each column's description into the catalogue."""
    for name, _, description in columns:
        text = description.replace("'", "''")
        con.execute(f"comment on column {table}.{name} is '{text}'")


def _why_idle(count: UnitCounts) -> str:
    left_out = ", ".join(f"{number} {reason}" for reason, number in count.excluded.items())
    return f"nothing to do: no eligible exposures ({left_out} left out)" if left_out else "nothing to do: no exposures"


def _add_metric(
    con: duckdb.DuckDBPyConnection, name: str, metric: Metric, experiments: list[str], as_of: dt.datetime
) -> None:
    _check_columns(con, name, metric)
    common = {"experiments": experiments, "as_of": as_of}
    try:
        if metric.type == "quantile":
            con.execute(OBSERVATIONS.format(rows=_event_rows(metric.source(), "double")), common)
            con.execute(QUANTILE_MOMENTS.format(quantile=metric.quantile), {**common, "metric": name})
        else:
            names, parts, values = _followed(metric)
            follow_metric(con, name, parts, experiments, values, as_of)
            con.execute(FROM_SUMS, {**common, "metric": name, "names": names})
    except (duckdb.OutOfRangeException, duckdb.ConversionException):
        raise InputError(
            f"metric '{name}' has values that are not finite or too large to sum exactly (over 1e14 a unit)",
            "experiments.moments",
            "look for broken values in its events",
        ) from None


def _followed(metric: Metric) -> tuple[list[str], list[Part], tuple[str, str]]:
    """Names of the two numbers of a unit, where they come from, and how they are made of that (`follow_metric`)."""
    if metric.type == "ratio" and metric.numerator and metric.denominator:
        parts = [_part("top", metric.numerator), _part("bottom", metric.denominator)]
        return ["numerator", "denominator"], parts, (_number("top_during"), _number("bottom_during"))
    of = _any if metric.type == "proportion" else _number
    return ["value", "covariate"], [_part("value", metric.source())], (of("value_during"), of("value_before"))


def _number(column: str) -> str:
    return f"coalesce(total.{column}, 0)::decimal(19, 4)"


def _any(column: str) -> str:
    return f"(coalesce(total.{column}, 0) > 0)::integer::decimal(19, 4)"


def _part(name: str, source: Source) -> Part:
    counted = not (source.distinct or source.value)
    return Part(name, _event_rows(source, "decimal(19, 4)"), bool(source.distinct), counted)


def _event_rows(source: Source, kind: str) -> str:
    """The union of a source's event rows; names were checked by the contract's pattern and against the warehouse."""
    amount = f"cast({source.value} as {kind})" if source.value else "null"
    if source.times:
        amount += f" * cast(coalesce({source.times}, 1) as {kind})"
    parts = (EVENT_ROWS.format(event=event, amount=amount, key=source.distinct or "null") for event in source.events)
    return " union all ".join(parts)


def _check_columns(con: duckdb.DuckDBPyConnection, name: str, metric: Metric) -> None:
    sources = [metric.source()] if metric.events else [s for s in (metric.numerator, metric.denominator) if s]
    for source in sources:
        for event in source.events:
            found = con.execute(RELATION_COLUMNS, {"relation": f"stg_lake__{event}"}).fetchall()
            if not found:
                raise InputError(
                    f"metric '{name}' reads the event '{event}', which the tracking plan does not declare", METRICS_FILE
                )
            columns = {row[0] for row in found}
            for column in (source.value, source.times, source.distinct):
                if column and column not in columns:
                    raise InputError(f"metric '{name}': event '{event}' has no column '{column}'", METRICS_FILE)
