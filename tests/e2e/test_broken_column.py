"""A column that breaks its promise ends the run before anything is published, and whoever looks is told which it is."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from pipeline_homes import copy_home, published, table_hashes, warehouse, zantara

pytestmark = pytest.mark.e2e


def test_a_broken_column_stops_the_run_and_is_named(small_home: Path, tmp_path: Path, alerting: dict[str, str]) -> None:
    """Three people of core.users lose what they allow, and one is there twice; nothing new lands, so the build keeps them."""
    home = copy_home(small_home, tmp_path / "home")
    with closing(duckdb.connect(str(warehouse(home)))) as con:
        con.execute("CREATE TEMP TABLE chosen AS SELECT user_id FROM core.users ORDER BY ALL LIMIT 3")
        con.execute("UPDATE core.users SET analytics_allowed = NULL WHERE user_id IN (FROM chosen)")
        con.execute("INSERT INTO core.users SELECT * FROM core.users ORDER BY user_id DESC LIMIT 1")
    before = table_hashes(published(home))

    line = zantara(home, "run", env=alerting, code=1).only_line
    broken = ["analytics_allowed is null: 3", "user_id stands more than once: 1"]
    assert f"sound_columns_users of core/users ({'; '.join(broken)})" in line
    assert table_hashes(published(home)) == before

    with dg.DagsterInstance.from_config(str(home / "data" / "dagster")) as instance:
        key = dg.AssetCheckKey(dg.AssetKey(["core", "users"]), "sound_columns_users")
        (record,) = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).values()
        seen = record.event.dagster_event.event_specific_data  # type: ignore[union-attr]
        assert not seen.passed and seen.metadata["broken"].value == broken
    shutil.rmtree(home)
