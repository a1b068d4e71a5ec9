"""Item-to-item neighbours by cosine of who liked them: the classic baseline.

Belongs here: shrunk cosine similarity. Does not belong here: order, attributes.
Source: Sarwar et al. (2001), "Item-based collaborative filtering recommendation algorithms".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import ItemKNNSettings
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.generators.base import evidence_only, with_history
from zantara_pipeline.recommend.histories import Histories, histories_of
from zantara_pipeline.recommend.sparse import pack, strongest, unpack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ItemKNN:
    """similarity(a, b) = users of both / (sqrt(users of a * users of b) + shrink); a score sums over the history."""

    name = "item_knn"

    def __init__(self, settings: ItemKNNSettings) -> None:
        self.settings = settings

    def fit(self, dataset: Dataset) -> Self:
        # The newest items of each user only: the work grows with the square of a history, and one user may hold 50,000.
        liked = histories_of(dataset).latest(self.settings.history).matrix()
        both = (liked.T @ liked).tocsr()
        users = both.diagonal()
        both.setdiag(0)
        both.eliminate_zeros()
        rows = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
        both.data /= np.sqrt(users[rows] * users[both.indices]) + self.settings.shrink
        self.similar_: csr_matrix = strongest(both, self.settings.neighbours)
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return with_history(histories)

    def score(self, histories: Histories) -> NDArray[np.float64]:
        return evidence_only((histories.latest(self.settings.history).matrix() @ self.similar_).toarray())

    def arrays(self) -> dict[str, NDArray[Any]]:
        return pack("similar", self.similar_)

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.similar_ = unpack("similar", arrays)
        return self
