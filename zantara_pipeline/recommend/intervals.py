"""How sure we are: intervals over users for means and for coverage.

Belongs here: resampling users. Does not belong here: the values resampled.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def bootstrap_means(
    values: NDArray[np.float64], owners: NDArray[np.integer], *, samples: int, confidence: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap intervals of column means, resampling owners (users) with all their rows, with replacement.

    All columns share each resample, so the interval of a difference column is a paired one.

    Parameters
    ----------
    values : shape (n_rows, n_columns), n_rows >= 1. owners : whose row it is, shape (n_rows,).

    Returns
    -------
    low, high : shape (n_columns,). Source: Efron and Tibshirani (1993), chapter 13.
    """
    rng = np.random.default_rng(seed)
    distinct, place = np.unique(owners, return_inverse=True)
    n = len(distinct)
    sums = np.zeros((n, values.shape[1]))
    np.add.at(sums, place, values)
    rows = np.bincount(place, minlength=n)
    means = np.empty((samples, values.shape[1]))
    for i in range(samples):
        counts = np.bincount(rng.integers(0, n, size=n), minlength=n)
        means[i] = counts @ sums / (counts @ rows)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def coverage_interval(lists: NDArray[np.int32], n_candidates: int, confidence: float) -> tuple[float, float]:
    """Interval of catalogue coverage by the jackknife over users (Efron and Stein 1981), clipped to 0..1.

    Not the percentile bootstrap: a resample holds only 63 % of the users, so it covers fewer items, and the interval
    would lie below the value it belongs to. Leaving out user i loses exactly the items only i was shown.

    Parameters
    ----------
    lists : item codes, shape (n_users, k), an item at most once per row, -1 for padding.
    """
    n = len(lists)
    users, places = np.nonzero(lists >= 0)
    _, first, times = np.unique(lists[users, places], return_index=True, return_counts=True)
    owner = users[first]
    only_mine = np.bincount(owner[times == 1], minlength=n).astype(float)
    value = len(times) / n_candidates
    spread = np.sqrt((n - 1) / n * ((only_mine - only_mine.mean()) ** 2).sum()) / n_candidates
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    return max(0.0, value - margin), min(1.0, value + margin)
