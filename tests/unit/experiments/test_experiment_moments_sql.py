"""Moments built by SQL against brute force on the same rows, and the rules of who and what counts."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from decimal import Decimal

import duckdb
import numpy as np
import pytest
from experiment_shop import AS_OF, END, START, add_events, add_exposures, at, empty_warehouse, table_rows

from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import PACKAGED_EXPERIMENTS, build_moments, load_experiments
from zantara_pipeline.statistics import Moments


@pytest.fixture(scope="module")
def registry():
    return load_experiments()


def _moments(con, metric, variant, experiment="checkout_redesign"):
    for row in table_rows(con, "experiments.moments"):
        if (row["experiment_id"], row["metric"], row["variant"]) == (experiment, metric, variant):
            return row
    raise AssertionError("no such row")


def _random_shop(seed: int = 5):
    rng = np.random.default_rng(seed)
    units = [f"u{i}" for i in range(300)]
    shop = {
        "units": units,
        "variants": ["treatment" if flip else "control" for flip in rng.random(300) < 0.5],
        "first": [at(float(day)) for day in rng.uniform(0, 20, 300)],
    }
    buyers = rng.integers(0, 350, 2000)  # some buyers were never exposed
    shop["purchase"] = {
        "users": [f"u{i}" for i in buyers],
        "when": [at(float(day)) for day in rng.uniform(-40, 35, 2000)],
        "price": [Decimal(int(cents)) / 100 for cents in rng.integers(0, 50_000, 2000)],
        "quantity": [None if q == 0 else int(q) for q in rng.integers(0, 4, 2000)],
    }
    return shop


def _load(con, shop):
    add_exposures(con, shop["units"], shop["variants"], when=shop["first"])
    bought = shop["purchase"]
    add_events(con, "purchase", bought["users"], bought["when"], price=bought["price"], quantity=bought["quantity"])


def test_mean_and_proportion_equal_brute_force(registry):
    con, shop = empty_warehouse(), _random_shop()
    _load(con, shop)
    build_moments(con, registry, AS_OF)
    during, before = defaultdict(Decimal), defaultdict(Decimal)
    counts, counts_before = defaultdict(int), defaultdict(int)
    first = dict(zip(shop["units"], shop["first"], strict=True))
    bought = shop["purchase"]
    for user, when, price, quantity in zip(
        *(bought[key] for key in ("users", "when", "price", "quantity")), strict=True
    ):
        amount = price * (1 if quantity is None else quantity)
        if user in first and first[user] <= when < END and when + dt.timedelta(minutes=1) <= AS_OF:
            during[user] += amount
            counts[user] += 1
        if user in first and START - dt.timedelta(days=28) <= when < START:
            before[user] += amount
            counts_before[user] += 1
    for variant in ("control", "treatment"):
        members = [u for u, v in zip(shop["units"], shop["variants"], strict=True) if v == variant]
        revenue = Moments.from_values(
            {"value": [float(during[u]) for u in members], "covariate": [float(before[u]) for u in members]}
        )
        row = _moments(con, "revenue_per_user", variant)
        assert row["n"] == len(members)
        assert row["sums"] == pytest.approx(revenue.sums, rel=1e-13)
        assert row["products"] == pytest.approx(revenue.products, rel=1e-13)
        bought_any = sum(counts[u] > 0 for u in members)
        row = _moments(con, "conversion", variant)
        assert row["sums"] == [bought_any, sum(counts_before[u] > 0 for u in members)]
        assert row["products"][0] == bought_any


def test_crash_free_sessions_count_each_session_once(registry):
    con = empty_warehouse()
    add_exposures(con, ["a", "b", "c"], ["control", "control", "treatment"], when=at(1))
    # a: session s0 began before the exposure, holds it, and goes on; s1 crashes twice; s2 is clean. b: s3 crashes
    # without a logged start. c: nothing. A session of the pre-period does not count.
    add_events(con, "session_started", ["a", "a", "a"], [at(0.9), at(2), at(3)], session_id=["s0", "s1", "s2"])
    add_events(con, "experiment_exposed", ["a"], at(1), session_id="s0", experiment_id="checkout_redesign")
    add_events(con, "app_crashed", ["a", "a", "b"], [at(2.1), at(2.2), at(4)], session_id=["s1", "s1", "s3"])
    add_events(con, "session_started", ["a"], at(-5), session_id="old")
    build_moments(con, registry, AS_OF)
    row = _moments(con, "crash_free_sessions", "control")
    assert row["names"] == ["numerator", "denominator"]
    assert row["sums"] == [2, 4]
    assert row["products"] == [1 + 1, 1 * 3 + 1 * 1, 9 + 1]
    assert _moments(con, "crash_free_sessions", "treatment")["sums"] == [0, 0]


def test_quantile_moments_equal_numpy(registry):
    rng = np.random.default_rng(8)
    con = empty_warehouse()
    users = [f"u{i}" for i in rng.integers(0, 200, 3000)]
    loads = np.round(rng.lognormal(6, 0.7, 3000), 3)
    add_exposures(con, [f"u{i}" for i in range(210)], ["control"] * 210)
    add_events(con, "page_timing", users, at(2), load_ms=loads)
    build_moments(con, registry, AS_OF)
    row = _moments(con, "p95_latency_ms", "control")
    cut = np.quantile(loads, 0.95)
    names = [f"u{i}" for i in range(210)]
    total = np.array([users.count(name) for name in names])
    above = np.array([sum(u == name and x > cut for u, x in zip(users, loads, strict=True)) for name in names])
    assert row["quantile_value"] == pytest.approx(cut, rel=1e-12)
    assert row["n"] == 210
    assert row["sums"] == [above.sum(), total.sum()]
    assert row["products"] == [above @ above, above @ total, total @ total]
    share = above.sum() / total.sum()
    half = 1.96 * np.sqrt(((above - share * total) ** 2).sum() * 210 / 209) / total.sum()
    low, high = int(np.floor(3000 * (0.95 - half))), int(np.ceil(3000 * (0.95 + half)))
    ordered = np.sort(loads)
    slope = (ordered[high - 1] - ordered[low - 1]) / ((high - low) / 3000)
    assert row["quantile_slope"] == pytest.approx(slope, rel=1e-12)


def test_who_counts(registry):
    con = empty_warehouse()
    add_exposures(con, ["in_c", "in_t"], ["control", "treatment"], when=[at(0), END - dt.timedelta(seconds=1)])
    add_exposures(con, ["early"], ["control"], when=at(-0.1))
    add_exposures(con, ["late"], ["control"], when=END)
    add_exposures(con, ["both1", "both2"], ["control", "treatment"], contaminated=True)
    add_exposures(con, ["odd"], ["holdout"])
    add_exposures(con, ["foreign"], ["control"], experiment="of_another_team")
    result = build_moments(con, registry, END + dt.timedelta(days=1))
    counts = result.units["checkout_redesign"]
    assert counts.eligible == 2
    assert counts.excluded == {"contaminated": 2, "before_start": 1, "after_end": 1, "undeclared_variant": 1}
    assert result.unregistered == ("of_another_team",)
    assert _moments(con, "conversion", "control")["n"] == 1
    assert result.nothing_to_do["search_ranking"] == "nothing to do: no exposures"


def test_what_counts(registry):
    """Of one user's purchases only those from first exposure to end, known at as_of, with analytics consent."""
    con = empty_warehouse()
    add_exposures(con, ["u"], ["control"], when=at(5))
    for when, price in [(at(4.9), 1), (at(5), 10), (at(9), 100), (at(12), 1000)]:
        add_events(con, "purchase", ["u"], when, price=[Decimal(price)], quantity=1)
    add_events(con, "purchase", ["u"], at(6), price=[Decimal(10_000)], quantity=1, consent=False)
    add_events(con, "purchase", [None], at(6), price=[Decimal(10_000)], quantity=1)
    build_moments(con, registry, at(10))
    assert _moments(con, "revenue_per_user", "control")["sums"] == [110, 0]
    build_moments(con, registry, at(13))
    assert _moments(con, "revenue_per_user", "control")["sums"] == [1110, 0]


def test_an_exposure_after_as_of_does_not_exist_yet(registry):
    con = empty_warehouse()
    add_exposures(con, ["u"], ["control"], when=at(5))
    result = build_moments(con, registry, at(4))
    assert result.rows == 0
    assert result.units["checkout_redesign"].eligible == 0


def test_two_threads_give_the_same_bits_as_one(registry):
    """Enough rows (three row groups of 122,880) that DuckDB really works in parallel; sums of DOUBLE differ here."""
    rng = np.random.default_rng(9)
    size = 300_000
    users = [f"u{i}" for i in rng.integers(0, 20_000, size)]
    cents = [Decimal(int(value)) / 100 for value in rng.integers(0, 50_000, size)]
    con = empty_warehouse()
    add_exposures(con, [f"u{i}" for i in range(20_000)], ["control", "treatment"] * 10_000)
    add_events(con, "purchase", users, at(3), price=cents, quantity=1)
    add_events(con, "page_timing", users, at(3), load_ms=rng.lognormal(6, 1, size))
    tables = []
    for threads in (1, 2, 2):
        con.execute(f"set threads = {threads}")
        build_moments(con, registry, AS_OF)
        tables.append(table_rows(con, "experiments.moments"))
    assert tables[0] == tables[1] == tables[2]


def test_no_exposures_leave_an_empty_documented_table(registry):
    con = empty_warehouse()
    result = build_moments(con, registry, AS_OF)
    assert result.rows == 0
    assert set(result.nothing_to_do) == set(registry.experiments)
    comments = con.execute("select comment from duckdb_columns() where table_name = 'moments'").fetchall()
    assert comments
    assert all(row[0] for row in comments)


def test_nothing_is_left_behind(registry):
    con, shop = empty_warehouse(), _random_shop()
    _load(con, shop)
    build_moments(con, registry, AS_OF)
    assert con.execute("select table_name from duckdb_tables() where temporary").fetchall() == []


def test_a_metric_of_an_unknown_event_or_column_is_refused(tmp_path, registry):
    text = (PACKAGED_EXPERIMENTS / "metrics.yaml").read_text()
    con, shop = empty_warehouse(), _random_shop()
    _load(con, shop)
    for old, new, says in [
        ("events: [page_timing]", "events: [page_timings]", "the tracking plan does not declare"),
        ("value: load_ms", "value: load_time", "event 'page_timing' has no column 'load_time'"),
    ]:
        (tmp_path / "metrics.yaml").write_text(text.replace(old, new))
        with pytest.raises(InputError, match=says):
            build_moments(con, load_experiments([PACKAGED_EXPERIMENTS, tmp_path]), AS_OF)


def test_a_failed_build_keeps_the_table_of_the_last_one(registry):
    con, shop = empty_warehouse(), _random_shop()
    _load(con, shop)
    build_moments(con, registry, AS_OF)
    before = table_rows(con, "experiments.moments")
    add_events(con, "purchase", ["u1"], at(21), price=[Decimal("9e13")], quantity=10**8)
    with pytest.raises(InputError, match="metric 'revenue_per_user' has values that are not finite or too large"):
        build_moments(con, registry, AS_OF)
    assert table_rows(con, "experiments.moments") == before


def test_missing_relations_and_zones_are_said(registry):
    con = duckdb.connect()
    with pytest.raises(InputError, match=r"experiments\.exposures does not exist"):
        build_moments(con, registry, AS_OF)
    with pytest.raises(InputError, match="no time zone"):
        build_moments(con, registry, dt.datetime(2026, 3, 1))  # noqa: DTZ001
