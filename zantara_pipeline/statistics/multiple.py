"""Several tests at once: p-values that are still honest.

Belongs here: adjusted p-values, as logarithms. Does not belong here: which metrics are a family (`experiments`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(log_p: Sequence[float]) -> list[float]:
    """Logs of adjusted p-values that keep the chance of any false finding (Holm, Scandinavian Journal of Statistics 1979).

    Step down: the k-th smallest of m times m - k + 1, never below the one before, at most 1. nan (no test) stays nan and
    counts for nothing.
    """
    order = _order(log_p)
    adjusted, before = [math.nan] * len(log_p), -math.inf
    for rank, place in enumerate(order):
        before = max(before, min(0.0, log_p[place] + math.log(len(order) - rank)))
        adjusted[place] = before
    return adjusted


def benjamini_hochberg(log_p: Sequence[float]) -> list[float]:
    """Logs of adjusted p-values that keep the share of false findings (Benjamini & Hochberg, JRSS B 1995).

    Step up: the k-th smallest of m times m / k, never above the one after, at most 1. nan stays nan and counts for nothing.
    """
    order = _order(log_p)
    adjusted, after = [math.nan] * len(log_p), 0.0
    for rank in range(len(order) - 1, -1, -1):
        after = min(after, log_p[order[rank]] + math.log(len(order) / (rank + 1)))
        adjusted[order[rank]] = after
    return adjusted


def _order(log_p: Sequence[float]) -> list[int]:
    return sorted((k for k, value in enumerate(log_p) if not math.isnan(value)), key=lambda k: log_p[k])
