"""Ranking metrics, one value per user, with binary relevance.

Belongs here: formulas. Does not belong here: who is measured (evaluation.py) and how sure we are (intervals.py).

Formulas: Jarvelin and Kekalainen (2002) for NDCG with log2 discount; Voorhees (1999) for the reciprocal rank.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.dataset import Pairs


def hit_matrix(lists: NDArray[np.int32], users: NDArray[np.int32], relevant: Pairs, n_items: int) -> NDArray[np.bool_]:
    """Whether each listed item is relevant to its user, shape (n, k); padding (-1) never is.

    Parameters
    ----------
    lists : item codes, shape (n, k), row i belonging to users[i].
    relevant : pairs sorted by user, item (as `Dataset.positives` gives them).
    """
    asked = users.astype(np.int64)[:, None] * n_items + lists
    return (lists >= 0) & np.isin(asked, relevant.keys(n_items))


def ndcg(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """NDCG@k: DCG over the best DCG possible with min(k, n_relevant) hits. Shape (n,), in 0..1."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(n_relevant, k)]
    gain = hits[:, :k] @ discount[: min(k, hits.shape[1])]
    values: NDArray[np.float64] = np.divide(gain, ideal, out=np.zeros(len(gain)), where=ideal > 0)
    return values


def mrr(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Reciprocal rank of the first hit within k, else 0. Shape (n,)."""
    top = hits[:, :k]
    return np.where(top.any(axis=1), 1.0 / (top.argmax(axis=1) + 1.0), 0.0)


def recall(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Share of a user's relevant items found within k. Shape (n,), in 0..1."""
    found = hits[:, :k].sum(axis=1)
    values: NDArray[np.float64] = np.divide(found, n_relevant, out=np.zeros(len(found)), where=n_relevant > 0)
    return values


def coverage(lists: NDArray[np.int32], n_candidates: int, k: int) -> float:
    """Share of the catalogue that appears in anybody's first k."""
    shown = np.unique(lists[:, :k])
    return float((shown >= 0).sum()) / n_candidates


PER_USER = {"ndcg": ndcg, "mrr": mrr, "recall": recall}
