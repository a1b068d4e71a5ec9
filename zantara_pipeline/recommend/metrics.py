"""Ranking metrics, one value per user, with binary relevance.

Belongs here: formulas. Does not belong here: who is measured (evaluation.py) and how sure we are (intervals.py).

Formulas: Jarvelin and Kekalainen (2002) for NDCG with log2 discount; Voorhees (1999) for the reciprocal rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.dataset import Pairs

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


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


def average_precision(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Mean over the user's relevant items of the precision at their place within k, 0 for those not listed. Shape (n,).

    Divided by min(k, n_relevant), so that a perfect list of k has 1 (Manning, Raghavan and Schuetze 2008, chapter 8, cut
    off at k).
    """
    top = hits[:, :k]
    precision = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    found, most = (top * precision).sum(axis=1), np.minimum(n_relevant, k)
    values: NDArray[np.float64] = np.divide(found, most, out=np.zeros(len(found)), where=most > 0)
    return values


def novelty(lists: NDArray[np.int32], information: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean information of what is listed, in bits; 0 for an empty list. Shape (n,).

    information : -log2 of how probable each item is to be met, shape (n_items,) (Castells, Vargas and Wang 2011).
    """
    there = lists >= 0
    told = np.where(there, information[lists], 0.0).sum(axis=1)
    values: NDArray[np.float64] = told / np.maximum(there.sum(axis=1), 1)
    return values


def intra_list_diversity(lists: NDArray[np.int32], attributes: csr_matrix) -> NDArray[np.float64]:
    """1 - mean cosine of the attributes of two listed items; 0 for lists of fewer than two. Shape (n,).

    attributes : sparse (n_items, n_features), rows of length 1 or 0 (Ziegler et al. 2005). By (|sum of rows|^2 - sum of
    |row|^2) / (m (m - 1)), which is the mean over ordered pairs.
    """
    from scipy.sparse import csr_matrix

    there = lists >= 0
    counts = there.sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(counts)])
    picks = csr_matrix((np.ones(int(counts.sum())), lists[there], starts), shape=(len(lists), attributes.shape[0]))
    summed, lengths = picks @ attributes, picks @ attributes.multiply(attributes)
    squared = np.asarray(summed.multiply(summed).sum(axis=1)).ravel() - np.asarray(lengths.sum(axis=1)).ravel()
    pairs = counts * (counts - 1)
    return np.where(pairs > 0, 1 - squared / np.maximum(pairs, 1), 0.0)


def gini(lists: NDArray[np.int32], n_candidates: int) -> float:
    """Gini coefficient of how often each offered item is listed: 0 all alike, towards 1 always the same few.

    Sum over items, ascending by count x, of (2 i - n - 1) x, by n times the sum of x (Gini 1912; Fleder and Hosanagar
    2009 for recommenders). 0 without lists.
    """
    counts = np.bincount(lists[lists >= 0])
    counts = np.sort(counts[counts > 0])
    n, m, total = n_candidates, len(counts), counts.sum()
    if total == 0:
        return 0.0
    places = np.arange(n - m + 1, n + 1)
    return float(((2 * places - n - 1) * counts).sum() / (n * total))


def coverage(lists: NDArray[np.int32], n_candidates: int, k: int) -> float:
    """Share of the catalogue that appears in anybody's first k."""
    shown = np.unique(lists[:, :k])
    return float((shown >= 0).sum()) / n_candidates


PER_USER = {"ndcg": ndcg, "mrr": mrr, "recall": recall, "map": average_precision}
