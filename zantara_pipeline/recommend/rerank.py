"""Rules of business over ranked lists, in the order of the contract: each takes a pool and gives it back in another order.

What nobody may get at all (not consented, not offered, seen before) never enters a pool, so no rule can add it: a rule
returns products of its pool and nothing else.

Belongs here: the rules and their application to many lists. Does not belong here: scores (stack.py), whether they are worth
their cost (evaluation.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import BlockedRule, CapRule, DiversityRule, ExploreRule, Reranking, Rule
from zantara_pipeline.recommend.ranking import Lists

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Catalogue:
    """What rules know of products.

    Parameters
    ----------
    item_ids, feature_names : text of each code; a feature reads like "category=shoes".
    attributes : sparse (n_items, n_features) of ones.
    """

    item_ids: Sequence[str]
    feature_names: Sequence[str]
    attributes: csr_matrix

    def unit_rows(self) -> csr_matrix:
        """Attributes with rows of length 1 or 0."""
        from scipy.sparse import diags

        counts = np.asarray(self.attributes.sum(axis=1)).ravel()
        scaled: csr_matrix = (diags(1 / np.sqrt(np.where(counts > 0, counts, 1))) @ self.attributes).tocsr()
        return scaled

    def of_kind(self, kind: str) -> csr_matrix:
        """Attributes of one kind only, like category."""
        chosen = np.array([name.startswith(f"{kind}=") for name in self.feature_names], dtype=bool)
        picked: csr_matrix = self.attributes[:, np.flatnonzero(chosen)].tocsr()
        return picked


@dataclass(frozen=True)
class Reranked:
    """Lists after the rules.

    Parameters
    ----------
    lists : items and the stack's scores, which need not descend any more.
    propensity : float64 (n, k), how probable it was that exactly this product stood here; 1 but in slots of exploration.
    """

    lists: Lists
    propensity: NDArray[np.float64]


def pool_size(reranking: Reranking, k: int) -> int:
    """How many ranked products the rules need to fill a list of k."""
    return max(reranking.pool, k) if reranking.rules else k


def rerank(pools: Lists, people: Sequence[str], catalogue: Catalogue, reranking: Reranking, k: int) -> Reranked:
    """Apply all rules to each pool and cut to k.

    Parameters
    ----------
    pools : ranked products of each person, -1 where a pool is shorter, shape (n, at least k).
    people : something of each person that stays the same, from which exploration draws.
    """
    items, scores = pools.items.copy(), pools.scores.copy()
    propensity = np.ones(items.shape)
    rules = [_PREPARED[type(rule)](rule, catalogue, k) for rule in reranking.rules]
    for row in range(len(items)) if rules else ():
        pool = items[row][items[row] >= 0]
        order, chances = np.arange(len(pool)), np.ones(len(pool))
        for rule in rules:
            places, drawn = rule(pool[order], people[row])
            order, chances = order[places], chances[places] * drawn
        kept, n = scores[row, order], len(order)
        items[row], scores[row], propensity[row] = -1, np.nan, 1.0
        items[row, :n], scores[row, :n], propensity[row, :n] = pool[order], kept, chances
    return Reranked(Lists(items[:, :k], scores[:, :k]), propensity[:, :k])


Placed = tuple[NDArray[np.int64], "NDArray[np.float64] | float"]
"""What a rule gives back of a pool: places of it in the new order, and how probable each was to stand there."""


class _Blocked:
    """Drops products by id or attribute."""

    def __init__(self, rule: BlockedRule, catalogue: Catalogue, k: int) -> None:
        names = set(rule.attributes)
        columns = [code for code, name in enumerate(catalogue.feature_names) if name in names]
        barred = np.asarray(catalogue.attributes[:, columns].sum(axis=1)).ravel() > 0
        self.barred = barred | np.isin(np.array(catalogue.item_ids, dtype=object), list(rule.products))

    def __call__(self, pool: NDArray[np.int32], person: str) -> Placed:
        return np.flatnonzero(~self.barred[pool]), 1.0


class _Cap:
    """At most so many products of one value of an attribute within the first places; the rest follows them."""

    def __init__(self, rule: CapRule, catalogue: Catalogue, k: int) -> None:
        self.most, self.within = rule.most, rule.within
        self.values = catalogue.of_kind(rule.attribute)

    def __call__(self, pool: NDArray[np.int32], person: str) -> Placed:
        first: list[int] = []
        later: list[int] = []
        counts: dict[int, int] = {}
        for place, item in enumerate(pool):
            held = self.values.indices[self.values.indptr[item] : self.values.indptr[item + 1]].tolist()
            if len(first) >= self.within or all(counts.get(value, 0) < self.most for value in held):
                first.append(place)
                for value in held:
                    counts[value] = counts.get(value, 0) + 1
            else:
                later.append(place)
        # What was put off stands after the places that the cap is about, before what ranked below them.
        return np.array([*first[: self.within], *sorted([*later, *first[self.within :]])], dtype=np.int64), 1.0


class _Diversity:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): each place takes what is relevant and not like those above.

    weight * likeness to the most alike product above is taken off the place's relevance, which falls from 1 to 0 over the
    pool: scores of rankers have no common scale.
    """

    def __init__(self, rule: DiversityRule, catalogue: Catalogue, k: int) -> None:
        self.weight, self.places = rule.weight, k
        self.unit = catalogue.unit_rows()

    def __call__(self, pool: NDArray[np.int32], person: str) -> Placed:
        rows = self.unit[pool]
        alike = (rows @ rows.T).toarray()
        relevance = 1 - np.arange(len(pool)) / max(len(pool), 1)
        left, nearest, chosen = np.ones(len(pool), dtype=bool), np.zeros(len(pool)), []
        for _ in range(min(self.places, len(pool))):
            value = np.where(left, (1 - self.weight) * relevance - self.weight * nearest, -np.inf)
            best = int(np.argmax(np.round(value, 9)))
            chosen.append(best)
            left[best] = False
            nearest = np.maximum(nearest, alike[best])
        return np.array([*chosen, *np.flatnonzero(left).tolist()], dtype=np.int64), 1.0


class _Explore:
    """Puts a product drawn evenly from what would not be shown into fixed places, and says how probable each was."""

    def __init__(self, rule: ExploreRule, catalogue: Catalogue, k: int) -> None:
        self.slots, self.seed, self.k = rule.slots, rule.seed, k

    def __call__(self, pool: NDArray[np.int32], person: str) -> Placed:
        slots = [slot - 1 for slot in sorted(self.slots) if slot <= min(self.k, len(pool))]
        everything = list(range(len(pool)))
        shown, hidden = everything[: self.k - len(slots)], everything[self.k - len(slots) :]
        if not hidden:
            return np.arange(len(pool)), 1.0
        digest = hashlib.sha256(f"{self.seed}\x1f{person}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        drawn = [hidden[place] for place in rng.permutation(len(hidden))[: len(slots)]]
        for slot, place in zip(slots, drawn, strict=False):
            shown.insert(slot, place)
        placed = np.array([*shown, *(place for place in hidden if place not in drawn)], dtype=np.int64)
        return placed, np.where(np.isin(placed, drawn), 1 / len(hidden), 1.0)


_PREPARED = {BlockedRule: _Blocked, CapRule: _Cap, DiversityRule: _Diversity, ExploreRule: _Explore}


def only(rules: Sequence[Rule], reranking: Reranking) -> Reranking:
    """The same reranking with other rules."""
    return reranking.model_copy(update={"rules": list(rules)})
