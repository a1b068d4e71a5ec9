"""Moments that follow what changed are those made from nothing, bit for bit, whatever comes late, is corrected or erased."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from experiment_shop import RELATIONS, add_events, add_exposures, at, empty_warehouse, note_dates, table_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zantara_pipeline.experiments import build_moments, load_experiments, moments

REGISTRY = load_experiments()
USERS = [f"u{i}" for i in range(8)]
EXPERIMENTS = ("checkout_redesign", "image_carousel")
EVENTS = [event for event in RELATIONS if event != "experiment_exposed"]

days = st.integers(-30 * 4, 34 * 4).map(lambda quarter: quarter / 4)
users = st.sampled_from(USERS)
event = st.fixed_dictionaries(
    {
        "kind": st.just("event"), "event": st.sampled_from(EVENTS), "user": users, "day": days,
        "late": st.sampled_from([0, 0, 0, 1, 6]), "session": st.sampled_from(["s0", "s1", "s2"]),
        "cents": st.integers(-500, 100_000), "quantity": st.sampled_from([None, 1, 3]), "consent": st.sampled_from([True, True, False]),
    }
)  # fmt: skip
exposure = st.fixed_dictionaries(
    {
        "kind": st.just("exposure"), "user": users, "experiment": st.sampled_from(EXPERIMENTS), "day": days,
        "variant": st.sampled_from(["control", "treatment", "odd"]), "contaminated": st.sampled_from([False, False, True]),
    }
)  # fmt: skip
change = st.one_of(
    event, event, event, exposure, exposure,
    st.fixed_dictionaries({"kind": st.just("correct"), "event": st.just("purchase"), "user": users, "cents": st.integers(0, 900)}),
    st.fixed_dictionaries({"kind": st.just("erase"), "user": users}),
    st.fixed_dictionaries({"kind": st.just("retention"), "event": st.sampled_from(EVENTS), "day": days}),
    st.fixed_dictionaries({"kind": st.just("configure"), "days": st.integers(1, 28)}),
)  # fmt: skip
batch = st.fixed_dictionaries({"changes": st.lists(change, max_size=6), "clock": st.integers(0, 34)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=st.lists(batch, min_size=1, max_size=5))
def test_following_equals_a_build_from_nothing(batches: list[dict[str, Any]]) -> None:
    con, registry = empty_warehouse(), REGISTRY
    for number, one in enumerate(batches):
        for change in one["changes"]:
            registry = _apply(con, registry, change)
        _build(con, registry, one["clock"], killed=number % 3 == 1)
        found = table_rows(con, "experiments.moments")
        with _from_nothing(con):
            build_moments(con, registry, at(one["clock"]))
            assert found == table_rows(con, "experiments.moments")
    con.close()


def _build(con: duckdb.DuckDBPyConnection, registry: Any, clock: int, *, killed: bool) -> None:
    """Also after a build that did everything and was killed before its end."""
    if killed:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moments, "comment_columns", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                build_moments(con, registry, at(clock))
    build_moments(con, registry, at(clock))


@contextmanager
def _from_nothing(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """The same warehouse without anything that was followed."""
    con.execute("attach ':memory:' as other; copy from database memory to other; use other")
    con.execute("drop schema state cascade")
    try:
        yield
    finally:
        con.execute("use memory; detach other")


def _apply(con: duckdb.DuckDBPyConnection, registry: Any, change: dict[str, Any]) -> Any:
    if change["kind"] == "event":
        _event(con, change)
    elif change["kind"] == "exposure":
        con.execute("delete from experiments.exposures where experiment_id = ? and unit_id = ?",
                    [change["experiment"], change["user"]])  # fmt: skip
        add_exposures(con, [change["user"]], [change["variant"]], experiment=change["experiment"], when=at(change["day"]),
                      contaminated=change["contaminated"])  # fmt: skip
    elif change["kind"] == "correct":
        where = f"user_id = '{change['user']}'"
        note_dates(con, _dates(con, "purchase", where))
        con.execute(f"update staging.stg_lake__purchase set price = ? where {where}", [Decimal(change["cents"]) / 100])
    elif change["kind"] == "erase":
        for name in EVENTS:
            where = f"user_id = '{change['user']}'"
            note_dates(con, _dates(con, name, where))
            con.execute(f"delete from staging.stg_lake__{name} where {where}")
        con.execute("delete from experiments.exposures where unit_id = ?", [change["user"]])
    elif change["kind"] == "retention":
        where = f"received_date < '{at(change['day']).date()}'"
        note_dates(con, _dates(con, change["event"], where))
        con.execute(f"delete from staging.stg_lake__{change['event']} where {where}")
    else:
        changed = replace(
            registry.experiments["image_carousel"], pre_period_days=change["days"], config_hash=str(change["days"])
        )
        return replace(registry, experiments={**registry.experiments, "image_carousel": changed})
    return registry


def _event(con: duckdb.DuckDBPyConnection, change: dict[str, Any]) -> None:
    more: dict[str, Any] = {"session_id": change["session"]}
    if change["event"] == "purchase":
        more |= {"price": [Decimal(change["cents"]) / 100], "quantity": [change["quantity"]]}
    elif change["event"] == "page_timing":
        more |= {"load_ms": [float(change["cents"])]}
    add_events(con, change["event"], [change["user"]], at(change["day"]), consent=change["consent"],
               late=dt.timedelta(days=change["late"]), **more)  # fmt: skip


def _dates(con: duckdb.DuckDBPyConnection, name: str, where: str) -> set[dt.date]:
    return {
        row[0] for row in con.execute(f"select received_date from staging.stg_lake__{name} where {where}").fetchall()
    }


def test_a_unit_that_left_before_another_came_leaves_nothing() -> None:
    """All units of an experiment go, a run sees that, and others come: the sums are those of the others."""
    con = empty_warehouse()
    add_exposures(con, ["u1"], ["control"], when=at(1))
    add_events(con, "purchase", ["u1"], at(2), price=[Decimal(7)], quantity=1)
    build_moments(con, REGISTRY, at(3))
    con.execute("delete from experiments.exposures")
    assert build_moments(con, REGISTRY, at(4)).rows == 0
    add_exposures(con, ["u2"], ["control"], when=at(1))
    add_events(con, "purchase", ["u2"], at(2), price=[Decimal(5)], quantity=1)
    build_moments(con, REGISTRY, at(5))
    revenue = next(row for row in table_rows(con, "experiments.moments") if row["metric"] == "revenue_per_user")
    assert (revenue["n"], revenue["sums"], revenue["products"]) == (1, [5, 0], [25, 0, 0])


def test_what_the_clock_had_not_reached_counts_once_it_has() -> None:
    con = empty_warehouse()
    add_exposures(con, ["u1"], ["control"], when=at(1))
    add_events(con, "purchase", ["u1"], at(9), price=[Decimal(7)], quantity=1)
    for clock, wanted in ((8, 0), (9, 0), (9.1, 7), (10, 7), (8, 0)):
        build_moments(con, REGISTRY, at(clock))
        revenue = next(row for row in table_rows(con, "experiments.moments") if row["metric"] == "revenue_per_user")
        assert revenue["sums"] == [wanted, 0], clock
