"""Evaluation of plain files."""

from __future__ import annotations

import json

import pytest
from recommend_shop import START, clustered_events, clustered_products, dataset, write

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend import evaluate_files
from zantara_pipeline.recommend.files import leave_last_out


@pytest.fixture
def files(tmp_path):
    events = sorted(clustered_events(), key=lambda event: event[3])
    base = START.timestamp()
    rows = [{"user_id": u, "item_id": p, "timestamp": base + day * 86400, "weight": 1} for u, p, _, day, _ in events]
    cut = int(len(rows) * 0.85)
    train = write(tmp_path / "train.csv", rows[:cut])
    test = write(tmp_path / "test.csv", rows[cut:])
    items = write(tmp_path / "items.csv", clustered_products())
    return train, test, items


def test_two_files_give_the_metrics_as_json(files):
    train, test, items = files
    result = json.loads(json.dumps(evaluate_files(train, test, items=items)))
    values = {(r["model"], r["slice"], r["metric"], r["k"]): r["value"] for r in result["metrics"]}
    assert values["lightfm", "warm", "ndcg", 10] > 1.5 * values["popularity", "warm", "ndcg", 10]
    assert result["gate"]["served_model"] == "stack"
    assert result["items"] == 80 and result["train_rows"] + result["test_rows"] == 160 * 12


def test_an_attribute_file_is_optional(files):
    assert evaluate_files(files[0], files[1])["items"] <= 80


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,thing\na,b\n", "column product_id is missing"),
        ("user_id,product_id\n", "no rows"),
        ("user_id,product_id,timestamp\na,b,yesterday\n", "a timestamp or weight cannot be read"),
        ("user_id,product_id,weight\na,b,\nc,d,1\n", "empty cells"),
        ("", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, files, text, message):
    bad = tmp_path / "bad.csv"
    bad.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        evaluate_files(bad, files[1])
    assert "bad.csv" in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_files(tmp_path / "absent.csv", files[1])


def test_leave_last_out_moves_the_last_liked_product_of_everybody_who_has_several():
    data = dataset([0, 0, 0, 0, 1, 2, 2], [0, 1, 1, 2, 0, 1, 2], [1, 2, 9, 5, 3, 4, 6], weights=[1, 1, 1, 1, 1, 1, -1])
    moved, cuts = leave_last_out(data)
    assert cuts == [10]
    # User 0 liked product 1 last: both rows of it go. User 1 has one, user 2 has one (the other is disliked).
    assert list(zip(moved.users, moved.items, moved.times, strict=True)) == [
        (0, 0, 1), (0, 1, 10), (0, 1, 10), (0, 2, 5), (1, 0, 3), (2, 1, 4), (2, 2, 6)
    ]  # fmt: skip


def test_a_ranker_learns_from_the_products_before_the_last_one():
    data = dataset([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [1, 2, 3, 4, 5])
    moved, cuts = leave_last_out(data, steps=3)
    assert cuts == [6, 7, 8]
    # User 0: product 2 is the test, product 1 the label of the cut before; the first one stays. User 1 has one to give.
    assert moved.times.tolist() == [1, 7, 8, 4, 8]
