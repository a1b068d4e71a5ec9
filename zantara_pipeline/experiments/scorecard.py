"""The scorecard: every experiment's check, effects and guardrails as rows, and what is worth an alert.

Belongs here: assembling rows and findings from moments, writing experiments.scorecard. Does not belong here: formulas
(`statistics`), rules for words (`verdicts`), delivering alerts (`alerts`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import duckdb

from zantara_pipeline.alerts import Finding
from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import verdicts
from zantara_pipeline.experiments.comparison import Comparison, Cuped, compare, fit_metric_cuped
from zantara_pipeline.experiments.contract import GuardrailRule, Metric
from zantara_pipeline.experiments.looks import Look, Taken, looks_of, next_day
from zantara_pipeline.experiments.moments import (
    VariantMoments,
    comment_columns,
    read_moments,
    transaction,
)
from zantara_pipeline.experiments.registry import Experiment, ExperimentRegistry
from zantara_pipeline.experiments.srm import SampleRatio, check_sample_ratio
from zantara_pipeline.experiments.units import UnitCounts, check_as_of, classify_units, drop_units
from zantara_pipeline.statistics import format_p

SRM_METRIC = "sample_ratio"
MOST_DISAGREEING = 0.01  # of units; more of them move the difference by more than a hundredth of itself

# Columns of experiments.scorecard: name, type, what it holds. The order is that of ScorecardRow's fields.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("experiment_id", "varchar", "Experiment (name of its YAML file)."),
    ("variant", "varchar", "Variant; effect rows exist for every variant but control."),
    ("metric", "varchar", "Metric of metrics.yaml; sample_ratio in rows of role srm."),
    ("role", "varchar", "srm, primary, secondary or guardrail."),
    ("as_of", "timestamptz", "Instant up to which events count."),
    ("n", "bigint", "Eligible units of the variant."),
    ("value", "double", "The metric in the variant (CUPED-adjusted where method says so); srm: observed share."),
    ("control_value", "double", "The metric in control (adjusted likewise); srm: declared share."),
    ("lift", "double", "value / control_value - 1; null where control_value is not positive."),
    ("ci_low", "double", "Lower end of the lift's 95 % interval; null in rows of role srm."),
    ("ci_high", "double", "Upper end of the lift's 95 % interval; null in rows of role srm."),
    (
        "p_value",
        "double",
        "Two-sided p-value of the difference; srm: of the chi-square. May underflow to 0: see log_p.",
    ),
    ("log_p", "double", "Natural logarithm of the p-value."),
    ("method", "varchar", "How the row was computed, and what was left out."),
    ("verdict", "varchar", "One word of the fixed decision scale."),
    ("control_n", "bigint", "Eligible units of control; srm: of all variants."),
    ("difference", "double", "value - control_value, in the metric's unit."),
    ("difference_low", "double", "Lower end of the difference's 95 % interval."),
    ("difference_high", "double", "Upper end of the difference's 95 % interval."),
    ("raw_value", "double", "The metric in the variant without CUPED."),
    ("raw_control_value", "double", "The metric in control without CUPED."),
    ("cuped_reduction", "double", "Share of the difference's variance that CUPED removed; null without CUPED."),
    ("cuped_correlation", "double", "Correlation of metric and covariate over all variants; null without CUPED."),
    ("threshold", "varchar", "Guardrails: the tolerated worsening and its basis."),
    ("config_hash", "varchar", "sha256 of the experiment's settled configuration."),
)

MOMENTS_EXIST = """
select count(*) from information_schema.tables where table_schema = 'experiments' and table_name = 'moments'
"""

OTHER_AS_OF = """
select count(*) from experiments.moments where as_of <> $as_of
"""


@dataclass(frozen=True)
class ScorecardRow:
    """One row of experiments.scorecard; columns are described in `COLUMNS`."""

    experiment_id: str
    variant: str
    metric: str
    role: str
    as_of: dt.datetime
    n: int
    value: float | None
    control_value: float | None
    lift: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    log_p: float | None
    method: str
    verdict: str
    control_n: int
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    raw_value: float | None = None
    raw_control_value: float | None = None
    cuped_reduction: float | None = None
    cuped_correlation: float | None = None
    threshold: str | None = None
    config_hash: str = ""


@dataclass(frozen=True)
class ScorecardResult:
    """What was read out: all rows, findings for alerts, experiments with nothing to do and why.

    Kinds of findings: srm, assignment_disagrees, cuped_absent, cuped_below_floor, guardrail_harm; their subject is the experiment.
    """

    rows: tuple[ScorecardRow, ...]
    findings: tuple[Finding, ...]
    nothing_to_do: Mapping[str, str]
    unregistered: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line: how many experiments were read out, or 'nothing to do'."""
        done = len({row.experiment_id for row in self.rows})
        text = f"{done} experiments read out, {len(self.findings)} findings" if done else "nothing to do: no exposures"
        if self.unregistered:
            text += f"; exposed but not registered: {', '.join(self.unregistered)}"
        return text


def build_scorecard(
    con: duckdb.DuckDBPyConnection,
    registry: ExperimentRegistry,
    as_of: dt.datetime,
    taken: Mapping[str, Sequence[Taken]] | None = None,
) -> ScorecardResult:
    """Rebuild experiments.scorecard (create or replace, one transaction) from experiments.moments of the same as_of.

    taken : the looks so far (looks.py); a run that takes none shows the split and harm alone.

    Raises
    ------
    InputError : as_of without time zone, experiments.moments missing or built for another as_of.
    """
    as_of = check_as_of(as_of)
    _check_moments(con, as_of)
    try:
        counts, unregistered = classify_units(con, registry, as_of)
    finally:
        drop_units(con)
    moments = read_moments(con, as_of)
    rows: list[ScorecardRow] = []
    findings: list[Finding] = []
    nothing_to_do = {}
    looks = looks_of(registry, as_of, taken or {})
    for name, experiment in sorted(registry.experiments.items()):
        own = {metric: moments.get((name, metric), {}) for metric in experiment.metrics}
        if not own[experiment.primary]:
            nothing_to_do[name] = "nothing to do: no eligible exposures"
            continue
        new_rows, new_findings = read_out(experiment, registry.metrics, own, counts[name], as_of, looks[name])
        rows += new_rows
        findings += new_findings
    _write(con, rows)
    return ScorecardResult(tuple(rows), tuple(findings), nothing_to_do, unregistered)


def read_scorecard(con: duckdb.DuckDBPyConnection) -> list[ScorecardRow]:
    """Rows of experiments.scorecard in their order."""
    columns = ", ".join(name for name, _, _ in COLUMNS)
    query = f"select {columns} from experiments.scorecard order by experiment_id, role, metric, variant"
    return [ScorecardRow(*row) for row in con.execute(query).fetchall()]


def read_out(
    experiment: Experiment,
    metrics: Mapping[str, Metric],
    moments: Mapping[str, Mapping[str, VariantMoments]],
    counts: UnitCounts,
    as_of: dt.datetime,
    look: Look | None,
) -> tuple[list[ScorecardRow], list[Finding]]:
    """Rows and findings of one experiment from its moments (metric -> variant -> moments); touches no database.

    look : the one that this run takes, if any.
    """
    units = {variant: entry.moments.n for variant, entry in moments[experiment.primary].items()}
    ratio = check_sample_ratio(experiment, units)
    rows = _srm_rows(experiment, ratio, counts, as_of)
    findings = [_srm_finding(experiment, ratio)] if ratio.mismatch else []
    findings += [_disagreement_finding(experiment, counts)] if counts.disagreeing else []
    roles: list[tuple[str, str, GuardrailRule | None]] = [("primary", experiment.primary, None)]
    roles += [("secondary", name, None) for name in experiment.secondary]
    roles += [("guardrail", rule.name, rule) for rule in experiment.guardrails]
    for role, name, rule in roles:
        cuped = fit_metric_cuped(
            metrics[name], moments[name], experiment.variance_reduction, experiment.pre_period_days
        )
        for variant in experiment.treatments:
            comparison = compare(
                metrics[name],
                moments[name].get(experiment.control),
                moments[name].get(variant),
                cuped,
                experiment.pre_period_days,
                # guardrails are held against their threshold at 95 %, whatever a look spends on effects
                verdicts.CONFIDENCE if look is None or rule is not None else 1 - look.alpha,
            )
            row = _effect_row(experiment, metrics[name], variant, (role, name, rule), comparison, ratio, as_of, look)
            rows.append(row if look is not None or row.verdict != verdicts.KEEP_RUNNING else _withheld(row, experiment))
            if row.verdict == verdicts.HARM and rule is not None:
                findings.append(_harm_finding(row, rule))
        if role == "primary":
            findings += _cuped_findings(experiment, name, cuped, rows, as_of)
    return rows, findings


def _srm_rows(experiment: Experiment, ratio: SampleRatio, counts: UnitCounts, as_of: dt.datetime) -> list[ScorecardRow]:
    total = sum(ratio.counts.values())
    left_out = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.excluded.items())) or "none"
    method = f"chi-square on {len(ratio.counts)} variants, alpha {experiment.srm_alpha:g}; units left out: {left_out}"
    method += f"; logged in another variant than assigned: {counts.disagreeing}" if counts.disagreeing else ""
    verdict = verdicts.NO_DATA if ratio.test is None else verdicts.SRM if ratio.mismatch else verdicts.OK
    return [
        ScorecardRow(
            experiment_id=experiment.name,
            variant=variant,
            metric=SRM_METRIC,
            role="srm",
            as_of=as_of,
            n=count,
            value=count / total,
            control_value=experiment.variants[variant],
            lift=count / total / experiment.variants[variant] - 1,
            ci_low=None,
            ci_high=None,
            p_value=ratio.test.p_value if ratio.test else None,
            log_p=ratio.test.log_p if ratio.test else None,
            method=method,
            verdict=verdict,
            control_n=total,
            config_hash=experiment.config_hash,
        )
        for variant, count in ratio.counts.items()
    ]


def _effect_row(
    experiment: Experiment,
    metric: Metric,
    variant: str,
    what: tuple[str, str, GuardrailRule | None],
    comparison: Comparison,
    ratio: SampleRatio,
    as_of: dt.datetime,
    look: Look | None,
) -> ScorecardRow:
    role, name, rule = what
    effect = comparison.effect
    control, treatment = comparison.control, comparison.treatment
    if control is None or treatment is None:
        verdict = verdicts.INVALID if ratio.mismatch else verdicts.NO_DATA
    elif rule is not None:
        verdict = verdicts.guardrail_verdict(effect, rule, judged=look is not None, srm=ratio.mismatch)
    else:
        alpha = look.alpha if look else None
        verdict = verdicts.effect_verdict(effect, metric.direction, alpha=alpha, srm=ratio.mismatch)
    method = comparison.method
    if control and treatment and effect is None:
        method += "; nothing varies, so there is no interval"
    if look is not None and look.of > 1 and rule is None:
        method += (
            f"; look {look.number} of {look.of}: proven below p {look.alpha:.3g}, interval of {1 - look.alpha:.2%}"
        )
    return ScorecardRow(
        experiment_id=experiment.name,
        variant=variant,
        metric=name,
        role=role,
        as_of=as_of,
        n=ratio.counts[variant],
        value=treatment.value if treatment else None,
        control_value=control.value if control else None,
        lift=effect.lift if effect else None,
        ci_low=effect.lift_low if effect else None,
        ci_high=effect.lift_high if effect else None,
        p_value=effect.p_value if effect else None,
        log_p=effect.log_p if effect else None,
        method=method,
        verdict=verdict,
        control_n=ratio.counts[experiment.control],
        difference=effect.difference if effect else None,
        difference_low=effect.difference_low if effect else None,
        difference_high=effect.difference_high if effect else None,
        raw_value=comparison.raw_treatment.value if comparison.raw_treatment else None,
        raw_control_value=comparison.raw_control.value if comparison.raw_control else None,
        cuped_reduction=comparison.cuped_reduction,
        cuped_correlation=comparison.cuped_correlation,
        threshold=f"{rule.threshold} {rule.basis}" if rule else None,
        config_hash=experiment.config_hash,
    )


def _withheld(row: ScorecardRow, experiment: Experiment) -> ScorecardRow:
    """Without what somebody could conclude from: a run that takes no look is one too many."""
    day = next_day(experiment, row.as_of)
    because = f"the next look is on {day}" if day else "the last look was taken"
    nothing: dict[str, Any] = dict.fromkeys(_EFFECT)
    return replace(row, **nothing, method=f"{row.method}; withheld: {because}")


_EFFECT = (
    "value", "control_value", "lift", "ci_low", "ci_high", "p_value", "log_p", "difference", "difference_low",
    "difference_high", "raw_value", "raw_control_value",
)  # fmt: skip


def _srm_finding(experiment: Experiment, ratio: SampleRatio) -> Finding:
    assert ratio.test is not None
    total = sum(ratio.counts.values())
    shares = ", ".join(
        f"{variant} {count / total:.4f} instead of {experiment.variants[variant]:g}"
        for variant, count in ratio.counts.items()
    )
    return Finding(
        "srm",
        "critical",
        experiment.name,
        f"sample ratio mismatch in {experiment.name}: {shares} (p = {format_p(ratio.test.log_p)}); effects withheld",
        {"counts": dict(ratio.counts), "log_p": ratio.test.log_p, "alpha": experiment.srm_alpha},
    )


def _disagreement_finding(experiment: Experiment, counts: UnitCounts) -> Finding:
    """Whoever shows one variant and logs another has no experiment; a few may be a cache that outlived a new salt."""
    share = counts.disagreeing / counts.eligible
    return Finding(
        "assignment_disagrees",
        "critical" if share > MOST_DISAGREEING else "warning",
        experiment.name,
        f"{counts.disagreeing:,} of {counts.eligible:,} units of {experiment.name} logged another variant than salt and "
        "weights give them: look at how the application assigns",
        {"disagreeing": counts.disagreeing, "eligible": counts.eligible, "salt": experiment.salt},
    )


def _harm_finding(row: ScorecardRow, rule: GuardrailRule) -> Finding:
    if rule.basis == "relative" and row.lift is not None and row.ci_low is not None and row.ci_high is not None:
        size = f"{row.lift:+.2%} (95 % interval {row.ci_low:+.2%} to {row.ci_high:+.2%})"
    else:
        size = f"{row.difference:+.6g} (95 % interval {row.difference_low:+.6g} to {row.difference_high:+.6g})"
    return Finding(
        "guardrail_harm",
        "critical",
        row.experiment_id,
        f"{row.variant} of {row.experiment_id} harms {row.metric}: {size}, tolerated {rule.threshold} {rule.basis}",
        {
            "variant": row.variant,
            "metric": row.metric,
            "threshold": rule.threshold,
            "basis": rule.basis,
            "lift": row.lift,
            "ci_low": row.ci_low,
            "ci_high": row.ci_high,
            "difference": row.difference,
        },
    )


def _cuped_findings(
    experiment: Experiment, primary: str, cuped: Cuped, rows: list[ScorecardRow], as_of: dt.datetime
) -> list[Finding]:
    """About the primary metric alone (others say it in their method). The floor counts after the minimum duration."""
    if cuped.fit is None:
        message = f"CUPED is absent for the primary metric {primary} of {experiment.name}: {cuped.absent_because}"
        details: dict[str, object] = {"metric": primary, "reason": cuped.absent_because}
        return [Finding("cuped_absent", "warning", experiment.name, message, details)]
    reductions = [row.cuped_reduction for row in rows if row.role == "primary" and row.cuped_reduction is not None]
    if not reductions or not experiment.old_enough(as_of) or min(reductions) >= experiment.cuped_min_reduction:
        return []
    floor, found = experiment.cuped_min_reduction, min(reductions)
    message = f"CUPED removes {found:.1%} of the variance of {primary} in {experiment.name}, the floor is {floor:.1%}"
    details = {"metric": primary, "reduction": found, "floor": floor, "correlation": cuped.fit.correlation}
    return [Finding("cuped_below_floor", "warning", experiment.name, message, details)]


def _check_moments(con: duckdb.DuckDBPyConnection, as_of: dt.datetime) -> None:
    if con.execute(MOMENTS_EXIST).fetchall()[0][0] == 0:
        raise InputError("the table experiments.moments does not exist", todo="build the moments first")
    if con.execute(OTHER_AS_OF, {"as_of": as_of}).fetchall()[0][0]:
        raise InputError("experiments.moments was built for another as_of", todo="build the moments again")


def _write(con: duckdb.DuckDBPyConnection, rows: list[ScorecardRow]) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind, _ in COLUMNS)
    places = ", ".join("?" for _ in COLUMNS)
    with transaction(con):
        con.execute("create schema if not exists experiments")
        con.execute(f"create or replace table experiments.scorecard ({columns})")
        if rows:
            con.executemany(f"insert into experiments.scorecard values ({places})", [astuple(row) for row in rows])
        comment_columns(con, "experiments.scorecard", COLUMNS)
