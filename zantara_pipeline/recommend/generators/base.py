"""The protocol that every generator follows.

Belongs here: the shape, and rounding that all share. Does not belong here: any model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zantara_pipeline.recommend.dataset import Dataset
    from zantara_pipeline.recommend.histories import Histories

# BLAS kernels differ in the last bits with block size and machine. Six decimals are far below any difference that
# matters and far above those bits, so a list is the same for one user as in a batch.
SCORE_DECIMALS = 6


class Generator(Protocol):
    """Fits on a dataset (everything in it may be learned: cut it first) and scores all its items for histories.

    Parameters are set in `__init__` and nowhere else; learned values end in an underscore.
    """

    name: str

    def fit(self, dataset: Dataset) -> Self:
        """Learn; the same dataset and parameters give the same bits."""
        ...

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        """For which rows this generator has something to say, shape (n,)."""
        ...

    def score(self, histories: Histories) -> NDArray[np.float64]:
        """Scores of all items, shape (n, n_items), higher is better; -inf: nothing to say of this item.

        Values must not depend on which rows are asked for together, so that a list is the same in a batch and alone.
        Rows that it does not know may hold anything.
        """
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was learned, for saving; `restore` takes it back."""
        ...


def with_history(histories: Histories) -> NDArray[np.bool_]:
    """Rows that hold an item at all, shape (n,)."""
    return histories.lengths > 0


def evidence_only(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded, and -inf where the score is 0: nothing links the item to the history."""
    np.round(scores, SCORE_DECIMALS, out=scores)
    scores[scores == 0] = -np.inf
    return scores
