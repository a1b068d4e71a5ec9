"""Learning from rolling cuts: the ranker from labelled candidates, the ladder's thresholds from validation.

The latest training cut validates: both rankers and all thresholds are tried on it after learning from the earlier ones;
then the rankers learn from all.

Belongs here: labelled lines, the choices. Does not belong here: examples (examples.py), measuring tests (evaluation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.examples import Examples
from zantara_pipeline.recommend.intervals import bootstrap_means
from zantara_pipeline.recommend.ladder import Thresholds, newcomer_scores
from zantara_pipeline.recommend.line_features import item_facts
from zantara_pipeline.recommend.metrics import hit_matrix, ndcg
from zantara_pipeline.recommend.rankers import LambdaRank, Lines, LogisticBlend, Ranker
from zantara_pipeline.recommend.rolling import Fitted
from zantara_pipeline.recommend.stack import Stack
from zantara_pipeline.recommend.threads import one_thread

# The list that a choice is judged by.
JUDGED_AT = 10
BLEND = "blend"


@dataclass(frozen=True)
class Learned:
    """What the cuts taught.

    Parameters
    ----------
    rankers : by name, each learned from all cuts; empty where too little was labelled.
    chosen : name of the one that serves; None without rankers: LightFM's own order serves.
    validation : NDCG@10 of each ranker on the latest cut, of those with a history; empty with one cut.
    """

    rankers: dict[str, Ranker]
    chosen: str | None
    thresholds: Thresholds
    validation: dict[str, float]

    @property
    def ranker(self) -> Ranker | None:
        """The one that serves."""
        return None if self.chosen is None else self.rankers[self.chosen]


def learn(cuts: Sequence[Examples], config: RecommendationConfig) -> Learned:
    """Choose ranker and thresholds on the last cut, then learn the rankers from all of them."""
    usable = [cut for cut in cuts if "lightfm" in cut.sources]
    lines = [labelled_lines(cut, config) for cut in usable]
    rankers = fit_rankers(lines, usable, config)
    default = config.ranking.ladder.default
    thresholds = Thresholds(default, default, choose_popularity(cuts))
    if len(usable) < 2 or not usable[-1].warm.any():
        return Learned(rankers, BLEND if rankers else None, thresholds, {})
    earlier = fit_rankers(lines[:-1], usable, config)
    judged = {name: ranked_values(usable[-1], ranker) for name, ranker in earlier.items()}
    validation = {name: float(values[usable[-1].warm].mean()) for name, values in judged.items()}
    chosen = choose_ranker(judged, usable[-1], config) if judged else None
    full = judged[chosen] if chosen else list_values(usable[-1], usable[-1].lists_of("lightfm", JUDGED_AT))
    return Learned(
        rankers,
        (chosen or BLEND) if rankers else None,
        choose_thresholds(usable[-1], full, thresholds.popularity, config),
        validation,
    )


def choose_ranker(judged: dict[str, NDArray[np.float64]], cut: Examples, config: RecommendationConfig) -> str:
    """The blend, unless the other one is clearly better: the paired interval of NDCG@10 over people lies above 0.

    The better mean alone would follow noise: with some hundred people the two change places from cut to cut.
    """
    settings, warm = config.evaluation, cut.warm
    for name, values in judged.items():
        if name != BLEND:
            difference = (values - judged[BLEND])[warm, None]
            low, _ = bootstrap_means(
                difference,
                cut.users[warm],
                samples=settings.bootstrap_samples,
                confidence=settings.confidence,
                seed=settings.seed,
            )
            if low[0] > 0:
                return name
    return BLEND


def labelled_lines(cut: Examples, config: RecommendationConfig) -> Lines:
    """Candidates of those with a history, of whom one was liked: groups without a hit teach no order.

    Of what was not liked `negatives_per_list` are drawn, features as in the whole list: a tenth of the lines teach the same.
    """
    fruitful = np.bincount(cut.lines.rows, weights=cut.hits, minlength=len(cut.users)) > 0
    drawn = _drawn(cut, config.ranking.negatives_per_list, config.ranking.seed)
    kept = (fruitful & cut.warm)[cut.lines.rows] & (cut.hits | drawn)
    groups = np.bincount(cut.lines.rows[kept], minlength=len(cut.users))
    return Lines(cut.features[kept], cut.hits[kept], groups[groups > 0])


def _drawn(cut: Examples, most: int, seed: int) -> NDArray[np.bool_]:
    """So many lines of each list, by the lowest of random numbers; hits have one of their own and are no part of it."""
    order = np.lexsort((np.random.default_rng(seed).random(len(cut.lines)), cut.hits, cut.lines.rows))
    sizes = np.bincount(cut.lines.rows, minlength=len(cut.users))
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn = np.zeros(len(order), dtype=bool)
    drawn[order[place < most]] = True
    return drawn


def fresh_rankers(sources: int, config: RecommendationConfig) -> tuple[LogisticBlend, LambdaRank]:
    """Both rankers, not fitted, over so many sources of candidates."""
    return LogisticBlend(sources), LambdaRank(config.ranking.boosting, config.ranking.seed)


def fit_rankers(lines: Sequence[Lines], cuts: Sequence[Examples], config: RecommendationConfig) -> dict[str, Ranker]:
    """Both rankers, by name; none where fewer than `min_positives` candidates were liked."""
    if sum(int(part.labels.sum()) for part in lines) < config.ranking.min_positives:
        return {}
    joined = Lines(
        np.concatenate([part.features for part in lines]),
        np.concatenate([part.labels for part in lines]),
        np.concatenate([part.groups for part in lines]),
    )
    with one_thread():
        return {ranker.name: ranker.fit(joined) for ranker in fresh_rankers(len(cuts[0].sources), config)}


def choose_popularity(cuts: Sequence[Examples]) -> str:
    """The popularity that newcomers of all cuts liked best (mean NDCG@10); the declared one without newcomers or in a tie."""
    names = [name for name in cuts[0].sources if name.startswith("popularity")] if cuts else []
    values = {
        name: np.concatenate([list_values(cut, cut.lists_of(name, JUDGED_AT))[~cut.warm] for cut in cuts])
        for name in names
    }
    if not values or len(values["popularity"]) == 0:
        return "popularity"
    return max(values, key=lambda name: (float(values[name].mean()), name == "popularity"))


def choose_thresholds(
    cut: Examples, full: NDArray[np.float64], popularity: str, config: RecommendationConfig
) -> Thresholds:
    """For each of the two higher rungs the number of liked items from which on it serves best.

    A threshold t serves those with at least t by the higher rung, the others by popularity and content; of those tried
    that leave somebody on the higher rung the smallest with the best mean NDCG@10 wins.

    full : NDCG@10 of the full stack, shape (n,).
    """
    low = list_values(cut, cut.lists_by(newcomer_scores(cut.lines.ranks, cut.sources, popularity), JUDGED_AT))
    fold_in = list_values(cut, cut.fold_in[:, :JUDGED_AT])
    tried, lengths, warm = sorted(config.ranking.ladder.tried), cut.lengths, cut.warm
    return Thresholds(
        _best(tried, lengths[warm], low[warm], fold_in[warm]),
        _best(tried, lengths[warm], low[warm], full[warm]),
        popularity,
    )


def ranked_values(cut: Examples, ranker: Ranker) -> NDArray[np.float64]:
    """NDCG@10 of each user under a ranker."""
    return list_values(cut, cut.ranked(ranker, JUDGED_AT))


def list_values(cut: Examples, lists: NDArray[np.int32]) -> NDArray[np.float64]:
    """NDCG@10 of each user's list, shape (n,)."""
    hits = hit_matrix(lists, cut.users, cut.relevant, len(cut.offered))
    return ndcg(hits, cut.n_relevant, JUDGED_AT)


def stack_of(fitted: Fitted, learned: Learned, config: RecommendationConfig) -> Stack:
    """Generators of one cut under what the cuts before it taught."""
    most = config.ranking.candidates_per_generator
    offered = fitted.train.candidates
    return Stack(fitted.sources, item_facts(fitted), learned.ranker, learned.thresholds, offered, most)


def _best(tried: Sequence[int], lengths: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64]) -> int:
    reached = [t for t in tried if (lengths >= t).any()] or list(tried[:1])
    means = [float(np.where(lengths >= t, high, low).mean()) for t in reached]
    return reached[int(np.argmax(means))]
