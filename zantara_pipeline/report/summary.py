"""The run summary: every figure that the terminal and the HTML page show, read once from the published tables.

Belongs here: the queries, the typed result, picking what to compare. Does not belong here: layout and wording.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from zantara_pipeline.errors import InputError
from zantara_pipeline.report.lacking import lacking

Row = TypeVar("Row")

# What would serve, where a bundle names it.
SERVES = "stack"
BASELINE = "popularity"
"""The model that every other one is compared with."""

FEW_ALERTS = 3
"""So many alerts of one kind are shown each; critical ones always are."""

DIFFERENCE = "_diff"
"""Ending of metrics that are a difference to the baseline, paired by user."""

PAIRED = (DIFFERENCE, "_lead")
"""Endings of metrics that compare two models by user."""


@dataclass(frozen=True)
class DayCounts:
    """Rows of the files whose latest `received_at` lies on one UTC day (null: no row of the file was accepted)."""

    day: date | None
    files: int
    rows_in: int
    accepted: int
    duplicates: int
    quarantined: int
    suppressed: int
    unparsable: int


@dataclass(frozen=True)
class Reason:
    """One reason for quarantine; a row may have several, so these do not add up to the quarantined rows."""

    event: str
    code: str
    path: str
    rows: int


@dataclass(frozen=True)
class Segment:
    """One row of segments.catalog; size is null where the catalogue hides it."""

    segment: str
    description: str | None
    owner: str | None
    ttl_days: int | None
    size: int | None


@dataclass(frozen=True)
class Withdrawal:
    """People who withdrew a purpose since the run before, and what of theirs ended with this one."""

    purpose: str
    people: int
    memberships: int
    lists: int
    interactions: int


@dataclass(frozen=True)
class Metric:
    """One row of recommendations.offline_metrics; cut_date is text in UTC, None: all cuts together."""

    bundle_version: str
    model: str
    cut_date: str | None
    slice: str
    metric: str
    k: int | None
    value: float | None
    ci_low: float | None
    ci_high: float | None
    users: int | None

    @property
    def label(self) -> str:
        """The metric with its cut-off: 'ndcg@10', 'mrr'."""
        return self.metric if not self.k or "@" in self.metric else f"{self.metric}@{self.k}"


@dataclass(frozen=True)
class ServedBy:
    """Users whose list was made by one model."""

    served_by: str
    users: int


@dataclass(frozen=True)
class Score:
    """One row of experiments.scorecard; lift and its interval are relative to control (0.05 = +5 %)."""

    experiment_id: str
    variant: str
    metric: str
    role: str
    n: int | None
    value: float | None
    control_value: float | None
    lift: float | None
    ci_low: float | None
    ci_high: float | None
    log_p: float | None
    method: str | None
    verdict: str | None


@dataclass(frozen=True)
class SplitDay:
    """One day of experiments.split_by_day: natural log of the p-value of all units so far, and what it must not be below."""

    experiment_id: str
    day: date
    log_p: float
    broken_below: float


@dataclass(frozen=True)
class Decided:
    """One row of experiments.decisions, in words."""

    experiment_id: str
    decision: str
    reasons: str
    stopped: bool

    @property
    def serving(self) -> str:
        """What applications are told."""
        return " Applications show control." if self.stopped else ""

    @property
    def told(self) -> str:
        """One line for a terminal; why something was stopped stands among its verdicts."""
        return self.decision if self.stopped else f"{self.decision} ({self.reasons})"


@dataclass(frozen=True)
class AlertRow:
    """One row of ops.alerts."""

    alert_id: str
    raised_at: str
    kind: str
    severity: str
    subject: str
    message: str
    resolved_at: str | None


@dataclass(frozen=True)
class RunSummary:
    """What the published tables say; empty tuples where a table is empty or absent.

    as_of is the clock of the published tables (UTC); null when nothing has been published with one.
    lacks says what the shop does not have.
    """

    as_of: datetime | None
    days: tuple[DayCounts, ...]
    reasons: tuple[Reason, ...]
    segments: tuple[Segment, ...]
    metrics: tuple[Metric, ...]
    served_by: tuple[ServedBy, ...]
    scores: tuple[Score, ...]
    split_days: tuple[SplitDay, ...]
    decisions: tuple[Decided, ...]
    alerts: tuple[AlertRow, ...]
    lacks: tuple[str, ...] = ()
    withdrawals: tuple[Withdrawal, ...] = ()

    @property
    def files(self) -> int:
        """Number of landed files that were ingested."""
        return sum(day.files for day in self.days)

    @property
    def events_in(self) -> int:
        """Rows read: unparsable + suppressed + quarantined + accepted."""
        return sum(day.rows_in for day in self.days)

    @property
    def accepted(self) -> int:
        """Rows that passed every stage, duplicates among them."""
        return sum(day.accepted for day in self.days)

    @property
    def duplicates(self) -> int:
        """Accepted rows whose event_id had been accepted before."""
        return sum(day.duplicates for day in self.days)

    @property
    def quarantined(self) -> int:
        """Rows that broke their contract."""
        return sum(day.quarantined for day in self.days)

    @property
    def suppressed(self) -> int:
        """Rows without consent; counted, never stored."""
        return sum(day.suppressed for day in self.days)

    @property
    def unparsable(self) -> int:
        """Rows that are no JSON object."""
        return sum(day.unparsable for day in self.days)

    @property
    def quarantined_by_code(self) -> dict[str, int]:
        """Reason code -> mentions, most frequent first."""
        counts: Counter[str] = Counter()
        for reason in self.reasons:
            counts[reason.code] += reason.rows
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def slice(self) -> str | None:
        """The slice of users that models are compared on: 'all' where there is one."""
        names = sorted({metric.slice for metric in self.metrics})
        return None if not names else "all" if "all" in names else names[0]

    @property
    def models(self) -> tuple[str, ...]:
        """Evaluated models, the baseline last."""
        names = {metric.model for metric in self.metrics}
        return tuple(sorted(names, key=lambda name: (name == BASELINE, name != SERVES, name)))

    @property
    def main_models(self) -> tuple[str, ...]:
        """What would serve, LightFM alone and the baseline; all models where nothing says which one would serve."""
        return tuple(name for name in self.models if name in (SERVES, "lightfm", BASELINE) or SERVES not in self.models)

    @property
    def ndcg_at_10(self) -> dict[str, Metric]:
        """Model -> its NDCG@10 on `slice`, the baseline last."""
        found = {m.model: m for m in self.metrics if m.slice == self.slice and m.label.lower() == "ndcg@10"}
        return {model: found[model] for model in self.main_models if model in found}

    @property
    def ndcg_difference(self) -> Metric | None:
        """NDCG@10 of the first model minus the baseline's, paired by user; None where it was not measured."""
        wanted = [m for m in self.metrics if m.slice == self.slice and m.metric == "ndcg" + DIFFERENCE and m.k == 10]
        measured = {m.model: m for m in wanted if m.value is not None}
        return next((measured[name] for name in self.models if name in measured and name != BASELINE), None)

    @property
    def users_with_recommendations(self) -> int:
        """Users who have a list."""
        return sum(row.users for row in self.served_by)

    @property
    def experiments(self) -> tuple[str, ...]:
        """Experiments with a scorecard, in the order of their names."""
        return tuple(sorted({score.experiment_id for score in self.scores}))

    def decision(self, experiment_id: str) -> Decided | None:
        """What was decided of one experiment."""
        return next((one for one in self.decisions if one.experiment_id == experiment_id), None)

    def scorecard(self, experiment_id: str) -> dict[str, list[Score]]:
        """Rows of one experiment by role ('srm', 'primary', 'secondary', 'guardrail')."""
        rows: dict[str, list[Score]] = {}
        for score in self.scores:
            if score.experiment_id == experiment_id:
                rows.setdefault(score.role, []).append(score)
        return rows

    def split_of(self, experiment_id: str) -> list[SplitDay]:
        """The split of one experiment day by day."""
        return [one for one in self.split_days if one.experiment_id == experiment_id]

    @property
    def open_alerts(self) -> tuple[AlertRow, ...]:
        """Alerts not resolved."""
        return tuple(alert for alert in self.alerts if alert.resolved_at is None)

    @property
    def told_one_by_one(self) -> tuple[AlertRow, ...]:
        """Open alerts that are shown each: all critical ones, and of another kind those that are few."""
        many = {alert for group in self.told_together.values() for alert in group}
        return tuple(alert for alert in self.open_alerts if alert not in many)

    @property
    def told_together(self) -> dict[tuple[str, str], list[AlertRow]]:
        """(severity, kind) -> open alerts of a kind that has many: a dirty first file gives one per kind of failure."""
        groups: dict[tuple[str, str], list[AlertRow]] = {}
        for alert in self.open_alerts:
            groups.setdefault((alert.severity, alert.kind), []).append(alert)
        return {key: group for key, group in groups.items() if key[0] != "critical" and len(group) > FEW_ALERTS}


def summary(published: Path) -> RunSummary:
    """Read the summary from a published DuckDB file.

    Raises
    ------
    InputError : there is no such file, or it is no DuckDB database.
    """
    if not published.exists():
        raise InputError("nothing has been published yet", published, "run the pipeline first: make run")
    try:
        con = duckdb.connect(str(published), read_only=True)
    except duckdb.Error as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"cannot be read: {problem}", published, "run the pipeline again: make run") from None
    try:
        con.execute("SET TimeZone = 'UTC'")
        return RunSummary(
            as_of=_as_of(con),
            days=_read(con, DayCounts, "ops.ingested_files", _DAYS),
            reasons=_read(con, Reason, "ops.quarantine_reasons", _REASONS),
            segments=_read(con, Segment, "segments.catalog", _SEGMENTS),
            metrics=_served_bundle(con, _read(con, Metric, "recommendations.offline_metrics", _METRICS)),
            served_by=_read(con, ServedBy, "recommendations.user_recommendations", _SERVED_BY),
            scores=_read(con, Score, "experiments.scorecard", _SCORES),
            split_days=_read(con, SplitDay, "experiments.split_by_day", _SPLIT_DAYS),
            decisions=_read(con, Decided, "experiments.decisions", _DECISIONS),
            alerts=_read(con, AlertRow, "ops.alerts", _ALERTS),
            lacks=lacking(con),
            withdrawals=_read(con, Withdrawal, "ops.withdrawals", _WITHDRAWALS),
        )
    finally:
        con.close()


_DAYS = """
SELECT CAST(max_received_at::TIMESTAMPTZ AT TIME ZONE 'UTC' AS DATE) AS day, count(*) AS files,
       sum(rows_in)::BIGINT, sum(accepted)::BIGINT, sum(duplicates)::BIGINT, sum(quarantined)::BIGINT,
       sum(suppressed)::BIGINT, sum(unparsable)::BIGINT
FROM ops.ingested_files GROUP BY ALL ORDER BY day NULLS LAST
"""

_REASONS = """
SELECT coalesce(event, '(no event name)'), code, coalesce(path, ''), sum(rows)::BIGINT AS n
FROM ops.quarantine_reasons GROUP BY ALL ORDER BY n DESC, 1, 2, 3
"""

_SEGMENTS = "SELECT segment, description, owner, ttl_days, size FROM segments.catalog ORDER BY segment"

# Of the latest run that counted, where there was any.
_WITHDRAWALS = """
SELECT purpose, people, memberships, lists, interactions FROM ops.withdrawals
WHERE as_of = (SELECT max(as_of) FROM ops.withdrawals) AND people + memberships + lists + interactions > 0 ORDER BY purpose
"""

_METRICS = """
SELECT bundle_version::VARCHAR, model, strftime(cut_date::TIMESTAMPTZ AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M'),
       coalesce(slice, 'all'), metric, k,
       value, ci_low, ci_high, users
FROM recommendations.offline_metrics
WHERE cut_date IS NULL OR NOT EXISTS (SELECT 1 FROM recommendations.offline_metrics WHERE cut_date IS NULL)
ORDER BY ALL
"""

_SERVED_BY = """
SELECT served_by, count(DISTINCT user_id) AS users
FROM recommendations.user_recommendations GROUP BY served_by ORDER BY users DESC, served_by
"""

# The latest scorecard of each experiment: the table may keep those of earlier days.
_SCORES = """
SELECT experiment_id, coalesce(variant, ''), metric, role, n, value, control_value, lift, ci_low, ci_high,
       coalesce(log_p, CASE WHEN p_value > 0 THEN ln(p_value) END), method, verdict
FROM experiments.scorecard
QUALIFY as_of = max(as_of) OVER (PARTITION BY experiment_id)
ORDER BY experiment_id, list_position(['srm', 'primary', 'secondary', 'guardrail'], role) NULLS LAST, metric, variant
"""

_SPLIT_DAYS = """
SELECT DISTINCT experiment_id, day, log_p, broken_below FROM experiments.split_by_day WHERE log_p IS NOT NULL ORDER BY ALL
"""

_DECISIONS = """
SELECT experiment_id, CASE decision WHEN 'stop_srm' THEN 'stop, the split is broken' WHEN 'stop_harm' THEN 'stop, it does harm'
       ELSE replace(decision, '_', ' ') END, array_to_string(reasons, '; '), stopped
FROM experiments.decisions
"""

_ALERTS = """
SELECT alert_id, strftime(raised_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M'), kind, severity, subject, message,
       strftime(resolved_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M')
FROM ops.alerts
ORDER BY resolved_at IS NOT NULL, list_position(['critical', 'warning', 'info'], severity), raised_at DESC, alert_id
"""

# Every published table carries the run's clock; the files' own times only stand in when nothing else was published.
_CLOCKS = (
    ("segments.catalog", "refreshed_at"),
    ("experiments.scorecard", "as_of"),
    ("recommendations.user_recommendations", "generated_at"),
)


def _exists(con: duckdb.DuckDBPyConnection, relation: str) -> bool:
    sql = "SELECT 1 FROM information_schema.tables WHERE table_schema || '.' || table_name = ?"
    return con.execute(sql, [relation]).fetchone() is not None


def _read(con: duckdb.DuckDBPyConnection, row_type: type[Row], relation: str, sql: str) -> tuple[Row, ...]:
    """Rows of one query as typed objects; NaN becomes null; nothing when the relation is absent."""
    if not _exists(con, relation):
        return ()
    width = len(fields(row_type))  # type: ignore[arg-type]
    rows = con.execute(sql).fetchall()
    return tuple(row_type(*(_not_nan(value) for value in row[:width])) for row in rows)


def _not_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _as_of(con: duckdb.DuckDBPyConnection) -> datetime | None:
    times = [_latest(con, relation, column) for relation, column in _CLOCKS]
    known = [time for time in times if time is not None]
    return max(known) if known else _latest(con, "ops.ingested_files", "max_received_at")


def _latest(con: duckdb.DuckDBPyConnection, relation: str, column: str) -> datetime | None:
    if not _exists(con, relation):
        return None
    row = con.execute(f"SELECT epoch_us(max({column})::TIMESTAMPTZ) FROM {relation}").fetchone()
    return None if row is None or row[0] is None else datetime.fromtimestamp(row[0] / 1e6, tz=UTC)


def _served_bundle(con: duckdb.DuckDBPyConnection, metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """Metrics of the bundle that made the lists; of the latest evaluation when none of it is there."""
    served: set[str] = set()
    if _exists(con, "recommendations.user_recommendations"):
        sql = "SELECT DISTINCT bundle_version::VARCHAR FROM recommendations.user_recommendations"
        served = {row[0] for row in con.execute(sql).fetchall()}
    chosen = [metric for metric in metrics if metric.bundle_version in served] or list(metrics)
    if not chosen:
        return ()
    latest = max((metric.cut_date or "", metric.bundle_version) for metric in chosen)
    return tuple(metric for metric in chosen if (metric.cut_date or "", metric.bundle_version) == latest)
