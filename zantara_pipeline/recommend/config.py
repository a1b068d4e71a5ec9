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
EventName = Literal["product_view", "recommendation_clicked", "item_tag", "add_to_cart", "purchase", "rating", "refund"]
MetricName = Literal["ndcg", "mrr", "recall", "map"]
GeneratorName = Literal["lightfm", "sequence", "item_knn", "ease", "als", "item2vec", "content"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Signals(_Section):
    """Weight of one event of each kind (unitless)."""

    product_view: float
    recommendation_clicked: float
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
    """Half-life of the popularity that serves whoever has no history, and of the others that the ranker sees."""

    half_life_days: float = Field(gt=0)
    other_half_lives_days: list[Annotated[float, Field(gt=0)]]


class SequenceSettings(_Section):
    """Item-to-item rules in order of time."""

    window: int = Field(ge=1, le=100)
    decay: float = Field(gt=0, le=1)
    half_life_days: float = Field(gt=0)
    popularity_damping: float = Field(ge=0, le=1)
    neighbours: int = Field(ge=1)


class ItemKNNSettings(_Section):
    """Cosine neighbours."""

    neighbours: int = Field(ge=1)
    shrink: float = Field(ge=0)
    history: int = Field(ge=1, le=5000)


class EASESettings(_Section):
    """The linear autoencoder."""

    l2: float = Field(gt=0)
    max_items: int = Field(ge=1, le=20_000)
    history: int = Field(ge=1, le=5000)


class ALSSettings(_Section):
    """Implicit matrix factorisation."""

    factors: int = Field(ge=1, le=1024)
    l2: float = Field(gt=0)
    alpha: float = Field(gt=0)
    iterations: int = Field(ge=1)
    weight_cap: float = Field(gt=0)
    seed: int = Field(ge=0)


class Item2VecSettings(_Section):
    """Vectors of items that are touched near each other."""

    factors: int = Field(ge=1, le=1024)
    window: int = Field(ge=1, le=100)
    shift: float = Field(ge=1)
    history: int = Field(ge=1)
    seed: int = Field(ge=0)


class ContentSettings(_Section):
    """Cosine of attributes."""

    history: int = Field(ge=1)


class LightFMSettings(_Section):
    """Hyper-parameters of the LightFM WARP hybrid."""

    components: int = Field(ge=1, le=1024)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    max_sampled: int = Field(ge=1)
    l2: float = Field(ge=0)
    fold_in_history: int = Field(ge=1)
    seed: int = Field(ge=0)


class BlockedRule(_Section):
    """Products that are not shown, whatever their score."""

    rule: Literal["blocked"]
    products: list[str] = []
    attributes: list[str] = []


class CapRule(_Section):
    """At most `most` products of one value of an attribute within the first `within` places."""

    rule: Literal["cap"]
    attribute: Literal["category", "brand", "provider"]
    most: int = Field(ge=1)
    within: int = Field(ge=1)


class DiversityRule(_Section):
    """Maximal marginal relevance over attributes: 0 leaves the order, 1 looks at likeness alone."""

    rule: Literal["diversity"]
    weight: float = Field(ge=0, le=1)


class ExploreRule(_Section):
    """Places (from 1) that show a product drawn from what would not be shown."""

    rule: Literal["explore"]
    slots: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    seed: int = Field(ge=0)


Rule = Annotated[BlockedRule | CapRule | DiversityRule | ExploreRule, Field(discriminator="rule")]


class Reranking(_Section):
    """Rules over the ranked products, in this order."""

    version: int = Field(ge=1)
    pool: int = Field(ge=1, le=1000)
    rules: list[Rule]

    @model_validator(mode="after")
    def _exploration_comes_last(self) -> Reranking:
        places = [place for place, rule in enumerate(self.rules) if rule.rule == "explore"]
        if places and places != [len(self.rules) - 1]:
            raise ValueError("explore must be the last rule, once: a later one would change how probable a product was")
        return self


class SplitSettings(_Section):
    """Where the cuts lie: `tests` of them are measured, each with `rankers` earlier ones to train its ranker on."""

    test_days: float = Field(gt=0)
    min_test_users: int = Field(ge=1)
    test_fraction: float = Field(gt=0, le=0.5)
    tests: int = Field(ge=1, le=10)
    rankers: int = Field(ge=1, le=10)


class BoostingSettings(_Section):
    """LightGBM lambdarank."""

    trees: int = Field(ge=1)
    leaves: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    min_rows_in_leaf: int = Field(ge=1)


class LadderSettings(_Section):
    """How many liked items the higher rungs need: the choices that validation has, and what holds without one."""

    tried: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    default: int = Field(ge=1)


class RankingSettings(_Section):
    """Candidates of all generators, and the model over them."""

    generators: list[GeneratorName] = Field(min_length=1)
    candidates_per_generator: int = Field(ge=1, le=1000)
    max_users_per_step: int = Field(ge=1)
    min_positives: int = Field(ge=1)
    negatives_per_list: int = Field(ge=1)
    ladder: LadderSettings
    boosting: BoostingSettings
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _lightfm_is_central(self) -> RankingSettings:
        if "lightfm" not in self.generators:
            raise ValueError("generators must name lightfm: people with few events are folded into its vectors")
        if len(set(self.generators)) < len(self.generators):
            raise ValueError("generators names one twice")
        return self


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
    kept_share: float = Field(gt=0, le=1)
    first: str = Field(min_length=1)


class Lists(_Section):
    """Shape of the published lists."""

    length: int = Field(ge=1, le=1000)


class RecommendationConfig(_Section):
    """The whole contract."""

    signals: Signals
    low_rating: LowRating
    weight_cap: float = Field(gt=0)
    weight_half_life_days: float = Field(gt=0)
    exclude_seen: list[EventName]
    data: DataBounds
    item_features: list[Literal["category", "brand", "provider"]]
    feature_separator: str = Field(min_length=1)
    popularity: PopularitySettings
    lightfm: LightFMSettings
    sequence: SequenceSettings
    item_knn: ItemKNNSettings
    ease: EASESettings
    als: ALSSettings
    item2vec: Item2VecSettings
    content: ContentSettings
    ranking: RankingSettings
    reranking: Reranking
    split: SplitSettings
    evaluation: EvaluationSettings
    gate: Gate
    lists: Lists

    @model_validator(mode="after")
    def _gate_is_measured(self) -> RecommendationConfig:
        if self.reranking.pool > self.ranking.candidates_per_generator:
            # Standardised scores and ranks are of a user's candidates: serving more than the ranker learned from would
            # move all of them.
            raise ValueError("reranking.pool is larger than ranking.candidates_per_generator")
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
