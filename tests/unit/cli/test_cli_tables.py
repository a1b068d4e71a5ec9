"""Tables in a pipe: each row on one line, whole, and every cell as it stands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pipeline_homes import zantara

from zantara_pipeline.alerts import AlertLedger, Finding
from zantara_pipeline.cli.table import print_table
from zantara_pipeline.storage.home import Home

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
LONG = "a message of many words, " * 40


def test_a_row_is_a_line_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a[b]", "said"), [("[red]x[/red]", LONG.strip()), ("[link=http://x]y", ":warning:")])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["a[b]", "said"]
    assert first.startswith(" [red]x[/red]") and LONG.strip() in first
    assert second.split() == ["[link=http://x]y", ":warning:"]


def test_alerts_in_a_pipe_are_whole(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    AlertLedger(home.state / "alerts.db").raise_alert(Finding("srm", "critical", "experiment/[e]", LONG.strip()), AS_OF)
    listed = zantara(tmp_path, "alerts", "list")
    assert any(LONG.strip() in line and "experiment/[e]" in line for line in listed.out.splitlines())


@pytest.mark.parametrize(
    "verb",
    [("quarantine", "list"), ("quarantine", "replay"), ("alerts", "list"), ("alerts", "deliver"), ("plan", "health"),
     ("plan", "retention"), ("experiment", "list"), ("segments", "list"), ("privacy", "consent", "u1")],
    ids=" ".join,
)  # fmt: skip
def test_of_a_home_that_is_not_there_nothing_is_said(tmp_path: Path, verb: tuple[str, ...]) -> None:
    wrong = tmp_path / "mistyped"
    assert str(wrong) in zantara(wrong, *verb, code=2).only_line
    assert not wrong.exists()
