"""Parts sum to scores: the ranker's, the ladder's, and LightFM's own, attribute by attribute."""

from __future__ import annotations

import numpy as np
import pytest
from recommend_shop import as_of, clustered_events, clustered_products, config, warehouse

from zantara_pipeline.recommend.artifacts import make_bundle
from zantara_pipeline.recommend.evaluation import evaluate
from zantara_pipeline.recommend.explain import explain
from zantara_pipeline.recommend.histories import histories_of
from zantara_pipeline.recommend.ladder import Thresholds
from zantara_pipeline.recommend.learning import Learned
from zantara_pipeline.recommend.loading import collect, load
from zantara_pipeline.recommend.rolling import fit_all


@pytest.fixture(scope="module")
def data():
    con = warehouse(clustered_events(), clustered_products())
    collect(con, config(), as_of())
    return load(con)


@pytest.fixture(scope="module")
def learned(data):
    return evaluate(data, config())[1]


@pytest.fixture(scope="module")
def fitted(data):
    return fit_all(data, config())


def bundle(fitted, learned):
    nothing = __import__("pyarrow").table({"user_id": []})
    return make_bundle(fitted, learned, config(), {"bundle_version": "b", "served_model": "stack"}, nothing, nothing)


@pytest.mark.parametrize("ranker", ["blend", "lambdarank", None])
def test_parts_sum_to_the_score_that_serves(fitted, learned, ranker):
    chosen = Learned(learned.rankers, ranker, Thresholds(1, 1), {})
    made = bundle(fitted, chosen)
    served = made.recommend(np.arange(12, dtype=np.int32), 20)
    for user in range(12):
        for place in (0, 7, 19):
            item = int(served.lists.items[user, place])
            told = explain(made, user, item, 20)
            assert told.rank == place + 1 and told.served_by == "full"
            assert told.score == pytest.approx(served.lists.scores[user, place], abs=1e-5)
            assert sum(told.parts.values()) == pytest.approx(told.score, abs=1e-5)
            assert told.places and set(told.places) <= set(made.stack.sources)


def test_the_lower_rungs_are_taken_apart_too(fitted, learned):
    made = bundle(fitted, Learned(learned.rankers, "blend", Thresholds(99, 99), {}))
    served = made.recommend(np.array([3], dtype=np.int32), 20)
    told = explain(made, 3, int(served.lists.items[0, 0]), 20)
    assert told.served_by == "popularity_content" and set(told.parts) <= {"place_popularity", "place_content"}
    assert sum(told.parts.values()) == pytest.approx(told.score, abs=1e-5)


def test_lightfm_is_taken_apart_exactly(data, fitted, learned):
    made = bundle(fitted, learned)
    lightfm = fitted.generators["lightfm"]
    scores = lightfm.score(histories_of(data))
    rng = np.random.default_rng(4)
    for user, item in zip(rng.integers(0, data.n_users, 30), rng.integers(0, data.n_items, 30), strict=True):
        told = explain(made, int(user), int(item), 20)
        assert told.lightfm_score == pytest.approx(scores[user, item], abs=1e-5)
        shown = [name for name in told.lightfm if not name.startswith("(")]
        assert len(shown) == made.features[[int(item)]].nnz and all("=" in name for name in shown)


def test_what_nobody_names_has_no_score(fitted, learned, data):
    made = bundle(fitted, learned)
    told = explain(made, 0, int(data.items[data.users == 0][0]), 20)
    assert (told.rank, told.score, told.parts, told.places) == (None, None, {}, {})
