"""Keyed hashes of direct identifiers: what is stored in place of an e-mail address, a telephone number, a name.

A keyring is an ordered row of keys. A value is folded over all of them, d1 = HMAC-SHA256(k1, value), d2 =
HMAC-SHA256(k2, d1 in hex) and so on, and its token names the last: `hashed:<key id>:<64 hex>`. So a new key is added at
the end, stored tokens are folded on without the values, and values that come later still join with them.
`unchecked:<key id>:<64 hex>` stands for a value that failed its checks (or had none to pass) in a quarantined line.

Belongs here: keyrings, tokens, and both as SQL of the engine. Does not belong here: which values are hashed, and when
(tracking/direct.py), reading the environment (settings.py).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from zantara_pipeline.errors import InputError

HASHED, UNCHECKED = "hashed", "unchecked"
TOKEN_PATTERN = r"^hashed:[a-z0-9_-]{1,32}:[0-9a-f]{64}$"
"""Of a stored identifier, anchored."""
UNCHECKED_PATTERN = r"^unchecked:[a-z0-9_-]{1,32}:[0-9a-f]{64}$"
STORED = re.compile(r"(hashed|unchecked):([a-z0-9_-]{1,32}):([0-9a-f]{64})")

_BLOCK = 64  # bytes that SHA-256 takes at a time (RFC 2104 calls it B)
_LEAST_BYTES = 32  # RFC 2104, section 3: a key shorter than the digest weakens it
_ID = re.compile(r"[a-z0-9_-]{1,32}")
_EXAMPLE = "give each as `id: hex` of at least 64 hex digits (openssl rand -hex 32)"


@dataclass(frozen=True, repr=False)
class Key:
    """One key; it prints as its id."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def digest(self, text: str) -> str:
        return hmac.digest(self.secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()

    @property
    def check(self) -> str:
        """Tells two keys of one id apart; says nothing about the key."""
        return self.digest("zantara_pipeline: which key is this?")[:16]

    @property
    def blocks(self) -> tuple[bytes, bytes]:
        """RFC 2104: what the inner and the outer hash begin with."""
        import hashlib

        key = hashlib.sha256(self.secret).digest() if len(self.secret) > _BLOCK else self.secret
        padded = key.ljust(_BLOCK, b"\0")
        return bytes(byte ^ 0x36 for byte in padded), bytes(byte ^ 0x5C for byte in padded)


@dataclass(frozen=True)
class Keyring:
    """Keys in the order in which they are folded; the last one names new tokens."""

    keys: tuple[Key, ...]

    @property
    def last(self) -> Key:
        return self.keys[-1]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(key.id for key in self.keys)

    def token(self, value: str, kind: str = HASHED) -> str:
        """What is stored in place of a value."""
        return f"{kind}:{self.last.id}:{_fold(value, self.keys)}"

    def renewed(self, token: str) -> str:
        """A token of an earlier key as one of the last; any other text as it is."""
        found = STORED.fullmatch(token)
        if found is None or found[2] not in self.ids:
            return token
        later = self.keys[self.ids.index(found[2]) + 1 :]
        return f"{found[1]}:{self.last.id}:{_fold(found[3], later)}"

    def tokens(self, value: str) -> Iterator[str]:
        """Every token that may stand for a value, of whatever key."""
        for count in range(1, len(self.keys) + 1):
            earlier = Keyring(self.keys[:count])
            yield from (earlier.token(value, kind) for kind in (HASHED, UNCHECKED))


def _fold(text: str, keys: Iterable[Key]) -> str:
    for key in keys:
        text = key.digest(text)
    return text


def load_keyring(file: Path | None, text: str | None, setting: str = "ZANTARA_PII_KEYS") -> Keyring | None:
    """The keyring of a file (one `id: hex` a line, # begins a comment) or of a text (`k1=hex,k2=hex`); None: neither.

    Parameters
    ----------
    setting : the variable of the text; with _FILE behind it that of the file.

    Raises
    ------
    InputError : both, a file that others than its owner may read, a key that is too short or no hex, an id or a key that
        stands twice. Never says what stands there.
    """
    if file is not None and text is not None:
        raise InputError("keys are given twice", f"settings {setting}_FILE and {setting}", "unset one")
    if file is not None:
        return _keyring(_lines_of(file, setting), ":", setting)
    if text is not None:
        parts = ((f"setting {setting}, key {n}", part) for n, part in enumerate(text.split(","), 1))
        return _keyring(parts, "=", setting)
    return None


def _lines_of(file: Path, setting: str) -> Iterator[tuple[str, str]]:
    try:
        if file.stat().st_mode & 0o077:
            raise InputError("others than its owner may read the keys", file, f"chmod 600 {file}")
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the keys cannot be read ({type(error).__name__})", file, f"see setting {setting}_FILE"
        ) from None
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{file}:{number}", line


def _keyring(parts: Iterable[tuple[str, str]], between: str, setting: str) -> Keyring:
    keys: list[Key] = []
    for where, part in parts:
        key = _key(part, between, where)
        if any(key.id == known.id or key.secret == known.secret for known in keys):
            raise InputError("an id or a key stands twice", where, "give each key once, oldest first")
        keys.append(key)
    if not keys:
        raise InputError("there are no keys", f"setting {setting}_FILE", _EXAMPLE)
    return Keyring(tuple(keys))


def _key(part: str, between: str, where: str) -> Key:
    name, _, digits = (side.strip() for side in part.partition(between))
    if not _ID.fullmatch(name):
        raise InputError("no id of a key (small letters, digits, - and _; at most 32)", where, _EXAMPLE)
    try:
        secret = bytes.fromhex(digits)
    except ValueError:
        raise InputError("the key is not hex", where, _EXAMPLE) from None
    if len(secret) < _LEAST_BYTES:
        raise InputError(f"the key has fewer than {_LEAST_BYTES} bytes", where, _EXAMPLE)
    return Key(name, secret)


class SqlTokens:
    """Tokens as SQL of one connection. Keys lie in a table of it: no statement, plan or error message shows one."""

    def __init__(self, con: duckdb.DuckDBPyConnection, keyring: Keyring) -> None:
        self.keyring = keyring
        con.execute("CREATE OR REPLACE TEMP TABLE pii_keys (id VARCHAR, inner_block BLOB, outer_block BLOB)")
        con.executemany("INSERT INTO pii_keys VALUES (?, ?, ?)", [(key.id, *key.blocks) for key in keyring.keys])

    def of_values(self, text: str) -> str:
        """SQL: the token of a text that is a value, whatever it looks like; null stays null."""
        return f"('{HASHED}:{self.keyring.last.id}:' || {_fold_sql(text, self.keyring.keys)})"

    def digest_of(self, text: str) -> str:
        """SQL: the digest of a text alone, 64 hex digits; null stays null."""
        return _fold_sql(text, self.keyring.keys)

    def of_stored(self, text: str) -> str:
        """SQL: the token of a text that may be one already, of whatever key; null stays null."""
        cases = "".join(
            f" WHEN regexp_full_match({text}, '{HASHED}:{key.id}:[0-9a-f]{{64}}') "
            f"THEN '{HASHED}:{self.keyring.last.id}:' || {_fold_sql(f'right({text}, 64)', self.keyring.keys[n + 1 :])}"
            for n, key in enumerate(self.keyring.keys)
        )
        return f"CASE{cases} ELSE {self.of_values(text)} END"


def _fold_sql(text: str, keys: Iterable[Key]) -> str:
    """RFC 2104 of the engine's sha256, which has no HMAC of its own."""
    for key in keys:
        inner, outer = (
            f"(SELECT {name} FROM pii_keys WHERE id = '{key.id}')" for name in ("inner_block", "outer_block")
        )
        text = f"sha256({outer} || unhex(sha256({inner} || encode({text}))))"
    return text
