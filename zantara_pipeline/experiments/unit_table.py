"""An experiment that lies in one table, a row a unit: analysed as its YAML says, with no warehouse.

Belongs here: the YAML of such an analysis, reading the table, which tests are one family. Does not belong here: formulas
(`statistics`), words of verdicts (`verdicts`), experiments of the pipeline (`registry`, `scorecard`).

Rows are added up in the engine; no table is loaded into Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field, model_validator

from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments.contract import Direction, GuardrailRule, Name, Share, Variant
from zantara_pipeline.experiments.srm import MIN_EXPECTED
from zantara_pipeline.experiments.verdicts import (
    BETTER,
    CONFIDENCE,
    INCONCLUSIVE,
    INVALID,
    NO_DATA,
    WORSE,
    guardrail_verdict,
)
from zantara_pipeline.statistics import (
    CupedFit,
    Effect,
    Estimate,
    Moments,
    adjusted_estimate,
    chi_square,
    fit_cuped,
    mean_estimate,
    ratio_estimate,
    welch_effect,
)
from zantara_pipeline.statistics.group_sequential import SPENDING, spending_bounds
from zantara_pipeline.statistics.multiple import benjamini_hochberg, holm

FEW_CLUSTERS = 30
"""Fewer clusters in an arm than this make a t-test on clusters optimistic where their sizes differ (Cameron & Miller 2015)."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UnitMetric(_Strict):
    """One metric: a column of the table, or the ratio of two."""

    name: Name
    role: Literal["primary", "secondary", "guardrail"]
    type: Literal["mean", "proportion", "ratio"]
    direction: Direction
    column: str | None = None
    numerator: str | None = None
    denominator: str | None = None
    covariates: list[str] = []
    threshold: str | None = None
    basis: Literal["relative", "absolute"] = "relative"

    @model_validator(mode="after")
    def _keys_fit(self) -> UnitMetric:
        needed = {"numerator", "denominator"} if self.type == "ratio" else {"column"}
        for key in sorted({"column", "numerator", "denominator"}):
            if (getattr(self, key) is not None) != (key in needed):
                raise ValueError(f"a {self.type} metric {'needs' if key in needed else 'does not use'} the key '{key}'")
        if (self.role == "guardrail") != (self.threshold is not None):
            raise ValueError("a guardrail needs a threshold, and no other metric has one")
        self.rule()
        return self

    def rule(self) -> GuardrailRule | None:
        """The guardrail that it is."""
        if self.threshold is None:
            return None
        return GuardrailRule(name=self.name, direction=self.direction, threshold=self.threshold, basis=self.basis)

    @property
    def columns(self) -> tuple[str, ...]:
        """What is measured, without covariates."""
        return tuple(column for column in (self.column, self.numerator, self.denominator) if column is not None)


class Looks(_Strict):
    """Planned looks at the primary metric: shares of the final information, up to and with this look."""

    fractions: list[float] = Field(min_length=1)
    spending: Literal["obrien_fleming", "pocock"] = "obrien_fleming"

    @model_validator(mode="after")
    def _rising(self) -> Looks:
        spending_bounds(self.fractions, 0.05)
        return self


class UnitTableFile(_Strict):
    """The YAML of one analysis. unit, variant and cluster name columns of the table."""

    experiment: Name
    unit: str
    variant: str
    variants: list[Variant] = Field(min_length=2)
    control: str = "control"
    cluster: str | None = None
    metrics: list[UnitMetric] = Field(min_length=1)
    alpha: Share = 0.05
    srm_alpha: Share = 0.001
    looks: Looks | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> UnitTableFile:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("a variant stands twice")
        if abs((total := sum(variant.weight for variant in self.variants)) - 1) > 1e-9:
            raise ValueError(f"the weights of the variants sum to {total:.6g}, not to 1")
        if self.control not in names:
            raise ValueError(f"control '{self.control}' is not one of the variants")
        called = [metric.name for metric in self.metrics]
        if len(set(called)) < len(called):
            raise ValueError("a metric stands twice")
        if (primaries := sum(metric.role == "primary" for metric in self.metrics)) != 1:
            raise ValueError(f"an experiment has exactly one primary metric, this one names {primaries}")
        return self

    @property
    def treatments(self) -> list[str]:
        """Variants compared with control, in the order of the file."""
        return [variant.name for variant in self.variants if variant.name != self.control]


@dataclass
class MetricResult:
    """One metric of one treatment against control; None where there is no such number.

    p_value, log_p : of this comparison alone. adjusted_p : Holm over the arms for the primary metric, Benjamini-Hochberg over
        all secondary comparisons; None for guardrails. significant_below : what adjusted_p is held against at this look.
    """

    metric: str
    role: str
    variant: str
    verdict: str
    method: str
    control_value: float | None = None
    value: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    p_value: float | None = None
    log_p: float | None = None
    adjusted_p: float | None = None
    significant_below: float | None = None
    cuped_correlation: float | None = None
    cuped_variance_reduction: float | None = None


@dataclass
class Analysis:
    """What a table says. units: rows of declared variants per variant (clusters: of them, where they were randomised)."""

    experiment: str
    units: dict[str, int]
    clusters: dict[str, int] | None
    srm_p_value: float | None
    srm: bool
    metrics: list[MetricResult] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def analyze_units(path: Path, config: UnitTableFile) -> Analysis:
    """Analyse a .parquet, .csv or .csv.gz file.

    Raises
    ------
    InputError : the file cannot be read, a column is missing or holds what is no finite number, a unit stands twice, a
        cluster is in two variants.
    """
    with duckdb.connect() as con:
        con.execute("SET threads = 1")  # sums come out the same in every run
        _load(con, path, config)
        notices = list(_notices(con, config))
        moments = {name: _moments(con, config, name) for name in (variant.name for variant in config.variants)}
        units = _counts(con, "units", config)
        clusters = _counts(con, "randomised", config) if config.cluster else None
    randomised = clusters or units
    srm_p = _srm(randomised, config)
    analysis = Analysis(config.experiment, units, clusters, srm_p, srm_p is not None and srm_p < config.srm_alpha)
    analysis.notices = notices + [
        f"{count} clusters in {name}: below {FEW_CLUSTERS} intervals are too narrow where clusters differ in size"
        for name, count in (clusters or {}).items() if count < FEW_CLUSTERS
    ]  # fmt: skip
    pairs = [
        (metric, treatment, _compare(metric, config, moments, treatment))
        for metric in config.metrics
        for treatment in config.treatments
    ]
    analysis.metrics = [result for _, _, (result, _) in pairs]
    _judge([(metric, result, effect) for metric, _, (result, effect) in pairs], config, analysis.srm)
    return analysis


def _load(con: duckdb.DuckDBPyConnection, path: Path, config: UnitTableFile) -> None:
    """Temp table `units` (unit, variant, cluster, a DOUBLE a column) of the declared variants, and what is randomised."""
    if not path.is_file():
        raise InputError("there is no such file", path, "give a table of units: .parquet, .csv or .csv.gz")
    reader = "read_parquet" if path.suffix == ".parquet" else "read_csv"
    try:
        con.execute(f"CREATE TEMP VIEW source AS FROM {reader}({_text(str(path))})")
        there = {row[0] for row in con.execute("DESCRIBE source").fetchall()}
    except duckdb.Error as error:
        raise InputError(
            f"cannot be read as {reader.removeprefix('read_')} ({str(error).splitlines()[0]})", path, "mend the file"
        ) from None
    measured, covariates = _columns(config)
    for column in (config.unit, config.variant, *([config.cluster] if config.cluster else []), *measured, *covariates):
        if column not in there:
            raise InputError(f"there is no column '{column}'", path, f"it has {', '.join(sorted(there))}")
    numbers = "".join(f", TRY_CAST({_name(c)} AS DOUBLE) AS {_name('v_' + c)}" for c in [*measured, *covariates])
    con.execute(f"""
        CREATE TEMP TABLE units AS
        SELECT {_name(config.unit)}::VARCHAR AS unit, {_name(config.variant)}::VARCHAR AS variant,
            {_name(config.cluster or config.unit)}::VARCHAR AS cluster{numbers}
        FROM source WHERE {_name(config.variant)}::VARCHAR IN ({", ".join(_text(v.name) for v in config.variants)})
    """)
    _refuse_bad_rows(con, path, config, measured, covariates)
    for column in covariates:  # centred, so that a unit without it stands at the mean and adds nothing
        con.execute(f"""
            UPDATE units SET {_name("v_" + column)} = coalesce({_name("v_" + column)} - m.mean, 0)
            FROM (SELECT coalesce(avg({_name("v_" + column)}), 0) AS mean FROM units) AS m
        """)
    sums = "".join(f", fsum({_name('v_' + c)}) AS {_name('v_' + c)}" for c in [*measured, *covariates])
    rows = f"SELECT cluster, any_value(variant) AS variant, count(*)::DOUBLE AS units{sums} FROM units GROUP BY cluster"
    con.execute(f"CREATE TEMP TABLE randomised AS {rows}")


def _refuse_bad_rows(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    config: UnitTableFile,
    measured: Sequence[str],
    covariates: Sequence[str],
) -> None:
    def count(condition: str, relation: str = "units") -> int:
        return int(con.execute(f"SELECT count(*) FROM {relation} WHERE {condition}").fetchall()[0][0])

    if (nameless := count("unit IS NULL OR cluster IS NULL")) > 0:
        raise InputError(
            f"{nameless:,} rows have no {config.unit} or cluster", path, "name the units, or leave them out"
        )
    if (twice := count("n > 1", "(SELECT count(*) AS n FROM units GROUP BY unit)")) > 0:
        raise InputError(f"{twice:,} units stand in more than one row", path, "add up the rows of a unit")
    if (torn := count("n > 1", "(SELECT count(DISTINCT variant) AS n FROM units GROUP BY cluster)")) > 0:
        raise InputError(f"{torn:,} clusters are in more than one variant", path, "leave them out, or analyse by unit")
    for column in measured:
        if (bad := count(f"{_name('v_' + column)} IS NULL OR NOT isfinite({_name('v_' + column)})")) > 0:
            raise InputError(
                f"{bad:,} units have no finite number in '{column}'",
                path,
                "write 0 where nothing happened, or leave them out",
            )
    for column in covariates:
        if (bad := count(f"NOT isfinite({_name('v_' + column)})")) > 0:
            raise InputError(
                f"{bad:,} units have no finite number in '{column}'", path, "leave it empty where it is unknown"
            )
    for metric in config.metrics:
        if metric.type == "proportion" and (bad := count(f"{_name('v_' + str(metric.column))} NOT IN (0, 1)")) > 0:
            raise InputError(f"{bad:,} units have neither 0 nor 1 in '{metric.column}'", path, "declare it as a mean")


def _notices(con: duckdb.DuckDBPyConnection, config: UnitTableFile) -> Iterator[str]:
    declared = ", ".join(_text(variant.name) for variant in config.variants)
    column = f"{_name(config.variant)}::VARCHAR"
    others = con.execute(
        f"SELECT coalesce({column}, 'nothing'), count(*) FROM source WHERE ({column} IN ({declared})) IS NOT TRUE "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for name, count in others:
        yield f"{count:,} rows are left out: their variant is {name}, which is not declared"
    _, covariates = _columns(config)
    for covariate in covariates:
        query = f"SELECT count(*) FROM source WHERE {column} IN ({declared}) AND TRY_CAST({_name(covariate)} AS DOUBLE) IS NULL"
        [(missing,)] = con.execute(query).fetchall()
        if missing:
            yield f"{missing:,} units have no {covariate}: they stand at its mean"


def _columns(config: UnitTableFile) -> tuple[list[str], list[str]]:
    """What is measured, and covariates, each once; what is both is what is measured."""
    measured = list(dict.fromkeys(column for metric in config.metrics for column in metric.columns))
    covariates = dict.fromkeys(column for metric in config.metrics for column in metric.covariates)
    return measured, [column for column in covariates if column not in measured]


def _moments(con: duckdb.DuckDBPyConnection, config: UnitTableFile, variant: str) -> Moments:
    """Of what was randomised: units, or clusters with the sums of their units and how many they are."""
    measured, covariates = _columns(config)
    names = ["units", *(f"v_{column}" for column in (*measured, *covariates))]
    pairs = combinations_with_replacement(names, 2)
    sums = ", ".join(f"coalesce(fsum({_name(name)}), 0)" for name in names)
    products = ", ".join(f"coalesce(fsum({_name(a)} * {_name(b)}), 0)" for a, b in pairs)
    query = f"SELECT count(*), {sums}, {products} FROM randomised WHERE variant = ?"
    [(count, *values)] = con.execute(query, [variant]).fetchall()
    return Moments(count, tuple(names), tuple(values[: len(names)]), tuple(values[len(names) :]))


def _counts(con: duckdb.DuckDBPyConnection, relation: str, config: UnitTableFile) -> dict[str, int]:
    found = dict(con.execute(f"SELECT variant, count(*) FROM {relation} GROUP BY variant").fetchall())
    return {variant.name: found.get(variant.name, 0) for variant in config.variants}


def _srm(counts: dict[str, int], config: UnitTableFile) -> float | None:
    """p-value of what was randomised against the declared weights; None below Cochran's five expected."""
    weights = [variant.weight for variant in config.variants]
    if sum(counts.values()) * min(weights) < MIN_EXPECTED:
        return None
    return chi_square(list(counts.values()), weights).p_value


def _compare(
    metric: UnitMetric, config: UnitTableFile, moments: dict[str, Moments], treatment: str
) -> tuple[MetricResult, Effect | None]:
    groups = [moments[variant.name] for variant in config.variants]
    fit = _fit(metric, config, groups)
    used = [_estimate(metric, config, moments[name], fit) for name in (config.control, treatment)]
    raw = [_estimate(metric, config, moments[name], None) for name in (config.control, treatment)]
    result = MetricResult(metric.name, metric.role, treatment, NO_DATA, _method(metric, config, fit))
    if used[0] is None or used[1] is None or raw[0] is None or raw[1] is None:
        return result, None
    result.control_value, result.value = used[0].value, used[1].value
    if fit is not None:
        spread = raw[0].variance + raw[1].variance
        result.cuped_correlation = fit.correlation
        result.cuped_variance_reduction = 1 - (used[0].variance + used[1].variance) / spread if spread > 0 else None
    result.verdict = INCONCLUSIVE
    effect = welch_effect(used[0], used[1], CONFIDENCE)
    if effect is not None:
        for name in (
            "difference",
            "difference_low",
            "difference_high",
            "lift",
            "lift_low",
            "lift_high",
            "p_value",
            "log_p",
        ):
            setattr(result, name, getattr(effect, name))
    return result, effect


def _parts(metric: UnitMetric, config: UnitTableFile) -> tuple[str, str | None]:
    """Numerator and denominator; a mean over units of clusters is a ratio of sums over clusters."""
    if metric.type == "ratio":
        return f"v_{metric.numerator}", f"v_{metric.denominator}"
    return f"v_{metric.column}", "units" if config.cluster else None


def _fit(metric: UnitMetric, config: UnitTableFile, groups: Sequence[Moments]) -> CupedFit | None:
    outcome, denominator = _parts(metric, config)
    if not metric.covariates:
        return None
    return fit_cuped(groups, outcome, *(f"v_{column}" for column in metric.covariates), denominator=denominator)


def _estimate(metric: UnitMetric, config: UnitTableFile, moments: Moments, fit: CupedFit | None) -> Estimate | None:
    if fit is not None:
        return adjusted_estimate(moments, fit)
    outcome, denominator = _parts(metric, config)
    return ratio_estimate(moments, outcome, denominator) if denominator else mean_estimate(moments, outcome)


def _method(metric: UnitMetric, config: UnitTableFile, fit: CupedFit | None) -> str:
    of = "clusters" if config.cluster else "units"
    what = f"Welch t on {of}" if metric.type != "ratio" else f"ratio of sums, delta method over {of}, Welch t"
    if fit is not None:
        return f"{what}, with CUPED ({', '.join(name.removeprefix('v_') for name in fit.covariates)})"
    return f"{what}, without CUPED ({'nothing varies' if metric.covariates else 'no covariates declared'})"


def _judge(found: Sequence[tuple[UnitMetric, MetricResult, Effect | None]], config: UnitTableFile, srm: bool) -> None:
    """Adjusted p-values of each family, and verdicts."""
    below = config.alpha
    if config.looks:  # the planned looks are at the primary metric; the others are read beside it
        below = spending_bounds(config.looks.fractions, config.alpha, SPENDING[config.looks.spending]).p[-1]
    for role, adjust in (("primary", holm), ("secondary", benjamini_hochberg)):
        family = [(metric, result) for metric, result, _ in found if metric.role == role]
        logs = adjust([math.nan if result.log_p is None else result.log_p for _, result in family])
        for (metric, result), log_p in zip(family, logs, strict=True):
            if math.isnan(log_p):
                continue
            result.adjusted_p, result.significant_below = math.exp(log_p), below
            if log_p < _log(below):
                better = (result.difference or 0) > 0
                result.verdict = BETTER if better == (metric.direction == "higher_is_better") else WORSE
    for metric, result, effect in found:
        rule = metric.rule()
        if rule is not None and result.verdict != NO_DATA:
            result.verdict = guardrail_verdict(effect, rule, judged=True, srm=srm)
        elif srm and result.verdict != NO_DATA:
            result.verdict = INVALID


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
