"""What a ranker sees of a candidate: scores and ranks, and what the data before the cut say of item and user.

Belongs here: columns, each computed from the training side only (point in time by construction: `Fitted` holds nothing
later). Does not belong here: weights of columns (rankers.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.candidates import Candidates
from zantara_pipeline.recommend.dataset import DAY_US, Dataset
from zantara_pipeline.recommend.histories import Histories

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from zantara_pipeline.recommend.rolling import Fitted

# Age given to what never happened: ten years, beyond every window.
NEVER_DAYS = 3650.0


@dataclass(frozen=True)
class ItemFacts:
    """What is known of the items at the cut.

    values : float64 (n_items, len(names)). attributes : sparse (n_items, n_features) of ones.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    attributes: csr_matrix


def item_facts(fitted: Fitted) -> ItemFacts:
    """Popularity in logarithms, and days since the item was known and last touched."""
    train = fitted.train
    names, columns = [], []
    for name, popularity in fitted.popularities.items():
        names.append(f"log_{name}")
        columns.append(np.log1p(np.maximum(popularity.scores_, 0)))
    names += ["days_since_known", "days_since_touched"]
    return ItemFacts(
        tuple(names), np.column_stack([*columns, *_ages(train)]), train.feature_matrix().astype(np.float64)
    )


def _ages(train: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, last = np.full(train.n_items, np.iinfo(np.int64).max), np.full(train.n_items, np.iinfo(np.int64).min)
    np.minimum.at(first, train.items, train.times)
    np.maximum.at(last, train.items, train.times)
    known = np.minimum(np.where(train.known_from > np.iinfo(np.int64).min, train.known_from, first), first)
    now = float(train.latest_us)
    return tuple(  # type: ignore[return-value]
        np.clip(np.where(np.abs(at) < 2**62, (now - at.astype(np.float64)) / DAY_US, NEVER_DAYS), 0, NEVER_DAYS)
        for at in (known, last)
    )


def column_names(generators: tuple[str, ...], facts: ItemFacts) -> tuple[str, ...]:
    """Names of the columns of `line_features`, in order."""
    scores = [f"{kind}_{name}" for kind in ("z", "rank") for name in generators]
    return (*scores, "generators_agreeing", *facts.names, "history_length", "history_age_days", "shared_attributes")


def line_features(candidates: Candidates, histories: Histories, facts: ItemFacts) -> NDArray[np.float64]:
    """One row per candidate, columns as `column_names` says; NaN where a generator has nothing to say."""
    agreeing = np.isfinite(candidates.ranks).sum(axis=1)
    lengths = histories.lengths
    newest = np.full(len(histories), NEVER_DAYS)
    held = lengths > 0
    newest[held] = histories.ages[histories.starts[1:][held] - 1]
    return np.column_stack(
        [
            standardised(candidates),
            1.0 / candidates.ranks,
            agreeing,
            facts.values[candidates.items],
            np.log1p(lengths)[candidates.rows],
            newest[candidates.rows],
            _shared(candidates, histories, facts),
        ]
    )


def standardised(candidates: Candidates) -> NDArray[np.float64]:
    """Scores less their row's mean, by its deviation, over the row's candidates; NaN stays. Shape (n, n_generators)."""
    scores, rows = candidates.scores, candidates.rows
    if len(rows) == 0:
        return scores
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    line = np.cumsum(np.diff(rows, prepend=rows[0]) > 0)
    there = np.isfinite(scores)
    count = np.maximum(np.add.reduceat(there, starts, axis=0), 1)
    mean = np.add.reduceat(np.where(there, scores, 0), starts, axis=0) / count
    off = scores - mean[line]
    spread = np.sqrt(np.add.reduceat(np.where(there, off, 0) ** 2, starts, axis=0) / count)
    made: NDArray[np.float64] = off / np.where(spread > 0, spread, 1)[line]
    return made


def _shared(candidates: Candidates, histories: Histories, facts: ItemFacts) -> NDArray[np.float64]:
    """Mean number of times that a candidate's attributes occur in the history, per item of it."""
    if facts.attributes.shape[1] == 0 or len(candidates) == 0:
        return np.zeros(len(candidates))
    profile = (histories.matrix() @ facts.attributes).tocsr()
    shared = profile[candidates.rows].multiply(facts.attributes[candidates.items]).sum(axis=1)
    made: NDArray[np.float64] = np.asarray(shared).ravel() / np.maximum(histories.lengths, 1)[candidates.rows]
    return made
