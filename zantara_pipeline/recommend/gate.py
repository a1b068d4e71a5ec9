"""Whether the stack serves at all, or popularity serves everybody.

Belongs here: the rule. Does not belong here: measuring, or which of two versions serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zantara_pipeline.recommend.config import Gate
from zantara_pipeline.recommend.evaluation import Evaluation


@dataclass(frozen=True)
class Choice:
    """Which model serves users with history, and why, in one sentence."""

    served_model: Literal["stack", "popularity"]
    reason: str


def choose(evaluation: Evaluation, gate: Gate) -> Choice:
    """Non-inferiority on users with history, all cuts together: lower bound of the paired difference above -tolerance."""
    if not evaluation.results:
        return Choice("popularity", f"popularity serves everybody: {evaluation.note}")
    row = evaluation.row("stack", "warm", f"{gate.metric}_diff", gate.cutoff)
    if row is None or row.value is None or row.ci_low is None:
        return Choice("popularity", "popularity serves everybody: no test user has history before the cut")
    what = (
        f"{gate.metric}@{gate.cutoff} of the stack minus popularity is {row.value:+.4f} "
        f"(interval from {row.ci_low:+.4f}, {row.users} users with history, {len(evaluation.results)} cuts, "
        f"tolerance {gate.tolerance})"
    )
    if row.ci_low > -gate.tolerance:
        return Choice("stack", f"the stack serves users with history: {what}")
    return Choice("popularity", f"popularity serves everybody: {what}")
