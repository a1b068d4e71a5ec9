"""Exact top-k lists from scores, with deterministic ties.

Belongs here: selection and order. Does not belong here: where scores come from, or business rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Scores held at once: 4 million doubles are 32 MB, and copies made of them stay well below 200 MB.
BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class Lists:
    """Ranked lists, best first.

    `items` are int32 codes, shape (n, k), -1 where a list is shorter; `scores` float64, same shape, NaN there.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float64]


def top_k(scores: NDArray[np.float64], k: int) -> Lists:
    """The k best columns of each row by (score descending, column ascending); -inf marks what may not appear.

    Partitioning finds the k-th value of each row; everything at or above it is then ordered, so that ties at the edge
    of the list are decided by the column and not by the partition's whim.
    """
    n, m = scores.shape
    items = np.full((n, k), -1, dtype=np.int32)
    values = np.full((n, k), np.nan)
    if n == 0 or m == 0:
        return Lists(items, values)
    eligible = scores > -np.inf
    if m > k:
        eligible &= scores >= np.partition(scores, m - k, axis=1)[:, m - k, None]
    rows, columns = np.nonzero(eligible)
    found = scores[rows, columns]
    order = np.lexsort((columns, -found, rows))
    rows, columns, found = rows[order], columns[order], found[order]
    position = np.arange(len(rows)) - np.searchsorted(rows, np.arange(n))[rows]
    keep = position < k
    items[rows[keep], position[keep]] = columns[keep]
    values[rows[keep], position[keep]] = found[keep]
    return Lists(items, values)
