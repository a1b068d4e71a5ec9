"""What one cut teaches and is measured on: people who liked something after it, candidates named before it, hits.

The generators that named the candidates were fitted strictly before the cut and are dropped afterwards: whoever learns
from examples cannot reach anything that saw a label.

Belongs here: making examples, and lists of any source or ranker over them. Does not belong here: learning (learning.py),
intervals (evaluation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.candidates import Candidates, gather
from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.dataset import Dataset, Pairs
from zantara_pipeline.recommend.generators.base import SCORE_DECIMALS
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.histories import Histories
from zantara_pipeline.recommend.line_features import column_names, item_facts, line_features
from zantara_pipeline.recommend.rankers import Ranker
from zantara_pipeline.recommend.ranking import Lists
from zantara_pipeline.recommend.rerank import Catalogue
from zantara_pipeline.recommend.rolling import fit_all, relevant_pairs
from zantara_pipeline.recommend.stack import best_lines

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Examples:
    """One cut.

    Parameters
    ----------
    users : int32 (n,), who liked something new from the cut to the next, at most `max_users_per_step` of them.
    lengths : int64 (n,), liked items of each before the cut; 0 is a newcomer.
    lines : candidates of the users (row i is users[i]). features : float32 (n_lines, columns), as `columns` names them.
    hits : bool (n_lines,), liked after the cut. n_relevant : int64 (n,), how many each liked, listed or not.
    relevant : the pairs liked. fold_in : lists of LightFM as if it had not been trained on these users.
    sources : names of what named candidates, in the order of `lines.ranks`.
    offered : bool (n_items,), what could be listed at the cut. users_of_item : int64 (n_items,), who liked it before.
    attributes : sparse (n_items, n_features), rows of length 1 or 0. catalogue : the same for the rules.
    """

    cut_us: int
    users: NDArray[np.int32]
    lengths: NDArray[np.int64]
    lines: Candidates
    features: NDArray[np.float32]
    columns: tuple[str, ...]
    hits: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]
    relevant: Pairs
    fold_in: NDArray[np.int32]
    sources: tuple[str, ...]
    offered: NDArray[np.bool_]
    users_of_item: NDArray[np.int64]
    attributes: csr_matrix
    catalogue: Catalogue

    @property
    def warm(self) -> NDArray[np.bool_]:
        """Who has a history at all, shape (n,)."""
        return self.lengths > 0

    def lists_of(self, source: str, k: int) -> NDArray[np.int32]:
        """The own list of one source; -1 where it has nothing to say. Shape (n, k)."""
        ranks = self.lines.ranks[:, self.sources.index(source)]
        return self.lists_by(np.where(np.isfinite(ranks), -ranks, -np.inf), k)

    def filled(self, source: str, popularity: str, k: int) -> NDArray[np.int32]:
        """The list of one source, filled up by popularity where it is short or empty. Shape (n, k)."""
        own = self.lines.ranks[:, self.sources.index(source)]
        after = self.lines.ranks[:, self.sources.index(popularity)]
        # Every place of the own list comes before every place of the other one.
        scores = np.where(np.isfinite(own), -own, np.where(np.isfinite(after), -after - 1e6, -np.inf))
        return self.lists_by(scores, k)

    def ranked(self, ranker: Ranker, k: int) -> NDArray[np.int32]:
        """Lists by a ranker, rounded as the stack rounds. Shape (n, k)."""
        return self.lists_by(np.round(ranker.score(self.features), SCORE_DECIMALS), k)

    def lists_by(self, scores: NDArray[np.float64], k: int) -> NDArray[np.int32]:
        """The k best candidates of each user by given scores; -inf never appears. Shape (n, k)."""
        made: Lists = best_lines(self.lines, scores, len(self.users), k)
        return made.items


def examples_at(dataset: Dataset, config: RecommendationConfig, cut_us: int, end_us: int | None) -> Examples | None:
    """Fit before the cut, name candidates, label them by what came at or after it and before `end_us` (None: the end).

    None where nobody liked anything new there.
    """
    train, later = dataset.before(cut_us), dataset.since(cut_us)
    relevant = relevant_pairs(train, later if end_us is None else later.until(end_us))
    if len(relevant) == 0:
        return None
    users = _drawn(np.unique(relevant.users), config.ranking.max_users_per_step, config.ranking.seed)
    relevant = relevant.keep(np.isin(relevant.users, users))
    fitted = fit_all(train, config)
    told, seen = fitted.histories.take(users), train.seen_matrix()[users]
    most = max(config.ranking.candidates_per_generator, *config.evaluation.cutoffs)
    found = gather(fitted.sources, told, allowed=train.candidates, seen=seen, most=most)
    facts = item_facts(fitted)
    liked = train.positives()
    catalogue = Catalogue(train.item_ids.to_pylist(), train.feature_names.to_pylist(), facts.attributes)
    return Examples(
        cut_us,
        users,
        told.lengths,
        found,
        line_features(found, told, facts).astype(np.float32),
        column_names(tuple(fitted.sources), facts),
        np.isin(users[found.rows].astype(np.int64) * train.n_items + found.items, relevant.keys(train.n_items)),
        np.bincount(np.searchsorted(users, relevant.users), minlength=len(users)),
        relevant,
        _fold_in_lists(fitted.generators.get("lightfm"), told, train, users, max(config.evaluation.cutoffs)),
        tuple(fitted.sources),
        train.candidates,
        np.bincount(liked.items, minlength=train.n_items),
        catalogue.unit_rows(),
        catalogue,
    )


def _drawn(users: NDArray[np.int32], most: int, seed: int) -> NDArray[np.int32]:
    if len(users) <= most:
        return users
    places = np.random.default_rng(seed).choice(len(users), most, replace=False)
    return users[np.sort(places)]


def _fold_in_lists(
    lightfm: object, told: Histories, train: Dataset, users: NDArray[np.int32], k: int
) -> NDArray[np.int32]:
    if not isinstance(lightfm, LightFMWarp):
        return np.full((len(told), k), -1, dtype=np.int32)
    seen = train.seen_matrix()[users]
    found = gather({"lightfm": lightfm}, told.as_strangers(), allowed=train.candidates, seen=seen, most=k)
    return best_lines(found, -found.ranks[:, 0], len(told), k).items
