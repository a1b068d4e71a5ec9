"""What a run tells of withdrawals: how many people, of which purpose, and what of theirs ended; nobody's name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from zantara_pipeline.privacy.consent import Statement, append, date_new_statements, utc_text
from zantara_pipeline.privacy.withdrawals import Withdrawn, record_withdrawals
from zantara_pipeline.storage.ledger import Ledger

LISTS = {"recommendations.user_recommendations": "personalization"}
SEGMENTS = {"seg_a": "personalization", "seg_b": "analytics"}
PURPOSES = ("analytics", "personalization")
NOTHING = [Withdrawn(purpose, 0, 0, 0, 0) for purpose in PURPOSES]


class Shop:
    def __init__(self, folder: Path) -> None:
        self.ledger, self.published = Ledger(folder / "ledger.db"), folder / "published.duckdb"
        self.con = duckdb.connect(str(folder / "warehouse.duckdb"))
        self.con.execute("SET TimeZone = 'UTC'")

    def says(
        self, user: str, status: str, when: float, purpose: str = "personalization", origin: str = "ledger"
    ) -> None:
        append(self.ledger, [Statement(user, purpose, status, utc_text(day(when)), origin)])

    def run(self, clock: float) -> list[Withdrawn]:
        as_of = day(clock)
        date_new_statements(self.ledger, as_of)
        columns = ("user_id", "purpose", "origin", "effective_from", "status", "unknown_at")
        self.ledger.copy_table("consent", self.con, dict.fromkeys(columns, "VARCHAR"))
        found = record_withdrawals(self.con, self.ledger, as_of, SEGMENTS, LISTS, self.published, PURPOSES)
        with self.ledger.transaction() as db:
            db.execute("INSERT OR REPLACE INTO segment_sizes VALUES ('seg_a', ?, 1, 1)", [utc_text(as_of)])
        return found

    def left(self, segment: str, when: float, reason: str = "consent_withdrawn") -> None:
        with self.ledger.transaction() as db:
            db.execute("INSERT INTO membership (segment, entity_type, entity_id, happened_at, change, exit_reason) "
                       "VALUES (?, 'user', 'u', ?, 'exit', ?)", [segment, utc_text(day(when)), reason])  # fmt: skip

    def publish(self, *users: str) -> None:
        """What the run before left for readers: two ranks and three interactions each."""
        self.published.unlink(missing_ok=True)
        with duckdb.connect(str(self.published)) as con:
            con.execute("CREATE SCHEMA recommendations; CREATE SCHEMA features")
            for table, rows in (("recommendations.user_recommendations", 2), ("features.interactions", 3)):
                con.execute(
                    f"CREATE TABLE {table} AS SELECT unnest(?::VARCHAR[]) AS user_id FROM range({rows})", [list(users)]
                )

    def table(self) -> list[tuple[object, ...]]:
        return self.con.execute(
            "SELECT as_of, purpose, people, memberships, lists, interactions FROM ops.withdrawals"
        ).fetchall()


def day(number: float) -> datetime:
    return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=number)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    for user in ("u1", "u2", "u3"):
        shop.says(user, "granted", -9)
        shop.says(user, "granted", -9, "analytics")
    yield shop
    shop.con.close()


def test_a_run_counts_who_withdrew_since_the_run_before_and_what_of_theirs_ended(shop: Shop) -> None:
    assert shop.run(1) == NOTHING
    shop.publish("u1", "u2", "u3")
    shop.says("u1", "denied", 1.5)
    shop.says("u2", "denied", 1.5, origin="event")
    shop.says("u3", "denied", 1.6)
    shop.says("u3", "granted", 1.7)  # and thought better of it
    shop.left("seg_a", 2)
    shop.left("seg_a", 2)
    shop.left("seg_a", 2, "ttl")
    shop.left("seg_b", 1)
    told = [Withdrawn("analytics", 0, 0, 0, 0), Withdrawn("personalization", 2, 2, 2, 6)]
    assert shop.run(2) == told
    assert shop.table()[2:] == [(day(2), "analytics", 0, 0, 0, 0), (day(2), "personalization", 2, 2, 2, 6)]
    assert str(told[1]) == "personalization: 2 withdrew, 2 memberships, 2 lists and 6 interactions ended"
    shop.publish("u3")
    before = shop.table()
    shop.run(2)
    assert shop.table() == before, "the same run again, with what the first one published"
    assert shop.run(3) == NOTHING


def test_a_withdrawal_that_comes_late_is_told_by_the_run_that_first_obeys_it(shop: Shop) -> None:
    shop.run(1)
    shop.run(2)
    shop.says("u1", "denied", 0.5)
    assert shop.run(3)[1].people == 1


def test_one_that_takes_effect_later_is_told_when_the_clock_has_passed_it(shop: Shop) -> None:
    shop.run(1)
    shop.says("u1", "denied", 2.5)
    assert [shop.run(clock)[1].people for clock in (2, 3, 4)] == [0, 1, 0]


def test_who_never_allowed_anything_has_not_withdrawn(shop: Shop) -> None:
    shop.run(1)
    shop.says("u9", "denied", 1.5)
    assert shop.run(2) == NOTHING


def test_a_run_of_an_earlier_clock_counts_nothing_again(shop: Shop) -> None:
    shop.run(1)
    shop.says("u1", "denied", 1.5)
    shop.run(2)
    before = shop.table()
    assert shop.run(1.7) == [] and shop.table() == before
