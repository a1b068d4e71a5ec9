"""EASE: a linear autoencoder over items in closed form, on a capped catalogue.

Belongs here: the closed form. Does not belong here: order, attributes.
Source: Steck (2019), "Embarrassingly shallow autoencoders for sparse data".
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import EASESettings
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.generators.base import evidence_only
from zantara_pipeline.recommend.histories import Histories, histories_of


class EASE:
    """score = X B with B = I - P / diag(P), P = (X'X + l2 I)^-1, on the `max_items` items with the most users.

    Memory and time grow with the square and the cube of `max_items`: 2,000 items are 32 MB and half a second.
    """

    name = "ease"

    def __init__(self, settings: EASESettings) -> None:
        self.settings = settings

    def fit(self, dataset: Dataset) -> Self:
        from scipy.linalg import inv

        liked = histories_of(dataset).latest(self.settings.history).matrix()
        users = np.asarray(liked.sum(axis=0)).ravel()
        order = np.lexsort((np.arange(dataset.n_items), -users))
        chosen = np.sort(order[: self.settings.max_items])
        self.items_ = chosen[users[chosen] > 0].astype(np.int32)
        columns = liked[:, self.items_]
        gram = (columns.T @ columns).toarray()
        gram[np.diag_indices_from(gram)] += self.settings.l2
        inverse = inv(gram, overwrite_a=True, check_finite=False) if len(gram) else gram
        weights = inverse / -np.diag(inverse)
        weights[np.diag_indices_from(weights)] = 0.0
        self.weights_ = weights.astype(np.float32)
        self.n_items_ = np.int64(dataset.n_items)
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return np.asarray(histories.matrix()[:, self.items_].sum(axis=1)).ravel() > 0

    def score(self, histories: Histories) -> NDArray[np.float64]:
        scores = np.zeros((len(histories), int(self.n_items_)))
        chosen = histories.latest(self.settings.history).matrix()[:, self.items_]
        scores[:, self.items_] = chosen @ self.weights_.astype(np.float64)
        return evidence_only(scores)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"items": self.items_, "weights": self.weights_, "n_items": np.array(self.n_items_)}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.items_, self.weights_, self.n_items_ = arrays["items"], arrays["weights"], np.int64(arrays["n_items"])
        return self
