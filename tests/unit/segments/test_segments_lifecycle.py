"""Who came and went, and why; the catalogue; and segments that do not say what they must."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.segments.lifecycle import (
    MembershipChanges,
    Segment,
    SegmentMeta,
    record_membership,
    segments_of,
    write_tables,
)
from zantara_pipeline.storage.ledger import Ledger

META = {
    "owner": "growth@example.com",
    "purpose": "win back",
    "legal_basis": "consent",
    "entity": "user",
    "ttl_days": 30,
    "access_level": "internal",
    "min_size": 1,
}
DAY = timedelta(days=1)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
SEGMENTS = [Segment(name, "d", "select 1", SegmentMeta.model_validate(META)) for name in ("seg_a", "seg_b")]


class Shop:
    def __init__(self, root: Path) -> None:
        self.ledger = Ledger(root / "ledger.db")
        self.con = duckdb.connect()
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute("CREATE SCHEMA segments; CREATE SCHEMA core")
        self.allowed("u1", "u2", "u3", "u4")

    def allowed(self, *users: str) -> None:
        self.con.execute("CREATE OR REPLACE TABLE core.users (user_id VARCHAR, personalization_allowed BOOLEAN)")
        self.con.executemany("INSERT INTO core.users VALUES (?, ?)", [(f"u{n}", f"u{n}" in users) for n in range(1, 5)])

    def run(self, when: datetime, a: str = "", b: str = "") -> MembershipChanges:
        for name, members in (("seg_a", a.split()), ("seg_b", b.split())):
            self.con.execute(f"CREATE OR REPLACE TABLE segments.{name} (entity_id VARCHAR)")
            if members:
                self.con.executemany(f"INSERT INTO segments.{name} VALUES (?)", [(member,) for member in members])
        changes = record_membership(self.con, self.ledger, SEGMENTS, when)
        write_tables(self.con, self.ledger, SEGMENTS, when)
        return changes

    def history(self, segment: str = "seg_a") -> list[tuple[Any, ...]]:
        """entity, day it entered, day it left, why (days after the first of March)."""
        rows = self.con.execute(
            "SELECT entity_id, entered_at, exited_at, exit_reason FROM segments.membership_history "
            "WHERE segment = ? ORDER BY entity_id, entered_at", [segment],
        ).fetchall()  # fmt: skip
        return [(entity, (i - T0).days, None if o is None else (o - T0).days, why) for entity, i, o, why in rows]

    def recorded(self) -> int:
        with self.ledger.read() as db:
            return int(db.execute("SELECT count(*) FROM membership").fetchone()[0])


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_entering_leaving_and_coming_back(shop: Shop) -> None:
    assert shop.run(T0, "u1 u2") == MembershipChanges(2, 0)
    assert shop.run(T0 + DAY, "u1") == MembershipChanges(0, 1)
    assert shop.run(T0 + 3 * DAY, "u1 u2 u3") == MembershipChanges(2, 0)
    assert shop.history() == [("u1", 0, None, None), ("u2", 0, 1, "rule"), ("u2", 3, None, None), ("u3", 3, None, None)]


def test_segments_do_not_mix(shop: Shop) -> None:
    shop.run(T0, "u1", "u2")
    shop.run(T0 + DAY, "", "u1 u2")
    assert shop.history("seg_a") == [("u1", 0, 1, "rule")]
    assert shop.history("seg_b") == [("u1", 1, None, None), ("u2", 0, None, None)]


def test_leaving_because_consent_was_withdrawn(shop: Shop) -> None:
    shop.run(T0, "u1 u2")
    shop.allowed("u2")
    shop.run(T0 + DAY)
    assert shop.history() == [("u1", 0, 1, "consent_withdrawn"), ("u2", 0, 1, "rule")]


def test_a_person_who_is_no_longer_known_has_withdrawn(shop: Shop) -> None:
    shop.run(T0, "u9")
    shop.run(T0 + DAY)
    assert shop.history() == [("u9", 0, 1, "consent_withdrawn")]


def test_the_same_run_again_appends_nothing(shop: Shop) -> None:
    shop.run(T0, "u1 u2", "u1")
    before = (shop.recorded(), shop.history())
    assert shop.run(T0, "u1 u2", "u1") == MembershipChanges(0, 0)
    assert shop.run(T0 + DAY, "u1 u2", "u1") == MembershipChanges(0, 0)
    assert (shop.recorded(), shop.history()) == before


def test_a_clock_before_the_history_records_nothing(shop: Shop) -> None:
    shop.run(T0 + 5 * DAY, "u1")
    assert shop.run(T0, "u2") == MembershipChanges(0, 0, skipped=True)
    assert shop.history() == [("u1", 5, None, None)]


def test_withdrawn_between_two_runs_on_one_clock(shop: Shop) -> None:
    # nothing new landed, only the consent ledger: the clock is still the latest received_at
    shop.run(T0, "u1 u2")
    shop.allowed("u2")
    shop.run(T0, "u2")
    assert shop.history() == [("u1", 0, 0, "consent_withdrawn"), ("u2", 0, None, None)]
    shop.run(T0 + DAY, "u2")
    assert shop.history() == [("u1", 0, 0, "consent_withdrawn"), ("u2", 0, None, None)]


def test_leaving_and_coming_back_on_one_clock(shop: Shop) -> None:
    shop.run(T0, "u1")
    shop.run(T0 + DAY, "")
    shop.run(T0 + DAY, "u1")
    assert shop.history() == [("u1", 0, 1, "rule"), ("u1", 1, None, None)]


def test_coming_leaving_and_coming_back_on_one_clock(shop: Shop) -> None:
    for members in ("u1", "", "u1", "u1"):
        shop.run(T0, members)
    assert shop.history() == [("u1", 0, 0, "rule"), ("u1", 0, None, None)]
    assert shop.recorded() == 3


def test_the_catalogue_says_all_of_a_segment(shop: Shop) -> None:
    shop.run(T0, "u1 u2", "")
    row = shop.con.execute("SELECT * FROM segments.catalog WHERE segment = 'seg_a'").fetchone()
    assert row == (
        "seg_a",
        "d",
        "growth@example.com",
        "win back",
        "consent",
        "user",
        30,
        "internal",
        1,
        2,
        T0,
        "select 1",
    )
    assert shop.con.execute("SELECT segment, size FROM segments.catalog").fetchall() == [("seg_a", 2), ("seg_b", 0)]


def test_a_shop_without_segments_has_empty_tables(shop: Shop) -> None:
    assert record_membership(shop.con, shop.ledger, [], T0) == MembershipChanges(0, 0)
    assert write_tables(shop.con, shop.ledger, [], T0) == {}
    assert shop.con.execute("SELECT count(*) FROM segments.membership_history").fetchone() == (0,)


def manifest(tmp_path: Path, meta: dict[str, Any]) -> Path:
    node = {
        "resource_type": "model",
        "name": "seg_a",
        "description": "People who came back.",
        "raw_code": "\nselect 1\n",
        "config": {"meta": meta},
        "original_file_path": "models/segments/seg_a.sql",
        "patch_path": "zantara://models/segments/_segments.yml",
    }
    other = node | {"name": "users", "config": {"meta": {}}}
    path = tmp_path / "manifest.json"
    path.write_text(
        json.dumps({"nodes": {"a": node, "b": other, "c": other | {"resource_type": "test", "name": "seg_x"}}})
    )
    return path


def test_segments_are_read_from_the_build(tmp_path: Path) -> None:
    (segment,) = segments_of(manifest(tmp_path, META))
    assert (segment.table, segment.sql, segment.meta.ttl_days) == ("segments.seg_a", "select 1", 30)


@pytest.mark.parametrize("key", META)
def test_a_missing_meta_key_is_named_with_the_files(tmp_path: Path, key: str) -> None:
    meta = {name: value for name, value in META.items() if name != key}
    with pytest.raises(InputError) as error:
        segments_of(manifest(tmp_path, meta))
    said = str(error.value)
    assert f"meta key '{key}'" in said and "seg_a" in said and "\n" not in said
    assert "models/segments/seg_a.sql" in said and "models/segments/_segments.yml" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ttl_days", 0),
        ("ttl_days", "soon"),
        ("owner", "me"),
        ("legal_basis", "whim"),
        ("access_level", "all"),
        ("ttl", 3),
    ],
)
def test_a_meta_value_that_makes_no_sense_is_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"meta key '{key}'"):
        segments_of(manifest(tmp_path, META | {key: value}))
