"""The shop's products: taste clusters, categories, popularity, prices, and new items arriving.

Belongs here: what a product is and how likely it is to be looked at. Does not belong here: who looks at it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from zantara_pipeline.simulate.parameters import DAY_MS, Parameters, iso

CLUSTERS = 8
ANY_CLUSTER = CLUSTERS  # index of "whatever is popular" among the day's choices
CATEGORIES = [
    *("kitchen", "garden", "books", "games", "shoes", "jackets", "audio", "lighting"),
    *("camping", "cycling", "skincare", "toys"),
]
WORDS = ["Classic", "Nordic", "Compact", "Urban", "Little", "Solid", "Bright", "Quiet", "Daily", "Alpine"]
ARRIVING_SHARE = 0.2
UNLISTED_SHARE = 0.01  # sold, but missing from items.csv, as happens in real shops


@dataclass(frozen=True)
class Catalogue:
    """Products as parallel lists; `first_day` <= 0 means that the product was there before the period."""

    product_id: list[str]
    title: list[str]
    category: list[str]
    brand: list[str | None]
    provider: list[str]
    price: list[float]
    cluster: list[int]
    popularity: np.ndarray[Any, np.dtype[np.float64]]
    first_day: np.ndarray[Any, np.dtype[np.int64]]
    listed: list[bool]

    def __len__(self) -> int:
        return len(self.product_id)

    @property
    def arriving(self) -> int:
        return int((self.first_day > 0).sum())

    def choices(self, day: int) -> list[list[float]]:
        """Cumulative view probabilities on a day: one list per cluster, and one over everything by popularity."""
        weight = self.popularity * (self.first_day <= day)
        cluster = np.array(self.cluster)
        tables = [weight * (cluster == c) for c in range(CLUSTERS)] + [weight]
        return [(np.cumsum(table) / table.sum()).tolist() for table in tables]

    def properties(self, item: int) -> dict[str, object]:
        """The properties that product_view carries."""
        return {
            "product_id": self.product_id[item],
            "category": self.category[item],
            "brand": self.brand[item],
            "price": self.price[item],
            "currency": "EUR",
        }


def make_catalogue(parameters: Parameters) -> Catalogue:
    """About 300 products for 100,000 events, growing with the square root of the size."""
    rng = parameters.rng("catalogue")
    n = int(np.clip(round(300 * (parameters.events / 100_000) ** 0.5), 8 * CLUSTERS, 5_000))
    cluster = np.arange(n) % CLUSTERS
    # Zipf-like: the most popular product of a cluster draws about ten times the views of its median.
    popularity = np.asarray(1.0 / (np.arange(n) // CLUSTERS + 2.0) ** 0.9, dtype=np.float64)
    # Clusters differ in appeal as well, so popularity alone is a real, if weak, recommender.
    popularity *= rng.permutation(np.geomspace(1.0, 3.0, CLUSTERS))[cluster]
    first_day = -rng.integers(1, 400, n)
    late_comers = rng.permutation(np.arange(2 * CLUSTERS, n))[: round(ARRIVING_SHARE * n)]
    first_day[late_comers] = rng.integers(1, parameters.days - 2, len(late_comers))
    category = (cluster + rng.choice([0, 1, 5], n, p=[0.6, 0.25, 0.15])) % len(CATEGORIES)
    names = [f"p{i:04d}" for i in rng.permutation(n) + 1]
    unlisted = set(rng.choice(n, max(1, round(UNLISTED_SHARE * n)), replace=False).tolist())
    prices = np.maximum(2.0, rng.lognormal(np.log(36.0), 0.6, n)).round(2)
    brands = [None if b == 0 else f"brand-{b:02d}" for b in rng.integers(0, 25, n).tolist()]
    return Catalogue(
        product_id=names,
        title=[f"{WORDS[i % len(WORDS)]} {CATEGORIES[c]} {i}" for i, c in enumerate(category.tolist())],
        category=[CATEGORIES[c] for c in category],
        brand=brands,
        provider=[f"provider-{p}" for p in rng.integers(1, 9, n)],
        price=prices.tolist(),
        cluster=cluster.tolist(),
        popularity=np.asarray(popularity, dtype=np.float64),
        first_day=first_day,
        listed=[i not in unlisted for i in range(n)],
    )


def write_items(path: Path, catalogue: Catalogue, parameters: Parameters) -> None:
    """items.csv, ordered by product id."""
    rows = sorted(
        (
            catalogue.product_id[i],
            catalogue.title[i],
            catalogue.category[i],
            catalogue.brand[i] or "",
            catalogue.provider[i],
            f"{catalogue.price[i]:.2f}",
            "EUR",
            iso(parameters.start_ms + int(catalogue.first_day[i]) * DAY_MS),
        )
        for i in range(len(catalogue))
        if catalogue.listed[i]
    )
    assert all(a[0] < b[0] for a, b in pairwise(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["product_id", "title", "category", "brand", "provider", "price", "currency", "available_from"])
        writer.writerows(rows)
