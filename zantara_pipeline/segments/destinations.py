"""To whom segments may be handed outside, and with which key their pseudonyms are made: checked before any SQL runs.

Every destination has a key of its own, derived from the last key of the ring and its name (HMAC, RFC 2104), so that two
destinations share no pseudonym, and whoever has one's key learns nothing of the other's. Pseudonyms are not folded over
older keys as stored identifiers are (docs/decisions/0017): a new key is there to make new ones.

Belongs here: what privacy.yaml says of destinations against what segments say of themselves; keys. Does not belong here:
the files (exports.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zantara_pipeline.contracts_io import load_yaml, overlay_files
from zantara_pipeline.errors import InputError, InputErrors
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.keyed_hash import Key, Keyring, load_keyring
from zantara_pipeline.segments.contract import SegmentMeta
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import Destination, PrivacyContract

SETTING = "ZANTARA_EXPORT_KEYS"
_KEYS_TODO = f"set {SETTING}_FILE (docs/how-to-export-segments.md says how), or set enabled: false"

Fault = tuple[tuple[Any, ...], str, str]
"""(keys below `destinations`, what is wrong, what to do)"""


def load_export_keys(settings: Settings) -> Keyring | None:
    return load_keyring(settings.export_keys_file, settings.export_keys_text, SETTING)


def check_destinations(
    privacy: PrivacyContract, segments: Mapping[str, SegmentMeta], keyring: Keyring | None, dirs: Sequence[Path]
) -> None:
    """Refuse destinations that may not receive what they name, or that would have to do without pseudonyms.

    Those that are off are held to the same, so that nobody turns on what was wrong all the time; only they need no key.

    Raises
    ------
    InputErrors : every fault, one line each, with file, line and what to do.
    """
    faults = [*_faults(privacy, segments)]
    if not faults and keyring is None and privacy.exports:
        number = privacy.destinations.index(privacy.exports[0])
        what = f"'{privacy.exports[0].name}' is handed pseudonyms, which are keyed hashes, and no key is set"
        faults = [((number, "name"), what, _KEYS_TODO)]
    if faults:
        path = overlay_files(dirs, "privacy.yaml")["privacy.yaml"]
        line_of = load_yaml(path)[1]
        raise InputErrors(
            [InputError(what, f"{path}:{line_of('destinations', *keys)}", todo) for keys, what, todo in faults]
        )


def _faults(privacy: PrivacyContract, segments: Mapping[str, SegmentMeta]) -> Iterator[Fault]:
    names = [destination.name for destination in privacy.destinations]
    for number, destination in enumerate(privacy.destinations):
        if destination.name in names[:number]:
            yield (number, "name"), f"two destinations are called '{destination.name}'", "rename one"
        for purpose in destination.purposes:
            if purpose not in privacy.purposes:
                known = ", ".join(sorted(privacy.purposes))
                yield (number, "purposes"), f"'{purpose}' is not among the purposes ({known})", "name one of them"
        for place, segment in enumerate(destination.segments):
            fault = _segment_fault(destination, segment, place, segments)
            if fault is not None:
                yield (number, "segments", place), *fault


def _segment_fault(
    destination: Destination, segment: str, place: int, segments: Mapping[str, SegmentMeta]
) -> tuple[str, str] | None:
    """(what is wrong, what to do) with one segment of a destination."""
    meta = segments.get(segment)
    if meta is None:
        return f"there is no segment '{segment}'", "see `zantara segments list`"
    if segment in destination.segments[:place]:
        return f"'{segment}' stands twice", "remove one"
    if meta.access_level != "export":
        todo = "hand out another one, or let its owner set access_level: export (models/segments/_segments.yml)"
        return f"'{segment}' must not leave the house: its access_level is {meta.access_level}", todo
    if meta.purpose not in destination.purposes:
        allowed = ", ".join(destination.purposes)
        what = f"people allowed '{segment}' for {meta.purpose}, and '{destination.name}' may use it for {allowed}"
        return what, "remove the segment, or agree on the purpose with the recipient and add it"
    return None


def key_of(key: Key, destination: str) -> Key:
    """The key of one destination; with it nobody finds the ring's or another destination's."""
    return Key(key.id, bytes.fromhex(key.digest(f"zantara_pipeline: pseudonyms for {destination}")))


def named(entity: str, entity_id: str) -> str:
    """What a pseudonym is made of: a person and a device of the same id are two."""
    return f"{entity} {entity_id}"


def refuse_changed_key(ledger: Ledger, keyring: Keyring) -> None:
    """Another key under an id that was used already would change every pseudonym, and nobody would be told.

    Raises
    ------
    InputError : naming the id.
    """
    with ledger.read() as db:
        known = db.execute("SELECT DISTINCT key_id, check_value FROM export_keys").fetchall()
    given = {key.id: key.check for key in keyring.keys}
    for key_id, check in known:
        if given.get(key_id, check) != check:
            what = f"key '{key_id}' is another one than the '{key_id}' that exports were made with"
            raise InputError(what, f"setting {SETTING}_FILE", "give the old one back, or the new one another id")


def latest_key(ledger: Ledger, destination: str) -> str | None:
    """Id of the key that came last to a destination."""
    with ledger.read() as db:
        query = "SELECT key_id FROM export_keys WHERE destination = ? ORDER BY first_used DESC, key_id LIMIT 1"
        row = db.execute(query, [destination]).fetchone()
    return None if row is None else str(row[0])


def remember_key(db: sqlite3.Connection, destination: str, key: Key) -> None:
    """Inside a transaction. key : of the ring, not the destination's own."""
    row = (destination, key.id, key.check, utc_text(datetime.now(UTC)))
    db.execute("INSERT OR IGNORE INTO export_keys VALUES (?, ?, ?, ?)", row)
