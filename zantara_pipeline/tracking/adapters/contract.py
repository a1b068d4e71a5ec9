"""The contract `adapters.yaml`: what a shop declares about the events of other tools.

Belongs here: the pydantic model of the file, and loading it. Does not belong here: applying it (draft.py and the formats).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from zantara_pipeline.contracts_io import load_yaml, overlay_files, validate_contract
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, Contract, PrivacyContract, SnakeCase
from zantara_pipeline.tracking.shapes import ENVELOPE

PLACES = frozenset(ENVELOPE) - {"properties", "context", "consent"}
# Columns that identify a person by themselves; no mapping can ask for them.
_PERSONAL = ("user_ipaddress", "user_fingerprint")


class NameRules(Contract):
    """What every format can declare: names of events."""

    events: dict[str, SnakeCase] = Field(default_factory=dict)


class FormatRules(NameRules):
    """What the formats with consent of their own declare; see the comments of adapters.yaml."""

    consent: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    properties: dict[str, SnakeCase] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()


class SnowplowRules(FormatRules):
    consent_entities: tuple[str, ...] = ()

    @field_validator("properties")
    @classmethod
    def _nothing_personal(cls, properties: dict[str, str]) -> dict[str, str]:
        for column in _PERSONAL:
            if f"atomic.{column}" in properties:
                raise ValueError(f"'atomic.{column}' identifies a person by itself and is never taken")
        return properties


class CsvRules(NameRules):
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    columns: dict[str, str] = Field(default_factory=dict)

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, delimiter: str) -> str:
        if delimiter in '"\r\n' or not delimiter.isascii():
            raise ValueError("the delimiter is one ASCII character, neither a quote nor an end of line")
        return delimiter


class AdaptersContract(Contract):
    """The whole of adapters.yaml."""

    segment: FormatRules
    snowplow: SnowplowRules
    ga4: FormatRules
    csv: CsvRules


def load_adapters(dirs: Sequence[Path], privacy: PrivacyContract) -> AdaptersContract:
    """Read adapters.yaml of the last folder that has one.

    Raises
    ------
    InputError : the first thing wrong, with file, line and key; among them a purpose that privacy.yaml does not declare.
    """
    path = overlay_files(dirs, "adapters.yaml").get("adapters.yaml")
    if path is None:
        raise InputError("no adapters.yaml among the contracts", dirs[-1], "restore the packaged one")
    data, line_of = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError("the file holds no mapping of keys", path, "see the packaged contracts for an example")
    contract = validate_contract(AdaptersContract, data, path, line_of)
    for name in ("segment", "snowplow", "ga4"):
        for category, purposes in getattr(contract, name).consent.items():
            unknown = [purpose for purpose in purposes if purpose not in privacy.purposes]
            if unknown:
                where = f"{path}:{line_of(name, 'consent', category)}"
                known = ", ".join(sorted(privacy.purposes))
                raise InputError(f"key '{name}.consent': no purpose '{unknown[0]}'", where, f"known: {known}")
    for column, place in contract.csv.columns.items():
        if not is_place(place, privacy):
            where = f"{path}:{line_of('csv', 'columns', column)}"
            todo = "use a name of the envelope, properties.<name>, context.<name> or consent.<purpose>"
            raise InputError(f"key 'csv.columns': no place '{place}'", where, todo)
    return contract


def is_place(name: str, privacy: PrivacyContract) -> bool:
    """Whether a cell can go there: a plain name of the envelope, a property, context that is kept, or a known purpose."""
    level, _, inner = name.partition(".")
    if not inner:
        return name in PLACES
    if level == "properties":
        return True
    return inner in (CONTEXT_KEYS if level == "context" else privacy.purposes if level == "consent" else ())
