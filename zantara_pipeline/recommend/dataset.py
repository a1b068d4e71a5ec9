"""The central noun: interactions as integer columns, with the id maps and item features that belong to them.

Belongs here: the arrays, cutting them in time, positives and seen pairs. Does not belong here: reading them from a
warehouse (loading.py), learning from them (generators/).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Pairs:
    """Distinct (user, item) pairs, sorted by user, then item; codes are int32, shape (n,) each.

    `weights` are sums over the pair's rows, `times` its latest row in microseconds.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    weights: NDArray[np.float64]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    def keep(self, mask: NDArray[np.bool_]) -> Pairs:
        """Only the pairs marked."""
        return Pairs(self.users[mask], self.items[mask], self.weights[mask], self.times[mask])

    def keys(self, n_items: int) -> NDArray[np.int64]:
        """One number per pair, ascending: user * n_items + item."""
        return self.users.astype(np.int64) * n_items + self.items


@dataclass(frozen=True)
class Dataset:
    """Interactions of known users and items, one row each, sorted by user, item, time.

    Parameters
    ----------
    user_ids, item_ids : id of each code, sorted ascending, so that "smaller code" means "smaller id" in ties.
    users, items : int32 codes, shape (n_rows,).
    times : int64 microseconds since 1970 (UTC), shape (n_rows,).
    weights : float64 signal weight of the event, shape (n_rows,); may be negative.
    seen : bool, whether the event bars the item from that user's lists, shape (n_rows,).
    known_from : int64 microseconds, when the catalogue first knew an item, shape (n_items,); the smallest int64 where
        the catalogue gives no time (it was always there), the largest where only interactions know the item.
    feature_items, feature_codes : int32, one entry per (item, feature), sorted.
    feature_names : name of each feature code, e.g. "category=shoes".
    """

    user_ids: pa.StringArray
    item_ids: pa.StringArray
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]
    weights: NDArray[np.float64]
    seen: NDArray[np.bool_]
    known_from: NDArray[np.int64]
    feature_items: NDArray[np.int32]
    feature_codes: NDArray[np.int32]
    feature_names: pa.StringArray
    cut_us: int | None = None

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def latest_us(self) -> int:
        """Time of the latest row; 0 without rows."""
        return int(self.times.max()) if len(self.times) else 0

    @property
    def candidates(self) -> NDArray[np.bool_]:
        """Items that could be recommended: known to the catalogue before the cut, or in a row. Shape (n_items,)."""
        never = np.iinfo(np.int64).max
        mask = self.known_from < (never if self.cut_us is None else self.cut_us)
        mask[self.items] = True
        return mask

    def before(self, cut_us: int) -> Dataset:
        """Only what was known before the cut: rows strictly earlier; same codes, so results stay comparable."""
        return replace(self._rows(self.times < cut_us), cut_us=cut_us)

    def since(self, cut_us: int) -> Dataset:
        """Only the rows at or after the cut."""
        return self._rows(self.times >= cut_us)

    def until(self, end_us: int) -> Dataset:
        """Only the rows before a time; what the catalogue knew stays."""
        return self._rows(self.times < end_us)

    def positives(self) -> Pairs:
        """Pairs whose summed weight is above 0."""
        pairs = self._pairs(np.ones(len(self.users), dtype=bool))
        return pairs.keep(pairs.weights > 0)

    def seen_pairs(self) -> Pairs:
        """Pairs that must not be recommended."""
        return self._pairs(self.seen)

    def seen_matrix(self) -> csr_matrix:
        """`seen_pairs` as a sparse (n_users, n_items) matrix of ones."""
        return self.matrix(self.seen_pairs())

    def matrix(self, pairs: Pairs) -> csr_matrix:
        """Pairs as a sparse (n_users, n_items) matrix of ones."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(pairs), dtype=np.float32)
        return csr_matrix((ones, (pairs.users, pairs.items)), shape=(self.n_users, self.n_items))

    def feature_matrix(self) -> csr_matrix:
        """Item features as a sparse (n_items, n_features) matrix of ones."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self.feature_items), dtype=np.float32)
        shape = (self.n_items, len(self.feature_names))
        return csr_matrix((ones, (self.feature_items, self.feature_codes)), shape=shape)

    def _rows(self, mask: NDArray[np.bool_]) -> Dataset:
        return replace(
            self,
            users=self.users[mask],
            items=self.items[mask],
            times=self.times[mask],
            weights=self.weights[mask],
            seen=self.seen[mask],
        )

    def _pairs(self, mask: NDArray[np.bool_]) -> Pairs:
        keys = self.users[mask].astype(np.int64) * self.n_items + self.items[mask]
        distinct, row_pair = np.unique(keys, return_inverse=True)
        weights: NDArray[np.float64] = np.bincount(  # type: ignore[assignment]
            row_pair, weights=self.weights[mask], minlength=len(distinct)
        )
        times = np.full(len(distinct), np.iinfo(np.int64).min)
        np.maximum.at(times, row_pair, self.times[mask])
        users, items = np.divmod(distinct, max(self.n_items, 1))
        return Pairs(users.astype(np.int32), items.astype(np.int32), weights, times)
