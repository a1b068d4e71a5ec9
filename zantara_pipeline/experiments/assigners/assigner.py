"""Assigns units of experiments as experiments.json says; standard library only.

    assigner = Assigner(Path("experiments.json").read_text())
    assignment = assigner.assign("checkout_redesign", user_id)
    if assignment.variant == "treatment": ...
    if assignment.expose: client.track("experiment_exposed", {...})

Whatever is wrong ends with control: an experiment that is unknown, not running or stopped is never shown.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

CONTROL = "control"


class BrokenFile(ValueError):
    """experiments.json is not what was written: keep the one you have."""


@dataclass(frozen=True)
class Assignment:
    """What to show, and whether that is an exposure to log. reason: running, unknown, before_start, after_end, stopped."""

    variant: str
    expose: bool
    reason: str


class Assigner:
    """Reads experiments.json once.

    Raises
    ------
    BrokenFile : it is torn, was changed, or is of a later format.
    """

    def __init__(self, text: str) -> None:
        try:
            whole = json.loads(text)
            wanted, format, found = whole.pop("sha256"), whole["format"], whole["experiments"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BrokenFile("experiments.json is no JSON of that kind") from None
        canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if hashlib.sha256(canonical.encode()).hexdigest() != wanted:
            raise BrokenFile("experiments.json was changed after it was written")
        if format != 1:
            raise BrokenFile("experiments.json is of a later format")
        self._experiments: dict[str, Any] = {one["experiment"]: one for one in found}

    def assign(self, experiment: str, unit: str, now: datetime | None = None) -> Assignment:
        """The variant of a unit at a time (now, if none is given); the same whenever it is asked."""
        found = self._experiments.get(experiment)
        if found is None:
            return Assignment(CONTROL, False, "unknown")
        reason = _why_not(found, now or datetime.now(UTC))
        if reason is not None:
            return Assignment(found["control"], False, reason)
        where = place(found["salt"], unit)
        variant = next(one["name"] for one in found["variants"] if where < one["below"])
        return Assignment(variant, True, "running")


def place(salt: str, unit: str) -> int:
    """The first 52 bits of SHA-256 of "salt:unit"; a half of a surrogate pair counts as U+FFFD, as it does in browsers."""
    text = f"{salt}:{unit}".encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16)


def _why_not(experiment: dict[str, Any], now: datetime) -> str | None:
    if experiment["stopped"]:
        return "stopped"
    if now < datetime.fromisoformat(experiment["start"]):
        return "before_start"
    return "after_end" if now >= datetime.fromisoformat(experiment["end"]) else None
