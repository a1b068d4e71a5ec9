"""What people went on to after an item: decayed item-to-item rules, the generator that models order.

Belongs here: counting transitions and scoring from the newest items. Does not belong here: symmetric similarity.

Source: sequential rules as in Ludewig and Jannach (2018), "Evaluation of session-based recommendation algorithms", with
their linear decay replaced by a geometric one, and damped by how common the item that follows is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import SequenceSettings
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.generators.base import evidence_only, with_history
from zantara_pipeline.recommend.histories import Histories, histories_of
from zantara_pipeline.recommend.sparse import pack, strongest, unpack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Sequence:
    """rule(a, b) = sum over times that b came d items after a of decay ** (d - 1) * 2 ** (-days between / half-life).

    Divided by what b gathers in all, to the power `popularity_damping`. A user's score is the sum of the rules of the
    newest `window` items, each weighed by decay ** (number of newer ones).
    """

    name = "sequence"

    def __init__(self, settings: SequenceSettings) -> None:
        self.settings = settings

    def fit(self, dataset: Dataset) -> Self:
        from scipy.sparse import coo_matrix

        told = histories_of(dataset)
        sources, targets, values = [], [], []
        rows = told.rows
        for distance in range(1, self.settings.window + 1):
            same = rows[distance:] == rows[:-distance]
            days = (told.ages[:-distance] - told.ages[distance:])[same]
            near = np.exp2(-days / self.settings.half_life_days)
            sources.append(told.items[:-distance][same])
            targets.append(told.items[distance:][same])
            values.append(self.settings.decay ** (distance - 1) * near)
        shape = (dataset.n_items, dataset.n_items)
        pairs = (np.concatenate(sources), np.concatenate(targets))
        rules = coo_matrix((np.concatenate(values), pairs), shape=shape).tocsr()
        gathered = np.asarray(rules.sum(axis=0)).ravel()
        damped = np.where(gathered > 0, gathered, 1.0) ** -self.settings.popularity_damping
        rules.data *= damped[rules.indices]
        self.rules_: csr_matrix = strongest(rules, self.settings.neighbours)
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return with_history(histories)

    def score(self, histories: Histories) -> NDArray[np.float64]:
        newest = histories.latest(self.settings.window)
        weights = self.settings.decay ** newest.from_end.astype(np.float64)
        return evidence_only((newest.matrix(weights) @ self.rules_).toarray())

    def arrays(self) -> dict[str, NDArray[Any]]:
        return pack("rules", self.rules_)

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.rules_ = unpack("rules", arrays)
        return self
