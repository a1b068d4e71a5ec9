"""How good the recommender is, and what it costs: `make bench`, part "recommend".

Each shop is measured twice: on rolling cuts in time (whole traffic, newcomers too), and by leaving out the last product that
each person liked (people with a history only). Shops are folders of landed events: the simulated one, and any that are named
with --shop. Beside the stack every generator stands alone, filled up by popularity; `lead` is the stack minus that model with
its 95 % interval, paired by user.

Belongs here: those tables and times. Does not belong here: how anything is computed.
"""

from __future__ import annotations

import csv
import gzip
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from zantara_pipeline.recommend.config import RecommendationConfig, load_config
from zantara_pipeline.recommend.evaluation import Evaluation, evaluate, evaluate_cuts
from zantara_pipeline.recommend.files import dataset_of_file, leave_last_out
from zantara_pipeline.recommend.rolling import fit_all
from zantara_pipeline.simulate.shop import simulate

MODELS = ("stack", "reranked", "blend", "lambdarank", "lightfm", "sequence", "item_knn", "ease", "als", "item2vec", "content",
          "popularity", "popularity_60d", "popularity_alltime", "lightfm_alltime")  # fmt: skip


def main(shops: list[Path]) -> None:
    """Print all tables."""
    config = load_config()
    with tempfile.TemporaryDirectory(prefix="zantara-bench-") as work:
        simulate(Path(work) / "simulated")
        for folder in (Path(work) / "simulated", *shops):
            _shop(folder, config, Path(work))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of all of it {peak:,.0f} MB")


def _shop(folder: Path, config: RecommendationConfig, work: Path) -> None:
    table = work / "interactions.csv"
    rows = write_interactions(folder, table, config)
    dataset = dataset_of_file(table, _items(folder), config)
    print(f"\n{folder.name}: {rows:,} consented interactions, {dataset.n_users:,} users, {dataset.n_items:,} items")
    began, cpu = time.perf_counter(), time.process_time()
    evaluation, learned = evaluate(dataset, config)
    fit_all(dataset, config)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    print(f"nightly training (evaluation on {len(evaluation.results)} cuts, ranker, fit on all): {took:.1f} s, {used:.1f} CPU s; "
          f"ranker {learned.chosen}, thresholds {learned.thresholds}")  # fmt: skip
    _table("rolling cuts in time, whole traffic", evaluation, ("all", "warm", "cold"))
    last, cuts = leave_last_out(dataset, config.split.rankers + 1)
    one = config.model_copy(update={"split": config.split.model_copy(update={"tests": 1})})
    _table("leave-last-out, people with a history", evaluate_cuts(last, one, cuts)[0], ("warm",))


def _table(title: str, evaluation: Evaluation, slices: tuple[str, ...]) -> None:
    print(f"  {title}")
    if not evaluation.results:
        print(f"    {evaluation.note}")
        return
    print(f"    {'model':20s}" + "".join(f"{f'ndcg@10 {name}':>18s}" for name in slices) + f"   lead ({slices[0]})")
    for model in MODELS:
        rows = [evaluation.row(model, name, "ndcg", 10) for name in slices]
        if rows[0] is None:
            continue
        cells = "".join(f"{'-' if row is None or row.value is None else f'{row.value:.4f}':>18s}" for row in rows)
        print(f"    {model:20s}{cells}   {_lead(evaluation, model, slices[0])}")
    for cost in evaluation.rules():
        print(f"    rule {cost.rule}: {cost.moved:.2f} products of a list moved, NDCG@10 cost {cost.ndcg_cost:+.4f}")
    ceiling = evaluation.row("stack", slices[0], "ceiling", 50)
    if ceiling is not None and ceiling.value is not None:
        print(f"    candidates hold {ceiling.value:.1%} of what was liked; {rows_of(evaluation, slices[0])} users")


def rows_of(evaluation: Evaluation, name: str) -> int:
    row = evaluation.row("stack", name, "ndcg", 10)
    return 0 if row is None else row.users


def _lead(evaluation: Evaluation, model: str, name: str) -> str:
    row = evaluation.row(model, name, "ndcg_lead", 10)
    if row is None or row.value is None:
        return ""
    return f"{row.value:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}]"


def write_interactions(folder: Path, table: Path, config: RecommendationConfig) -> int:
    """What consenting people did with products, as `zantara recommend evaluate` takes it; the event's own consent only."""
    weights, low = config.signals.model_dump(), config.low_rating
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("user_id", "item_id", "timestamp", "weight"))
        count = 0
        for event in _events(folder):
            told = event["properties"]
            weight = weights[event["event"]]
            if event["event"] == "rating":
                least, most = told.get("scale_min", 1), told.get("scale_max", 5)
                scaled = (told["rating"] - least) / (most - least)
                weight = low.weight if scaled < low.below else weight * scaled
            writer.writerow((event["user_id"], told["product_id"], event["timestamp"], weight))
            count += 1
    return count


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    wanted = set(load_config().signals.model_dump())
    for path in sorted(folder.rglob("*.jsonl*")):
        with _opened(path) as lines:
            for line in lines:
                if (event := _sound(line, wanted)) is not None:
                    yield event


def _opened(path: Path) -> IO[str]:
    """The simulated shop has lines that are no text at all, on purpose."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return path.open(encoding="utf-8", errors="replace")


def _sound(line: str, wanted: set[str]) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
        told = event["properties"]
        kept = (
            event["consent"]["personalization"] is True
            and event["event"] in wanted
            and isinstance(event["user_id"], str)
        )
        if event["event"] == "rating":
            kept = kept and isinstance(told["rating"], (int, float))
        np.datetime64(event["timestamp"].replace("Z", ""))
        return event if kept and isinstance(told["product_id"], str) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _items(folder: Path) -> Path | None:
    found = sorted(folder.rglob("items*.csv")) or sorted((folder.parent.parent / "items").glob(f"{folder.name}.csv"))
    return found[0] if found else None
