"""Pearson's chi-square goodness of fit: do counts follow declared shares?

Belongs here: the test. Does not belong here: which units count, and what a mismatch means (`experiments.srm`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zantara_pipeline.statistics.tails import log_p_chi_square


@dataclass(frozen=True)
class ChiSquare:
    """Statistic, degrees of freedom (k - 1), p-value and its natural log."""

    statistic: float
    df: int
    p_value: float
    log_p: float


def chi_square(counts: Sequence[int], shares: Sequence[float]) -> ChiSquare:
    """Test counts of k groups against k shares (positive, summing to 1).

    Raises
    ------
    ValueError : fewer than two groups, unequal lengths, no units, a share that is not positive.
    """
    if len(counts) != len(shares) or len(counts) < 2:
        raise ValueError("chi-square needs two or more groups and one share for each")
    total = sum(counts)
    if total <= 0 or min(shares) <= 0:
        raise ValueError("chi-square needs units and positive shares")
    expected = [total * share for share in shares]
    statistic = math.fsum((count - want) ** 2 / want for count, want in zip(counts, expected, strict=True))
    log_p = log_p_chi_square(statistic, len(counts) - 1)
    return ChiSquare(statistic, len(counts) - 1, math.exp(log_p), log_p)
