"""The end of a run in the terminal: one short table and where to look next.

Belongs here: layout for rich. Does not belong here: figures (summary.py) and wording shared with the page (words.py).
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zantara_pipeline.report import words
from zantara_pipeline.report.summary import RunSummary, Score

_STYLES = {"good": "green", "bad": "bold red", "neutral": ""}
_MOST_ALERTS = 10


def render_terminal(summary: RunSummary, console: Console, report: Path | None = None) -> None:
    """Print the summary; `report` is the HTML page to point to, when one was written."""
    title = "Run" if summary.as_of is None else f"Run as of {summary.as_of:%Y-%m-%d %H:%M} UTC"
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for lines in (_events, _segments, _withdrawals, _recommendations, _experiments, _alerts, _lacks):
        before = table.row_count
        lines(summary, table)
        if table.row_count > before:
            table.add_row()
    console.print(table)
    _where_next(console, report)


def _row(table: Table, name: str, value: str | Text) -> None:
    """Text, not markup: names from data may hold square brackets."""
    table.add_row(Text(name), value if isinstance(value, Text) else Text(value))


def _events(summary: RunSummary, table: Table) -> None:
    if not summary.days:
        _row(table, "events in", words.NOTHING["events"])
        return
    total = summary.events_in
    files = "file" if summary.files == 1 else "files"
    _row(table, "events in", f"{words.count(total)} in {words.count(summary.files)} {files}")
    duplicates = f", {words.count(summary.duplicates)} of them duplicates" if summary.duplicates else ""
    _row(table, "  accepted", f"{words.count(summary.accepted)} ({words.share(summary.accepted, total)}){duplicates}")
    by_code = ", ".join(f"{code} {words.count(rows)}" for code, rows in summary.quarantined_by_code.items())
    _row(table, "  quarantined", words.count(summary.quarantined) + (f": {by_code}" if by_code else ""))
    _row(table, "  suppressed", f"{words.count(summary.suppressed)} (no consent; counted, not stored)")
    _row(table, "  unparsable", words.count(summary.unparsable))


def _segments(summary: RunSummary, table: Table) -> None:
    if not summary.segments:
        _row(table, "segments", words.NOTHING["segments"])
    for index, segment in enumerate(summary.segments):
        _row(table, "" if index else "segments", f"{segment.segment} {words.members(segment.size)}")


def _withdrawals(summary: RunSummary, table: Table) -> None:
    """Only where there were any: most runs of most shops have none."""
    for index, row in enumerate(summary.withdrawals):
        _row(table, "" if index else "withdrawn", words.withdrawn(row))


def _recommendations(summary: RunSummary, table: Table) -> None:
    if not summary.metrics:
        _row(table, "NDCG@10", words.NOTHING["metrics"])
    for index, (model, row) in enumerate(summary.ndcg_at_10.items()):
        _row(table, "" if index else "NDCG@10", f"{model} {words.metric(row)}")
    sentence = words.comparison(summary)
    if sentence:
        _row(table, "", sentence)
    if not summary.served_by:
        _row(table, "users served", words.NOTHING["served"])
        return
    by_model = ", ".join(f"{words.count(row.users)} by {row.served_by}" for row in summary.served_by)
    _row(table, "users served", f"{words.count(summary.users_with_recommendations)}: {by_model}")


def _experiments(summary: RunSummary, table: Table) -> None:
    if not summary.experiments:
        _row(table, "experiments", words.NOTHING["experiments"])
    for index, experiment in enumerate(summary.experiments):
        line = Text(experiment, style="bold")
        if (decided := summary.decision(experiment)) is not None:
            line.append(f"\n  decision: {decided.told}", style="not bold")
        roles = summary.scorecard(experiment)
        for score in roles.get("srm", [])[:1]:  # one test for all variants, repeated in each one's row
            line.append(f"\n  split: p {words.p_value(score)} ", style="not bold").append(_verdict(score))
        for role in ("primary", "guardrail"):
            for score in roles.get(role, []):
                line.append(f"\n  {role} {score.metric}: {words.lift(score)} ", style="not bold")
                line.append(_verdict(score))
        _row(table, "" if index else "experiments", line)


def _verdict(score: Score) -> Text:
    return Text(score.verdict or "no verdict", style=_STYLES[words.tone(score.verdict)] or "not bold")


def _alerts(summary: RunSummary, table: Table) -> None:
    if not summary.alerts:
        _row(table, "alerts", words.NOTHING["alerts"])
        return
    resolved = len(summary.alerts) - len(summary.open_alerts)
    _row(table, "alerts", f"{len(summary.open_alerts)} open, {resolved} resolved")
    for alert in summary.told_one_by_one[:_MOST_ALERTS]:
        style = "bold red" if alert.severity == "critical" else ""
        _row(table, "", Text(f"{alert.severity}: {alert.subject}: {alert.message}", style=style))
    if len(summary.told_one_by_one) > _MOST_ALERTS:
        _row(table, "", f"and {len(summary.told_one_by_one) - _MOST_ALERTS} more in the report")
    for (severity, kind), group in summary.told_together.items():
        _row(table, "", f"{severity}: {len(group)} of kind {kind}: {words.subjects(group)}")


def _lacks(summary: RunSummary, table: Table) -> None:
    for index, said in enumerate(summary.lacks):
        _row(table, "" if index else "this shop has", said)


def _where_next(console: Console, report: Path | None) -> None:
    table = Table(title="Where to look next", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=report is None, overflow="fold")
    table.add_column()
    if report is not None:
        _row(table, str(report), "this run as a page with plots")
    for command, shows in words.NEXT:
        _row(table, command, shows)
    console.print(table)
