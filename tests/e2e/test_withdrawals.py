"""Withdrawals between the runs of a shop: each run says how many, and what is made for a purpose has nobody of them.

Reads the homes of other tests; the oracle is a reading of the ledger's statements in Python.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest
from pipeline_homes import published, reading

pytestmark = pytest.mark.e2e
PURPOSES = ("analytics", "personalization")


def allowed(home: Path, clock: str) -> set[tuple[str, str]]:
    """(user, purpose) that stand as granted at a clock: of each voice the latest word known then, and no denial among them."""
    said: dict[tuple[str, str], dict[str, tuple[str, str]]] = defaultdict(dict)
    with closing(sqlite3.connect(home / "data/state/ledger.db")) as db:
        for user, purpose, status, since, origin, unknown_at in db.execute(
            "SELECT user_id, purpose, status, effective_from, origin, unknown_at FROM consent"
        ):
            voices = said[user, purpose]
            if since <= clock and unknown_at < clock:  # at one instant a denial comes last
                voices[origin] = max(
                    voices.get(origin, ("", "")), (since, "z denied" if status == "denied" else status)
                )
    return {who for who, voices in said.items() if voices and all(word == "granted" for _, word in voices.values())}


def check(home: Path) -> int:
    """Every clock that the home tells of; returns how many people withdrew in all."""
    with reading(published(home)) as con:
        rows = con.execute("SELECT strftime(as_of AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ'), purpose, people, memberships, "
                           "lists, interactions FROM ops.withdrawals ORDER BY ALL").fetchall()  # fmt: skip
        purpose_of = dict(con.execute("SELECT segment, purpose FROM segments.catalog").fetchall())
        people = {table: {user for (user,) in con.execute(f"SELECT DISTINCT user_id FROM {table}").fetchall()}
                  for table in ("recommendations.user_recommendations", "features.interactions")}  # fmt: skip
    clocks = sorted({row[0] for row in rows})
    now = {user for user, purpose in allowed(home, clocks[-1]) if purpose == "personalization"}
    assert all(users and users <= now for users in people.values())
    with closing(sqlite3.connect(home / "data/state/ledger.db")) as db:
        exits = db.execute(
            "SELECT happened_at, segment FROM membership WHERE exit_reason = 'consent_withdrawn'"
        ).fetchall()
    total = 0
    for before, clock in zip([None, *clocks[:-1]], clocks, strict=True):
        gone = allowed(home, before) - allowed(home, clock) if before else set()
        for _, purpose, told, memberships, lists, interactions in (row for row in rows if row[0] == clock):
            mine = {user for user, of in gone if of == purpose}
            assert told == len(mine)
            assert memberships == sum(at == clock and purpose_of[segment] == purpose for at, segment in exits)
            assert lists <= told and (interactions == 0 or told > 0)
            total += told
    return total


def test_each_run_tells_how_many_withdrew_and_nobody_of_them_is_left(three_steps: Path) -> None:
    assert check(three_steps) > 0
    with reading(published(three_steps)) as con:
        [(lists, interactions)] = con.execute("SELECT sum(lists), sum(interactions) FROM ops.withdrawals").fetchall()
    assert lists > 0 and interactions > 0
