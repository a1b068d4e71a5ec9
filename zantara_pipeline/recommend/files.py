"""Evaluation of plain files: interactions to train on and to test on, no warehouse and no registry.

Belongs here: reading two files into a `Dataset` and giving back plain values. Does not belong here: the evaluation.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend.config import RecommendationConfig, load_config
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.evaluation import evaluate_at
from zantara_pipeline.recommend.gate import choose

# Names under which other tools write the same column.
ALIASES = {"item_id": "product_id", "occurred_at": "timestamp"}


def evaluate_files(
    train: Path,
    test: Path,
    *,
    items: Path | None = None,
    config: RecommendationConfig | None = None,
) -> dict[str, Any]:
    """Fit LightFM and popularity on one file, measure them on another.

    Parameters
    ----------
    train, test : CSV or Parquet with user_id, product_id (or item_id) and optionally timestamp (a time, or seconds
        since 1970; without it popularity does not decay) and weight (default 1; above 0 is a positive).
        Every row of `test` counts as later than every row of `train`.
    items : CSV or Parquet with product_id and any of the declared `item_features`.

    Returns
    -------
    dict ready for JSON: counts, metrics (rows as in recommendations.offline_metrics), and what the gate would serve.

    Raises
    ------
    InputError : unreadable file, missing column, or nothing that can be evaluated.
    """
    config = config or load_config()
    attributes = None if items is None else _read(items, ["product_id"])
    dataset, cut_us = _dataset(_rows(train), _rows(test), attributes, config)
    evaluation = evaluate_at(dataset, config, cut_us)
    if evaluation.cut_us is None:
        raise InputError(evaluation.note, test, "give test rows that train does not hold")
    return {
        "train_rows": int((dataset.times < cut_us).sum()),
        "test_rows": int((dataset.times >= cut_us).sum()),
        "users": dataset.n_users,
        "items": dataset.n_items,
        "test_users": len(evaluation.users),
        "warm_test_users": int(evaluation.warm.sum()),
        "gate": asdict(choose(evaluation, config.gate)),
        "metrics": [asdict(row) for row in evaluation.rows],
    }


def _dataset(
    train: pa.Table, test: pa.Table, attributes: pa.Table | None, config: RecommendationConfig
) -> tuple[Dataset, int]:
    """Both files as one dataset, the test one microsecond after the latest training row."""
    cut_us = pc.max(train["time"]).as_py() + 1
    test = test.set_column(test.schema.get_field_index("time"), "time", pa.array(np.full(len(test), cut_us)))
    rows = pa.concat_tables([train, test])
    listed = [] if attributes is None else [attributes["product_id"].cast(pa.string())]
    item_ids = _distinct(pa.chunked_array([*rows["product_id"].chunks, *(c for t in listed for c in t.chunks)]))
    user_ids = _distinct(rows["user_id"])
    users, items = _codes(rows["user_id"], user_ids), _codes(rows["product_id"], item_ids)
    times, weights = rows["time"].to_numpy(), rows["weight"].to_numpy()
    order = np.lexsort((weights, times, items, users))
    names, feature_items, feature_codes = _features(attributes, item_ids, config)
    known_from = np.full(len(item_ids), np.iinfo(np.int64).max)
    for column in listed:
        known_from[_codes(column, item_ids)] = np.iinfo(np.int64).min
    dataset = Dataset(
        user_ids,
        item_ids,
        users[order],
        items[order],
        times[order],
        weights[order],
        np.full(len(rows), bool(config.exclude_seen)),
        known_from,
        feature_items,
        feature_codes,
        names,
    )
    return dataset, cut_us


def _features(
    attributes: pa.Table | None, item_ids: pa.StringArray, config: RecommendationConfig
) -> tuple[pa.StringArray, NDArray[np.int32], NDArray[np.int32]]:
    """(item, feature) pairs from an attribute file; one feature per separated value."""
    pairs: set[tuple[int, str]] = set()
    if attributes is not None:
        codes = _codes(attributes["product_id"].cast(pa.string()), item_ids).tolist()
        for kind in (name for name in config.item_features if name in attributes.column_names):
            for code, text in zip(codes, attributes[kind].cast(pa.string()).to_pylist(), strict=True):
                values = (value.strip() for value in (text or "").split(config.feature_separator))
                pairs |= {(code, f"{kind}={value}") for value in values if value}
    names = sorted({name for _, name in pairs})
    place = {name: code for code, name in enumerate(names)}
    numbered = np.array(sorted((item, place[name]) for item, name in pairs), dtype=np.int32).reshape(-1, 2)
    return pa.array(names, pa.string()), numbered[:, 0], numbered[:, 1]


def _rows(path: Path) -> pa.Table:
    """user_id, product_id (strings), time (int64 microseconds), weight (float64)."""
    table = _read(path, ["user_id", "product_id"])
    if len(table) == 0:
        raise InputError("no rows", path, "give at least one interaction")
    zeros = pa.array(np.zeros(len(table), dtype=np.int64))
    ones = pa.array(np.ones(len(table)))
    try:
        weight = table["weight"].cast(pa.float64()) if "weight" in table.column_names else ones
        time = _microseconds(table["timestamp"]) if "timestamp" in table.column_names else zeros
    except pa.ArrowException:
        raise InputError(
            "a timestamp or weight cannot be read", path, "use times like 2026-03-01T00:00:00Z, or numbers"
        ) from None
    ids = {name: table[name].cast(pa.string()) for name in ("user_id", "product_id")}
    made = pa.table({**ids, "time": time, "weight": weight})
    if any(column.null_count for column in made.columns):
        raise InputError("empty cells", path, "fill or remove rows without user_id, product_id, timestamp or weight")
    return made


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return pc.cast(pc.multiply(column.cast(pa.float64()), 1e6), pa.int64(), safe=False)
    return column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())


def _read(path: Path, needed: list[str]) -> pa.Table:
    import pyarrow.csv
    import pyarrow.parquet

    ids = dict.fromkeys(("user_id", "product_id", "item_id"), pa.string())
    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=ids))
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"cannot be read ({type(error).__name__})", path, "give a CSV with a header, or Parquet"
        ) from None
    table = table.rename_columns([ALIASES.get(name, name) for name in table.column_names])
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise InputError(f"column {missing[0]} is missing", path, f"the file has {', '.join(table.column_names)}")
    return table


def _distinct(column: pa.ChunkedArray) -> pa.StringArray:
    ids = pc.unique(column)
    return ids.take(pc.sort_indices(ids))


def _codes(column: pa.ChunkedArray, ids: pa.StringArray) -> NDArray[np.int32]:
    codes: NDArray[np.int32] = pc.index_in(column, value_set=ids).to_numpy().astype(np.int32)
    return codes
