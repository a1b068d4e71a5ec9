"""Why somebody is in a segment: the rows that are named suffice, and none of them can be left out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from core_shop import CoreShop, Lake, Recorded, Row, at
from hypothesis import given
from hypothesis import strategies as st
from test_segment_models import LAST, consent, world

from zantara_pipeline.errors import InputError
from zantara_pipeline.segments.preview import preview
from zantara_pipeline.segments.why import Answer, smallest, why

ENTITIES = {"seg_shared_devices": "device", "seg_active_organisations": "organisation", "seg_cart_sessions": "session"}
# Each time two builds of the whole of core: half a second.
BUILT_AGAIN = {"seg_cart_abandoners", "seg_high_spenders", "seg_rfm_classes", "seg_shared_devices"}
HISTORY = "(segment VARCHAR, entity_type VARCHAR, entity_id VARCHAR, entered_at TIMESTAMPTZ, exited_at TIMESTAMPTZ, exit_reason VARCHAR)"


def built(recorded: Recorded, lake: Lake) -> CoreShop:
    shop = CoreShop(recorded)
    shop.build(lake, as_of=at(LAST))
    names = list(shop.build_segments())
    shop.con.execute("CREATE TABLE segments.catalog (segment VARCHAR, entity VARCHAR)")
    for name in names:
        shop.con.execute("INSERT INTO segments.catalog VALUES (?, ?)", [name, ENTITIES.get(name, "user")])
    shop.con.execute(f"CREATE TABLE segments.membership_history {HISTORY}")
    return shop


def test_the_rows_named_suffice_and_none_is_superfluous(recorded: Recorded) -> None:
    """They alone, landed in an empty shop, make the same member; without any one of them they do not."""
    rng = random.Random(5)
    rows = [event for name in range(12) for event in world(rng, name)]
    lake = Lake(rows, consent(rng, rows))
    shop = built(recorded, lake)
    by_line = {event["line_no"]: event for event in rows}
    met: set[str] = set()
    small = CoreShop(recorded)

    def alone(lines: list[Row], segment: str, entity: str) -> Any:
        small.build(Lake(lines, lake.consent), as_of=at(LAST))
        members = {row[0]: row[2:] for row in small.build_segments()[segment]}
        return members.get(entity)

    for segment, members in [(name, shop.read(f"SELECT * FROM segments.{name}")) for (name,) in shop.read(
        "SELECT segment FROM segments.catalog WHERE segment != 'seg_cart_sessions' ORDER BY 1")]:  # fmt: skip
        if not members:
            continue
        entity, met = members[-1], met | {segment}
        found = {one.segment: one for one in why(shop.con, entity[0], ENTITIES.get(segment, "user")).now}[segment]
        assert (found.entered_at, found.expires_at) == entity[1:3] and found.evidence
        if segment in BUILT_AGAIN:
            evidence = [by_line[event["line_no"]] for event in found.evidence]
            assert alone(evidence, segment, entity[0]) == entity[2:], segment
            left_out = rng.choice(evidence)
            fewer = [event for event in evidence if event is not left_out]
            assert alone(fewer, segment, entity[0]) != entity[2:], segment
    assert met >= BUILT_AGAIN
    assert len(met) >= 9
    (session, *_), *_ = shop.read("SELECT * FROM segments.seg_cart_sessions")
    (one,) = why(shop.con, session, "session").now
    assert "add_to_cart" in {event["event"] for event in one.evidence}


def test_somebody_in_no_segment_is_told_where_they_were(recorded: Recorded) -> None:
    rows = [event | {"user_id": "u"} for event in world(random.Random(1), 0)]
    shop = built(recorded, Lake(rows))  # never said anything: in no segment
    shop.con.execute(
        "INSERT INTO segments.membership_history VALUES ('seg_a', 'user', 'u', ?, ?, 'ttl')", [at(0), at(9)]
    )
    assert why(shop.con, "u") == Answer(
        (), ({"segment": "seg_a", "entered_at": at(0), "exited_at": at(9), "exit_reason": "ttl"},)
    )


@pytest.mark.parametrize("name", ["nobody", "u'; DROP TABLE core.users; --"])
def test_an_id_that_nobody_has_is_refused_and_not_repeated(recorded: Recorded, name: str) -> None:
    shop = built(recorded, Lake(list(world(random.Random(1), 0))))
    with pytest.raises(InputError) as error:
        why(shop.con, name)
    assert str(error.value).startswith("no user of this id") and name not in str(error.value)
    assert shop.read("SELECT count(*) FROM core.users") != [(0,)]


@given(st.lists(st.integers(0, 30), unique=True, max_size=40), st.sets(st.integers(0, 30)), st.integers(0, 4))
def test_the_smallest_list_holds_what_is_needed_and_nothing_else(items: list[int], needed: set[int], many: int) -> None:
    """What is needed: all of some, and so many of the others."""
    needed &= set(items)
    names = [str(item) for item in items]
    needs = {str(item) for item in needed}
    many = min(many, len(items) - len(needed))

    def stays(kept: Any) -> bool:
        return needs <= set(kept) and len(set(kept) - needs) >= many

    kept = smallest(names, stays)
    assert stays(kept) and len(kept) == len(needs) + many


def test_a_draft_is_asked_on_what_the_last_run_left(recorded: Recorded) -> None:
    rows = [event for name in range(6) for event in world(random.Random(3), name)]
    shop = built(recorded, Lake(rows, consent(random.Random(3), rows)))
    same = preview(shop.con, "SELECT * FROM warehouse.segments.seg_rfm_classes", "user")
    (rfm,) = [other for other in same.shared if other.segment == "seg_rfm_classes"]
    assert same.size == rfm.size == rfm.shared > 0 and rfm.jaccard == 1
    nobody = preview(shop.con, "SELECT * FROM warehouse.segments.seg_rfm_classes WHERE false", "organisation")
    assert nobody.size == 0 and [(other.segment, other.shared) for other in nobody.shared] == [
        ("seg_active_organisations", 0)
    ]
    for sql, said in (("SELECT nonsense FROM core.users", "the draft does not run"),
                      ("SELECT * FROM segments.seg_rfm_classes CROSS JOIN range(2)", "one row a member")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            preview(shop.con, sql, "user")
