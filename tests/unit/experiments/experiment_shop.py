"""A warehouse as the experiments package finds it, filled from plain columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

START = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
END = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)  # first instant after the packaged experiments
AS_OF = END

_STAGED = "event_id varchar, occurred_at timestamptz, received_at timestamptz, user_id varchar, session_id varchar, received_date date"
RELATIONS = {
    "session_started": "",
    "experiment_exposed": ", experiment_id varchar, variant varchar",
    "app_crashed": ", error_class varchar",
    "page_timing": ", page varchar, load_ms double",
    "purchase": ", product_id varchar, price decimal(18, 4), quantity bigint, currency varchar",
}


def at(days: float) -> dt.datetime:
    """An instant `days` after the experiments' start."""
    return START + dt.timedelta(days=days)


def empty_warehouse() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("set threads = 2")
    con.execute("set timezone = 'UTC'")
    con.execute("create schema staging")
    con.execute("create schema experiments")
    for event, more in RELATIONS.items():
        con.execute(f"create table staging.stg_lake__{event} ({_STAGED}, consent_analytics boolean{more})")
    columns = "occurred_at, received_at, received_date"
    parts = " union all ".join(f"select {columns} from staging.stg_lake__{event}" for event in RELATIONS)
    con.execute(f"create view staging.stg_lake__events as {parts}")
    con.execute(
        "create table experiments.exposures (experiment_id varchar, unit_id varchar, variant varchar, "
        "first_exposed_at timestamptz, contaminated boolean, platform varchar, app_version varchar, country varchar)"
    )
    return con


def add_exposures(
    con: duckdb.DuckDBPyConnection,
    units: Sequence[str],
    variants: Sequence[str],
    *,
    experiment: str | Sequence[str] = "checkout_redesign",
    when: dt.datetime | Sequence[dt.datetime] = START,
    contaminated: bool = False,
    platform: str | Sequence[str | None] = "web",
) -> None:
    table = pa.table(
        {
            "experiment_id": [experiment] * len(units) if isinstance(experiment, str) else list(experiment),
            "unit_id": list(units),
            "variant": list(variants),
            "first_exposed_at": [when] * len(units) if isinstance(when, dt.datetime) else list(when),
            "contaminated": [contaminated] * len(units),
            "platform": [platform] * len(units) if isinstance(platform, str) else list(platform),
        }
    )
    con.register("incoming", table)
    con.execute("insert into experiments.exposures by name select * from incoming")
    con.unregister("incoming")


def add_events(
    con: duckdb.DuckDBPyConnection,
    event: str,
    users: Sequence[str],
    when: dt.datetime | Sequence[dt.datetime],
    *,
    consent: bool = True,
    late: dt.timedelta = dt.timedelta(0),
    **columns: Any,
) -> None:
    """Events of `users`, one each; further columns are sequences or one value for all. received = occurred + 1 min + late."""
    size = len(users)
    occurred = [when] * size if isinstance(when, dt.datetime) else list(when)
    data: dict[str, Any] = {
        "occurred_at": occurred,
        "received_at": [moment + dt.timedelta(minutes=1) + late for moment in occurred],
        "received_date": [(moment + dt.timedelta(minutes=1) + late).date() for moment in occurred],
        "user_id": list(users),
        "consent_analytics": [consent] * size,
    }
    for name, value in columns.items():
        data[name] = [value] * size if isinstance(value, (str, int, float)) else list(value)
    con.register("incoming", pa.table(data))
    con.execute(f"insert into staging.stg_lake__{event} by name select * from incoming")
    con.unregister("incoming")
    note_dates(con, set(data["received_date"]))


def note_dates(con: duckdb.DuckDBPyConnection, days: Iterable[dt.date]) -> None:
    """Say that these dates were staged again, as dbt does; a warehouse that was never followed takes no notes."""
    if con.execute("select 1 from duckdb_tables() where schema_name = 'state' and table_name = 'touched'").fetchall():
        build = "(select 1 + coalesce(max(build), 0) from (select build from state.touched union all select build from "
        build += "state.touched_seen))"
        con.execute(f"insert into state.touched select {build}, 'received_date', day::varchar, null, null "
                    "from (select unnest($days) as day)", {"days": sorted(days)})  # fmt: skip


def table_rows(con: duckdb.DuckDBPyConnection, table: str) -> list[dict[str, Any]]:
    cursor = con.execute(f"select * exclude (as_of) from {table}")
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def by_metric(rows: Sequence[Any]) -> Mapping[tuple[str, str], Any]:
    """(role, metric) -> row, for experiments with one treatment."""
    return {(row.role, row.metric): row for row in rows if row.role != "srm"}
