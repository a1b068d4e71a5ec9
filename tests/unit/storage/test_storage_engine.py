"""The embedded engine: UTC, bounded, and the copy for readers swapped in whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.engine import clear_scratch, open_engine, publish, published, warehouse
from zantara_pipeline.storage.home import Home

LIMITS = {"threads": 1, "memory_limit": "500MB"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "o'brien's home").create()


def fill(home: Home, users: int) -> None:
    with warehouse(home, **LIMITS) as con:
        for schema in ("core", "staging", "lake", "state"):
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            con.execute(f"CREATE OR REPLACE TABLE {schema}.users AS SELECT range AS user_id FROM range({users})")
        con.execute("CREATE OR REPLACE VIEW core.adults AS SELECT * FROM lake.users WHERE user_id > 0")


def test_times_are_utc_whatever_the_machine_says(home: Home) -> None:
    con = open_engine(None, home, **LIMITS)
    assert con.execute("SELECT '2026-03-01T00:00:00+02:00'::TIMESTAMPTZ::VARCHAR").fetchone() == (
        "2026-02-28 22:00:00+00",
    )
    assert con.execute("SELECT current_setting('threads')").fetchone() == (1,)


def test_readers_get_the_published_schemas_only_views_as_tables(home: Home) -> None:
    fill(home, 3)
    publish(home, **LIMITS)
    with published(home) as con:
        tables = con.execute(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables ORDER BY ALL"
        ).fetchall()
        assert tables == [("core", "adults", "BASE TABLE"), ("core", "users", "BASE TABLE")]
        assert con.execute("SELECT count(*) FROM core.adults").fetchone() == (2,)
        with pytest.raises(duckdb.Error):
            con.execute("DELETE FROM core.users")


def test_a_reader_keeps_its_copy_while_the_next_is_swapped_in(home: Home) -> None:
    fill(home, 3)
    publish(home, **LIMITS)
    with published(home) as before:
        fill(home, 5)
        publish(home, **LIMITS)
        assert before.execute("SELECT count(*) FROM core.users").fetchone() == (3,)
    with published(home) as after:
        assert after.execute("SELECT count(*) FROM core.users").fetchone() == (5,)


def test_publishing_again_after_a_kill_half_way(home: Home) -> None:
    fill(home, 3)
    beside = home.published.with_suffix(".duckdb.new")
    code = (
        "import duckdb, os, sys; con = duckdb.connect(sys.argv[1]); con.execute('CREATE TABLE half AS SELECT 1 AS a'); "
        "con.execute('CREATE SCHEMA core; CREATE TABLE core.users AS SELECT 7 AS x'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(beside)], check=False)
    assert beside.exists()
    publish(home, **LIMITS)
    with published(home) as con:
        assert con.execute("SELECT count(*) FROM core.users").fetchone() == (3,)
        assert con.execute("SELECT count(*) FROM information_schema.tables").fetchone() == (2,)
    assert sorted(path.name for path in home.data.glob("*.duckdb*")) == ["published.duckdb", "warehouse.duckdb"]


def test_nothing_published_says_what_to_do(home: Home) -> None:
    with (
        pytest.raises(InputError, match="nothing has been published here yet; run `zantara run` first"),
        published(home),
    ):
        pass


def test_a_warehouse_that_somebody_else_writes_is_said_in_one_line(home: Home) -> None:
    fill(home, 1)
    code = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(home.warehouse)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(InputError) as error, warehouse(home, **LIMITS):
            pass
        assert "cannot be opened" in str(error.value) and "\n" not in str(error.value)
    finally:
        other.communicate()


def test_scratch_is_emptied(home: Home) -> None:
    (home.scratch / "folder").mkdir()
    (home.scratch / "folder" / "spill.tmp").write_bytes(b"x")
    (home.scratch / "spill.tmp").write_bytes(b"x")
    clear_scratch(home)
    assert list(home.scratch.iterdir()) == []
    clear_scratch(Home(home.root / "nowhere"))
