"""Quarantined lines are read and written a bounded part at a time, however long they are and however many."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_lines import PLAN, RULES, Shop, viewed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_direct_identifiers import RING, plan_with, signed, stands_in
from test_large_lines import child
from test_replay import fixes

from zantara_pipeline.cli.app import app
from zantara_pipeline.tracking import replay as replay_module
from zantara_pipeline.tracking import stored_lines
from zantara_pipeline.tracking.key_rotation import rotate_keys
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.quarantine import kinds, payloads
from zantara_pipeline.tracking.quarantine_erasure import erase_quarantined
from zantara_pipeline.tracking.replay import discard, replay
from zantara_pipeline.tracking.stored_lines import parts, read_rows, write_parts

KB, MB = 2**10, 2**20
SIZES = st.lists(st.none() | st.integers(0, 30), max_size=20)


def _with_colours() -> TrackingPlan:
    """The packaged plan, in which a view has a colour too."""
    view = PLAN.events["product_view"]
    colour = view.properties["brand"].model_copy(update={"max_length": None})
    view = view.model_copy(update={"properties": view.properties | {"colour": colour}})
    return TrackingPlan(PLAN.events | {"product_view": view}, PLAN.privacy)


MENDED = replace(RULES, plan=_with_colours())


def coloured(*sizes: int) -> list[dict[str, Any]]:
    """Views that fail for a colour of so many characters each."""
    return [viewed(colour="x" * size) | {"event_id": f"e-{n}", "user_id": f"u-{n}"} for n, size in enumerate(sizes)]


def landed(root: Path, *files: list[dict[str, Any]]) -> Shop:
    shop = Shop(root)
    for number, lines in enumerate(files):
        shop.land(f"{number}.jsonl", lines)
        shop.ingest()
    return shop


def _table(sizes: list[int | None], first: int) -> pa.Table:
    texts = pa.array([None if size is None else "é" * (size // 2) for size in sizes], pa.string())
    return pa.table({"n": pa.array(range(first, first + len(sizes)), pa.int64()), "payload_raw": texts})


@settings(deadline=None)
@given(groups=st.lists(SIZES, max_size=6), lines=st.integers(1, 7), size=st.integers(1, 60))
def test_parts_are_the_rows_in_their_order_within_both_bounds_or_one_line(
    groups: list[list[int | None]], lines: int, size: int
) -> None:
    tables, number = [], 0
    for sizes in groups:
        tables.append(_table(sizes, number))
        number += len(sizes)
    found = list(parts(iter(tables), lines=lines, size=size))
    assert [row for part in found for row in part.to_pylist()] == [row for table in tables for row in table.to_pylist()]
    weights = [[len((text or "").encode()) for text in part["payload_raw"].to_pylist()] for part in found]
    assert all(len(part) == 1 or (1 < len(part) <= lines and sum(part) <= size) for part in weights)
    for part, after in pairwise(weights):
        assert len(part) == lines or sum(part) + after[0] > size, "no part is smaller than it has to be"


@settings(deadline=None)
@given(groups=st.lists(SIZES.filter(bool), min_size=1, max_size=4), data=st.data())
def test_some_rows_of_a_file_are_those_rows(
    groups: list[list[int | None]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    tables = [_table(sizes, 100 * number) for number, sizes in enumerate(groups)]
    write_parts(tables, path)
    whole = [row for table in tables for row in table.to_pylist()]
    wanted = data.draw(st.lists(st.integers(0, len(whole) - 1), unique=True).map(sorted))
    found = [row for table in read_rows(path, np.array(wanted, dtype=np.int64)) for row in table.to_pylist()]
    assert found == [whole[number] for number in wanted]
    with pytest.MonkeyPatch.context() as patch:  # as if no writer of ours had made it
        patch.setattr(stored_lines, "_LARGEST_GROUP", 20)
        assert [row for table in read_rows(path) for row in table.to_pylist()] == whole
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == len(groups)


def test_a_replay_takes_lines_by_their_bytes_and_a_larger_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (40, 40, 40, 300, 40, 40)
    shop, never = landed(tmp_path / "shop", coloured(*(size * KB for size in sizes))), Shop(tmp_path / "never", MENDED)
    never.land("0.jsonl", coloured(*(size * KB for size in sizes)))
    never.ingest()
    monkeypatch.setattr(stored_lines, "PART_BYTES", 100 * KB)
    taken: list[int] = []
    real = replay_module.BatchWorker.take

    def take(self: Any, part: int, lines: pa.Table, **names: Any) -> Any:
        taken.append(lines.num_rows)
        return real(self, part, lines, **names)

    monkeypatch.setattr(replay_module.BatchWorker, "take", take)
    assert replay(shop.home, shop.ledger, MENDED).accepted == len(sizes)
    assert sorted(taken) == [1, 1, 2, 2]
    assert shop.accepted() == never.accepted() and shop.quarantined() == []


@pytest.mark.parametrize("size", [1, 100 * KB, 32 * MB])
def test_what_becomes_of_quarantined_lines_does_not_depend_on_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Large and small lines in two files: some are erased, one kind is discarded, the others fail again or pass."""
    shop = landed(
        tmp_path,
        coloured(5, 90 * KB, 3 * KB, 20 * KB),
        [viewed(flavour="y" * n) | {"user_id": "u-9"} for n in (1, 30 * KB, 40 * KB)],
    )
    before = {(row["source"], row["line_no"]): row["payload_raw"] for row in shop.quarantined()}
    monkeypatch.setattr(stored_lines, "PART_BYTES", size)
    assert erase_quarantined(shop.home, shop.ledger, {"u-1"}) == 1
    [colours] = [kind for kind in kinds(shop.home) if "colour" in kind.reasons]
    assert [len(json.loads(line)["properties"]["colour"]) for line in payloads(shop.home, colours.fingerprint, 2)] == [
        5,
        3 * KB,
    ]
    assert not replay(shop.home, shop.ledger, RULES).written
    strict = MENDED.plan.events["product_view"]
    short = strict.properties["colour"].model_copy(update={"max_length": 10 * KB})
    strict = strict.model_copy(update={"properties": strict.properties | {"colour": short}})
    some = replace(RULES, plan=TrackingPlan(PLAN.events | {"product_view": strict}, PLAN.privacy))
    assert replay(shop.home, shop.ledger, some).accepted == 2
    left = {(row["source"], row["line_no"]): (row["payload_raw"], row["attempts"]) for row in shop.quarantined()}
    assert {key[1]: value for key, value in left.items() if "flavour" not in value[0]} == {
        4: (next(text for text in before.values() if "e-3" in text), 2)
    }
    assert {value[0] for value in left.values()} <= set(before.values()) and len(left) == 4
    [flavours] = [kind for kind in kinds(shop.home) if "flavour" in kind.reasons]
    assert discard(shop.home, shop.ledger, flavours.fingerprint, "test traffic") == 3
    assert [row["line_no"] for row in shop.quarantined()] == [4]


@pytest.mark.parametrize("size", [1, 32 * MB])
def test_identifiers_of_long_lines_are_hashed_whatever_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """They were stored before their property was an identifier."""
    mail = "joe@example.com"
    plain = replace(RULES, plan=plan_with(tmp_path / "plain", email={"pii": "none"}, phone={"pii": "none"}))
    shop = Shop(tmp_path / "home", plain)
    shop.land("a.jsonl", [signed(mail, n, colour="z" * length) for n, length in enumerate((1, 20 * KB, 30 * KB))])
    assert shop.ingest().total.quarantined == 3 and stands_in(shop, mail)
    monkeypatch.setattr(stored_lines, "PART_BYTES", size)
    done = rotate_keys(shop.home, shop.ledger, plan_with(tmp_path / "direct"), RING)
    assert done.quarantine_lines == 3 and not stands_in(shop, mail)
    rows = shop.quarantined()
    assert sorted(len(json.loads(row["payload_raw"])["properties"]["colour"]) for row in rows) == [1, 20 * KB, 30 * KB]
    assert rotate_keys(shop.home, shop.ledger, plan_with(tmp_path / "same"), RING).quarantine_lines == 0


def test_a_line_that_a_fix_makes_short_and_that_fails_again_stays_as_it_came(tmp_path: Path) -> None:
    shop = landed(tmp_path, [viewed(colour="x" * 30 * KB, price="7", wrong=1)])
    [came] = [row["payload_raw"] for row in shop.quarantined()]
    mend = fixes(tmp_path, {"event": "product_view", "drop": ["colour"]})
    assert replay(shop.home, shop.ledger, RULES, fixes=mend).quarantined == 1
    [row] = shop.quarantined()
    assert (row["payload_raw"], row["attempts"]) == (came, 2)
    assert {reason["path"] for reason in row["reasons"]} == {"$.properties.price", "$.properties.wrong"}


def test_show_prints_whole_lines_as_json_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    shop = landed(tmp_path, coloured(5, 20 * KB, 7))
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path))
    [kind] = kinds(shop.home)
    for number in (0, 2, 9):
        command = ["quarantine", "show", kind.fingerprint[:8], "--json", "--payloads", str(number)]
        shown = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).output)
        assert shown["kind"]["rows"] == 3 and len(shown["payloads"]) == min(number, 3)
        assert set(shown["payloads"]) <= {row["payload_raw"] for row in shop.quarantined()}


DRY = """
import sys
from pathlib import Path
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.quarantine_erasure import erase_quarantined
from zantara_pipeline.tracking.replay import diff
from zantara_pipeline.tracking.verdict import Rules
home, rules = Home(Path(sys.argv[1])), Rules(load_plan((PACKAGED,)), 24, 30)
ledger = Ledger(home.state / "ledger.db")
assert sum(change.rows for change in diff(home, ledger, rules)) == 80
assert erase_quarantined(home, ledger, {"nobody"}) == 0
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_judging_again_and_looking_for_a_person_hold_a_part_of_the_quarantine(tmp_path: Path) -> None:
    """80 lines of 1 MB: together they were more than the engine may hold."""
    shop = landed(tmp_path, coloured(MB))
    [path] = shop.home.quarantine.glob("*/*.parquet")
    line = pq.read_table(path, partitioning=None)
    place = line.schema.get_field_index("line_no")
    for first in range(2, 81, 16):
        numbers = range(first, min(first + 16, 81))
        more = [line.set_column(place, "line_no", pa.array([number], pa.int64())) for number in numbers]
        write_parts([pa.concat_tables(more).combine_chunks()], path.with_name(f"more-{first}.parquet"))
    assert child(DRY, str(tmp_path)) < 800
