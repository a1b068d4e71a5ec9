"""Landed files whose name, columns or lines are not what one expects: a person with a mere number for an id is erased from
each, proved gone, and given their own lines and nobody else's.

A number counts where a field holds ids of people, so each case stands or falls with knowing the fields of a line.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from event_lines import PLAN, Shop, event
from hypothesis import given, settings
from hypothesis import strategies as st

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.orchestration.erasure import hands, kept_of
from zantara_pipeline.privacy import decoding, erasure
from zantara_pipeline.privacy.decoding import hits_in
from zantara_pipeline.privacy.people import Matcher, is_field_of_people
from zantara_pipeline.settings import Settings
from zantara_pipeline.tracking.adapters.contract import CsvRules
from zantara_pipeline.tracking.adapters.snowplow import COLUMNS
from zantara_pipeline.tracking.landed_lines import raw_records

GONE, STAYS = "17", "5"
HEAD = b"event_id,event,timestamp,user_id,properties.quantity\n"


def row(number: int, user: str, quantity: str = "1") -> bytes:
    return f"e-{number},purchase,2026-03-01T10:00:00Z,{user},{quantity}\n".encode()


def line(number: int, user: str, quantity: int = 1) -> bytes:
    return json.dumps(event("purchase", {"quantity": quantity}, user_id=user, event_id=f"e-{number}")).encode() + b"\n"


def enriched(user: str, width: str) -> bytes:
    cells = dict.fromkeys(COLUMNS, "") | {"user_id": user, "dvce_screenwidth": width, "event": "struct"}
    return ("\t".join(cells.values()) + "\n").encode()


def semicolons(raw: bytes) -> bytes:
    return raw.replace(b",", b";")


MAPPED = b"Row,What,When,Customer no,Pieces\n"
MAPPING = {
    "Row": "event_id", "What": "event", "When": "timestamp", "Customer no": "user_id", "Pieces": "properties.quantity"
}  # fmt: skip
QUOTED = row(2, GONE, '"one\n17\nthree"')
TORN = b'{"event_id": "e-4", "user_id": "17", "prop\n'
CASES: dict[str, tuple[str, list[bytes], list[bytes]]] = {
    # name: (file, lines that go, lines that stay), in the order in which they stand: those that stay come first
    "by the header": ("a.csv", [row(2, GONE)], [HEAD, row(1, STAYS, "17")]),
    "columns of the shop": ("a.csv", [row(2, GONE)], [MAPPED, row(1, STAYS, "17")]),
    "another separator": ("a.csv", [semicolons(row(2, GONE))], [semicolons(HEAD), semicolons(row(1, STAYS, "17"))]),
    "a table called jsonl": ("a.jsonl", [row(2, GONE)], [HEAD, row(1, STAYS, "17")]),
    "json called csv": ("a.csv", [line(2, GONE), line(3, GONE)], [line(1, STAYS, 17)]),
    "json called csv, theirs first": ("a.csv", [line(2, GONE)], []),
    "json called tsv": ("a.tsv", [line(2, GONE)], [line(1, STAYS, 17)]),
    "json in a table": ("a.csv", [line(2, GONE), row(3, GONE)], [HEAD, line(1, STAYS, 17), row(4, STAYS)]),
    "a table in json": ("a.jsonl", [row(2, GONE)], [line(1, STAYS, 17)]),
    "no header": ("a.csv", [row(2, GONE), row(3, GONE)], []),
    "a torn row": ("a.csv", [b"e-2,purchase,2026-03-01T10:00:00Z,17\n"], [HEAD, row(1, STAYS, "17")]),
    "a row too wide": ("a.csv", [b"e-2,purchase,2026-03-01T10:00:00Z,x,17,1\n"], [HEAD, row(1, STAYS, "17")]),
    "a torn line": ("a.jsonl", [TORN], [line(1, STAYS, 17)]),
    "a cell of several lines": ("a.csv", [QUOTED], [HEAD, row(1, STAYS, '"one\n17\nthree"')]),
    "a quote never closed": ("a.csv", [row(2, GONE)], [HEAD, row(1, STAYS, '"open'), row(3, STAYS, "17")]),
    "Snowplow": ("a.tsv", [enriched(GONE, "5")], [enriched(STAYS, "17")]),
    "Snowplow called json": ("a.jsonl", [enriched(GONE, "5")], [enriched(STAYS, "17")]),
    "a mark of UTF-8": ("a.csv", [row(2, GONE)], [b"\xef\xbb\xbf" + HEAD, row(1, STAYS, "17")]),
}
UNSURE = {"no header", "a torn row", "a row too wide", "a table in json"}
"""Lines without fields: erased, since they may be theirs; not handed out, since they may not."""


def contracts(folder: Path) -> Path:
    folder.mkdir()
    packaged = (PACKAGED / "adapters.yaml").read_text()
    assert packaged.count("\ncsv:") == 1
    head = packaged.partition("\ncsv:")[0]
    rules = {"events": {}, "delimiter": ",", "columns": MAPPING}
    (folder / "adapters.yaml").write_text(f"{head}\ncsv: {json.dumps(rules)}\n")
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", CASES)
def test_they_are_found_erased_and_proved_gone(tmp_path: Path, name: str, suffix: str) -> None:
    file, theirs, others = CASES[name]
    shop = Shop(tmp_path / "home")
    path = shop.land(file + suffix, b"".join([*others, *theirs]))
    setting = Settings(home=shop.home.root, contracts=contracts(tmp_path / "contracts"))
    work = hands(setting, shop.home, shop.ledger, PLAN)
    looked = erasure.look(shop.home, shop.ledger, work, [GONE])
    assert looked.people.users == {GONE}
    assert looked.found["landing"].hits == len(theirs)

    kept = kept_of(setting, shop.home, shop.ledger, PLAN, GONE)
    assert kept is not None
    given = [entry["line"] for entry in kept["landed_lines"]]
    assert given == ([] if name in UNSURE else [one.decode().rstrip("\r\n") for one in theirs])

    receipt = erasure.erase(shop.home, shop.ledger, work, looked)
    assert (receipt.status, receipt.hits_after) == ("complete", 0)
    left = gzip.decompress(path.read_bytes()) if suffix else path.read_bytes()
    assert left == b"".join(others)


def test_torn_lines_in_the_restricted_store_go_too(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home")
    torn = [b'{"event_id": "e-4", "user_id": 17, "prop', b"e-2,purchase,2026-03-01T10:00:00Z,17", b"17 pieces"]
    shop.land("a.jsonl", b"\n".join([line(1, STAYS, 17).rstrip(), *torn, b""]))
    shop.ingest()
    assert len(shop.unparsable()) == 3
    work = hands(Settings(home=shop.home.root), shop.home, shop.ledger, PLAN)
    receipt = erasure.erase(shop.home, shop.ledger, work, erasure.look(shop.home, shop.ledger, work, [GONE]))
    assert receipt.status == "complete"
    assert [row["line"] for row in shop.unparsable()] == ["17 pieces"]


def test_an_erasure_that_was_killed_still_knows_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path / "home")
    path = shop.land("a.csv", MAPPED + row(1, STAYS, "17") + row(2, GONE))
    work = hands(
        Settings(home=shop.home.root, contracts=contracts(tmp_path / "contracts")), shop.home, shop.ledger, PLAN
    )
    looked = erasure.look(shop.home, shop.ledger, work, [GONE])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "write_tombstones", killed)
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(shop.home, shop.ledger, work, looked)
    done = erasure.finish_open(shop.home, shop.ledger, work)
    assert done is not None and done.status == "complete"
    assert path.read_bytes() == MAPPED + row(1, STAYS, "17")


def test_the_proof_knows_the_columns_of_snowplow() -> None:
    named = {number: name for number, name in enumerate(COLUMNS) if is_field_of_people(name)}
    assert named == decoding._SNOWPLOW and len(COLUMNS) == decoding._SNOWPLOW_COLUMNS


PIECES = st.sampled_from(
    [HEAD, row(1, GONE), row(2, STAYS, "17"), row(3, STAYS, '"a""b"'), row(4, GONE, '"a\nb"'), row(5, STAYS, '"17\nx"'),
     row(6, STAYS, '"never closed'), TORN, line(7, GONE), line(8, STAYS, 17), enriched(GONE, "5"), enriched(STAYS, "17"),
     b"\n", b"17;5\n", b"\xff\xfe,17\n", b'say "17"\n', semicolons(row(9, GONE)), b"e,17"]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=8))
def test_what_is_read_is_all_of_the_file_and_nothing_is_left_for_the_proof(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    """However lines of all kinds are mixed: no byte is lost, and without the records that name them nobody is found."""
    path = tmp_path_factory.mktemp("landed") / "a.csv"
    path.write_bytes(b"".join(pieces))
    matcher = Matcher({GONE})
    gone = True
    while gone:  # as erase_landed: what a line is depends on the first one
        records = list(raw_records(path, CsvRules()))
        assert b"".join(record.raw for record in records) == path.read_bytes()
        gone = [record for record in records if record.may_name(matcher) and record.names(matcher)]
        assert all(record in gone for record in records if record.surely_names(matcher))
        path.write_bytes(b"".join(record.raw for record in records if record not in gone))
    assert hits_in(path, matcher) == 0
