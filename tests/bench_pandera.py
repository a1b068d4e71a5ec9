"""What validation by pandera itself would cost: the other path of `make bench --only ingest`.

One process reads a file of events with a typed reader, lets pandera check each event's rows in batches, and writes them
as Parquet. It does less than ingest: no structural check ("53.0" passes as 53.0, unknown keys are dropped), no consent,
no reasons by line, no quarantine.

Belongs here: that loop for pandera's polars and pandas backends. Does not belong here: measuring it (bench.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.pandera_schema import checks_of, pandera_schema
from zantara_pipeline.tracking.plan import SQL_TYPES, EventPlan, load_plan

BATCH_LINES = 100_000
PLAN = load_plan((PACKAGED,))


def main(source: str, out: str, threads: str, backend: str) -> None:
    import pyarrow as pa

    check = {"polars": polars_check, "pandas": pandas_check}[backend]
    con = duckdb.connect()
    con.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    kinds = {name: SQL_TYPES[p.type] for event in PLAN.events.values() for name, p in event.properties.items()}
    struct = ", ".join(f"{name} {kind}" for name, kind in sorted(kinds.items()))
    columns = f"{{'event': 'VARCHAR', 'event_id': 'VARCHAR', 'user_id': 'VARCHAR', 'properties': 'STRUCT({struct})'}}"
    reader = con.sql(
        f"SELECT * FROM read_json('{source}', format = 'newline_delimited', ignore_errors = true, columns = {columns})"
    ).to_arrow_reader(BATCH_LINES)
    by_event = duckdb.connect()
    for number, batch in enumerate(reader):
        by_event.register("lines", pa.Table.from_batches([batch]))
        for name, event in PLAN.events.items():
            rows = by_event.sql(f"SELECT properties.* FROM lines WHERE event = '{name}'").to_arrow_table()
            if rows.num_rows:
                check(event, rows.select(list(event.properties)), Path(out) / f"{name}-{number}.parquet")


def polars_check(event: EventPlan, rows: Any, target: Path) -> None:
    import polars as pl
    from pandera.errors import SchemaErrors

    frame = pl.DataFrame(pl.from_arrow(rows))
    try:
        pandera_schema(event).validate(frame, lazy=True)
    except SchemaErrors as errors:
        failed = errors.failure_cases.get_column("index").drop_nulls().unique().to_list()
        frame = frame.with_row_index("row").filter(~pl.col("row").is_in(failed)).drop("row")
    frame.write_parquet(target)


def pandas_check(event: EventPlan, rows: Any, target: Path) -> None:
    import pandera.pandas as pa
    from pandera.errors import SchemaErrors

    columns = {
        name: pa.Column(checks=checks_of(prop), nullable=prop.allows_null) for name, prop in event.properties.items()
    }
    frame = rows.to_pandas()
    try:
        pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except SchemaErrors as errors:
        frame = frame.drop(index=errors.failure_cases["index"].dropna().unique())
    frame.to_parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
