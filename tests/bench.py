"""`make bench`: speed and memory as ratios, each from one run on this machine with the same threads.

Belongs here: the measurements that the issue names. Does not belong here: asserting on time (no test does; machines
differ and are shared). Every figure is a whole process, measured by the operating system.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
MOST_PER_SHOP = 1_000_000
_IDS = re.compile(rb'"(?:user|anonymous|session|device|organisation)_id":"')


@dataclass(frozen=True)
class Measured:
    """One finished process: wall and CPU seconds, peak memory in MB."""

    wall: float
    cpu: float
    peak_mb: float


def measure(command: list[str], **environment: str) -> Measured:
    """Run a command to its end and account for it alone (not for earlier children)."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status != 0:
        sys.exit(f"the command failed: {' '.join(command)}\n{said.decode()[-2000:]}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


BASELINE = """
import sys, duckdb, json
columns = json.loads(sys.argv[3])
con = duckdb.connect()
con.execute(f"SET threads = {sys.argv[4]}; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
spec = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
con.execute(f"COPY (SELECT * FROM read_json('{sys.argv[1]}', format = 'newline_delimited', ignore_errors = true, "
            f"columns = {{{spec}}})) TO '{sys.argv[2]}' (FORMAT parquet)")
"""

INGEST = """
import sys
from pathlib import Path
from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.ingest import ingest
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.verdict import Rules
home = Home(Path(sys.argv[2])).create()
rules = Rules(load_plan(load_settings().contract_dirs), 24, 30)
result = ingest(home, Ledger(home.state / "ledger.db"), Path(sys.argv[1]), rules, threads=int(sys.argv[3]))
assert result.total.rows_in > 0
"""


def baseline_columns() -> dict[str, str]:
    """A typed reader's columns: the envelope and every declared property."""
    from zantara_pipeline.settings import load_settings
    from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, SQL_TYPES, load_plan

    plan = load_plan(load_settings().contract_dirs)
    kinds = {name: SQL_TYPES[p.type] for event in plan.events.values() for name, p in event.properties.items()}
    columns = {"event_id": "VARCHAR", "event": "VARCHAR", "timestamp": "TIMESTAMPTZ", "received_at": "TIMESTAMPTZ"}
    columns |= dict.fromkeys(ENVELOPE_STRINGS, "VARCHAR")
    columns["properties"] = f"STRUCT({', '.join(f'{name} {kind}' for name, kind in sorted(kinds.items()))})"
    columns["context"] = f"STRUCT({', '.join(f'{name} VARCHAR' for name in CONTEXT_KEYS)})"
    columns["consent"] = f"STRUCT({', '.join(f'{name} BOOLEAN' for name in plan.purposes)})"
    return columns


def simulated(folder: Path, events: int, seed: int = 7) -> Path:
    """A simulated shop of about so many lines."""
    command = [sys.executable, "-m", "zantara_pipeline.cli", "simulate", "--out", str(folder)]
    command += ["--events", str(events), "--seed", str(seed)]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return folder


def one_file(work: Path, events: int) -> Path:
    """About so many lines of one large shop in one file, day by day.

    It is put together from shops of at most a million lines, whose people, browsers and sessions get ids of their own: the
    simulation keeps a shop in memory.
    """
    one, parts = work / f"{events}.jsonl", work / "parts"
    shops = max(1, round(events / MOST_PER_SHOP))
    for number in range(shops):
        shop = simulated(work / "shop", events // shops, seed=7 + number)
        for path in sorted((shop / "events").glob("*.jsonl")):
            day = parts / path.name
            day.parent.mkdir(exist_ok=True)
            with day.open("ab") as out:
                out.write(_IDS.sub(rb"\g<0>%d-" % number, path.read_bytes()))
        shutil.rmtree(shop)
    with one.open("wb") as out:
        for day in sorted(parts.iterdir()):
            with day.open("rb") as lines:
                shutil.copyfileobj(lines, out)
            day.unlink()
    return one


def bench_ingest(work: Path, events: int, runs: int) -> None:
    """Ingest of one file against a typed read of the same file to Parquet, and what pandera's own backends take."""
    one = one_file(work, events)
    columns = json.dumps(baseline_columns())
    pairs = []
    for number in range(runs):
        typed = measure(python(BASELINE, str(one), str(work / "typed.parquet"), columns, str(THREADS)))
        ours = measure(python(INGEST, str(one), str(work / f"ingest-{number}"), str(THREADS)))
        pairs.append((typed, ours))  # the homes stay until the end: deleting a thousand files slows the next creation
    with one.open("rb") as handle:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(1 << 24), b""))
    typed, ours = (min((pair[i] for pair in pairs), key=lambda m: m.wall) for i in (0, 1))
    ratio = statistics.median(ours.wall / typed.wall for typed, ours in pairs)
    cpu = statistics.median(ours.cpu / typed.cpu for typed, ours in pairs)
    print(f"ingest of {lines:,} lines ({one.stat().st_size / 1e6:.0f} MB), {THREADS} threads, {runs} pairs:")
    print(f"  typed read_json to Parquet  {typed.wall:6.1f} s wall  {typed.cpu:6.1f} s CPU  {typed.peak_mb:5.0f} MB")
    print(f"  ingest                      {ours.wall:6.1f} s wall  {ours.cpu:6.1f} s CPU  {ours.peak_mb:5.0f} MB")
    print(
        f"  ratio                       {ratio:6.1f} x wall  {cpu:6.1f} x CPU   (first target 5, later 3; memory under 1000 MB)"
    )
    for backend in ("polars", "pandas"):
        out = work / backend
        out.mkdir(exist_ok=True)
        path = measure([sys.executable, "-m", "tests.bench_pandera", str(one), str(out), str(THREADS), backend])
        print(
            f"  pandera[{backend}] in batches {path.wall:6.1f} s wall  {path.cpu:6.1f} s CPU  {path.peak_mb:5.0f} MB   "
            "(values only: no structural check, consent, reasons or quarantine)"
        )
    one.unlink()


def bench_run(work: Path) -> None:
    """The whole run on the default simulated shop, then again with nothing new."""
    home = work / "home"
    zantara = [sys.executable, "-m", "zantara_pipeline.cli", "run", "--simulated-shop"]
    first = measure(zantara, ZANTARA_HOME=str(home))
    again = measure(zantara, ZANTARA_HOME=str(home))
    print("the whole run on 100,000 simulated events (simulating included):")
    print(f"  first  {first.wall:6.1f} s wall  {first.cpu:6.1f} s CPU  {first.peak_mb:5.0f} MB   (target 90 s)")
    print(
        f"  again  {again.wall:6.1f} s wall  {again.cpu:6.1f} s CPU  {again.peak_mb:5.0f} MB   ratio {again.wall / first.wall:.2f}"
    )


def bench_imports() -> None:
    """What our definitions add to importing the frameworks."""
    theirs = [measure(python("import dagster, dagster_dbt")).wall for _ in range(5)]
    ours = [measure(python("import dagster, dagster_dbt, zantara_pipeline.definitions")).wall for _ in range(5)]
    print("import zantara_pipeline.definitions above import dagster, dagster_dbt (median of 5):")
    print(
        f"  {statistics.median(theirs):.2f} s -> {statistics.median(ours):.2f} s: {statistics.median(ours) - statistics.median(theirs):+.2f} s (target 1)"
    )


def bench_new_day(work: Path) -> None:
    """The same new day after 2 and after 28 days of history (days grow: the experiments of the shop begin on the 29th)."""
    shop = simulated(work / "history", 100_000)
    days = sorted((shop / "events").iterdir())
    figures = {}
    zantara = [sys.executable, "-m", "zantara_pipeline.cli", "run"]
    for history in (2, 28):
        home = work / f"after-{history}"
        landing = home / "data" / "landing"
        (landing / "events").mkdir(parents=True)
        for part in ("items", "consent"):
            shutil.copytree(shop / part, landing / part)
        for day in days[28 - history : 28]:
            shutil.copy(day, landing / "events")
        measure(zantara, ZANTARA_HOME=str(home))
        shutil.copy(days[28], landing / "events")
        figures[history] = measure(zantara, ZANTARA_HOME=str(home)), steps(home)
    (two, few), (many, lot) = figures[2], figures[28]
    print("the same new day after 2 and after 28 days of history:")
    print(
        f"  whole run {two.wall:.1f} s and {many.wall:.1f} s wall: ratio {many.wall / two.wall:.2f}; CPU ratio {many.cpu / two.cpu:.2f}"
    )
    for step in ("ingest", "dbt_models", "recommendations__model"):
        if step in few and step in lot:
            print(f"  {step:24} {few[step]:5.1f} s and {lot[step]:5.1f} s: ratio {lot[step] / few[step]:.2f}")


def bench_entities(work: Path, events: int) -> None:
    """Entities and segments of one new day on day 2 and on day 28."""
    from tests import bench_entities

    work.mkdir()
    bench_entities.main(work, events, measure)


def bench_recommend(shops: list[Path]) -> None:
    """How good the recommender is beside each generator alone, and what training costs."""
    from tests import bench_recommend

    bench_recommend.main(shops)


def bench_moments(events: int) -> None:
    """Moments of one new day on day 7 and on day 28 of an experiment."""
    from tests import bench_moments

    bench_moments.main(events)


def bench_erase(work: Path, events: int) -> None:
    """A hundred people leave a home in one batch."""
    from tests import bench_erase

    work.mkdir()

    def ingest(landing: Path, home: Path) -> Measured:
        return measure(python(INGEST, str(landing), str(home), str(THREADS)))

    bench_erase.main(work, simulated(work / "shop", events), ingest, measure)


def steps(home: Path) -> dict[str, float]:
    """Seconds of each step of the latest run, from Dagster's own event log."""
    import dagster as dg

    from zantara_pipeline.orchestration.instance import open_instance
    from zantara_pipeline.storage.home import Home

    with open_instance(Home(home)) as instance:
        run = instance.get_runs(limit=1)[0]
        stats = instance.get_run_step_stats(run.run_id)
        assert run.status == dg.DagsterRunStatus.SUCCESS
        return {s.step_key: s.end_time - s.start_time for s in stats if s.end_time and s.start_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--events",
        type=int,
        help="lines of the ingest, the entities and the moments bench (1,000,000), and of the erase bench (300,000)",
    )
    parser.add_argument("--pairs", type=int, default=3, help="pairs of the ingest bench")
    parser.add_argument(
        "--only",
        choices=["ingest", "run", "imports", "day", "entities", "moments", "recommend", "erase"],
        help="one bench alone",
    )
    parser.add_argument(
        "--shop", type=Path, action="append", default=[], help="folder of landed events for the recommend bench, too"
    )
    options = parser.parse_args()
    for name in ("ZANTARA_HOME", "ZANTARA_LANDING", "ZANTARA_ITEMS", "ZANTARA_CONSENT", "ZANTARA_CONTRACTS"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        benches = {
            "imports": bench_imports,
            "ingest": lambda: bench_ingest(work, options.events or 1_000_000, options.pairs),
            "run": lambda: bench_run(work),
            "day": lambda: bench_new_day(work),
            "entities": lambda: bench_entities(work / "entities", options.events or 1_000_000),
            "moments": lambda: bench_moments(options.events or 1_000_000),
            "recommend": lambda: bench_recommend(options.shop),
            "erase": lambda: bench_erase(work / "erase", options.events or 300_000),
        }
        for name, bench in benches.items():
            if options.only in (None, name):
                bench()
                sys.stdout.flush()


if __name__ == "__main__":
    main()
