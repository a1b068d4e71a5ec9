"""What people liked, in order: the only thing that a generator scores from, so that nobody has to be known to be served.

A history that the model was trained on and one that an application sends with its request are the same noun.

Belongs here: the arrays, taking rows of them, building them. Does not belong here: any score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.dataset import DAY_US, Dataset

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Histories:
    """Positive pairs of some users, oldest first; row i holds items[starts[i]:starts[i + 1]], each item once.

    Parameters
    ----------
    users : int32 codes of the dataset a model was fitted on, shape (n,); -1 is a stranger.
    starts : int64, shape (n + 1,), ascending from 0.
    items : int32, weights : float64 above 0, ages : float64 days before the newest interaction of the data; one entry
        per (row, item).
    n_items : size of the catalogue.
    """

    users: NDArray[np.int32]
    starts: NDArray[np.int64]
    items: NDArray[np.int32]
    weights: NDArray[np.float64]
    ages: NDArray[np.float64]
    n_items: int

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many items each row holds, shape (n,)."""
        return np.diff(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each entry."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def from_end(self) -> NDArray[np.int64]:
        """How many newer items its row holds, of each entry: 0 is the newest."""
        return np.repeat(self.starts[1:], self.lengths) - 1 - np.arange(len(self.items))

    def take(self, rows: NDArray[np.integer]) -> Histories:
        """The rows asked for, in that order."""
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        place = np.arange(int(starts[-1])) - np.repeat(starts[:-1] - self.starts[rows], lengths)
        return Histories(
            self.users[rows], starts, self.items[place], self.weights[place], self.ages[place], self.n_items
        )

    def latest(self, most: int) -> Histories:
        """Only the newest so many items of each row."""
        keep = self.from_end < most
        starts = np.concatenate([[0], np.cumsum(np.minimum(self.lengths, most))])
        return Histories(self.users, starts, self.items[keep], self.weights[keep], self.ages[keep], self.n_items)

    def as_strangers(self) -> Histories:
        """The same histories of people whom no model was trained on."""
        return replace(self, users=np.full(len(self), -1, dtype=np.int32))

    def matrix(self, values: NDArray[np.float64] | None = None) -> csr_matrix:
        """Sparse (n, n_items) of ones, or of one value per entry."""
        from scipy.sparse import csr_matrix

        data = np.ones(len(self.items)) if values is None else values
        # Entries lie in order of time; sparse products are faster, and add in one order, with sorted columns.
        return csr_matrix((data, self.items, self.starts), shape=(len(self), self.n_items)).sorted_indices()


def histories_of(dataset: Dataset) -> Histories:
    """Histories of all users of a dataset: row i is user i."""
    pairs = dataset.positives()
    order = np.lexsort((pairs.items, pairs.times, pairs.users))
    counts = np.bincount(pairs.users, minlength=dataset.n_users)
    starts = np.concatenate([[0], np.cumsum(counts)])
    ages = (dataset.latest_us - pairs.times[order]) / DAY_US
    codes = np.arange(dataset.n_users, dtype=np.int32)
    return Histories(codes, starts, pairs.items[order], pairs.weights[order], ages, dataset.n_items)


def from_lists(lists: Sequence[Sequence[int]], n_items: int) -> Histories:
    """Histories of strangers: item codes, oldest first; of an item named twice the later place counts."""
    distinct = [list(dict.fromkeys(reversed(items)))[::-1] for items in lists]
    starts = np.concatenate([[0], np.cumsum([len(items) for items in distinct])]).astype(np.int64)
    items = np.array([item for row in distinct for item in row], dtype=np.int32)
    strangers = np.full(len(distinct), -1, dtype=np.int32)
    return Histories(strangers, starts, items, np.ones(len(items)), np.zeros(len(items)), n_items)
