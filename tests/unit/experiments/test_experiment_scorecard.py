"""The scorecard on shops whose truth is known: what it says, and what it refuses to say."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from experiment_shop import AS_OF, add_events, add_exposures, at, by_metric, empty_warehouse, table_rows
from scipy import stats

from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import ExperimentRegistry, build_moments, build_scorecard, load_experiments
from zantara_pipeline.experiments.assignment import assign
from zantara_pipeline.experiments.scorecard import COLUMNS
from zantara_pipeline.experiments.srm import check_sample_ratio, daily_alpha


@pytest.fixture(scope="module")
def registry():
    """Without salts: these shops assign by chance."""
    found = load_experiments()
    bare = {name: dataclasses.replace(one, salt=None) for name, one in found.experiments.items()}
    return dataclasses.replace(found, experiments=bare)


def _shop(seed=1, *, units=4000, share=0.5, buys=(0.3, 0.3), slower=1.0, crash=(0.02, 0.02), history=True):
    """checkout_redesign: purchases follow a lasting taste (CUPED finds it), page views are clustered."""
    rng = np.random.default_rng(seed)
    con = empty_warehouse()
    users = np.array([f"u{i}" for i in range(units)])
    treated = rng.random(units) < share
    add_exposures(con, list(users), ["treatment" if flag else "control" for flag in treated], when=at(0.5))
    taste = rng.random(units) * 2
    if history:
        buyers = users[rng.random(units) < 0.3 * taste]
        add_events(con, "purchase", list(buyers), at(-7), price=[Decimal(20)] * len(buyers), quantity=1)
    buyers = users[rng.random(units) < np.where(treated, buys[1], buys[0]) * taste]
    add_events(con, "purchase", list(buyers), at(7), price=[Decimal(20)] * len(buyers), quantity=1)
    views = rng.integers(1, 8, units)
    speed = np.exp(rng.normal(6, 0.3, units)) * np.where(treated, slower, 1)
    loads = np.repeat(speed, views) * np.exp(rng.normal(0, 0.2, views.sum()))
    add_events(con, "page_timing", list(np.repeat(users, views)), at(3), load_ms=loads)
    sessions = [f"s{i}" for i in range(views.sum())]
    owners = np.repeat(users, views)
    add_events(con, "session_started", list(owners), at(2), session_id=sessions)
    broken = rng.random(len(owners)) < np.repeat(np.where(treated, crash[1], crash[0]), views)
    crashed = [session for session, flag in zip(sessions, broken, strict=True) if flag]
    add_events(con, "app_crashed", list(owners[broken]), at(2.01), session_id=crashed)
    return con


def _read_out(con, registry, as_of=AS_OF):
    build_moments(con, registry, as_of)
    return build_scorecard(con, registry, as_of)


def _kinds(result):
    return sorted(finding.kind for finding in result.findings)


def test_a_true_lift_is_found_and_covered(registry):
    result = _read_out(_shop(buys=(0.3, 0.36)), registry)
    row = by_metric(result.rows)["primary", "conversion"]
    assert row.verdict == "better"
    assert row.ci_low < 0.2 < row.ci_high
    assert row.log_p == pytest.approx(math.log(row.p_value))
    assert _kinds(result) == []
    assert [row.verdict for row in result.rows if row.role == "srm"] == ["ok", "ok"]
    assert set(result.nothing_to_do) == {"search_ranking", "image_carousel"}


def test_a_loss_is_said_in_the_metrics_own_direction(registry):
    rows = by_metric(_read_out(_shop(buys=(0.36, 0.3)), registry).rows)
    assert rows["primary", "conversion"].verdict == "worse"


def test_no_difference_stays_inconclusive(registry):
    rows = by_metric(_read_out(_shop(seed=3), registry).rows)
    assert rows["primary", "conversion"].verdict == "inconclusive"


def test_scorecard_equals_tea_tasting_on_the_same_units(registry):
    """End to end: the rows behind every unit, joined here by other means, through an independent implementation."""
    con = _shop(seed=5, buys=(0.3, 0.33))
    rows = by_metric(_read_out(con, registry).rows)
    units = con.sql("""
        select (variant = 'treatment')::int as variant,
            (select count(*) from staging.stg_lake__purchase p where user_id = unit_id and occurred_at > '2026-02-02')
                as purchases,
            (select count(*) from staging.stg_lake__purchase p where user_id = unit_id and occurred_at < '2026-02-02')
                as purchases_before,
            (select count(*) from staging.stg_lake__app_crashed c where c.user_id = unit_id) as crashes,
            (select count(*) from staging.stg_lake__session_started s where s.user_id = unit_id) as sessions
        from experiments.exposures order by unit_id
    """).to_arrow_table()
    units = units.append_column("clean", pa.compute.subtract(units["sessions"], units["crashes"]))
    oracle = tt.Experiment(
        conversion=tt.Mean("purchases", "purchases_before"), crash_free=tt.RatioOfMeans("clean", "sessions")
    ).analyze(units)
    for ours, theirs in [
        (rows["primary", "conversion"], oracle["conversion"]),  # at most one purchase each here: 0 or 1
        (rows["guardrail", "crash_free_sessions"], oracle["crash_free"]),
    ]:
        assert ours.value == pytest.approx(theirs.treatment, rel=1e-9)
        assert ours.control_value == pytest.approx(theirs.control, rel=1e-9)
        assert ours.lift == pytest.approx(theirs.rel_effect_size, rel=1e-7)
        assert (ours.ci_low, ours.ci_high) == pytest.approx(
            (theirs.rel_effect_size_ci_lower, theirs.rel_effect_size_ci_upper), rel=1e-7
        )
        assert ours.difference_low == pytest.approx(theirs.effect_size_ci_lower, rel=1e-7)
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-7)


def test_cuped_narrows_the_interval_and_says_by_how_much(registry):
    row = by_metric(_read_out(_shop(seed=2), registry).rows)["primary", "conversion"]
    assert "with CUPED" in row.method
    assert 0 < row.cuped_correlation < 1
    assert row.cuped_reduction == pytest.approx(row.cuped_correlation**2, rel=0.05)
    assert row.value != row.raw_value


def test_absent_cuped_is_never_silent(registry):
    result = _read_out(_shop(history=False), registry)
    assert _kinds(result) == ["cuped_absent"]
    assert result.findings[0].severity == "warning"
    assert "nothing in the 28 days before the start" in result.findings[0].message
    row = by_metric(result.rows)["primary", "conversion"]
    assert "without CUPED" in row.method
    assert (row.cuped_reduction, row.cuped_correlation) == (None, None)


def test_cuped_switched_off_is_said_too(registry):
    off = _with(registry, variance_reduction="none")
    result = _read_out(_shop(), off)
    assert _kinds(result) == ["cuped_absent"]
    assert "variance_reduction: none" in result.findings[0].message


def test_cuped_below_its_floor_is_said_after_the_minimum_duration(registry):
    high = _with(registry, cuped_min_reduction=0.9)
    con = _shop()
    result = _read_out(con, high)
    assert _kinds(result) == ["cuped_below_floor"]
    assert result.findings[0].details["floor"] == 0.9
    assert _kinds(_read_out(con, high, at(10))) == []


def test_a_broken_split_withholds_every_effect(registry):
    result = _read_out(_shop(share=0.42, buys=(0.3, 0.5), slower=1.5), registry)
    assert _kinds(result) == ["srm"]
    assert result.findings[0].severity == "critical"
    srm = [row for row in result.rows if row.role == "srm"]
    assert {row.verdict for row in srm} == {"srm"}
    oracle = stats.chisquare([row.n for row in srm])
    assert srm[0].p_value == pytest.approx(oracle.pvalue, rel=1e-9)
    assert {row.verdict for row in result.rows if row.role != "srm"} == {"invalid: srm"}


def test_an_extreme_mismatch_keeps_its_logarithm(registry):
    con = empty_warehouse()
    add_exposures(con, [f"u{i}" for i in range(4000)], ["control"] * 3900 + ["treatment"] * 100)
    result = _read_out(con, registry)
    assert result.rows[0].p_value == 0.0
    assert result.rows[0].log_p == pytest.approx(math.log(2) + stats.norm.logsf(math.sqrt(3800**2 / 4000)), rel=1e-12)
    wanted = "control 0.9750 instead of 0.5, treatment 0.0250 instead of 0.5 (p = 1.7e-786); it sits in"
    assert wanted in result.findings[0].message


def test_a_slower_page_is_harm(registry):
    result = _read_out(_shop(slower=1.4), registry)
    row = by_metric(result.rows)["guardrail", "p95_latency_ms"]
    assert row.verdict == "harm"
    assert row.ci_low < 0.4 < row.ci_high
    assert _kinds(result) == ["guardrail_harm"]
    finding = result.findings[0]
    assert (finding.severity, finding.subject) == ("critical", "checkout_redesign")
    assert "\n" not in finding.message
    assert finding.details["metric"] == "p95_latency_ms"


def test_crashes_are_harm(registry):
    result = _read_out(_shop(crash=(0.01, 0.06)), registry)
    assert by_metric(result.rows)["guardrail", "crash_free_sessions"].verdict == "harm"
    assert _kinds(result) == ["guardrail_harm"]


def test_a_guardrail_is_safe_underpowered_or_harm_by_its_interval(registry):
    con = _shop(seed=4)  # no true change of latency
    for threshold, verdict in [("+30%", "safe"), ("+0.1%", "underpowered")]:
        rule = registry.defaults.guardrails[0].model_copy(update={"threshold": threshold})
        row = by_metric(_read_out(con, _with(registry, guardrails=(rule,))).rows)["guardrail", "p95_latency_ms"]
        assert row.verdict == verdict
        assert row.threshold == f"{threshold} relative"


def test_absolute_threshold_is_compared_with_the_difference(registry):
    con = _shop(slower=1.4)  # p95 is around 750 ms: 1.4 times is some 300 ms more
    for threshold, verdict in [("+100", "harm"), ("+300", "underpowered"), ("+2000", "safe")]:
        rule = registry.defaults.guardrails[0].model_copy(update={"threshold": threshold, "basis": "absolute"})
        row = by_metric(_read_out(con, _with(registry, guardrails=(rule,))).rows)["guardrail", "p95_latency_ms"]
        assert (threshold, row.verdict) == (threshold, verdict)


def test_between_planned_looks_only_harm_and_mismatch_are_said(registry):
    registry = _with(registry, looks=(14, 28))
    con = _shop(buys=(0.3, 0.5), slower=1.4)
    rows = by_metric(_read_out(con, registry, at(13.9)).rows)
    assert rows["primary", "conversion"].verdict == "keep running"
    assert rows["guardrail", "crash_free_sessions"].verdict == "keep running"
    assert rows["guardrail", "p95_latency_ms"].verdict == "harm"
    rows = by_metric(_read_out(con, registry, at(14)).rows)
    assert rows["primary", "conversion"].verdict == "better"


def test_guardrails_without_events_have_no_data_not_a_clean_bill(registry):
    con = empty_warehouse()
    add_exposures(con, [f"u{i}" for i in range(100)], ["control", "treatment"] * 50)
    rows = by_metric(_read_out(con, registry).rows)
    assert rows["guardrail", "p95_latency_ms"].verdict == "no data"
    assert rows["guardrail", "crash_free_sessions"].verdict == "no data"
    assert rows["primary", "conversion"].verdict == "inconclusive"  # nobody bought: a fact, without an interval
    assert "nothing varies" in rows["primary", "conversion"].method


def test_sessions_without_any_crash_do_not_prove_safety(registry):
    con = empty_warehouse()
    users = [f"u{i}" for i in range(100)]
    add_exposures(con, users, ["control", "treatment"] * 50)
    add_events(con, "session_started", users, at(1), session_id=users)
    row = by_metric(_read_out(con, registry).rows)["guardrail", "crash_free_sessions"]
    assert (row.value, row.verdict, row.ci_low) == (1.0, "underpowered", None)


@pytest.mark.parametrize("variants", [["control"], ["treatment"], ["control", "treatment"], ["treatment"] * 60])
def test_one_unit_and_one_arm_have_a_defined_verdict(registry, variants):
    con = empty_warehouse()
    add_exposures(con, [f"u{i}" for i in range(len(variants))], variants)
    result = _read_out(con, registry)
    wanted = "invalid: srm" if len(variants) == 60 else "no data"
    assert {row.verdict for row in result.rows if row.role != "srm"} == {wanted}
    assert {row.verdict for row in result.rows if row.role == "srm"} == {"srm" if len(variants) == 60 else "no data"}


def test_units_left_out_are_counted_in_the_method(registry):
    con = _shop()
    add_exposures(con, ["x1", "x2"], ["control", "treatment"], contaminated=True)
    srm = [row for row in _read_out(con, registry).rows if row.role == "srm"]
    assert "2 contaminated" in srm[0].method
    assert sum(row.n for row in srm) == 4000


def test_three_arms_are_each_compared_with_control(registry):
    base = registry.experiments["checkout_redesign"]
    three = dataclasses.replace(base, variants={"control": 0.5, "a": 0.25, "b": 0.25})
    con = empty_warehouse()
    add_exposures(con, [f"u{i}" for i in range(400)], ["control", "a", "control", "b"] * 100)
    result = _read_out(con, ExperimentRegistry({base.name: three}, registry.metrics, registry.defaults))
    assert [row.variant for row in result.rows if row.role == "primary"] == ["a", "b"]
    assert {row.variant: row.value for row in result.rows if row.role == "srm"} == {
        "control": 0.5,
        "a": 0.25,
        "b": 0.25,
    }


def test_the_table_holds_the_rows_with_documented_columns(registry):
    con = _shop()
    result = _read_out(con, registry)
    written = table_rows(con, "experiments.scorecard")
    expected = [{k: v for k, v in dataclasses.asdict(row).items() if k != "as_of"} for row in result.rows]
    assert written == expected
    comments = dict(
        con.execute("select column_name, comment from duckdb_columns() where table_name = 'scorecard'").fetchall()
    )
    assert comments == {name: text for name, _, text in COLUMNS}
    published = (
        "experiment_id variant metric role as_of n value control_value lift ci_low ci_high p_value log_p method verdict"
    )
    assert list(comments)[:15] == published.split()
    assert con.execute("select distinct as_of = ? from experiments.scorecard", [AS_OF]).fetchall() == [(True,)]


def test_the_same_input_gives_the_same_bits(registry):
    con = _shop()
    first = _read_out(con, registry)
    assert _read_out(con, registry) == first


def test_nothing_to_do_is_said(registry):
    con = empty_warehouse()
    result = _read_out(con, registry)
    assert result.rows == ()
    assert result.summary == "nothing to do: no exposures"
    assert table_rows(con, "experiments.scorecard") == []


def test_moments_missing_or_of_another_moment_are_said(registry):
    with pytest.raises(InputError, match=r"experiments\.moments does not exist"):
        build_scorecard(duckdb.connect(), registry, AS_OF)
    con = _shop(units=50)
    build_moments(con, registry, AS_OF)
    with pytest.raises(InputError, match="built for another as_of"):
        build_scorecard(con, registry, AS_OF + dt.timedelta(days=1))


def test_p95_false_positive_rate_is_five_percent_on_clustered_page_views(registry):
    """400 A/A experiments through the SQL; an order-statistic interval that ignores users gave 19 %."""
    rng = np.random.default_rng(1)
    runs, units = 400, 400
    base = registry.experiments["checkout_redesign"]
    names = [f"aa_{i}" for i in range(runs)]
    many = {name: dataclasses.replace(base, name=name, secondary=(), guardrails=base.guardrails[:1]) for name in names}
    con = empty_warehouse()
    users = np.array([f"u{i}" for i in range(runs * units)])
    variants = np.where(rng.random(len(users)) < 0.5, "control", "treatment")
    add_exposures(con, list(users), list(variants), experiment=list(np.repeat(names, units)))
    views = rng.geometric(0.25, len(users))
    loads = np.exp(6 + np.repeat(rng.normal(0, 0.5, len(users)), views) + rng.normal(0, 0.5, views.sum()))
    add_events(con, "page_timing", list(np.repeat(users, views)), at(1), load_ms=loads)
    result = _read_out(con, ExperimentRegistry(many, registry.metrics, registry.defaults))
    p_values = [row.p_value for row in result.rows if row.metric == "p95_latency_ms"]
    assert len(p_values) == runs
    rate = np.mean(np.array(p_values) < 0.05)
    assert abs(rate - 0.05) < 3 * math.sqrt(0.05 * 0.95 / runs)


def _with(registry, **changes):
    experiment = dataclasses.replace(registry.experiments["checkout_redesign"], **changes)
    return ExperimentRegistry({experiment.name: experiment}, registry.metrics, registry.defaults)


@pytest.mark.parametrize(("wrong", "severity"), [(0, None), (5, "warning"), (30, "critical")])
def test_exposures_that_disagree_with_the_salt_are_found(registry, wrong, severity):
    salted = load_experiments()
    experiment = salted.experiments["checkout_redesign"]
    units = [f"u-{number}" for number in range(1000)]
    logged = [assign(experiment.salt, experiment.variants, unit) for unit in units]
    other = {"control": "treatment", "treatment": "control"}
    con = empty_warehouse()
    add_exposures(con, units, [other[v] if n < wrong else v for n, v in enumerate(logged)], when=at(0.5))
    found = [finding for finding in _read_out(con, salted).findings if finding.kind == "assignment_disagrees"]
    assert [(finding.severity, finding.details["disagreeing"]) for finding in found] == [(severity, wrong)] * bool(
        wrong
    )
    assert not any(finding.kind == "assignment_disagrees" for finding in _read_out(con, registry).findings)


def test_a_mismatch_is_traced_to_the_platform_that_it_sits_in(registry):
    """Of the treatment on android six in ten are lost; everywhere else the split is even."""
    rng = np.random.default_rng(7)
    platforms = rng.choice(["web", "ios", "android"], 6000, p=[0.5, 0.2, 0.3])
    treated = rng.random(6000) < 0.5
    kept = ~(treated & (platforms == "android") & (rng.random(6000) < 0.6))
    users, arms = np.flatnonzero(kept), np.where(treated[kept], "treatment", "control")
    con = empty_warehouse()
    days = [at(float(day)) for day in rng.uniform(0, 20, len(users))]
    add_exposures(con, [f"u{i}" for i in users], list(arms), when=days, platform=list(platforms[kept]))
    result = _read_out(con, registry)
    finding = next(one for one in result.findings if one.kind == "srm")
    assert finding.details["segment"] == "platform: android"
    in_it = [arm for arm, platform in zip(arms, platforms[kept], strict=True) if platform == "android"]
    share = in_it.count("treatment") / len(in_it)
    told = f"it sits in platform android ({len(in_it):,} units: control {1 - share:.4f}, treatment {share:.4f})"
    assert told in finding.message
    assert {row.mismatch_at for row in result.rows if row.role == "srm"} == {
        told + ", without which the split is as declared"
    }
    assert math.exp(finding.details["segment_log_p"]) == pytest.approx(
        stats.chisquare([in_it.count("control"), in_it.count("treatment")]).pvalue, rel=1e-6
    )


def test_a_mismatch_that_is_everywhere_is_not_blamed_on_a_segment(registry):
    rng = np.random.default_rng(8)
    platforms = list(rng.choice(["web", "ios", "android"], 8000))
    con = empty_warehouse()
    arms = ["treatment" if flag else "control" for flag in rng.random(8000) < 0.4]
    add_exposures(con, [f"u{i}" for i in range(8000)], arms, platform=platforms)
    finding = next(one for one in _read_out(con, registry).findings if one.kind == "srm")
    assert finding.details["segment"] is None
    assert "it sits in no single platform" in finding.message


def test_a_sound_split_of_a_segment_of_chance_raises_nothing(registry):
    """Where the whole is as declared no segment is asked: of many, one is odd by chance."""
    con = empty_warehouse()
    arms = ["control", "treatment"] * 2000
    add_exposures(con, [f"u{i}" for i in range(4000)], arms, platform=["web", "ios"] * 2000)
    assert not [one for one in _read_out(con, registry).findings if one.kind == "srm"]


def test_units_in_a_closed_arm_or_an_unknown_one_are_a_leak(registry):
    base = registry.experiments["checkout_redesign"]
    closed = dataclasses.replace(base, variants={"control": 0.5, "treatment": 0.5, "old": 0.0})
    con = empty_warehouse()
    add_exposures(con, [f"u{i}" for i in range(1000)], ["control", "treatment"] * 500)
    add_exposures(con, ["v1", "v2", "v3"], ["old", "old", "typo"])
    result = _read_out(con, ExperimentRegistry({base.name: closed}, registry.metrics, registry.defaults))
    leak = next(one for one in result.findings if one.kind == "variant_leak")
    assert (leak.severity, leak.details) == ("warning", {"leaked": 3, "exposed": 1003})
    srm = [row for row in result.rows if row.role == "srm"]
    assert [(row.variant, row.n, row.verdict) for row in srm] == [("control", 500, "ok"), ("treatment", 500, "ok")]
    assert "2 closed_variant, 1 undeclared_variant" in srm[0].method
    add_exposures(con, [f"w{i}" for i in range(20)], ["old"] * 20)
    result = _read_out(con, ExperimentRegistry({base.name: closed}, registry.metrics, registry.defaults))
    assert next(one for one in result.findings if one.kind == "variant_leak").severity == "critical"


@pytest.mark.parametrize(("torn", "found"), [(10, False), (11, True)])
def test_contamination_is_said_from_one_unit_in_a_hundred(registry, torn, found):
    con = empty_warehouse()
    whole = 1000 - torn
    add_exposures(con, [f"u{i}" for i in range(whole)], (["control", "treatment"] * 500)[:whole])
    add_exposures(con, [f"v{i}" for i in range(torn)], ["control"] * torn, contaminated=True)
    assert ("contaminated" in _kinds(_read_out(con, registry))) == found


def test_p_values_are_corrected_for_how_many_were_asked(registry):
    """Three arms and two secondaries: Holm over the arms of the primary, Benjamini-Hochberg over four secondaries."""
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(11)
    users = [f"u{i}" for i in range(6000)]
    arms = rng.choice(["control", "treatment", "bold"], 6000)
    con = empty_warehouse()
    add_exposures(con, users, list(arms))
    chance = np.select([arms == "treatment", arms == "bold"], [0.325, 0.34], 0.3)
    buyers = [user for user, buys in zip(users, rng.random(6000) < chance, strict=True) if buys]
    add_events(con, "purchase", buyers, at(5), price=[Decimal(20)] * len(buyers), quantity=1)
    views = rng.integers(1, 4, 6000)
    add_events(con, "page_timing", list(np.repeat(users, views)), at(3), load_ms=rng.normal(500, 50, views.sum()))
    base = registry.experiments["checkout_redesign"]
    three = dataclasses.replace(
        base, variants={"control": 1 / 3, "treatment": 1 / 3, "bold": 1 / 3},
        secondary=("revenue_per_user", "p95_latency_ms"), guardrails=(),
    )  # fmt: skip
    rows = _read_out(con, ExperimentRegistry({base.name: three}, registry.metrics, registry.defaults)).rows
    for role, method in (("primary", "holm"), ("secondary", "fdr_bh")):
        family = [row for row in rows if row.role == role]
        assert len(family) == (2 if role == "primary" else 4)
        wanted = multipletests([row.p_value for row in family], method=method)[1]
        assert [math.exp(row.adjusted_log_p) for row in family] == pytest.approx(list(wanted), rel=1e-9)
        for row in family:
            proven = math.exp(row.adjusted_log_p) < 0.05
            assert (row.verdict in ("better", "worse")) == proven
    assert {row.adjusted_log_p for row in rows if row.role == "srm"} == {None}


# 20,000 sound experiments of 28 days, looked at every evening: at most 1 in 1,000 is ever called broken.
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (0.5, 0.2, 0.2, 0.1)])
def test_a_sound_split_is_called_broken_in_at_most_one_of_a_thousand_experiments(registry, weights):
    base = registry.experiments["checkout_redesign"]
    names = ["control", "treatment", "bold", "odd"][: len(weights)]
    experiment = dataclasses.replace(base, variants=dict(zip(names, weights, strict=True)))
    rng = np.random.default_rng(28)
    runs, days = 20_000, 28
    ever = np.zeros(runs, dtype=bool)
    so_far = np.zeros((runs, len(weights)))
    for _ in range(days):
        so_far += rng.multinomial(400, weights, runs)
        expected = so_far.sum(axis=1, keepdims=True) * np.array(weights)
        statistic = ((so_far - expected) ** 2 / expected).sum(axis=1)
        ever |= stats.chi2.sf(statistic, len(weights) - 1) < daily_alpha(experiment)
    assert ever.mean() <= 0.001 + 3 * math.sqrt(0.001 * 0.999 / runs)


def test_a_split_of_51_to_49_is_found_by_a_hundred_thousand_units(registry):
    """Its expected distance is 6.3 deviations, the bound 4.1: the normal approximation misses one draw of seventy."""
    experiment = registry.experiments["checkout_redesign"]
    draws = np.random.default_rng(51).binomial(100_000, 0.51, 2000)
    ratios = [check_sample_ratio(experiment, {"treatment": int(k), "control": 100_000 - int(k)}) for k in draws]
    bound = stats.norm.isf(daily_alpha(experiment) / 2)
    wanted = stats.norm.sf(bound - 0.01 * math.sqrt(100_000) / 0.5)
    assert sum(ratio.mismatch for ratio in ratios) / 2000 == pytest.approx(
        wanted, abs=3 * math.sqrt(wanted * (1 - wanted) / 2000)
    )
    assert wanted > 0.98
    assert ratios[0].test.p_value == pytest.approx(stats.chisquare([draws[0], 100_000 - draws[0]]).pvalue, rel=1e-9)


def test_a_distance_below_the_floor_is_never_broken(registry):
    """Of a hundred million units half a thousandth is ten deviations, and harms nothing."""
    experiment = registry.experiments["checkout_redesign"]
    near = {"treatment": 50_050_000, "control": 49_950_000}
    ratio = check_sample_ratio(experiment, near)
    assert ratio.test.p_value < 1e-20 and not ratio.mismatch
    assert check_sample_ratio(dataclasses.replace(experiment, srm_floor=0.0), near).mismatch


def test_the_split_is_told_day_by_day(registry):
    con = empty_warehouse()
    days = {0: (40, 60), 1: (10, 0), 3: (50, 41)}
    for day, (control, treatment) in days.items():
        arms = ["control"] * control + ["treatment"] * treatment
        add_exposures(con, [f"u{day}-{i}" for i in range(len(arms))], arms, when=at(day + 0.5))
    add_exposures(con, ["both"], ["control"], contaminated=True, when=at(0.5))
    _read_out(con, registry)
    rows = con.execute(
        "select day, variant, new_units, units, log_p, broken_below from experiments.split_by_day"
    ).fetchall()
    assert [(row[0].day, *row[1:4]) for row in rows] == [
        (2, "control", 40, 40), (2, "treatment", 60, 60), (3, "control", 10, 50), (3, "treatment", 0, 60),
        (5, "control", 50, 100), (5, "treatment", 41, 101),
    ]  # fmt: skip
    for row, counts in zip(rows[::2], [(40, 60), (50, 60), (100, 101)], strict=True):
        assert math.exp(row[4]) == pytest.approx(stats.chisquare(counts).pvalue, rel=1e-9)
    assert {row[5] for row in rows} == {0.001 / 28}
