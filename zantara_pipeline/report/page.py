"""The HTML report: one self-contained page on the published tables.

Belongs here: sections, tables and captions of the page. Does not belong here: queries (summary.py), drawing (plots.py).
Everything that comes from data passes through `escape`; the page fetches nothing and holds no wall clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from zantara_pipeline.errors import InputError
from zantara_pipeline.report import plots, words
from zantara_pipeline.report.style import CSS
from zantara_pipeline.report.summary import PAIRED, AlertRow, DayCounts, Metric, RunSummary, Score, summary

_MOST_REASONS = 15


def build_report(published: Path, out: Path) -> Path:
    """Write the report.

    Parameters
    ----------
    published : the published DuckDB file; only read.
    out : the HTML file (data/reports/index.html); written beside and renamed, so a reader never sees half a page.

    Returns
    -------
    out. The same tables give the same bytes.

    Raises
    ------
    InputError : nothing is published, or the page cannot be written.
    """
    html = render_page(summary(published))
    beside = out.with_name(out.name + ".new")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(html, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise InputError(f"the report cannot be written ({error.strerror})", out, "free space or permissions") from None
    return out


def render_page(run: RunSummary) -> str:
    """The page as text."""
    parts = (_events, _quarantine, _segments, _withdrawals, _models, _served, _experiments, _alerts)
    sections = "\n".join(f"<section>\n{part(run)}\n</section>" for part in parts)
    as_of = "no as_of" if run.as_of is None else f"as of {run.as_of:%Y-%m-%d %H:%M} UTC"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>zantara report, {as_of}</title>
<style>
{CSS}</style>
</head>
<body>
<main>
<h1>What the last run found</h1>
<p class="sub">{as_of}; {words.count(run.files)} event file{"" if run.files == 1 else "s"} ingested so far.
Times are UTC.</p>
{_lacks(run)}
{sections}
{_next()}
</main>
</body>
</html>
"""


def _lacks(run: RunSummary) -> str:
    if not run.lacks:
        return ""
    items = "".join(f"<li>{escape(said)}</li>" for said in run.lacks)
    return f"<section><h2>What this shop does not have</h2><ul>{items}</ul></section>"


def _events(run: RunSummary) -> str:
    head = "<h2>Events</h2>"
    if not run.days:
        return head + _nothing("events")
    tiles = [_tile("events in", run.events_in, None, run), _tile("accepted", run.accepted, "accepted", run)]
    if run.duplicates:
        tiles.append(_tile("of them duplicates", run.duplicates, "duplicates", run))
    tiles += [_tile(name, getattr(run, name), name, run) for name in ("quarantined", "suppressed", "unparsable")]
    note = (
        "Every row is counted by the first stage that applies: unparsable (no JSON object), suppressed (no consent; "
        "counted, not stored), quarantined (breaks its contract), accepted. A duplicate is an accepted row whose "
        "event_id had been accepted before."
    )
    return f'{head}<div class="tiles">{"".join(tiles)}</div>{_daily(run.days)}<p class="note">{note}</p>'


def _daily(days: Sequence[DayCounts]) -> str:
    if not any(day.day for day in days):
        return ""
    svg, bucket = plots.outcome_bars(days)
    caption = f"Rows per {bucket} received; a file counts on the day of its latest received_at."
    columns = ("day", "files", "rows in", "accepted", "duplicates", "quarantined", "suppressed", "unparsable")
    rows = [
        (
            "(no accepted row)" if day.day is None else day.day.isoformat(),
            *(words.count(getattr(day, name.replace(" ", "_"))) for name in columns[1:]),
        )
        for day in days
    ]
    table = _table(columns, [[escape(cell) for cell in row] for row in rows], numbers=range(1, 8))
    return f"{svg}<p class='note'>{caption}</p><details><summary>The same as a table</summary>{table}</details>"


def _tile(label: str, value: int, colour: str | None, run: RunSummary) -> str:
    style = f' style="border-color: var(--{colour})"' if colour else ""
    part = f", {words.share(value, run.events_in)}" if colour else ""
    return f'<div class="tile"{style}><b>{words.count(value)}</b><span>{label}{part}</span></div>'


def _quarantine(run: RunSummary) -> str:
    head = "<h2>Quarantine by reason</h2>"
    if not run.reasons:
        return head + _nothing("quarantine")
    rows = [
        [escape(r.event), escape(r.code), f"<code>{escape(r.path)}</code>", words.count(r.rows)] for r in run.reasons
    ]
    columns = ("event", "reason", "where", "rows")
    table = _table(columns, rows[:_MOST_REASONS], numbers=[3])
    if len(rows) > _MOST_REASONS:
        rest = _table(columns, rows[_MOST_REASONS:], numbers=[3])
        table += f"<details><summary>{len(rows) - _MOST_REASONS} rarer reasons</summary>{rest}</details>"
    codes = ", ".join(f"{escape(code)} {words.count(n)}" for code, n in run.quarantined_by_code.items())
    note = "A row may break its contract in several places, so the reasons can add up to more than the rows."
    return f'{head}<p>{words.count(run.quarantined)} rows: {codes}.</p>{table}<p class="note">{note}</p>'


def _segments(run: RunSummary) -> str:
    head = "<h2>Segments</h2>"
    if not run.segments:
        return head + _nothing("segments")
    rows = [
        [
            f"<code>{escape(s.segment)}</code>",
            words.members(s.size),
            "-" if s.ttl_days is None else f"{s.ttl_days} days",
            escape(s.description or ""),
            escape(s.owner or ""),
        ]
        for s in run.segments
    ]
    table = _table(("segment", "members", "lifetime", "who is in it", "owner"), rows, numbers=[1], wide=[3])
    note = "Members are people who allow personalization. The SQL of each is in segments.catalog."
    return f'{head}{table}<p class="note">{note}</p>'


def _withdrawals(run: RunSummary) -> str:
    head = "<h2>Withdrawals since the run before</h2>"
    if not run.withdrawals:
        return head + _nothing("withdrawals")
    rows = [
        [escape(w.purpose), *(words.count(number) for number in (w.people, w.memberships, w.lists, w.interactions))]
        for w in run.withdrawals
    ]
    columns = ("purpose", "people", "memberships ended", "lists ended", "interactions that training no longer sees")
    return head + _table(columns, rows, numbers=range(1, 5))


def _models(run: RunSummary) -> str:
    head = "<h2>Recommendations: model against popularity</h2>"
    rows = [metric for metric in run.metrics if metric.slice == run.slice and not metric.metric.endswith(PAIRED)]
    if not rows:
        return head + _nothing("metrics")
    sentence = words.comparison(run)
    users = max((metric.users or 0 for metric in rows), default=0)
    bundle = escape(rows[0].bundle_version)
    when = f"Trained before {escape(rows[0].cut_date)}" if rows[0].cut_date else "Trained before several cuts in time"
    note = (
        f"{when}, measured on {words.count(users)} users after it (slice {escape(rows[0].slice)}); "
        f"bundle <code>{bundle}</code>. Bars are confidence intervals."
    )
    lead = f"<p>{escape(sentence)}</p>" if sentence else ""
    return (
        f'{head}{lead}{plots.metric_panels(_plotted(rows), run.models)}<p class="note">{note}</p>{_metric_table(run)}'
    )


def _plotted(rows: list[Metric]) -> list[Metric]:
    """Where there are many metrics, those that say how good a ranking is."""
    known = [row for row in rows if row.metric.split("@")[0].lower() in ("ndcg", "mrr", "recall", "map")]
    return known or rows


def _metric_table(run: RunSummary) -> str:
    rows = [
        [escape(m.slice), escape(m.label), escape(m.model), words.metric(m), words.count(m.users)] for m in run.metrics
    ]
    table = _table(("slice", "metric", "model", "value [interval]", "users"), rows, numbers=[3, 4])
    return f"<details><summary>All metrics and slices as a table</summary>{table}</details>"


def _served(run: RunSummary) -> str:
    head = "<h2>Who serves the lists</h2>"
    if not run.served_by:
        return head + _nothing("served")
    total = run.users_with_recommendations
    rows = [[escape(r.served_by), words.count(r.users), words.share(r.users, total)] for r in run.served_by]
    table = _table(("served by", "users", "share"), rows, numbers=[1, 2])
    return f"{head}<p>{words.count(total)} users have a list.</p>{table}"


def _experiments(run: RunSummary) -> str:
    head = "<h2>Experiments</h2>"
    if not run.experiments:
        return head + _nothing("experiments")
    note = (
        "Lift is relative to control, with its confidence interval. A broken split (sample ratio mismatch) makes every "
        "other line of that experiment invalid. Colours: "
        '<b class="good">better, safe</b>, <b class="bad">worse, harm, srm</b>, <b class="neutral">not decided</b>.'
    )
    return f'{head}<p class="note">{note}</p>' + "".join(_experiment(run, name) for name in run.experiments)


def _experiment(run: RunSummary, experiment_id: str) -> str:
    roles = run.scorecard(experiment_id)
    scores = [score for role, rows in roles.items() if role != "srm" for score in rows]
    has_lift = any(score.lift is not None for score in scores)
    split = _split(roles.get("srm", []))
    if (decided := run.decision(experiment_id)) is not None:
        split = (
            f"<p>Decision: <b>{escape(decided.decision)}</b>: {escape(decided.reasons)}.{decided.serving}</p>{split}"
        )
    plot = plots.forest(experiment_id, scores) if has_lift else ""
    days = run.split_of(experiment_id)
    if len(days) > 1:
        note = "p-value of the split by day of first exposure; below the dashed line the split is broken."
        split += f'<p class="note">{note}</p>{plots.split(experiment_id, days)}'
    columns = ("metric", "verdict", "lift [interval]", "p", "variant", "value", "control", "role", "method")
    table = _table(columns, [_score_row(score) for score in scores], numbers=[2, 3, 5, 6]) if scores else ""
    return f"<h3>{escape(experiment_id)}</h3>{split}{plot}{table}"


def _split(scores: Sequence[Score]) -> str:
    """One test for all variants; each variant's row repeats its p-value and has its own units."""
    if not scores:
        return ""
    units = ", ".join(f"{escape(s.variant)} {words.count(s.n)}" for s in scores if s.n is not None)
    first = scores[0]
    return f"<p>Split: {_mark(first.verdict)} (chi-square p = {words.p_value(first)}; units: {units}).</p>"


def _score_row(score: Score) -> list[str]:
    return [
        f"<code>{escape(score.metric)}</code>",
        _mark(score.verdict),
        words.lift(score),
        words.p_value(score),
        escape(score.variant),
        words.number(score.value),
        words.number(score.control_value),
        escape(score.role),
        escape(score.method or ""),
    ]


def _alerts(run: RunSummary) -> str:
    head = "<h2>Alerts</h2>"
    if not run.alerts:
        return head + _nothing("alerts")
    resolved = [alert for alert in run.alerts if alert.resolved_at is not None]
    parts = [f"<p>{len(run.open_alerts)} open, {len(resolved)} resolved.</p>"]
    if run.told_one_by_one:
        parts.append(_alert_table(run.told_one_by_one))
    for (severity, kind), group in run.told_together.items():
        said = escape(f"{severity}: {len(group)} of kind {kind.replace('_', ' ')}: {words.subjects(group)}")
        parts.append(f"<details><summary>{said}</summary>{_alert_table(group)}</details>")
    if resolved:
        parts.append(f"<details><summary>{len(resolved)} resolved</summary>{_alert_table(resolved)}</details>")
    return head + "".join(parts)


def _alert_table(alerts: Iterable[AlertRow]) -> str:
    severities = {"critical": "bad", "warning": "neutral", "info": "neutral"}
    rows = [
        [
            f'<span class="mark {severities.get(alert.severity, "neutral")}">{escape(alert.severity)}</span>',
            escape(alert.message),
            f"<code>{escape(alert.subject)}</code>",
            escape(alert.kind.replace("_", " ")),
            escape(alert.raised_at),
            escape(alert.resolved_at or "open"),
        ]
        for alert in alerts
    ]
    return _table(("severity", "what", "about", "kind", "raised", "resolved"), rows, wide=[1])


def _next() -> str:
    rows = [[f"<code>{escape(command)}</code>", escape(shows)] for command, shows in words.NEXT]
    return f"<section>\n<h2>Where to look next</h2>{_table(('type', 'to see'), rows)}\n</section>"


def _nothing(section: str) -> str:
    return f"<p>{escape(words.NOTHING[section].capitalize())}</p>"


def _mark(verdict: str | None) -> str:
    return f'<span class="mark {words.tone(verdict)}">{escape(verdict or "no verdict")}</span>'


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), wide: Iterable[int] = ()
) -> str:
    """A table of cells that are markup already (escape what comes from data before)."""
    classes = {**dict.fromkeys(numbers, ' class="n"'), **dict.fromkeys(wide, ' class="w"')}
    head = "".join(f"<th{classes.get(n, '')}>{name}</th>" for n, name in enumerate(columns))
    body = "\n".join(
        "<tr>" + "".join(f"<td{classes.get(n, '')}>{cell}</td>" for n, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
