"""Invariants of the moments: the order of rows does not matter, disjoint groups of units add up."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zantara_pipeline.experiments import build_moments, load_experiments
from zantara_pipeline.statistics import Moments

START = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
AS_OF = START + dt.timedelta(days=28)
REGISTRY = load_experiments()

_TABLES = {
    "purchase": "price decimal(18, 4), quantity bigint, session_id varchar",
    "page_timing": "load_ms double, session_id varchar",
    "session_started": "session_id varchar",
    "experiment_exposed": "session_id varchar",
    "app_crashed": "session_id varchar",
}

unit = st.tuples(st.sampled_from(["control", "treatment"]), st.integers(0, 20))
purchase = st.tuples(st.integers(0, 11), st.integers(-30, 27), st.integers(0, 10**9), st.integers(1, 1000))
view = st.tuples(st.integers(0, 11), st.integers(0, 27), st.floats(0, 600_000))
session = st.tuples(st.integers(0, 11), st.integers(0, 27), st.booleans())
shops = st.fixed_dictionaries(
    {
        "units": st.lists(unit, min_size=1, max_size=12),
        "purchases": st.lists(purchase, max_size=25),
        "views": st.lists(view, max_size=25),
        "sessions": st.lists(session, max_size=15),
    }
)


def _build(shop, keep=lambda unit_number: True) -> dict[tuple[str, str], tuple]:
    con = duckdb.connect()
    con.execute("create schema staging; create schema experiments")
    for event, columns in _TABLES.items():
        con.execute(
            f"create table staging.stg_lake__{event} (user_id varchar, occurred_at timestamptz, "
            f"received_at timestamptz, consent_analytics boolean, {columns}, "
            "received_date date generated always as (received_at::date))"
        )
    con.execute(
        "create table experiments.exposures (experiment_id varchar, unit_id varchar, variant varchar, "
        "first_exposed_at timestamptz, contaminated boolean, platform varchar, app_version varchar, country varchar)"
    )
    for number, variant, day in shop["units"]:
        if keep(number):
            row = ["checkout_redesign", f"u{number}", variant, START + dt.timedelta(days=day)]
            con.execute("insert into experiments.exposures values (?, ?, ?, ?, false, null, null, null)", row)
    for event, rows in _events(shop).items():
        for user, day, *values in rows:
            when = START + dt.timedelta(days=day)
            marks = ", ".join("?" for _ in values)
            con.execute(
                f"insert into staging.stg_lake__{event} values (?, ?, ?, true, {marks})",
                [f"u{user}", when, when, *values],
            )
    build_moments(con, REGISTRY, AS_OF)
    found = con.execute(
        "select metric, variant, n, names, sums, products, quantile_value, quantile_slope from experiments.moments"
    ).fetchall()
    con.close()
    return {(row[0], row[1]): row[2:] for row in found}


def _events(shop):
    return {
        "purchase": [(u, d, Decimal(p) / 10_000, q, None) for u, d, p, q in shop["purchases"]],
        "page_timing": [(u, d, load, None) for u, d, load in shop["views"]],
        "session_started": [(u, d, f"s{u}-{d}") for u, d, _ in shop["sessions"]],
        "app_crashed": [(u, d, f"s{u}-{d}") for u, d, crashed in shop["sessions"] if crashed],
    }


def _numbered(shop):
    return {**shop, "units": [(number, *rest) for number, rest in enumerate(shop["units"])]}


@settings(max_examples=15, deadline=None)
@given(shops, st.randoms(use_true_random=False))
def test_shuffled_input_gives_the_same_bits(shop, random):
    shop = _numbered(shop)
    shuffled = {name: random.sample(rows, len(rows)) for name, rows in shop.items()}
    assert _build(shuffled) == _build(shop)


@settings(max_examples=15, deadline=None)
@given(shops, st.sets(st.integers(0, 11)))
def test_moments_add_up_over_disjoint_units(shop, half):
    """Not the quantile: its moments count observations above a cut that each group of units sets for itself."""
    shop = _numbered(shop)
    whole = _build(shop)
    parts = [_build(shop, lambda number, side=side: (number in half) == side) for side in (True, False)]
    for (metric, variant), row in whole.items():
        if metric == "p95_latency_ms":
            continue
        groups = [part[metric, variant] for part in parts if (metric, variant) in part]
        total = Moments(0, tuple(row[1]), (0.0,) * len(row[2]), (0.0,) * len(row[3]))
        for n, names, sums, products, *_ in groups:
            total += Moments(n, tuple(names), tuple(sums), tuple(products))
        assert total.n == row[0]
        assert total.sums == pytest.approx(row[2], rel=1e-14)
        assert total.products == pytest.approx(row[3], rel=1e-14)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=40), st.integers(0, 40))
def test_adding_moments_equals_moments_of_everything(pairs, cut):
    def moments(part):
        return Moments.from_values({"a": [a for a, _ in part], "b": [b for _, b in part]})

    together, added = moments(pairs), moments(pairs[:cut]) + moments(pairs[cut:])
    assert added.n == together.n
    assert added.sums == pytest.approx(together.sums, rel=1e-12, abs=1e-6)
    assert added.products == pytest.approx(together.products, rel=1e-12, abs=1e-3)
