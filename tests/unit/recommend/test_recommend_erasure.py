"""Erasure from stored models: nobody's lists but the person's change, the version is marked, and it is never promoted again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recommend_shop import as_of, clustered_events, clustered_products, config, warehouse

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.decoding import hits_in
from zantara_pipeline.privacy.people import Matcher
from zantara_pipeline.recommend import Bundle, train_and_evaluate
from zantara_pipeline.recommend.erasure import erase_from_models, trained_on
from zantara_pipeline.registry import open_registry
from zantara_pipeline.storage.ledger import Ledger

DUE = datetime(2026, 4, 1, tzinfo=UTC)
MODEL = "zantara-recommender"


def train(con: Any, home: Path) -> Any:
    return train_and_evaluate(
        con, config(), as_of=as_of(), home_mlflow=home, git_revision="abc", ledger=Ledger(home.parent / "ledger.db")
    )


def hits(home: Path, user: str) -> int:
    return sum(hits_in(path, Matcher({user})) for path in home.rglob("*") if path.is_file())


def lists(bundle: Bundle, users: list[str]) -> list[Any]:
    codes = np.array([bundle.code_of_user[user] for user in users], dtype=np.int32)
    made = bundle.recommend(codes, 10)
    return [made.lists.items.tolist(), made.lists.scores.tolist(), made.affinity.tolist()]


def test_a_version_forgets_a_person_is_marked_and_is_replaced(tmp_path: Path) -> None:
    home, events = tmp_path / "mlflow", clustered_events()
    train(warehouse(events, clustered_products()), home)
    [folder] = home.glob("artifacts/**/bundle")
    before = Bundle.load(folder)
    gone = before.per_user_metrics["user_id"][0].as_py()
    others = [user for user in before.user_ids.to_pylist() if user != gone]
    assert hits(home, gone) >= 2 and trained_on(home, [gone]) == [folder]

    shutil.copytree(folder, folder.with_name("bundle.erased"))  # killed between the two names: the next one finishes it
    folder.rename(folder.with_name("bundle.replaced"))
    assert erase_from_models(home, [gone], DUE) == 1 and erase_from_models(home, [gone], DUE) == 0
    after = Bundle.load(folder)
    assert hits(home, gone) == 0 and [path.name for path in folder.parent.iterdir()] == ["bundle"]
    assert after.user_ids.to_pylist() == others and lists(after, others) == lists(before, others)
    vectors = [len(bundle.stack.sources["lightfm"].user_vectors_) for bundle in (before, after)]
    assert vectors[1] == vectors[0] - 1

    with closing(sqlite3.connect(home / "mlflow.db")) as db:
        marks = db.execute("SELECT value FROM model_version_tags WHERE key = 'erasure.retrain_by'").fetchall()
    assert marks == [("2026-04-01",)]
    with open_registry(home, MODEL) as registry:
        [version] = registry.versions()
        with pytest.raises(InputError, match="version 1 was trained on somebody who was erased"):
            registry.point("challenger", version)
        registry.point("champion", version)  # which it is already: it serves until it is replaced

    new = train(warehouse([row for row in events if row[0] != gone], clustered_products()), home)
    assert not new.reused
    with open_registry(home, MODEL) as registry:
        champion = registry.by_alias("champion")
        assert champion is not None and champion.number == 2 and champion.retrain_by is None


def test_the_same_data_do_not_bring_a_marked_version_back(tmp_path: Path) -> None:
    home, con = tmp_path / "mlflow", warehouse(clustered_events(), clustered_products())
    train(con, home)
    [folder] = home.glob("artifacts/**/bundle")
    erase_from_models(home, [Bundle.load(folder).user_ids[0].as_py()], DUE)
    again = train(con, home)
    assert not again.reused and again.model_number == 2
