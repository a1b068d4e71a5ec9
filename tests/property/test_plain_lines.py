"""The compiled pass over plain lines says what the engine's JSON functions say, and takes no line that is not JSON.

Every line is judged twice: as always, and with the compiled pass taking none. The two tables must be equal.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from event_lines import PLAN, RULES, event, text
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zantara_pipeline.tracking import scan
from zantara_pipeline.tracking.line_values import values_of
from zantara_pipeline.tracking.plain_lines import PlainLines, Read, value_column
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS
from zantara_pipeline.tracking.reader import BATCH_SCHEMA, LandedFile, line_tables
from zantara_pipeline.tracking.verdict import Judge

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


class _NoPlainLines(PlainLines):
    """Leaves every line to the engine."""

    def read(self, lines: pa.Table) -> Read:
        return Read(self.schema.empty_table(), lines)


def lines_of(folder: Path, content: bytes) -> pa.Table:
    path = folder / "a.jsonl"
    path.write_bytes(content)
    tables = list(line_tables([LandedFile(path, "a.jsonl", "", 0)], 2**26))
    return pa.concat_tables(tables) if tables else BATCH_SCHEMA.empty_table()


@pytest.fixture(scope="module")
def judges() -> tuple[Judge, Judge]:
    def make() -> Judge:
        con = duckdb.connect()
        con.execute("SET TimeZone = 'UTC'")
        return Judge(con, RULES)

    fast, slow = make(), make()
    slow._plain = _NoPlainLines(PLAN)
    return fast, slow


VALUES = ", ".join(
    f'v."{name}"'
    for name in PlainLines(PLAN).schema.names
    if name.startswith("p_") or name in (*ENVELOPE_STRINGS, *CONTEXT_KEYS)
)


def verdicts(judge: Judge, lines: pa.Table) -> list[dict[str, Any]]:
    """What is known of each line: everything that a reader of an event's rows sees, and whether its shape is bad."""
    judge.load(lines)
    judge.judge()
    rows = judge.con.sql(
        f"SELECT p.* EXCLUDE (shape_key, lax, plain_no) REPLACE (coalesce(p.long_ids, []) AS long_ids), {VALUES}, "
        "coalesce(p.shape_key IN (SELECT shape_key FROM bad_shapes), false) AS bad "
        f"FROM parsed p JOIN {values_of()} v USING (row_id) ORDER BY row_id"
    ).to_arrow_table()
    return [_seen(row) for row in rows.to_pylist()]


def _seen(row: dict[str, Any]) -> dict[str, Any]:
    plan = PLAN.events.get(row["event"] or "")
    own = {value_column(name, prop.type) for name, prop in plan.properties.items()} if plan else set()
    # values of a line with a bad shape are explained from its text, and its properties are never stored
    seen = {name: value for name, value in row.items() if not name.startswith("p_") or (name in own and not row["bad"])}
    # a NaN of one table is no equal of the other's
    return {name: "NaN" if isinstance(value, float) and math.isnan(value) else value for name, value in seen.items()}


numbers = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(-(10**15), 10**15, places=None, allow_nan=False, allow_infinity=False).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,16})(\.[0-9]{1,8})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", "01", "1.", ".5", "+1", "1e", "0x10", "NaN", "99999999999999.9999", "0.00005"]),
)
moments = st.one_of(
    st.datetimes(datetime(2025, 12, 1), datetime(2026, 4, 1)).map(lambda t: t.isoformat(timespec="milliseconds") + "Z"),  # noqa: DTZ001
    st.from_regex(r"(0000|0001|2024|2025|2026|9999)-[0-3][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,9})?(Z|z|[+-][0-2][0-9]:?[0-6][0-9])", fullmatch=True),
    st.sampled_from(["2026-02-29T00:00:00Z", "2024-02-29T23:59:59.999999Z", "2026-03-01 10:00:00Z", "2026-03-01T24:00:00Z", "infinity", "", "2026-03-01T10:00:60Z"]),
)  # fmt: skip
texts = st.text(max_size=6) | st.sampled_from(["p-1", "EUR", "eur", "web", ""])
leaves = st.one_of(
    numbers, st.sampled_from(["true", "false", "null", "[]", "{}", '{"a":[1,{"b":null}]}', "[1,", "nul", '"']),
    texts.map(json.dumps), texts.map(lambda t: json.dumps(t, ensure_ascii=False)), moments.map(json.dumps),
)  # fmt: skip
blanks = st.sampled_from(["", "", "", " ", "\t", "\r", "\x0b"])


@st.composite
def members(draw: st.DrawFn, pairs: dict[str, str], names: list[str]) -> str:
    """An object as text: its members in any order, some left out, changed, twice or under other names, with blanks."""
    kept = [(name, value) for name, value in pairs.items() if draw(st.integers(0, 30))]
    kept = draw(st.permutations(kept)) if draw(st.integers(0, 9)) == 0 else kept
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        kept.insert(draw(st.integers(0, len(kept))), (draw(st.sampled_from(names) | texts), draw(leaves)))
    b = [draw(blanks) for _ in range(4)] if draw(st.integers(0, 4)) == 0 else [""] * 4
    inner = f"{b[0]},{b[1]}".join(f"{json.dumps(name, ensure_ascii=False)}{b[2]}:{b[3]}{value}" for name, value in kept)
    return "{" + b[0] + inner + b[1] + draw(st.sampled_from(["}"] * 30 + ["", ",}", "}}"]))


@st.composite
def line_texts(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(PLAN.events)))
    plan = PLAN.events[name]
    good = {"string": '"p-1"', "number": "1.5", "integer": "2", "money": "19.9", "boolean": "true"}
    values = {n: draw(leaves) if draw(st.integers(0, 6)) == 0 else good[p.type] for n, p in plan.properties.items()}
    properties = draw(members(values, sorted(plan.properties)))
    context = draw(
        members({"platform": '"web"', "country": '"DE"', "screen": '[1,{"a":"b"}]'}, ["app_version", "page"])
    )
    consent = draw(members({"analytics": "true", "personalization": "false"}, ["marketing", "analytics"]))
    envelope = {
        "event_id": '"e-1"', "event": json.dumps(name),
        "timestamp": json.dumps(draw(moments)) if draw(st.booleans()) else '"2026-03-01T10:00:00.5Z"',
        "received_at": json.dumps(draw(moments)) if draw(st.integers(0, 3)) == 0 else '"2026-03-01T10:00:05+00:00"',
        "user_id": draw(st.sampled_from(['"u-1"', "null", '"ü"', '"a\\u0041"'])), "properties": properties,
        "context": draw(st.sampled_from([context, "null", '"x"'])), "consent": draw(st.sampled_from([consent] * 5 + ["null", "true"])),
    }  # fmt: skip
    return draw(members(envelope, ["sent_at", "session_id", "device_id", "event", "consent", "extra"]))


@settings(max_examples=300, **SLOW)
@given(found=st.lists(line_texts(), min_size=1, max_size=40))
@example(
    found=[
        '{"event":"page_timing","event_id":"e","timestamp":"2026-03-01T10:00:00+14:59","properties":{"page":"/","load_ms":1}}'
    ]
)
@example(found=['{"event":"page_timing","event_id":"e","timestamp":"2026-03-01T10:00:00-14:30","properties":{}}'] * 2)
@example(found=['{"event":"rating","properties":{"scale_min":1.5,"scale_max":"NAN"}}'])
def test_the_compiled_pass_and_the_engine_agree(
    judges: tuple[Judge, Judge], tmp_path_factory: pytest.TempPathFactory, found: list[str]
) -> None:
    fast, slow = judges
    content = "\n".join(line.replace("\n", "") for line in found).encode("utf-8", "replace")
    lines = lines_of(tmp_path_factory.getbasetemp(), content)
    assert verdicts(fast, lines) == verdicts(slow, lines)


def test_most_lines_of_a_collector_are_plain(tmp_path: Path) -> None:
    lines = lines_of(
        tmp_path,
        text([event(event_id=f"e-{n}", context={"platform": "web", "page": {"a": [n, {}]}}) for n in range(50)]),
    )
    read = PlainLines(PLAN).read(lines)
    assert (read.plain.num_rows, read.others.num_rows) == (50, 0)


def taken(line: str, tmp_path: Path) -> bool:
    return PlainLines(PLAN).read(lines_of(tmp_path, line.encode("utf-8", "surrogatepass") + b"\n")).plain.num_rows == 1


WHOLE = '{"event_id":"e","event":"product_view","timestamp":"2026-03-01T10:00:00Z","properties":{"product_id":"p"},"context":%s}'


@settings(max_examples=500, **SLOW)
@given(inner=st.text(alphabet='{}[],:"0123456789.eE-+truefalsn \t\\a', max_size=24))
@example(inner="[[],{}]").via("empty containers inside one another")
@example(inner='{"a":[}')
@example(inner="[1 2]")
@example(inner='{"a":1,}')
def test_nothing_is_plain_that_is_not_json(tmp_path_factory: pytest.TempPathFactory, inner: str) -> None:
    line = WHOLE % ('{"x":' + inner + "}")
    if taken(line, tmp_path_factory.getbasetemp()):
        json.loads(line, parse_constant=lambda _: pytest.fail("not strict"))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aü0", max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, **SLOW)
@given(value=json_values, spaced=st.booleans())
def test_any_json_without_escapes_is_plain_where_nothing_is_kept(
    tmp_path_factory: pytest.TempPathFactory, value: Any, spaced: bool
) -> None:
    inner = json.dumps(value, ensure_ascii=False, separators=(", ", " : ") if spaced else (",", ":"))
    assert taken(WHOLE % ('{"x":' + inner + "}"), tmp_path_factory.getbasetemp())


def test_deeper_nesting_than_is_sure_is_left_to_the_engine(tmp_path: Path) -> None:
    assert taken(WHOLE % ('{"x":' + "[" * 60 + "]" * 60 + "}"), tmp_path)
    assert not taken(WHOLE % ('{"x":' + "[" * 61 + "]" * 61 + "}"), tmp_path)


def column_of(line: str, name: str, tmp_path: Path) -> Any:
    read = PlainLines(PLAN).read(lines_of(tmp_path, line.encode() + b"\n"))
    return read.plain.column(name).to_pylist()[0] if read.plain.num_rows else ...


@settings(max_examples=500, **SLOW)
@given(number=st.from_regex(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,14})?", fullmatch=True))
def test_a_plain_number_is_the_nearest_double(tmp_path_factory: pytest.TempPathFactory, number: str) -> None:
    line = '{"event_id":"e","event":"page_timing","timestamp":"2026-03-01T10:00:00Z","properties":{"page":"/","load_ms":%s}}'
    found = column_of(line % number, "p_load_ms_number", tmp_path_factory.getbasetemp())
    assert found is ... or found == float(number)
    digits = len(number.replace("-", "").replace(".", ""))
    assert found is not ... or digits > 15 or float(number) == 0


@settings(max_examples=300, **SLOW)
@given(number=st.from_regex(r"-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,6})?", fullmatch=True))
def test_plain_money_is_exact(tmp_path_factory: pytest.TempPathFactory, number: str) -> None:
    line = '{"event_id":"e","event":"product_view","timestamp":"2026-03-01T10:00:00Z","properties":{"product_id":"p","price":%s}}'
    found = column_of(line % number, "p_price_money", tmp_path_factory.getbasetemp())
    assert found is ... or found == Decimal(number)


@settings(max_examples=300, **SLOW)
@given(
    moment=st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),  # noqa: DTZ001
    minutes=st.integers(-14 * 60, 14 * 60),
    digits=st.integers(0, 6),
)
def test_plain_times_are_those_of_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, moment: datetime, minutes: int, digits: int
) -> None:
    zone = timezone(timedelta(minutes=minutes))
    said = moment.replace(microsecond=0).isoformat() + (f".{moment.microsecond:06d}"[: digits + 1] if digits else "")
    said += (
        "Z"
        if minutes == 0
        else moment.replace(tzinfo=zone).strftime("%z")[:3] + ":" + moment.replace(tzinfo=zone).strftime("%z")[3:]
    )
    line = WHOLE.replace("2026-03-01T10:00:00Z", said) % "null"
    found = column_of(line, "occurred_at", tmp_path_factory.getbasetemp())
    assert found == datetime.fromisoformat(said).astimezone(UTC)


def test_more_names_than_the_table_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="more than the table"):
        scan.names_table([(scan.TOP, f"name_{n}", n) for n in range(600)])


def test_names_that_share_a_slot_are_told_apart() -> None:
    names = [(level, f"name_{n}", n) for level in (scan.TOP, scan.CONTEXT) for n in range(200)]
    table = scan.names_table(names)
    assert sorted(table.slots[table.slots >= 0]) == list(range(400))
    assert np.array_equal(table.entries[:, 3], [n for _, _, n in names])


def test_a_block_without_any_shape_does_not_stop_the_pass(tmp_path: Path) -> None:
    reader, junk = PlainLines(PLAN), lines_of(tmp_path, b"junk\n" * 3)
    good = lines_of(tmp_path, text([event(event_id=f"e-{n}") for n in range(6)]))
    assert [reader.read(lines).plain.num_rows for lines in (junk, junk, good)] == [0, 0, 6]


@settings(deadline=None)
@given(blocks=st.lists(st.binary(max_size=12) | st.just(b"\n") | st.just(b"\x0b\n\x8a"), max_size=60).map(b"".join))
@example(blocks=b"\n" * 500).via("more lines than usual for the size")
@example(blocks=b"")
def test_lines_end_where_newlines_are(blocks: bytes) -> None:
    ends, beyond = scan.line_ends(np.frombuffer(blocks, dtype=np.uint8))
    assert ends.tolist() == [0, *(at + 1 for at, octet in enumerate(blocks) if octet == 10)]
    lines = blocks.split(b"\n")[:-1]
    assert len(beyond) == len(lines)
    assert all(marked for line, marked in zip(lines, beyond, strict=True) if not line.isascii())
