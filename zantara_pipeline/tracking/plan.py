"""The tracking plan: one YAML per event, parsed into typed values.

Belongs here: the model of a plan and loading it with its overlay. Does not belong here: compiling it into checks
(pandera_schema.py, sql_checks.py) or judging events (shapes.py, verdict.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator, model_validator

from zantara_pipeline.contracts_io import (
    PACKAGED,
    load_yaml,
    overlay_files,
    parse_contract,
    refuse_misnamed,
    refuse_misplaced,
    validate_contract,
)
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.patterns import pattern_problem

Kind = Literal["string", "number", "integer", "boolean", "money"]
# The calendar has no day a million days ago, and 273 years are longer than anybody keeps or promises anything.
Days = Annotated[int, Field(ge=1, le=100_000)]
SnakeCase = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]

SQL_TYPES: dict[str, str] = {
    "string": "VARCHAR",
    "number": "DOUBLE",
    "integer": "BIGINT",
    "boolean": "BOOLEAN",
    "money": "DECIMAL(18,4)",
}
"""Warehouse type of each property type (money is exact: sums of DOUBLE differ from run to run)."""

ENVELOPE_STRINGS = ("user_id", "anonymous_id", "session_id", "device_id", "organisation_id")
CONTEXT_KEYS = ("platform", "country", "app_version")
"""Context that is kept; every other context key is dropped on ingestion (minimisation)."""
RESERVED = frozenset(
    ("event_id", "event", "occurred_at", "received_at", "received_date", "plan_version", "source", "line_no",
     "consent_basis", "consent_analytics", "consent_personalization", "is_late", "received_at_missing")
) | set(ENVELOPE_STRINGS) | set(CONTEXT_KEYS)  # fmt: skip
"""Column names of the lake that no property may take."""


LawfulBasis = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"
]
"""GDPR article 6(1), a to f."""


class Contract(BaseModel):
    """Base of all contract models: an unknown key is an error, and so is true or false for a number (pydantic takes 1 and 0)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds_in(cls.model_fields[str(info.field_name)].annotation) if isinstance(value, bool) else ()
        if {int, float} & set(kinds) and bool not in kinds:
            raise ValueError(f"{str(value).lower()} is no number")
        return value


def _kinds_in(annotation: Any) -> list[Any]:
    """The types that a value may have of itself, not those inside of a list or a mapping."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds_in(part)]
    return _kinds_in(get_args(annotation)[0]) if get_origin(annotation) is Annotated else [annotation]


class Property(Contract):
    """One property of an event.

    pii : direct: says by itself who it is (e-mail, telephone, name), and is stored as a keyed hash only (direct.py).
    """

    type: Kind
    description: str | None = Field(default=None, min_length=1)
    required: bool = False
    nullable: bool | None = None
    enum: tuple[str, ...] | None = Field(default=None, min_length=1)
    pattern: str | None = None
    min: int | FiniteFloat | None = None  # whole numbers stay whole: beyond 2^53 a float would be another one
    max: int | FiniteFloat | None = None
    max_length: int | None = Field(default=None, ge=1)
    pii: Literal["none", "pseudonym", "direct"] = "none"
    retention_days: Days | None = None

    @property
    def allows_null(self) -> bool:
        """A required property is non-null unless the plan says otherwise; an optional one may be null."""
        return not self.required if self.nullable is None else self.nullable

    @model_validator(mode="after")
    def _rules_fit_the_type(self) -> Property:
        text_rules = [name for name in ("enum", "pattern", "max_length") if getattr(self, name) is not None]
        number_rules = [name for name in ("min", "max") if getattr(self, name) is not None]
        if self.type != "string" and text_rules:
            raise ValueError(f"'{text_rules[0]}' is for strings, the type is {self.type}")
        if self.type not in ("number", "integer", "money") and number_rules:
            raise ValueError(f"'{number_rules[0]}' is for numbers, the type is {self.type}")
        if self.pii == "direct" and self.type != "string":
            raise ValueError(f"'pii: direct' is stored as a hash and is for strings, the type is {self.type}")
        if self.pattern is not None and (problem := pattern_problem(self.pattern)) is not None:
            raise ValueError(problem)
        self._refuse_bounds_that_nothing_meets()
        return self

    def _refuse_bounds_that_nothing_meets(self) -> None:
        most = _MOST.get(self.type)
        for name in ("min", "max"):
            bound = getattr(self, name)
            if bound is not None and most is not None and abs(bound) > most:
                raise ValueError(f"'{name}' is {exact(bound)}, and {self.type} holds {exact(most)} at most")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no value is {exact(self.min)} at least and {exact(self.max)} at most")


def exact(number: int | float) -> str:
    """A number for people, with every digit that it has; only what is longer than any whole number here is shortened."""
    if abs(number) > sys.float_info.max:
        return f"{Decimal(number):.3e}"
    return str(int(number)) if abs(number) < 1e20 and number == int(number) else repr(float(number))


# DECIMAL(18, 4), BIGINT and DOUBLE; a bound beyond them is no number of their type, and the engine would stop.
_MOST: dict[Kind, float] = {"money": 10**14 - 1, "integer": 2**63 - 1024, "number": sys.float_info.max}


CASTS: dict[tuple[Kind, Kind], tuple[str, ...]] = {
    ("string", "number"): ("parse",), ("string", "integer"): ("parse",), ("string", "money"): ("parse",),
    ("string", "boolean"): ("parse",), ("number", "integer"): ("round", "trunc"), ("money", "integer"): ("round", "trunc"),
    ("number", "money"): ("round",), ("integer", "money"): ("widen",), ("integer", "number"): ("widen",),
    ("money", "number"): ("widen",), ("number", "string"): ("text",), ("integer", "string"): ("text",),
    ("money", "string"): ("text",), ("boolean", "string"): ("text",),
}  # fmt: skip
"""How values of one type become another (migrations.py does it); `forget` may be said of every pair."""


class Migration(Contract):
    """How partitions of an older plan are read where a property has changed its type or its name.

    property : its name of today.
    from, to : the type before and after; or renamed_from : the name before.
    since : the version of the event that changed it.
    cast : parse, round, trunc, widen or text (see CASTS; may be left out where only one fits), or forget: not read.
    default : what a value becomes that does not convert; without it, null. What was null stays null.
    """

    name: SnakeCase = Field(alias="property")
    since: str = Field(pattern=r"^\d+-\d+-\d+$")
    before: Kind | None = Field(default=None, alias="from")
    after: Kind | None = Field(default=None, alias="to")
    renamed_from: SnakeCase | None = None
    cast: Literal["parse", "round", "trunc", "widen", "text", "forget"] | None = None
    default: str | bool | int | FiniteFloat | None = None

    @model_validator(mode="after")
    def _one_change(self) -> Migration:
        if (self.before is None) != (self.after is None) or (self.before is None) == (self.renamed_from is None):
            raise ValueError("give either 'from' and 'to' (types) or 'renamed_from' (a name)")
        if self.before is None or self.after is None:
            if self.cast is not None or self.default is not None:
                raise ValueError("'cast' and 'default' belong to a change of type; declare that one by itself")
            return self
        casts = CASTS.get((self.before, self.after), ())
        if self.before == self.after:
            raise ValueError("the type does not change")
        if self.cast is None and len(casts) != 1:
            raise ValueError(f"say how: 'cast' is {' or '.join([*casts, 'forget'])}")
        if self.cast not in (None, "forget", *casts):
            raise ValueError(
                f"{self.before} does not become {self.after} by '{self.cast}': {', '.join([*casts, 'forget'])}"
            )
        if self.default is not None and not _has_type(self.default, self.after):
            raise ValueError(f"'default' is no {self.after}")
        return self

    @property
    def how(self) -> str:
        """The cast, also where only one fits and none is named."""
        if self.before is None or self.after is None:
            return "rename"
        return self.cast or CASTS[self.before, self.after][0]

    @property
    def may_fail(self) -> bool:
        """Whether some value of the old type is none of the new one."""
        return self.how in ("parse", "round", "trunc", "forget") or (self.how == "widen" and self.after == "money")


def _has_type(value: str | bool | int | float, kind: Kind) -> bool:
    if kind in ("string", "boolean"):
        return isinstance(value, str if kind == "string" else bool)
    return not isinstance(value, bool) and isinstance(value, int if kind == "integer" else (int, float))


class InvalidExample(Contract):
    """Properties that must fail, with every reason code expected (in any order)."""

    properties: dict[str, Any]
    reasons: tuple[str, ...] = Field(min_length=1)


class Examples(Contract):
    """Properties of events that must pass and that must fail; `zantara plan lint` runs them."""

    valid: tuple[dict[str, Any], ...] = ()
    invalid: tuple[InvalidExample, ...] = ()


class Sla(Contract):
    """What the owner promises of the stream; each is watched once a day.

    freshness_hours : the newest event is at most so old.
    min_daily : at least so many accepted events a day.
    max_drop_pct : at most so far below the same weekday before, in percent.
    max_reject_pct : at most so many of the day's events quarantined, in percent.
    """

    freshness_hours: int | None = Field(default=None, ge=1, le=2_400_000)
    min_daily: int | None = Field(default=None, ge=0)
    max_drop_pct: float | None = Field(default=None, gt=0, le=100)
    max_reject_pct: float | None = Field(default=None, ge=0, le=100)


class Lifecycle(Contract):
    """Where an event is between planned and gone.

    expected : is its absence worth an alert (health.py)? Left out: yes in a shop's own contracts, and for a packaged
        event where its sla promises that it comes.
    """

    status: Literal["planned", "active", "deprecated", "retired"] = "active"
    supersedes: SnakeCase | None = None
    replaced_by: SnakeCase | None = None
    expected: bool | None = None


class EventPlan(Contract):
    """One event: what it means, who answers for it, what it carries.

    A plan is usable before it is complete: `zantara plan lint` names what is missing. An event without a consent
    category has none that anybody could grant: all of it is suppressed.
    """

    event: SnakeCase
    version: str = Field(pattern=r"^\d+-\d+-\d+$")
    description: str | None = Field(default=None, min_length=1)
    purpose: str | None = Field(default=None, min_length=1)
    consent_category: str | None = None
    owner: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    platforms: tuple[Literal["web", "ios", "android", "server"], ...] = ()
    properties: dict[SnakeCase, Property] = Field(default_factory=dict)
    migrations: tuple[Migration, ...] = ()
    lawful_basis: LawfulBasis | None = None
    context: tuple[Literal["user", "session", "device", "organisation"], ...] = ()
    retention_days: Days | None = None
    examples: Examples = Examples()
    qa_steps: tuple[str, ...] = ()
    sla: Sla = Sla()
    lifecycle: Lifecycle = Lifecycle()
    uses: tuple[str, ...] = ()

    def retypings(self, name: str) -> list[Migration]:
        """Changes of a property's type, first to last."""
        return [change for change in self.migrations if change.name == name and change.after is not None]

    def past(self, name: str) -> list[str]:
        """What a property was before, latest first, in words: "string before 3-0-0", "called wieght before 2-0-0"."""
        changes = [change for change in reversed(self.migrations) if change.name == name]
        changes.sort(key=lambda change: version_numbers(change.since), reverse=True)
        return [f"{change.before or f'called {change.renamed_from}'} before {change.since}" for change in changes]

    def names_before(self, name: str) -> list[str]:
        """What a property was called before, latest name first."""
        return [m.renamed_from for m in reversed(self.migrations) if m.name == name and m.renamed_from]


class Purpose(Contract):
    """One purpose that people consent to."""

    description: str


class Enforced(Contract):
    """Whether a run removes what is older than the plan says, or only counts it."""

    enforce: bool


class LandedFiles(Contract):
    """days: how long a landed file of the home is kept after its lines were received."""

    enforce: bool
    days: Days


class KeptFor(Contract):
    """days: how long something is kept after it ended (a membership of a segment) or was made (a model)."""

    enforce: bool
    days: Days


class Retention(Contract):
    """What the plan's retention_days do to the lake, and how long landed files, ended memberships and models are kept. Removing history is a decision: the default only counts it."""

    quarantine: Enforced = Enforced(enforce=True)
    accepted: Enforced = Enforced(enforce=False)
    landing: LandedFiles = LandedFiles(enforce=False, days=90)
    segment_history: KeptFor = KeptFor(enforce=False, days=730)
    models: KeptFor = KeptFor(enforce=False, days=365)


class Exemption(Contract):
    """Where the law lets an event be measured of people who were not asked: see verdict.py on what is done with it."""

    event: SnakeCase
    countries: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = Field(min_length=1)
    legal_reference: str = Field(min_length=1)


class Erasure(Contract):
    """retrain_within_days: how long a model may serve that was trained on somebody who was erased."""

    retrain_within_days: Days = 30


class Destination(Contract):
    """Somebody outside to whom segments are handed, by pseudonym: segments/exports.py says what is in the file.

    name : of the folder below data/exports; part of what pseudonyms are made of, so another name gives others.
    purposes : what the recipient may use them for; a segment's own has to be among them.
    enabled : false: nothing is written, and what was written is removed.
    """

    name: SnakeCase
    description: str = Field(min_length=1)
    recipient: str = Field(min_length=1)
    owner: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    purposes: tuple[str, ...] = Field(min_length=1)
    segments: tuple[str, ...] = Field(min_length=1)
    enabled: bool = True


class PrivacyContract(Contract):
    """contracts/privacy.yaml."""

    purposes: dict[SnakeCase, Purpose]
    unknown_event_category: str
    unparsable_expiry_days: Days
    quarantine_expiry_days: Days = 90
    retention: Retention = Retention()
    erasure: Erasure = Erasure()
    exemptions: tuple[Exemption, ...] = ()
    destinations: tuple[Destination, ...] = ()

    @property
    def exports(self) -> tuple[Destination, ...]:
        """Destinations that are written to."""
        return tuple(destination for destination in self.destinations if destination.enabled)

    @model_validator(mode="after")
    def _category_is_a_purpose(self) -> PrivacyContract:
        if self.unknown_event_category not in self.purposes:
            raise ValueError(f"'{self.unknown_event_category}' is not among the purposes")
        missing = {"analytics", "personalization"} - set(self.purposes)
        if missing:
            raise ValueError(f"the pipeline's own purpose '{min(missing)}' is not declared")
        claims = [(rule.event, country) for rule in self.exemptions for country in rule.countries]
        twice = [claim for number, claim in enumerate(claims) if claim in claims[:number]]
        if twice:
            raise ValueError(f"two exemptions for '{twice[0][0]}' in {twice[0][1]}")
        return self


@dataclass(frozen=True)
class TrackingPlan:
    """All events by name, with the privacy contract they refer to.

    own : names of the events whose file is the shop's own, and not one that comes with the package.
    """

    events: dict[str, EventPlan]
    privacy: PrivacyContract
    own: frozenset[str] = field(default=frozenset(), compare=False)

    @cached_property
    def purposes(self) -> tuple[str, ...]:
        return tuple(sorted(self.privacy.purposes))

    def required_properties(self) -> dict[str, frozenset[str]]:
        """Event -> the properties that it always carries, never null."""
        return {
            name: frozenset(key for key, one in event.properties.items() if one.required and not one.allows_null)
            for name, event in self.events.items()
        }

    def category(self, event: str | None) -> str | None:
        """The consent category of an event; an event that nobody declared has the contract's fallback."""
        plan = self.events.get(event or "")
        return plan.consent_category if plan else self.privacy.unknown_event_category


def load_plan(dirs: Sequence[Path]) -> TrackingPlan:
    """Load privacy.yaml and tracking_plan/*.yaml; later folders replace or add files.

    Raises
    ------
    InputError : the first thing wrong, with file, line and key.
    """
    privacy_file = overlay_files(dirs, "privacy.yaml").get("privacy.yaml")
    if privacy_file is None:
        raise InputError("no privacy.yaml among the contracts", dirs[-1], "restore the packaged one")
    refuse_misnamed([folder for folder in dirs if folder != PACKAGED])
    privacy = parse_contract(PrivacyContract, privacy_file)
    events, own = {}, set()
    for name, path in overlay_files(dirs, "tracking_plan/*.yaml").items():
        plan = _load_event(path, privacy)
        if Path(name).stem != plan.event:
            raise InputError(f"the file declares event '{plan.event}'", path, f"name it {plan.event}.yaml")
        events[plan.event] = plan
        if not path.is_relative_to(PACKAGED):
            own.add(plan.event)
    _check_exemptions(privacy, events, privacy_file)
    return TrackingPlan(events=events, privacy=privacy, own=frozenset(own))


def _check_exemptions(privacy: PrivacyContract, events: Mapping[str, EventPlan], path: Path) -> None:
    for number, rule in enumerate(privacy.exemptions):
        if rule.event not in events:
            line = load_yaml(path)[1]("exemptions", number, "event")
            raise InputError(f"no event '{rule.event}' to exempt", f"{path}:{line}", "name an event of tracking_plan/")


def load_plan_folder(folder: Path) -> TrackingPlan:
    """The plan of one folder of contracts: by itself when it has a privacy.yaml, else laid over the packaged one.

    Raises
    ------
    InputError : no such folder, or no tracking_plan in it; or as `load_plan`.
    """
    if not (folder / "tracking_plan").is_dir():
        if folder.is_dir():
            refuse_misplaced(folder)
        raise InputError("no folder of contracts (it has no tracking_plan/)", folder, "name one that has")
    return load_plan([folder] if (folder / "privacy.yaml").exists() else [PACKAGED, folder])


def _load_event(path: Path, privacy: PrivacyContract) -> EventPlan:
    data, line_of = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError("the file holds no mapping of keys", path, "see the packaged events for an example")
    plan = validate_contract(EventPlan, data, path, line_of)
    if plan.consent_category is not None and plan.consent_category not in privacy.purposes:
        known = ", ".join(sorted(privacy.purposes))
        where = f"{path}:{line_of('consent_category')}"
        raise InputError(f"key 'consent_category': no purpose '{plan.consent_category}'", where, f"known: {known}")
    for keys, problem in _inconsistencies(plan):
        raise InputError(f"key '{'.'.join(map(str, keys))}': {problem}", f"{path}:{line_of(*keys)}", "mend that entry")
    return plan


def _inconsistencies(plan: EventPlan) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong between parts of one event: key path and problem."""
    for name, prop in plan.properties.items():
        if name in RESERVED:
            yield ("properties", name), "the name belongs to the envelope; send it there, or give the property another"
        kept = prop.retention_days
        if kept and kept < (plan.retention_days or kept + 1) and not prop.allows_null:
            yield (
                ("properties", name, "retention_days"),
                "what is removed becomes null: the property has to be nullable",
            )
    last: dict[tuple[str, bool], Migration] = {}
    for number, change in enumerate(plan.migrations):
        keys, declared = ("migrations", number), plan.properties.get(change.name)
        before = last.get((change.name, change.after is None))
        if declared is None:
            yield (*keys, "property"), f"'{change.name}' is no property of the event"
        elif version_numbers(change.since) > version_numbers(plan.version):
            yield (*keys, "since"), f"{change.since} is after the event's version {plan.version}"
        elif before is not None and version_numbers(before.since) >= version_numbers(change.since):
            yield (*keys, "since"), f"not after {before.since}; write the changes of a property first to last"
        elif before is not None and change.before is not None and before.after != change.before:
            yield (*keys, "from"), f"the change before it ends at {before.after}"
        elif change.renamed_from in plan.properties:
            yield (*keys, "renamed_from"), f"'{change.renamed_from}' is still a property"
        elif change.may_fail and change.default is None and not declared.allows_null:
            yield (
                keys,
                f"'{change.name}' may not be null: say with 'default' what a value becomes that does not convert",
            )
        last[change.name, change.after is None] = change
    for name, prop in plan.properties.items():
        ends = last.get((name, False))
        if ends is not None and ends.after != prop.type:
            yield ("migrations",), f"the last change of '{name}' ends at {ends.after}, its type is {prop.type}"


def version_numbers(version: str) -> tuple[int, ...]:
    """A SchemaVer (model-revision-addition) as numbers that compare."""
    return tuple(int(part) for part in version.split("-"))
