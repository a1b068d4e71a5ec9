"""The plots of the page as inline SVG.

Belongs here: drawing with matplotlib, in colours that follow the page's CSS variables, the same bytes for the same
numbers. Does not belong here: choosing or computing what is drawn.

Each plot is drawn twice, for wide and for narrow windows; CSS shows one. Colours are drawn as marker values and
replaced by CSS variables, so that dark mode needs no second drawing.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from html import escape
from typing import TYPE_CHECKING, Any

from zantara_pipeline.report import words
from zantara_pipeline.report.summary import DayCounts, Metric, Score, SplitDay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that no drawing uses otherwise -> CSS variables of style.py.
_MARKERS = {
    "#010203": "--ink",
    "#010204": "--muted",
    "#010205": "--line",
    "#010206": "--accepted",
    "#010207": "--duplicates",
    "#010208": "--quarantined",
    "#010209": "--suppressed",
    "#01020a": "--unparsable",
    "#01020b": "--model",
    "#01020c": "--baseline",
    "#01020d": "--good",
    "#01020e": "--bad",
    "#01020f": "--neutral",
}
_COLOUR = {variable.removeprefix("--"): marker for marker, variable in _MARKERS.items()}

WIDE_INCHES, NARROW_INCHES = 9.4, 4.4
OUTCOMES = ("accepted", "duplicates", "quarantined", "suppressed", "unparsable")
_MAX_DAY_BARS, _MAX_WEEK_BARS = 100, 110

Draw = Callable[["Figure", bool], None]


def outcome_bars(days: Sequence[DayCounts]) -> tuple[str, str]:
    """Stacked bars of rows by outcome per received day (weeks or months when the span is long).

    Returns
    -------
    (svg, bucket) : the markup and 'day', 'week' or 'month'.
    """
    bucket, starts, stacks = _buckets([day for day in days if day.day is not None])

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        bottom = [0] * len(starts)
        for outcome in OUTCOMES:
            axes.bar(range(len(starts)), stacks[outcome], 0.82, bottom=bottom, color=_COLOUR[outcome], linewidth=0)
            bottom = [low + more for low, more in zip(bottom, stacks[outcome], strict=True)]
        step = math.ceil(len(starts) / (4 if narrow else 9))
        ticks = range(0, len(starts), step)
        axes.set_xticks(ticks, [starts[tick].isoformat() for tick in ticks])
        axes.set_xlim(-0.7, max(len(starts) - 0.3, 3))
        axes.yaxis.set_major_formatter(_engineering())
        axes.grid(axis="y")

    return _both("outcomes", f"Rows by outcome per received {bucket}", draw, 2.5, 2.6), bucket


def metric_panels(metrics: Sequence[Metric], models: Sequence[str]) -> str:
    """One small panel per metric: each model's value with its confidence interval; scales start at 0."""
    labels = sorted({metric.label for metric in metrics}, key=_metric_order)
    by_key = {(metric.label, metric.model): metric for metric in metrics}
    wide_columns = min(3, len(labels))

    def draw(figure: Figure, narrow: bool) -> None:
        columns = 1 if narrow else wide_columns
        rows = math.ceil(len(labels) / columns)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, label in zip(grid, labels, strict=False):
            _metric_panel(axes, label, [by_key.get((label, model)) for model in models], models)
        for axes in grid[len(labels) :]:
            axes.set_visible(False)
        if not narrow:
            for index, axes in enumerate(grid[: len(labels)]):
                if index % columns:
                    axes.set_yticklabels([])

    def height(columns: int) -> float:
        return math.ceil(len(labels) / columns) * (0.7 + 0.24 * len(models))

    return _both("metrics", "Offline metrics by model with confidence intervals", draw, height(wide_columns), height(1))


def forest(experiment_id: str, scores: Sequence[Score]) -> str:
    """Relative lift with its confidence interval, one line a metric and variant; zero is no effect.

    An interval that goes beyond ±100 % is cut at the edge with an arrow; its numbers stand in the table.
    """
    drawn = [score for score in scores if score.lift is not None]
    bounds = _forest_bounds(drawn)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for row, score in enumerate(drawn):
            _forest_line(axes, len(drawn) - 1 - row, score, bounds)
        axes.axvline(0, color=_COLOUR["ink"], linewidth=0.8)
        names = [_forest_name(score, len({other.variant for other in drawn}) > 1, narrow) for score in drawn]
        axes.set_yticks(range(len(drawn))[::-1], names)
        axes.set_ylim(-0.6, len(drawn) - 0.4)
        axes.set_xlim(*bounds)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g} %" if value else "0")
        axes.xaxis.set_major_locator(_few_ticks(4 if narrow else 8))
        axes.grid(axis="x")

    tall = 0.55 + 0.3 * len(drawn)
    return _both(f"forest {experiment_id}", f"Relative lift in {experiment_id}", draw, tall, tall + 0.1)


def split(experiment_id: str, days: Sequence[SplitDay]) -> str:
    """p-value of the split day by day, on a scale of powers of ten; the dashed line is what it must not fall below."""
    powers = [day.log_p / math.log(10) for day in days]
    limit = math.log10(days[-1].broken_below)
    colour = _COLOUR["bad" if min(powers) < limit else "good"]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.plot(range(len(days)), powers, color=colour, linewidth=1.8)
        axes.plot([len(days) - 1], powers[-1:], "o", color=colour, markersize=6, markeredgewidth=0)
        axes.axhline(limit, color=_COLOUR["ink"], linewidth=0.8, linestyle=(0, (4, 3)))
        step = math.ceil(len(days) / (3 if narrow else 8))
        ticks = range(0, len(days), step)
        axes.set_xticks(ticks, [days[tick].day.isoformat() for tick in ticks])
        axes.set_ylim(min(*powers, limit) * 1.1, 0.3)
        axes.yaxis.set_major_formatter(lambda value, _: "1" if value == 0 else f"1e{value:g}" if value < 0 else "")
        axes.yaxis.set_major_locator(_few_ticks(5, integer=True))
        axes.grid(axis="y")

    return _both(f"split {experiment_id}", f"p-value of the split of {experiment_id} by day", draw, 1.5, 1.7)


def _buckets(days: Sequence[DayCounts]) -> tuple[str, list[date], dict[str, list[int]]]:
    known = [day.day for day in days if day.day is not None]
    span = (max(known) - min(known)).days + 1 if known else 0
    bucket = "day" if span <= _MAX_DAY_BARS else "week" if span <= 7 * _MAX_WEEK_BARS else "month"
    starts = _all_starts(min(known), max(known), bucket) if known else []
    place = {start: index for index, start in enumerate(starts)}
    stacks = {outcome: [0] * len(starts) for outcome in OUTCOMES}
    for day in days:
        if day.day is not None:
            index = place[_start(day.day, bucket)]
            for outcome in OUTCOMES:
                rows = day.accepted - day.duplicates if outcome == "accepted" else getattr(day, outcome)
                stacks[outcome][index] += rows
    return bucket, starts, stacks


def _start(day: date, bucket: str) -> date:
    if bucket == "day":
        return day
    return day - timedelta(days=day.weekday()) if bucket == "week" else day.replace(day=1)


def _all_starts(first: date, last: date, bucket: str) -> list[date]:
    """Every bucket from first to last, so that days without files show as gaps."""
    return sorted({_start(first + timedelta(days=n), bucket) for n in range((last - first).days + 1)})


def _metric_order(label: str) -> tuple[int, str]:
    known = ("ndcg", "mrr", "recall", "precision", "hit", "coverage")
    name = label.lower()
    return next((index for index, word in enumerate(known) if name.startswith(word)), len(known)), name


def _metric_panel(axes: Axes, label: str, rows: Sequence[Metric | None], models: Sequence[str]) -> None:
    top = 0.0
    for place, row in enumerate(rows):
        if row is None or row.value is None:
            continue
        colour = _COLOUR["baseline" if place == len(models) - 1 and len(models) > 1 else "model"]
        y = len(models) - 1 - place
        if row.ci_low is not None and row.ci_high is not None:
            axes.plot([row.ci_low, row.ci_high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([row.value], [y], "o", color=colour, markersize=6, markeredgewidth=0)
        end = max(row.value, row.ci_high or 0)
        axes.annotate(f"{row.value:.3f}", (end, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
        top = max(top, end)
    axes.set_title(label, loc="left", fontsize=9, fontweight="bold", color=_COLOUR["ink"])
    axes.set_yticks(range(len(models))[::-1], models)
    axes.set_ylim(-0.6, len(models) - 0.4)
    axes.set_xlim(0, top * 1.28 or 1)  # room for the number
    axes.xaxis.set_major_locator(_few_ticks(4))
    axes.grid(axis="x")


def _forest_bounds(scores: Sequence[Score]) -> tuple[float, float]:
    """Limits that hold 0 and every lift; intervals are cut at ±100 %, beyond which they tell nothing but "no idea"."""
    known = [value for s in scores for value in (s.ci_low, s.ci_high) if value is not None]
    inside = [0.0, *(s.lift for s in scores if s.lift is not None), *(min(max(v, -1.0), 1.0) for v in known)]
    margin = 0.06 * (max(inside) - min(inside)) or 0.01
    return min(inside) - margin, max(inside) + margin


def _forest_line(axes: Axes, y: int, score: Score, bounds: tuple[float, float]) -> None:
    colour, (left, right) = _COLOUR[words.tone(score.verdict)], bounds
    if score.ci_low is not None and score.ci_high is not None:
        ends = [max(score.ci_low, left), min(score.ci_high, right)]
        axes.plot(ends, [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        for beyond, end, arrow in ((score.ci_low < left, left, 8), (score.ci_high > right, right, 9)):
            if beyond:  # 8 and 9: matplotlib's carets whose point lies on the coordinate
                axes.plot([end], [y], marker=arrow, color=colour, markersize=6, markeredgewidth=0)
    assert score.lift is not None
    axes.plot([score.lift], [y], "s", color=colour, markersize=6, markeredgewidth=0)


def _forest_name(score: Score, many_variants: bool, narrow: bool) -> str:
    name = f"{score.metric} ({score.variant})" if many_variants else score.metric
    longest = 20 if narrow else 40
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _engineering() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def _few_ticks(most: int, *, integer: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=integer)


def _both(name: str, title: str, draw: Draw, wide_height: float, narrow_height: float) -> str:
    wide = _svg(f"{name} wide", title, draw, False, (WIDE_INCHES, wide_height))
    narrow = _svg(f"{name} narrow", title, draw, True, (NARROW_INCHES, narrow_height))
    return f'<figure class="wide">{wide}</figure><figure class="narrow">{narrow}</figure>'


def _svg(salt: str, title: str, draw: Draw, narrow: bool, size: tuple[float, float]) -> str:
    """Draw one figure to SVG: ids hashed with a salt of its own, no dates, CSS variables for colours."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "text.parse_math": False,  # names from data may hold a dollar sign
        "font.size": 8.5,
        "text.color": _COLOUR["ink"],
        "xtick.color": _COLOUR["muted"],
        "ytick.color": _COLOUR["muted"],
        "ytick.labelcolor": _COLOUR["ink"],
        "xtick.major.size": 0,
        "xtick.major.pad": 6,
        "ytick.major.size": 0,
        "axes.edgecolor": _COLOUR["line"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "axes.grid": False,
        "grid.color": _COLOUR["line"],
        "grid.linewidth": 0.7,
    }
    with rc_context(style):
        spacing = ConstrainedLayoutEngine(h_pad=0.08, hspace=0.04)  # inches, share of a panel
        figure = Figure(figsize=size, layout=spacing)
        FigureCanvasSVG(figure)
        draw(figure, narrow)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """Only the drawing: no prolog, metadata, comments, own style sheet, fixed size, or ids that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page's own
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    for marker, variable in _MARKERS.items():
        svg = svg.replace(marker, f"var({variable})")
    svg = re.sub(r'width="[^"]*pt" height="[^"]*pt"', f'role="img" aria-label="{escape(title)}"', svg, count=1)
    return re.sub(r"\s*\n\s*", " ", svg).strip()
