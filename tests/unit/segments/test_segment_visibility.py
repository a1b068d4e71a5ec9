"""Small segments stay in the restricted store, no flip tells of one person, jumps in size are told to the owner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_segments_lifecycle import META

from zantara_pipeline.segments.contract import Segment, SegmentMeta
from zantara_pipeline.segments.visibility import (
    SizeRules,
    is_visible,
    load_rules,
    margin,
    record_sizes,
    size_findings,
)
from zantara_pipeline.storage.ledger import Ledger

T0 = datetime(2026, 3, 1, tzinfo=UTC)
RULES = load_rules()


def segment(min_size: int = 10, access_level: str = "internal") -> Segment:
    return Segment(
        "seg_a",
        "d",
        "select 1",
        SegmentMeta.model_validate(META | {"min_size": min_size, "access_level": access_level}),
    )


def shown(ledger: Ledger, sizes: list[int], of: Segment | None = None) -> list[bool]:
    """Visible after each day's size."""
    one = of or segment()
    return [
        record_sizes(ledger, [one], {"seg_a": size}, T0 + timedelta(days=day), RULES)[0].visible
        for day, size in enumerate(sizes)
    ]


@given(st.integers(2, 60), st.integers(0, 100), st.lists(st.integers(0, 140), min_size=1))
def test_between_two_flips_more_people_changed_than_the_margin(min_size: int, pct: int, sizes: list[int]) -> None:
    extra = margin(min_size, pct)
    visible, flipped_at = False, None
    for size in sizes:
        now = is_visible(size, min_size, extra, visible)
        assert not (now and size < min_size)  # never shown below min_size
        if now != visible:
            assert flipped_at is None or abs(size - flipped_at) > extra >= 2
            visible, flipped_at = now, size
            for one_more_or_less in (size - 1, size + 1):
                assert is_visible(one_more_or_less, min_size, extra, visible) == visible


def test_one_person_who_comes_and_goes_flips_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.db")
    assert shown(ledger, [9, 10, 9, 10, 11, 10, 11]) == [False] * 7
    more = [12, 11, 10, 11, 10, 9, 10, 11, 12]
    ledger = Ledger(tmp_path / "m.db")
    assert shown(ledger, more) == [True, True, True, True, True, False, False, False, True]


def test_a_restricted_segment_is_never_shown_and_a_min_size_of_one_hides_nobody(tmp_path: Path) -> None:
    assert shown(Ledger(tmp_path / "r.db"), [500], segment(access_level="restricted")) == [False]
    assert shown(Ledger(tmp_path / "o.db"), [0, 1, 0, 1], segment(min_size=1)) == [False, True, False, True]


def test_the_same_clock_again_decides_the_same_and_a_past_one_shows_no_more_than_now(tmp_path: Path) -> None:
    ledger, one = Ledger(tmp_path / "l.db"), segment()

    def record(day: int, size: int) -> bool:
        return record_sizes(ledger, [one], {"seg_a": size}, T0 + timedelta(days=day), RULES)[0].visible

    assert [record(0, 12), record(1, 10), record(1, 10)] == [True, True, True]
    assert record(2, 8) is False
    assert record(0, 12) is False  # rebuilt: what was shown then is hidden now
    assert record(3, 10) is False and record(4, 12) is True
    assert record(1, 9) is False and record(1, 10) is True
    with ledger.read() as db:
        assert [row[0] for row in db.execute("SELECT size FROM segment_sizes ORDER BY as_of")] == [12, 10, 8, 10, 12]


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [(100, 151, "100 to 151"), (100, 49, "100 to 49"), (100, 150, None), (100, 50, None), (4, 9, None), (9, 10, None),
     (20, 0, "20 to fewer than 12"), (0, 40, "fewer than 12 to 40"), (3, 11, None)],
)  # fmt: skip
def test_a_jump_in_size_is_told_with_the_owner_and_without_small_numbers(
    tmp_path: Path, was: int, now: int, told: str | None
) -> None:
    ledger, one = Ledger(tmp_path / "l.db"), segment()
    assert size_findings(record_sizes(ledger, [one], {"seg_a": was}, T0, RULES), RULES) == []
    later = T0 + timedelta(days=1)
    for _ in range(2):  # the same run again says the same
        found = size_findings(record_sizes(ledger, [one], {"seg_a": now}, later, RULES), RULES)
        if told is None:
            assert found == []
            continue
        (finding,) = found
        assert finding.message == f"seg_a went from {told} members since 2026-03-01; its owner is growth"
        assert (finding.kind, finding.subject) == ("segment_size", "segment/seg_a")
        assert finding.details["owner"] == "growth"


def test_a_jump_of_a_restricted_segment_is_told_without_any_number(tmp_path: Path) -> None:
    ledger, secret = Ledger(tmp_path / "l.db"), segment(access_level="restricted")
    record_sizes(ledger, [secret], {"seg_a": 40}, T0, RULES)
    later = record_sizes(ledger, [secret], {"seg_a": 90}, T0 + timedelta(days=1), RULES)
    (finding,) = size_findings(later, RULES)
    assert finding.message == "seg_a grew by more than 50 % since 2026-03-01; its owner is growth"
    assert set(finding.details) == {"owner", "since"}


def test_the_contract_may_ask_for_more_care(tmp_path: Path) -> None:
    rules = SizeRules(visible_margin_pct=100, max_change_pct=10)
    ledger, one = Ledger(tmp_path / "l.db"), segment()
    sizes = [record_sizes(ledger, [one], {"seg_a": n}, T0 + timedelta(days=n), rules)[0] for n in (15, 20, 22)]
    assert [size.visible for size in sizes] == [False, True, True]
    assert len(size_findings(sizes, rules)) == 1
