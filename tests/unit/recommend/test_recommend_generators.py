"""Popularity and LightFM: decay by hand, the same bits, hybrid features, fold-in, learning what was planted."""

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
from zantara_pipeline.recommend.histories import histories_of
from zantara_pipeline.recommend.loading import collect, load


def planted(settings=None, **shape):
    con = warehouse(clustered_events(**shape), clustered_products())
    collect(con, settings or config(), as_of())
    return load(con)


def lightfm(**changes):
    return LightFMWarp(config(lightfm=changes).lightfm, 10, 180)


def test_popularity_halves_with_every_half_life_before_the_latest_event():
    data = dataset([0, 1, 2, 3], [0, 0, 1, 1], [0, 28 * DAY_US, 14 * DAY_US, 28 * DAY_US], weights=[4, 1, 5, -5])
    assert Popularity(14).fit(data).scores_ == pytest.approx([4 / 4 + 1, 5 / 2 - 5])


def test_the_same_data_and_seed_give_the_same_bits_and_another_seed_does_not():
    data = planted()
    first, second = (lightfm().fit(data) for _ in range(2))
    other = lightfm(seed=1).fit(data)
    for name, values in first.arrays().items():
        assert values.tobytes() == second.arrays()[name].tobytes(), name
    assert first.item_vectors_.tobytes() != other.item_vectors_.tobytes()


def test_users_without_a_positive_are_not_known():
    data = dataset([0, 0, 1, 2], [0, 1, 1, 2], [1, 2, 3, 4], weights=[1, 1, -5, 1])
    model, told = lightfm().fit(data), histories_of(data)
    assert model.knows(told).tolist() == model.trained(told).tolist() == [True, False, True]
    assert not model.trained(told.as_strangers()).any() and model.knows(told.as_strangers())[0]


def test_a_stranger_is_the_mean_of_the_vectors_of_their_newest_items():
    data = planted()
    model, told = lightfm(fold_in_history=3).fit(data), histories_of(data).take(np.array([5]))
    newest = told.items[-3:]
    assert model.users_of(told.as_strangers())[0] == pytest.approx(model.item_vectors_[newest].mean(axis=0), abs=1e-6)
    scores = model.item_vectors_ @ model.item_vectors_[newest].mean(axis=0) + model.item_biases_
    assert model.score(told.as_strangers())[0] == pytest.approx(scores, abs=1e-4)


def test_strangers_get_lists_of_their_own_taste():
    data = planted()
    made = lightfm().fit(data).score(histories_of(data).as_strangers())
    made[data.users, data.items] = -np.inf
    best = made.argmax(axis=1)
    own = [data.item_ids[int(item)].as_py().startswith(f"p{user % 4}-") for user, item in enumerate(best)]
    assert np.mean(own) > 0.9


def test_old_events_weigh_less():
    data = dataset([0, 0, 1, 1], [0, 1, 0, 1], [0, 100 * DAY_US, 0, 100 * DAY_US])
    seen = []
    model = LightFMWarp(config().lightfm, 10, 50)
    model._train = lambda rows, columns, weights, *rest: seen.append(weights) or 1 / 0
    with pytest.raises(ZeroDivisionError):
        model.fit(data)
    assert seen[0] / seen[0].max() == pytest.approx([0.25, 1, 0.25, 1])


def test_lightfm_beats_popularity_where_tastes_are_planted():
    settings = config()
    evaluation, _ = evaluate(planted(settings), settings)
    lightfm = evaluation.row("lightfm", "warm", "ndcg", 10)
    popularity = evaluation.row("popularity", "warm", "ndcg", 10)
    difference = evaluation.row("lightfm", "warm", "ndcg_diff", 10)
    assert lightfm.value > 1.5 * popularity.value
    assert difference.value == pytest.approx(lightfm.value - popularity.value)
    assert difference.ci_low > 0
    assert choose(evaluation, settings.gate).served_model == "stack"


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
    choice = choose(evaluate(load(con), config())[0], config().gate)
    assert choice.served_model == "popularity"
    assert choice.reason.startswith("popularity serves everybody: ndcg@10 of the stack minus popularity is")


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
    model = lightfm().fit(data)
    best = model.score(histories_of(data))[:, new].argmax(axis=1)
    assert (best == np.arange(data.n_users) % 4).mean() > 0.9


def test_cold_test_users_get_popularity_from_both_models():
    events = clustered_events()
    events += [(f"cold{n}", f"p0-{n % 20:03d}", "product_view", 58 + n / 100, None) for n in range(30)]
    con = warehouse(events, clustered_products())
    collect(con, config(), as_of())
    evaluation, _ = evaluate(load(con), config())
    assert evaluation.row("lightfm", "cold", "ndcg", 10).users == 30
    for metric in ("ndcg", "mrr", "recall", "map"):
        ours, theirs = (evaluation.row(model, "cold", metric, 20).value for model in ("lightfm", "popularity"))
        assert ours == theirs
    cut = evaluation.results[-1].cut.cut_us
    warm, cold, both = (evaluation.row("lightfm", s, "ndcg", 10, cut) for s in ("warm", "cold", "all"))
    assert both.users == warm.users + cold.users
    assert both.value == pytest.approx((warm.value * warm.users + cold.value * cold.users) / both.users)


def test_lightfm_without_openmp_is_refused(monkeypatch):
    importlib.import_module("lightfm")  # or the fit below would, and bring the module with it
    monkeypatch.delitem(sys.modules, "lightfm._lightfm_fast_openmp")
    with pytest.raises(InputError, match="libgomp1"):
        lightfm().fit(dataset([0, 1], [0, 1], [1, 2]))


def test_divergence_is_one_readable_error():
    with pytest.raises(InputError, match="lower learning_rate"):
        lightfm(learning_rate=1e30).fit(planted())
