"""`zantara segments` on a home that a real run made: list, show, members, why, preview."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_homes import Done, reading, zantara

pytestmark = pytest.mark.e2e

DRAFT = """
select user_id as entity_id, min(occurred_at) as entered_at, max(occurred_at) as qualified_at
from {{ allowed_events(['purchase']) }}
where {{ within_days('occurred_at', 30) }}
group by user_id
"""


def ask(home: Path, *arguments: str | Path, code: int = 0) -> Any:
    return json.loads(zantara(home, "segments", *arguments, "--json", code=code).out)


def refused(home: Path, *arguments: str | Path) -> Done:
    return zantara(home, "segments", *arguments, code=2)


def test_list_and_show_say_what_a_segment_says_of_itself(small_home: Path) -> None:
    told = {row["segment"]: row for row in ask(small_home, "list")}
    whole = {row["segment"]: row for row in ask(small_home, "list", "--restricted")}
    assert len(told) == len(whole) >= 8
    assert {row["entity"] for row in told.values()} == {"user", "session", "device", "organisation"}
    hidden = {name for name, row in told.items() if row["size"] is None}
    assert "seg_shared_devices" in hidden and all(whole[name]["size"] is not None for name in hidden)
    for name in hidden - {"seg_shared_devices"}:  # the small ones of a small shop
        assert whole[name]["size"] < whole[name]["min_size"] + 2
    shown = ask(small_home, "show", "seg_recent_buyers")
    assert shown["ttl_days"] == 30 and shown["sql"].startswith("-- People who bought")
    assert {other["segment"] for other in shown["overlap"]} <= set(told) - hidden
    assert "seg_nothing: there is no segment of this name" in refused(small_home, "show", "seg_nothing").only_line


def test_members_of_a_hidden_segment_are_not_told_without_saying_so(small_home: Path) -> None:
    members = ask(small_home, "members", "seg_recent_buyers", "--limit", "5")
    assert len(members) == 5 and list(members[0]) == ["entity_id", "entered_at", "expires_at"]
    assert "restricted store only" in refused(small_home, "members", "seg_shared_devices").only_line
    assert isinstance(ask(small_home, "members", "seg_shared_devices", "--restricted"), list)


def test_why_names_the_events_of_a_member(small_home: Path) -> None:
    """The lake itself is asked whether the purchase that is named is there, in that file and line, and is the last one."""
    with reading(small_home / "data" / "published.duckdb") as con:
        user, expires = con.execute(
            "SELECT entity_id, expires_at FROM segments.seg_recent_buyers ORDER BY entity_id LIMIT 1"
        ).fetchall()[0]
        lake = f"read_parquet('{small_home}/data/lake/accepted/event=purchase/*/*.parquet', union_by_name = true)"
        last = con.execute(
            f"SELECT event_id, source, line_no FROM {lake} WHERE user_id = ? AND occurred_at = ?::TIMESTAMPTZ - INTERVAL 30 DAY",
            [user, expires],
        ).fetchall()
    answer = ask(small_home, "why", user)
    (evidence,) = next(one for one in answer["now"] if one["segment"] == "seg_recent_buyers")["evidence"]
    assert (evidence["event_id"], evidence["source"], evidence["line_no"]) in last and evidence["event"] == "purchase"
    assert f"event {evidence['event_id']}" in zantara(small_home, "segments", "why", user).out
    assert "no user of this id" in refused(small_home, "why", "'; DROP TABLE x").only_line


def test_a_draft_is_tried_without_a_run(small_home: Path, tmp_path: Path) -> None:
    draft = tmp_path / "seg_draft.sql"
    draft.write_text(DRAFT)
    before = sorted(path.relative_to(small_home) for path in small_home.rglob("*"))
    told = ask(small_home, "preview", draft, code=1)
    recent = next(row for row in ask(small_home, "list", "--restricted") if row["segment"] == "seg_recent_buyers")
    same = next(other for other in told["shared"] if other["segment"] == "seg_recent_buyers")
    assert told["size"] == same["shared"] == same["size"] == recent["size"] and same["jaccard"] == 1
    assert len(told["faults"]) == 7 and all("seg_draft: meta key" in fault for fault in told["faults"])
    assert sorted(path.relative_to(small_home) for path in small_home.rglob("*")) == before
