"""From the warehouse to a `Dataset`: the SQL that selects, weighs and numbers interactions, and its content hashes.

Belongs here: the queries and their order. Does not belong here: anything computed from the dataset.

Reads features.interactions and core.products. Strings stay in DuckDB and Arrow; Python sees integer columns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.dataset import Dataset

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The window counts back from the latest interaction at or before as_of: a day without events changes nothing, and
# old data behave like old data. The limit keeps the latest rows, ties broken by event_id.
SIGNALS = """
CREATE OR REPLACE TEMP TABLE recommend_signals AS
WITH upto AS (
    SELECT * FROM features.interactions
    WHERE occurred_at <= $as_of AND user_id IS NOT NULL AND product_id IS NOT NULL
),
windowed AS (
    SELECT * FROM upto
    WHERE occurred_at > (SELECT max(occurred_at) FROM upto) - to_days($train_window_days::INTEGER)
    ORDER BY occurred_at DESC, event_id, user_id, product_id
    LIMIT $max_interactions
)
SELECT
    user_id, product_id, event, event_id, rating_scaled,
    epoch_us(occurred_at) AS occurred_us,
    coalesce(CASE
        WHEN event = 'rating' AND rating_scaled < $low_below THEN $low_weight
        WHEN event = 'rating' THEN $rating * rating_scaled
        WHEN event = 'product_view' THEN $product_view
        WHEN event = 'recommendation_clicked' THEN $recommendation_clicked
        WHEN event = 'item_tag' THEN $item_tag
        WHEN event = 'add_to_cart' THEN $add_to_cart
        WHEN event = 'purchase' THEN $purchase
        WHEN event = 'refund' THEN $refund
    END, 0)::DOUBLE AS weight,
    list_contains($exclude_seen::VARCHAR[], event) AS seen
FROM windowed
"""

# An item is what the catalogue offers at as_of, or what somebody interacted with.
ITEMS = """
CREATE OR REPLACE TEMP TABLE recommend_items AS
WITH offered AS (
    SELECT product_id, epoch_us(min(coalesce(available_from, first_seen_at))) AS known_us
    FROM core.products GROUP BY product_id
    HAVING coalesce(min(coalesce(available_from, first_seen_at)) <= $as_of, true)
),
used AS (SELECT DISTINCT product_id FROM recommend_signals),
every AS (
    SELECT product_id,
        CASE WHEN offered.product_id IS NULL THEN 9223372036854775807
             ELSE coalesce(known_us, -9223372036854775808) END AS known_us
    FROM offered FULL JOIN used USING (product_id)
)
SELECT (row_number() OVER (ORDER BY product_id) - 1)::INTEGER AS item, product_id, known_us FROM every
"""

USERS = """
CREATE OR REPLACE TEMP TABLE recommend_users AS
SELECT (row_number() OVER (ORDER BY user_id) - 1)::INTEGER AS user, user_id
FROM (SELECT DISTINCT user_id FROM recommend_signals)
"""

FEATURES = """
CREATE OR REPLACE TEMP TABLE recommend_features AS
WITH long AS (
    SELECT product_id, 'category' AS kind, unnest(string_split(category, $separator)) AS value FROM core.products
    UNION ALL SELECT product_id, 'brand', unnest(string_split(brand, $separator)) FROM core.products
    UNION ALL SELECT product_id, 'provider', unnest(string_split(provider, $separator)) FROM core.products
)
SELECT DISTINCT items.item, items.product_id, long.kind || '=' || trim(long.value) AS feature
FROM long JOIN recommend_items AS items USING (product_id)
WHERE trim(long.value) <> '' AND list_contains($kinds::VARCHAR[], long.kind)
"""

ROWS = """
SELECT users.user, items.item, signals.occurred_us, signals.weight, signals.seen
FROM recommend_signals AS signals
JOIN recommend_users AS users USING (user_id)
JOIN recommend_items AS items USING (product_id)
ORDER BY users.user, items.item, signals.occurred_us, signals.weight, signals.event_id
"""

FEATURE_ROWS = """
SELECT item, (dense_rank() OVER (ORDER BY feature) - 1)::INTEGER AS feature
FROM recommend_features ORDER BY item, feature
"""

# Sums of both halves of an MD5 over all rows: independent of row order, counts duplicates, same on every machine.
# chr(31) is the ASCII unit separator, so that ("a","bc") and ("ab","c") differ.
DATASET_HASH = """
SELECT count(*), sum(md5_number_lower(line)), sum(md5_number_upper(line)) FROM (
    SELECT concat_ws(chr(31), user_id, product_id, event, occurred_us, coalesce(rating_scaled::VARCHAR, '')) AS line
    FROM recommend_signals
)
"""

FEATURE_HASH = """
SELECT count(*), sum(md5_number_lower(line)), sum(md5_number_upper(line)) FROM (
    SELECT concat_ws(chr(31), 'item', product_id, known_us) AS line FROM recommend_items
    UNION ALL SELECT concat_ws(chr(31), 'feature', product_id, feature) FROM recommend_features
)
"""

COUNTS = """
WITH pairs AS (SELECT user_id, product_id, sum(weight) AS weight FROM recommend_signals GROUP BY ALL)
SELECT
    (SELECT count(*) FROM recommend_signals),
    (SELECT count(*) FROM recommend_items),
    (SELECT count(DISTINCT user_id) FROM pairs WHERE weight > 0),
    (SELECT count(DISTINCT product_id) FROM pairs WHERE weight > 0)
"""


@dataclass(frozen=True)
class Collected:
    """What is there to learn from; the rows wait in temporary tables of the connection.

    `n_users` and `n_positive_items` count those with at least one positive pair, `n_items` the whole catalogue.
    """

    n_interactions: int
    n_items: int
    n_users: int
    n_positive_items: int

    def too_little(self, config: RecommendationConfig) -> str | None:
        """Why there is nothing to do, or None."""
        bounds = config.data
        if self.n_interactions == 0:
            return "nothing to do: no consented interactions"
        for count, least, what in (
            (self.n_interactions, bounds.min_interactions, "consented interactions"),
            (self.n_users, bounds.min_users, "users with a positive interaction"),
            (self.n_positive_items, bounds.min_items, "items with a positive interaction"),
        ):
            if count < least:
                return f"nothing to do: {count} {what}, at least {least} are needed"
        return None


def collect(con: DuckDBPyConnection, config: RecommendationConfig, as_of: datetime) -> Collected:
    """Select, weigh and number the interactions into temporary tables; `load` and the hashes read them."""
    signals, low = config.signals, config.low_rating
    con.execute(
        SIGNALS,
        {
            "as_of": as_of,
            "train_window_days": config.data.train_window_days,
            "max_interactions": config.data.max_interactions,
            "low_below": low.below,
            "low_weight": low.weight,
            "exclude_seen": list(config.exclude_seen),
            **signals.model_dump(),
        },
    )
    return number(con, config, as_of)


def number(con: DuckDBPyConnection, config: RecommendationConfig, as_of: datetime) -> Collected:
    """Give users, items and features their codes (order of id), from recommend_signals and core.products."""
    con.execute(ITEMS, {"as_of": as_of})
    con.execute(USERS)
    con.execute(FEATURES, {"separator": config.feature_separator, "kinds": list(config.item_features)})
    # fetchall, not fetchone: DuckDB 2.0 refuses con.sql while a result of execute is not read to its end.
    return Collected(*map(int, con.execute(COUNTS).fetchall()[0]))


def dataset_hash(con: DuckDBPyConnection) -> str:
    """Content hash of the interactions collected (hex, 32 characters)."""
    return _digest(con, DATASET_HASH)


def feature_hash(con: DuckDBPyConnection) -> str:
    """Content hash of the catalogue and item features collected (hex, 32 characters)."""
    return _digest(con, FEATURE_HASH)


def load(con: DuckDBPyConnection) -> Dataset:
    """Fetch what `collect` prepared."""
    rows = con.sql(ROWS).to_arrow_table()
    features = con.sql(FEATURE_ROWS).to_arrow_table()
    return Dataset(
        user_ids=_strings(con, "SELECT user_id FROM recommend_users ORDER BY user"),
        item_ids=_strings(con, "SELECT product_id FROM recommend_items ORDER BY item"),
        users=_column(rows, "user", np.int32),
        items=_column(rows, "item", np.int32),
        times=_column(rows, "occurred_us", np.int64),
        weights=_column(rows, "weight", np.float64),
        seen=_column(rows, "seen", np.bool_),
        known_from=_column(
            con.sql("SELECT known_us FROM recommend_items ORDER BY item").to_arrow_table(), "known_us", np.int64
        ),
        feature_items=_column(features, "item", np.int32),
        feature_codes=_column(features, "feature", np.int32),
        feature_names=_strings(con, "SELECT DISTINCT feature FROM recommend_features ORDER BY feature"),
    )


def release(con: DuckDBPyConnection) -> None:
    """Drop the temporary tables."""
    for table in ("recommend_signals", "recommend_items", "recommend_users", "recommend_features"):
        con.execute(f"DROP TABLE IF EXISTS {table}")


def _digest(con: DuckDBPyConnection, query: str) -> str:
    return hashlib.sha256(repr(tuple(map(str, con.execute(query).fetchall()[0]))).encode()).hexdigest()[:32]


def _column(table: pa.Table, name: str, dtype: Any) -> Any:
    return table[name].to_numpy().astype(dtype)


def _strings(con: DuckDBPyConnection, query: str) -> pa.StringArray:
    return con.sql(query).to_arrow_table().column(0).cast(pa.string()).combine_chunks()
