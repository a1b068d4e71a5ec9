"""The checklist of an experiment: what has to be settled before anybody may look at its effects.

Belongs here: its points, each with what is there or what to do. Does not belong here: what makes a file unreadable
(contract.py), anything that needs data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from zantara_pipeline.experiments.registry import Experiment

EXPOSURE = "experiment_exposed"
CARRIED = frozenset(("experiment_id", "variant"))
DAYS_OF_A_WEEK = 7


@dataclass(frozen=True)
class Point:
    """One point of the list. said : what is there, or what to do."""

    name: str
    passed: bool
    said: str


def checklist(experiment: Experiment, required: Mapping[str, Set[str]]) -> tuple[Point, ...]:
    """All points of one experiment. required : event of the tracking plan -> properties that it always carries."""
    return tuple(_points(experiment, required))


def _points(experiment: Experiment, required: Mapping[str, Set[str]]) -> Iterator[Point]:
    yield Point(
        "stable key",
        experiment.salt is not None,
        f"{experiment.unit} with salt {experiment.salt}" if experiment.salt
        else "write a salt: without it nobody can tell whether units keep their variant",
    )  # fmt: skip
    logged = required.get(EXPOSURE, frozenset()) >= CARRIED
    yield Point(
        "logged exposure",
        logged,
        f"event {EXPOSURE}" if logged
        else f"the tracking plan has to declare {EXPOSURE} with {' and '.join(sorted(CARRIED))}, both required",
    )  # fmt: skip
    guards = ", ".join(rule.name for rule in experiment.guardrails)
    yield Point(
        "primary metric with guardrails",
        bool(guards),
        f"{experiment.primary}, guarded by {guards}" if guards else "name at least one guardrail",
    )
    yield Point("sample ratio check", True, f"chi-square, alpha {experiment.srm_alpha:g}")
    yield _cuped(experiment)
    weeks, rest = divmod(experiment.min_duration_days, DAYS_OF_A_WEEK)
    yield Point(
        "whole weeks",
        rest == 0,
        f"no effect is judged before {weeks} weeks" if rest == 0
        else f"min_duration_days is {experiment.min_duration_days}: weekdays differ, so write a multiple of {DAYS_OF_A_WEEK}",
    )  # fmt: skip
    yield Point(
        "spillover",
        experiment.spillover is not None,
        f"not possible: {experiment.spillover.because}" if experiment.spillover
        else "answer it: spillover: {possible: false, because: ...}",
    )  # fmt: skip


def _cuped(experiment: Experiment) -> Point:
    name, because = "CUPED or a reason", experiment.without_cuped_because
    if experiment.variance_reduction == "cuped":
        return Point(name, True, f"the {experiment.pre_period_days} days before the start")
    return Point(name, because is not None, f"none: {because}" if because else "write without_cuped_because")
