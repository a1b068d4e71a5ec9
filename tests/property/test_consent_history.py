"""What events say of consent, over time: the ledger against a brute-force reading of all lines in Python."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from event_lines import RULES, event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.consent_words import heard_in_batch
from zantara_pipeline.tracking.observed import ObservedConsent
from zantara_pipeline.tracking.reader import BATCH_SCHEMA
from zantara_pipeline.tracking.verdict import Judge

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
START = datetime(2026, 3, 1, tzinfo=UTC)
CLOCK = 12  # of the ingest, in minutes after START
LATEST = 9  # receipt that a run knows of
TIMED = replace(RULES, judged_at=START + timedelta(minutes=CLOCK))
DAY = 24 * 60
PURPOSE = "personalization"
Minutes = float | None
Batches = list[list["Line"]]


@dataclass(frozen=True)
class Line:
    """One line about one of two people; times in minutes after START, None where no time can be read."""

    stamp: Minutes
    receipt: Minutes
    granted: bool
    user: str = "u-1"

    def text(self) -> str:
        times = {"timestamp": iso(self.stamp), "received_at": iso(self.receipt)}
        return json.dumps(event(user_id=self.user, consent={"analytics": True, PURPOSE: self.granted}, **times))


def iso(minutes: Minutes) -> Any:
    return "?" if minutes is None else (START + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


# ---- the rule, read off its documentation ----------------------------------------------------------------------------
def span(line: Line) -> tuple[float, float] | None:
    """From when to when a word may have been said; None where it is not learnt."""
    receipt = line.receipt if line.receipt is not None and line.receipt <= CLOCK + DAY else None
    limit = (CLOCK if receipt is None else receipt) + DAY
    stamp = line.stamp if line.stamp is not None and line.stamp <= limit else None
    if line.granted:
        return None if stamp is None else (min(t for t in (stamp, receipt, CLOCK) if t is not None), stamp)
    if stamp is None and receipt is None:
        return LATEST, CLOCK
    first = min(t for t in (stamp, receipt, CLOCK) if t is not None)
    return first, max(first, stamp if stamp is not None else receipt)  # type: ignore[type-var]


def allowed(lines: Sequence[Line], moment: float) -> bool:
    """Whether one person's lines grant at a moment: the last word holds, and denials win wherever they touch."""
    denials = [s for line in lines if not line.granted and (s := span(line))]
    grants = [s for line in lines if line.granted and (s := span(line))]
    counting = [to for since, to in grants if not any(d_since <= to and d_to >= since for d_since, d_to in denials)]
    if any(since <= moment <= to for since, to in denials):
        return False
    last_grant = max((to for to in counting if to <= moment), default=None)
    last_denial = max((to for _, to in denials if to <= moment), default=-float("inf"))
    return last_grant is not None and last_grant > last_denial


# ---- the ledger ------------------------------------------------------------------------------------------------------
class QuickLedger(Ledger):
    """Nothing here outlives the test: waiting for the disk took nine tenths of it."""

    def connect(self) -> sqlite3.Connection:
        db = super().connect()
        db.execute("PRAGMA synchronous = OFF")
        return db


@dataclass(frozen=True)
class Ear:
    """A judge and a home; its ledger is emptied for each example."""

    judge: Judge
    home: Home
    ledger: Ledger


@pytest.fixture(scope="module")
def ear() -> Iterator[Ear]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder)).create()
        con = open_engine(None, home, threads=1, memory_limit="300MB")
        yield Ear(Judge(con, TIMED), home, QuickLedger(home.state / "ledger.db"))
        con.close()


def learnt(ear: Ear, commits: Sequence[Batches]) -> list[tuple[str, float, bool]]:
    """Statements of a new ledger (user, minutes, granted) after commits of batches of lines."""
    with ear.ledger.transaction() as db:
        db.execute("DELETE FROM consent")
        db.execute("DELETE FROM consent_runs")
    for batches in commits:
        observed = ObservedConsent(ear.home, ear.ledger, TIMED)
        for batch in batches:
            texts = [line.text() for line in batch]
            nothing = pa.nulls(len(batch), pa.string())
            numbers = [pa.array([0] * len(batch), pa.int32()), pa.array(range(len(batch)), pa.int64())]
            ear.judge.load(pa.table([*numbers, pa.array(texts, pa.string()), nothing], schema=BATCH_SCHEMA))
            observed.add(heard_in_batch(ear.judge.con, TIMED))
        with ThreadPoolExecutor(2) as pool:
            observed.settle(START + timedelta(minutes=LATEST), pool)
            with ear.ledger.transaction() as db:
                observed.save(db)
        observed.close()
    with ear.ledger.read() as db:
        rows = db.execute("SELECT user_id, effective_from, status FROM consent WHERE purpose = ?", [PURPOSE]).fetchall()
    return [(user, (datetime.fromisoformat(at) - START) / timedelta(minutes=1), said == "granted") for user, at, said in rows]  # fmt: skip


def stands(statements: Sequence[tuple[str, float, bool]], user: str, moment: float) -> bool:
    said = [(at, not granted) for who, at, granted in statements if who == user and at <= moment]
    return bool(said) and not max(said)[1]


def moments(lines: Sequence[Line]) -> list[float]:
    """Every time that a line names, and a moment before and after each; far before and far after."""
    named = {t for line in lines for t in (line.stamp, line.receipt, CLOCK, LATEST) if t is not None}
    return sorted({near for t in named for near in (t - 0.25, t, t + 0.25)} | {-9999, 99999})


def of(lines: Sequence[Line], user: str) -> list[Line]:
    return [line for line in lines if line.user == user]


# ---- lines and how they land -----------------------------------------------------------------------------------------
minutes = st.integers(0, 20).map(float)
people = st.sampled_from(["u-1", "u-1", "u-2"])
plain = st.builds(lambda at, delay, granted, user: Line(at, at + delay, granted, user), minutes, st.sampled_from([0.0, 1.0, 30.0]), st.booleans(), people)  # fmt: skip
ahead = st.builds(lambda at, skew, granted, user: Line(at, at - skew, granted, user), minutes, st.sampled_from([0.5, 3.0, 9.0, 2.0 * DAY]), st.booleans(), people)  # fmt: skip
odd_times = st.sampled_from([None, 3.0, 8.0, 15.0, 5.0 * DAY])
odd = st.builds(Line, odd_times, odd_times, st.booleans(), people)
any_lines = st.lists(st.one_of(plain, plain, ahead, odd), min_size=1, max_size=14)


@st.composite
def parted(draw: st.DrawFn, lines: list[Line], most: int = 4) -> list[list[Line]]:
    """The same lines in any order, in any parts."""
    parts: list[list[Line]] = [[] for _ in range(draw(st.integers(1, most)))]
    for line in draw(st.permutations(lines)):
        parts[draw(st.integers(0, len(parts) - 1))].append(line)
    return [part for part in parts if part]


@settings(max_examples=15, **SLOW)
@given(data=st.data(), lines=any_lines)
def test_within_a_commit_the_history_is_what_all_lines_say_whatever_the_batches(
    ear: Ear, data: st.DataObject, lines: list[Line]
) -> None:
    statements = learnt(ear, [data.draw(parted(lines))])
    for user in ("u-1", "u-2"):
        for moment in moments(lines):
            assert stands(statements, user, moment) == allowed(of(lines, user), moment), (user, moment)


@settings(max_examples=15, **SLOW)
@given(data=st.data(), lines=any_lines)
def test_whatever_the_commits_nobody_stands_as_granted_when_all_lines_say_denied(
    ear: Ear, data: st.DataObject, lines: list[Line]
) -> None:
    commits = [data.draw(parted(part, 2)) for part in data.draw(parted(lines))]
    statements = learnt(ear, commits)
    for user in ("u-1", "u-2"):
        for moment in moments(lines):
            if stands(statements, user, moment):
                assert allowed(of(lines, user), moment), (user, moment)


@settings(max_examples=12, **SLOW)
@given(data=st.data(), lines=st.lists(plain, min_size=1, max_size=14))
def test_whatever_the_commits_what_people_said_last_holds(ear: Ear, data: st.DataObject, lines: list[Line]) -> None:
    commits = [data.draw(parted(part, 2)) for part in data.draw(parted(lines))]
    statements = learnt(ear, commits)
    for user in ("u-1", "u-2"):
        assert stands(statements, user, 99999) == allowed(of(lines, user), 99999)


@settings(max_examples=12, **SLOW)
@given(data=st.data(), lines=st.lists(plain, min_size=2, max_size=14))
def test_commits_that_follow_each_other_leave_the_history_that_all_lines_say(
    ear: Ear, data: st.DataObject, lines: list[Line]
) -> None:
    ordered = sorted(lines, key=lambda line: line.stamp or 0)
    cut = data.draw(st.integers(1, len(ordered) - 1))
    commits = [data.draw(parted(part)) for part in (ordered[:cut], ordered[cut:])]
    statements = learnt(ear, commits)
    for user in ("u-1", "u-2"):
        for moment in moments(lines):
            assert stands(statements, user, moment) == allowed(of(lines, user), moment), (user, moment)
