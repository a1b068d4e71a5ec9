"""The ladder: by which rung somebody is served, by how much is known of them.

Belongs here: rungs, their thresholds, the list of the rung for newcomers. Does not belong here: choosing thresholds
(learning.py), the full stack (stack.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POPULARITY, CONTENT, FOLD_IN, FULL = range(4)
RUNGS = ("popularity", "popularity_content", "lightfm_fold_in", "full")
# Damps the first places, so that two lists are united and neither wins alone: 60 as in Cormack, Clarke and Buettcher
# (2009), "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods".
FUSION = 60.0


@dataclass(frozen=True)
class Thresholds:
    """What validation chose.

    Parameters
    ----------
    fold_in, full : liked items needed for LightFM's fold-in (people the model does not know) and for the full stack.
    popularity : name of the popularity that serves newcomers.
    """

    fold_in: int
    full: int
    popularity: str = "popularity"

    def rungs(self, lengths: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int8]:
        """Rung of each history by its length and whether the model was trained on it, shape (n,)."""
        rungs = np.where(lengths > 0, CONTENT, POPULARITY)
        rungs[~known & (lengths >= self.fold_in)] = FOLD_IN
        rungs[known & (lengths >= self.full)] = FULL
        return rungs.astype(np.int8)


def newcomer_scores(ranks: NDArray[np.float64], sources: Sequence[str], popularity: str) -> NDArray[np.float64]:
    """Popularity and content united by their places; ranks as in `Candidates`. Shape (n,)."""
    wanted = [place for place, name in enumerate(sources) if name in (popularity, "content")]
    return fused(ranks[:, wanted])


def fused(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reciprocal rank fusion: sum over columns of 1 / (60 + rank); NaN is no place in that list. Shape (n,)."""
    made: NDArray[np.float64] = np.nan_to_num(1.0 / (FUSION + ranks), nan=0.0).sum(axis=1)
    return made
