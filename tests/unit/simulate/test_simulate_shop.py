"""What a user of `simulate` notices: same bits, refusals, progress, and planted effects that can be found again."""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.simulate import Truth, simulate
from zantara_pipeline.simulate.consent import BOTH, base_consent, make_consent
from zantara_pipeline.simulate.effects import EXPERIMENTS, bucket, make_arms
from zantara_pipeline.simulate.parameters import Parameters
from zantara_pipeline.simulate.people import make_people
from zantara_pipeline.simulate.sessions import make_sessions


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "shop"
    simulate(out, events=2_000)
    return out


def test_same_seed_same_bytes_another_seed_other_bytes(small: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", events=2_000)
    assert _bytes(tmp_path / "again") == _bytes(small)
    simulate(tmp_path / "other", events=2_000, seed=8)
    assert _bytes(tmp_path / "other")["truth.json"] != _bytes(small)["truth.json"]


def test_the_same_simulation_over_itself_changes_nothing(small: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    truth = simulate(small, events=2_000)
    assert truth.to_json() == (small / "truth.json").read_text()
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


def test_a_folder_with_anything_else_is_refused_and_kept(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not empty"):
        simulate(small, events=2_000, seed=8)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        simulate(tmp_path, events=2_000)
    assert _bytes(tmp_path) == {"mine.txt": b"mine"}
    with pytest.raises(InputError, match="not a folder"):
        simulate(tmp_path / "mine.txt", events=2_000)


def test_a_changed_or_additional_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    simulate(out, events=2_000)
    (out / "events" / "extra.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="not empty"):
        simulate(out, events=2_000)
    (out / "events" / "extra.jsonl").unlink()
    items = out / "items" / "items.csv"
    items.write_text(items.read_text() + "p9999,new,,,,1.00,EUR,2026-01-05T00:00:00.000Z\n")
    with pytest.raises(InputError, match="not empty"):
        simulate(out, events=2_000)


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    out.mkdir()
    (tmp_path / ".shop.unfinished" / "events").mkdir(parents=True)  # a killed simulation's
    simulate(out, events=2_000)
    assert [p.name for p in tmp_path.iterdir()] == ["shop"]


def test_an_interrupted_simulation_leaves_no_half_of_itself(tmp_path: Path) -> None:
    def interrupt(done: int, days: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "shop", events=2_000, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_day(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    simulate(tmp_path / "shop", events=2_000, days_before=7, days_during=8, progress=lambda a, b: seen.append((a, b)))
    assert seen == [(day, 15) for day in range(1, 16)]


@pytest.mark.parametrize(
    "wrong",
    [{"events": 1_999}, {"seed": -1}, {"days_before": 6}, {"days_during": 0}, {"start": date(1, 1, 1)}],
)
def test_arguments_out_of_bounds_say_which(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        simulate(tmp_path / "shop", **{"events": 2_000, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        simulate(tmp_path / "file" / "shop", events=2_000)


def test_truth_reads_back(small: Path) -> None:
    text = (small / "truth.json").read_text()
    assert Truth.from_json(text).to_json() == text
    assert json.loads(text)["parameters"] == {
        "events": 2_000,
        "seed": 7,
        "days_before": 28,
        "days_during": 28,
        "start": "2026-01-05",
    }


def test_a_small_shop_does_not_promise_effects_that_it_cannot_show(small: Path) -> None:
    truth = Truth.from_json((small / "truth.json").read_bytes())
    conversion = truth.experiments["checkout_redesign"].effects[0]
    assert conversion.relative == pytest.approx(0.2, abs=0.001)
    assert conversion.power is not None and conversion.power < 0.5 and not conversion.detectable
    assert not truth.experiments["search_ranking"].srm.detectable


def test_assignment_is_a_salted_hash() -> None:
    """SHA-256 of "checkout_redesign:v1:u000001" begins with these 8 bytes (sha256sum)."""
    assert bucket("checkout_redesign:v1", "u000001") == 0xB50D0B605D877B70 / 2**64
    places = np.array([bucket("image_carousel:v1", f"u{i}") for i in range(4_000)])
    other = np.array([bucket("search_ranking:v1", f"u{i}") for i in range(4_000)])
    assert abs((places >= 0.5).mean() - 0.5) < 3 * 0.5 / math.sqrt(4_000)
    assert abs(np.corrcoef(places, other)[0, 1]) < 3 / math.sqrt(4_000)  # experiments are independent


class Big:
    """The accepted, deduplicated events of a shop large enough to measure in.

    Consent is read from the flags alone: who withdraws in the ledger with a stale client (3 in 100) is noise here.
    """

    def __init__(self, folder: Path) -> None:
        self.truth = simulate(folder, events=60_000)
        self.start = datetime.fromisoformat(self.truth.experiments["checkout_redesign"].start).timestamp()
        self.by_user: dict[str, list[tuple[float, str, str, dict[str, Any]]]] = defaultdict(list)
        self.variant: dict[str, dict[str, str]] = defaultdict(dict)
        seen = set()
        for path in sorted((folder / "events").iterdir()):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            for line in content.splitlines():
                try:
                    row = json.loads(line)
                    at = datetime.fromisoformat(row["timestamp"]).astimezone(UTC).timestamp()
                    fine = row["consent"]["analytics"] is True and row["event_id"] not in seen
                except (ValueError, KeyError, TypeError):
                    continue
                price, quantity = row["properties"].get("price", 1.0), row["properties"].get("quantity", 1)
                load = row["properties"].get("load_ms", None if row["event"] == "page_timing" else 1.0)
                clean = all(type(v) in (int, float) for v in (price, quantity, load)) and price > 0 and load < 600_000
                if fine and clean:
                    seen.add(row["event_id"])
                    self.by_user[row["user_id"]].append((at, row["event"], row["session_id"], row["properties"]))
        for user, events in self.by_user.items():
            events.sort(key=lambda event: event[:2])
            for _, name, _, properties in events:
                if name == "experiment_exposed":
                    self.variant[properties["experiment_id"]].setdefault(user, properties["variant"])

    def during(self, user: str) -> list[tuple[float, str, str, dict[str, Any]]]:
        return [event for event in self.by_user[user] if event[0] >= self.start]

    def arm(self, experiment: str, variant: str) -> list[str]:
        return [user for user, seen in self.variant[experiment].items() if seen == variant]

    def bought(self, users: list[str], before: bool) -> np.ndarray:
        return np.array(
            [any(n == "purchase" and (at < self.start) == before for at, n, _, _ in self.by_user[u]) for u in users],
            dtype=float,
        )


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Big:
    return Big(tmp_path_factory.mktemp("big") / "shop")


def test_the_planted_lift_is_there_in_sign_and_size(big: Big) -> None:
    effect = big.truth.experiments["checkout_redesign"].effects[0]
    assert effect.metric == "conversion" and effect.control is not None and effect.treatment is not None
    control, treatment = (big.bought(big.arm("checkout_redesign", v), before=False) for v in ("control", "treatment"))
    for found, planted in ((control, effect.control), (treatment, effect.treatment)):
        assert abs(found.mean() - planted) < 3 * math.sqrt(planted * (1 - planted) / len(found)) + 0.005
    assert treatment.mean() > control.mean()
    assert effect.relative == pytest.approx(0.2, abs=0.001)


def test_over_many_shops_lifts_scatter_around_the_planted_ones() -> None:
    """40 shops of 20,000 events: the mean lift, and null experiments' z values, within 3 standard errors."""
    lifts, nulls = [], []
    for seed in range(40):
        parameters = Parameters(20_000, seed, 28, 28, date(2026, 1, 5))
        people = make_people(parameters)
        base = base_consent(parameters, people)
        sessions = make_sessions(parameters, people, base == BOTH, 18_000)
        consent = make_consent(parameters, people, sessions, base)
        arms = make_arms(parameters, people, sessions, consent)
        for experiment in EXPERIMENTS:
            seen = arms.logged[experiment] & consent.ok_analytics
            users = np.unique(sessions.user[seen])
            bought = np.bincount(sessions.user[seen], weights=arms.buys[seen], minlength=len(people))[users] > 0
            treated = arms.treatment[experiment][users]
            control, treatment = bought[~treated], bought[treated]
            error = math.sqrt(control.var() / len(control) + treatment.var() / len(treatment))
            if experiment == "checkout_redesign":
                lifts.append(treatment.mean() / control.mean() - 1)
            else:
                nulls.append((treatment.mean() - control.mean()) / error)
    assert abs(np.mean(lifts) - 0.2) < 3 * np.std(lifts) / math.sqrt(len(lifts))
    assert abs(np.mean(nulls)) < 3 / math.sqrt(len(nulls))
    assert 1 - 3 / math.sqrt(2 * len(nulls)) < np.std(nulls) < 1 + 3 / math.sqrt(2 * len(nulls))


def test_other_experiments_leave_conversion_alone(big: Big) -> None:
    for experiment in ("search_ranking", "image_carousel"):
        control, treatment = (big.bought(big.arm(experiment, v), before=False) for v in ("control", "treatment"))
        error = math.sqrt(control.var() / len(control) + treatment.var() / len(treatment))
        assert abs(treatment.mean() - control.mean()) < 3 * error
        assert big.truth.experiments[experiment].effects[0].relative == 0


def test_buying_persists_so_that_cuped_reduces_variance(big: Big) -> None:
    users = big.arm("checkout_redesign", "control")
    correlation = np.corrcoef(big.bought(users, before=True), big.bought(users, before=False))[0, 1]
    assert correlation**2 > 0.08  # the share of variance that CUPED removes


def test_the_broken_split_and_only_it_fails_the_chi_square_test(big: Big) -> None:
    for name, experiment in big.truth.experiments.items():
        n = sum(experiment.exposed.values())
        chi_square = sum((count - n / 2) ** 2 / (n / 2) for count in experiment.exposed.values())
        assert experiment.srm.chi_square == pytest.approx(chi_square)
        assert experiment.srm.planted == (name == "search_ranking") == (experiment.srm.p_value < 0.001)
    assert big.truth.experiments["search_ranking"].srm.p_value < 1e-4


def test_the_carousel_harms_latency_and_crashes_and_the_checkout_does_not(big: Big) -> None:
    p95, crashes = {}, {}
    for experiment in ("checkout_redesign", "image_carousel"):
        for variant in ("control", "treatment"):
            events = [event for user in big.arm(experiment, variant) for event in big.during(user)]
            loads = [properties["load_ms"] for _, name, _, properties in events if name == "page_timing"]
            p95[experiment, variant] = float(np.percentile(loads, 95))
            crashed = {session for _, name, session, _ in events if name == "app_crashed"}
            crashes[experiment, variant] = len(crashed) / len({session for _, _, session, _ in events})
    carousel = p95["image_carousel", "treatment"] / p95["image_carousel", "control"]
    assert 1.10 < carousel < 1.20
    assert 0.93 < p95["checkout_redesign", "treatment"] / p95["checkout_redesign", "control"] < 1.07
    assert crashes["image_carousel", "treatment"] > 3 * crashes["image_carousel", "control"]
    assert abs(crashes["checkout_redesign", "treatment"] - crashes["checkout_redesign", "control"]) < 0.012
    latency, crash = big.truth.experiments["image_carousel"].effects[2:]
    assert (
        latency.relative == pytest.approx(0.15) and latency.detectable and crash.detectable and crash.relative < -0.015
    )


def test_tastes_can_be_learnt(big: Big) -> None:
    """Item-to-item cosine, the simplest collaborative filter, beats popularity by half on the last two weeks."""
    cut = big.start + 14 * 86_400
    products = sorted({p["product_id"] for es in big.by_user.values() for _, n, _, p in es if n == "product_view"})
    index = {product: i for i, product in enumerate(products)}
    seen = np.zeros((len(big.by_user), len(products)))
    wanted = np.zeros_like(seen)
    for row, events in enumerate(big.by_user.values()):
        for at, name, _, properties in events:
            if name == "product_view":
                (seen if at < cut else wanted)[row, index[properties["product_id"]]] = 1
    popularity = seen.sum(axis=0)
    alike = seen.T @ seen / np.sqrt(np.outer(popularity, popularity) + 1e-9)
    with_history = (seen.sum(axis=1) >= 3) & ((wanted * (1 - seen)).sum(axis=1) > 0)
    hits = {}
    for name, score in (("cosine", seen @ alike), ("popularity", np.tile(popularity, (len(seen), 1)))):
        score = np.where(seen > 0, -1.0, score)[with_history]
        top = np.argsort(-score, axis=1)[:, :10]
        hits[name] = np.take_along_axis(wanted[with_history], top, axis=1).mean()
    assert hits["cosine"] > 1.5 * hits["popularity"]
    # Popularity is real too: it finds at least twice what chance finds.
    assert hits["popularity"] > 2 * wanted[with_history].mean()
