"""The plan as pandera schemas: the one place where a plan's value rules become checks.

Belongs here: EventPlan -> pandera.polars.DataFrameSchema. Does not belong here: running checks over many rows: the
checks are compiled into one SQL projection (sql_checks.py), because pandera's own backends lose rows or reasons
(a lazy frame skips value checks, a mixed column hides other rows' violations); pandera itself is the oracle in tests.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from zantara_pipeline.privacy.keyed_hash import TOKEN_PATTERN
from zantara_pipeline.tracking.plan import EventPlan, Kind, Property

if TYPE_CHECKING:
    import pandera.polars as pa


def checks_of(prop: Property) -> list[Any]:
    """pandera Checks of one property, in the plan's order of keys."""
    import pandera.polars as pa

    rules: list[tuple[Any, Any]] = [
        (prop.enum, lambda v: pa.Check.isin(list(v))),
        (prop.pattern, lambda v: pa.Check.str_matches(v)),
        (prop.max_length, lambda v: pa.Check.str_length(max_value=v)),
        (prop.min, lambda v: pa.Check.ge(_bound(prop.type, v))),
        (prop.max, lambda v: pa.Check.le(_bound(prop.type, v))),
    ]
    return [make(value) for value, make in rules if value is not None]


def _bound(kind: Kind, value: int | float) -> int | float | Decimal:
    """A bound as its column's type: polars compares whole numbers and decimals with a float as floats, and whole numbers
    beyond 2^53, like amounts of 17 digits, then lie on it that do not."""
    if kind == "money":
        return Decimal(repr(value))
    return int(value) if kind == "integer" and float(value).is_integer() else float(value)


def pandera_schema(plan: EventPlan, *, stored: bool = False) -> pa.DataFrameSchema:
    """Schema of one event's properties as typed columns (after the structural check has settled the JSON types).

    Parameters
    ----------
    stored : of accepted rows, where every direct identifier has to be a token and its other checks are history.
    """
    import pandera.polars as pa
    import polars as pl

    types = {
        "string": pl.String,
        "number": pl.Float64,
        "integer": pl.Int64,
        "boolean": pl.Boolean,
        "money": pl.Decimal(18, 4),
    }

    def rules(prop: Property) -> list[Any]:
        return [pa.Check.str_matches(TOKEN_PATTERN)] if stored and prop.pii == "direct" else checks_of(prop)

    # What may be absent is null in its column: that a null was sent where none may be is seen in the JSON (shapes.py).
    columns = {
        name: pa.Column(
            types[prop.type], checks=rules(prop), nullable=prop.allows_null or not prop.required, required=True
        )
        for name, prop in plan.properties.items()
    }
    return pa.DataFrameSchema(columns, strict=True, name=plan.event)
