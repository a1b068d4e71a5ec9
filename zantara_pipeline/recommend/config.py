"""What a person may declare about recommendations: the model of contracts/recommendation.yaml.

Belongs here: types, bounds and rules between keys. Does not belong here: any computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zantara_pipeline.contracts_io import PACKAGED, overlay_files, parse_contract

FILE = "recommendation.yaml"
EventName = Literal["product_view", "item_tag", "add_to_cart", "purchase", "rating", "refund"]
MetricName = Literal["ndcg", "mrr", "recall"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Signals(_Section):
    """Weight of one event of each kind (unitless)."""

    product_view: float
    item_tag: float
    add_to_cart: float
    purchase: float
    rating: float
    refund: float


class LowRating(_Section):
    """Ratings under `below` (scaled 0..1) get `weight` instead."""

    below: float = Field(ge=0, le=1)
    weight: float = Field(le=0)


class DataBounds(_Section):
    """Which interactions are read, and how few are too few."""

    train_window_days: int = Field(ge=1)
    max_interactions: int = Field(ge=1)
    min_users: int = Field(ge=1)
    min_items: int = Field(ge=1)
    min_interactions: int = Field(ge=1)


class PopularitySettings(_Section):
    """Decay of the popularity baseline."""

    half_life_days: float = Field(gt=0)


class LightFMSettings(_Section):
    """Hyper-parameters of the LightFM WARP hybrid."""

    components: int = Field(ge=1, le=1024)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    max_sampled: int = Field(ge=1)
    l2: float = Field(ge=0)
    seed: int = Field(ge=0)


class SplitSettings(_Section):
    """Where the test begins."""

    test_days: float = Field(gt=0)
    min_test_users: int = Field(ge=1)
    test_fraction: float = Field(gt=0, lt=1)


class EvaluationSettings(_Section):
    """Cut-offs and the bootstrap."""

    cutoffs: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    bootstrap_samples: int = Field(ge=100)
    confidence: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)


class Gate(_Section):
    """When LightFM serves."""

    metric: MetricName
    cutoff: int = Field(ge=1)
    tolerance: float = Field(ge=0)


class Lists(_Section):
    """Shape of the published lists."""

    length: int = Field(ge=1, le=1000)


class RecommendationConfig(_Section):
    """The whole contract."""

    signals: Signals
    low_rating: LowRating
    weight_cap: float = Field(gt=0)
    exclude_seen: list[EventName]
    data: DataBounds
    item_features: list[Literal["category", "brand", "provider"]]
    feature_separator: str = Field(min_length=1)
    popularity: PopularitySettings
    lightfm: LightFMSettings
    split: SplitSettings
    evaluation: EvaluationSettings
    gate: Gate
    lists: Lists

    @model_validator(mode="after")
    def _gate_is_measured(self) -> RecommendationConfig:
        if self.gate.cutoff not in self.evaluation.cutoffs:
            raise ValueError(f"gate.cutoff {self.gate.cutoff} is not one of evaluation.cutoffs")
        return self


def load_config(source: Path | Sequence[Path] | None = None) -> RecommendationConfig:
    """Read the contract.

    Parameters
    ----------
    source : a file; or contract folders, the last one that holds recommendation.yaml wins (pass
        `settings.contract_dirs`); None for the packaged contract.

    Raises
    ------
    InputError : naming file, line and key.
    """
    if isinstance(source, Path):
        return parse_contract(RecommendationConfig, source)
    return parse_contract(RecommendationConfig, overlay_files(source or (PACKAGED,), FILE)[FILE])
