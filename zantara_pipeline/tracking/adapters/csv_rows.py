"""CSV with a header, one event a row; a column says where it goes by its name, or by the contract.

Belongs here: placing cells. Does not belong here: cutting rows (storage/text_rows.py), anything that holds for other
formats too (draft.py).
"""

from __future__ import annotations

from typing import Any

from zantara_pipeline.tracking.adapters.contract import CsvRules, is_place
from zantara_pipeline.tracking.adapters.draft import Draft, envelope, text_as
from zantara_pipeline.tracking.plan import PrivacyContract

NEEDED = ("event_id", "event", "timestamp")


def places(header: list[str], rules: CsvRules, privacy: PrivacyContract) -> dict[int, str]:
    """Number of a column -> where it goes, for the columns that go anywhere."""
    named = [(number, rules.columns.get(name, name)) for number, name in enumerate(header)]
    return {number: place for number, place in named if is_place(place, privacy)}


def header_problem(header: list[str], rules: CsvRules, privacy: PrivacyContract) -> str | None:
    """Why a header is none of events, if so."""
    found = list(places(header, rules, privacy).values())
    missing = [name for name in NEEDED if name not in found]
    if missing:
        return f"no column for {', '.join(missing)}"
    twice = sorted({name for name in found if found.count(name) > 1})
    return f"two columns for {twice[0]}" if twice else None


def adapt(cells: list[str], where: dict[int, str], draft: Draft, header: list[str]) -> dict[str, Any]:
    """One row as an envelope; an empty cell is absent.

    A column named consent, or consent.<something>, that stands for no purpose says something of consent all the same: no
    purpose that the row leaves open then counts as one that nobody was asked about.
    """
    parts: dict[str, Any] = {"properties": {}, "context": {}, "consent": {}}
    open_question = False
    for number, cell in enumerate(cells):
        place = where.get(number)
        if not cell:
            continue
        if place is None:
            draft.unmapped.add(header[number])
            open_question |= header[number].strip().lower().partition(".")[0] == "consent"
            continue
        level, _, inner = place.partition(".")
        if inner:
            parts[level][inner] = cell
        else:
            parts[level] = cell
    event = parts["event"] = draft.event_name(parts.get("event"))
    parts["properties"] = {name: text_as(draft.kind(event, name), cell) for name, cell in parts["properties"].items()}
    consent = {purpose: text_as("boolean", cell) for purpose, cell in parts["consent"].items()}
    parts["consent"] = (draft.no_consent_known() if open_question else {}) | consent or None
    parts["context"] = parts["context"] or None
    return envelope(parts)
