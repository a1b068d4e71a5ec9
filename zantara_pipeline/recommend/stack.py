"""The stack that serves: generators name candidates, the ladder says how much is known of somebody, a ranker orders.

Belongs here: lists for histories. Does not belong here: learning (learning.py), rules of business (rerank.py), files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.candidates import Candidates, blocks, gather
from zantara_pipeline.recommend.generators import Generator
from zantara_pipeline.recommend.generators.base import SCORE_DECIMALS
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.histories import Histories
from zantara_pipeline.recommend.ladder import CONTENT, FOLD_IN, FULL, POPULARITY, Thresholds, newcomer_scores
from zantara_pipeline.recommend.line_features import ItemFacts, line_features
from zantara_pipeline.recommend.rankers import Ranker
from zantara_pipeline.recommend.ranking import Lists

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Stack:
    """All that ranks.

    Parameters
    ----------
    sources : what names candidates, among them "lightfm" and "popularity"; without positives popularities only.
    ranker : None where too little was labelled: LightFM's order is the full stack then.
    offered : bool (n_items,), what may be recommended at all.
    most : candidates per source.
    """

    sources: dict[str, Generator]
    facts: ItemFacts
    ranker: Ranker | None
    thresholds: Thresholds
    offered: NDArray[np.bool_]
    most: int

    def known(self, histories: Histories) -> NDArray[np.bool_]:
        """Which rows the model was trained on, shape (n,)."""
        lightfm = self.sources.get("lightfm")
        if not isinstance(lightfm, LightFMWarp):
            return np.zeros(len(histories), dtype=bool)
        return lightfm.trained(histories)

    def rungs(self, histories: Histories) -> NDArray[np.int8]:
        """By which rung each row is served, shape (n,)."""
        if "lightfm" not in self.sources:
            return np.full(len(histories), POPULARITY, dtype=np.int8)
        return self.thresholds.rungs(histories.lengths, self.known(histories))

    def serve(
        self, histories: Histories, seen: csr_matrix, rungs: NDArray[np.int8], k: int
    ) -> tuple[Lists, NDArray[np.int8]]:
        """Lists of at most k items, each row by its rung, and which source placed each item best (-1: none), (n, k).

        seen : sparse (n, n_items), what each row must not get.
        """
        items = np.full((len(histories), k), -1, dtype=np.int32)
        scores, best = np.full((len(histories), k), np.nan), np.full((len(histories), k), -1, dtype=np.int8)
        for rows in blocks(histories, len(self.sources)):
            told = histories.take(rows)
            candidates = self.candidates(told, seen[rows], k)
            made = best_lines(candidates, self.scores(candidates, told, rungs[rows]), len(rows), k)
            items[rows], scores[rows] = made.items, made.scores
            best[rows] = _best_source(candidates, made.items)
        return Lists(items, scores), best

    def candidates(self, histories: Histories, seen: csr_matrix, k: int) -> Candidates:
        """All candidates of the rows; at least k per source, so that popularity fills what others leave."""
        return gather(self.sources, histories, allowed=self.offered, seen=seen, most=max(self.most, k))

    def scores(self, candidates: Candidates, histories: Histories, rungs: NDArray[np.int8]) -> NDArray[np.float64]:
        """Score of each candidate by its row's rung, comparable within a row; popularity fills below all others."""
        scores = np.full(len(candidates), -np.inf)
        by_rung: dict[int, Callable[[Candidates, Histories], NDArray[np.float64]]] = {
            POPULARITY: lambda lines, _: self.score_of(self.thresholds.popularity, lines),
            CONTENT: lambda lines, _: newcomer_scores(lines.ranks, tuple(self.sources), self.thresholds.popularity),
            FOLD_IN: lambda lines, _: self.score_of("lightfm", lines),
            FULL: self.full_scores,
        }
        rung_of = rungs[candidates.rows]
        for rung, score in by_rung.items():
            mask = rung_of == rung
            if mask.any():
                scores[mask] = score(candidates.keep(mask), histories)
        return np.round(scores, SCORE_DECIMALS)

    def score_of(self, source: str, lines: Candidates) -> NDArray[np.float64]:
        """One source's own scores; -inf where it has nothing to say."""
        return np.nan_to_num(lines.scores[:, list(self.sources).index(source)], nan=-np.inf, neginf=-np.inf)

    def full_scores(self, lines: Candidates, histories: Histories) -> NDArray[np.float64]:
        """The ranker's scores, or LightFM's where there is no ranker."""
        if self.ranker is None:
            return self.score_of("lightfm", lines)
        # float32 as in training (examples.py): a value at a split of a tree must fall on the same side.
        return self.ranker.score(line_features(lines, histories, self.facts).astype(np.float32))


def best_lines(candidates: Candidates, scores: NDArray[np.float64], n_rows: int, k: int) -> Lists:
    """The k best candidates of each row by (score descending, item ascending); -inf never appears."""
    items, values = np.full((n_rows, k), -1, dtype=np.int32), np.full((n_rows, k), np.nan)
    there = np.flatnonzero(scores > -np.inf)
    order = there[np.lexsort((candidates.items[there], -scores[there], candidates.rows[there]))]
    rows = candidates.rows[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(n_rows))[rows]
    keep = place < k
    items[rows[keep], place[keep]] = candidates.items[order[keep]]
    values[rows[keep], place[keep]] = scores[order[keep]]
    return Lists(items, values)


def _best_source(candidates: Candidates, items: NDArray[np.int32]) -> NDArray[np.int8]:
    """Which source gave each listed item its best place; of two the one that is named first."""
    best = np.full(items.shape, -1, dtype=np.int8)
    rows, places = np.nonzero(items >= 0)
    most = int(items.max(initial=0)) + int(candidates.items.max(initial=0)) + 1
    line = np.searchsorted(candidates.rows * most + candidates.items, rows * most + items[rows, places])
    best[rows, places] = np.argmin(np.nan_to_num(candidates.ranks[line], nan=np.inf), axis=1)
    return best
