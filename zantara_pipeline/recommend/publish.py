"""The published tables: recommendations.offline_metrics and recommendations.user_recommendations.

Belongs here: writing them, each in one transaction. Does not belong here: making lists (artifacts.py) or metrics.

Both are made from the champion bundle alone, so that each can be rebuilt by itself after the warehouse was deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zantara_pipeline.recommend.artifacts import Bundle
from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.ladder import RUNGS
from zantara_pipeline.recommend.loading import collect, release
from zantara_pipeline.recommend.tables import OFFLINE_METRICS, USER_RECOMMENDATIONS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Users written at once: 4,096 lists of 20 are about 10 MB of Arrow.
BLOCK_USERS = 4096

USERS = """
SELECT users.user_id, coalesce(known.code, -1)::INTEGER AS code
FROM core.users AS users LEFT JOIN recommend_known AS known USING (user_id)
WHERE users.personalization_allowed ORDER BY users.user_id
"""


@dataclass(frozen=True)
class RecommendResult:
    """What was written."""

    users: int = 0
    rows: int = 0
    users_by_model: dict[str, int] = field(default_factory=dict)
    bundle_version: str | None = None
    note: str = ""


def write_offline_metrics(
    con: DuckDBPyConnection, config: RecommendationConfig, bundle: Bundle | None, *, as_of: datetime
) -> int:
    """Replace recommendations.offline_metrics by the bundle's rows; how many. Empty where there is nothing to do."""
    nothing = _nothing_to_do(con, config, bundle, as_of)
    with _transaction(con):
        OFFLINE_METRICS.replace(con)
        if bundle is None or nothing:
            return 0
        _insert(con, OFFLINE_METRICS.name, bundle.offline_metrics)
        return len(bundle.offline_metrics)


def write_recommendations(
    con: DuckDBPyConnection, config: RecommendationConfig, bundle: Bundle | None, *, as_of: datetime
) -> RecommendResult:
    """Replace recommendations.user_recommendations: a list for every user of core.users with personalization_allowed.

    Users unknown to the bundle get popularity; lists are shorter than `lists.length` only where the catalogue is.
    """
    nothing = _nothing_to_do(con, config, bundle, as_of)
    with _transaction(con):
        USER_RECOMMENDATIONS.replace(con)
        if bundle is None or nothing:
            return RecommendResult(note=nothing or "")
        users, rows, served = 0, 0, Counter[str]()
        for ids, codes in _user_blocks(con, bundle):
            table = _block(bundle, ids, codes, config.lists.length, as_of, served)
            _insert(con, USER_RECOMMENDATIONS.name, table)
            users, rows = users + len(codes), rows + len(table)
    return RecommendResult(users, rows, dict(sorted(served.items())), bundle.version, str(bundle.manifest["reason"]))


def published_list(con: DuckDBPyConnection, user: str) -> list[dict[str, Any]]:
    """Somebody's list as the last run published it, best first; empty for who is unknown or does not allow it."""
    query = f"SELECT * EXCLUDE (user_id) FROM {USER_RECOMMENDATIONS.name} WHERE user_id = ? ORDER BY rank"
    found = con.execute(query, [user])
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _nothing_to_do(
    con: DuckDBPyConnection, config: RecommendationConfig, bundle: Bundle | None, as_of: datetime
) -> str | None:
    """A champion of better days must not serve a shop whose consented data are gone: ask the data again."""
    try:
        nothing = collect(con, config, as_of).too_little(config)
    finally:
        release(con)
    if nothing is None and bundle is None:
        return "nothing to do: no model has been trained yet"
    return nothing


def _user_blocks(con: DuckDBPyConnection, bundle: Bundle) -> Iterator[tuple[pa.Array, NDArray[np.int32]]]:
    codes = pa.array(np.arange(len(bundle.user_ids), dtype=np.int32))
    con.register("recommend_known", pa.table({"user_id": bundle.user_ids, "code": codes}))
    try:
        table = con.sql(USERS).to_arrow_table()
    finally:
        con.unregister("recommend_known")
    for start in range(0, len(table), BLOCK_USERS):
        block = table.slice(start, BLOCK_USERS).combine_chunks()
        yield block["user_id"].cast(pa.string()).combine_chunks(), block["code"].to_numpy().astype(np.int32)


def _block(
    bundle: Bundle,
    ids: pa.Array,
    codes: NDArray[np.int32],
    length: int,
    as_of: datetime,
    served: Counter[str],
) -> pa.Table:
    made = bundle.recommend(codes, length)
    rows, places = np.nonzero(made.lists.items >= 0)
    items, rungs = made.lists.items[rows, places], made.rungs[rows]
    n = len(rows)
    served.update(RUNGS[rung] for rung in made.rungs)
    return pa.table(
        {
            "user_id": ids.take(pa.array(rows)),
            "rank": pa.array((places + 1).astype(np.int32)),
            "product_id": bundle.item_ids.take(pa.array(items)),
            "score": pa.array(made.lists.scores[rows, places]),
            "served_by": pa.array(RUNGS).take(pa.array(rungs)),
            "propensity": pa.array(made.propensity[rows, places]),
            "reasons": _reasons(bundle, rungs, made.sources[rows, places], made.affinity[rows, places]),
            "bundle_version": pa.repeat(bundle.version, n),
            "generated_at": pa.repeat(pa.scalar(as_of, pa.timestamp("us", tz="UTC")), n),
        }
    )


def _reasons(
    bundle: Bundle, rungs: NDArray[np.int8], sources: NDArray[np.int8], affinity: NDArray[np.int32]
) -> pa.Array:
    """One list of words per row; distinct lists are few, so each is built once and taken by index."""
    distinct, place = np.unique(np.column_stack([rungs, sources, affinity]), axis=0, return_inverse=True)
    words = [bundle.reasons(*map(int, key)) for key in distinct]
    return pa.array(words, type=pa.list_(pa.string())).take(pa.array(place.ravel()))


def _insert(con: DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    con.register("recommend_block", rows)
    try:
        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM recommend_block")
    finally:
        con.unregister("recommend_block")


@contextmanager
def _transaction(con: DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN")
    try:
        yield
        con.execute("COMMIT")
    except BaseException:
        con.execute("ROLLBACK")
        raise
