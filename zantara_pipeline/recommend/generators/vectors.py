"""Generators whose items are vectors and whose users are made of their history: ALS, item2vec, content.

Belongs here: learning item vectors and folding histories into them. Does not belong here: LightFM (lightfm_warp.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import ALSSettings, ContentSettings, Item2VecSettings
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.generators.base import evidence_only, with_history
from zantara_pipeline.recommend.histories import Histories, histories_of
from zantara_pipeline.recommend.sparse import pack, unpack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ALS:
    """Implicit matrix factorisation: confidence 1 + alpha * weight on what was liked.

    A user is the least-squares answer to their history, for those it was trained on, too: nothing of people is kept.
    Source: Hu, Koren and Volinsky (2008), "Collaborative filtering for implicit feedback datasets", equation 4.
    """

    name = "als"

    def __init__(self, settings: ALSSettings) -> None:
        self.settings = settings

    def fit(self, dataset: Dataset) -> Self:
        from implicit.als import AlternatingLeastSquares

        told = histories_of(dataset)
        settings = self.settings
        model = AlternatingLeastSquares(
            factors=settings.factors,
            regularization=settings.l2,
            iterations=settings.iterations,
            dtype=np.float32,
            use_gpu=False,
            num_threads=1,  # more threads add in another order
            random_state=settings.seed,
        )
        model.fit(told.matrix(1.0 + self._confidence(told)).astype(np.float32), show_progress=False)
        self.item_vectors_ = np.array(model.item_factors, dtype=np.float32)
        bought = np.bincount(told.items, minlength=dataset.n_items) > 0
        self.item_vectors_[~bought] = 0
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return with_history(histories)

    def score(self, histories: Histories) -> NDArray[np.float64]:
        vectors = self.item_vectors_.astype(np.float64)
        everything = vectors.T @ vectors + self.settings.l2 * np.eye(vectors.shape[1])
        users = np.zeros((len(histories), vectors.shape[1]))
        for row in range(len(histories)):
            held = slice(histories.starts[row], histories.starts[row + 1])
            liked, extra = vectors[histories.items[held]], self._confidence(histories)[held, None]
            users[row] = np.linalg.solve(everything + liked.T @ (extra * liked), ((1 + extra) * liked).sum(axis=0))
        return evidence_only(users @ vectors.T)

    def _confidence(self, histories: Histories) -> NDArray[np.float64]:
        return self.settings.alpha * np.minimum(histories.weights, self.settings.weight_cap)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"item_vectors": self.item_vectors_}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.item_vectors_ = arrays["item_vectors"]
        return self


class Item2Vec:
    """Vectors of items that people touch near each other: singular vectors of their shifted positive PMI.

    Source: Levy and Goldberg (2014), "Neural word embedding as implicit matrix factorization": what item2vec (Barkan and
    Koenigstein 2016) learns by sampling, without its dependence on the hash seed and the number of threads.
    A user is the mean of their newest items, a score the cosine.
    """

    name = "item2vec"

    def __init__(self, settings: Item2VecSettings) -> None:
        self.settings = settings

    def fit(self, dataset: Dataset) -> Self:
        near = _near_each_other(histories_of(dataset), self.settings.window)
        self.item_vectors_ = _unit(_singular_vectors(_positive_pmi(near, self.settings.shift), self.settings)).astype(
            np.float32
        )
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return with_history(histories)

    def score(self, histories: Histories) -> NDArray[np.float64]:
        newest = histories.latest(self.settings.history)
        vectors = self.item_vectors_.astype(np.float64)
        return evidence_only(_unit(newest.matrix() @ vectors) @ vectors.T)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"item_vectors": self.item_vectors_}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.item_vectors_ = arrays["item_vectors"]
        return self


class Content:
    """Cosine of an item's attributes (by inverse frequency) and those of the history; works for items nobody touched.

    Source: Salton and Buckley (1988), "Term-weighting approaches in automatic text retrieval".
    """

    name = "content"

    def __init__(self, settings: ContentSettings) -> None:
        self.settings = settings

    def fit(self, dataset: Dataset) -> Self:
        from scipy.sparse import diags

        features = dataset.feature_matrix().astype(np.float64)
        holders = np.asarray(features.sum(axis=0)).ravel()
        rarity = np.log1p(dataset.n_items / np.maximum(holders, 1))
        weighed = (features @ diags(rarity)).tocsr()
        length = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
        scaled = (diags(1 / np.where(length > 0, length, 1)) @ weighed).tocsr()
        scaled.data = scaled.data.astype(np.float32).astype(np.float64)
        self.features_: csr_matrix = scaled
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return np.asarray((histories.matrix() @ self.features_).sum(axis=1)).ravel() > 0

    def score(self, histories: Histories) -> NDArray[np.float64]:
        newest = histories.latest(self.settings.history)
        profile = newest.matrix() @ self.features_
        length = np.sqrt(np.asarray(profile.multiply(profile).sum(axis=1)).ravel())
        scores = (profile @ self.features_.T).toarray() / np.where(length > 0, length, 1)[:, None]
        return evidence_only(scores)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return pack("features", self.features_)

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.features_ = unpack("features", arrays)
        return self


def _near_each_other(told: Histories, window: int) -> csr_matrix:
    """How often two items lie at most `window` places apart in a history, both ways."""
    from scipy.sparse import coo_matrix

    firsts, seconds, rows = [], [], told.rows
    for distance in range(1, window + 1):
        same = rows[distance:] == rows[:-distance]
        firsts.append(told.items[:-distance][same])
        seconds.append(told.items[distance:][same])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    both = (np.concatenate([first, second]), np.concatenate([second, first]))
    counts: csr_matrix = coo_matrix((np.ones(len(both[0])), both), shape=(told.n_items, told.n_items)).tocsr()
    return counts


def _positive_pmi(counts: csr_matrix, shift: float) -> csr_matrix:
    """max(log(P(a, b) / (P(a) P(b))) - log(shift), 0)."""
    total, each = counts.sum(), np.asarray(counts.sum(axis=1)).ravel()
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    made = counts.copy()
    made.data = np.maximum(np.log(counts.data * total / (each[rows] * each[counts.indices])) - np.log(shift), 0)
    made.eliminate_zeros()
    return made


def _singular_vectors(matrix: csr_matrix, settings: Item2VecSettings) -> NDArray[np.float64]:
    """Left vectors times the root of the singular values, shape (n_items, at most factors)."""
    from sklearn.utils.extmath import randomized_svd

    if matrix.nnz == 0:
        return np.zeros((matrix.shape[0], 1))
    most = min(settings.factors, matrix.shape[0])
    # Not scipy's svds: where singular values are equal it gave other signs from run to run, for all its start vector.
    left, values, _ = randomized_svd(matrix, most, n_iter=5, random_state=settings.seed)
    # Too small a value is noise of rounding, with a direction of its own on every machine.
    kept = values > 1e-9 * values.max()
    made: NDArray[np.float64] = left[:, kept] * np.sqrt(values[kept])
    return made


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
