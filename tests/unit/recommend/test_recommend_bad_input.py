"""Odd and bad input of the recommender on files: each has a defined end, and none is a traceback."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
from recommend_shop import START, clustered_events, clustered_products, write
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend import evaluate_files, fit_file, top_lists
from zantara_pipeline.recommend.config import load_config

BASE = START.timestamp()
QUICK = load_config()
QUICK = QUICK.model_copy(
    update={
        "lightfm": QUICK.lightfm.model_copy(update={"epochs": 2, "components": 4}),
        "ranking": QUICK.ranking.model_copy(
            update={"boosting": QUICK.ranking.boosting.model_copy(update={"trees": 3})}
        ),
    }
)


def row(user, item, day, weight=1.0):
    return {"user_id": user, "item_id": item, "timestamp": BASE + day * 86400, "weight": weight}


def fitted(tmp_path, rows, **options):
    fit_file(write(tmp_path / "train.csv", rows), tmp_path / "model", config=QUICK, **options)
    return tmp_path / "model"


def listed(model, users=None, k=5):
    return [(line["user_id"], line["product_id"]) for line in top_lists(model, users, k).to_pylist()]


def test_one_user(tmp_path):
    model = fitted(tmp_path, [row("u", f"p{n}", n) for n in range(6)])
    assert listed(model) == [] and len(listed(model, ["stranger"])) == 5


def test_one_item(tmp_path):
    model = fitted(tmp_path, [row(f"u{n}", "p", n) for n in range(6)])
    assert listed(model) == [] and listed(model, ["stranger"]) == [("stranger", "p")]


def test_no_positive_pair_serves_popularity(tmp_path):
    model = fitted(tmp_path, [row(f"u{n % 4}", f"p{n % 5}", n, -1.0) for n in range(20)])
    made = top_lists(model, ["u0", "stranger"], 3).to_pylist()
    assert {line["served_by"] for line in made} == {"popularity"}


def test_all_test_users_are_cold(tmp_path):
    train = write(tmp_path / "train.csv", [row(f"u{n % 30}", f"p{n % 11}", n / 9) for n in range(300)])
    test = write(tmp_path / "test.csv", [row(f"new{n}", f"p{n % 11}", 40) for n in range(40)])
    told = evaluate_files(train, test, config=QUICK)
    assert told["warm_test_users"] == 0 and told["gate"]["served_model"] == "popularity"
    values = {(r["slice"], r["metric"], r["k"]): r["value"] for r in told["metrics"] if r["model"] == "stack"}
    assert values["warm", "ndcg", 10] is None and values["all", "ndcg", 10] == values["cold", "ndcg", 10] > 0


def test_items_without_attributes_and_unknown_ones_are_ranked(tmp_path):
    rows = [row(f"u{n % 30}", f"p{n % 11}", n / 9) for n in range(300)]
    items = write(tmp_path / "items.csv", [{"item_id": "p1", "category": "a"}, {"item_id": "p99", "category": ""}])
    model = fitted(tmp_path, rows, items=items)
    assert ("stranger", "p99") in listed(model, ["stranger"], 12) and len(listed(model, ["stranger"], 12)) == 12


def test_a_user_with_50000_events_and_duplicate_rows(tmp_path):
    rng = np.random.default_rng(2)
    heavy = [row("heavy", f"p{int(item)}", place / 5000) for place, item in enumerate(rng.integers(0, 900, 50_000))]
    rows = heavy + [row(f"u{n % 60}", f"p{n}", n / 100) for n in range(1000)] * 2
    assert len(listed(fitted(tmp_path, rows), ["heavy"])) == 5


def test_equal_timestamps_have_no_ranker_and_still_lists(tmp_path):
    rows = [row(u, p, 3.0) for u, p, *_ in clustered_events(n_users=60)]
    counts = fit_file(write(tmp_path / "train.csv", rows), tmp_path / "model", config=QUICK)
    assert counts["ranker"] == "none"
    assert len(listed(tmp_path / "model", ["u0001"])) == 5


def test_ids_may_be_any_text(tmp_path):
    rows = [row(f'ü{n % 20}, "x"\n', f"商品{n % 9}", n) for n in range(150)]
    model = fitted(tmp_path, rows)
    made = listed(model, ['ü1, "x"\n', "🙂"], 3)
    assert {user for user, _ in made} <= {'ü1, "x"\n', "🙂"} and all(item.startswith("商品") for _, item in made)


def test_the_order_of_rows_does_not_matter(tmp_path):
    rows = [row(u, p, day) for u, p, _, day, _ in clustered_events(n_users=60)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shuffled = [rows[int(place)] for place in np.random.default_rng(1).permutation(len(rows))]
    ours, theirs = (fitted(tmp_path / name, some) for name, some in (("a", rows), ("b", shuffled)))
    for path in ours.iterdir():
        assert path.read_bytes() == (theirs / path.name).read_bytes(), path.name


@pytest.mark.parametrize("weight", ["nan", "inf"])
def test_a_weight_that_is_no_number_is_refused(tmp_path, weight):
    train = write(tmp_path / "train.csv", [row("u", "p", 1, weight), row("v", "q", 2)])
    with pytest.raises(InputError, match=r"not a finite number|empty cells"):
        fit_file(train, tmp_path / "model", config=QUICK)
    assert not (tmp_path / "model").exists()


def test_events_weigh_as_declared_and_an_unknown_one_is_named(tmp_path):
    rows = [
        {"user_id": f"u{n % 9}", "item_id": f"p{n % 7}", "event": "purchase" if n % 7 == 3 else "product_view"}
        for n in range(80)
    ]
    model = fitted(tmp_path, rows)
    assert listed(model, ["stranger"], 1) == [("stranger", "p3")]
    rows[5]["event"] = "stared_at"
    with pytest.raises(InputError, match="event stared_at has no weight"):
        fit_file(write(tmp_path / "bad.csv", rows), tmp_path / "other", config=QUICK)


def invoke(*arguments):
    return CliRunner().invoke(app, ["recommend", *map(str, arguments)], catch_exceptions=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    events = sorted(clustered_events(), key=lambda event: event[3])
    rows = [row(u, p, day) for u, p, _, day, _ in events]
    cut = int(len(rows) * 0.85)
    write(folder / "items.csv", clustered_products())
    return write(folder / "train.csv", rows[:cut]), write(folder / "test.csv", rows[cut:]), folder / "items.csv"


def test_evaluate_prints_json_or_a_table(shop):
    train, test, items = shop
    told = json.loads(invoke("evaluate", "--train", train, "--test", test, "--items", items, "--json").stdout)
    values = {(r["model"], r["metric"]): r["value"] for r in told["metrics"] if (r["slice"], r["k"]) == ("all", 10)}
    assert values["stack", "ndcg"] > 1.5 * values["popularity", "ndcg"] and told["rules"][0]["rule"] == "cap"
    shown = invoke("evaluate", "--train", train, "--test", test, "--model", "ease")
    assert "ease" in shown.stdout and "lightfm" not in shown.stdout.split("model")[-1]


def test_fit_and_top_write_lists(shop, tmp_path):
    assert invoke("fit", "--train", shop[0], "--out", tmp_path / "model").exit_code == 0
    (tmp_path / "users.txt").write_text("user_id\nu0003\nnobody\n", encoding="utf-8")
    shown = invoke("top", "--model", tmp_path / "model", "--users", tmp_path / "users.txt", "--k", 3)
    lines = list(csv.DictReader(shown.stdout.splitlines()))
    assert [line["user_id"] for line in lines] == ["u0003"] * 3 + ["nobody"] * 3
    assert {line["served_by"] for line in lines} == {"full", "popularity"}
    assert invoke("top", "--model", tmp_path / "model", "--out", tmp_path / "all.parquet").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "model", "users.txt"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fit", "--train", "absent.csv", "--out", "model"], "cannot be read"),
        (["top", "--model", "absent"], "train it anew"),
        (["top", "--model", "absent", "--k", "0"], "a list of 0"),
        (["evaluate", "--train", "train.csv", "--test", "train.csv"], "no new positive interaction after the cut"),
        (["evaluate", "--train", "train.csv", "--test", "test.csv", "--model", "oracle"], "there is no model oracle"),
        (["fit", "--train", "train.csv", "--out", "."], "is there and holds no model"),
    ],
)
def test_mistakes_are_named(shop, arguments, told, monkeypatch):
    monkeypatch.chdir(shop[0].parent)
    made = invoke(*arguments)
    assert isinstance(made.exception, InputError) and told in str(made.exception)


def test_a_killed_fit_leaves_the_old_model(shop, tmp_path, monkeypatch):
    model = tmp_path / "model"
    assert invoke("fit", "--train", shop[0], "--out", model).exit_code == 0
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    monkeypatch.setattr("zantara_pipeline.recommend.artifacts.np.savez", die)
    with pytest.raises(KeyboardInterrupt):
        fit_file(shop[1], model)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
