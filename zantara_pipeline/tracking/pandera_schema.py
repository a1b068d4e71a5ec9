"""The plan as pandera schemas: the one place where a plan's value rules become checks.

Belongs here: EventPlan -> pandera.polars.DataFrameSchema. Does not belong here: running checks over many rows: the
checks are compiled into one SQL projection (sql_checks.py), because pandera's own backends lose rows or reasons
(a lazy frame skips value checks, a mixed column hides other rows' violations); pandera itself is the oracle in tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zantara_pipeline.privacy.keyed_hash import TOKEN_PATTERN
from zantara_pipeline.tracking.plan import EventPlan, Property

if TYPE_CHECKING:
    import pandera.polars as pa


def checks_of(prop: Property) -> list[Any]:
    """pandera Checks of one property, in the plan's order of keys."""
    import pandera.polars as pa

    rules: list[tuple[Any, Any]] = [
        (prop.enum, lambda v: pa.Check.isin(list(v))),
        (prop.pattern, lambda v: pa.Check.str_matches(v)),
        (prop.max_length, lambda v: pa.Check.str_length(max_value=v)),
        (prop.min, lambda v: pa.Check.ge(v)),
        (prop.max, lambda v: pa.Check.le(v)),
    ]
    return [make(value) for value, make in rules if value is not None]


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

    columns = {
        name: pa.Column(types[prop.type], checks=rules(prop), nullable=prop.allows_null, required=True)
        for name, prop in plan.properties.items()
    }
    return pa.DataFrameSchema(columns, strict=True, name=plan.event)
