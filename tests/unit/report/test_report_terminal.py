"""The table at the end of a run: short, with the same figures as the page."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from zantara_pipeline.report import render_terminal, summary
from zantara_pipeline.report.words import NOTHING


def render(published: Path, width: int = 110, report: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    render_terminal(summary(published), console, report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_terminal_tells_what_the_issue_asks_for(shop: Path) -> None:
    text = render(shop, report=Path("data/reports/index.html"))
    for words in (
        "143,396 in 28 files", "128,940 (89.9 %), 1,147 of them duplicates", "wrong_type 2,875", "suppressed",
        "recent_buyers 412", "lightfm 0.0812 [0.0771, 0.0853]", "popularity 0.0590", "310 by lightfm",
        "primary conversion: +18.2 % [+11.8 %, +25.2 %] better", "p 1.0e-260 srm", "+62.0 % [+55.0 %, +69.0 %] harm",
        "2 open, 1 resolved", "data/reports/index.html", "make ui", "make models", "make docs",
    ):  # fmt: skip
        assert words in text, words
    assert len(text.splitlines()) < 60


def test_withdrawals_of_this_run_are_told_by_purpose_and_only_where_there_were_any(
    shop: Path, empty_shop: Path
) -> None:
    text = render(shop)
    assert "personalization: 3 people; ended: 10 memberships, 1 list, 1,240 interactions" in text
    assert "analytics: " not in text and "withdrawn" not in render(empty_shop)


def test_terminal_says_nothing_to_do_where_there_is_nothing(bare_shop: Path) -> None:
    text = " ".join(render(bare_shop).split())
    for section in ("events", "segments", "metrics", "served", "experiments", "alerts"):
        assert NOTHING[section] in text


def test_square_brackets_in_data_are_not_markup(shop: Path) -> None:
    import duckdb

    with duckdb.connect(str(shop)) as con:
        con.execute("UPDATE ops.alerts SET subject = '[bold]x[/nonsense]', resolved_at = NULL")
        con.execute("UPDATE experiments.scorecard SET experiment_id = '[red]y[/]'")
    text = render(shop)
    assert "[bold]x[/nonsense]" in text
    assert "[red]y[/]" in text


def test_terminal_fits_a_narrow_window(shop: Path) -> None:
    assert max(len(line.rstrip()) for line in render(shop, width=60).splitlines()) <= 60


def test_many_alerts_of_a_kind_are_one_line_and_critical_ones_are_each_told(shop: Path) -> None:
    import duckdb

    with duckdb.connect(str(shop)) as con:
        con.execute(
            "INSERT INTO ops.alerts SELECT 'n' || n, raised_at, 'new_failure', 'warning', 'event/' || (n % 2), "
            "'new in quarantine: reason ' || n, '{}', 'n' || n, NULL FROM range(4) AS numbers (n), "
            "(SELECT raised_at FROM ops.alerts WHERE alert_id = 'a1')"
        )
    text = render(shop, width=200)
    assert "6 open, 1 resolved" in text
    assert "warning: 4 of kind new_failure: event/0 2, event/1 2" in text and "reason 1" not in text
    assert text.count("critical: experiment/") == 2
