"""Recommendations: consented interactions to ranked lists, with an honest offline comparison.

Belongs here: interactions, splits, generators, top-k lists, metrics, the gate, the bundle. Does not belong here:
MLflow calls (registry/; only bundle.py, which MLflow itself runs, imports it), dagster, consent (features.interactions
holds consented rows only).
"""

from __future__ import annotations

from zantara_pipeline.recommend.artifacts import Bundle
from zantara_pipeline.recommend.config import RecommendationConfig, load_config
from zantara_pipeline.recommend.decisions import decisions
from zantara_pipeline.recommend.explain import Explanation, explain
from zantara_pipeline.recommend.files import evaluate_files, fit_file, top_lists
from zantara_pipeline.recommend.publish import (
    RecommendResult,
    published_list,
    write_offline_metrics,
    write_recommendations,
)
from zantara_pipeline.recommend.retention import expire_models, models_over
from zantara_pipeline.recommend.retraining import KINDS as RETRAINING_KINDS
from zantara_pipeline.recommend.retraining import retraining_findings
from zantara_pipeline.recommend.tables import PERSONAL_TABLES
from zantara_pipeline.recommend.training import CHAMPION, MODEL_NAME, TrainResult, load_champion, train_and_evaluate
from zantara_pipeline.recommend.versions import (
    compare_versions,
    history,
    promote,
    reproduce,
    require_shipped,
    roll_back,
)

__all__ = [
    "CHAMPION",
    "MODEL_NAME",
    "PERSONAL_TABLES",
    "RETRAINING_KINDS",
    "Bundle",
    "Explanation",
    "RecommendResult",
    "RecommendationConfig",
    "TrainResult",
    "compare_versions",
    "decisions",
    "evaluate_files",
    "expire_models",
    "explain",
    "fit_file",
    "history",
    "load_champion",
    "load_config",
    "models_over",
    "promote",
    "published_list",
    "reproduce",
    "require_shipped",
    "retraining_findings",
    "roll_back",
    "top_lists",
    "train_and_evaluate",
    "write_offline_metrics",
    "write_recommendations",
]
