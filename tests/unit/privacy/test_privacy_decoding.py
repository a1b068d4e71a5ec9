"""The search that proves an erasure finds a person in every format that lies in a home, and names no one else."""

from __future__ import annotations

import gzip
import json
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from zantara_pipeline.privacy.decoding import UNEXPLAINED, hits_in, scan
from zantara_pipeline.privacy.erased_tables import LEDGER_TABLES
from zantara_pipeline.privacy.people import PLACEHOLDERS, Matcher, People, is_distinctive
from zantara_pipeline.settings import PROJECT_ROOT
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.inventory import STORES
from zantara_pipeline.storage.ledger import Ledger

WHO = "u-17"


def in_duckdb(path: Path, user: str) -> None:
    with closing(duckdb.connect(str(path))) as con:
        con.execute("CREATE SCHEMA core; CREATE TABLE core.users AS SELECT ? AS user_id", [user])
        con.execute("CREATE TABLE lists AS SELECT [{'who': ?}] AS nested", [user])


def in_sqlite(path: Path, user: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE runs (id INTEGER, body TEXT, raw BLOB)")
        db.execute("INSERT INTO runs VALUES (17, ?, ?)", [json.dumps({"tags": {"who": user}}), user.encode()])


FORMATS: dict[str, Callable[[Path, str], object]] = {
    "a.jsonl": lambda p, u: p.write_text(json.dumps({"user_id": u}) + "\n"),
    "escaped.jsonl": lambda p, u: p.write_text('{"user_id": "\\u0075' + u[1:] + '"}\n'),
    "key.jsonl": lambda p, u: p.write_text(json.dumps({"properties": {u: 1}}) + "\n"),
    "twice.jsonl": lambda p, u: p.write_text(f'{{"user_id": "{u}", "user_id": "other"}}\n'),
    "broken.jsonl": lambda p, u: p.write_text(f'{{"user_id": "{u}"\n'),
    "a.jsonl.gz": lambda p, u: p.write_bytes(gzip.compress(json.dumps({"a": [u]}).encode())),
    "a.csv": lambda p, u: p.write_text(f"user_id,purpose\n{u},analytics\n"),
    "whole.json": lambda p, u: p.write_text(json.dumps({"people": [u]}, indent=1)),
    "page.html": lambda p, u: p.write_text(f"<p>{u.replace('-', '&#45;')}</p>"),
    "run.log": lambda p, u: p.write_text(f"{u} came\n"),
    "snappy.parquet": lambda p, u: pq.write_table(pa.table({"user_id": [u]}), p, compression="snappy"),
    "zstd.parquet": lambda p, u: pq.write_table(pa.table({"x": pa.array([u]).dictionary_encode()}), p, compression="zstd"),
    "nested.parquet": lambda p, u: pq.write_table(pa.table({"x": [[{"ids": [u]}]]}), p),
    "payload.parquet": lambda p, u: pq.write_table(pa.table({"payload_raw": [json.dumps({"user_id": u})]}), p),
    "a.duckdb": in_duckdb,
    "mlflow.db": in_sqlite,
    "no-suffix": in_sqlite,
    "arrays.npz": lambda p, u: np.savez_compressed(p, users=np.array([u, "other"]), numbers=np.array([17])),
    "a.npy": lambda p, u: np.save(p, np.array([u])),
    "a.pkl": lambda p, u: p.write_bytes(pickle.dumps({"users": [u]})),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_person_is_found_in_every_format(tmp_path: Path, name: str) -> None:
    FORMATS[name](tmp_path / name, WHO)
    assert hits_in(tmp_path / name, Matcher({WHO})) >= 1
    assert hits_in(tmp_path / name, Matcher({"u-1", "u-170", "17", "u"})) == 0


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=3, max_size=12).filter(is_distinctive), st.booleans())
def test_any_id_is_found_in_json_however_it_is_written(user: str, ascii_only: bool) -> None:
    matcher = Matcher({user})
    for line in ({"x": user}, {"a": {user: 1}}, [[user]], {"text": json.dumps({"x": user})}):
        assert matcher.in_text(json.dumps(line, ensure_ascii=ascii_only))
    assert matcher.found == {user}


def test_lists_of_things_hold_no_people() -> None:
    line = {"product_ids": ["17"], "items": [{"id": "17"}], "orderIds": ["17"]}
    assert not Matcher({"17"}).in_text(json.dumps(line))
    assert Matcher({"17"}).in_text(json.dumps(line | {"user_ids": ["17"]}))


def test_stores_are_told_apart_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    (home.landing / "events" / "a.jsonl").write_text('{"user_id": "u-17"}\n')
    (home.landing / "events" / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 999)[:-9])
    (home.data / "exports.csv").write_text("entity_id\nu-17\n")
    (home.mlflow / "a.parquet").write_bytes(b"PAR1 not really")
    found = scan(home, People(frozenset({WHO})))
    assert found["landing"].files == ["data/landing/events/a.jsonl"]
    assert found["landing"].unreadable == ["data/landing/events/cut.jsonl.gz"]
    assert found[UNEXPLAINED].files == ["data/exports.csv"] and found[UNEXPLAINED].unreadable == ["mlflow/a.parquet"]


def test_every_table_of_the_ledger_says_what_an_erasure_does_there(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db").read() as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        ids = {
            table for table in tables
            for column in db.execute(f"PRAGMA table_info({table})")
            if column[1] in ("user_id", "entity_id", "anonymous_id", "device_id", "id")
        }  # fmt: skip
    assert tables == set(LEDGER_TABLES)
    assert ids == {table for table, rule in LEDGER_TABLES.items() if not isinstance(rule, str)}


def test_a_store_that_holds_people_is_erased_and_one_that_does_not_has_no_legal_basis() -> None:
    rebuilt = {
        "dbt",
        "run log",
        "report",
    }  # nobody is meant to stand there; what a failing test prints may name somebody
    for store in STORES:
        people = store.on_erasure in ("rewritten", "dropped") or store.name == "key of tombstones"
        assert people == (store.legal_basis is not None) or store.name == "exempt events", store.name
        assert (store.on_erasure == "removed") == (store.name in rebuilt)


def test_words_that_stand_for_nobody_are_those_of_the_models() -> None:
    project = yaml.safe_load((PROJECT_ROOT / "dbt_project" / "dbt_project.yml").read_text())
    assert set(project["vars"]["placeholder_ids"]) == PLACEHOLDERS
