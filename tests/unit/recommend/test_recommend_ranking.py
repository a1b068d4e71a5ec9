"""Top-k lists: exact, ties by id, the same in a batch and alone."""

from __future__ import annotations

import numpy as np
import pytest
from recommend_shop import config, dataset

from zantara_pipeline.recommend import ranking
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.generators.popularity import Popularity
from zantara_pipeline.recommend.ranking import rank_users, top_k


def brute_force(row, k):
    allowed = [column for column in range(len(row)) if row[column] > -np.inf]
    return sorted(allowed, key=lambda column: (-row[column], column))[:k]


@pytest.mark.parametrize(("m", "k"), [(50, 10), (7, 10), (10, 10), (1, 1), (500, 3)])
def test_top_k_equals_sorting_with_many_ties(m, k):
    rng = np.random.default_rng(m)
    scores = rng.integers(0, 4, size=(60, m)).astype(float)
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    made = top_k(scores, k)
    for row, listed, values in zip(scores, made.items, made.scores, strict=True):
        expected = brute_force(row, k)
        assert listed[listed >= 0].tolist() == expected
        assert values[: len(expected)].tolist() == row[expected].tolist()
        assert np.isnan(values[len(expected) :]).all()


def test_a_list_does_not_depend_on_the_batch_or_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    data = dataset(rng.integers(0, 40, 600), rng.integers(0, 70, 600), rng.integers(0, 10**9, 600))
    model = LightFMWarp(config().lightfm, 10).fit(data)
    users = np.arange(40, dtype=np.int32)
    rules = {"candidates": data.candidates, "seen": data.seen_matrix()}
    together = rank_users(model, users, 20, **rules)
    monkeypatch.setattr(ranking, "BLOCK_CELLS", 70 * 3)
    blocked = rank_users(model, users, 20, **rules)
    assert (together.items == blocked.items).all()
    for user in (0, 17, 39):
        alone = rank_users(model, users[[user]], 20, **rules)
        assert (alone.items[0] == together.items[user]).all()
        assert np.array_equal(alone.scores[0], together.scores[user], equal_nan=True)


def test_seen_items_and_unknown_items_are_never_listed():
    data = dataset([0, 0, 1], [0, 1, 2], [1, 2, 3], n_items=5)
    candidates = np.array([True, True, True, True, False])
    made = rank_users(
        Popularity(14).fit(data),
        np.array([0, 1, -1], dtype=np.int32),
        4,
        candidates=candidates,
        seen=data.seen_matrix(),
    )
    assert sorted(made.items[0].tolist()) == [-1, -1, 2, 3]
    assert sorted(made.items[1].tolist()) == [-1, 0, 1, 3]
    assert sorted(made.items[2].tolist()) == [0, 1, 2, 3]


def test_no_users_give_no_lists():
    data = dataset([0], [0], [1])
    made = rank_users(
        Popularity(14).fit(data), np.empty(0, dtype=np.int32), 3, candidates=data.candidates, seen=data.seen_matrix()
    )
    assert made.items.shape == (0, 3)
