"""Offline evaluation on one cut in time: LightFM beside popularity, per user, with intervals.

Belongs here: the protocol of the comparison and the rows of recommendations.offline_metrics. Does not belong here:
formulas (metrics.py), the choice that follows (gate.py).

Relevant to a test user: every item with a positive sum of weights at or after the cut, less what `exclude_seen` bars
(it could not be recommended). Items that did not exist at the cut stay in the denominator: nobody could have listed
them, and that is part of the truth. A user without a positive before the cut is cold: both models serve popularity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.dataset import Dataset, Pairs
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.generators.popularity import Popularity
from zantara_pipeline.recommend.intervals import bootstrap_means, coverage_interval
from zantara_pipeline.recommend.metrics import PER_USER, coverage, hit_matrix
from zantara_pipeline.recommend.ranking import rank_users
from zantara_pipeline.recommend.split import choose_cut

MODELS = ("lightfm", "popularity")
SLICES = ("warm", "cold", "all")


@dataclass(frozen=True)
class MetricRow:
    """One row of recommendations.offline_metrics, without the bundle version.

    `metric` is ndcg, mrr, recall, coverage, or <metric>_diff (this model minus popularity, paired by user).
    value and interval are None where the slice has no user.
    """

    model: str
    slice: str
    metric: str
    k: int
    value: float | None
    ci_low: float | None
    ci_high: float | None
    users: int


@dataclass(frozen=True)
class Evaluation:
    """All that one cut said.

    Parameters
    ----------
    cut_us : the cut, or None where no evaluation was possible (`note` says why); then everything else is empty.
    users : user codes, shape (n,). warm : bool, shape (n,).
    per_user : (model, metric, k) -> values, shape (n,).
    """

    cut_us: int | None = None
    note: str = ""
    users: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    warm: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    per_user: dict[tuple[str, str, int], NDArray[np.float64]] = field(default_factory=dict)
    rows: list[MetricRow] = field(default_factory=list)

    def row(self, model: str, slice_: str, metric: str, k: int) -> MetricRow | None:
        """The row with this key, if there is one."""
        key = (model, slice_, metric, k)
        return next((r for r in self.rows if (r.model, r.slice, r.metric, r.k) == key), None)

    def per_user_table(self, user_ids: pa.StringArray) -> pa.Table:
        """One line per test user: what later paired comparisons need."""
        columns = {"user_id": user_ids.take(pa.array(self.users)), "warm": pa.array(self.warm)}
        columns |= {f"{m}_{metric}_{k}": pa.array(v) for (m, metric, k), v in self.per_user.items()}
        return pa.table(columns)


def evaluate(dataset: Dataset, config: RecommendationConfig) -> Evaluation:
    """Fit on everything before the cut, measure on the rest."""
    cut = choose_cut(dataset, config.split)
    if cut is None:
        return Evaluation(note="no offline evaluation: all interactions lie at one time")
    return evaluate_at(dataset, config, cut)


def evaluate_at(dataset: Dataset, config: RecommendationConfig, cut_us: int) -> Evaluation:
    """As `evaluate`, at a given cut."""
    train = dataset.before(cut_us)
    relevant = relevant_pairs(train, dataset.since(cut_us))
    if len(relevant) == 0:
        return Evaluation(note="no offline evaluation: no new positive interaction after the cut")
    if len(train.positives()) == 0:
        return Evaluation(note="no offline evaluation: no positive interaction before the cut")
    users = np.unique(relevant.users)
    lists, warm = _lists(train, config, users)
    per_user = _per_user(lists, users, relevant, config, dataset.n_items)
    rows = _rows(lists, warm, per_user, int(train.candidates.sum()), config)
    return Evaluation(cut_us, "", users, warm, per_user, rows)


def relevant_pairs(train: Dataset, test: Dataset) -> Pairs:
    """Positive pairs of the test that a list made at the cut was allowed to hold."""
    pairs = test.positives()
    barred = np.isin(pairs.keys(train.n_items), train.seen_pairs().keys(train.n_items))
    return Pairs(pairs.users[~barred], pairs.items[~barred], pairs.weights[~barred])


def _lists(
    train: Dataset, config: RecommendationConfig, users: NDArray[np.int32]
) -> tuple[dict[str, NDArray[np.int32]], NDArray[np.bool_]]:
    """Lists of both models at the longest cut-off, and who is warm."""
    k = max(config.evaluation.cutoffs)
    popularity = Popularity(config.popularity.half_life_days).fit(train)
    lightfm = LightFMWarp(config.lightfm, config.weight_cap).fit(train)
    candidates, seen = train.candidates, train.seen_matrix()
    warm = lightfm.knows(users)
    popular = rank_users(popularity, users, k, candidates=candidates, seen=seen).items
    personal = popular.copy()
    personal[warm] = rank_users(lightfm, users[warm], k, candidates=candidates, seen=seen).items
    return {"lightfm": personal, "popularity": popular}, warm


def _per_user(
    lists: dict[str, NDArray[np.int32]],
    users: NDArray[np.int32],
    relevant: Pairs,
    config: RecommendationConfig,
    n_items: int,
) -> dict[tuple[str, str, int], NDArray[np.float64]]:
    n_relevant = np.bincount(np.searchsorted(users, relevant.users), minlength=len(users))
    hits = {model: hit_matrix(lists[model], users, relevant, n_items) for model in MODELS}
    return {
        (model, metric, k): formula(hits[model], n_relevant, k)
        for model in MODELS
        for metric, formula in PER_USER.items()
        for k in config.evaluation.cutoffs
    }


def _rows(
    lists: dict[str, NDArray[np.int32]],
    warm: NDArray[np.bool_],
    per_user: dict[tuple[str, str, int], NDArray[np.float64]],
    n_candidates: int,
    config: RecommendationConfig,
) -> list[MetricRow]:
    columns = dict(per_user)
    for (model, metric, k), values in per_user.items():
        if model != "popularity":
            columns[model, f"{metric}_diff", k] = values - per_user["popularity", metric, k]
    masks = {"warm": warm, "cold": ~warm, "all": np.ones_like(warm)}
    rows: list[MetricRow] = []
    for slice_ in SLICES:
        rows += _mean_rows(columns, masks[slice_], slice_, config)
        rows += _coverage_rows(lists, masks[slice_], slice_, n_candidates, config)
    return rows


def _mean_rows(
    columns: dict[tuple[str, str, int], NDArray[np.float64]],
    mask: NDArray[np.bool_],
    slice_: str,
    config: RecommendationConfig,
) -> list[MetricRow]:
    n = int(mask.sum())
    if n == 0:
        return [MetricRow(model, slice_, metric, k, None, None, None, 0) for model, metric, k in columns]
    values = np.column_stack([column[mask] for column in columns.values()])
    settings = config.evaluation
    low, high = bootstrap_means(
        values, samples=settings.bootstrap_samples, confidence=settings.confidence, seed=settings.seed
    )
    means = values.mean(axis=0)
    return [
        MetricRow(model, slice_, metric, k, float(means[i]), float(low[i]), float(high[i]), n)
        for i, (model, metric, k) in enumerate(columns)
    ]


def _coverage_rows(
    lists: dict[str, NDArray[np.int32]],
    mask: NDArray[np.bool_],
    slice_: str,
    n_candidates: int,
    config: RecommendationConfig,
) -> list[MetricRow]:
    n, rows = int(mask.sum()), []
    for model in MODELS:
        for k in config.evaluation.cutoffs:
            if n == 0:
                rows.append(MetricRow(model, slice_, "coverage", k, None, None, None, 0))
                continue
            shown = lists[model][mask][:, :k]
            low, high = coverage_interval(shown, n_candidates, config.evaluation.confidence)
            rows.append(MetricRow(model, slice_, "coverage", k, coverage(shown, n_candidates, k), low, high, n))
    return rows
