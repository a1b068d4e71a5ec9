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


class Query(BaseModel):
    """One user asks for at most k products; a user the model never saw gets popularity."""

    user_id: str
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
        codes = [self.bundle.code_of_user.get(query.user_id, -1) for query in model_input]
        made = self.bundle.recommend(np.array(codes, dtype=np.int32), max(query.k for query in model_input))
        return [self._answer(query, made, row) for row, query in enumerate(model_input)]

    def _answer(self, query: Query, made: Recommendations, row: int) -> RankedList:
        items = made.lists.items[row, : query.k]
        n, personal = int((items >= 0).sum()), bool(made.personal[row])
        return RankedList(
            user_id=query.user_id,
            product_ids=[str(self.bundle.item_ids[int(item)]) for item in items[:n]],
            scores=[float(score) for score in made.lists.scores[row, :n]],
            reasons=[self.bundle.reasons(personal, int(feature)) for feature in made.affinity[row, :n]],
            served_by="lightfm" if personal else "popularity",
            bundle_version=self.bundle.version,
        )


set_model(RecommenderModel())
