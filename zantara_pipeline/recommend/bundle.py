"""The bundle as an MLflow model (models-from-code): MLflow copies and runs this file to load a version.

Belongs here: the typed `predict`. Does not belong here: any recommending (artifacts.py does it). This is the only
module of the package that imports mlflow, and nobody imports it but MLflow: `set_model` below is a side effect.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, Field

from zantara_pipeline.recommend.artifacts import Bundle, Recommendations
from zantara_pipeline.recommend.ladder import RUNGS


class Query(BaseModel):
    """One user asks for at most k products.

    `history` (product ids, oldest first) is what the application knows of them now: it takes the place of what the model
    was trained on. Without one, a user the model never saw gets popularity.
    """

    user_id: str
    history: list[str] | None = None
    k: int = Field(default=20, ge=1, le=1000)


class RankedList(BaseModel):
    """The answer to one query, best product first; all lists have the same length."""

    user_id: str
    product_ids: list[str]
    scores: list[float]
    reasons: list[list[str]]
    served_by: str
    bundle_version: str


class RecommenderModel(PythonModel):  # type: ignore[misc]
    """Serves lists from the files logged with the version."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle once."""
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context: PythonModelContext, model_input: list[Query]) -> list[RankedList]:
        """Answer queries in their order."""
        if not model_input:
            return []
        k = max(query.k for query in model_input)
        told = [place for place, query in enumerate(model_input) if query.history is not None]
        codes = [self.bundle.code_of_user.get(query.user_id, -1) for query in model_input]
        known = self.bundle.recommend(np.array(codes, dtype=np.int32), k)
        sent = self.bundle.recommend_to([model_input[place].history or [] for place in told], k)
        row_of = {place: row for row, place in enumerate(told)}
        return [
            self._answer(query, sent, row_of[place]) if place in row_of else self._answer(query, known, place)
            for place, query in enumerate(model_input)
        ]

    def _answer(self, query: Query, made: Recommendations, row: int) -> RankedList:
        items, rung = made.lists.items[row, : query.k], int(made.rungs[row])
        n = int((items >= 0).sum())
        why = zip(made.sources[row, :n], made.affinity[row, :n], strict=True)
        return RankedList(
            user_id=query.user_id,
            product_ids=[str(self.bundle.item_ids[int(item)]) for item in items[:n]],
            scores=[float(score) for score in made.lists.scores[row, :n]],
            reasons=[self.bundle.reasons(rung, int(source), int(feature)) for source, feature in why],
            served_by=RUNGS[rung],
            bundle_version=self.bundle.version,
        )


set_model(RecommenderModel())
