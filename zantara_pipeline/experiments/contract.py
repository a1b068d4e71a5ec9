"""What the three kinds of experiment YAML may hold.

Belongs here: the pydantic models of `ab-test-guardrails.yaml`, `metrics.yaml` and `<experiment>.yaml`, each key
with its meaning and default. Does not belong here: reading files and references between them (`registry`).
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # also what may stand in SQL as event or column
Salt = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$")]
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Direction = Literal["higher_is_better", "lower_is_better"]
Share = Annotated[float, Field(gt=0, lt=1)]
_THRESHOLD = re.compile(r"^([+-])(\d+(?:\.\d+)?)(%?)$")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GuardrailRule(_Strict):
    """A metric that must not get worse than a tolerated change.

    ``threshold`` "+5%" with ``basis: relative`` (the default) is 5 % of the control's value; with ``basis: absolute``
    it is 5 points (0.05 in the metric's unit), and a number without % is allowed there ("+50").
    """

    name: Name
    direction: Direction
    threshold: str
    basis: Literal["relative", "absolute"] = "relative"

    @model_validator(mode="after")
    def _threshold_makes_sense(self) -> GuardrailRule:
        match = _THRESHOLD.match(self.threshold)
        if match is None:
            raise ValueError(f'threshold of \'{self.name}\' must look like "+5%" or "-0.2%"')
        sign, _, percent = match.groups()
        if not percent and self.basis == "relative":
            raise ValueError(f"threshold of '{self.name}' is relative and needs a % (or say basis: absolute)")
        wanted = "+" if self.direction == "lower_is_better" else "-"
        if sign != wanted:
            raise ValueError(
                f"threshold of '{self.name}' must begin with '{wanted}': it is the tolerated worsening of a "
                f"{self.direction} metric"
            )
        return self

    @property
    def margin(self) -> float:
        """Size of the tolerated worsening: a share of control (relative) or metric units (absolute), never negative."""
        match = _THRESHOLD.match(self.threshold)
        assert match is not None  # checked above
        return float(match.group(2)) / (100 if match.group(3) else 1)


class Defaults(_Strict):
    """Rules of every experiment that doesn't set its own. The first four keys are the requirements' short form."""

    srm_check: Literal["chi_square"]
    variance_reduction: Literal["cuped", "none"]
    min_duration_days: int = Field(ge=1)
    guardrails: list[GuardrailRule]
    srm_alpha: Share = 0.001
    srm_floor: float = Field(default=0.001, ge=0, lt=1)
    horizon_units: int = Field(default=10_000, ge=2)
    pre_period_days: int = Field(default=28, ge=1)
    cuped_min_reduction: float = Field(default=0.02, ge=0, lt=1)


class DefaultsFile(_Strict):
    """`ab-test-guardrails.yaml`."""

    experiment_defaults: Defaults


class Source(_Strict):
    """Rows of one or more tracking-plan events of a unit, and what is summed over them.

    ``value`` sums a property (times another, missing = 1), ``distinct`` counts different values of a column, neither
    counts rows.
    """

    events: list[Name] = Field(min_length=1)
    value: Name | None = None
    times: Name | None = None
    distinct: Name | None = None

    @model_validator(mode="after")
    def _one_aggregate(self) -> Source:
        if self.value and self.distinct:
            raise ValueError("'value' and 'distinct' exclude each other")
        if self.times and not self.value:
            raise ValueError("'times' needs 'value'")
        return self


_KEYS_OF_TYPE: dict[str, tuple[set[str], set[str]]] = {  # metric type to (required keys, further allowed keys)
    "proportion": ({"events"}, set()),
    "mean": ({"events"}, {"value", "times", "distinct"}),
    "quantile": ({"events", "value", "quantile"}, set()),
    "ratio": ({"numerator", "denominator"}, {"complement"}),
}


class Metric(_Strict):
    """A named metric: one number per variant, computed from tracking-plan events of each unit."""

    type: Literal["proportion", "mean", "quantile", "ratio"]
    description: str = Field(min_length=1)
    direction: Direction
    events: list[Name] | None = Field(default=None, min_length=1)
    value: Name | None = None
    times: Name | None = None
    distinct: Name | None = None
    quantile: Share | None = None
    numerator: Source | None = None
    denominator: Source | None = None
    complement: bool = False

    @model_validator(mode="after")
    def _keys_fit_type(self) -> Metric:
        required, allowed = _KEYS_OF_TYPE[self.type]
        given = self.model_fields_set - {"type", "description", "direction"}
        for key in sorted(required - given):
            raise ValueError(f"a {self.type} metric needs the key '{key}'")
        for key in sorted(given - required - allowed):
            raise ValueError(f"a {self.type} metric does not use the key '{key}'")
        if self.events is not None:
            self.source()
        return self

    def source(self) -> Source:
        """The rows behind a proportion, mean or quantile."""
        return Source(events=self.events or [], value=self.value, times=self.times, distinct=self.distinct)


class Variant(_Strict):
    """One arm and its share of the randomised units; 0 is an arm that is closed, in which nobody may be."""

    name: VariantName
    weight: float = Field(ge=0, le=1)


class Spillover(_Strict):
    """Can what is shown to one unit reach another one, of another variant? ``because`` says why, or why not."""

    possible: bool
    because: str = Field(min_length=1)

    @field_validator("possible")
    @classmethod
    def _people_are_compared(cls, possible: bool) -> bool:
        if possible:
            raise ValueError(
                "runs compare people, whose intervals are too narrow then: analyse this one by its clusters with "
                "`zantara experiment analyze` and leave it out here"
            )
        return possible


class ExperimentFile(_Strict):
    """`<experiment>.yaml`. Keys of the defaults may be given again and then hold for this experiment alone."""

    experiment: Name
    hypothesis: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    unit: Literal["user_id"]
    salt: Salt | None = None
    variants: list[Variant] = Field(min_length=2)
    control: VariantName = "control"
    primary: Name
    minimum_effect: str | None = None
    power: Share = 0.8
    secondary: list[Name] = []
    spillover: Spillover | None = None
    rollback: str | None = Field(default=None, min_length=1)
    without_cuped_because: str | None = Field(default=None, min_length=1)
    start: dt.date
    end: dt.date
    looks: list[int] | None = Field(default=None, min_length=1)
    spending: Literal["obrien_fleming", "pocock"] = "obrien_fleming"
    srm_check: Literal["chi_square"] | None = None
    srm_alpha: Share | None = None
    srm_floor: float | None = Field(default=None, ge=0, lt=1)
    horizon_units: int | None = Field(default=None, ge=2)
    variance_reduction: Literal["cuped", "none"] | None = None
    cuped_min_reduction: float | None = Field(default=None, ge=0, lt=1)
    pre_period_days: int | None = Field(default=None, ge=1)
    min_duration_days: int | None = Field(default=None, ge=1)
    guardrails: list[GuardrailRule] | None = None

    @field_validator("primary", mode="before")
    @classmethod
    def _one_primary(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise ValueError(f"an experiment has exactly one primary metric, this one names {len(value)}")
        return value

    @field_validator("minimum_effect")
    @classmethod
    def _effect_is_a_share(cls, value: str | None) -> str | None:
        match = _THRESHOLD.match(value) if value else None
        if value is not None and (match is None or not match.group(3) or not float(match.group(2))):
            raise ValueError('must look like "+5%": a change of the primary metric, relative to control')
        return value

    @field_validator("variants")
    @classmethod
    def _weights_sum_to_one(cls, variants: list[Variant]) -> list[Variant]:
        names = [variant.name for variant in variants]
        if len(set(names)) < len(names):
            raise ValueError("a variant stands twice")
        if sum(variant.weight > 0 for variant in variants) < 2:
            raise ValueError("fewer than two variants have a weight")
        total = sum(variant.weight for variant in variants)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the weights of the variants sum to {total:.6g}, not to 1")
        return variants
