"""The registry: every declared experiment with its rules, metrics and dates, checked and resolved.

Belongs here: reading the YAML files, overlays, references between files, the hash of a configuration. Does not belong
here: the meaning of single keys (`contract`), anything that needs data.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zantara_pipeline.contracts_io import PACKAGED, LineOf, load_yaml, overlay_files, validate_contract
from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments.contract import (
    Defaults,
    DefaultsFile,
    ExperimentFile,
    GuardrailRule,
    Metric,
    Spillover,
)

PACKAGED_EXPERIMENTS = PACKAGED / "experiments"
DEFAULTS_FILE = "ab-test-guardrails.yaml"
METRICS_FILE = "metrics.yaml"


@dataclass(frozen=True)
class Experiment:
    """One experiment with defaults filled in. ``start`` is its first instant, ``end`` the first instant after it (UTC).

    ``variants`` maps each variant to its weight; ``salt`` None: units were assigned by something that is not known here; ``looks`` are days after the start on which effects are judged, the
    last of them the last day; ``minimum_effect`` is a size relative to control (0.05 is 5 %), to be found with ``power``; ``config_hash`` is the sha256 of all its settled keys and of its metrics' definitions.
    """

    name: str
    hypothesis: str
    owner: str
    unit: str
    salt: str | None
    variants: Mapping[str, float]
    control: str
    primary: str
    secondary: tuple[str, ...]
    guardrails: tuple[GuardrailRule, ...]
    start: dt.datetime
    end: dt.datetime
    looks: tuple[int, ...]
    spending: Literal["obrien_fleming", "pocock"]
    min_duration_days: int
    srm_alpha: float
    srm_floor: float
    horizon_units: int
    variance_reduction: str
    cuped_min_reduction: float
    pre_period_days: int
    config_hash: str
    minimum_effect: float | None = None
    power: float = 0.8
    spillover: Spillover | None = None
    rollback: str | None = None
    without_cuped_because: str | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics it reads, each once, primary first."""
        names = (self.primary, *self.secondary, *(rule.name for rule in self.guardrails))
        return tuple(dict.fromkeys(names))

    @property
    def weighed(self) -> dict[str, float]:
        """Variants that anybody is in, with their weights."""
        return {name: weight for name, weight in self.variants.items() if weight > 0}

    @property
    def treatments(self) -> tuple[str, ...]:
        """Variants compared with control, in the order of the file."""
        return tuple(name for name in self.weighed if name != self.control)

    def old_enough(self, as_of: dt.datetime) -> bool:
        """True once ``min_duration_days`` whole days have passed since the start."""
        return as_of >= self.start + dt.timedelta(days=self.min_duration_days)


@dataclass(frozen=True)
class ExperimentRegistry:
    """All experiments and metrics by name, and the defaults."""

    experiments: Mapping[str, Experiment]
    metrics: Mapping[str, Metric]
    defaults: Defaults

    def metrics_in_use(self) -> dict[str, tuple[str, ...]]:
        """Metric -> names of the experiments that read it, both sorted."""
        used: dict[str, list[str]] = {}
        for name, experiment in sorted(self.experiments.items()):
            for metric in experiment.metrics:
                used.setdefault(metric, []).append(name)
        return {metric: tuple(names) for metric, names in sorted(used.items())}


def load_experiments(dirs: Sequence[Path] = (PACKAGED_EXPERIMENTS,)) -> ExperimentRegistry:
    """Read experiment folders; a file in a later folder replaces the file of the same name in an earlier one.

    Raises
    ------
    InputError : anything unknown, missing, contradictory or unused, with file, line and key.
    """
    _refuse_unread_files(dirs)
    files = overlay_files(dirs, "*.yaml")
    for needed in (DEFAULTS_FILE, METRICS_FILE):
        if needed not in files:
            raise InputError(f"the file {needed} is missing", ", ".join(map(str, dirs)), "add it or restore it")
    defaults_path, metrics_path = files.pop(DEFAULTS_FILE), files.pop(METRICS_FILE)
    metrics = _read_metrics(metrics_path)
    defaults = _read_defaults(defaults_path, metrics)
    experiments: dict[str, Experiment] = {}
    for filename, path in files.items():
        experiment = _read_experiment(path, Path(filename).stem, defaults, metrics)
        _refuse_shared_salt(experiment, experiments, path)
        experiments[experiment.name] = experiment
    return ExperimentRegistry(experiments, metrics, defaults)


def _refuse_shared_salt(new: Experiment, known: Mapping[str, Experiment], path: Path) -> None:
    """Units of two experiments with one salt and one split are all in the same arms: each effect would be both."""
    for other in known.values():
        if new.salt is not None and other.salt == new.salt:
            _, line_of = load_yaml(path)
            what = f"key 'salt': '{new.salt}' is the salt of {other.name}, too: both would treat the same units"
            raise InputError(what, f"{path}:{line_of('salt')}", f"write a salt of its own, such as {new.name}:v1")


def _refuse_unread_files(dirs: Sequence[Path]) -> None:
    for folder in dirs:
        for path in sorted(folder.glob("*.yml")):
            raise InputError("nothing reads this file", path, "name it .yaml")


def _read_mapping(path: Path) -> tuple[dict[str, object], LineOf]:
    data, line_of = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError("the file holds no mapping of keys", path, "see the packaged contracts for an example")
    return data, line_of


def _read_metrics(path: Path) -> dict[str, Metric]:
    data, line_of = _read_mapping(path)
    for key in data:
        if key != "metrics":
            raise InputError(f"key '{key}': unknown key", f"{path}:{line_of(key)}", "did you mean 'metrics'?")
    named = data.get("metrics")
    if not isinstance(named, dict) or not named:
        raise InputError("key 'metrics': must map names to metrics", f"{path}:{line_of('metrics')}")
    return {
        str(name): validate_contract(Metric, body, path, _below(line_of, "metrics", name))
        for name, body in named.items()
    }


def _below(line_of: LineOf, *prefix: object) -> LineOf:
    return lambda *keys: line_of(*prefix, *keys)


def _read_defaults(path: Path, metrics: Mapping[str, Metric]) -> Defaults:
    data, line_of = _read_mapping(path)
    defaults = validate_contract(DefaultsFile, data, path, line_of).experiment_defaults
    _check_guardrails(defaults.guardrails, metrics, path, _below(line_of, "experiment_defaults", "guardrails"))
    return defaults


def _read_experiment(path: Path, stem: str, defaults: Defaults, metrics: Mapping[str, Metric]) -> Experiment:
    data, line_of = _read_mapping(path)
    parsed = validate_contract(ExperimentFile, data, path, line_of)
    if parsed.experiment != stem:
        where = f"{path}:{line_of('experiment')}"
        raise InputError(f"key 'experiment': '{parsed.experiment}' is not the file's name", where, f"write '{stem}'")
    if parsed.control not in {variant.name for variant in parsed.variants}:
        where = f"{path}:{line_of('control')}"
        raise InputError(f"key 'control': '{parsed.control}' is no variant", where, "name one of the variants")
    if not next(variant.weight for variant in parsed.variants if variant.name == parsed.control):
        where = f"{path}:{line_of('control')}"
        raise InputError(f"key 'control': '{parsed.control}' has no weight", where, "name one that somebody is in")
    _check_metric_names(parsed, metrics, path, line_of)
    if parsed.guardrails is not None:
        _check_guardrails(parsed.guardrails, metrics, path, _below(line_of, "guardrails"))
    experiment = _resolve(parsed, defaults, metrics)
    days = (experiment.end - experiment.start).days
    if days < experiment.min_duration_days:
        raise InputError(
            f"key 'end': {max(days, 0)} days from start to end are fewer than min_duration_days "
            f"({experiment.min_duration_days})",
            f"{path}:{line_of('end')}",
            "move the end or lower min_duration_days",
        )
    _check_looks(experiment, days, f"{path}:{line_of('looks')}")
    return experiment


def _check_looks(experiment: Experiment, days: int, where: str) -> None:
    looks = experiment.looks
    if list(looks) != sorted(set(looks)):
        raise InputError("key 'looks': days must rise, each once", where, "write them in order")
    if looks[0] < experiment.min_duration_days:
        what = f"key 'looks': day {looks[0]} is before min_duration_days ({experiment.min_duration_days})"
        raise InputError(what, where, "begin later, or lower min_duration_days")
    if looks[-1] != days:
        raise InputError(f"key 'looks': the last one is the last day, {days}", where, f"end the list with {days}")


def _check_metric_names(parsed: ExperimentFile, metrics: Mapping[str, Metric], path: Path, line_of: LineOf) -> None:
    named = [(("primary",), parsed.primary), *((("secondary", i), name) for i, name in enumerate(parsed.secondary))]
    seen: set[str] = set()
    for keys, name in named:
        where, key = f"{path}:{line_of(*keys)}", keys[0]
        if name not in metrics:
            raise InputError(f"key '{key}': unknown metric '{name}'", where, f"use one of {METRICS_FILE} or add it")
        if name in seen:
            raise InputError(f"key '{key}': metric '{name}' stands twice", where, "remove one")
        seen.add(name)


def _check_guardrails(
    rules: Sequence[GuardrailRule], metrics: Mapping[str, Metric], path: Path, line_of: LineOf
) -> None:
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        where = f"{path}:{line_of(index, 'name')}"
        if rule.name not in metrics:
            raise InputError(
                f"key 'guardrails.{index}.name': unknown metric '{rule.name}'", where, f"add it to {METRICS_FILE}"
            )
        if rule.name in seen:
            raise InputError(f"key 'guardrails.{index}.name': '{rule.name}' stands twice", where, "remove one")
        if rule.direction != metrics[rule.name].direction:
            raise InputError(
                f"key 'guardrails.{index}.direction': {METRICS_FILE} says {metrics[rule.name].direction} for "
                f"'{rule.name}'",
                f"{path}:{line_of(index, 'direction')}",
                "make the two agree",
            )
        seen.add(rule.name)


def _resolve(parsed: ExperimentFile, defaults: Defaults, metrics: Mapping[str, Metric]) -> Experiment:
    own = parsed.model_dump(mode="json", exclude_none=True)
    settled = {**defaults.model_dump(mode="json"), **own}
    guardrails = tuple(defaults.guardrails if parsed.guardrails is None else parsed.guardrails)
    names = [parsed.primary, *parsed.secondary, *(rule.name for rule in guardrails)]
    used = {name: metrics[name].model_dump(mode="json") for name in names}
    return Experiment(
        name=parsed.experiment,
        hypothesis=parsed.hypothesis,
        owner=parsed.owner,
        unit=parsed.unit,
        salt=parsed.salt,
        variants={variant.name: variant.weight for variant in parsed.variants},
        control=parsed.control,
        primary=parsed.primary,
        secondary=tuple(parsed.secondary),
        guardrails=guardrails,
        start=_midnight(parsed.start),
        end=_midnight(parsed.end) + dt.timedelta(days=1),
        looks=tuple(parsed.looks or [(parsed.end - parsed.start).days + 1]),
        spending=parsed.spending,
        min_duration_days=settled["min_duration_days"],
        srm_alpha=settled["srm_alpha"],
        srm_floor=settled["srm_floor"],
        horizon_units=settled["horizon_units"],
        variance_reduction=settled["variance_reduction"],
        cuped_min_reduction=settled["cuped_min_reduction"],
        pre_period_days=settled["pre_period_days"],
        minimum_effect=abs(float(parsed.minimum_effect[:-1])) / 100 if parsed.minimum_effect else None,
        power=parsed.power,
        spillover=parsed.spillover,
        rollback=parsed.rollback,
        without_cuped_because=parsed.without_cuped_because,
        config_hash=_sha256({"experiment": settled, "metrics": used}),
    )


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
