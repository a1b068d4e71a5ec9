"""What one new day of an experiment costs on day 7 and on day 28 of it: `make bench`, part "moments".

A shop that grows by the same number of events a day is made by SQL as dbt stages it: everybody may come on any day, a quarter
was there before the experiment, one event in fifty comes three days late. `build_moments` follows it day by day; quantiles,
which need all observations, are timed by themselves.

Belongs here: that shop and the figures. Does not belong here: how they are computed.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from dataclasses import replace

import duckdb

from zantara_pipeline.experiments import ExperimentRegistry, build_moments, load_experiments

FIRST, DAYS, FEW, BEFORE = dt.date(2026, 2, 2), 28, 7, 28
EVENTS = {"session_started": 0.3, "page_timing": 0.5, "purchase": 0.15, "app_crashed": 0.05}
_PROPERTIES = "experiment_id varchar, variant varchar, load_ms double, price decimal(18, 4), quantity bigint"
_DAY_SQL = """
insert into staging.stg_lake__{event}
select
    'e' || {day} || '-{event}-' || i,
    occurred_at - case when i % 50 = 0 then interval 3 day else interval 0 day end,
    occurred_at,
    'u' || person,
    's' || person || '-{day}-' || i % 3,
    date '{date}',
    true,
    null, null, 200 + hash(i, {day}, 5) % 8000 / 10, (hash(i, 4) % 10000 / 100)::decimal(18, 4), 1
from (
    select
        i,
        hash(i // 4, {day}, 2) % {people} as person,
        timestamptz '{date} 00:00:00+00' + to_milliseconds((hash(i, {day}, 1) % 86000000)::bigint) as occurred_at
    from range({rows}) as r (i)
)
"""
_EXPOSE_SQL = """
insert into experiments.exposures
select
    'checkout_redesign', seen.user_id, case when hash(seen.user_id) % 2 = 0 then 'control' else 'treatment' end,
    min(seen.occurred_at), false, 'web', '1', 'DE'
from staging.stg_lake__session_started as seen
where seen.received_date = date '{date}' and seen.occurred_at >= timestamptz '{first} 00:00:00+00'
group by seen.user_id
having seen.user_id not in (select unit_id from experiments.exposures)
"""


def main(events: int) -> None:
    """Print what following costs on both days, for so many events in the 28 days of the experiment and a tenth as many people."""
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'; set threads = 2; create schema staging; create schema experiments")
    for event in (*EVENTS, "experiment_exposed"):
        con.execute(f"create table staging.stg_lake__{event} (event_id varchar, occurred_at timestamptz, received_at timestamptz, "
                    f"user_id varchar, session_id varchar, received_date date, consent_analytics boolean, {_PROPERTIES})")  # fmt: skip
    columns = "occurred_at, received_at, received_date"
    parts = " union all ".join(f"select {columns} from staging.stg_lake__{event}" for event in EVENTS)
    con.execute(f"create view staging.stg_lake__events as {parts}")
    con.execute("create table experiments.exposures (experiment_id varchar, unit_id varchar, variant varchar, first_exposed_at "
                "timestamptz, contaminated boolean, platform varchar, app_version varchar, country varchar)")  # fmt: skip
    registry = load_experiments()
    one = registry.experiments["checkout_redesign"]
    alone = replace(registry, experiments={one.name: one})
    added = replace(
        registry, experiments={one.name: replace(one, guardrails=(one.guardrails[1],), config_hash="without p95")}
    )
    taken: dict[int, float] = {}
    for day in range(1 - BEFORE, DAYS + 1):
        _receive(con, day, events // DAYS, events // 10)
        if day < 1:
            continue
        taken[day] = _seconds(con, added, day)
    few, many = (sum(taken[day - k] for k in range(3)) / 3 for day in (FEW, DAYS))
    units = con.execute("select count(*) from experiments.exposures").fetchall()[0][0]
    print(
        f"moments of one new day, {events:,} events in {DAYS} days, {units:,} units at the end, CPU s, mean of three days:"
    )
    print(
        f"  means, proportions and ratios: day {FEW} {few:.2f}, day {DAYS} {many:.2f}, ratio {many / few:.2f} (target 1.2)"
    )
    con.execute("drop schema state cascade")
    print(f"  the same from nothing on day {DAYS}: {_seconds(con, added, DAYS):.2f}")
    con.execute("drop schema state cascade")
    whole = _seconds(con, alone, DAYS)
    print(
        f"  with p95, which reads all observations, from nothing: {whole:.2f}; followed: {_seconds(con, alone, DAYS):.2f}"
    )


def _receive(con: duckdb.DuckDBPyConnection, day: int, rows: int, people: int) -> None:
    date = FIRST + dt.timedelta(days=day - 1)
    for event, share in EVENTS.items():
        con.execute(_DAY_SQL.format(event=event, day=day + BEFORE, date=date, rows=int(rows * share), people=people))
    if day >= 1:
        con.execute(_EXPOSE_SQL.format(date=date, first=FIRST))
    if con.execute("select 1 from duckdb_tables() where schema_name = 'state' and table_name = 'touched'").fetchall():
        con.execute("insert into state.touched select 1 + max(build), 'received_date', ?, null, null from state.touched_seen",
                    [str(date)])  # fmt: skip


def _seconds(con: duckdb.DuckDBPyConnection, registry: ExperimentRegistry, day: int) -> float:
    started = time.process_time()
    build_moments(con, registry, dt.datetime.combine(FIRST + dt.timedelta(days=day), dt.time(), dt.UTC))
    return time.process_time() - started


if __name__ == "__main__":
    main(int(sys.argv[1]))
