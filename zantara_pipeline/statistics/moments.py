"""Moments: the one noun that every metric speaks.

Belongs here: counts, sums and cross products of unit-level variables, how they add up, means and covariances from
them. Does not belong here: where they come from (SQL: `experiments.moments`) and what is tested with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# A centred square below this share of the raw square is rounding, not spread: DOUBLE carries 1.1e-16 per operation,
# and a constant 3.3 over 7 units left 2e-16 of its square behind.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of one group of units.

    Parameters
    ----------
    n : number of units.
    names : the k variables, each one number per unit.
    sums : k sums over units.
    products : k (k + 1) / 2 sums of cross products, upper triangle by row: (1,1), (1,2) .. (1,k), (2,2) ...
    """

    n: int
    names: tuple[str, ...]
    sums: tuple[float, ...]
    products: tuple[float, ...]

    def __post_init__(self) -> None:
        size = len(self.names)
        if len(self.sums) != size or len(self.products) != size * (size + 1) // 2:
            raise ValueError(f"{size} variables need {size} sums and {size * (size + 1) // 2} products")

    @classmethod
    def from_values(cls, values: Mapping[str, Sequence[float]]) -> Moments:
        """Moments of plain columns (equal lengths, one entry per unit), summed without rounding drift (fsum)."""
        names = tuple(values)
        columns = [[float(entry) for entry in values[name]] for name in names]
        products = [
            math.fsum(a * b for a, b in zip(columns[row], columns[column], strict=True))
            for row in range(len(names))
            for column in range(row, len(names))
        ]
        return cls(
            len(columns[0]) if columns else 0, names, tuple(math.fsum(column) for column in columns), tuple(products)
        )

    def __add__(self, other: Moments) -> Moments:
        """Moments of the union of two disjoint groups of units."""
        if self.names != other.names:
            raise ValueError(f"moments of {self.names} cannot be added to moments of {other.names}")
        return Moments(
            self.n + other.n,
            self.names,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.products, other.products, strict=True)),
        )

    def sum(self, name: str) -> float:
        """Sum of one variable over units."""
        return self.sums[self.names.index(name)]

    def mean(self, name: str) -> float:
        """Mean of one variable per unit; nan without units."""
        return self.sum(name) / self.n if self.n else math.nan

    def covariance(self, a: str, b: str) -> float:
        """Unbiased sample covariance (n - 1) of two variables; nan below two units."""
        if self.n < 2:
            return math.nan
        product = self._product(a, b)
        centred = product - self.sum(a) * self.sum(b) / self.n
        if a == b and centred <= _ROUNDING * product:
            return 0.0
        return centred / (self.n - 1)

    def variance(self, name: str) -> float:
        """Unbiased sample variance (n - 1) of one variable; exactly 0.0 for a constant."""
        return self.covariance(name, name)

    def _product(self, a: str, b: str) -> float:
        row, column = sorted((self.names.index(a), self.names.index(b)))
        return self.products[row * len(self.names) - row * (row - 1) // 2 + column - row]
