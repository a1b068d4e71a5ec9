"""Versions in a person's hands: going back, promoting, comparing, making one again; and that a run respects it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from recommend_shop import as_of, clustered_events, clustered_products, config, warehouse

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend import (
    compare_versions,
    decisions,
    history,
    load_champion,
    promote,
    reproduce,
    roll_back,
    train_and_evaluate,
    write_recommendations,
)
from zantara_pipeline.recommend.erasure import erase_from_models
from zantara_pipeline.recommend.generators.vectors import ALS
from zantara_pipeline.recommend.promotion import compare
from zantara_pipeline.registry import read_aliases
from zantara_pipeline.storage.ledger import Ledger

MODEL = "zantara-recommender"
EARLY = [event for event in clustered_events() if event[3] < 59]


def shop(events):
    return warehouse(events, clustered_products())


def train(con, home, when):
    return train_and_evaluate(
        con, config(), as_of=when, home_mlflow=home / "mlflow", git_revision="abc", ledger=Ledger(home / "ledger.db")
    )


def lists(con, home):
    write_recommendations(con, config(), load_champion(home / "mlflow"), as_of=as_of())
    return con.execute("FROM recommendations.user_recommendations ORDER BY ALL").fetchall()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A home where the second version took over on newer data; what the first one served."""
    home = tmp_path_factory.mktemp("two") / "home"
    first = shop(EARLY)
    train(first, home, as_of(59))
    served = lists(shop(clustered_events()), home)
    assert train(shop(clustered_events()), home, as_of(60)).decided.action == "refresh"
    return home, served


@pytest.fixture
def home(two, tmp_path):
    shutil.copytree(two[0], tmp_path / "home")
    return tmp_path / "home"


def aliases(home):
    return read_aliases(home / "mlflow", MODEL)


def test_a_rollback_serves_bit_for_bit_what_was_served_before(two, home):
    con = shop(clustered_events())
    assert lists(con, home) != two[1]
    decision = roll_back(home / "mlflow", Ledger(home / "ledger.db"), "clicks fell")
    assert (decision.action, decision.version, decision.reasons) == ("rollback", 1, ("clicks fell",))
    assert aliases(home) == {"champion": 1, "previous": 2}
    assert lists(con, home) == two[1]
    assert [one.action for one in decisions(Ledger(home / "ledger.db"))] == ["first", "refresh", "rollback"]


def test_after_a_rollback_runs_replace_nothing_until_somebody_promotes(home):
    ledger = Ledger(home / "ledger.db")
    roll_back(home / "mlflow", ledger, "clicks fell")
    again = train(shop(clustered_events()), home, as_of(60))
    assert again.reused and again.decided.action == "challenger" and aliases(home)["champion"] == 1
    more = [*clustered_events(), ("u0002", "p1-003", "product_view", 60.2, None)]
    assert train(shop(more), home, as_of(61)).decided.action == "challenger"
    promote(home / "mlflow", ledger, 3, "looked at by hand")
    assert aliases(home) == {"champion": 3, "previous": 1, "challenger": 3}
    more.append(("u0003", "p1-003", "product_view", 61.2, None))
    assert train(shop(more), home, as_of(62)).decided.action == "refresh"


def test_what_cannot_be_promoted_or_rolled_back_is_said(home, tmp_path):
    ledger, mlflow = Ledger(home / "ledger.db"), home / "mlflow"
    for number, told in ((2, "serves already"), (9, "there is no version 9")):
        with pytest.raises(InputError, match=told):
            promote(mlflow, ledger, number, "why not")
    with pytest.raises(InputError, match="no reason"):
        promote(mlflow, ledger, 1, "  ")
    gone = load_champion(mlflow).user_ids[0].as_py()
    erase_from_models(mlflow, [gone], datetime(2026, 5, 1, tzinfo=UTC))
    with pytest.raises(InputError, match="trained on somebody who was erased"):
        roll_back(mlflow, ledger, "clicks fell")
    with pytest.raises(InputError, match="no version served before"):
        roll_back(tmp_path / "nothing", ledger, "clicks fell")
    assert aliases(home) == {"champion": 2, "previous": 1}
    assert [one.action for one in decisions(ledger)] == ["first", "refresh"]


def test_a_version_is_made_again_bit_for_bit_or_what_prevents_it_is_named(home):
    con, mlflow = shop(clustered_events()), home / "mlflow"
    assert reproduce(con, mlflow, 2) == {"version": 2, "reproduced": True, "differs": []}
    con.execute("DELETE FROM features.interactions WHERE user_id = 'u0003'")
    told = reproduce(con, mlflow, 2)
    assert not told["reproduced"] and told["differs"][0].startswith("interactions: erasure, withdrawal, retention")
    erase_from_models(mlflow, ["u0003"], datetime(2026, 5, 1, tzinfo=UTC))
    assert reproduce(con, mlflow, 2)["differs"][0].startswith("it was trained on somebody who was erased")


def test_a_version_that_learned_no_numbers_is_refused_even_where_nothing_serves(tmp_path, monkeypatch):
    fit = ALS.fit

    def broken(self, dataset):
        fit(self, dataset).item_vectors_[3] = np.nan
        return self

    monkeypatch.setattr(ALS, "fit", broken)
    result = train(shop(EARLY), tmp_path, as_of(59))
    assert result.decided.action == "refused" and result.decided.champion is None
    assert "learned values of als are not finite numbers" in result.decided.reasons
    assert aliases(tmp_path) == {} and load_champion(tmp_path / "mlflow") is None
    assert [one.version for one in history(tmp_path / "mlflow")] == [1]


def test_history_tells_figures_and_aliases(home):
    first, second = history(home / "mlflow")
    assert (first.aliases, second.aliases) == (("previous",), ("champion",))
    assert second.metrics["stack.all.ndcg_10"] > 0 and second.trained_as_of.startswith("2026-04-30")
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as db, db:
        db.execute("DELETE FROM registered_model_aliases")
    assert [one.version for one in history(home / "mlflow")] == [1, 2]  # also where no alias points at any


def test_versions_measured_on_other_cuts_are_not_compared(home):
    with pytest.raises(InputError, match="share no user and cut"):
        compare_versions(home / "mlflow", 1, 2)
    assert compare_versions(home / "mlflow", 2, 2)["difference"] == 0


def test_two_tables_are_compared_on_what_both_hold():
    """By hand: users a and b on cut 1 are shared, with differences 0.5 and 0.1."""
    ours = pa.table({"user_id": ["b", "a", "c"], "cut_us": [1, 1, 1], "x": [0.3, 0.9, 1.0]})
    theirs = pa.table({"user_id": ["a", "b", "a"], "cut_us": [1, 1, 2], "x": [0.4, 0.2, 0.0]})
    value, low, high, users = compare(ours, theirs, "x")
    assert users == 2 and value == pytest.approx(0.3)
    assert low == pytest.approx(0.1) and high == pytest.approx(0.5)
    assert compare(ours, theirs, "y") is None
    assert compare(ours, theirs.filter(pa.array(np.zeros(3, dtype=bool))), "x") is None
