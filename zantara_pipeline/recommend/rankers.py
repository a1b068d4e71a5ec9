"""Rankers over candidates: a logistic blend of standardised scores, and gradient boosting with lambdarank.

Belongs here: learning weights from labelled candidates, and scores that say what each column contributed. Does not belong
here: columns (line_features.py), labels (rolling.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import BoostingSettings

# What stands for a generator's silence: below what it says of nearly every candidate.
SILENCE = -2.0


@dataclass(frozen=True)
class Lines:
    """Labelled candidates: features (n, columns), labels bool (n,), groups int64 (n_lists,) of consecutive lines."""

    features: NDArray[np.floating]
    labels: NDArray[np.bool_]
    groups: NDArray[np.int64]


class Ranker(Protocol):
    """Learns from lines, scores lines, explains lines."""

    name: str

    def fit(self, lines: Lines) -> Self:
        """Learn; the same lines and parameters give the same bits."""
        ...

    def score(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Shape (n,), higher is better."""
        ...

    def contributions(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Shape (n, columns + 1); a row sums to its score, the last column is what everybody gets."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was learned."""
        ...


class LogisticBlend:
    """score = intercept + sum of weight * column, over the standardised scores of the generators and their ranks.

    Parameters
    ----------
    generators : how many there are; their standardised scores, then their ranks, are the leading columns; silence of a generator counts as `SILENCE` deviations, a rank that is not
        there as 0.
    """

    name = "blend"

    def __init__(self, generators: int) -> None:
        self.generators = generators

    def fit(self, lines: Lines) -> Self:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1.0, max_iter=500).fit(self._inputs(lines.features), lines.labels)
        self.weights_, self.intercept_ = model.coef_[0].astype(np.float64), np.float64(model.intercept_[0])
        return self

    def score(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        made: NDArray[np.float64] = self._inputs(features) @ self.weights_ + self.intercept_
        return made

    def contributions(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        made = np.zeros((len(features), features.shape[1] + 1))
        made[:, : len(self.weights_)] = self._inputs(features) * self.weights_
        made[:, -1] = self.intercept_
        return made

    def _inputs(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        scores = np.nan_to_num(features[:, : self.generators], nan=SILENCE)
        ranks = np.nan_to_num(features[:, self.generators : 2 * self.generators], nan=0.0)
        return np.hstack([scores, ranks]).astype(np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights_, "intercept": np.array(self.intercept_)}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self.weights_, self.intercept_ = arrays["weights"], np.float64(arrays["intercept"])
        return self


class LambdaRank:
    """LightGBM with the lambdarank objective (Burges 2010), one thread, so that the same lines give the same bits."""

    name = "lambdarank"

    def __init__(self, settings: BoostingSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def fit(self, lines: Lines) -> Self:
        import lightgbm

        settings = self.settings
        parameters = {
            "objective": "lambdarank",
            "num_leaves": settings.leaves,
            "learning_rate": settings.learning_rate,
            "min_data_in_leaf": settings.min_rows_in_leaf,
            "lambdarank_truncation_level": 20,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": self.seed,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(lines.features, lines.labels.astype(np.int8), group=lines.groups)
        self._take(lightgbm.train(parameters, data, num_boost_round=settings.trees).model_to_string())
        return self

    def score(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        if len(features) == 0:
            return np.empty(0)
        made: NDArray[np.float64] = np.asarray(self.model_.predict(features, num_threads=1))
        return made

    def contributions(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        made: NDArray[np.float64] = np.asarray(self.model_.predict(features, pred_contrib=True, num_threads=1))
        return made

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"model": np.frombuffer(self.text_.encode(), dtype=np.uint8)}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Self:
        """Take back what `arrays` gave."""
        self._take(arrays["model"].tobytes().decode())
        return self

    def _take(self, text: str) -> None:
        import lightgbm

        # The model that serves is read from its text, also in the process that fitted it: both score alike.
        self.text_, self.model_ = text, lightgbm.Booster(model_str=text)
