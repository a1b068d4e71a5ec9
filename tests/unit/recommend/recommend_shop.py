"""Fabricated warehouses and datasets for the tests of recommend (no tests here)."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa

from zantara_pipeline.recommend.candidates import gather
from zantara_pipeline.recommend.config import RecommendationConfig, load_config
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.histories import histories_of
from zantara_pipeline.recommend.ranking import Lists
from zantara_pipeline.recommend.stack import best_lines

START = datetime(2026, 3, 1, tzinfo=UTC)


def config(**sections) -> RecommendationConfig:
    """The packaged contract with some values replaced: config(data={"min_users": 2}).

    Fewer trees than packaged: ten of them see what is planted here, and a ranker is fitted eight times per evaluation.
    """
    values = load_config().model_dump()
    values["ranking"]["boosting"]["trees"] = 10
    for section, changes in sections.items():
        values[section] = {**values[section], **changes} if isinstance(changes, dict) else changes
    return RecommendationConfig.model_validate(values)


def warehouse(events, products=(), extra_users=()) -> duckdb.DuckDBPyConnection:
    """events: (user, product, event, days after START, rating_scaled or None);
    products: dicts with product_id and any column; extra_users: (user, personalization_allowed)."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE SCHEMA features; CREATE SCHEMA core")
    con.execute(
        """CREATE TABLE features.interactions (user_id VARCHAR, product_id VARCHAR, event VARCHAR,
        occurred_at TIMESTAMPTZ, event_id VARCHAR, rating DOUBLE, rating_scaled DOUBLE)"""
    )
    con.execute(
        """CREATE TABLE core.products (product_id VARCHAR, title VARCHAR, category VARCHAR, brand VARCHAR,
        provider VARCHAR, price DECIMAL(18,4), currency VARCHAR, available_from TIMESTAMPTZ,
        first_seen_at TIMESTAMPTZ)"""
    )
    con.execute("CREATE TABLE core.users (user_id VARCHAR, personalization_allowed BOOLEAN)")
    rows = [
        {
            "user_id": user,
            "product_id": product,
            "event": event,
            "occurred_at": START + timedelta(days=float(day)),
            "event_id": f"e{number}",
            "rating_scaled": scaled,
        }
        for number, (user, product, event, day, scaled) in enumerate(events)
    ]
    _insert(con, "features.interactions", rows)
    _insert(con, "core.products", [dict(product) for product in products])
    allowed = dict.fromkeys(sorted({row["user_id"] for row in rows}), True) | dict(extra_users)
    _insert(con, "core.users", [{"user_id": user, "personalization_allowed": yes} for user, yes in allowed.items()])
    return con


def _insert(con, table, rows) -> None:
    if rows:
        keys = list(dict.fromkeys(key for row in rows for key in row))
        con.register("incoming", pa.Table.from_pylist([dict.fromkeys(keys) | row for row in rows]))
        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
        con.unregister("incoming")


def clustered_events(n_users=160, clusters=4, per_cluster=20, views=12, days=60, seed=5, loyal=0.95):
    """Every user views products of one cluster (`loyal` of the time), spread evenly over the days."""
    rng = np.random.default_rng(seed)
    events = []
    for user in range(n_users):
        home = user % clusters
        own = rng.permutation(per_cluster)[:views]
        for place in own:
            cluster = home if rng.random() < loyal else int(rng.integers(clusters))
            events.append((f"u{user:04d}", f"p{cluster}-{place:03d}", "product_view", rng.random() * days, None))
    return events


def clustered_products(clusters=4, per_cluster=20):
    return [
        {"product_id": f"p{cluster}-{place:03d}", "category": f"c{cluster}", "brand": f"b{place % 3}"}
        for cluster in range(clusters)
        for place in range(per_cluster)
    ]


def as_of(days=60) -> datetime:
    return START + timedelta(days=days)


def dataset(users, items, times, weights=None, n_users=None, n_items=None, seen=None, features=()) -> Dataset:
    """A Dataset from plain integer lists; ids are zero-padded so that id order is code order."""
    users, items = np.array(users, dtype=np.int32), np.array(items, dtype=np.int32)
    times = np.array(times, dtype=np.int64)
    weights = np.ones(len(users)) if weights is None else np.array(weights, dtype=np.float64)
    seen = np.ones(len(users), dtype=bool) if seen is None else np.array(seen)
    order = np.lexsort((weights, times, items, users))
    n_users = n_users or int(users.max(initial=-1)) + 1
    n_items = n_items or int(items.max(initial=-1)) + 1
    names = sorted({name for _, name in features})
    pairs = np.array(sorted((item, names.index(name)) for item, name in features), dtype=np.int32).reshape(-1, 2)
    return Dataset(
        pa.array([f"u{code:06d}" for code in range(n_users)]),
        pa.array([f"i{code:06d}" for code in range(n_items)]),
        users[order],
        items[order],
        times[order],
        weights[order],
        seen[order],
        np.full(n_items, np.iinfo(np.int64).min),
        pairs[:, 0],
        pairs[:, 1],
        pa.array(names, pa.string()),
    )


def own_lists(generator, data: Dataset, users, k) -> Lists:
    """The lists of one fitted generator for user codes of its dataset, what they saw left out."""
    users = np.asarray(users)
    found = gather(
        {"one": generator},
        histories_of(data).take(users),
        allowed=data.candidates,
        seen=data.seen_matrix()[users],
        most=k,
    )
    return best_lines(found, found.scores[:, 0], len(users), k)


def write(path, rows):
    """A CSV of dicts; returns the path."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path
