"""The two generators: decay by hand, bit-identical LightFM, hybrid features, learning what was planted."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from recommend_shop import as_of, clustered_events, clustered_products, config, dataset, warehouse

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend.dataset import DAY_US
from zantara_pipeline.recommend.evaluation import evaluate
from zantara_pipeline.recommend.gate import choose
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.generators.popularity import Popularity
from zantara_pipeline.recommend.loading import collect, load


def planted(settings=None, **shape):
    con = warehouse(clustered_events(**shape), clustered_products())
    collect(con, settings or config(), as_of())
    return load(con)


def test_popularity_halves_with_every_half_life_before_the_latest_event():
    data = dataset([0, 1, 2, 3], [0, 0, 1, 1], [0, 28 * DAY_US, 14 * DAY_US, 28 * DAY_US], weights=[4, 1, 5, -5])
    assert Popularity(14).fit(data).scores_ == pytest.approx([4 / 4 + 1, 5 / 2 - 5])


def test_the_same_data_and_seed_give_the_same_bits_and_another_seed_does_not():
    data = planted()
    first, second = (LightFMWarp(config().lightfm, 10).fit(data) for _ in range(2))
    other = LightFMWarp(config(lightfm={"seed": 1}).lightfm, 10).fit(data)
    for name, values in first.arrays().items():
        assert values.tobytes() == second.arrays()[name].tobytes(), name
    assert first.item_vectors_.tobytes() != other.item_vectors_.tobytes()


def test_users_without_a_positive_are_not_known():
    data = dataset([0, 0, 1, 2], [0, 1, 1, 2], [1, 2, 3, 4], weights=[1, 1, -5, 1])
    known = LightFMWarp(config().lightfm, 10).fit(data).knows(np.array([0, 1, 2, -1], dtype=np.int32))
    assert known.tolist() == [True, False, True, False]


def test_lightfm_beats_popularity_where_tastes_are_planted():
    settings = config()
    evaluation = evaluate(planted(settings), settings)
    lightfm = evaluation.row("lightfm", "warm", "ndcg", 10)
    popularity = evaluation.row("popularity", "warm", "ndcg", 10)
    difference = evaluation.row("lightfm", "warm", "ndcg_diff", 10)
    assert lightfm.value > 1.5 * popularity.value
    assert difference.value == pytest.approx(lightfm.value - popularity.value)
    assert difference.ci_low > 0
    assert choose(evaluation, settings.gate).served_model == "lightfm"


def test_popularity_serves_everybody_where_there_is_nothing_personal_to_learn():
    """Popular products, no tastes: the gate must not let LightFM's noise through."""
    rng = np.random.default_rng(8)
    events = [
        (f"u{user:03d}", f"p0-{min(int(rng.exponential(12)), 79):03d}", "product_view", rng.random() * 60, None)
        for user in range(150)
        for _ in range(12)
    ]
    con = warehouse(events, clustered_products(1, 80))
    collect(con, config(), as_of())
    choice = choose(evaluate(load(con), config()), config().gate)
    assert choice.served_model == "popularity"
    assert choice.reason.startswith("popularity serves everybody: ndcg@10 of LightFM minus popularity is")


def test_a_product_nobody_touched_is_ranked_by_its_features():
    """Hybrid: a new product of the user's own category stands above new products of the others."""
    con = warehouse(
        clustered_events(),
        [*clustered_products(), *({"product_id": f"new-{c}", "category": f"c{c}"} for c in range(4))],
    )
    collect(con, config(), as_of())
    data = load(con)
    new = [data.item_ids.to_pylist().index(f"new-{cluster}") for cluster in range(4)]
    assert not set(new) & set(data.items.tolist())
    model = LightFMWarp(config().lightfm, 10).fit(data)
    users = np.arange(data.n_users, dtype=np.int32)
    best = model.score(users)[:, new].argmax(axis=1)
    assert (best == users % 4).mean() > 0.9


def test_cold_test_users_get_popularity_from_both_models():
    events = clustered_events()
    events += [(f"cold{n}", f"p0-{n % 20:03d}", "product_view", 58 + n / 100, None) for n in range(30)]
    con = warehouse(events, clustered_products())
    collect(con, config(), as_of())
    evaluation = evaluate(load(con), config())
    assert evaluation.row("lightfm", "cold", "ndcg", 10).users == 30
    for metric in ("ndcg", "mrr", "recall", "coverage"):
        ours, theirs = (evaluation.row(model, "cold", metric, 20).value for model in ("lightfm", "popularity"))
        assert ours == theirs
    warm, cold, both = (evaluation.row("lightfm", s, "ndcg", 10) for s in ("warm", "cold", "all"))
    assert both.users == warm.users + cold.users
    assert both.value == pytest.approx((warm.value * warm.users + cold.value * cold.users) / both.users)


def test_lightfm_without_openmp_is_refused(monkeypatch):
    importlib.import_module("lightfm")  # or the fit below would, and bring the module with it
    monkeypatch.delitem(sys.modules, "lightfm._lightfm_fast_openmp")
    with pytest.raises(InputError, match="libgomp1"):
        LightFMWarp(config().lightfm, 10).fit(dataset([0, 1], [0, 1], [1, 2]))


def test_divergence_is_one_readable_error():
    with pytest.raises(InputError, match="lower learning_rate"):
        LightFMWarp(config(lightfm={"learning_rate": 1e30}).lightfm, 10).fit(planted())
