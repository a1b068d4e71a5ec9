"""The split of every experiment day by day, as all units up to that day give it: experiments.split_by_day.

Belongs here: that table. Does not belong here: whether a split is broken now (`srm`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import astuple, dataclass

import duckdb

from zantara_pipeline.experiments.moments import comment_columns
from zantara_pipeline.experiments.registry import Experiment, ExperimentRegistry
from zantara_pipeline.experiments.srm import check_sample_ratio

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("experiment_id", "varchar", "Experiment (name of its YAML file)."),
    ("day", "date", "Day (UTC) of first exposure."),
    ("variant", "varchar", "Variant with a weight."),
    ("new_units", "bigint", "Eligible units that were first exposed on this day."),
    ("units", "bigint", "Eligible units up to and with this day."),
    ("log_p", "double", "Natural logarithm of the chi-square p-value of all units up to this day; null with too few."),
    ("broken_below", "double", "The p-value below which a day is called broken (its part of srm_alpha)."),
)

COUNT_DAYS = """
select experiment_id, first_exposed_at::date as day, variant, count(*)
from experiment_classified_units
where class = 'eligible'
group by all
order by all
"""


@dataclass(frozen=True)
class SplitDay:
    """One row of experiments.split_by_day."""

    experiment_id: str
    day: dt.date
    variant: str
    new_units: int
    units: int
    log_p: float | None
    broken_below: float


def read_days(con: duckdb.DuckDBPyConnection, registry: ExperimentRegistry) -> list[SplitDay]:
    """Rows of all experiments with units. After `classify_units`."""
    found: dict[str, dict[dt.date, dict[str, int]]] = {}
    for name, day, variant, count in con.execute(COUNT_DAYS).fetchall():
        found.setdefault(name, {}).setdefault(day, {})[variant] = count
    return [row for name, days in found.items() for row in _days(registry.experiments[name], days)]


def write_days(con: duckdb.DuckDBPyConnection, rows: list[SplitDay]) -> None:
    """Replace the table, in the caller's transaction."""
    con.execute(f"create or replace table experiments.split_by_day ({', '.join(f'{n} {k}' for n, k, _ in COLUMNS)})")
    if rows:
        places = ", ".join("?" for _ in COLUMNS)
        con.executemany(f"insert into experiments.split_by_day values ({places})", [astuple(row) for row in rows])
    comment_columns(con, "experiments.split_by_day", COLUMNS)


def _days(experiment: Experiment, days: dict[dt.date, dict[str, int]]) -> list[SplitDay]:
    rows, so_far = [], dict.fromkeys(experiment.weighed, 0)
    for day, new in sorted(days.items()):
        so_far = {variant: count + new.get(variant, 0) for variant, count in so_far.items()}
        ratio = check_sample_ratio(experiment, so_far)
        log_p = ratio.test.log_p if ratio.test else None
        rows += [
            SplitDay(experiment.name, day, variant, new.get(variant, 0), count, log_p, ratio.below)
            for variant, count in so_far.items()
        ]
    return rows
