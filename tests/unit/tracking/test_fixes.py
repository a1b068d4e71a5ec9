"""What a fix does to a line, and which lines it leaves as they came."""

from __future__ import annotations

import json

import pytest

from zantara_pipeline.tracking.fixes import Fixes

FIXES = Fixes.model_validate(
    {
        "version": "1-0-0",
        "owner": "growth-data@example.com",
        "reason": "a release sent the old name",
        "fixes": [{"event": "product_view", "rename": {"prise": "price"}}],
    }
)
LINE = '{"event_id":"e","event":"product_view","properties":{"product_id":"p","prise":%s}%s}'


def fixed(line: str) -> str:
    return FIXES.apply(line, "product_view", "f")


def test_a_fix_changes_what_it_is_about_and_nothing_else() -> None:
    found = json.loads(fixed(LINE % ("19.90", ',"user_id":"ü"')))
    assert found == {
        "event_id": "e",
        "event": "product_view",
        "properties": {"product_id": "p", "price": 19.9},
        "user_id": "ü",
    }


@pytest.mark.parametrize(
    "line",
    [
        LINE % ("1", ',"user_id":"u-1","user_id":"u-9"'),
        LINE % ("12345678901234.5678", ""),
        LINE % ("1", ',"context":{"x":1e999}'),
        LINE % ("1", ',"context":{"x":' + "[" * 100_000 + "]" * 100_000 + "}"),
    ],
    ids=["a key twice", "more digits than a double holds", "beyond a double", "deeper than Python reads"],
)
def test_a_line_that_cannot_be_written_again_as_it_was_stays_as_it_came(line: str) -> None:
    assert fixed(line) == line
