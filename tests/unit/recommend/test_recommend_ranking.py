"""Top-k lists: exact, ties by id, the same in a batch and alone."""

from __future__ import annotations

import numpy as np
import pytest
from recommend_shop import config, dataset, own_lists

from zantara_pipeline.recommend import candidates
from zantara_pipeline.recommend.generators import Popularity, make_generators
from zantara_pipeline.recommend.ranking import top_k


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
    for model in make_generators(config()).values():
        model.fit(data)
        together = own_lists(model, data, range(40), 20)
        with monkeypatch.context() as patch:
            patch.setattr(candidates, "BLOCK_CELLS", 70 * 3)
            blocked = own_lists(model, data, range(40), 20)
        assert (together.items == blocked.items).all(), model.name
        for user in (0, 17, 39):
            alone = own_lists(model, data, [user], 20)
            assert (alone.items[0] == together.items[user]).all()
            assert np.array_equal(alone.scores[0], together.scores[user], equal_nan=True)


def test_seen_items_and_unknown_items_are_never_listed():
    data = dataset([0, 0, 1], [0, 1, 2], [1, 2, 3], n_items=5)
    object.__setattr__(data, "known_from", np.array([0, 0, 0, 0, np.iinfo(np.int64).max]))
    made = own_lists(Popularity(14).fit(data), data, [0, 1], 4)
    assert sorted(made.items[0].tolist()) == [-1, -1, 2, 3]
    assert sorted(made.items[1].tolist()) == [-1, 0, 1, 3]


def test_no_users_give_no_lists():
    data = dataset([0], [0], [1])
    assert own_lists(Popularity(14).fit(data), data, np.empty(0, dtype=np.int32), 3).items.shape == (0, 3)
