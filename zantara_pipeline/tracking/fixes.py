"""Declared fixes: what is done to the properties of quarantined lines before they are judged again.

A fix repairs what a sender got wrong and cannot send again. It is a versioned YAML that somebody answers for; the line in
quarantine stays as it came, and a fixed line is accepted only if the plan takes it.

Belongs here: the model of such a file and applying it to one line. Does not belong here: replay.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from zantara_pipeline.contracts_io import parse_contract
from zantara_pipeline.tracking.plan import Contract


class Fix(Contract):
    """Done in this order to the properties of one event: rename, cast, default, drop.

    rename : old name -> new name; not done where the new one is there already.
    cast : name -> type; a text becomes the number or truth value that it spells, a value that does not spell one stays.
    default : name -> value where the property is absent or null.
    drop : names that are removed.
    """

    event: str
    fingerprint: str | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    cast: dict[str, Literal["string", "number", "integer", "boolean"]] = Field(default_factory=dict)
    default: dict[str, str | bool | int | FiniteFloat] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _does_something(self) -> Fix:
        if not (self.rename or self.cast or self.default or self.drop):
            raise ValueError("it changes nothing; give rename, cast, default or drop")
        return self


class Fixes(Contract):
    """One file of fixes."""

    version: str = Field(pattern=r"^\d+-\d+-\d+$")
    owner: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    reason: str = Field(min_length=1)
    fixes: tuple[Fix, ...] = Field(min_length=1)

    def apply(self, line: str, event: str | None, fingerprint: str) -> str:
        """The line with every fix of its event and kind of failure done; the same text where none is.

        A line that cannot be written again as it was (a key twice, a number that no double holds, too deep) stays as it is.
        """
        wanted = [fix for fix in self.fixes if fix.event == event and fix.fingerprint in (None, fingerprint)]
        if not wanted:
            return line
        try:
            whole = json.loads(line, object_pairs_hook=_each_key_once, parse_float=_exact)
        except (ValueError, RecursionError):
            return line  # writing it again could change what no fix is about
        properties = whole.get("properties")
        if properties is None:
            properties = whole["properties"] = {}
        if isinstance(properties, dict):
            for fix in wanted:
                _apply(fix, properties)
        return json.dumps(whole, ensure_ascii=False)


def load_fixes(path: Path) -> Fixes:
    """Read a file of fixes.

    Raises
    ------
    InputError : the first thing wrong, with file, line and key.
    """
    return parse_contract(Fixes, path)


def _apply(fix: Fix, properties: dict[str, Any]) -> None:
    for old, new in fix.rename.items():
        if old in properties and new not in properties:
            properties[new] = properties.pop(old)
    for name, kind in fix.cast.items():
        if name in properties:
            properties[name] = _cast(properties[name], kind)
    for name, value in fix.default.items():
        if properties.get(name) is None:
            properties[name] = value
    for name in fix.drop:
        properties.pop(name, None)


def _cast(value: Any, kind: str) -> Any:
    if kind == "string":
        return value if value is None or isinstance(value, (str, dict, list)) else json.dumps(value)
    if kind == "boolean" and isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in ("number", "integer") and isinstance(value, str):
        return _number(value.strip(), kind) if value.strip() else value
    return value


def _number(text: str, kind: str) -> Any:
    """The number that a text spells in JSON's way; else the text. (`float` would take nan, inf and 1_000 too.)"""
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return text
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return text
    if kind == "integer" and isinstance(found, float):
        return int(found) if found.is_integer() else text
    return found


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _exact(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise ValueError("no double holds this number")
    return value
