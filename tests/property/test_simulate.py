"""Whatever the seed, size and period: the truth balances, and the generator's tally equals the reference's count."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from zantara_pipeline.simulate import simulate


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    events=st.integers(2_000, 6_000),
    days_before=st.integers(7, 40),
    days_during=st.integers(7, 40),
    start=st.dates(date(1990, 1, 1), date(2100, 1, 1)),
)
def test_truth_balances(seed: int, events: int, days_before: int, days_during: int, start: date) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # `simulate` itself refuses to finish when planted and counted figures differ.
        truth = simulate(
            Path(folder) / "shop",
            events=events,
            seed=seed,
            days_before=days_before,
            days_during=days_during,
            start=start,
        )
        written = {p.name for p in (Path(folder) / "shop" / "events").iterdir()}
    assert abs(truth.lines - events) <= 0.02 * events
    assert truth.rows_in == truth.unparsable + truth.suppressed + truth.quarantined + truth.accepted
    assert truth.rows_in == sum(counts.rows_in for counts in truth.files.values())
    assert truth.unparsable == sum(truth.planted.unparsable.values())
    assert truth.quarantined_by_reason == truth.planted.reasons
    assert truth.accepted == truth.planted.accepted and truth.suppressed == truth.planted.suppressed
    assert set(truth.files) == written
    assert date.fromisoformat(truth.as_of[:10]) < start + timedelta(days=days_before + days_during)
    assert truth.personalization_allowed <= truth.users
    assert all(segment.size <= truth.personalization_allowed for segment in truth.segments.values())
