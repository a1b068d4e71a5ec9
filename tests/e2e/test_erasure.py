"""Fifty planted people of a whole shop are erased: found in every store before, nowhere after, and as if they never came.

The search of this test is its own, and simple: DuckDB writes every Parquet file and table out as text, SQLite its dump,
gzip its content. It is the positive control and the proof; the product's own search is held against it.
"""

from __future__ import annotations

import gzip
import hmac
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pytest
from pipeline_homes import assert_same_tables, copy_home, published, reading, warehouse, with_project, zantara
from pydantic import SecretStr

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.orchestration.erasure import hands
from zantara_pipeline.privacy import erasure
from zantara_pipeline.privacy.keyed_hash import Key, Keyring
from zantara_pipeline.segments.exports import Clock, write_exports
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.inventory import store_of, unexplained
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import load_plan

pytestmark = pytest.mark.e2e

PEOPLE = 50
KEY = Key("k1", bytes(range(32)))
# What tells that there was somebody: counts of what was suppressed, the tombstones, memberships that ended, alerts of then.
TELL = (
    "ops.ingested_files",
    "ops.tombstones",
    "segments.membership_history",
    "expiring.membership_history",
    "ops.alerts",
)


def decoded(path: Path, con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    if path.suffix == ".parquet":
        yield str(con.execute("FROM read_parquet(?, hive_partitioning = false)", [str(path)]).fetchall())
    elif path.suffix == ".duckdb":
        with reading(path) as tables:
            for schema, table in tables.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall():
                yield str(tables.execute(f'FROM "{schema}"."{table}"').fetchall())
    elif path.read_bytes()[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(path)) as db:
            yield "\n".join(db.iterdump())
    elif path.suffix == ".gz":
        yield gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    elif path.suffix == ".npz":
        yield str([array.tolist() for array in np.load(path).values() if array.dtype.kind in "US"])
    else:
        yield path.read_text(encoding="utf-8", errors="replace")


def where(home: Path, ids: set[str]) -> dict[str, set[str]]:
    """Store -> which of the ids (all of them words) stand there."""
    assert all(re.fullmatch(r"\w+", one) for one in ids)
    found: dict[str, set[str]] = {}
    with closing(duckdb.connect()) as con:
        for path in (p for top in ("data", "mlflow") for p in sorted((home / top).rglob("*")) if p.is_file()):
            store = store_of(path.relative_to(home).as_posix())
            assert store is not None, path
            for text in decoded(path, con):
                found.setdefault(store.name, set()).update(ids.intersection(re.findall(r"\w+", text)))
    return {store: named for store, named in found.items() if named}


def some_people(home: Path) -> list[str]:
    """People with all that a person can have: a list of the model's, a membership, an anonymous id of their own."""
    query = """
        SELECT user_id FROM core.users u
        ORDER BY user_id NOT IN (SELECT user_id FROM core.identities WHERE users = 1),
            user_id NOT IN (SELECT entity_id FROM segments.membership_history),
            user_id NOT IN (SELECT user_id FROM recommendations.user_recommendations WHERE served_by = 'full'), user_id
        LIMIT ?
    """
    with reading(published(home)) as con:
        return [row[0] for row in con.execute(query, [PEOPLE]).fetchall()]


def own_ids(home: Path, people: list[str]) -> set[str]:
    with reading(published(home)) as con:
        query = "SELECT id FROM core.identities GROUP BY id_type, id HAVING bool_and(user_id IN (SELECT unnest(?))) AND max(users) = 1"
        return {row[0] for row in con.execute(query, [people]).fetchall()}


def killed_before_it_began(home: Path, user: str, env: dict[str, str]) -> None:
    """An erasure whose request was written down, and no more."""
    place, ledger = Home(home), Ledger(home / "data" / "state" / "ledger.db")
    settings = Settings(home=home, export_keys=SecretStr(env["ZANTARA_EXPORT_KEYS"]))
    work = hands(settings, place, ledger, load_plan(settings.contract_dirs))
    erasure._Request.new(erasure.look(place, ledger, work, [user]), work).save(place)


def handing_out(folder: Path, home: Path, alerting: dict[str, str]) -> dict[str, str]:
    """Contracts with the packaged destination turned on and a key, under which what the home holds is handed out."""
    shutil.copytree(alerting["ZANTARA_CONTRACTS"], folder)
    text = (PACKAGED / "privacy.yaml").read_text(encoding="utf-8")
    (folder / "privacy.yaml").write_text(text.replace("enabled: false\n", "enabled: true\n"), encoding="utf-8")
    wanted, place = load_plan([PACKAGED, folder]).privacy.exports, Home(home)
    assert [to.name for to in wanted] == ["ad_network"]
    with reading(warehouse(home)) as con:
        [(as_of,)] = con.execute("SELECT as_of FROM state.run_clock").fetchall()
    ledger = Ledger(place.state / "ledger.db")
    write_exports(place, ledger, wanted, Keyring((KEY,)), Clock(as_of, live=False), threads=1, memory_limit="500MB")
    # the clock of both runs: the latest event may be of somebody who is erased
    return {
        "ZANTARA_CONTRACTS": str(folder),
        "ZANTARA_EXPORT_KEYS": f"k1={KEY.secret.hex()}",
        "ZANTARA_AS_OF": as_of.isoformat(),
    }


def pseudonyms(people: list[str]) -> dict[str, str]:
    """What people are called at the destination, by Python's own HMAC -> who it is."""
    own = hmac.digest(KEY.secret, b"zantara_pipeline: pseudonyms for ad_network", "sha256")
    return {hmac.digest(own, f"user {one}".encode(), "sha256").hex(): one for one in people}


def handed_out(home: Path) -> set[str]:
    with reading(home / "data" / "exports" / "ad_network" / "segments.duckdb") as con:
        return {row[0] for row in con.execute("SELECT pseudonym FROM seg_recent_buyers").fetchall()}


def test_fifty_people_leave_nothing_behind(
    tmp_path: Path, small_home: Path, parsed: Path, alerting: dict[str, str]
) -> None:
    home, other = copy_home(small_home, tmp_path / "home"), with_project(tmp_path / "other", parsed)
    env = handing_out(tmp_path / "contracts", home, alerting)
    people = some_people(home)
    called = pseudonyms(people)
    received = {called[one] for one in handed_out(home) & set(called)}
    assert 5 < len(received) < len(handed_out(home))
    anonymous = own_ids(home, people)
    assert len(people) == PEOPLE and len(anonymous) >= 20
    ids = {*people, *anonymous}
    before = where(home, ids)
    assert set().union(*before.values()) == ids
    for store in ("landing", "accepted events", "state ledger", "warehouse", "published copy", "model artifacts"):
        assert len(before[store] & set(people)) >= PEOPLE // 2, store

    answer = json.loads(zantara(home, "privacy", "export", people[0], tmp_path / "answer", "--json", env=env).out)
    assert answer["entries"]["events.json"] > 0 and answer["entries"]["tables.json"] >= 3
    assert answer["entries"]["exports.json"] == int(people[0] in received)

    (tmp_path / "ids.txt").write_text("\n".join(people[:-1]))
    receipt = json.loads(zantara(home, "privacy", "erase", "--file", tmp_path / "ids.txt", "--json", env=env).out)
    assert (receipt["status"], receipt["people"], receipt["unknown"]) == ("complete", PEOPLE - 1, 0)
    assert {s["store"] for s in receipt["stores"] if s["hits_before"]} >= {*before, "exports"} and receipt[
        "models_marked"
    ] == 1
    assert not any(s["hits_after"] for s in receipt["stores"])
    assert not any(one in json.dumps(receipt) for one in ids)
    assert "tell Example Ads Ltd" in str(receipt["out_of_reach"])
    assert handed_out(home) & set(called) <= {name for name, who in called.items() if who == people[-1]}
    rest = set().union(*where(home, ids).values())
    assert people[-1] in rest and not rest & set(people[:-1])
    with reading(published(home)) as con:  # readers had a copy all the time
        assert con.execute("SELECT count(*) FROM core.users").fetchall()[0][0] > 0

    killed_before_it_began(home, people[-1], env)
    zantara(home, "run", env=env)
    assert where(home, ids | set(called)) == {} and unexplained(home) == []
    assert len(list((home / "data" / "receipts").glob("*.json"))) == 2

    shutil.copytree(home / "data" / "landing", other / "data" / "landing")
    zantara(other, "run", env=env)
    assert_same_tables(published(home), published(other), besides=TELL)
    assert handed_out(home) == handed_out(other)
    with reading(published(home)) as con:
        query = "SELECT count(*) FROM segments.membership_history WHERE exit_reason = 'erased' AND starts_with(entity_id, 'erased-')"
        assert con.execute(query).fetchall()[0][0] > 0
        balance = "SELECT sum(erased) > 0, bool_and(rows_in = unparsable + suppressed + quarantined + accepted) FROM ops.ingested_files"
        assert con.execute(balance).fetchall() == [(True, True)]
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as db:
        marked = db.execute("SELECT version FROM model_version_tags WHERE key = 'erasure.retrain_by'").fetchall()
        assert marked == [(1,)]
        assert db.execute("SELECT version FROM registered_model_aliases WHERE alias = 'champion'").fetchall() == [(2,)]
