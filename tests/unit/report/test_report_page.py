"""The page: self-contained, well formed, the same bytes for the same tables, safe against hostile names."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.report import build_report
from zantara_pipeline.report.words import NOTHING

Change = Callable[[str], None]
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Checker(HTMLParser):
    """Collects open tags, ids, references and visible text; fails on a wrong closing tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action"):
                self.references.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def build(shop: Path) -> Checker:
    checker = Checker(build_report(shop, shop.parent / "reports" / "index.html").read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def test_page_shows_every_section(shop: Path) -> None:
    text = build(shop).text
    for words in (
        "as of 2026-03-01 23:59 UTC", "143,396", "wrong_type 2,875", "recent_buyers", "too few to show",
        "lightfm has +37.6 % NDCG@10 against popularity; their intervals do not overlap.", "500 users have a list",
        "+18.2 % [+11.8 %, +25.2 %]", "p = 1.0e-260", "invalid: srm", "underpowered", "2 open, 1 resolved",
        "make ui", "make models", "make docs",
    ):  # fmt: skip
        assert words in text, words


def test_page_fetches_nothing_and_its_ids_are_unique(shop: Path) -> None:
    page = build(shop)
    assert [ref for ref in page.references if not ref.startswith("#")] == []
    assert {ref.removeprefix("#") for ref in page.references} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not page.tags & {"script", "link", "iframe", "img"}
    html = (shop.parent / "reports" / "index.html").read_text()
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    assert set(re.findall(r"https?://[^\"' )]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_names_from_data_are_text_not_markup(shop: Path, change: Change) -> None:
    evil = "<img src=x onerror=alert(1)> $x$ --> \"'"
    quoted = evil.replace("'", "''")
    change(f"UPDATE experiments.scorecard SET metric = '{quoted}', experiment_id = '{quoted}', method = '{quoted}'")
    change(f"UPDATE recommendations.offline_metrics SET model = '{quoted}' WHERE model = 'lightfm'")
    change(f"UPDATE segments.catalog SET segment = '{quoted}', description = '{quoted}', owner = '{quoted}'")
    page = build(shop)
    assert not page.tags & {"img", "script"}
    assert evil in page.text


def test_same_tables_same_bytes_in_another_process_state(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_report(shop, shop.parent / "one.html").read_bytes()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.utime(shop)
    assert build_report(shop, shop.parent / "two.html").read_bytes() == first


def test_empty_or_missing_tables_say_nothing_to_do(empty_shop: Path, bare_shop: Path) -> None:
    for path in (empty_shop, bare_shop):
        text = build(path).text.lower()
        for sentence in NOTHING.values():
            assert sentence.lower() in text, sentence


@pytest.mark.parametrize(
    ("days_apart", "bucket"), [(1, "day"), (20, "week"), (90, "month")], ids=["month of data", "1.5 years", "7 years"]
)
def test_long_histories_are_drawn_in_weeks_or_months(shop: Path, change: Change, days_apart: int, bucket: str) -> None:
    change(f"""UPDATE ops.ingested_files
        SET max_received_at = TIMESTAMPTZ '2019-01-01' + to_days({days_apart} * CAST(substr(file, 8, 2) AS INTEGER))""")
    assert f"Rows per {bucket} received" in build(shop).text


def test_a_file_without_an_accepted_row_is_still_counted(shop: Path, change: Change) -> None:
    change("UPDATE ops.ingested_files SET max_received_at = NULL WHERE file = 'events-00.jsonl'")
    text = build(shop).text
    assert "(no accepted row)" in text
    assert "143,396" in text


def test_shops_that_lack_half_of_it_still_get_a_page(shop: Path, change: Change) -> None:
    change("DELETE FROM recommendations.offline_metrics WHERE model = 'popularity' OR metric <> 'ndcg'")
    change("UPDATE experiments.scorecard SET lift = NULL, ci_low = NULL, ci_high = NULL, p_value = NULL, log_p = NULL")
    change("DELETE FROM ops.ingested_files WHERE file <> 'events-00.jsonl'")
    text = build(shop).text
    assert "lightfm" in text
    assert "1 event file ingested" in text


@pytest.mark.parametrize("high", [9.0, math.inf])
def test_a_hopeless_interval_does_not_hide_the_others(shop: Path, change: Change, high: float) -> None:
    change(f"UPDATE experiments.scorecard SET ci_low = -9, ci_high = '{high}' WHERE metric = 'revenue'")
    ticks = re.findall(r"[+-]\d+ %(?=</text>|\s|$)", build(shop).text)
    assert ticks
    html = (shop.parent / "reports" / "index.html").read_text()
    drawn = {int(tick) for tick in re.findall(r">([+-]\d+) %</text>", html)}
    assert max(map(abs, drawn)) <= 110


def test_an_unwritable_place_is_said_in_one_line_and_leaves_the_old_page(shop: Path) -> None:
    out = shop.parent / "reports" / "index.html"
    build_report(shop, out)
    assert [path.name for path in out.parent.iterdir()] == ["index.html"]
    with pytest.raises(InputError, match="cannot be written"):
        build_report(shop, out / "below a file" / "index.html")
    assert out.exists()


def test_many_alerts_of_a_kind_are_folded_and_all_there(shop: Path, change: Change) -> None:
    change(
        "INSERT INTO ops.alerts SELECT 'n' || n, TIMESTAMPTZ '2026-03-01 00:00:00Z', 'new_failure', 'warning', 'event/x', "
        "'reason ' || n, '{}', 'n' || n, NULL FROM range(4) AS numbers (n)"
    )
    text = build(shop).text
    assert "6 open, 1 resolved." in text and "warning: 4 of kind new failure: event/x 4" in text
    assert all(f"reason {n}" in text for n in range(4))


def test_the_split_is_drawn_day_by_day(shop: Path, change: Change) -> None:
    assert "p-value of the split" not in build(shop).text
    change("CREATE TABLE experiments.split_by_day (experiment_id VARCHAR, day DATE, variant VARCHAR, new_units BIGINT, "
           "units BIGINT, log_p DOUBLE, broken_below DOUBLE)")  # fmt: skip
    change("INSERT INTO experiments.split_by_day SELECT DISTINCT experiment_id, DATE '2026-02-02' + d::INTEGER, 'control', 5, 5, "
           "-d * 2.302585092994046, 0.001 FROM experiments.scorecard, range(8) AS r (d)")  # fmt: skip
    build(shop)
    html = (shop.parent / "reports" / "index.html").read_text()
    assert html.count("p-value of the split by day of first exposure") >= 1
    assert {">1e-2<", ">1e-4<", ">1e-6<"} <= set(re.findall(r">1e-\d<", html))


def test_bounds_of_a_guardrail_between_looks_stand_alone(shop: Path, change: Change) -> None:
    change("UPDATE experiments.scorecard SET lift = NULL, ci_low = -0.01, ci_high = 0.02 WHERE role = 'guardrail'")
    text = build(shop).text
    assert "[-1.0 %, +2.0 %]" in text
    assert "- [-1.0 %" not in text
