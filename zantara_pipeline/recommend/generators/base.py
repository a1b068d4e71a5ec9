"""The protocol that every generator follows.

Belongs here: the shape. Does not belong here: any model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zantara_pipeline.recommend.dataset import Dataset


class Generator(Protocol):
    """Fits on a dataset (everything in it may be learned: cut it first) and scores all its items for users.

    Parameters are set in `__init__` and nowhere else; learned values end in an underscore.
    """

    name: str

    def fit(self, dataset: Dataset) -> Self:
        """Learn; the same dataset and parameters give the same bits."""
        ...

    def knows(self, users: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of the users (codes; -1 is a stranger) this generator can score, shape (n,)."""
        ...

    def score(self, users: NDArray[np.int32]) -> NDArray[np.float64]:
        """Scores of all items for users it knows, shape (n, n_items), higher is better.

        Values must not depend on which users are asked for together, so that a list is the same in a batch and alone.
        """
        ...

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What was learned, for saving; `restore` takes it back."""
        ...
