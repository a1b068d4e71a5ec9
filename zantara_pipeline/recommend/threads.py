"""One thread of BLAS: two add in another order, and a model is to be the same bits on every machine.

Belongs here: that limit. Does not belong here: what is fitted under it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Fit under it; a limit reaches only what is loaded, so every BLAS in use is loaded first."""
    import implicit  # noqa: F401
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield
