"""Offline evaluation on rolling cuts in time: what would serve beside each generator alone, per user, with intervals.

Belongs here: the protocol of the comparison and the rows of recommendations.offline_metrics. Does not belong here:
formulas (metrics.py), what is learned (learning.py), the choice that follows (gate.py).

Relevant to a test user: every item with a positive sum of weights from the cut to the next, less what `exclude_seen` bars
(it could not be recommended). Items that did not exist at the cut stay in the denominator: nobody could have listed
them, and that is part of the truth. A user without a positive before the cut is cold: whole traffic counts them, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.dataset import Dataset
from zantara_pipeline.recommend.examples import Examples, examples_at
from zantara_pipeline.recommend.generators import make_generators, make_popularities
from zantara_pipeline.recommend.intervals import bootstrap_means, coverage_interval
from zantara_pipeline.recommend.ladder import CONTENT, FULL, RUNGS, newcomer_scores
from zantara_pipeline.recommend.learning import Learned, fresh_rankers, learn, list_values
from zantara_pipeline.recommend.metrics import PER_USER, coverage, gini, hit_matrix, intra_list_diversity, novelty
from zantara_pipeline.recommend.ranking import Lists
from zantara_pipeline.recommend.rerank import only, pool_size, rerank
from zantara_pipeline.recommend.rolling import choose_cuts, steps

STACK, RERANKED, POPULAR = "stack", "reranked", "popularity"
# LightFM for those with a history and popularity of all time for the others: what a first recommender usually is.
USUAL = "lightfm_alltime"
WARM, COLD, ALL = "warm", "cold", "all"


@dataclass(frozen=True)
class MetricRow:
    """One row of recommendations.offline_metrics, without the bundle version.

    cut_us : the cut; None: all cuts together, each user's cuts counted once per cut, intervals over users.
    metric : ndcg, mrr, recall, map, novelty, diversity, ceiling (means over users); <metric>_diff (this model minus
        popularity) and <metric>_lead (the stack minus this model), both paired by user; coverage, gini (of all lists).
    value and interval are None where the slice has no user, the interval of gini and of coverage over all cuts always.
    """

    model: str
    cut_us: int | None
    slice: str
    metric: str
    k: int
    value: float | None
    ci_low: float | None
    ci_high: float | None
    users: int


@dataclass(frozen=True)
class RuleCost:
    """What one rule did to the lists of one cut, after the rules before it.

    moved : products per list that stand elsewhere, or are new in it. ndcg_cost : NDCG@10 before less that after, mean.
    """

    rule: str
    lists: int
    moved: float
    ndcg_cost: float


@dataclass(frozen=True)
class CutResult:
    """Lists and values on one cut.

    Parameters
    ----------
    lists : model -> item codes (n, k). per_user : (model, metric, k) -> values (n,). rungs : int8 (n,), of the stack.
    rules : what each rule of reranking did, in order.
    """

    cut: Examples
    learned: Learned
    lists: dict[str, NDArray[np.int32]]
    per_user: dict[tuple[str, str, int], NDArray[np.float64]]
    rungs: NDArray[np.int8]
    rules: tuple[RuleCost, ...]


@dataclass(frozen=True)
class Evaluation:
    """All that the cuts said; without results `note` says why, and everything else is empty."""

    note: str = ""
    results: Sequence[CutResult] = ()
    rows: list[MetricRow] = field(default_factory=list)

    def row(self, model: str, slice_: str, metric: str, k: int, cut_us: int | None = None) -> MetricRow | None:
        """The row with this key, if there is one; cut_us None: of all cuts together."""
        key = (model, cut_us, slice_, metric, k)
        return next((r for r in self.rows if (r.model, r.cut_us, r.slice, r.metric, r.k) == key), None)

    def rules(self) -> list[RuleCost]:
        """What each rule of reranking did over all cuts, in order."""
        made = []
        for parts in zip(*(result.rules for result in self.results), strict=True):
            lists = sum(part.lists for part in parts)
            moved = sum(part.moved * part.lists for part in parts) / lists
            made.append(
                RuleCost(parts[0].rule, lists, moved, sum(part.ndcg_cost * part.lists for part in parts) / lists)
            )
        return made

    def per_user_table(self, user_ids: pa.StringArray) -> pa.Table:
        """One line per cut and test user: what later paired comparisons need."""
        parts = []
        for result in self.results:
            n = len(result.cut.users)
            columns = {
                "user_id": user_ids.take(pa.array(result.cut.users)),
                "cut_us": pa.array(np.full(n, result.cut.cut_us)),
                "warm": pa.array(result.cut.warm),
            }
            parts.append(pa.table(columns | {f"{m}_{metric}_{k}": v for (m, metric, k), v in result.per_user.items()}))
        if not parts:
            return pa.table({"user_id": pa.array([], pa.string())})
        return pa.concat_tables(parts, promote_options="default")


def evaluate(dataset: Dataset, config: RecommendationConfig) -> tuple[Evaluation, Learned]:
    """Measure the last cuts, each ranked by what the cuts before it taught; and what all cuts teach what serves next."""
    cuts = choose_cuts(dataset, config.split)
    if not cuts:
        return Evaluation(note="no offline evaluation: all interactions lie at one time"), learn([], config)
    evaluation, made = evaluate_cuts(dataset, config, cuts)
    return evaluation, learn([cut for cut in made[-config.split.rankers :] if cut is not None], config)


def evaluate_cuts(
    dataset: Dataset, config: RecommendationConfig, cuts: Sequence[int]
) -> tuple[Evaluation, list[Examples | None]]:
    """Measure the last `split.tests` of given cuts, ascending; and the examples of every cut, None where it has none."""
    settings = config.split
    made = [examples_at(dataset, config, cut, end) for cut, end in steps(cuts)]
    results = []
    for place in range(max(len(cuts) - settings.tests, 0), len(cuts)):
        cut = made[place]
        if cut is not None and "lightfm" in cut.sources:
            before = [part for part in made[max(place - settings.rankers, 0) : place] if part is not None]
            results.append(measure(cut, learn(before, config), config))
    if not results:
        why = (
            "no new positive interaction after the cut"
            if not any(made[-settings.tests :])
            else "no positive interaction before the cut"
        )
        return Evaluation(note=f"no offline evaluation: {why}"), made
    return Evaluation("", results, list(_all_rows(results, config))), made


def model_names(config: RecommendationConfig) -> list[str]:
    """All models that an evaluation may measure; rankers only where enough was labelled."""
    rankers = [ranker.name for ranker in fresh_rankers(0, config)]
    return [STACK, RERANKED, *rankers, *make_generators(config), *make_popularities(config), USUAL]


def measure(cut: Examples, learned: Learned, config: RecommendationConfig) -> CutResult:
    """Lists of all models on one cut, and every metric of every user."""
    k = max(config.evaluation.cutoffs)
    rungs = learned.thresholds.rungs(cut.lengths, cut.warm)
    pools = _stack_lists(cut, learned, rungs, pool_size(config.reranking, k))
    steps = _ruled(cut, pools, config, k)
    lists = {**_lists(cut, learned, rungs, k), STACK: pools[:, :k], RERANKED: steps[-1]}
    per_user: dict[tuple[str, str, int], NDArray[np.float64]] = {}
    popular = np.log2((cut.users_of_item.sum() + 1) / (cut.users_of_item + 1.0))
    for model, shown in lists.items():
        hits = hit_matrix(shown, cut.users, cut.relevant, len(cut.offered))
        for at in config.evaluation.cutoffs:
            for metric, formula in PER_USER.items():
                per_user[model, metric, at] = formula(hits, cut.n_relevant, at)
            per_user[model, "novelty", at] = novelty(shown[:, :at], popular)
            if cut.attributes.shape[1]:
                per_user[model, "diversity", at] = intra_list_diversity(shown[:, :at], cut.attributes)
    found = np.bincount(cut.lines.rows, weights=cut.hits, minlength=len(cut.users))
    per_user[STACK, "ceiling", config.ranking.candidates_per_generator] = found / np.maximum(cut.n_relevant, 1)
    return CutResult(cut, learned, lists, per_user, rungs, _costs(cut, steps, config))


def _stack_lists(cut: Examples, learned: Learned, rungs: NDArray[np.int8], k: int) -> NDArray[np.int32]:
    ranker, popularity = learned.ranker, learned.thresholds.popularity
    full = cut.filled("lightfm", popularity, k) if ranker is None else cut.ranked(ranker, k)
    return _by_rung(cut, popularity, rungs, full, k)


def _by_rung(
    cut: Examples, popularity: str, rungs: NDArray[np.int8], full: NDArray[np.int32], k: int
) -> NDArray[np.int32]:
    """Each user's list by their rung; strangers do not occur, because whoever has a history was trained on."""
    little = cut.lists_by(newcomer_scores(cut.lines.ranks, cut.sources, popularity), k)
    nothing = cut.lists_of(popularity, k)
    return np.where((rungs == FULL)[:, None], full, np.where((rungs == CONTENT)[:, None], little, nothing))


def _ruled(cut: Examples, pools: NDArray[np.int32], config: RecommendationConfig, k: int) -> list[NDArray[np.int32]]:
    """Lists before all rules, after the first, after the first two, and so on."""
    people = [str(user) for user in cut.users]
    places = Lists(pools, np.where(pools >= 0, -np.arange(pools.shape[1], dtype=float), np.nan))
    rules = config.reranking.rules
    return [
        rerank(places, people, cut.catalogue, only(rules[:count], config.reranking), k).lists.items
        for count in range(len(rules) + 1)
    ]


def _costs(cut: Examples, steps: Sequence[NDArray[np.int32]], config: RecommendationConfig) -> tuple[RuleCost, ...]:
    values = [float(list_values(cut, lists).mean()) for lists in steps]
    moved = [float((after != before).sum(axis=1).mean()) for before, after in pairwise(steps)]
    names = [rule.rule for rule in config.reranking.rules]
    costs = [before - after for before, after in pairwise(values)]
    return tuple(RuleCost(*row) for row in zip(names, [len(cut.users)] * len(names), moved, costs, strict=True))


def _lists(cut: Examples, learned: Learned, rungs: NDArray[np.int8], k: int) -> dict[str, NDArray[np.int32]]:
    """Lists of the stack under each ranker and of every source alone."""
    popularity = learned.thresholds.popularity
    lists = {
        name: _by_rung(cut, popularity, rungs, cut.ranked(ranker, k), k) for name, ranker in learned.rankers.items()
    }
    lists |= {name: cut.filled(name, POPULAR, k) for name in cut.sources}
    return lists | {USUAL: cut.filled("lightfm", "popularity_alltime", k)}


def _all_rows(results: Sequence[CutResult], config: RecommendationConfig) -> Iterator[MetricRow]:
    for result in results:
        yield from _mean_rows([result], result.cut.cut_us, config)
        yield from _list_rows(result, config)
    yield from _mean_rows(results, None, config)


def _columns(results: Sequence[CutResult]) -> dict[tuple[str, str, int], NDArray[np.float64]]:
    """Values of all cuts under each other, with differences; only what every cut measured."""
    keys = [key for key in results[0].per_user if all(key in result.per_user for result in results)]
    columns = {key: np.concatenate([result.per_user[key] for result in results]) for key in keys}
    for model, metric, k in keys:
        if metric not in PER_USER:
            continue
        if model != POPULAR:
            columns[model, f"{metric}_diff", k] = columns[model, metric, k] - columns[POPULAR, metric, k]
        if model != STACK:
            columns[model, f"{metric}_lead", k] = columns[STACK, metric, k] - columns[model, metric, k]
    return columns


def _mean_rows(results: Sequence[CutResult], cut_us: int | None, config: RecommendationConfig) -> Iterator[MetricRow]:
    columns = _columns(results)
    users = np.concatenate([result.cut.users for result in results])
    warm = np.concatenate([result.cut.warm for result in results])
    rungs = np.concatenate([result.rungs for result in results])
    for slice_, mask in ((WARM, warm), (COLD, ~warm), (ALL, np.ones_like(warm))):
        yield from _means(columns, users, mask, cut_us, slice_, config)
    of_stack = {key: column for key, column in columns.items() if key[0] == STACK}
    for rung, name in enumerate(RUNGS):
        if (rungs == rung).any():
            yield from _means(of_stack, users, rungs == rung, cut_us, f"rung={name}", config)


def _means(
    columns: dict[tuple[str, str, int], NDArray[np.float64]],
    users: NDArray[np.int32],
    mask: NDArray[np.bool_],
    cut_us: int | None,
    slice_: str,
    config: RecommendationConfig,
) -> Iterator[MetricRow]:
    n, settings = len(np.unique(users[mask])), config.evaluation
    if n == 0:
        for model, metric, k in columns:
            yield MetricRow(model, cut_us, slice_, metric, k, None, None, None, 0)
        return
    values = np.column_stack([column[mask] for column in columns.values()])
    low, high = bootstrap_means(
        values,
        users[mask],
        samples=settings.bootstrap_samples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    means = values.mean(axis=0)
    for place, (model, metric, k) in enumerate(columns):
        bounds = float(means[place]), float(low[place]), float(high[place])
        yield MetricRow(model, cut_us, slice_, metric, k, *bounds, n)


def _list_rows(result: CutResult, config: RecommendationConfig) -> Iterator[MetricRow]:
    """Coverage and Gini of all lists of a model on one cut."""
    offered, n = int(result.cut.offered.sum()), len(result.cut.users)
    for model, lists in result.lists.items():
        for k in config.evaluation.cutoffs:
            shown = lists[:, :k]
            low, high = coverage_interval(shown, offered, config.evaluation.confidence)
            cut_us = result.cut.cut_us
            yield MetricRow(model, cut_us, ALL, "coverage", k, coverage(shown, offered, k), low, high, n)
            yield MetricRow(model, cut_us, ALL, "gini", k, gini(shown, offered), None, None, n)
