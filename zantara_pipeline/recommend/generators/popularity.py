"""Popularity with exponential decay: the baseline, and the fallback for users without history.

Belongs here: the decayed sum. Does not belong here: personal scores of any kind.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.dataset import DAY_US, Dataset
from zantara_pipeline.recommend.histories import Histories


class Popularity:
    """score(item) = sum over interactions of weight * 2 ** (-age / half_life); no half-life: no decay.

    Age is counted back from the latest interaction of the dataset, never from the clock: the same data give the same
    scores whenever they are computed.
    """

    def __init__(self, half_life_days: float | None, name: str = "popularity") -> None:
        self.half_life_days, self.name = half_life_days, name

    def fit(self, dataset: Dataset) -> Self:
        age_days = (dataset.latest_us - dataset.times) / DAY_US
        decay = 1.0 if self.half_life_days is None else np.exp2(-age_days / self.half_life_days)
        # bincount adds in row order, and rows come sorted: the sum has the same last bits every time.
        self.scores_ = np.bincount(dataset.items, weights=dataset.weights * decay, minlength=dataset.n_items)
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return np.ones(len(histories), dtype=bool)

    def score(self, histories: Histories) -> NDArray[np.float64]:
        return np.broadcast_to(self.scores_, (len(histories), len(self.scores_)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"scores": self.scores_}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.scores_ = arrays["scores"].astype(np.float64)
        return self
