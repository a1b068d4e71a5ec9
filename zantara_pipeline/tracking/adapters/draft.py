"""What all formats share: names of events and properties, consent, ids, and the count of what has no place.

Belongs here: rules that hold whichever tool the event came from. Does not belong here: fields of a tool (the formats).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from zantara_pipeline.tracking.adapters.contract import FormatRules, NameRules
from zantara_pipeline.tracking.plan import Kind, TrackingPlan
from zantara_pipeline.tracking.plan_import import snake_case

UNREADABLE = "unreadable"
"""What stands for a purpose in place of true or false where the answer cannot be known: the engine then takes the line for
one of unreadable consent, and not for one of a person who was not asked (verdict.py)."""
_OURS = re.compile(r"[a-z][a-z0-9_]{0,39}")
# A name longer or stranger than this may hold what a person typed.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]{0,99}")
# Senders that use ids as names must not fill the memory.
MOST_NAMES = 500


class Unreadable(ValueError):
    """A record that cannot be adapted; it passes through as it came."""


class Unmapped:
    """Counts fields that have no place in the envelope: names only, never values."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        if name not in self.counts:
            if not _NAME.fullmatch(name):
                name = "(unreadable name)"
            elif len(self.counts) >= MOST_NAMES:
                name = "(other names)"
        self.counts[name] += 1

    def add_rest(self, prefix: str, record: Mapping[str, Any], used: Iterable[str]) -> None:
        """Every key that was not used and holds something."""
        for key in record.keys() - set(used):
            if record[key] not in (None, "", {}, []):
                self.add(f"{prefix}{key}")


class Draft:
    """Turns the parts of a foreign event into parts of an envelope, and counts what is left over."""

    def __init__(self, rules: NameRules, plan: TrackingPlan) -> None:
        self.rules, self.plan = rules, plan
        self.unmapped = Unmapped()

    def event_name(self, name: Any) -> Any:
        """Ours for theirs: as declared, as it is where it is one of ours already, else as snake_case."""
        if not isinstance(name, str):
            return emptied(name)
        declared = self.rules.events.get(name)
        if declared is not None:
            return declared
        return name if _OURS.fullmatch(name) else snake_case(name) or name

    def kind(self, event: Any, name: str) -> Kind | None:
        """The type that the plan gives a property of an event."""
        plan = self.plan.events.get(event) if isinstance(event, str) else None
        found = plan.properties.get(name) if plan else None
        return found.type if found else None

    def properties(self, event: Any, pairs: Iterable[tuple[str, Any]], prefix: str) -> dict[str, Any]:
        """Properties under our names. The first of two that would share a name stays.

        Left out and counted: what the contract ignores and the plan does not declare, and the content of lists and objects
        (no property of a plan holds one; the plan's reason for the line stays the same without it).
        """
        rules = self.rules
        assert isinstance(rules, FormatRules)
        found: dict[str, Any] = {}
        renamed: list[tuple[str, str, Any]] = []
        for theirs, value in pairs:
            ours = rules.properties.get(theirs, theirs)
            if {theirs, ours} & set(rules.ignore) and self.kind(event, ours) is None:
                self.unmapped.add(f"{prefix}{theirs}")
                continue
            if isinstance(value, (dict, list)):
                self.unmapped.add(f"{prefix}{theirs}")
                value = emptied(value)
            if ours == theirs and ours not in found:
                found[ours] = value
            else:
                renamed.append((theirs, ours, value))
        for theirs, ours, value in renamed:
            if ours in found:
                self.unmapped.add(f"{prefix}{theirs}")
            found.setdefault(ours, value)
        return found

    def categories(self, purpose: str) -> list[str]:
        """The sender's categories that stand for a purpose: those declared, else the one of its name."""
        rules = self.rules
        assert isinstance(rules, FormatRules)
        return [category for category, meant in rules.consent.items() if purpose in meant] or [purpose]

    def consent(self, stated: Mapping[str, Any], prefix: str, *, garbled: bool = False) -> dict[str, bool | str]:
        """Purposes from categories: denied where one category denies, granted where each of them grants.

        Absent where nothing was said. Whatever else was said is UNREADABLE, purpose by purpose: an answer that is neither
        true nor false, an answer of some categories only, and for every purpose that its own categories leave open a
        category that nobody declared, since it may be the one that stands for it.

        garbled : part of what was stated could not be read at all; it may deny, so that nothing else grants.
        """
        unknown = [category for category in stated if not self.knows(category)]
        for category in unknown:
            self.unmapped.add(f"{prefix}{category}")
        open_question = garbled or any(stated[category] is not None for category in unknown)
        decided: dict[str, bool | str] = {}
        for purpose in self.plan.privacy.purposes:
            names = self.categories(purpose)
            if purpose in stated and purpose not in names:
                names.append(purpose)
            answers = [stated.get(name) for name in names]
            if any(answer is False for answer in answers):
                decided[purpose] = False
            elif all(answer is True for answer in answers) and not garbled:
                decided[purpose] = True
            elif open_question or any(answer is not None for answer in answers):
                decided[purpose] = UNREADABLE
        return decided

    def knows(self, category: str) -> bool:
        """Whether the contract says what a category stands for (that may be nothing), or it is named like a purpose."""
        rules = self.rules
        assert isinstance(rules, FormatRules)
        return category in rules.consent or category in self.plan.privacy.purposes

    def no_consent_known(self) -> dict[str, bool | str]:
        """The consent of a record of which nobody can say what it states."""
        return dict.fromkeys(self.plan.privacy.purposes, UNREADABLE)


def said(answers: Iterable[Any]) -> Any:
    """One answer from several about the same category: denied wins, what cannot be read comes next, null says nothing."""
    spoken = [answer for answer in answers if answer is not None]
    if any(answer is False for answer in spoken):
        return False
    return next((answer for answer in spoken if answer is not True), True if spoken else None)


def emptied(value: Any) -> Any:
    """A value of a wrong type without what it holds: the judge says what is wrong with it, and nothing else passes."""
    return type(value)() if isinstance(value, (dict, list)) else value


def identifier(value: Any) -> Any:
    """An id as text; whole numbers are written out, an empty one is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value == "" else emptied(value)


def envelope(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that say something."""
    return {key: value for key, value in parts.items() if value is not None}


def text_as(kind: Kind | None, text: str) -> Any:
    """The value of a type that a text spells in JSON's way; a text that spells none stays, and the judge will say so."""
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if kind in ("number", "money", "integer"):
        return _number(text.strip(), text)
    return text


def _number(text: str, otherwise: str) -> Any:
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=lambda _: None)
    except (ValueError, ArithmeticError, RecursionError):
        return otherwise
    return found if isinstance(found, (int, Decimal)) and not isinstance(found, bool) else otherwise
