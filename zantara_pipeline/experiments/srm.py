"""Sample ratio mismatch of one experiment.

Belongs here: which counts are compared with which weights, and when there are enough. Does not belong here: the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zantara_pipeline.experiments.registry import Experiment
from zantara_pipeline.statistics import ChiSquare, chi_square

# Cochran's rule: below 5 expected units in a cell the chi-square approximation is not trusted.
MIN_EXPECTED = 5


@dataclass(frozen=True)
class SampleRatio:
    """Eligible units per declared variant, the test (None with too few units), and whether the split is broken."""

    counts: Mapping[str, int]
    test: ChiSquare | None
    mismatch: bool


def check_sample_ratio(experiment: Experiment, counts: Mapping[str, int]) -> SampleRatio:
    """Chi-square of eligible units against the declared weights, at the experiment's srm_alpha."""
    complete = {variant: counts.get(variant, 0) for variant in experiment.variants}
    total = sum(complete.values())
    if total * min(experiment.variants.values()) < MIN_EXPECTED:
        return SampleRatio(complete, None, False)
    test = chi_square(list(complete.values()), list(experiment.variants.values()))
    return SampleRatio(complete, test, test.p_value < experiment.srm_alpha)
