"""Wording shared by the terminal and the page: numbers, percentages, verdicts, where to look next.

Belongs here: turning a value into a few plain words. Does not belong here: layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from zantara_pipeline.report.summary import AlertRow, Metric, RunSummary, Score, Withdrawal

NOTHING = {
    "events": "nothing to do: no event file has been ingested.",
    "quarantine": "nothing to do: no row is in quarantine.",
    "segments": "nothing to do: no segment has been published.",
    "withdrawals": "nobody withdrew since the run before.",
    "metrics": "nothing to do: no model has been evaluated (too few interactions with consent to split by time).",
    "served": "nothing to do: no recommendation lists have been published.",
    "experiments": "nothing to do: no experiment has exposures to analyse.",
    "alerts": "nothing to do: no alert has been raised.",
}
"""What a section says when its tables are empty or absent."""

NEXT = (
    ("make ui", "the graph, runs, checks and asset metadata (Dagster)"),
    ("make models", "model versions, parameters and metrics (MLflow)"),
    ("make docs", "every table and column with its lineage (dbt docs)"),
)
"""Where to look next: command and what it shows."""

# The words of experiments/verdicts.py; every other one (inconclusive, underpowered, keep running, no data) is neutral.
_GOOD = frozenset({"ok", "better", "safe"})
_BAD = frozenset({"srm", "worse", "harm", "invalid: srm"})


def tone(verdict: str | None) -> str:
    """'good', 'bad' or 'neutral': the colour of a verdict word."""
    return "bad" if verdict in _BAD else "good" if verdict in _GOOD else "neutral"


def count(value: int | None) -> str:
    """1234567 -> '1,234,567'; '-' when there is none."""
    return "-" if value is None else f"{value:,}"


def members(size: int | None) -> str:
    """A segment's size; the catalogue holds null where it is below the segment's minimum."""
    return "too few to show" if size is None else count(size)


def withdrawn(row: Withdrawal) -> str:
    """What ended with the withdrawals of one purpose."""
    parts = ((row.memberships, "membership"), (row.lists, "list"), (row.interactions, "interaction"))
    ended = ", ".join(f"{count(number)} {name}{'' if number == 1 else 's'}" for number, name in parts)
    return f"{row.purpose}: {count(row.people)} {'person' if row.people == 1 else 'people'}; ended: {ended}"


def share(part: int, whole: int) -> str:
    """'12.3 %' of a whole; tiny but present shares read '<0.1 %'."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    return "<0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def percent(value: float | None) -> str:
    """0.0423 -> '+4.2 %'."""
    return "-" if value is None else f"{100 * value:+.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Relative bounds as '[+1.0 %, +7.4 %]'."""
    return "" if low is None or high is None else f"[{percent(low)}, {percent(high)}]"


def number(value: float | None) -> str:
    """Four significant digits with thousands separators."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def subjects(alerts: Iterable[AlertRow], most: int = 8) -> str:
    """'event/purchase 4, event/rating 1': what alerts are about, most of them first."""
    counts = Counter(alert.subject for alert in alerts)
    named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(named) - most} others" if len(named) > most else ""
    return ", ".join(f"{subject} {count}" for subject, count in named[:most]) + more


def lift(score: Score) -> str:
    """'+4.2 % [+1.0 %, +7.4 %]'; of a guardrail between looks the interval alone, for the lift itself is withheld."""
    bounds = interval(score.ci_low, score.ci_high)
    return bounds if score.lift is None and bounds else f"{percent(score.lift)} {bounds}".strip()


def p_value(score: Score) -> str:
    """The p-value from its logarithm, never 0."""
    from zantara_pipeline.statistics import format_p  # brings scipy, 0.5 s

    return format_p(score.log_p)


def metric(row: Metric) -> str:
    """'0.0812 [0.0771, 0.0853]'."""
    if row.value is None:
        return "-"
    bounds = "" if row.ci_low is None or row.ci_high is None else f" [{row.ci_low:.4f}, {row.ci_high:.4f}]"
    return f"{row.value:.4f}{bounds}"


def comparison(summary: RunSummary) -> str | None:
    """One sentence on the model against the baseline; None when either is missing."""
    rows = list(summary.ndcg_at_10.values())
    if len(rows) < 2 or rows[-1].value is None or rows[0].value is None:
        return None
    model, baseline = rows[0], rows[-1]
    assert model.value is not None and baseline.value is not None
    if baseline.value == 0:
        return f"{model.model} has NDCG@10 {model.value:.4f}, {baseline.model} 0."
    gain = percent(model.value / baseline.value - 1)
    return f"{model.model} has {gain} NDCG@10 against {baseline.model}{_apart(summary, model, baseline)}"


def _apart(summary: RunSummary, model: Metric, baseline: Metric) -> str:
    """How sure that is: the interval of the paired difference, or else whether the two intervals overlap."""
    paired = summary.ndcg_difference
    if paired is not None and paired.ci_low is not None and paired.ci_high is not None:
        return f" (difference {paired.value:+.4f} [{paired.ci_low:+.4f}, {paired.ci_high:+.4f}], paired by user)."
    if model.ci_low is None or model.ci_high is None or baseline.ci_low is None or baseline.ci_high is None:
        return "."
    apart = model.ci_low > baseline.ci_high or model.ci_high < baseline.ci_low
    return "; their intervals do not overlap." if apart else "; their intervals overlap."
