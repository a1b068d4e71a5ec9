"""Direct identifiers: properties declared `pii: direct`, which the pipeline stores as keyed hashes only.

Everything that writes fails closed: without a key, or with other keys than those that the home was written with,
nothing is taken.

Belongs here: which properties these are, and whether the keys fit the plan and the home. Does not belong here: hashing
(privacy/keyed_hash.py), payloads of failed lines (payloads.py), making tokens new (key_rotation.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from zantara_pipeline.contracts_io import load_yaml, overlay_files
from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.keyed_hash import Keyring
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan

_TODO = "set ZANTARA_PII_KEYS_FILE (docs/how-to-add-event.md says how), or declare another pii"


def direct_properties(event: EventPlan) -> list[str]:
    return [name for name, prop in event.properties.items() if prop.pii == "direct"]


def has_direct(plan: TrackingPlan) -> bool:
    return any(direct_properties(event) for event in plan.events.values())


def refuse_missing_keys(plan: TrackingPlan, keyring: Keyring | None, dirs: Sequence[Path] = ()) -> None:
    """Without a key no event with direct identifiers can be stored.

    Parameters
    ----------
    dirs : contract folders, so that the message names file and line.

    Raises
    ------
    InputError : naming the first such property.
    """
    if keyring is not None:
        return
    for event in plan.events.values():
        for name in direct_properties(event):
            what = f"'{name}' is a direct identifier, which is stored as a keyed hash, and no key is set"
            raise InputError(what, _place(event.event, name, dirs), _TODO)


def _place(event: str, name: str, dirs: Sequence[Path]) -> str:
    path = overlay_files(dirs, "tracking_plan/*.yaml").get(f"tracking_plan/{event}.yaml") if dirs else None
    return f"event {event}" if path is None else f"{path}:{load_yaml(path)[1]('properties', name, 'pii')}"


def refuse_other_keys(ledger: Ledger, keyring: Keyring) -> None:
    """The keys that the home was written with have to be the first of the keyring, in their order: with others, what comes
    would not join with what is there, and nobody would be told.

    Raises
    ------
    InputError : a key is gone, was changed or moved.
    """
    with ledger.read() as db:
        known = db.execute("SELECT key_id, check_value FROM pii_keys ORDER BY position").fetchall()
    given = [(key.id, key.check) for key in keyring.keys]
    for number, (key_id, check) in enumerate(known):
        if number >= len(given) or given[number] != (key_id, check):
            what = (
                f"key {number + 1} of this home is '{key_id}'; the keyring has another one there, or another '{key_id}'"
            )
            todo = "give the old keys back in their order, and new ones after them"
            raise InputError(what, "setting ZANTARA_PII_KEYS_FILE", todo)


def remember_keys(db: sqlite3.Connection, plan: TrackingPlan, keyring: Keyring | None) -> None:
    """Record which keys a commit was written with, inside its transaction, if its plan has direct identifiers."""
    if keyring is not None and has_direct(plan):
        record_keys(db, keyring)


def record_keys(db: sqlite3.Connection, keyring: Keyring) -> None:
    now = utc_text(datetime.now(UTC))
    db.executemany(
        "INSERT OR IGNORE INTO pii_keys VALUES (?, ?, ?, ?)",
        [(position, key.id, key.check, now) for position, key in enumerate(keyring.keys, 1)],
    )
