"""What readers see: nobody past their time though nothing ran since, and neither small nor restricted segments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from test_segments_lifecycle import META

from zantara_pipeline.segments.contract import Segment, SegmentMeta
from zantara_pipeline.segments.lifecycle import record_membership
from zantara_pipeline.segments.reading import SCHEMA, readings
from zantara_pipeline.segments.tables import sizes_of, write_tables
from zantara_pipeline.segments.visibility import load_rules, record_sizes
from zantara_pipeline.storage.engine import publish, published, warehouse
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger

LIMITS: dict[str, Any] = {"threads": 1, "memory_limit": "500MB"}
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
NAMES = {"seg_big": 20, "seg_small": 5, "seg_secret": 20}


def built(home: Home, as_of: datetime, *, live: bool) -> None:
    """Three segments as a run at `as_of` leaves them; member 0 of each expires an hour later, the others in 30 days."""
    segments = [
        Segment(name, "d", "select 1", SegmentMeta.model_validate(
            META | {"min_size": 10, "access_level": "restricted" if name == "seg_secret" else "internal"}))
        for name in NAMES
    ]  # fmt: skip
    ledger = Ledger(home.state / "ledger.db")
    with warehouse(home, **LIMITS) as con:
        con.execute("CREATE SCHEMA segments; CREATE SCHEMA core; CREATE TABLE core.users AS SELECT 1 AS user_id")
        for name, size in NAMES.items():
            con.execute(
                f"CREATE TABLE segments.{name} AS SELECT 'm' || i AS entity_id, $t - INTERVAL 1 DAY AS entered_at, "
                f"$t + CASE i WHEN 0 THEN INTERVAL 1 HOUR ELSE INTERVAL 30 DAY END AS expires_at FROM range({size}) r (i)",
                {"t": as_of},
            )
        record_membership(con, ledger, segments, as_of)
        write_tables(con, ledger, record_sizes(ledger, segments, sizes_of(con, segments), as_of, load_rules()), as_of)
    with warehouse(home, **LIMITS) as con:
        whole, outside = (readings(con, as_of=as_of, live=live, restricted=r) for r in (True, False))
    publish(home, **LIMITS, readings=whole, target=home.restricted_segments, schemas=[SCHEMA])
    publish(home, **LIMITS, readings=outside)


def members(con: duckdb.DuckDBPyConnection, name: str) -> set[str]:
    return {row[0] for row in con.execute(f"SELECT entity_id FROM segments.{name}").fetchall()}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.mark.parametrize("restricted", [False, True])
def test_a_member_whose_time_is_over_is_gone_though_nothing_ran_since(home: Home, restricted: bool) -> None:
    built(home, NOW - 2 * HOUR, live=True)
    with published(home, home.restricted_segments if restricted else None) as con:
        assert "m0" not in members(con, "seg_big") and len(members(con, "seg_big")) == 19
        left = con.execute(
            "SELECT exited_at, exit_reason FROM segments.membership_history WHERE segment = 'seg_big' AND entity_id = 'm0'"
        ).fetchall()
        assert left == [(NOW - HOUR, "ttl")]
        still = con.execute(
            "SELECT count(*) FROM segments.membership_history WHERE segment = 'seg_big' AND exited_at IS NULL"
        )
        assert still.fetchall() == [(19,)]


def test_a_file_that_lies_around_for_a_year_shows_nobody(home: Home) -> None:
    built(home, NOW - timedelta(days=365), live=True)
    with published(home) as con:
        assert members(con, "seg_big") == set()


def test_in_a_home_of_history_the_runs_clock_counts(home: Home) -> None:
    built(home, NOW - timedelta(days=365), live=False)
    with published(home) as con:
        assert len(members(con, "seg_big")) == 20


def test_small_and_restricted_segments_are_readable_in_the_restricted_store_only(home: Home) -> None:
    built(home, NOW, live=True)
    with published(home) as con:
        assert members(con, "seg_small") == set() and len(members(con, "seg_big")) == 20
        with pytest.raises(duckdb.CatalogException):
            members(con, "seg_secret")
        assert con.execute("SELECT segment, size FROM segments.catalog ORDER BY 1").fetchall() == [
            ("seg_big", 20), ("seg_secret", None), ("seg_small", None)
        ]  # fmt: skip
        assert con.execute("SELECT DISTINCT segment FROM segments.membership_history").fetchall() == [("seg_big",)]
        assert con.execute("SELECT count(*) FROM segments.overlap").fetchall() == [(0,)]
        tables = con.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()
        for (table,) in tables:  # by no name that is in the file
            assert "secret" not in table
            if "small" in table:
                assert con.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)], table
    with published(home, home.restricted_segments) as con:
        assert {name: len(members(con, name)) for name in NAMES} == NAMES
        assert con.execute("SELECT count(*) FROM segments.overlap").fetchall() == [(3,)]
        assert con.execute("SELECT DISTINCT table_schema FROM information_schema.tables ORDER BY 1").fetchall() == [
            ("expiring",), ("segments",)
        ]  # fmt: skip


def test_a_copy_can_be_attached_under_another_name(home: Home) -> None:
    built(home, NOW, live=True)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{home.published}' AS other (READ_ONLY)")
        assert con.execute("SELECT count(*) FROM other.segments.seg_big").fetchall() == [(20,)]


def test_a_warehouse_that_does_not_say_what_is_visible_shows_nothing(home: Home) -> None:
    built(home, NOW, live=True)
    with warehouse(home, **LIMITS) as con:
        con.execute("DROP TABLE state.segment_visibility")
        outside = readings(con, as_of=NOW, live=True, restricted=False)
    publish(home, **LIMITS, readings=outside)
    with published(home) as con:
        assert members(con, "seg_big") == set()
        assert con.execute("SELECT DISTINCT size FROM segments.catalog").fetchall() == [(None,)]
