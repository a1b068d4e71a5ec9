"""Files of other tools in landing: found out by their first lines, adapted, ingested; a wrong guess is refused in one line."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from adapter_files import CONTRACT, FILES, FIXTURES, adapt_bytes, declared, intake
from event_lines import PLAN, RULES, Shop, event, text, viewed

from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import EventFormat
from zantara_pipeline.tracking.adapters import NotEvents, adapt_file, default_out
from zantara_pipeline.tracking.adapters.detect import NAMES
from zantara_pipeline.tracking.ingest import IngestResult, ingest
from zantara_pipeline.tracking.validate import validate_file

# per fixture: rows in, accepted, quarantined, suppressed, unparsable, counted by hand from what its lines say of consent
COUNTS = {
    "segment.jsonl": (4, 2, 1, 1, 0),
    "snowplow.tsv": (3, 1, 0, 2, 0),
    "snowplow.jsonl": (2, 2, 0, 0, 0),
    "ga4.jsonl": (3, 2, 0, 1, 0),
    "events.csv": (5, 2, 1, 1, 1),
}


def take(shop: Shop, given: EventFormat = "auto") -> IngestResult:
    return ingest(shop.home, shop.ledger, shop.landing, RULES, threads=1, intake=intake(given))


def land(shop: Shop, *names: str) -> None:
    for name in names:
        shutil.copy(FIXTURES / name, shop.landing / name)


def test_the_setting_and_the_formats_are_the_same_list() -> None:
    assert set(get_args(EventFormat)) == {"auto", *NAMES}
    assert set(NAMES) == {"envelope", *FILES.values()}


# ---- end to end ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("given", ["auto", "itself"])
def test_a_fixture_of_each_format_becomes_rows(tmp_path: Path, name: str, given: str) -> None:
    shop = Shop(tmp_path)
    land(shop, name)
    result = take(shop, FILES[name] if given == "itself" else "auto")  # type: ignore[arg-type]
    total = result.total
    found = (total.rows_in, total.accepted, total.quarantined, total.suppressed, total.unparsable)
    assert found == COUNTS[name]
    assert result.refused == {}
    (notice,) = result.notices
    assert notice.startswith(f"{name}: {COUNTS[name][0]} records from {FILES[name]}") and "without a place: " in notice
    assert "joe" not in notice


def columns(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def test_the_columns_of_a_row_are_right_whatever_it_came_from(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    land(shop, *FILES)
    take(shop)
    rows = {row["event_id"]: row for row in shop.accepted() if row["source"].partition("#")[0] != "snowplow.jsonl"}
    segment, snowplow, csv = rows["seg-1"], rows["sp-1"], rows["csv-1"]
    (ga4,) = [row for row in rows.values() if row["user_id"] == "u-1" and row["event_id"].startswith("ga4-")]
    for row in (segment, snowplow, csv, ga4):
        assert columns(row, "event", "user_id", "product_id", "price", "currency", "consent_analytics") == {
            "event": "product_view", "user_id": "u-1", "product_id": "p-1", "price": Decimal("19.9"), "currency": "EUR",
            "consent_analytics": True,
        }  # fmt: skip
    assert [row["country"] for row in (segment, snowplow, csv, ga4)] == ["DE", "DE", "DE", "Germany"]
    assert [row["platform"] for row in (segment, snowplow, csv, ga4)] == ["web", "web", None, "web"]
    assert snowplow["occurred_at"] == datetime(2026, 3, 1, 9, 59, 14, 500_000, tzinfo=UTC)
    assert snowplow["received_at"] == datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
    assert ga4["occurred_at"] == ga4["received_at"] == datetime(2026, 3, 1, 9, 30, 0, 123_456, tzinfo=UTC)
    assert ga4["received_at_missing"] and not segment["received_at_missing"]
    anonymous = [row for row in rows.values() if row["event_id"].startswith("ga4-") and row["user_id"] is None]
    assert [columns(row, "anonymous_id", "session_id") for row in anonymous] == [
        {"anonymous_id": None, "session_id": None}
    ]


def test_reasons_name_the_lines_of_the_landed_file(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    land(shop, "events.csv")
    take(shop)
    # line 1 is the header, the second row takes lines 3 and 4 and is known by its last
    assert shop.stages("events.csv") == {2: "accepted", 4: "accepted", 5: "quarantined", 7: "unparsable"}
    assert shop.reasons() == {5: {("wrong_type", "$.properties.price")}}


def test_what_is_quarantined_is_the_adapted_line(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    land(shop, "segment.jsonl")
    take(shop)
    (row,) = shop.quarantined()
    assert json.loads(row["payload_raw"])["event_id"] == "seg-3" and "shop.example" not in row["payload_raw"]


def test_a_compressed_file_is_adapted_once_and_its_fields_are_counted_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("a/day.tsv.gz", (FIXTURES / "snowplow.tsv").read_bytes())
    result = take(shop)
    assert result.files["a/day.tsv.gz"].rows_in == 3
    assert "app_id 2" in result.notices[0]
    again = take(shop)
    assert (again.files, again.known, again.notices) == ({}, 1, [])


def test_many_files_of_one_format_are_one_notice(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    for number in range(3):
        shop.land(f"{number}.csv", (FIXTURES / "events.csv").read_bytes() + b"\n" * number)
    assert take(shop).notices == [
        "0.csv and 2 more: 15 records from csv, 3 of them unreadable; without a place: e_mail 9, note 3"
    ]


def test_a_file_of_another_tool_that_nobody_recognised_is_told(tmp_path: Path) -> None:
    """Its lines grant nothing, so they are suppressed: that must not happen without a word."""
    shop = Shop(tmp_path)
    shop.land(
        "export.jsonl", [{"type": "track", "event": "Product Viewed", "message_id": "m", "anonymous_id": "a"}] * 20
    )
    result = take(shop)
    assert result.total.suppressed == 20
    assert result.notices == [
        "export.jsonl: all of its 20 lines are suppressed, none grants what its event needs; if another tool wrote them, name "
        "their format"
    ]
    verdict = validate_file(shop.landing / "export.jsonl", RULES, threads=1, intake=intake())
    assert [f"export.jsonl: {notice}" for notice in verdict.notices] == result.notices


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"event: product_view\nprice: 3\n", "none of its 2 lines is a JSON object; is it an event file?"),
        (b'{"event":"product_view"}\n', "all of its 1 lines are suppressed, none grants what its event needs; "),
        (b"\n", None),
    ],
)
def test_validate_says_what_holds_of_the_whole_file(tmp_path: Path, content: bytes, said: str | None) -> None:
    found = validate_file(made(tmp_path, "a.jsonl", content), RULES, threads=1, intake=intake()).notices
    assert len(found) == (said is not None) and (said is None or found[0].startswith(said))


def test_adapting_beforehand_gives_the_same_rows(tmp_path: Path) -> None:
    direct, before = Shop(tmp_path / "direct"), Shop(tmp_path / "before")
    land(direct, "ga4.jsonl")
    adapt_file(FIXTURES / "ga4.jsonl", before.landing / "ga4.jsonl", intake())
    first, second = take(direct), take(before)
    assert first.total == second.total
    strip = [{k: v for k, v in row.items() if k != "source"} for row in direct.accepted()]
    assert strip == [{k: v for k, v in row.items() if k != "source"} for row in before.accepted()]


@pytest.mark.parametrize("format", sorted(set(FILES.values())))
def test_the_lines_that_ingest_counts_are_the_records_of_the_adapter(tmp_path: Path, format: str) -> None:
    name = next(name for name, found in FILES.items() if found == format)
    garbage = (
        b'\n  \nnot json\n[1]\n\xff\xfe\n\xc2\xa0\n{"a":NaN}\n{"a":\n"open\n{}\n{"event":{"x":1}}\n'
        + b'{"a":' * 3000
        + b"\n"
    )
    content = (FIXTURES / name).read_bytes() + garbage + (FIXTURES / name).read_bytes().replace(b"\n", b" ")
    _, report = adapt_bytes(format, content)
    shop = Shop(tmp_path)
    shop.land(name, content)
    total = take(shop).total
    assert total.rows_in == report.records
    assert total.rows_in == total.accepted + total.quarantined + total.suppressed + total.unparsable
    # an object of JSON that stands between the rows of a CSV came as a line of the envelope, and is judged as one
    objects = 2 if format == "csv" else 0
    assert total.unparsable == report.unreadable - objects


# ---- which format -------------------------------------------------------------------------------------------------
WRONG = [
    (name, given) for name in FILES for given in (*sorted(set(FILES.values())), "envelope") if given != FILES[name]
]


@pytest.mark.parametrize(("name", "given"), WRONG)
def test_a_wrong_format_is_refused_in_one_line_and_nothing_is_taken(
    tmp_path: Path, name: str, given: EventFormat
) -> None:
    shop = Shop(tmp_path)
    land(shop, name)
    shop.land("right.jsonl", [event()])
    result = take(shop, given)
    said = result.refused[name]
    assert said.startswith(
        f"{shop.landing / name}: its first lines look like {NAMES[FILES[name]]}, not like {NAMES[given]}"
    )
    assert said.endswith(f"give --format {FILES[name]}, or auto") and "\n" not in said
    assert name not in result.files
    assert ("right.jsonl" in result.files) == (given == "envelope")
    assert take(shop).files[name].rows_in == COUNTS[name][0]  # told rightly, it is taken


def test_lines_of_two_formats_are_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("mixed.jsonl", (FIXTURES / "segment.jsonl").read_bytes() + text([event()]))
    said = take(shop).refused["mixed.jsonl"]
    assert said.endswith(
        "its first lines look like the envelope and like Segment or RudderStack JSON; split it into files of one format"
    )


SHAPES = {
    "batch": b'{"batch":[{"type":"track","messageId":"m","event":"Order Refunded"}],"sentAt":"2026-03-01T10:00:00Z"}\n',
    "warehouse": b'{"id":"m","event":"order_refunded","original_timestamp":"2026-03-01T10:00:00Z","context_ip":"10.0.0.1",'
    b'"timestamp":"2026-03-01T10:00:00Z","user_id":"u"}\n',
}


@pytest.mark.parametrize(
    ("shape", "todo"),
    [("batch", "write one message a line (jq -c '.batch[]')"), ("warehouse", "name the columns in adapters.yaml")],
)
def test_what_segment_writes_elsewhere_is_named(tmp_path: Path, shape: str, todo: str) -> None:
    shop = Shop(tmp_path)
    shop.land("other.json", SHAPES[shape])
    result = take(shop)
    assert result.refused["other.json"].endswith(todo) and not result.files


@pytest.mark.parametrize("name", sorted(name for name, format in FILES.items() if format != "csv"))
def test_lines_of_another_tool_far_into_a_file_are_named(tmp_path: Path, name: str) -> None:
    shop, own, other = (
        Shop(tmp_path),
        [viewed() | {"event_id": f"e{n}"} for n in range(30)],
        (FIXTURES / name).read_bytes(),
    )
    shop.land("mixed.jsonl", text(own) + other)
    shop.land("own.jsonl", text([*own, {"event": "x"}, 5]))
    result = take(shop)
    assert result.files["mixed.jsonl"].accepted == 30
    said = f"mixed.jsonl: some of its lines look like {NAMES[FILES[name]]}, line 31 among them, and are not adapted; "
    assert [notice for notice in result.notices if "look like" in notice] == [
        said + "split it into files of one format"
    ]
    verdict = validate_file(shop.landing / "mixed.jsonl", RULES, threads=1, intake=intake())
    assert [f"mixed.jsonl: {notice}" for notice in verdict.notices] == [said + "split it into files of one format"]


def test_lines_of_ours_far_into_a_file_of_another_tool_are_counted(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("mixed.jsonl", (FIXTURES / "segment.jsonl").read_bytes() * 21 + text([event(), event()]))
    [notice] = [notice for notice in take(shop).notices if notice.startswith("mixed.jsonl")]
    assert "86 records from segment, 2 of them not like its records by their keys, line 85 the first (" in notice
    verdict = validate_file(shop.landing / "mixed.jsonl", RULES, threads=1, intake=intake())
    assert verdict.notices == [
        "adapted from segment: 86 records, 2 of them not like its records by their keys, line 85 the first; "
        "split it into files of one format"
    ]


BROKEN = b'{"event":"product_view","event_id":"e","properties":{\n["a"]\n,"price":3,"currency":"EUR"}\n{"event":"x"}\n\xff,a\n'


@pytest.mark.parametrize(
    ("other", "line", "what"),
    [
        ((FIXTURES / "ga4.jsonl").read_bytes(), 131, NAMES["ga4"]),
        ((FIXTURES / "snowplow.tsv").read_bytes(), 131, NAMES["snowplow"]),
        (SHAPES["batch"], 131, "requests to the batch API of Segment or RudderStack"),
        (SHAPES["warehouse"], 131, "rows of the warehouse tables of Segment or RudderStack"),
        (b"event_id,event,timestamp\ne1,product_view,2026-03-01T10:00:00Z\n", 131, "rows of a CSV"),
        (b"e0;product_view;\"a;\n" + b'e1;"product_view";2026-03-01T10:00:00Z\n' * 2, 132, "rows of a CSV"),
    ],
)  # fmt: skip
def test_broken_lines_do_not_hide_those_of_another_tool(tmp_path: Path, other: bytes, line: int, what: str) -> None:
    shop = Shop(tmp_path)
    shop.land("mixed.jsonl", text([viewed() | {"event_id": f"e{n}"} for n in range(30)]) + BROKEN * 20 + other)
    said = f"some of its lines look like {what}, line {line} among them, and are not adapted; split it into files of one format"
    assert [notice for notice in take(shop).notices if "look like" in notice] == [f"mixed.jsonl: {said}"]
    assert validate_file(shop.landing / "mixed.jsonl", RULES, threads=1, intake=intake()).notices == [said]


@pytest.mark.parametrize("name", ["segment.jsonl", "ga4.jsonl", "snowplow.tsv"])
def test_rows_of_a_csv_in_a_file_of_another_tool_are_named(tmp_path: Path, name: str) -> None:
    shop = Shop(tmp_path)
    lines = (FIXTURES / name).read_bytes().splitlines(keepends=True)
    rows = b"event_id,event,timestamp\ne1,product_view,2026-03-01T10:00:00Z\n"
    shop.land("mixed.jsonl", b"".join(lines * 20) + rows)
    said = f"some of its lines look like rows of a CSV, line {20 * len(lines) + 1} among them, and are not adapted; "
    assert [notice for notice in take(shop).notices if "look like" in notice] == [
        f"mixed.jsonl: {said}split it into files of one format"
    ]


def test_broken_lines_alone_are_lines_of_no_other_tool(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    garbage = (
        b'one, two, three\n{"userId":\n"text, with, commas"\n"a":1,"b":2,"c":3\n"a":1,"b":2,"c":3\na\0,b,c\na\0,b,c\n'
    )
    shop.land("dirty.jsonl", text([viewed()] * 30) + BROKEN * 20 + garbage)
    assert take(shop).notices == []


TWO = [viewed() | {"event_id": f"e{n}"} for n in (1, 2)]
LAYOUTS: dict[str, tuple[bytes, str]] = {
    "an array in a line": (json.dumps(TWO).encode(), "it is one JSON array; write one event a line (jq -c '.[]')"),
    "a long array in a line": (json.dumps(TWO * 3000).encode(), "it is one JSON array; write one event a line (jq -c '.[]')"),
    "an array, an event a line": (b"[\n" + text(TWO[:1]).replace(b"\n", b",\n") + text(TWO[1:]) + b"]\n", "it is one JSON array; "),
    "an array, its bracket before": (b"[" + text(TWO).replace(b"}\n{", b"},\n{").strip() + b"]", "it is one JSON array; "),
    "an indented array": (json.dumps(TWO, indent=2).encode(), "it is one JSON array; "),
    "an array after a mark": (b"\xef\xbb\xbf\r\n" + json.dumps(TWO, indent=2).encode(), "it is one JSON array; "),
    "indented objects": (b"\n".join(json.dumps(one, indent=4).encode() for one in TWO), "its JSON objects take several lines each; write one event a line (jq -c .)"),
    "an object around them": (json.dumps({"sent": "now", "events": TWO}).encode(), "it is one JSON object that holds a list of events; write one event a line (jq -c '.<its key>[]')"),
    "UTF-16": (text(TWO).decode().encode("utf-16"), "it is UTF-16; write it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    "UTF-16, big end first": (b"\xfe\xff" + text(TWO).decode().encode("utf-16-be"), "it is UTF-16; "),
    "UTF-16 without a mark": (text(TWO).decode().encode("utf-16-le"), "it is UTF-16LE; write it as UTF-8 (iconv -f UTF-16LE -t UTF-8)"),
    "UTF-16, big end first, without a mark": (text(TWO).decode().encode("utf-16-be"), "it is UTF-16BE; "),
    "UTF-32": (text(TWO).decode().encode("utf-32"), "it is UTF-32; "),
    "UTF-32 without a mark": (text(TWO).decode().encode("utf-32-be"), "it is UTF-32BE; "),
    "a table in UTF-16": ((FIXTURES / "events.csv").read_text().encode("utf-16-le"), "it is UTF-16LE; "),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True], ids=["", "gz"])
def test_a_file_without_an_event_a_line_is_refused_with_what_to_do(tmp_path: Path, name: str, packed: bool) -> None:
    content, said = LAYOUTS[name]
    shop = Shop(tmp_path)
    path = shop.landing / f"other.json{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    result = take(shop)
    assert result.refused[path.name].startswith(f"{path}: {said}") and not result.files
    for judge in (validate_file, adapt_file):
        with pytest.raises(InputError, match="; write "):
            judge(path, tmp_path / "o", intake()) if judge is adapt_file else judge(
                path, RULES, threads=1, intake=intake()
            )


@pytest.mark.parametrize(
    "dirt",
    [
        json.dumps(TWO).encode(), b"[", b"[{", b"{", b'{\n"a":1', b'[{"event":"x"},', b"\xff\xfe", b"\0\0\0\0", b"{\0\"\0", b"\0{",
        b"[[[{", json.dumps({"events": TWO}).encode(), b'[\n{"event":"x"}\n]', b'{\n"event": "x"\n}',
    ],
)  # fmt: skip
def test_dirt_in_the_first_line_costs_the_lines_after_it_nothing(tmp_path: Path, dirt: bytes) -> None:
    shop = Shop(tmp_path)
    shop.land("dirty.jsonl", dirt + b"\n" + text(TWO))
    result = take(shop)
    assert result.refused == {} and result.total.accepted == 2


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"garbage\nmore\n", b"[1]\n", b'{"a":1}\n', b"\xff\xfe\n", b"a,b\n1,2\n"]
)
def test_a_file_that_looks_like_nothing_is_judged_as_before(tmp_path: Path, content: bytes) -> None:
    one, other = Shop(tmp_path / "one"), Shop(tmp_path / "other")
    for shop in (one, other):
        shop.land("a.jsonl", content)
    assert take(one).total == other.ingest().total


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "segment",
            "none of its first lines is one of Segment or RudderStack JSON; check the file, or give another --format",
        ),
        (
            "csv",
            "its header is none of events: no column for event_id, event, timestamp; name the columns in adapters.yaml",
        ),
    ],
)
def test_a_format_that_no_line_has_is_refused(tmp_path: Path, given: EventFormat, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(InputError) as error:
        intake(given).look(path)
    assert str(error.value).startswith(f"{path}: {said}")


def test_a_table_that_is_neither_says_which_columns_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"event_id,event,when\n1,2,3\n")
    with pytest.raises(
        InputError, match=r"neither Snowplow's 131 columns nor a header of events: no column for timestamp; name"
    ):
        intake().look(path)
    mapped = declared("csv", columns={"when": "timestamp"})
    assert intake(contract=mapped).look(path) is not None


def test_two_columns_for_one_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"event_id,event,timestamp,user_id,user_id\n")
    with pytest.raises(InputError, match="two columns for user_id"):
        intake().look(path)


@pytest.mark.parametrize("header", ["product_id,title,price", "user_id,purpose,status,effective_from"])
def test_a_catalogue_or_a_ledger_beside_the_events_is_left_where_it_is(tmp_path: Path, header: str) -> None:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [event()])
    path = shop.land("other.csv", f"{header}\n1,2,3,4\n".encode())
    result = take(shop)
    assert (list(result.files), result.refused) == (["a.jsonl"], {})
    (notice,) = result.notices
    assert notice.startswith(f"{path}: a catalogue or a consent ledger")
    with pytest.raises(NotEvents):
        intake().look(path)


def test_a_damaged_gzip_file_is_refused_as_such_whatever_the_format(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    path = shop.landing / "a.jsonl.gz"
    path.write_bytes(gzip.compress((FIXTURES / "segment.jsonl").read_bytes())[:-9])
    assert "truncated or damaged" in take(shop).refused["a.jsonl.gz"]
    for refuse in (
        lambda: validate_file(path, RULES, threads=1, intake=intake()),
        lambda: adapt_file(path, tmp_path / "o", intake()),
    ):
        with pytest.raises(InputError):
            refuse()
    assert not (tmp_path / "o").exists()


# ---- one file -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FILES)
def test_validate_judges_a_file_as_ingest_would(name: str) -> None:
    verdict = validate_file(FIXTURES / name, RULES, threads=1, intake=intake()).as_dict()
    told = ("rows_in", "accepted", "quarantined", "suppressed", "unparsable")
    assert tuple(verdict[key] for key in told) == COUNTS[name]
    assert verdict["format"] == FILES[name]
    assert verdict["unmapped"] == adapt_bytes(FILES[name], (FIXTURES / name).read_bytes())[1].unmapped


def test_the_output_is_replaced_whole_and_the_same_every_time(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.gz"
    out.write_bytes(b"old")
    adapt_file(FIXTURES / "segment.jsonl", out, intake())
    first = out.read_bytes()
    lines, _ = adapt_bytes("segment", (FIXTURES / "segment.jsonl").read_bytes())
    assert gzip.decompress(first) == b"".join(lines)
    adapt_file(FIXTURES / "segment.jsonl", out, intake())
    assert out.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.gz"]


def made(root: Path, name: str, content: bytes) -> Path:
    (root / name).write_bytes(content)
    return root / name


def test_an_empty_file_is_not_adapted_whatever_format_is_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no event in it"):
        adapt_file(made(tmp_path, "a.json", b"\n"), tmp_path / "o", intake("segment"))
    assert not (tmp_path / "o").exists()


Prepare = Callable[[Path], tuple[Path, Path]]


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda root: (root / "none.jsonl", root / "o"), "no such file"),
        (lambda root: (root / "events.csv", root / "events.csv"), "the output would replace the input"),
        (lambda root: (root / "events.csv", root / "no" / "o"), "no such folder"),
        (lambda root: (root / "ours.jsonl", root / "o"), "nothing to adapt: these are lines of the envelope already"),
        (lambda root: (root, root / "o"), "it is a folder; name one file of events"),
        (lambda root: (root / "events.csv", root), "the output is a folder"),
        (lambda root: (made(root, "a.json", b""), root / "o"), "it is empty, or damaged from its start"),
        (lambda root: (made(root, "a.json.gz", b"no gzip"), root / "o"), "it is empty, or damaged from its start"),
        (lambda root: (made(root, "a.json", b"{}\n"), root / "o"), "no format of events is known by its first lines"),
        (lambda root: (made(root, "a.json", b'[{"type":"track"}]'), root / "o"), "it is one JSON array; write one event a line"),
        (lambda root: (made(root, "a.csv", b"event_id,event,timestamp\n"), root / "o"), "there is no event in it"),
        (lambda root: (made(root, "a.csv", b"event_id;event;timestamp\n1;a;b\n"), root / "o"), "set csv.delimiter"),
        (lambda root: (made(root, "a.csv", "event_id,event\n".encode("utf-16")), root / "o"), "write it as UTF-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_adapted_leaves_no_output(tmp_path: Path, prepare: Prepare, said: str) -> None:
    shutil.copy(FIXTURES / "events.csv", tmp_path)
    (tmp_path / "ours.jsonl").write_bytes(text([event()]))
    path, out = prepare(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=said):
        adapt_file(path, out, intake())
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "out"), [("a.json.gz", "a.envelope.jsonl"), ("day.tsv", "day.envelope.jsonl"), ("x", "x.envelope.jsonl")]
)
def test_the_output_is_named_after_the_input(name: str, out: str) -> None:
    assert default_out(Path("somewhere") / name) == Path(out)


def test_the_packaged_contract_is_what_the_tests_use() -> None:
    assert set(CONTRACT.model_dump()) == set(FILES.values())
    assert {purpose for meant in CONTRACT.ga4.consent.values() for purpose in meant} <= set(PLAN.purposes)
