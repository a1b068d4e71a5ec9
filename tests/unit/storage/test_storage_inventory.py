"""The inventory explains every file that a run leaves, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.inventory import STORES, store_of, unexplained

DAY = "received_date=2026-03-01"
LEFT_BY_RUNS = {
    "landing": ["data/landing/truth.json", "data/landing/events/a.jsonl.gz", "data/landing/consent/c.csv"],
    "accepted events": [f"data/lake/accepted/event=purchase/{DAY}/0123456789abcdef-0000-0.parquet"],
    "quarantine": [f"data/lake/quarantine/{DAY}/0123456789abcdef-0000-0.parquet"],
    "exempt events": [f"data/lake/exempt/event=page_timing/{DAY}/0123456789abcdef-0000-0.parquet"],
    "lines with unreadable consent": ["data/restricted/consent_unreadable/0123456789abcdef-0000.parquet"],
    "ingest in progress": [f"data/lake/.incoming/0123456789abcdef/quarantine/{DAY}/x.parquet"],
    "items": ["data/lake/items/items.parquet"],
    "unparsable lines": ["data/restricted/unparsable/0123456789abcdef-0000.parquet"],
    "state ledger": ["data/state/ledger.db", "data/state/ledger.db-wal", "data/state/ledger.db-shm"],
    "alert ledger": ["data/state/alerts.db", "data/state/alerts.db-wal", "data/state/alerts.db-shm"],
    "warehouse": ["data/warehouse.duckdb", "data/warehouse.duckdb.wal"],
    "restricted segments": ["data/restricted/segments_whole.duckdb", "data/restricted/segments_whole.duckdb.new"],
    "published copy": ["data/published.duckdb", "data/published.duckdb.new", "data/published.duckdb.new.wal"],
    "exports": ["data/exports/ads/segments.duckdb", "data/exports/ads/segments.duckdb.new.wal"],
    "scratch": ["data/scratch/duckdb_temp_storage-0.tmp"],
    "orchestrator": ["data/dagster/dagster.yaml", "data/dagster/history/runs/1.db", "data/dagster/storage/r/x.err"],
    "dbt": [
        "data/dbt/target/manifest.json",
        "data/dbt/target/run/a/b.sql",
        "data/dbt/docs.html",
        "data/dbt/lineage.html",
        "data/dbt/logs/dbt.log",
    ],
    "run log": ["data/logs/run.log"],
    "alert outbox": ["data/alerts/outbox.jsonl"],
    "report": ["data/reports/index.html"],
    "experiments for applications": ["data/serving/experiments.json", "data/serving/experiments.json.new"],
    "home lock": ["data/home.lock"],
    "model registry": ["mlflow/mlflow.db", "mlflow/mlflow.db.new-abc", "mlflow/mlflow.db-journal"],
    "model artifacts": ["mlflow/artifacts/zantara-recommender/models/m-1/artifacts/MLmodel", "mlflow/staging/model/x"],
    "open erasure": ["data/state/erasure.open.json", "data/state/erasure.asked.json"],
    "key of tombstones": ["data/state/erasure.key"],
    "erasure receipts": ["data/receipts/0123456789abcdef.json"],
    "notes of the repository": ["data/README.md", "mlflow/README.md"],
}


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_everything_that_runs_leave_is_explained(tmp_path: Path) -> None:
    Home(tmp_path).create()
    touch(tmp_path, *(path for paths in LEFT_BY_RUNS.values() for path in paths))
    assert unexplained(tmp_path) == []


@pytest.mark.parametrize(("store", "paths"), LEFT_BY_RUNS.items())
def test_each_file_belongs_to_the_store_that_answers_for_it(store: str, paths: list[str]) -> None:
    for path in paths:
        owner = store_of(path)
        assert owner is not None and owner.name == store


def test_every_store_is_used_and_no_file_has_two() -> None:
    assert {store.name for store in STORES} == set(LEFT_BY_RUNS)
    for path in (path for paths in LEFT_BY_RUNS.values() for path in paths):
        assert sum(store.explains(path) for store in STORES) == 1


@pytest.mark.parametrize(
    "path",
    [
        "data/core.12345",
        "data/lake/accepted/part.parquet",
        f"data/lake/accepted/event=purchase/{DAY}/copy.csv",
        f"data/lake/accepted/event=purchase/{DAY}/deeper/x.parquet",
        f"data/lake/quarantine/{DAY}/x.parquet.tmp",
        "data/lake/items/old/items.parquet",
        "data/restricted/notes.txt",
        "data/state/ledger.sqlite",
        "data/warehouse.duckdb.backup",
        "data/reports/export.csv",
        "data/exports/users.csv",
        "data/exports/segments.duckdb",
        "mlflow/users.csv",
    ],
)
def test_a_stray_file_is_named(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "data/warehouse.duckdb", path)
    assert unexplained(tmp_path) == [path]


def test_a_dangling_link_is_a_stray_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "nowhere")
    assert unexplained(tmp_path) == ["data/link"]


def test_only_data_and_mlflow_are_the_homes_own(tmp_path: Path) -> None:
    touch(tmp_path, "README.md", "src/x.py")
    assert unexplained(tmp_path) == []


def test_every_store_says_whose_it_is_and_how_it_ends() -> None:
    for store in STORES:
        assert "@" in store.owner
        assert all((store.holds, store.access, store.retention, store.erasure, store.paths))
    assert len({store.name for store in STORES}) == len(STORES)
