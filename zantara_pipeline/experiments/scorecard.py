"""The scorecard: every experiment's check, effects and guardrails as rows, and what is worth an alert.

Belongs here: assembling rows and findings from moments, writing experiments.scorecard. Does not belong here: formulas
(`statistics`), rules for words (`verdicts`), delivering alerts (`alerts`).
"""

from __future__ import annotations

import datetime as dt
import math
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
from zantara_pipeline.experiments.split_days import read_days, write_days
from zantara_pipeline.experiments.srm import MismatchAt, SampleRatio, Segment, check_sample_ratio, locate_mismatch
from zantara_pipeline.experiments.units import UnitCounts, check_as_of, classify_units, count_segments, drop_units
from zantara_pipeline.statistics import format_p
from zantara_pipeline.statistics.multiple import benjamini_hochberg, holm

SRM_METRIC = "sample_ratio"
MOST_ASTRAY = 0.01  # of units; more of them move the difference by more than a hundredth of itself

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
    ("ci_low", "double", "Lower end of the lift's interval (method says of which kind); null in rows of role srm."),
    ("ci_high", "double", "Upper end of the lift's interval; null in rows of role srm."),
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
    ("difference_low", "double", "Lower end of the difference's interval."),
    ("difference_high", "double", "Upper end of the difference's interval."),
    ("raw_value", "double", "The metric in the variant without CUPED."),
    ("raw_control_value", "double", "The metric in control without CUPED."),
    ("cuped_reduction", "double", "Share of the difference's variance that CUPED removed; null without CUPED."),
    ("cuped_correlation", "double", "Correlation of metric and covariate over all variants; null without CUPED."),
    ("threshold", "varchar", "Guardrails: the tolerated worsening and its basis."),
    ("config_hash", "varchar", "sha256 of the experiment's settled configuration."),
    (
        "adjusted_log_p",
        "double",
        "At a look: log_p corrected for the other variants (primary, Holm) or variants and metrics (secondary, "
        "Benjamini-Hochberg); else null.",
    ),
    ("mismatch_at", "varchar", "srm: where a mismatch sits (platform, app_version, country or day); else null."),
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
    adjusted_log_p: float | None = None
    mismatch_at: str | None = None


@dataclass(frozen=True)
class ScorecardResult:
    """What was read out: all rows, findings for alerts, experiments with nothing to do and why.

    Kinds of findings: srm, assignment_disagrees, variant_leak, contaminated, cuped_absent, cuped_below_floor, guardrail_harm;
    their subject is the experiment.
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
    moments = read_moments(con, as_of)
    try:
        counts, unregistered = classify_units(con, registry, as_of)
        days = read_days(con, registry)
        segments = {
            name: count_segments(con, name)
            for name, experiment in registry.experiments.items()
            if check_sample_ratio(experiment, _units(moments.get((name, experiment.primary), {}))).mismatch
        }
    finally:
        drop_units(con)
    rows: list[ScorecardRow] = []
    findings: list[Finding] = []
    nothing_to_do = {}
    looks = looks_of(registry, as_of, taken or {})
    for name, experiment in sorted(registry.experiments.items()):
        own = {metric: moments.get((name, metric), {}) for metric in experiment.metrics}
        if not own[experiment.primary]:
            nothing_to_do[name] = "nothing to do: no eligible exposures"
            continue
        new_rows, new_findings = read_out(
            experiment, registry.metrics, own, counts[name], as_of, looks[name], segments.get(name)
        )
        rows += new_rows
        findings += new_findings
    with transaction(con):
        _write(con, rows)
        write_days(con, days)
    return ScorecardResult(tuple(rows), tuple(findings), nothing_to_do, unregistered)


def read_scorecard(con: duckdb.DuckDBPyConnection) -> list[ScorecardRow]:
    """Rows of experiments.scorecard in their order.

    Raises
    ------
    InputError : a version with other columns wrote it.
    """
    columns = ", ".join(name for name, _, _ in COLUMNS)
    query = f"select {columns} from experiments.scorecard order by experiment_id, role, metric, variant"
    try:
        return [ScorecardRow(*row) for row in con.execute(query).fetchall()]
    except duckdb.BinderException:
        raise InputError("another version wrote it", "experiments.scorecard", "run `zantara run` again") from None


def read_out(
    experiment: Experiment,
    metrics: Mapping[str, Metric],
    moments: Mapping[str, Mapping[str, VariantMoments]],
    counts: UnitCounts,
    as_of: dt.datetime,
    look: Look | None,
    segments: Mapping[Segment, Mapping[str, int]] | None = None,
) -> tuple[list[ScorecardRow], list[Finding]]:
    """Rows and findings of one experiment from its moments (metric -> variant -> moments); touches no database.

    look : the one that this run takes, if any. segments : units by variant of each segment, where the split is broken.
    """
    ratio = check_sample_ratio(experiment, _units(moments[experiment.primary]))
    where = locate_mismatch(experiment, segments or {}) if ratio.mismatch else None
    rows = _srm_rows(experiment, ratio, where, counts, as_of)
    findings = [_srm_finding(experiment, ratio, where)] if ratio.mismatch else []
    findings += _astray_findings(experiment, counts)
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
                verdicts.CONFIDENCE if look is None else 1 - look.alpha,
                experiment.horizon_units,
            )
            row = _effect_row(experiment, metrics[name], variant, (role, name, rule), comparison, ratio, as_of, look)
            rows.append(_withheld(row, experiment) if row.verdict == verdicts.KEEP_RUNNING else row)
            if row.verdict == verdicts.HARM and rule is not None:
                findings.append(_harm_finding(row, rule))
        if role == "primary":
            findings += _cuped_findings(experiment, name, cuped, rows, as_of)
    return (rows if look is None else _corrected(rows, look)), findings


def _corrected(rows: Sequence[ScorecardRow], look: Look) -> list[ScorecardRow]:
    """p-values and verdicts corrected for how many were asked: variants of the primary metric, variants of all secondaries."""
    adjusted: dict[tuple[str, str, str], float] = {}
    for role, correct in (("primary", holm), ("secondary", benjamini_hochberg)):
        family = [row for row in rows if row.role == role and row.log_p is not None]
        logs = correct([row.log_p for row in family if row.log_p is not None])
        adjusted |= {(role, row.metric, row.variant): log_p for row, log_p in zip(family, logs, strict=True)}
    return [_correct(row, adjusted.get((row.role, row.metric, row.variant)), look.alpha) for row in rows]


def _correct(row: ScorecardRow, log_p: float | None, alpha: float) -> ScorecardRow:
    if log_p is None:
        return row
    proven = row.verdict not in (verdicts.BETTER, verdicts.WORSE) or log_p < math.log(alpha)
    return replace(row, adjusted_log_p=log_p, verdict=row.verdict if proven else verdicts.INCONCLUSIVE)


def _units(moments: Mapping[str, VariantMoments]) -> dict[str, int]:
    return {variant: entry.moments.n for variant, entry in moments.items()}


def _srm_rows(
    experiment: Experiment, ratio: SampleRatio, where: MismatchAt | None, counts: UnitCounts, as_of: dt.datetime
) -> list[ScorecardRow]:
    total = sum(ratio.counts.values())
    left_out = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.excluded.items())) or "none"
    method = f"chi-square on {len(ratio.counts)} variants, broken below p {ratio.below:.2g}; units left out: {left_out}"
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
            mismatch_at=_sits(where) if ratio.mismatch else None,
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
    method = comparison.method
    if rule is not None and (look is None or verdicts.harm_at_any_time_alone(effect, comparison.always, rule)):
        effect = comparison.always
        method += "; interval for looking at any time"
    control, treatment = comparison.control, comparison.treatment
    if control is None or treatment is None:
        verdict = verdicts.INVALID if ratio.mismatch else verdicts.NO_DATA
    elif rule is not None:
        verdict = verdicts.guardrail_verdict(
            effect, rule, judged=look is not None, srm=ratio.mismatch, always=comparison.always
        )
    else:
        alpha = look.alpha if look else None
        verdict = verdicts.effect_verdict(effect, metric.direction, alpha=alpha, srm=ratio.mismatch)
    if control and treatment and effect is None:
        method += "; nothing varies, so there is no interval"
    if look is not None and look.of > 1:
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
    """Without what somebody could conclude from: a run that takes no look is one too many. The bounds of a guardrail stay."""
    day = next_day(experiment, row.as_of)
    because = f"the next look is on {day}" if day else "the last look was taken"
    names = _ESTIMATES if row.role == "guardrail" else _ESTIMATES + _BOUNDS
    nothing: dict[str, Any] = dict.fromkeys(names)
    return replace(row, **nothing, method=f"{row.method}; withheld: {because}")


_ESTIMATES = ("value", "control_value", "lift", "p_value", "log_p", "difference", "raw_value", "raw_control_value")
_BOUNDS = ("ci_low", "ci_high", "difference_low", "difference_high")


def _sits(where: MismatchAt | None) -> str:
    if where is None:
        return "it sits in no single platform, version, country or day"
    dimension, value = where.segment
    shares = ", ".join(f"{variant} {share:.4f}" for variant, share in where.shares.items())
    return f"it sits in {dimension} {value} ({where.units:,} units: {shares}), without which the split is as declared"


def _srm_finding(experiment: Experiment, ratio: SampleRatio, where: MismatchAt | None) -> Finding:
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
        f"sample ratio mismatch in {experiment.name}: {shares} (p = {format_p(ratio.test.log_p)}); "
        f"{_sits(where)}; effects withheld",
        {
            "counts": dict(ratio.counts),
            "log_p": ratio.test.log_p,
            "alpha": experiment.srm_alpha,
            "segment": ": ".join(where.segment) if where else None,
            "segment_log_p": where.log_p if where else None,
        },
    )


def _astray_findings(experiment: Experiment, counts: UnitCounts) -> list[Finding]:
    """Units that are where they should not be: a few are an accident, more than a hundredth a broken application."""
    found = [_disagreement_finding(experiment, counts)] if counts.disagreeing else []
    if counts.leaked:
        found.append(
            Finding(
                "variant_leak",
                "critical" if counts.leaked / counts.exposed > MOST_ASTRAY else "warning",
                experiment.name,
                f"{counts.leaked:,} of {counts.exposed:,} units of {experiment.name} were shown a variant that has no weight or "
                "is not registered: look at how the application assigns",
                {"leaked": counts.leaked, "exposed": counts.exposed},
            )
        )
    contaminated = counts.excluded.get("contaminated", 0)
    if contaminated > MOST_ASTRAY * counts.exposed:
        found.append(
            Finding(
                "contaminated",
                "warning",
                experiment.name,
                f"{contaminated:,} of {counts.exposed:,} units of {experiment.name} were shown two variants and are left out: "
                "look at how the application remembers its units",
                {"contaminated": contaminated, "exposed": counts.exposed},
            )
        )
    return found


def _disagreement_finding(experiment: Experiment, counts: UnitCounts) -> Finding:
    """Whoever shows one variant and logs another has no experiment; a few may be a cache that outlived a new salt."""
    share = counts.disagreeing / counts.eligible
    return Finding(
        "assignment_disagrees",
        "critical" if share > MOST_ASTRAY else "warning",
        experiment.name,
        f"{counts.disagreeing:,} of {counts.eligible:,} units of {experiment.name} logged another variant than salt and "
        "weights give them: look at how the application assigns",
        {"disagreeing": counts.disagreeing, "eligible": counts.eligible, "salt": experiment.salt},
    )


def _harm_finding(row: ScorecardRow, rule: GuardrailRule) -> Finding:
    if rule.basis == "relative" and row.lift is not None and row.ci_low is not None and row.ci_high is not None:
        size = f"{row.lift:+.2%} (interval {row.ci_low:+.2%} to {row.ci_high:+.2%})"
    else:
        size = f"{row.difference:+.6g} (interval {row.difference_low:+.6g} to {row.difference_high:+.6g})"
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
    con.execute("create schema if not exists experiments")
    con.execute(f"create or replace table experiments.scorecard ({columns})")
    if rows:
        con.executemany(f"insert into experiments.scorecard values ({places})", [astuple(row) for row in rows])
    comment_columns(con, "experiments.scorecard", COLUMNS)
