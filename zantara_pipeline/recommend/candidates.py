"""Candidates: the best items of every generator for each history, with what all generators say of them.

Belongs here: uniting lists. Does not belong here: scores (generators/), ranking over them (rankers.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.generators import Generator
from zantara_pipeline.recommend.histories import Histories
from zantara_pipeline.recommend.ranking import BLOCK_CELLS, top_k

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Candidates:
    """One line per (row of histories, item), sorted by row, then item.

    `scores` is float64 (n_lines, n_generators), NaN where a generator has nothing to say; `ranks` float64, the same
    shape, the place (from 1) in that generator's list, NaN outside it.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int32]
    scores: NDArray[np.float64]
    ranks: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, mask: NDArray[np.bool_]) -> Candidates:
        """Only the lines marked."""
        return Candidates(self.rows[mask], self.items[mask], self.scores[mask], self.ranks[mask])


def blocks(histories: Histories, held: int) -> Iterator[NDArray[np.int64]]:
    """Rows in pieces, so that `held` dense score tables of a piece stay within BLOCK_CELLS cells."""
    size = max(1, BLOCK_CELLS // max(histories.n_items * held, 1))
    for start in range(0, len(histories), size):
        yield np.arange(start, min(start + size, len(histories)))


def gather(
    generators: dict[str, Generator],
    histories: Histories,
    *,
    allowed: NDArray[np.bool_],
    seen: csr_matrix,
    most: int,
) -> Candidates:
    """The union of the `most` best items of each generator, per row.

    Parameters
    ----------
    allowed : bool (n_items,), what may be recommended at all.
    seen : sparse (len(histories), n_items), what each row must not get.
    """
    parts = [
        _gather_block(generators, histories.take(rows), allowed, seen[rows], most, int(rows[0]))
        for rows in blocks(histories, len(generators))
    ]
    if not parts:
        none = np.empty((0, len(generators)))
        return Candidates(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32), none, none)
    return Candidates(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.ranks for part in parts]),
    )


def _gather_block(
    generators: dict[str, Generator],
    histories: Histories,
    allowed: NDArray[np.bool_],
    seen: csr_matrix,
    most: int,
    first_row: int,
) -> Candidates:
    n, n_items = len(histories), histories.n_items
    barred = seen.tocoo()
    lists = np.full((n, len(generators), most), -1, dtype=np.int32)
    tables = []
    for place, generator in enumerate(generators.values()):
        scores = masked_scores(generator, histories, allowed)
        scores[barred.row, barred.col] = -np.inf
        lists[:, place] = top_k(scores, most).items
        tables.append(scores.astype(np.float32) if len(generators) > 1 else scores)
    rows, places, ranks = np.nonzero(lists >= 0)
    keys = rows * n_items + lists[rows, places, ranks]
    distinct, line = np.unique(keys, return_inverse=True)
    line_rows, items = np.divmod(distinct, max(n_items, 1))
    placed = np.full((len(distinct), len(generators)), np.nan)
    placed[line, places] = ranks + 1
    scored = np.column_stack([table[line_rows, items] for table in tables]).astype(np.float64)
    scored[np.isneginf(scored)] = np.nan
    return Candidates(line_rows + first_row, items.astype(np.int32), scored, placed)


def masked_scores(generator: Generator, histories: Histories, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores with -inf for items that are not offered and in rows that the generator does not know; a fresh array."""
    scores = np.where(allowed, generator.score(histories), -np.inf)
    scores[~generator.knows(histories)] = -np.inf
    return scores
