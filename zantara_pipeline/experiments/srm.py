"""Sample ratio mismatch of one experiment, and where it sits.

The split is looked at in every run. So that an experiment whose split is sound is called broken in at most ``srm_alpha`` of all
cases, however many days it runs, each of its days spends an even part of that (Bonferroni, which holds for any number of arms
and however much one day's counts resemble the next one's). In a very large experiment a distance is significant that harms
nothing: ``srm_floor`` is the smallest one of a share from its weight that is called broken.

Belongs here: which counts are compared with which weights, when there are enough, and the segment that a mismatch is in. Does
not belong here: the test, and how units are counted (`units`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from zantara_pipeline.experiments.registry import Experiment
from zantara_pipeline.statistics import ChiSquare, chi_square
from zantara_pipeline.statistics.multiple import holm

# Cochran's rule: below 5 expected units in a cell the chi-square approximation is not trusted.
MIN_EXPECTED = 5

Segment = tuple[str, str]
"""A dimension and its value, like ("platform", "android")."""


@dataclass(frozen=True)
class SampleRatio:
    """Eligible units per variant with a weight, the test (None with too few units), and whether the split is broken.

    below : what the p-value of one day has to be below.
    """

    counts: Mapping[str, int]
    test: ChiSquare | None
    below: float
    mismatch: bool


@dataclass(frozen=True)
class MismatchAt:
    """The segment that a mismatch sits in: its units, its own test, and the test of all units outside of it.

    shares : variant -> its share of the segment's units.
    """

    segment: Segment
    units: int
    shares: Mapping[str, float]
    log_p: float
    rest_p: float


def check_sample_ratio(experiment: Experiment, counts: Mapping[str, int]) -> SampleRatio:
    """Chi-square of eligible units against the declared weights, at a day's part of the experiment's srm_alpha."""
    complete = {variant: counts.get(variant, 0) for variant in experiment.weighed}
    test, below, total = _test(experiment, complete), daily_alpha(experiment), sum(complete.values())
    distance = max(abs(count / max(total, 1) - experiment.weighed[variant]) for variant, count in complete.items())
    broken = test is not None and test.p_value < below and distance >= experiment.srm_floor
    return SampleRatio(complete, test, below, broken)


def daily_alpha(experiment: Experiment) -> float:
    """What one day of the experiment spends of its srm_alpha."""
    return experiment.srm_alpha / (experiment.end - experiment.start).days


def locate_mismatch(experiment: Experiment, segments: Mapping[Segment, Mapping[str, int]]) -> MismatchAt | None:
    """The segment without which the split is as declared; None where no single one is enough.

    segments : units by variant of every value of every dimension (platform, app_version, country, day of first exposure).

    A segment comes into question when its own split is broken, corrected for how many were asked (Holm), and that of all
    others is not. Of several the one with the smallest p-value is named: they overlap.
    """
    tests = {segment: _test(experiment, counts) for segment, counts in segments.items()}
    asked = [(segment, test.log_p) for segment, test in tests.items() if test is not None]
    adjusted = holm([log_p for _, log_p in asked])
    broken = [
        (log_p, segment)
        for (segment, log_p), corrected in zip(asked, adjusted, strict=True)
        if corrected < math.log(experiment.srm_alpha)
    ]
    for log_p, segment in sorted(broken):
        rest = _test(experiment, _others(segment, segments))
        if rest is not None and rest.p_value >= experiment.srm_alpha:
            counts = segments[segment]
            units = sum(counts.get(variant, 0) for variant in experiment.weighed)
            shares = {variant: counts.get(variant, 0) / units for variant in experiment.weighed}
            return MismatchAt(segment, units, shares, log_p, rest.p_value)
    return None


def _others(segment: Segment, segments: Mapping[Segment, Mapping[str, int]]) -> dict[str, int]:
    """Units by variant of the other values of the segment's dimension: every unit has one value of each."""
    found: dict[str, int] = {}
    for (dimension, value), counts in segments.items():
        if dimension == segment[0] and value != segment[1]:
            for variant, count in counts.items():
                found[variant] = found.get(variant, 0) + count
    return found


def _test(experiment: Experiment, counts: Mapping[str, int]) -> ChiSquare | None:
    """Against the weights; None below Cochran's five expected units."""
    weights = experiment.weighed
    found = [counts.get(variant, 0) for variant in weights]
    if sum(found) * min(weights.values()) < MIN_EXPECTED:
        return None
    return chi_square(found, list(weights.values()))
