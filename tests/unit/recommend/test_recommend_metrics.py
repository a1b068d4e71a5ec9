"""Metrics against hand-worked cases and scikit-learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import log2

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import ndcg_score

from zantara_pipeline.recommend.dataset import Pairs
from zantara_pipeline.recommend.metrics import (
    average_precision,
    coverage,
    gini,
    hit_matrix,
    intra_list_diversity,
    mrr,
    ndcg,
    novelty,
    recall,
)

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


def test_average_precision_by_hand():
    assert average_precision(HITS, RELEVANT, 4) == pytest.approx([(1 / 1 + 2 / 3) / 3, 0, 1 / 4])
    assert average_precision(HITS, RELEVANT, 2) == pytest.approx([1 / 2, 0, 0])


def test_novelty_is_the_mean_information_of_what_is_listed():
    lists = np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]], dtype=np.int32)
    assert novelty(lists, np.array([1.0, 2.0, 6.0])) == pytest.approx([3, 6, 0])


def test_diversity_is_one_less_the_mean_cosine_of_two_listed_items():
    attributes = csr_matrix(np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 0]]))
    lists = np.array([[0, 1, 2], [0, 2, -1], [3, 0, -1], [1, -1, -1]], dtype=np.int32)
    by_hand = [1 - (0 + 0.6 + 0.8) / 3, 1 - 0.6, 1, 0]
    assert intra_list_diversity(lists, attributes) == pytest.approx(by_hand)


def test_gini_by_hand():
    everybody = np.tile(np.arange(4, dtype=np.int32), (3, 1))
    assert gini(everybody, 4) == pytest.approx(0)
    assert gini(np.zeros((5, 1), dtype=np.int32), 4) == pytest.approx(3 / 4)
    # Counts 0, 1, 3: sum of |differences| over all ordered pairs is 2 (1 + 3 + 2) = 12; by 2 n sum = 2 * 3 * 4.
    assert gini(np.array([[1], [2], [2], [2]], dtype=np.int32), 3) == pytest.approx(12 / 24)
    assert gini(np.full((2, 2), -1, dtype=np.int32), 3) == 0


RANX = """
import json, sys
from ranx import Qrels, Run, evaluate
asked = json.load(sys.stdin)
told = {}
for k, run in asked["runs"].items():
    names = [f"{name}@{k}" for name in ("ndcg", "mrr", "recall", "map")]
    told[k] = evaluate(Qrels(asked["qrels"]), Run(run), names, make_comparable=True)
print(json.dumps(told))
"""


def test_ndcg_mrr_map_and_recall_equal_ranx():
    """A second library, on lists shorter than what is relevant and longer; interpreted, or it compiles for a minute."""
    rng = np.random.default_rng(11)
    n_users, n_items = 30, 25
    truth = rng.random((n_users, n_items)) < 0.3
    truth[:, 0] |= ~truth.any(axis=1)
    lists = rng.permuted(np.tile(np.arange(n_items, dtype=np.int32), (n_users, 1)), axis=1)
    users, items = (part.astype(np.int32) for part in np.nonzero(truth))
    relevant = Pairs(users, items, np.ones(len(users)), np.zeros(len(users), dtype=np.int64))
    hits, n_relevant = hit_matrix(lists, np.arange(n_users, dtype=np.int32), relevant, n_items), truth.sum(axis=1)
    asked = {
        "qrels": {f"u{u}": {f"i{i}": 1 for i in np.flatnonzero(truth[u])} for u in range(n_users)},
        "runs": {
            str(k): {f"u{u}": {f"i{i}": float(k - at) for at, i in enumerate(row[:k])} for u, row in enumerate(lists)}
            for k in (1, 5, 10)
        },
    }
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RANX],
        input=json.dumps(asked), capture_output=True, text=True, check=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    for k, theirs in json.loads(shown.stdout).items():
        cut = int(k)
        for name, formula in (("ndcg", ndcg), ("mrr", mrr), ("recall", recall)):
            assert formula(hits, n_relevant, cut).mean() == pytest.approx(theirs[f"{name}@{k}"], abs=1e-9), (name, k)
        # ranx divides by all relevant items, also beyond k; ours by what a list of k could hold.
        ours = (average_precision(hits, n_relevant, cut) * np.minimum(n_relevant, cut) / n_relevant).mean()
        assert ours == pytest.approx(theirs[f"map@{k}"], abs=1e-9)


def test_lists_shorter_than_the_cutoff_are_padded_and_padding_never_hits():
    lists = np.array([[2, 0, -1], [-1, -1, -1]], dtype=np.int32)
    users = np.array([0, 1], dtype=np.int32)
    relevant = Pairs(
        np.array([0, 0, 1], dtype=np.int32),
        np.array([0, 3, 2], dtype=np.int32),
        np.ones(3),
        np.zeros(3, dtype=np.int64),
    )
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
    relevant = Pairs(users, items, np.ones(len(users)), np.zeros(len(users), dtype=np.int64))
    hits = hit_matrix(lists, np.arange(n_users, dtype=np.int32), relevant, n_items)
    ours = ndcg(hits, truth.sum(axis=1), k)
    assert ours.mean() == pytest.approx(ndcg_score(truth.astype(float), scores, k=k), abs=1e-12)
