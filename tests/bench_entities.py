"""What one new day costs in entities and segments on day 2 and on day 28 of a history: `make bench`, part "entities".

A shop is made by SQL as the lake would hold it (a day is one Parquet file an event), and dbt builds staging, core,
features and segments as a run would have it do: day 1 from nothing, day 2 alone (measured), days 3 to 27 at once, day 28
alone (measured). A measured day is built several times from the same warehouse and the middle one counts: one alone moves by
a tenth and more. Everybody of the shop may come on any day, one in fifty events comes three days late.

Belongs here: that shop and the curve. Does not belong here: measuring a process (bench.py).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.sources import BEGINNING, ITEM_COLUMNS, lake_columns

ROOT = Path(__file__).resolve().parent.parent
FIRST = date(2026, 1, 1)
DAYS, FEW, MANY = 28, 2, 28
TIMES = 5
MODELS = ("staging", "core", "features", "segments")

# event -> share of all events; the other events of the plan stay empty
EVENTS = {"session_started": 0.15, "product_view": 0.7, "add_to_cart": 0.1, "purchase": 0.05}

_DAY_SQL = """
    SELECT
        'e' || {day} || '-{event}-' || i AS event_id, '{event}' AS event,
        TIMESTAMPTZ '{date} 00:00:00+00' + to_milliseconds((hash(i, {day}, 1) % 86400000)::BIGINT)
            - CASE WHEN i % 50 = 0 THEN INTERVAL 3 DAY ELSE INTERVAL 0 DAY END AS occurred_at,
        TIMESTAMPTZ '{date} 00:00:00+00' + to_milliseconds((hash(i, {day}, 1) % 86400000)::BIGINT) AS received_at,
        CASE WHEN i % 10 > 0 THEN 'u' || person END AS user_id, 'a' || person AS anonymous_id, 's' || person AS session_id,
        'd' || (person - person % 20 + least(person % 20, 18)) AS device_id,
        CASE WHEN person % 12 = 0 THEN 'o' || person % 1000 END AS organisation_id,
        true AS consent_analytics, person % 5 > 0 AS consent_personalization, 'web' AS platform, 'f{day}' AS source, i AS line_no,
        'p' || hash(i, {day}, 3) % 20000 AS product_id, (hash(i, 4) % 10000 / 100)::DECIMAL(18, 4) AS price, 'EUR' AS currency,
        DATE '{date}' AS received_date
    FROM (SELECT i, hash(i // 8, {day}, 2) % {people} AS person FROM range({rows}) AS r (i))
"""


def main(folder: Path, events: int, measure: Callable[..., Any]) -> None:
    """Print the curve for so many events and a tenth as many people."""
    con = duckdb.connect(str(folder / "made.duckdb"))
    con.execute("SET TimeZone = 'UTC'; CREATE TABLE people (user_id VARCHAR, since TIMESTAMPTZ)")
    figures, spread = {}, {}
    for first, last in ((1, 1), (FEW, FEW), (FEW + 1, MANY - 1), (MANY, MANY)):
        for day in range(first, last + 1):
            _make_day(con, folder, day, events // DAYS, events // 10)
        _land(con, folder, first, last)
        code = "from dbt.cli.main import cli; cli()"
        command = [sys.executable, "-c", code, "run", "--select", *MODELS, "--project-dir", str(ROOT / "dbt_project"),
                   "--profiles-dir", str(ROOT / "dbt_project"), "--target-path", str(folder / "target"),
                   "--log-path", str(folder / "logs")]  # fmt: skip
        place = {"ZANTARA_WAREHOUSE": str(folder / "warehouse.duckdb"), "ZANTARA_SCRATCH": str(folder / "scratch")}
        runs = []
        shutil.copy(folder / "warehouse.duckdb", folder / "before.duckdb")
        for _ in range(TIMES if first == last > 1 else 1):
            shutil.copy(folder / "before.duckdb", folder / "warehouse.duckdb")
            runs.append((measure(command, **place), _seconds(folder)))
        runs.sort(key=lambda run: run[0].wall)
        figures[last], figures[last, "models"] = runs[len(runs) // 2]
        spread[last] = f"{runs[0][0].wall:.1f} to {runs[-1][0].wall:.1f} s"
    few, many = figures[FEW], figures[MANY]
    print(f"one new day of entities and segments, {events:,} events of {events // 10:,} people in {DAYS} days:")
    print(f"  day {FEW}: {few.wall:.1f} s, {few.cpu:.1f} CPU s, {few.peak_mb:.0f} MB; day {MANY}: {many.wall:.1f} s, "
          f"{many.cpu:.1f} CPU s, {many.peak_mb:.0f} MB; ratio {many.wall / few.wall:.2f} (target 1.5), CPU {many.cpu / few.cpu:.2f}")  # fmt: skip
    print(f"  of {TIMES} times each: day {FEW} {spread[FEW]}, day {MANY} {spread[MANY]}")
    for name, seconds in sorted(figures[MANY, "models"].items(), key=lambda item: -item[1])[:14]:
        print(f"  {name:26} {figures[FEW, 'models'][name]:6.2f} s and {seconds:6.2f} s")


def _make_day(con: duckdb.DuckDBPyConnection, folder: Path, day: int, rows: int, people: int) -> None:
    when = FIRST + timedelta(days=day - 1)
    for event, share in EVENTS.items():
        made = _DAY_SQL.format(day=day, date=when, event=event, rows=int(rows * share), people=people)
        place = folder / "lake" / event
        place.mkdir(parents=True, exist_ok=True)
        con.execute(f"COPY ({made}) TO '{place / f'{day:02}.parquet'}' (FORMAT parquet)")
    con.execute(
        "INSERT INTO people SELECT user_id, min(occurred_at) FROM read_parquet(?) WHERE user_id IS NOT NULL "
        "AND user_id NOT IN (SELECT user_id FROM people) GROUP BY user_id",
        [str(folder / "lake" / "*" / f"{day:02}.parquet")],
    )


def _land(made: duckdb.DuckDBPyConnection, folder: Path, first: int, last: int) -> None:
    """The relations that dbt reads, as `tracking.sources.prepare` makes them."""
    made.execute(f"COPY people TO '{folder / 'people.parquet'}' (FORMAT parquet)")
    since = BEGINNING if first == 1 else FIRST + timedelta(days=first - 1)
    con = duckdb.connect(str(folder / "warehouse.duckdb"))
    con.execute("SET TimeZone = 'UTC'; CREATE SCHEMA IF NOT EXISTS lake; CREATE SCHEMA IF NOT EXISTS state")
    for event in load_plan((PACKAGED,)).events.values():
        columns = lake_columns(event)
        body = "SELECT " + ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns.items()) + " WHERE false"
        if event.event in EVENTS:
            files = [str(folder / "lake" / event.event / f"{day:02}.parquet") for day in range(first, last + 1)]
            body += f" UNION ALL BY NAME SELECT * FROM read_parquet({files})"
        wanted = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in columns.items())
        con.execute(f'CREATE OR REPLACE VIEW lake."{event.event}" AS SELECT {wanted} FROM ({body})')
    items = ", ".join(f"NULL::{kind} AS {name}" for name, kind in ITEM_COLUMNS.items())
    con.execute(f"CREATE OR REPLACE VIEW lake.items AS SELECT {items} WHERE false")
    con.execute(f"CREATE OR REPLACE TABLE state.consent AS SELECT user_id, purpose, 'event' AS origin, since::VARCHAR AS "
                f"effective_from, 'granted' AS status, '' AS unknown_at FROM '{folder / 'people.parquet'}', "
                f"(VALUES ('analytics'), ('personalization')) AS p (purpose)")  # fmt: skip
    con.execute("CREATE OR REPLACE TABLE state.run_clock AS SELECT ?::TIMESTAMPTZ AS as_of, as_of AS latest_clock, "
                "?::DATE AS rebuild_from, 31 AS duplicate_window_days", [FIRST + timedelta(days=last), since])  # fmt: skip
    con.execute("CREATE OR REPLACE TABLE state.restaged_dates (received_date DATE)")
    con.execute("CREATE OR REPLACE TABLE state.removed_partitions (event VARCHAR, received_date DATE)")
    con.close()


def _seconds(folder: Path) -> dict[str, float]:
    results = json.loads((folder / "target" / "run_results.json").read_text(encoding="utf-8"))["results"]
    return {one["unique_id"].split(".")[-1]: one["execution_time"] for one in results}


if __name__ == "__main__":
    import tempfile

    from tests.bench import measure

    os.environ.setdefault("ZANTARA_MEMORY_LIMIT", "2GB")
    with tempfile.TemporaryDirectory() as place:
        main(Path(place), int(sys.argv[1]), measure)
