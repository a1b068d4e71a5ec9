"""What a person may ask: what is kept of them, what they allowed and why that holds, and how their data are processed.

Belongs here: consent as it stands for one person, the folder of an access request, the record of processing. Does not
belong here: reading the lake and landed files (tracking/person_rows.py), which ids are theirs (tracking/whose.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.tombstones import load_tombstones
from zantara_pipeline.storage.inventory import STORES, Access
from zantara_pipeline.storage.ledger import Ledger

VOICES = {"ledger": "the company's ledger", "event": "the person's events"}


@dataclass(frozen=True)
class Word:
    """One record of consent; in_force: not from the future at the clock."""

    origin: str
    status: str
    effective_from: str
    in_force: bool


@dataclass(frozen=True)
class Standing:
    """What holds of one purpose. because: the records that decide, the later of each voice; empty where nothing was said."""

    purpose: str
    status: Literal["granted", "denied"]
    why: str
    because: list[Word]
    records: list[Word]


def standing(ledger: Ledger, user: str, purposes: Collection[str], as_of: datetime) -> list[Standing]:
    """Consent of a person at a clock, by the rule of core.consent_history.

    Of each voice the latest record holds, of two at one instant the denial; denied wins between the voices; nothing said
    is denied. A record from the future holds once the clock has passed it.
    """
    now = utc_text(as_of)
    with ledger.read() as db:
        rows = db.execute(
            "SELECT purpose, origin, status, effective_from FROM consent WHERE user_id = ? ORDER BY 4, 2, 3 DESC",
            [user],
        ).fetchall()
    said: dict[str, list[Word]] = {purpose: [] for purpose in sorted(purposes)}
    for purpose, origin, status, since in rows:
        said.setdefault(purpose, []).append(Word(origin, status, since, since <= now))
    return [_standing(purpose, words) for purpose, words in said.items()]


def _standing(purpose: str, words: list[Word]) -> Standing:
    last = [latest for voice in VOICES if (latest := _latest([w for w in words if w.origin == voice and w.in_force]))]
    denials = [word for word in last if word.status == "denied"]
    if denials:
        said = " and ".join(VOICES[word.origin] for word in denials)
        return Standing(purpose, "denied", f"denied by {said}", denials, words)
    if last:
        said = " and ".join(VOICES[word.origin] for word in last)
        return Standing(purpose, "granted", f"granted by {said}, and denied by no other", last, words)
    why = "what was said holds from a later time on" if words else "nothing was ever said, which is denied"
    return Standing(purpose, "denied", why, [], words)


def _latest(words: list[Word]) -> Word | None:
    """Denied where one instant has both."""
    return max(words, key=lambda word: (word.effective_from, word.status == "denied"), default=None)


def was_erased(ledger: Ledger, user: str) -> bool:
    tombstones = load_tombstones(ledger)
    return tombstones is not None and tombstones.covers("user", user)


def write_folder(folder: Path, parts: Mapping[str, Any]) -> dict[str, int]:
    """One JSON file a part, readable by their owner only; file -> number of entries.

    Raises
    ------
    InputError : the folder holds something already, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("there is something here already", folder, "name a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name, part in parts.items():
            with os.fdopen(
                os.open(folder / f"{name}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
            ) as handle:
                json.dump(part, handle, indent=1, default=_plain, ensure_ascii=False)
                handle.write("\n")
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", folder, "name a folder that you may write") from None
    return {f"{name}.json": len(part) for name, part in parts.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)


RECIPIENTS: dict[Access, str] = {
    "restricted": "those who run the pipeline",
    "internal": "colleagues with a need to know",
    "export": "those to whom it is handed out",
}


def register(purposes: Mapping[str, str], events: Collection[Mapping[str, Any]], exemptions: Collection[Mapping[str, Any]],
             segments: Collection[Mapping[str, Any]], destinations: Collection[Mapping[str, Any]]) -> dict[str, Any]:  # fmt: skip
    """The record of processing (Art. 30 GDPR) as far as the pipeline knows it.

    Parameters
    ----------
    purposes : name -> description, as people consent to them.
    events : name, consent_category, retention_days and owner of each.
    segments : name, purpose, legal_basis, owner, ttl_days, access_level of each that was built.
    destinations : name, recipient, owner, purposes, segments, enabled of each.
    """
    consented = [
        {"purpose": name, "description": text, "legal_basis": "consent",
         "events": [event["event"] for event in events if event["purpose"] == name]}
        for name, text in sorted(purposes.items())
    ]  # fmt: skip
    exempt = [
        {"purpose": "audience measurement", "description": f"counts of {rule['event']} in {', '.join(rule['countries'])}",
         "legal_basis": rule["legal_reference"], "events": [rule["event"]]}
        for rule in exemptions
    ]  # fmt: skip
    return {
        "purposes": [*consented, *exempt],
        "events": sorted(events, key=lambda event: str(event["event"])),
        "segments": list(segments),
        "destinations": [
            {key: one[key] for key in ("name", "description", "recipient", "owner", "purposes", "segments")}
            | {"data": "pseudonyms of its own, and until which day each is a member"}
            for one in destinations
            if one["enabled"]
        ],
        "stores": [_entry(store) for store in STORES],
    }


def _entry(store: Any) -> dict[str, Any]:
    kept = {key: value for key, value in asdict(store).items() if key in ("name", "holds", "owner", "access")}
    return kept | {
        "people": store.legal_basis is not None,
        "legal_basis": store.legal_basis,
        "recipients": RECIPIENTS[store.access],
        "retention": store.retention,
        "erasure": store.erasure,
    }
