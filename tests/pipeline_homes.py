"""Homes for tests that run the real command: starting it, killing it, and comparing what it leaves behind.

Belongs here: processes, copies of homes, hashes of tables. Does not belong here: what is asserted about them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

BIN = Path(sys.executable).parent
REPO = Path(__file__).resolve().parent.parent
# A run of a 6,000-line shop takes 20 to 30 s on an idle machine; ten times that means it hangs.
PATIENCE_S = 400.0


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def only_line(self) -> str:
        """The one line on stderr; fails where there is none or more than one."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, (
            f"one line expected on stderr, got {len(lines)}:\n{self.err}\nstdout:\n{self.out[-2000:]}"
        )
        return lines[0]

    @property
    def seconds(self) -> dict[str, float]:
        """Duration of each step, in the order in which they ended, as the run said."""
        lines = [line.split() for line in self.out.splitlines() if line.startswith("  done ")]
        return {words[1]: float(words[2]) for words in lines}


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without its own ZANTARA_ and DAGSTER_ settings, pointed at a home."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ZANTARA_", "DAGSTER_"))}
    return clean | {"ZANTARA_HOME": str(home), "DO_NOT_TRACK": "1", "COLUMNS": "200", **(extra or {})}


def zantara(home: Path, *arguments: str | Path, env: Mapping[str, str] | None = None, code: int | None = 0) -> Done:
    """Run the `zantara` command in its own process; by default it has to succeed."""
    command = [str(BIN / "zantara"), *map(str, arguments)]
    done = subprocess.run(command, env=environment(home, env), capture_output=True, text=True, timeout=PATIENCE_S)
    assert code is None or done.returncode == code, (
        f"{' '.join(command[1:])} ended with {done.returncode}, not {code}\n{done.stderr}\n{done.stdout[-3000:]}\n{log_tail(home)}"
    )
    return Done(done.returncode, done.stdout, done.stderr)


def log_tail(home: Path) -> str:
    log = home / "data" / "logs" / "run.log"
    return log.read_text(errors="replace")[-3000:] if log.exists() else ""


@contextmanager
def started(home: Path, *, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """`zantara run` while it works, its stdout as a pipe; killed on leaving if it still runs."""
    process = subprocess.Popen(
        [str(BIN / "zantara"), "run"], env=environment(home, env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, bufsize=1, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], kind: str, step: str) -> list[str]:
    """Read a run's lines up to `  <kind> <step> ...`; returns all lines read. Fails if the run ends before."""
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line.rstrip())
        if line.split()[:2] == [kind, step]:
            return seen
    raise AssertionError(f"the run ended before '{kind} {step}':\n" + "\n".join(seen))


def kill_run(home: Path, kind: str, step: str, delay_s: float = 0.0, env: Mapping[str, str] | None = None) -> None:
    """Start a run and SIGKILL its main process (not its group) so long after it said `<kind> <step>`.

    The delay ends early when the step does: a faster machine than the one that was measured must not outrun the kill.
    """
    with started(home, env=env) as process:
        wait_for(process, kind, step)
        ended = threading.Event()

        def watch() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.split()[:2] == ["done", step]:
                    ended.set()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        ended.wait(delay_s)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL, "the run had ended before it could be killed"
        left = outlived(home)
        watcher.join(30)
    assert not left, f"still running after the run was killed: {left}"


def outlived(home: Path, patience_s: float = 5.0) -> list[str]:
    """Command lines of processes that still work on a home (dbt must die with its parent; the kernel needs a moment)."""
    deadline = time.monotonic() + patience_s
    while found := _working_on(home):
        if time.monotonic() > deadline:
            return found
        time.sleep(0.05)
    return []


def _working_on(home: Path) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:  # ended meanwhile
            continue
        # a path as a whole: /tmp/a must not match /tmp/ab
        about = {part for text in (command, variables) for part in text.split(b"\0")}
        if any(
            str(home).encode() == value or str(home).encode() + b"/" in value
            for part in about
            for value in [part.partition(b"=")[2]]
        ):
            found.append(command.replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


def copy_home(source: Path, target: Path) -> Path:
    """A copy of a home, as `cp -r` makes it."""
    shutil.copytree(source, target)
    return target


def with_project(home: Path, parsed: Path) -> Path:
    """Give a new home the dbt project as it was parsed elsewhere (the fixture `parsed`)."""
    shutil.copytree(parsed, home / "data" / "dbt" / "target", dirs_exist_ok=True)
    return home


def land(home: Path, shop: Path, names: Collection[str] | None = None) -> None:
    """Put a simulated shop's catalogue, consent ledger and event files (all, or those named) into the landing folder."""
    landing = home / "data" / "landing"
    for part in ("items", "consent"):
        shutil.copytree(shop / part, landing / part, dirs_exist_ok=True)
    (landing / "events").mkdir(parents=True, exist_ok=True)
    for path in sorted((shop / "events").iterdir()):
        if names is None or path.name in names:
            shutil.copy2(path, landing / "events" / path.name)


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB file, read only, in UTC."""
    con = duckdb.connect(str(path), read_only=True)
    try:
        con.execute("SET TimeZone = 'UTC'")
        yield con
    finally:
        con.close()


def published(home: Path) -> Path:
    return home / "data" / "published.duckdb"


def warehouse(home: Path) -> Path:
    return home / "data" / "warehouse.duckdb"


_RELATIONS = """
    SELECT table_schema || '.' || table_name FROM information_schema.tables
    WHERE table_schema NOT IN ('lake', 'state', 'main') ORDER BY ALL
"""


def table_hashes(path: Path) -> dict[str, str]:
    """Hash of every relation of a DuckDB file but copies of the ledgers and views over the lake; row order is ignored."""
    with reading(path) as con:
        names = [row[0] for row in con.execute(_RELATIONS).fetchall()]
        return {name: _hash(con, name) for name in names}


def _hash(con: duckdb.DuckDBPyConnection, relation: str) -> str:
    # cast row by row: a DOUBLE's text is its shortest exact one, so equal text is equal bits
    query = f"SELECT count(*), md5(string_agg(t::VARCHAR, chr(10) ORDER BY t::VARCHAR)) FROM {relation} t"
    rows, digest = con.execute(query).fetchall()[0]
    columns = [row[0] for row in con.execute(f"DESCRIBE {relation}").fetchall()]
    return f"{rows} rows {digest} ({', '.join(columns)})"


def assert_same_tables(one: Path, other: Path, *, besides: Sequence[str] = ()) -> None:
    """Two DuckDB files hold the same relations with the same rows, besides those named."""
    first, second = table_hashes(one), table_hashes(other)
    assert first, f"{one} holds no tables"
    names = sorted((set(first) | set(second)) - set(besides))
    differing = [name for name in names if first.get(name) != second.get(name)]
    assert not differing, "\n".join(
        _difference(one, other, name, first.get(name), second.get(name)) for name in differing
    )


def _difference(one: Path, other: Path, relation: str, first: str | None, second: str | None) -> str:
    said = f"{relation}:\n  {one}: {first}\n  {other}: {second}"
    if first is None or second is None:
        return said
    rows = []
    for path in (one, other):
        with reading(path) as con:
            rows.append({row[0] for row in con.execute(f"SELECT t::VARCHAR FROM {relation} t").fetchall()})
    only = [sorted(rows[0] - rows[1]), sorted(rows[1] - rows[0])]
    samples = "\n".join(f"  only in {'one' if n == 0 else 'other'} ({len(o)}): {o[:3]}" for n, o in enumerate(only))
    return f"{said}\n{samples}"


def assert_same_home(one: Path, other: Path, *, besides: Sequence[str] = ()) -> None:
    """Same tables in the published copy and, staging included, in the warehouse."""
    assert_same_tables(published(one), published(other), besides=besides)
    assert_same_tables(warehouse(one), warehouse(other), besides=besides)


def model_versions(home: Path) -> int:
    """Registered versions in the home's MLflow registry."""
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as db:
        return int(db.execute("SELECT count(*) FROM model_versions").fetchone()[0])


def unfinished_training_runs(home: Path) -> int:
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as db:
        return int(db.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0])


def alert_facts(home: Path) -> list[tuple[str, str, str]]:
    """(kind, subject, metric or reason or '') of the open alerts in the published copy."""
    with reading(published(home)) as con:
        return con.execute(
            "SELECT kind, subject, coalesce(details->>'metric', (details->>'code') || ' ' || (details->>'path'), '') "
            "FROM ops.alerts WHERE resolved_at IS NULL ORDER BY ALL"
        ).fetchall()
