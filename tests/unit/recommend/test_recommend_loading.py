"""From warehouse rows to integer columns: weights, windows, codes, hashes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from recommend_shop import START, as_of, config, warehouse

from zantara_pipeline.recommend.loading import collect, dataset_hash, feature_hash, load, release

EVENTS = [
    ("b", "p2", "product_view", 1, None),
    ("a", "p1", "purchase", 2, None),
    ("a", "p1", "refund", 3, None),
    ("a", "p2", "rating", 3, 0.9),
    ("a", "p3", "rating", 4, 0.25),
    ("a", "p3", "product_view", 4, None),
    ("b", "p9", "add_to_cart", 5, None),
    ("b", "p2", "item_tag", 5, None),
]
PRODUCTS = [
    {"product_id": "p1", "category": "Shoes|Sale", "brand": " acme "},
    {"product_id": "p2", "category": "Shoes", "provider": ""},
    {"product_id": "p5", "category": None, "available_from": START + timedelta(days=40)},
    {"product_id": "p4"},
]


def read(events=EVENTS, products=PRODUCTS, days=10, **sections):
    con = warehouse(events, products)
    found = collect(con, config(**sections), as_of(days))
    return con, found, load(con)


def pairs(data):
    made = data.positives()
    users, items = data.user_ids.to_pylist(), data.item_ids.to_pylist()
    return {(users[u], items[i]): w for u, i, w in zip(made.users, made.items, made.weights, strict=True)}


def test_weights_are_summed_by_pair_and_only_positive_sums_are_learned():
    _, found, data = read()
    # a bought p1 and sent it back (5 - 5); a low rating (-5) outweighs the view of p3.
    assert pairs(data) == pytest.approx({("a", "p2"): 4.5, ("b", "p2"): 2, ("b", "p9"): 3})
    assert (found.n_interactions, found.n_users, found.n_positive_items) == (8, 2, 2)


def test_codes_follow_the_order_of_ids_and_items_outside_the_catalogue_are_items():
    _, found, data = read()
    assert data.user_ids.to_pylist() == ["a", "b"]
    assert data.item_ids.to_pylist() == ["p1", "p2", "p3", "p4", "p9"]
    assert found.n_items == 5
    assert all(array.dtype.kind in "ifb" for array in (data.users, data.items, data.times, data.weights, data.seen))


def test_a_product_not_yet_available_is_no_item_until_it_is():
    assert "p5" not in read(days=10)[2].item_ids.to_pylist()
    assert "p5" in read(days=41)[2].item_ids.to_pylist()


def test_features_are_split_trimmed_and_limited_to_the_declared_ones():
    _, _, data = read()
    names, items = data.feature_names.to_pylist(), data.item_ids.to_pylist()
    found = {
        (items[i], names[f]) for i, f in zip(data.feature_items.tolist(), data.feature_codes.tolist(), strict=True)
    }
    assert found == {
        ("p1", "brand=acme"),
        ("p1", "category=Sale"),
        ("p1", "category=Shoes"),
        ("p2", "category=Shoes"),
    }
    assert read(item_features=["brand"])[2].feature_names.to_pylist() == ["brand=acme"]


def test_only_declared_events_bar_a_product():
    _, _, data = read(exclude_seen=["purchase"])
    assert data.seen_matrix().nnz == 1
    assert read(exclude_seen=[])[2].seen_matrix().nnz == 0


def test_the_window_counts_back_from_the_latest_interaction_not_from_the_clock():
    # The latest lies on day 5; day 3 is exactly two days before it and no longer inside.
    assert read(data={"train_window_days": 2})[1].n_interactions == 4
    assert read(data={"train_window_days": 2}, days=5000)[1].n_interactions == 4
    assert read(days=2.5)[1].n_interactions == 2


def test_the_row_limit_keeps_the_latest():
    _, found, data = read(data={"max_interactions": 3})
    assert found.n_interactions == 3
    assert data.times.min() == (START + timedelta(days=4)).timestamp() * 1e6


def test_hashes_ignore_row_order_and_the_clock_and_notice_every_change():
    def hashes(events, products=PRODUCTS, days=10):
        con, _, _ = read(events, products, days)
        return dataset_hash(con), feature_hash(con)

    data_hash, item_hash = hashes(EVENTS)
    assert hashes(EVENTS[::-1], PRODUCTS[::-1]) == (data_hash, item_hash)
    assert hashes(EVENTS, days=39) == (data_hash, item_hash)
    for changed in (
        EVENTS[:-1],
        [*EVENTS, EVENTS[0]],
        [("b", "p2", "product_view", 1.5, None), *EVENTS[1:]],
        [("b", "p2", "add_to_cart", 1, None), *EVENTS[1:]],
        [*EVENTS[:4], ("a", "p3", "rating", 4, 0.26), *EVENTS[5:]],
    ):
        assert hashes(changed)[0] != data_hash
    assert hashes(EVENTS, [{"product_id": "p1", "category": "Shoes"}, *PRODUCTS[1:]])[1] != item_hash
    # Known values: the same on every machine and in every run (a change here makes every shop train anew).
    assert (data_hash, item_hash) == ("27596221dae6d5460c2e73674d133797", "52b59489c97478b5388cd4d93ac2a864")


def test_too_little_is_said_with_the_threshold():
    _, found, _ = read()
    bounds = {"min_users": 1, "min_items": 1, "min_interactions": 1}
    assert found.too_little(config(data=bounds)) is None
    assert found.too_little(config()) == "nothing to do: 8 consented interactions, at least 200 are needed"
    assert "2 users with a positive" in found.too_little(config(data={**bounds, "min_users": 3}))
    empty = collect(warehouse([]), config(), as_of())
    assert empty.too_little(config(data=bounds)) == "nothing to do: no consented interactions"


def test_nothing_is_left_in_the_connection():
    con, _, _ = read()
    release(con)
    assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchall() == [(0,)]
