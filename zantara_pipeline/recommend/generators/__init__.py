"""Generators of candidates, one module each (item vectors share one); base.py says what they have in common.

Belongs here: which there are, made from the contract. Does not belong here: any model.
"""

from __future__ import annotations

from collections.abc import Callable

from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.generators.base import Generator
from zantara_pipeline.recommend.generators.ease import EASE
from zantara_pipeline.recommend.generators.item_knn import ItemKNN
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.generators.popularity import Popularity
from zantara_pipeline.recommend.generators.sequence import Sequence
from zantara_pipeline.recommend.generators.vectors import ALS, Content, Item2Vec

_MAKERS: dict[str, Callable[[RecommendationConfig], Generator]] = {
    "lightfm": lambda config: LightFMWarp(config.lightfm, config.weight_cap, config.weight_half_life_days),
    "sequence": lambda config: Sequence(config.sequence),
    "item_knn": lambda config: ItemKNN(config.item_knn),
    "ease": lambda config: EASE(config.ease),
    "als": lambda config: ALS(config.als),
    "item2vec": lambda config: Item2Vec(config.item2vec),
    "content": lambda config: Content(config.content),
}

__all__ = ["Generator", "Popularity", "make_generators", "make_popularities"]


def make_generators(config: RecommendationConfig) -> dict[str, Generator]:
    """The generators that the contract names, not fitted yet, in its order."""
    return {name: _MAKERS[name](config) for name in config.ranking.generators}


def make_popularities(config: RecommendationConfig) -> dict[str, Popularity]:
    """Popularity by half-life: `popularity` serves, the others are seen by the ranker; `popularity_alltime` never fades."""
    settings = config.popularity
    others = {f"popularity_{days:g}d": days for days in settings.other_half_lives_days}
    lives: dict[str, float | None] = {"popularity": settings.half_life_days, **others, "popularity_alltime": None}
    return {name: Popularity(days, name) for name, days in lives.items()}
