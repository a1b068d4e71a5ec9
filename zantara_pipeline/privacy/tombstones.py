"""Tombstones: keyed hashes of erased ids, so that whoever was erased is not taken in again.

The key is the home's own (`data/state/erasure.key`, made by the first erasure, readable by its owner only), because an
erasure must work in a shop that hashes nothing else, and a keyring that rotates would have to be kept for ever for it.
Tombstones say nothing to those who read the ledger, the warehouse or a receipt without the key. Whoever has both can ask
for one id at a time whether it was erased; that much is needed to refuse it.

Belongs here: the key, the rows, and asking them. Does not belong here: which lines are refused (tracking/verdict.py).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.keyed_hash import Key
from zantara_pipeline.privacy.people import KINDS, Pairs, People, is_distinctive, is_field_of_people, leaves
from zantara_pipeline.storage.ledger import Ledger

_PIECE = re.compile(r"""[^\s"',:;{}\[\]()<>=|\\&?]+""")

_ELSEWHERE = "elsewhere"


class Tombstones:
    """The erased of one home; made by `load_tombstones`."""

    def __init__(self, key: Key, tokens: Iterable[tuple[str, str]], in_fields: Iterable[str] = ()) -> None:
        self._key = key
        self._tokens = frozenset(tokens)
        self._in_fields = frozenset(in_fields)

    def covers(self, kind: str, text: str | None) -> bool:
        """Was this id (of a user, an anonymous id, a device) erased?"""
        return text is not None and (kind, token(self._key, kind, text)) in self._tokens

    def covered(self, kind: str, texts: Iterable[str]) -> list[str]:
        return [text for text in texts if self.covers(kind, text)]

    def named_in(self, text: str) -> bool:
        """Does a line that has no certain places for ids name one of the erased?"""
        return any(self._names(piece, in_field) for piece, in_field in _may_name(text))

    def _names(self, piece: str, in_field: bool) -> bool:
        if not any(self.covers(kind, piece) for kind in KINDS):
            return False
        return in_field or token(self._key, _ELSEWHERE, piece) not in self._in_fields


def _may_name(text: str) -> Iterator[tuple[str, bool]]:
    """Whatever may be an id in a line, and whether it stands where a field holds ids of people.

    Mere numbers and words only in such a field (people.py).
    """
    try:
        found = leaves(json.loads(text, object_pairs_hook=Pairs))
        for key, leaf in list(found):
            in_field = is_field_of_people(key)
            if in_field or is_distinctive(leaf):
                yield leaf.removesuffix(".0"), in_field
            for piece in _PIECE.findall(leaf):
                if piece != leaf and is_distinctive(piece):
                    yield piece, False
    except (ValueError, RecursionError):
        yield from ((piece, False) for piece in _PIECE.findall(text) if is_distinctive(piece))


def load_tombstones(ledger: Ledger) -> Tombstones | None:
    """The tombstones of a home; None where nobody was erased.

    Raises
    ------
    InputError : there are some and the key is gone: whoever was erased would be taken in again.
    """
    with ledger.read() as db:
        rows = db.execute("SELECT kind, token FROM tombstones").fetchall()
        in_fields = [row[0] for row in db.execute("SELECT token FROM tombstones_in_fields")]
    if not rows:
        return None
    path = key_file(ledger)
    if not path.exists():
        raise InputError(
            "people were erased here and the key of their tombstones is gone", path, "restore it from a backup"
        )
    return Tombstones(_read(path), rows, in_fields)


def key_file(ledger: Ledger) -> Path:
    return ledger.path.with_name("erasure.key")


def make_key(ledger: Ledger) -> Key:
    """The home's key; made where there is none yet."""
    path = key_file(ledger)
    if not path.exists():
        beside = path.with_suffix(".key.new")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(secrets.token_hex(32) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    return _read(path)


def _read(path: Path) -> Key:
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        secret = b""
    if len(secret) < 32:
        raise InputError("the key of the tombstones cannot be read", path, "restore it from a backup")
    return Key("erasure", secret)


def token(key: Key, kind: str, text: str) -> str:
    return key.digest(f"{kind} {text}")


def write_tombstones(db: sqlite3.Connection, key: Key, people: People, erasure_id: str, erased_at: str) -> None:
    """Inside a transaction; the same person twice is one."""
    db.executemany(
        "INSERT OR IGNORE INTO tombstones VALUES (?, ?, ?, ?)",
        sorted(
            (kind, token(key, kind, text), erasure_id, erased_at) for kind in KINDS for text in people.of_kind(kind)
        ),
    )
    also = sorted((token(key, _ELSEWHERE, text),) for text in people.elsewhere & people.ids)
    db.executemany("INSERT OR IGNORE INTO tombstones_in_fields VALUES (?)", also)
