"""Versions of the recommender that no longer serve go when their days are over, with the ids and vectors in them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from recommend_shop import as_of, clustered_events, clustered_products, config, warehouse

from zantara_pipeline.recommend import expire_models, load_champion, models_over, train_and_evaluate
from zantara_pipeline.registry import open_registry
from zantara_pipeline.storage.ledger import Ledger

DAY = timedelta(days=1)


def test_a_version_goes_with_its_files_and_the_one_that_serves_never(tmp_path: Path) -> None:
    home, ledger = tmp_path / "mlflow", Ledger(tmp_path / "ledger.db")
    assert models_over(home, 1, as_of()) == []
    events, products = clustered_events(), clustered_products()
    for part in (events[: len(events) // 2], events):
        train_and_evaluate(
            warehouse(part, products), config(), as_of=as_of(), home_mlflow=home, git_revision="a", ledger=ledger
        )
    assert models_over(home, 30, as_of() + 30 * DAY) == []
    assert models_over(home, 30, as_of() + 31 * DAY) == [as_of()] and len(list(home.glob("artifacts/**/bundle"))) == 2
    assert expire_models(home, ledger, 30, as_of() + 31 * DAY) == 1
    [left] = home.glob("artifacts/**/bundle")
    champion = load_champion(home)
    with open_registry(home, "zantara-recommender") as registry:
        assert [(v.number, v.files) for v in registry.versions()] == [(2, left)]
    assert champion is not None and expire_models(home, ledger, 30, as_of() + 999 * DAY) == 0
    with ledger.read() as db:
        [row] = db.execute("SELECT version, trained_at, as_of FROM expired_models").fetchall()
    assert (row[0], row[1][:10], row[2][:10]) == (1, str(as_of().date()), str((as_of() + 31 * DAY).date()))
    with closing(sqlite3.connect(home / "mlflow.db")) as db:  # figures of both runs stay
        assert db.execute("SELECT count(DISTINCT run_uuid) FROM metrics").fetchall() == [(2,)]
