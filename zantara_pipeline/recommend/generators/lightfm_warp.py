"""LightFM with the WARP loss, a hybrid: every item is itself plus its declared attributes.

Belongs here: preparing matrices for LightFM and scoring from what it learned. Does not belong here: choosing
hyper-parameters, lists. Kula (2015), "Metadata embeddings for user and item cold-start recommendations".
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend.config import LightFMSettings
from zantara_pipeline.recommend.dataset import DAY_US, Dataset
from zantara_pipeline.recommend.generators.base import SCORE_DECIMALS, with_history
from zantara_pipeline.recommend.histories import Histories

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class LightFMWarp:
    """Learned vectors of users and items; score = user . item + biases, rounded to `SCORE_DECIMALS`.

    Whom it was not trained on is folded in: the mean of the vectors of their items stands for them (without a bias).

    One thread and a seed: the same dataset gives the same bits (two threads do not).
    """

    name = "lightfm"

    def __init__(self, settings: LightFMSettings, weight_cap: float, weight_half_life_days: float) -> None:
        self.settings, self.weight_cap = settings, weight_cap
        self.weight_half_life_days = weight_half_life_days

    def fit(self, dataset: Dataset) -> Self:
        """Learn from the positive pairs; users without one and items that are no candidates take no part.

        Raises
        ------
        InputError : LightFM lacks OpenMP, or training diverged.
        """
        pairs = dataset.positives()
        trained = np.unique(pairs.users)
        self.offered_ = dataset.candidates
        offered = np.flatnonzero(self.offered_)
        features = _hybrid_features(dataset.feature_matrix()[offered])
        rows, columns = np.searchsorted(trained, pairs.users), np.searchsorted(offered, pairs.items)
        age_days = (dataset.latest_us - pairs.times) / DAY_US
        capped = np.minimum(pairs.weights, self.weight_cap) * np.exp2(-age_days / self.weight_half_life_days)
        # Weights scale the learning rate: around a mean of 1 they leave it where it was declared.
        model = self._train(rows, columns, capped / capped.mean(), (len(trained), len(offered)), features)
        self.user_row_ = _inverse(trained, dataset.n_users)
        self.user_vectors_ = np.asarray(model.user_embeddings, dtype=np.float32)
        self.user_biases_ = np.asarray(model.user_biases, dtype=np.float32)
        self.item_vectors_ = np.zeros((dataset.n_items, self.settings.components), dtype=np.float32)
        self.item_biases_ = np.zeros(dataset.n_items, dtype=np.float32)
        self.feature_vectors_ = np.asarray(model.item_embeddings, dtype=np.float32)
        self.feature_biases_ = np.asarray(model.item_biases, dtype=np.float32)
        self.item_vectors_[offered] = features @ model.item_embeddings
        self.item_biases_[offered] = features @ model.item_biases
        return self

    def knows(self, histories: Histories) -> NDArray[np.bool_]:
        return with_history(histories)

    def trained(self, histories: Histories) -> NDArray[np.bool_]:
        """Which rows have a learned vector of their own, shape (n,); the others are folded in."""
        if len(self.user_row_) == 0:
            return np.zeros(len(histories), dtype=bool)
        return (histories.users >= 0) & (self.user_row_[histories.users] >= 0)

    def score(self, histories: Histories) -> NDArray[np.float64]:
        vectors = self.users_of(histories)
        products = vectors @ self.item_vectors_.T.astype(np.float64)
        products += self.item_biases_
        trained = self.trained(histories)
        products[trained] += self.user_bias(histories)[trained, None]
        np.round(products, SCORE_DECIMALS, out=products)
        products[:, ~self.offered_] = -np.inf
        return products

    def user_bias(self, histories: Histories) -> NDArray[np.float64]:
        """Bias of each row, shape (n,); 0 for a stranger."""
        trained = self.trained(histories)
        biases = np.zeros(len(histories))
        biases[trained] = self.user_biases_[self.user_row_[histories.users[trained]]]
        return biases

    def users_of(self, histories: Histories) -> NDArray[np.float64]:
        """Vectors, shape (n, components): the learned one, or of a stranger the mean of the newest items' vectors."""
        newest = histories.latest(self.settings.fold_in_history)
        summed = newest.matrix() @ self.item_vectors_.astype(np.float64)
        vectors: NDArray[np.float64] = summed / np.maximum(newest.lengths, 1)[:, None]
        trained = self.trained(histories)
        vectors[trained] = self.user_vectors_[self.user_row_[histories.users[trained]]]
        return vectors

    def arrays(self) -> dict[str, NDArray[Any]]:
        names: tuple[str, ...] = ("user_row", "user_vectors", "user_biases", "item_vectors", "item_biases", "offered")
        names += ("feature_vectors", "feature_biases")
        return {name: getattr(self, f"{name}_") for name in names}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        for name, values in arrays.items():
            setattr(self, f"{name}_", values)
        return self

    def with_users(self, keep: NDArray[np.bool_]) -> Self:
        """The same model without the learned vectors of some users (codes that are not kept); scores of the others stay."""
        rows = self.user_row_[keep]
        known = rows >= 0
        fewer = type(self)(self.settings, self.weight_cap, self.weight_half_life_days)
        fewer.user_row_ = np.full(len(rows), -1, dtype=np.int32)
        fewer.user_row_[known] = np.arange(int(known.sum()), dtype=np.int32)
        fewer.user_vectors_, fewer.user_biases_ = self.user_vectors_[rows[known]], self.user_biases_[rows[known]]
        fewer.item_vectors_, fewer.item_biases_ = self.item_vectors_, self.item_biases_
        fewer.offered_ = self.offered_
        fewer.feature_vectors_, fewer.feature_biases_ = self.feature_vectors_, self.feature_biases_
        return fewer

    def _train(
        self,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        weights: NDArray[np.float64],
        shape: tuple[int, int],
        features: csr_matrix,
    ) -> Any:
        from scipy.sparse import coo_matrix

        places = (rows.astype(np.int32), columns.astype(np.int32))
        model = _lightfm_class()(
            no_components=self.settings.components,
            loss="warp",
            learning_rate=self.settings.learning_rate,
            max_sampled=self.settings.max_sampled,
            item_alpha=self.settings.l2,
            user_alpha=self.settings.l2,
            random_state=self.settings.seed,
        )
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                return model.fit(
                    coo_matrix((np.ones(len(rows), dtype=np.float32), places), shape=shape),
                    item_features=features,
                    sample_weight=coo_matrix((weights.astype(np.float32), places), shape=shape),
                    epochs=self.settings.epochs,
                    num_threads=1,
                )
        except ValueError as error:
            if "finite" not in str(error):
                raise
            raise InputError(
                "LightFM diverged (non-finite vectors)", "recommendation.yaml, lightfm", "lower learning_rate"
            ) from None


def _hybrid_features(attributes: csr_matrix) -> csr_matrix:
    """Identity beside attributes, each row summing to 1, so that items with many attributes are not larger."""
    from scipy.sparse import diags, hstack, identity

    both = hstack([identity(attributes.shape[0], dtype=np.float32, format="csr"), attributes], format="csr")
    scale = diags(1.0 / np.asarray(both.sum(axis=1)).ravel())
    scaled: csr_matrix = (scale @ both).tocsr().astype(np.float32)
    return scaled


def _inverse(trained: NDArray[np.int32], n_users: int) -> NDArray[np.int32]:
    """Row of each user code in the learned vectors, -1 for users without a positive."""
    rows = np.full(n_users, -1, dtype=np.int32)
    rows[trained] = np.arange(len(trained), dtype=np.int32)
    return rows


def _lightfm_class() -> Any:
    """LightFM, refused where only its fallback without OpenMP loads: that is another binary with other bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightfm import LightFM
    if "lightfm._lightfm_fast_openmp" not in sys.modules:
        raise InputError(
            "LightFM runs without OpenMP", "the installed lightfm-next", "install libgomp1 (apt-get install libgomp1)"
        )
    return LightFM
