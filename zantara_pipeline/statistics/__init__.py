"""Pure statistics: numbers in, numbers out.

Belongs here: moments, estimates, effects, tests, tail probabilities. Does not belong here: SQL, contracts, verdicts,
files; nothing in this package knows what an experiment is.
"""

from __future__ import annotations

from zantara_pipeline.statistics.chi_square import ChiSquare, chi_square
from zantara_pipeline.statistics.cuped import CupedFit, adjusted_estimate, fit_cuped
from zantara_pipeline.statistics.effects import Effect, always_valid_effect, welch_effect
from zantara_pipeline.statistics.estimates import Estimate, mean_estimate, quantile_estimate, ratio_estimate
from zantara_pipeline.statistics.moments import Moments
from zantara_pipeline.statistics.tails import format_p, log_p_chi_square, log_p_t

__all__ = [
    "ChiSquare",
    "CupedFit",
    "Effect",
    "Estimate",
    "Moments",
    "adjusted_estimate",
    "always_valid_effect",
    "chi_square",
    "fit_cuped",
    "format_p",
    "log_p_chi_square",
    "log_p_t",
    "mean_estimate",
    "quantile_estimate",
    "ratio_estimate",
    "welch_effect",
]
