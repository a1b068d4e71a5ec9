"""Which variant a unit gets: its place in a salted hash, the same in Python, in SQL and in an application.

The place is the first 52 bits of SHA-256 of "salt:unit" (UTF-8): as many as a number of JavaScript holds exactly. Weights
become bounds on those places, so that no rounding can differ anywhere.

Belongs here: places, bounds, and the same as SQL. Does not belong here: what applications read (served.py) and their code
(assigners/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction

PLACES = 2**52
_HEX_DIGITS = 13


def place(salt: str, unit: str) -> int:
    """Place of a unit, 0 to PLACES - 1."""
    return int(hashlib.sha256(f"{salt}:{unit}".encode()).hexdigest()[:_HEX_DIGITS], 16)


def bounds(weights: Mapping[str, float]) -> dict[str, int]:
    """Variant -> the first place that is none of its own any more; variants follow each other in the order of the file.

    weights : as written (0.1 is a tenth, not the double next to it); they sum to 1. One of 0 has no place.
    """
    found, total = {}, Fraction(0)
    for variant, weight in weights.items():
        total += Fraction(str(weight))
        found[variant] = int(total * PLACES)
    last = max(k for k, weight in enumerate(weights.values()) if weight > 0)
    return found | dict.fromkeys(list(found)[last:], PLACES)


def assign(salt: str, weights: Mapping[str, float], unit: str) -> str:
    """The variant of a unit."""
    where = place(salt, unit)
    return next(variant for variant, below in bounds(weights).items() if where < below)


def place_sql(salt: str, unit: str) -> str:
    """`place` in DuckDB; the arguments are SQL of type VARCHAR."""
    return f"cast('0x' || substr(sha256({salt} || ':' || {unit}), 1, {_HEX_DIGITS}) as bigint)"
