"""Small helpers for sparse matrices that several generators share.

Belongs here: keeping the strongest entries, arrays for saving. Does not belong here: any model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def strongest(matrix: csr_matrix, most: int) -> csr_matrix:
    """The `most` largest entries of each row by (value descending, column ascending); columns sorted."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(rows)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = np.sort(order[place < most])
    columns, counts = matrix.indices[kept], np.bincount(rows[kept], minlength=matrix.shape[0])
    starts = np.concatenate([[0], np.cumsum(counts)])
    # Halves the bytes on disk; rounded here and not when saved, so that a loaded model scores as the fitted one did.
    data = matrix.data[kept].astype(np.float32).astype(np.float64)
    return csr_matrix((data, columns, starts), shape=matrix.shape).sorted_indices()


def pack(name: str, matrix: csr_matrix) -> dict[str, NDArray[Any]]:
    """A matrix of `strongest` as arrays; its values are those of float32."""
    shape = np.array(matrix.shape, dtype=np.int64)
    parts: dict[str, NDArray[Any]] = {
        "data": matrix.data.astype(np.float32),
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "shape": shape,
    }
    return {f"{name}_{part}": values for part, values in parts.items()}


def unpack(name: str, arrays: dict[str, NDArray[Any]]) -> csr_matrix:
    """The matrix of `pack`, as float64."""
    from scipy.sparse import csr_matrix

    parts = (arrays[f"{name}_data"].astype(np.float64), arrays[f"{name}_indices"], arrays[f"{name}_indptr"])
    return csr_matrix(parts, shape=tuple(arrays[f"{name}_shape"]))
