"""Planned looks: which run takes one, what it may spend, what runs between them show, and that what was decided stays."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from statistics import NormalDist

import duckdb
import numpy as np
import pytest
from experiment_shop import add_events, add_exposures, at, by_metric, empty_warehouse
from hypothesis import given
from hypothesis import strategies as st

from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import (
    PACKAGED_EXPERIMENTS,
    ExperimentRegistry,
    build_moments,
    build_scorecard,
    decide_all,
    load_experiments,
    read_looks,
)
from zantara_pipeline.experiments.looks import Taken, amendments, look_at, next_day
from zantara_pipeline.storage.ledger import Ledger

WEEKLY = (7, 14, 21, 28)
PLAIN = dataclasses.replace(load_experiments().experiments["checkout_redesign"], salt=None, guardrails=())
CHECKOUT = dataclasses.replace(PLAIN, looks=WEEKLY, min_duration_days=7)
# Lan-DeMets O'Brien-Fleming, four even looks, two-sided .05 (gsDesign: sfLDOF, test.type = 2)
PUBLISHED_Z = (4.3326, 2.9631, 2.3590, 2.0141)


def alpha_of(z: float) -> float:
    return 2 * (1 - NormalDist().cdf(z))


def taken(day: int, decision: str = "continue", alpha: float = 0.001, hours: float = 0) -> Taken:
    return Taken("checkout_redesign", day, at(day) + dt.timedelta(hours=hours), alpha, "h", "i", decision, (), ("so",))


def test_an_experiment_without_looks_is_judged_once_on_its_last_evening() -> None:
    assert look_at(PLAIN, at(28) - dt.timedelta(hours=1, seconds=1)) is None
    for clock in (at(28) - dt.timedelta(hours=1), at(28), at(40)):
        found = look_at(PLAIN, clock)
        assert found is not None and (found.number, found.of, found.alpha, found.last) == (1, 1, 0.05, True)
    assert next_day(PLAIN, at(3)) == dt.date(2026, 3, 1) and next_day(PLAIN, at(28)) is None


def test_each_look_spends_what_the_published_bounds_allow() -> None:
    before: list[Taken] = []
    for number, (day, z) in enumerate(zip(WEEKLY, PUBLISHED_Z, strict=True), 1):
        assert look_at(CHECKOUT, at(day) - dt.timedelta(hours=2), before) is None
        found = look_at(CHECKOUT, at(day), before)
        assert found is not None and (found.number, found.day) == (number, day)
        assert found.alpha == pytest.approx(alpha_of(z), rel=2e-3)
        before.append(taken(day, alpha=found.alpha))
        assert look_at(CHECKOUT, at(day), before) == found, "the same run, done again"
        if day < 28:
            assert look_at(CHECKOUT, at(day + 1), before) is None, "a look is taken once"


def test_a_look_that_was_missed_spends_nothing_and_a_late_run_takes_the_latest_only() -> None:
    late = look_at(CHECKOUT, at(22), [taken(7)])
    assert late is not None and late.day == 21
    every = look_at(CHECKOUT, at(22), [taken(7), taken(14)])
    assert every is not None and late.alpha > every.alpha
    alone = look_at(CHECKOUT, at(30))
    assert alone is not None and (alone.day, alone.alpha) == (28, 0.05), "of none taken before, all is left"


def test_what_was_decided_is_shown_again_by_its_own_bounds() -> None:
    found = look_at(CHECKOUT, at(23), [taken(7), taken(14, "ship", alpha=0.003)])
    assert found is not None and (found.day, found.alpha, found.again) == (14, 0.003, True)
    found = look_at(PLAIN, at(50), [taken(28, "inconclusive", alpha=0.05)])
    assert found is not None and found.again


@given(st.lists(st.sampled_from(WEEKLY), unique=True, max_size=4), st.floats(0, 40))
def test_no_history_makes_looks_spend_more_than_alpha(days: list[int], now: float) -> None:
    """However many looks were missed: the chance that any crosses, by a walk that is simulated."""
    spent, before = [], []
    for day in sorted(days):
        found = look_at(CHECKOUT, at(day), before)
        assert found is not None
        spent.append((day / 28, found.alpha))
        before.append(taken(day, alpha=found.alpha))
    rng = np.random.default_rng(7)
    walk = rng.normal(size=(20_000, 28)).cumsum(axis=1)
    crossed = np.zeros(len(walk), dtype=bool)
    for fraction, alpha in spent:
        z = walk[:, round(fraction * 28) - 1] / np.sqrt(round(fraction * 28))
        crossed |= np.abs(z) > NormalDist().inv_cdf(1 - alpha / 2)
    assert crossed.mean() < 0.05 + 3 * (0.05 * 0.95 / len(walk)) ** 0.5


def shop(lift: float) -> duckdb.DuckDBPyConnection:
    rng = np.random.default_rng(3)
    con = empty_warehouse()
    users = np.array([f"u{number}" for number in range(6000)])
    treated = rng.random(len(users)) < 0.5
    add_exposures(con, list(users), ["treatment" if flag else "control" for flag in treated], when=at(0.5))
    for day in (3, 10, 17, 24):  # the same chance in every week
        buyers = users[rng.random(len(users)) < 0.1 * np.where(treated, 1 + lift, 1)]
        add_events(con, "purchase", list(buyers), at(day), price=[20] * len(buyers), quantity=1)
    return con


def run(con: duckdb.DuckDBPyConnection, ledger: Ledger, as_of: dt.datetime, experiment=CHECKOUT):
    """One run: the row of the primary metric, the decision, reasons."""
    found = load_experiments()
    registry = ExperimentRegistry({"checkout_redesign": experiment}, found.metrics, found.defaults)
    build_moments(con, registry, as_of)
    result = build_scorecard(con, registry, as_of, read_looks(ledger))
    [decided] = decide_all(con, registry, result.rows, as_of, ledger)
    return by_metric(result.rows).get(("primary", "conversion")), decided


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def test_runs_between_looks_show_nothing_that_one_could_conclude_from(ledger: Ledger) -> None:
    con = shop(0.0)
    for day in range(1, 31):
        row, decided = run(con, ledger, at(day))
        numbers = [
            row.value,
            row.control_value,
            row.lift,
            row.ci_low,
            row.p_value,
            row.log_p,
            row.difference,
            row.raw_value,
        ]
        if day in WEEKLY or day > 28:
            assert None not in numbers and row.verdict == "inconclusive"
        else:
            assert (
                numbers == [None] * 8
                and row.verdict == "keep running"
                and "withheld: the next look is on" in row.method
            )
        assert decided.decision == ("continue" if day < 28 else "inconclusive")
    assert [one.day for one in read_looks(ledger)["checkout_redesign"]] == list(WEEKLY)


def test_a_large_effect_ships_at_an_early_look_and_stays_decided(ledger: Ledger) -> None:
    con = shop(0.22)
    _, first = run(con, ledger, at(7))
    assert first.decision == "continue", "the first look is hardly ever enough"
    row, second = run(con, ledger, at(14))
    assert (second.decision, row.verdict) == ("ship", "better")
    con.execute("delete from staging.stg_lake__purchase")  # whatever the data say from now on
    row, later = run(con, ledger, at(21))
    assert later.decision == "ship" and later.reasons[0].endswith("(decided on 2026-02-16)")
    assert [one.decision for one in read_looks(ledger)["checkout_redesign"]] == ["continue", "ship"]


def test_a_run_that_is_done_again_decides_the_same_bits(ledger: Ledger, tmp_path: Path) -> None:
    con = shop(0.22)
    once = [run(con, ledger, at(day)) for day in (7, 14)]
    again = [run(con, ledger, at(day)) for day in (7, 14)]
    other = Ledger(tmp_path / "other.db")
    assert once == again == [run(con, other, at(day)) for day in (7, 14)]
    looks = read_looks(ledger)["checkout_redesign"]
    assert [one.input_hash for one in looks] == [decided.input_hash for _, decided in once]


def test_where_nobody_was_exposed_no_look_is_taken(ledger: Ledger) -> None:
    con = empty_warehouse()
    _, decided = run(con, ledger, at(29))
    assert (decided.decision, decided.reasons) == ("inconclusive", ("no unit was exposed",))
    assert read_looks(ledger) == {}, "those who come late are judged by all of alpha"


def test_a_change_after_the_start_is_an_amendment(ledger: Ledger) -> None:
    con, changed = shop(0.0), dataclasses.replace(CHECKOUT, config_hash="another")
    run(con, ledger, at(-3), changed)  # before the start anything may change
    run(con, ledger, at(1))
    run(con, ledger, at(2))
    assert amendments(ledger, "checkout_redesign") == []
    run(con, ledger, at(3), changed)
    run(con, ledger, at(4), changed)
    assert [(one.config_hash, one.as_of) for one in amendments(ledger, "checkout_redesign")] == [("another", at(3))]


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ("[14, 14, 28]", "days must rise"),
        ("[21, 14, 28]", "days must rise"),
        ("[7, 28]", "day 7 is before min_duration_days"),
        ("[14, 21]", "the last one is the last day, 28"),
        ("[14, 35]", "the last one is the last day, 28"),
        ("[]", "looks"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(tmp_path: Path, looks: str, said: str) -> None:
    packaged = (PACKAGED_EXPERIMENTS / "checkout_redesign.yaml").read_text()
    (tmp_path / "checkout_redesign.yaml").write_text(f"{packaged}\nlooks: {looks}\n")
    with pytest.raises(InputError, match=said):
        load_experiments([PACKAGED_EXPERIMENTS, tmp_path])
