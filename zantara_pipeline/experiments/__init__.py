"""Experiments: from a YAML registration and logged exposures to a verdict.

Belongs here: the registry of experiments and metrics, unit-level SQL, the scorecard and its verdicts. Does not belong
here: formulas (`statistics`), delivering alerts (`alerts`), Dagster (`orchestration`).
"""

from __future__ import annotations

from zantara_pipeline.experiments.moments import MomentsResult, build_moments
from zantara_pipeline.experiments.registry import PACKAGED_EXPERIMENTS, ExperimentRegistry, load_experiments
from zantara_pipeline.experiments.scorecard import ScorecardResult, ScorecardRow, build_scorecard

__all__ = [
    "PACKAGED_EXPERIMENTS",
    "ExperimentRegistry",
    "MomentsResult",
    "ScorecardResult",
    "ScorecardRow",
    "build_moments",
    "build_scorecard",
    "load_experiments",
]
