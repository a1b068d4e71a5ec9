"""Keyed hashes: the engine's SQL against Python's hmac, folding over a keyring, and keys that never show."""

from __future__ import annotations

import hashlib
import hmac
import random
import traceback
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.keyed_hash import Key, Keyring, SqlTokens, load_keyring
from zantara_pipeline.settings import load_settings

ONE, TWO, THREE = (hashlib.sha256(name).digest() for name in (b"one", b"two", b"three"))
JOE = "joe.bloggs@example.com"


def oracle(value: str, secrets: Sequence[bytes]) -> str:
    """The fold, by Python's hmac alone."""
    for secret in secrets:
        value = hmac.new(secret, value.encode(), hashlib.sha256).hexdigest()
    return value


def ring(*secrets: bytes) -> Keyring:
    return Keyring(tuple(Key(f"k{n}", secret) for n, secret in enumerate(secrets, 1)))


def by_engine(keyring: Keyring, values: Sequence[str | None], *, stored: bool = False) -> list[str | None]:
    con = duckdb.connect()
    tokens = SqlTokens(con, keyring)
    con.register("given", pa.table({"n": range(len(values)), "v": pa.array(values, pa.string())}))
    sql = (tokens.of_stored if stored else tokens.of_values)("v")
    found = con.execute(f"SELECT {sql} FROM given ORDER BY n").fetchall()
    con.close()
    return [row[0] for row in found]


def test_the_engine_hashes_five_thousand_random_values_as_hmac_does() -> None:
    chance = random.Random(7)
    letters = [*"abcdefghijklmnopqrstuvwxyz@.-_+ \"'\\\n\t{}", "é", "ß", "漢", "😀", "\u0301", "\u202e"]
    values = ["".join(chance.choices(letters, k=chance.randrange(200))) for _ in range(5_000)]
    assert by_engine(ring(ONE), values) == [f"hashed:k1:{oracle(v, [ONE])}" for v in values]
    assert by_engine(ring(ONE, TWO, THREE), values) == [f"hashed:k3:{oracle(v, [ONE, TWO, THREE])}" for v in values]
    assert by_engine(ring(ONE), ["", None]) == [f"hashed:k1:{oracle('', [ONE])}", None]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=32, max_size=200), min_size=1, max_size=3, unique=True),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80), min_size=1, max_size=20),
)
def test_every_key_length_and_text_hashes_alike_in_engine_and_python(secrets: list[bytes], values: list[str]) -> None:
    expected = [f"hashed:k{len(secrets)}:{oracle(v, secrets)}" for v in values]
    assert by_engine(ring(*secrets), values) == expected == [ring(*secrets).token(v) for v in values]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(min_size=32, max_size=70), min_size=2, max_size=5, unique=True), st.data())
def test_a_token_of_any_earlier_key_becomes_the_token_of_the_value(secrets: list[bytes], data: st.DataObject) -> None:
    whole = ring(*secrets)
    earlier = Keyring(whole.keys[: data.draw(st.integers(1, len(secrets)))])
    assert whole.renewed(earlier.token(JOE)) == whole.token(JOE) == whole.renewed(whole.token(JOE))
    assert by_engine(whole, [earlier.token(JOE), JOE], stored=True) == [whole.token(JOE)] * 2
    assert whole.renewed(earlier.token(JOE, "unchecked")) == whole.token(JOE, "unchecked")
    assert {earlier.token(JOE), earlier.token(JOE, "unchecked")} <= set(whole.tokens(JOE))


def test_another_key_gives_another_token() -> None:
    assert len({ring(ONE).token(JOE), ring(TWO).token(JOE), ring(ONE, TWO).token(JOE), ring(TWO, ONE).token(JOE)}) == 4


def test_a_token_of_a_key_that_nobody_has_is_left_alone_in_python_and_hashed_as_a_value_in_sql() -> None:
    alien = f"hashed:other:{'0' * 64}"
    assert ring(ONE).renewed(alien) == alien
    assert by_engine(ring(ONE), [alien], stored=True) == [ring(ONE).token(alien)]


def test_no_key_shows_in_reprs_statements_plans_or_errors() -> None:
    keyring, con = ring(ONE, TWO), duckdb.connect()
    tokens = SqlTokens(con, keyring)
    con.execute("CREATE TABLE t AS SELECT 'x' AS v")
    said = [repr(keyring), str(keyring), tokens.of_values("v"), tokens.of_stored("v")]
    said += [row[1] for row in con.execute(f"EXPLAIN ANALYZE SELECT {tokens.of_stored('v')} FROM t").fetchall()]
    with pytest.raises(duckdb.Error) as caught:
        con.execute(f"SELECT {tokens.of_values('nowhere')} FROM t")
    said.append("".join(traceback.format_exception(caught.value)))
    shown = [
        ONE.hex(),
        TWO.hex(),
        repr(ONE)[2:12],
        *(repr(block)[2:20] for key in keyring.keys for block in key.blocks),
    ]
    shown += [block.hex() for key in keyring.keys for block in key.blocks]
    assert all(secret not in text.lower() and secret not in text for secret in shown for text in said)
    assert "Key(k1), Key(k2)" in repr(keyring)


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_keyring_is_read_from_a_file_or_from_a_text_in_its_order(tmp_path: Path) -> None:
    file = key_file(tmp_path, f"# oldest first\nk1: {ONE.hex()}\n\nk2:{TWO.hex().upper()}\n")
    assert load_keyring(file, None) == load_keyring(None, f"k1={ONE.hex()}, k2={TWO.hex()}") == ring(ONE, TWO)
    assert load_keyring(None, None) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"k1: {ONE.hex()[:62]}", ":1: the key has fewer than 32 bytes"),
        (f"# a\nk1: {'g' * 64}", ":2: the key is not hex"),
        (f"K 1: {ONE.hex()}", ":1: no id of a key"),
        (ONE.hex(), ":1: no id of a key"),
        (f"k1: {ONE.hex()}\nk1: {TWO.hex()}", ":2: an id or a key stands twice"),
        (f"k1: {ONE.hex()}\nk2: {ONE.hex()}", ":2: an id or a key stands twice"),
        ("# none\n", "there are no keys"),
    ],
)
def test_a_wrong_file_of_keys_is_one_line_that_repeats_nothing_of_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_keyring(key_file(tmp_path, text), None)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert ONE.hex()[:20] not in str(caught.value) and "gggg" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InputError, match="others than its owner may read the keys; chmod 600"):
        load_keyring(key_file(tmp_path, f"k1: {ONE.hex()}", mode), None)


def test_keys_given_twice_or_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="given twice"):
        load_keyring(key_file(tmp_path, f"k1: {ONE.hex()}"), f"k1={ONE.hex()}")
    with pytest.raises(InputError, match="FileNotFoundError"):
        load_keyring(tmp_path / "absent", None)


def test_the_settings_do_not_print_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_PII_KEYS", f"k1={ONE.hex()}")
    found = load_settings()
    assert found.pii_keys_text == f"k1={ONE.hex()}"
    assert ONE.hex() not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"
