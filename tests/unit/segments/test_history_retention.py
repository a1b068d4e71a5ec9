"""Memberships that ended go when their days are over; open ones and later ones stay, and an audit row says how many went."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_segments_lifecycle import DAY, T0, Shop
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.segments.history_retention import expire_history, history_over
from zantara_pipeline.storage.ledger import Ledger


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def audit(shop: Shop) -> list[tuple[object, ...]]:
    with shop.ledger.read() as db:
        return db.execute(
            "SELECT segment, memberships, first_day, last_day FROM expired_memberships ORDER BY 1"
        ).fetchall()


def test_a_membership_goes_when_its_days_are_over_and_an_open_one_never(shop: Shop) -> None:
    shop.run(T0, "u1 u2 u3")
    shop.run(T0 + DAY, "u1")
    shop.run(T0 + 3 * DAY, "u1 u2")
    shop.run(T0 + 5 * DAY, "u1")
    assert history_over(shop.ledger, 10, T0 + 11 * DAY) == []
    [over] = history_over(shop.ledger, 10, T0 + 12 * DAY)
    assert (over.segment, over.memberships, over.first_day, over.last_day) == (
        "seg_a",
        2,
        T0.date() + DAY,
        T0.date() + DAY,
    )
    assert len(shop.history()) == 4, "a look removes nothing"
    assert expire_history(shop.ledger, 10, T0 + 12 * DAY) == 2
    shop.run(T0 + 12 * DAY, "u1")
    assert shop.history() == [("u1", 0, None, None), ("u2", 3, 5, "rule")]
    assert audit(shop) == [("seg_a", 2, "2026-03-02", "2026-03-02")]
    assert expire_history(shop.ledger, 10, T0 + 12 * DAY) == 0 and len(audit(shop)) == 1
    shop.run(T0 + 400 * DAY, "u1")
    assert expire_history(shop.ledger, 10, T0 + 400 * DAY) == 1
    shop.run(T0 + 400 * DAY, "u1")
    assert shop.history() == [("u1", 0, None, None)]


def test_the_verb_says_how_many_memberships_are_over(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path))
    monkeypatch.setenv("ZANTARA_AS_OF", (T0 + 800 * DAY).isoformat())
    shop.run(T0, "u1 u2")
    shop.run(T0 + DAY, "u1")
    (tmp_path / "data/state").mkdir(parents=True)
    shop.ledger.path.rename(tmp_path / "data/state/ledger.db")
    said = CliRunner().invoke(app, ["plan", "retention"], catch_exceptions=False).output
    assert "segment_history seg_a: 1 memberships that ended (kept: not enforced)" in said and "u2" not in said


class QuickLedger(Ledger):
    """Nothing here outlives the test: waiting for the disk took most of it."""

    def connect(self) -> sqlite3.Connection:
        db = super().connect()
        db.execute("PRAGMA synchronous = OFF")
        return db


moves = st.lists(st.tuples(st.integers(1, 9), st.sets(st.sampled_from(["u1", "u2", "u3"]))), min_size=1, max_size=8)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=moves, days=st.integers(1, 20))
def test_what_stays_is_the_history_without_what_ended_before(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, set[str]]], days: int
) -> None:
    shop, day = Shop(tmp_path_factory.mktemp("shop"), QuickLedger), 0
    for forward, members in moves:
        day += forward
        shop.run(T0 + day * DAY, " ".join(sorted(members)))
    whole = shop.history()
    kept = [entry for entry in whole if entry[2] is None or entry[2] >= day - days]
    assert expire_history(shop.ledger, days, T0 + timedelta(days=day)) == len(whole) - len(kept)
    shop.run(T0 + day * DAY, " ".join(sorted(moves[-1][1])))
    assert shop.history() == kept
