"""Popularity with exponential decay: the baseline, and the fallback for users without history.

Belongs here: the decayed sum. Does not belong here: personal scores of any kind.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.dataset import DAY_US, Dataset


class Popularity:
    """score(item) = sum over interactions of weight * 2 ** (-age / half_life).

    Age is counted back from the latest interaction of the dataset, never from the clock: the same data give the same
    scores whenever they are computed.
    """

    name = "popularity"

    def __init__(self, half_life_days: float) -> None:
        self.half_life_days = half_life_days

    def fit(self, dataset: Dataset) -> Self:
        age_days = (dataset.latest_us - dataset.times) / DAY_US
        decayed = dataset.weights * np.exp2(-age_days / self.half_life_days)
        # bincount adds in row order, and rows come sorted: the sum has the same last bits every time.
        self.scores_ = np.bincount(dataset.items, weights=decayed, minlength=dataset.n_items)
        return self

    def knows(self, users: NDArray[np.int32]) -> NDArray[np.bool_]:
        return np.ones(len(users), dtype=bool)

    def score(self, users: NDArray[np.int32]) -> NDArray[np.float64]:
        return np.broadcast_to(self.scores_, (len(users), len(self.scores_)))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {"scores": self.scores_}

    @classmethod
    def restore(cls, arrays: dict[str, NDArray[np.generic]], half_life_days: float) -> Self:
        """Rebuild from `arrays`."""
        model = cls(half_life_days)
        model.scores_ = arrays["scores"].astype(np.float64)
        return model
