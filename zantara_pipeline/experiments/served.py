"""experiments.json: what applications read to assign units, so that a stop reaches serving.

It holds texts, whole numbers and truths only, and the sha256 of itself (keys sorted, no blanks, UTF-8), which every language
computes alike. Experiments without a salt are not in it: nobody knows how their units are assigned.

Belongs here: that document. Does not belong here: reading it (assigners/).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zantara_pipeline.experiments.assignment import bounds
from zantara_pipeline.experiments.registry import Experiment, ExperimentRegistry
from zantara_pipeline.experiments.stops import Stop

FORMAT = 1


def served(registry: ExperimentRegistry, stops: Mapping[str, Stop], as_of: dt.datetime) -> dict[str, Any]:
    """The document, as of a clock."""
    experiments = [
        _experiment(experiment, stops.get(name), as_of)
        for name, experiment in sorted(registry.experiments.items())
        if experiment.salt is not None
    ]
    whole = {"format": FORMAT, "as_of": _text(as_of), "experiments": experiments}
    return whole | {"sha256": hashlib.sha256(_canonical(whole).encode()).hexdigest()}


def write_served(path: Path, document: Mapping[str, Any]) -> None:
    """Beside, then renamed: an application never reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    with beside.open("w", encoding="utf-8") as handle:
        json.dump(document, handle, indent=1, ensure_ascii=False)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(path)


def _experiment(experiment: Experiment, stop: Stop | None, as_of: dt.datetime) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "unit": experiment.unit,
        "salt": experiment.salt,
        "control": experiment.control,
        "variants": [{"name": name, "below": below} for name, below in bounds(experiment.variants).items()],
        "start": _text(experiment.start),
        "end": _text(experiment.end),
        "status": _status(experiment, stop, as_of),
        "stopped": stop is not None,
        "stopped_because": stop.reason if stop else None,
        "config_hash": experiment.config_hash,
    }


def _status(experiment: Experiment, stop: Stop | None, as_of: dt.datetime) -> str:
    if stop is not None:
        return "stopped"
    return "planned" if as_of < experiment.start else "ended" if as_of >= experiment.end else "running"


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
