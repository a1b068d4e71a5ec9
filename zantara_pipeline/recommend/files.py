"""Plain files: evaluate on them, fit on them, write lists to them; no warehouse and no registry.

Belongs here: reading interaction files into a `Dataset` and giving back plain values. Does not belong here: the
evaluation, models.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend.artifacts import Bundle, make_bundle
from zantara_pipeline.recommend.config import RecommendationConfig, load_config
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.evaluation import MetricRow, evaluate_cuts, model_names
from zantara_pipeline.recommend.examples import examples_at
from zantara_pipeline.recommend.gate import choose
from zantara_pipeline.recommend.histories import histories_of
from zantara_pipeline.recommend.ladder import RUNGS
from zantara_pipeline.recommend.learning import learn
from zantara_pipeline.recommend.rolling import choose_cuts, fit_all, steps

# Names under which other tools write the same column.
ALIASES = {"item_id": "product_id", "occurred_at": "timestamp"}
# Products in one list.
LONGEST = 1000


def evaluate_files(
    train: Path,
    test: Path,
    *,
    items: Path | None = None,
    model: str | None = None,
    config: RecommendationConfig | None = None,
) -> dict[str, Any]:
    """Fit everything on one file, measure it on another.

    Parameters
    ----------
    train, test : CSV or Parquet with user_id, product_id (or item_id) and optionally timestamp (a time, or seconds
        since 1970; without it popularity does not decay and no ranker is learned), weight (above 0 is a positive) and
        event (weighs as `signals` declares where there is no weight; else each row weighs 1).
        Every row of `test` counts as later than every row of `train`.
    items : CSV or Parquet with product_id and any of the declared `item_features`.
    model : only this one's rows; None: of all.

    Returns
    -------
    dict ready for JSON: counts, metrics (rows as in recommendations.offline_metrics), and what the gate would serve.

    Raises
    ------
    InputError : unreadable file, missing column, an unknown model, or nothing that can be evaluated.
    """
    config = config or load_config()
    if model is not None and model not in model_names(config):
        raise InputError(f"there is no model {model}", "--model", f"give one of {', '.join(model_names(config))}")
    attributes = None if items is None else _read(items, ["product_id"])
    dataset, cut_us = _with_test(_rows(train, config), _rows(test, config), attributes, config)
    before = choose_cuts(dataset.before(cut_us), config.split)[-config.split.rankers :]
    one = config.model_copy(update={"split": config.split.model_copy(update={"tests": 1})})
    evaluation, _ = evaluate_cuts(dataset, one, [*before, cut_us])
    if not evaluation.results:
        raise InputError(evaluation.note, test, "give test rows that train does not hold")
    (result,) = evaluation.results
    rows = [row for row in evaluation.rows if row.cut_us is not None]
    if model is not None and all(row.model != model for row in rows):
        raise InputError(f"too little was labelled to learn {model}", train, "give more rows, with timestamps")
    return {
        "train_rows": int((dataset.times < cut_us).sum()),
        "test_rows": int((dataset.times >= cut_us).sum()),
        "users": dataset.n_users,
        "items": dataset.n_items,
        "test_users": len(result.cut.users),
        "warm_test_users": int(result.cut.warm.sum()),
        "ranker": result.learned.chosen or "none",
        "thresholds": asdict(result.learned.thresholds),
        "rules": [asdict(cost) for cost in evaluation.rules()],
        "gate": asdict(choose(evaluation, config.gate)),
        "metrics": [_plain(row) for row in rows if model in (None, row.model)],
    }


def fit_file(
    train: Path, out: Path, *, items: Path | None = None, config: RecommendationConfig | None = None
) -> dict[str, Any]:
    """Fit the whole stack on one file and write it into a folder, which `top_lists` reads; returns counts.

    The folder is written beside and renamed: an older one there is replaced by a whole one or stays.

    Raises
    ------
    InputError : unreadable file, or a folder that holds something else.
    """
    config = config or load_config()
    if out.exists() and not (out / "manifest.json").exists():
        raise InputError("is there and holds no model", out, "name a new folder")
    dataset = dataset_of_file(train, items, config)
    cuts = choose_cuts(dataset, config.split)[-config.split.rankers :]
    made = [examples_at(dataset, config, cut, end) for cut, end in steps(cuts)]
    learned = learn([cut for cut in made if cut is not None], config)
    counts = {"users": dataset.n_users, "items": dataset.n_items, "rows": len(dataset.times)}
    manifest = {"bundle_version": f"file-{train.stem}", "served_model": "stack", "reason": "fitted from a file"}
    nothing = pa.table({"user_id": pa.array([], pa.string())})
    bundle = make_bundle(fit_all(dataset, config), learned, config, {**manifest, "counts": counts}, nothing, nothing)
    beside, old = (out.with_name(f".{out.name}.{word}.{os.getpid()}") for word in ("new", "old"))
    beside.mkdir(parents=True)
    bundle.save(beside)
    if out.exists():
        out.rename(old)
    beside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return {**counts, "ranker": learned.chosen or "none", "thresholds": asdict(learned.thresholds)}


def dataset_of_file(path: Path, items: Path | None, config: RecommendationConfig) -> Dataset:
    """Interactions (and attributes) of plain files, with their own times."""
    attributes = None if items is None else _read(items, ["product_id"])
    return _dataset(_rows(path, config), attributes, config)


def leave_last_out(dataset: Dataset, steps: int = 1) -> tuple[Dataset, list[int]]:
    """The last products that each person liked, each set after everything else: (dataset, cuts).

    The very last one lies at the last cut, the one before at the cut before, and so on: whoever ranks the last one learns
    from the `steps - 1` before it, by the same rolling cuts as in time. Everybody keeps one product at least. All of a
    person's rows of a product move, so that nothing of it is learned; of two liked at one moment the larger id is the later.
    """
    first = dataset.latest_us + 1
    told = histories_of(dataset)
    times = dataset.times.copy()
    for step in range(steps):
        holders = np.flatnonzero(told.lengths > step + 1)
        last = np.full(dataset.n_users, -1, dtype=np.int32)
        last[holders] = told.items[told.starts[1:][holders] - 1 - step]
        times[last[dataset.users] == dataset.items] = first + steps - 1 - step
    return replace(dataset, times=times), [first + step for step in range(steps)]


def top_lists(model: Path, users: Sequence[str] | None, k: int) -> pa.Table:
    """Lists of a fitted folder, best first: user_id, rank, product_id, score, served_by.

    users : None for everybody it was fitted on; a user it does not know is served by popularity.
    """
    if not 1 <= k <= LONGEST:
        raise InputError(f"a list of {k}", "--k", f"give 1 to {LONGEST}")
    bundle = Bundle.load(model)
    asked = bundle.user_ids.to_pylist() if users is None else list(users)
    codes = np.array([bundle.code_of_user.get(user, -1) for user in asked], dtype=np.int32)
    made = bundle.recommend(codes, k)
    rows, places = np.nonzero(made.lists.items >= 0)
    return pa.table(
        {
            "user_id": pa.array(asked, pa.string()).take(pa.array(rows)),
            "rank": pa.array(places + 1),
            "product_id": bundle.item_ids.take(pa.array(made.lists.items[rows, places])),
            "score": pa.array(made.lists.scores[rows, places]),
            "served_by": pa.array(RUNGS).take(pa.array(made.rungs[rows])),
        }
    )


def _plain(row: MetricRow) -> dict[str, Any]:
    values = asdict(row)
    del values["cut_us"]
    return values


def _with_test(
    train: pa.Table, test: pa.Table, attributes: pa.Table | None, config: RecommendationConfig
) -> tuple[Dataset, int]:
    """Both files as one dataset, the test one microsecond after the latest training row."""
    cut_us = pc.max(train["time"]).as_py() + 1
    test = test.set_column(test.schema.get_field_index("time"), "time", pa.array(np.full(len(test), cut_us)))
    return _dataset(pa.concat_tables([train, test]), attributes, config), cut_us


def _dataset(rows: pa.Table, attributes: pa.Table | None, config: RecommendationConfig) -> Dataset:
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
    return Dataset(
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


def _rows(path: Path, config: RecommendationConfig) -> pa.Table:
    """user_id, product_id (strings), time (int64 microseconds), weight (float64)."""
    table = _read(path, ["user_id", "product_id"])
    if len(table) == 0:
        raise InputError("no rows", path, "give at least one interaction")
    zeros = pa.array(np.zeros(len(table), dtype=np.int64))
    try:
        weight = _weights(table, config, path)
        time = _microseconds(table["timestamp"]) if "timestamp" in table.column_names else zeros
    except pa.ArrowException:
        raise InputError(
            "a timestamp or weight cannot be read", path, "use times like 2026-03-01T00:00:00Z, or numbers"
        ) from None
    ids = {name: table[name].cast(pa.string()) for name in ("user_id", "product_id")}
    made = pa.table({**ids, "time": time, "weight": weight})
    if any(column.null_count for column in made.columns):
        raise InputError("empty cells", path, "fill or remove rows without user_id, product_id, timestamp or weight")
    if not np.isfinite(made["weight"].to_numpy()).all():
        raise InputError("a weight is not a finite number", path, "mend or remove the row")
    return made


def _weights(table: pa.Table, config: RecommendationConfig, path: Path) -> pa.ChunkedArray | pa.Array:
    if "weight" in table.column_names:
        return table["weight"].cast(pa.float64())
    if "event" not in table.column_names:
        return pa.array(np.ones(len(table)))
    signals = config.signals.model_dump()
    events = table["event"].cast(pa.string()).to_pylist()
    unknown = sorted({str(event) for event in events} - set(signals))
    if unknown:
        raise InputError(
            f"event {unknown[0]} has no weight", path, f"use {', '.join(signals)}, or give a column weight"
        )
    return pa.array([signals[event] for event in events])


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
