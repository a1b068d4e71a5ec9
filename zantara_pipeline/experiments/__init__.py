"""Experiments: from a YAML registration and logged exposures to a verdict.

Belongs here: the registry of experiments and metrics, unit-level SQL, the scorecard and its verdicts. Does not belong
here: formulas (`statistics`), delivering alerts (`alerts`), Dagster (`orchestration`).
"""

from __future__ import annotations

from zantara_pipeline.experiments.decisions import Decision, decide_all
from zantara_pipeline.experiments.looks import read_looks
from zantara_pipeline.experiments.moments import MomentsResult, build_moments
from zantara_pipeline.experiments.registry import PACKAGED_EXPERIMENTS, ExperimentRegistry, load_experiments
from zantara_pipeline.experiments.scorecard import ScorecardResult, ScorecardRow, build_scorecard, read_scorecard
from zantara_pipeline.experiments.served import served, write_served
from zantara_pipeline.experiments.stops import open_stops

__all__ = [
    "PACKAGED_EXPERIMENTS",
    "Decision",
    "ExperimentRegistry",
    "MomentsResult",
    "ScorecardResult",
    "ScorecardRow",
    "build_moments",
    "build_scorecard",
    "decide_all",
    "load_experiments",
    "open_stops",
    "read_looks",
    "read_scorecard",
    "served",
    "write_served",
]
