"""Who came and went, and why; the catalogue and the overlap."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from segment_meta import META

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.erased_tables import erase_from_ledger
from zantara_pipeline.privacy.people import People
from zantara_pipeline.segments.contract import Segment, SegmentMeta, segments_of
from zantara_pipeline.segments.lifecycle import MembershipChanges, record_membership
from zantara_pipeline.segments.tables import sizes_of, write_tables
from zantara_pipeline.segments.visibility import load_rules, record_sizes
from zantara_pipeline.storage.ledger import Ledger

DAY = timedelta(days=1)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
SEGMENTS = [
    Segment(name, "d", "select 1", SegmentMeta.model_validate(META | {"min_size": 1})) for name in ("seg_a", "seg_b")
]
FAR = 1000


class Shop:
    """Members are written as "u1 u2@5": u2 is a member until day 5; who does not say stays for ever."""

    def __init__(self, root: Path, kind: type[Ledger] = Ledger) -> None:
        self.ledger = kind(root / "ledger.db")
        self.con = duckdb.connect()
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute("CREATE SCHEMA segments; CREATE SCHEMA core")
        self.con.execute(
            "CREATE TABLE core.consent_history (user_id VARCHAR, purpose VARCHAR, status VARCHAR, "
            "effective_from TIMESTAMPTZ, effective_to TIMESTAMPTZ)"
        )
        for user in ("u1", "u2", "u3", "u4"):
            self.says(user, "granted", T0 - DAY)

    def says(self, user: str, status: str, when: datetime) -> None:
        self.con.execute("UPDATE core.consent_history SET effective_to = ? WHERE user_id = ?", [when, user])
        self.con.execute(
            "INSERT INTO core.consent_history VALUES (?, 'personalization', ?, ?, NULL)", [user, status, when]
        )

    def run(self, when: datetime, a: str = "", b: str = "", entered: datetime = T0 - DAY) -> MembershipChanges:
        for name, members in (("seg_a", a.split()), ("seg_b", b.split())):
            self.con.execute(
                f"CREATE OR REPLACE TABLE segments.{name} (entity_id VARCHAR, entered_at TIMESTAMPTZ, expires_at TIMESTAMPTZ)"
            )
            for member in members:
                entity, _, until = member.partition("@")
                expires = T0 + float(until or FAR) * DAY
                if expires > when:  # as the materialization does
                    self.con.execute(f"INSERT INTO segments.{name} VALUES (?, ?, ?)", [entity, entered, expires])
        changes = record_membership(self.con, self.ledger, SEGMENTS, when)
        sizes = record_sizes(self.ledger, SEGMENTS, sizes_of(self.con, SEGMENTS), when, load_rules())
        write_tables(self.con, self.ledger, sizes, when)
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
    shop.says("u1", "denied", T0 + DAY)
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
    shop.says("u1", "denied", T0)
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


def test_an_exit_by_time_is_told_from_one_by_the_rule_and_dated_when_the_time_was_over(shop: Shop) -> None:
    shop.run(T0, "u1@5 u2@5 u3@20")
    shop.run(T0 + 10 * DAY, "")
    assert shop.history() == [("u1", 0, 5, "ttl"), ("u2", 0, 5, "ttl"), ("u3", 0, 10, "rule")]


def test_qualifying_again_renews_and_the_later_end_counts(shop: Shop) -> None:
    shop.run(T0, "u1@5")
    assert shop.run(T0 + 3 * DAY, "u1@33") == MembershipChanges(0, 0)
    shop.run(T0 + 40 * DAY, "")
    assert shop.history() == [("u1", 0, 33, "ttl")]


def test_who_qualified_again_only_after_the_time_was_over_was_away_meanwhile(shop: Shop) -> None:
    """No run came between: on day 5 the time was over, on day 8 they qualified anew, day 10 is the next run."""
    shop.run(T0, "u1@5 u2@5")
    assert shop.run(T0 + 10 * DAY, "u1@38", entered=T0 + 8 * DAY) == MembershipChanges(1, 2)
    assert shop.history() == [("u1", 0, 5, "ttl"), ("u1", 10, None, None), ("u2", 0, 5, "ttl")]


def test_what_came_first_is_the_reason(shop: Shop) -> None:
    shop.run(T0, "u1@5 u2@5")
    shop.says("u1", "denied", T0 + 4 * DAY)
    shop.says("u2", "denied", T0 + 6 * DAY)
    shop.run(T0 + 10 * DAY)
    assert shop.history() == [("u1", 0, 10, "consent_withdrawn"), ("u2", 0, 5, "ttl")]


def test_a_device_is_left_when_one_of_its_people_withdraws(shop: Shop) -> None:
    shop.con.execute(
        "CREATE SCHEMA staging; CREATE TABLE core.users AS SELECT 'u' || i AS user_id FROM range(1, 5) r (i); "
        "CREATE TABLE staging.stg_lake__events (device_id VARCHAR, user_id VARCHAR); "
        "INSERT INTO staging.stg_lake__events VALUES ('d1', 'u1'), ('d1', 'u2'), ('d2', 'u3'), ('d2', 'guest')"
    )
    devices = [Segment("seg_a", "d", "select 1", SegmentMeta.model_validate(META | {"entity": "device"}))]
    end = T0 + FAR * DAY
    for when, members in ((T0, ["d1", "d2"]), (T0 + 2 * DAY, [])):
        shop.con.execute(
            "CREATE OR REPLACE TABLE segments.seg_a (entity_id VARCHAR, entered_at TIMESTAMPTZ, expires_at TIMESTAMPTZ)"
        )
        for member in members:
            shop.con.execute("INSERT INTO segments.seg_a VALUES (?, ?, ?)", [member, T0, end])
        record_membership(shop.con, shop.ledger, devices, when)
        shop.says("u2", "denied", T0 + DAY)
    with shop.ledger.read() as db:
        exits = db.execute("SELECT entity_id, exit_reason FROM membership WHERE change = 'exit' ORDER BY 1").fetchall()
    assert exits == [("d1", "consent_withdrawn"), ("d2", "rule")]


def test_members_of_a_segment_that_is_no_longer_declared_leave(shop: Shop) -> None:
    shop.run(T0, "u1", "u1@1 u2")
    record_membership(shop.con, shop.ledger, SEGMENTS[:1], T0 + 3 * DAY)
    with shop.ledger.read() as db:
        exits = db.execute(
            "SELECT segment, entity_id, exit_reason FROM membership WHERE change = 'exit' ORDER BY 2"
        ).fetchall()
    assert exits == [("seg_b", "u1", "ttl"), ("seg_b", "u2", "rule")]


def test_erased_people_leave_and_no_row_names_them(shop: Shop) -> None:
    shop.run(T0, "u1 u2", "u1")
    shop.run(T0 + DAY, "u1 u2", "")
    erase_from_ledger(shop.ledger, People(frozenset({"u1", "nobody"})), utc_text(T0 + 2 * DAY))
    shop.run(T0 + 2 * DAY, "u2", "")
    assert sorted(row[1:] for row in shop.history() if row[2] is not None) == [(0, 1, "erased")]
    assert [row for row in shop.history() if row[2] is None] == [("u2", 0, None, None)]
    assert [row[1:] for row in shop.history("seg_b")] == [(0, 1, "rule")]
    with shop.ledger.read() as db:
        names = {
            row[0] for row in db.execute("SELECT entity_id FROM membership UNION SELECT entity_id FROM membership_open")
        }
    assert "u1" not in names and "u2" in names


def test_a_ledger_of_an_earlier_version_keeps_its_open_memberships(shop: Shop) -> None:
    shop.run(T0, "u1 u2@5")
    with shop.ledger.transaction() as db:
        db.execute("DROP TABLE membership_open")
    shop.ledger = Ledger(shop.ledger.path)
    assert shop.run(T0 + 10 * DAY, "u1") == MembershipChanges(0, 1)
    assert shop.history() == [("u1", 0, None, None), ("u2", 0, 10, "rule")]  # until when it was good, nobody knows


def test_the_catalogue_says_all_of_a_segment(shop: Shop) -> None:
    shop.run(T0, "u1 u2", "")
    row = shop.con.execute("SELECT * FROM segments.catalog WHERE segment = 'seg_a'").fetchone()
    assert row == ("seg_a", "d", "growth@example.com", "personalization", "consent", "user", 30, "internal", 1, 2, T0,
                   "select 1")  # fmt: skip
    assert shop.con.execute("SELECT segment, size FROM segments.catalog").fetchall() == [("seg_a", 2), ("seg_b", 0)]


def test_the_overlap_counts_whom_two_segments_share(shop: Shop) -> None:
    shop.run(T0, "u1 u2 u3", "u2 u3 u4")
    assert shop.con.execute("SELECT * FROM segments.overlap").fetchall() == [("seg_a", "seg_b", "user", 3, 3, 2, 0.5)]
    shop.run(T0 + DAY)
    assert shop.con.execute("SELECT * FROM segments.overlap").fetchall() == [("seg_a", "seg_b", "user", 0, 0, 0, None)]


def test_a_shop_without_segments_has_empty_tables(shop: Shop) -> None:
    assert record_membership(shop.con, shop.ledger, [], T0) == MembershipChanges(0, 0)
    write_tables(shop.con, shop.ledger, [], T0)
    for table in ("catalog", "membership_history", "overlap"):
        assert shop.con.execute(f"SELECT count(*) FROM segments.{table}").fetchone() == (0,)


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
