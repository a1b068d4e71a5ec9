"""Metrics against hand-worked cases and scikit-learn."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from zantara_pipeline.recommend.dataset import Pairs
from zantara_pipeline.recommend.metrics import coverage, hit_matrix, mrr, ndcg, recall

# Three users, four places. User 0 finds places 1 and 3 of 3 relevant; user 1 nothing of 2; user 2 place 4 of 1.
HITS = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
RELEVANT = np.array([3, 2, 1])


def test_ndcg_by_hand():
    ideal3 = 1 + 1 / log2(3) + 1 / log2(4)
    assert ndcg(HITS, RELEVANT, 4) == pytest.approx([(1 + 1 / log2(4)) / ideal3, 0, 1 / log2(5)])
    # At k = 2 the best possible list holds two hits, not three.
    assert ndcg(HITS, RELEVANT, 2) == pytest.approx([1 / (1 + 1 / log2(3)), 0, 0])


def test_mrr_and_recall_by_hand():
    assert mrr(HITS, RELEVANT, 4) == pytest.approx([1, 0, 1 / 4])
    assert mrr(HITS, RELEVANT, 3) == pytest.approx([1, 0, 0])
    assert recall(HITS, RELEVANT, 4) == pytest.approx([2 / 3, 0, 1])
    assert recall(HITS, RELEVANT, 1) == pytest.approx([1 / 3, 0, 0])


def test_lists_shorter_than_the_cutoff_are_padded_and_padding_never_hits():
    lists = np.array([[2, 0, -1], [-1, -1, -1]], dtype=np.int32)
    users = np.array([0, 1], dtype=np.int32)
    relevant = Pairs(np.array([0, 0, 1], dtype=np.int32), np.array([0, 3, 2], dtype=np.int32), np.ones(3))
    hits = hit_matrix(lists, users, relevant, n_items=4)
    assert hits.tolist() == [[False, True, False], [False, False, False]]
    assert recall(hits, np.array([2, 1]), 10) == pytest.approx([0.5, 0])
    assert ndcg(hits, np.array([2, 1]), 10) == pytest.approx([(1 / log2(3)) / (1 + 1 / log2(3)), 0])


def test_coverage_counts_distinct_items_within_k_and_no_padding():
    lists = np.array([[0, 1, 2], [1, 3, -1]], dtype=np.int32)
    assert coverage(lists, 8, 1) == 2 / 8
    assert coverage(lists, 8, 3) == 4 / 8


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_ndcg_equals_scikit_learn(k):
    rng = np.random.default_rng(3)
    n_users, n_items = 40, 30
    truth = rng.random((n_users, n_items)) < 0.15
    truth[:, 0] |= ~truth.any(axis=1)
    scores = rng.permuted(np.tile(np.arange(n_items, dtype=float), (n_users, 1)), axis=1)
    lists = np.argsort(-scores, axis=1).astype(np.int32)
    users, items = (part.astype(np.int32) for part in np.nonzero(truth))
    hits = hit_matrix(lists, np.arange(n_users, dtype=np.int32), Pairs(users, items, np.ones(len(users))), n_items)
    ours = ndcg(hits, truth.sum(axis=1), k)
    assert ours.mean() == pytest.approx(ndcg_score(truth.astype(float), scores, k=k), abs=1e-12)
