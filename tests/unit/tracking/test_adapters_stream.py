"""What holds for every format: one line a record whatever the bytes, nothing personal in it, bounded memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adapter_files import CONTRACT, FILES, FIXTURES, adapt_bytes
from event_lines import PLAN
from hypothesis import given
from hypothesis import strategies as st

from zantara_pipeline.tracking.adapters import Adaptation, stream
from zantara_pipeline.tracking.adapters.draft import MOST_NAMES
from zantara_pipeline.tracking.plan import CONTEXT_KEYS
from zantara_pipeline.tracking.shapes import ENVELOPE

FORMATS = ("segment", "snowplow", "ga4", "csv")
HEADER = b"event_id,event,timestamp,user_id\n"
PERSONAL = (b"joe", b"Joe", b"203.0.113.7", b"@", b"5550100", b"shop.example", b"Berlin", b"Agent/1.0")


def start(format: str) -> bytes:
    return HEADER if format == "csv" else b""


@pytest.mark.parametrize("name", FILES)
def test_no_address_no_trait_and_no_page_reaches_an_adapted_line(name: str) -> None:
    content = (FIXTURES / name).read_bytes()
    assert b"joe@example.com" in content  # the fixture holds what must not pass
    lines, report = adapt_bytes(FILES[name], content)
    adapted = [line for line in lines if line.startswith(b"{")]
    assert len(adapted) == report.adapted > 0
    for line in adapted:
        assert not [word for word in PERSONAL if word in line]
        assert set(json.loads(line)) <= set(ENVELOPE)
        assert set(json.loads(line).get("context", {})) <= set(CONTEXT_KEYS)
    assert not [word for word in PERSONAL if word.decode() in str(report.unmapped)]


@pytest.mark.parametrize("name", FILES)
def test_names_of_fields_without_a_place_are_counted(name: str) -> None:
    _, report = adapt_bytes(FILES[name], (FIXTURES / name).read_bytes())
    assert all(0 < count <= report.records for count in report.unmapped.values())
    expected = {"segment": "context.ip", "snowplow": "user_ipaddress", "ga4": "user_properties", "csv": "e_mail"}
    assert expected[FILES[name]] in report.unmapped


# ---- whatever the bytes -------------------------------------------------------------------------------------------
keys = st.sampled_from(
    ["type", "event", "messageId", "userId", "timestamp", "sentAt", "receivedAt", "originalTimestamp", "properties",
     "context", "consent", "categoryPreferences", "consentManagement", "allowedConsentIds", "deniedConsentIds", "device",
     "app", "location", "analytics", "channel", "event_name", "event_timestamp", "event_params", "key", "value",
     "int_value", "double_value", "items", "item_id", "privacy_info", "analytics_storage", "user_pseudo_id",
     "collector_tstamp", "dvce_sent_tstamp", "dvce_created_tstamp", "contexts", "data", "schema", "unstruct_event",
     "consentScopes", "eventType", "basisForProcessing", "contexts_com_acme_consent_preferences_1", "platform",
     "unstruct_event_com_acme_x_1", "event_id", "geo", "app_info", "ga_session_id", "se_action"]
)  # fmt: skip
scalars = st.sampled_from(
    [None, True, False, 0, -1, 10**19, 10**400, 1e308, "", "x", "track", "struct", "Yes", "true", "ga_session_id",
     "2026-03-01T10:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31 23:59:59", "1772357400123456", "analytics",
     "iglu:com.acme/consent_preferences/jsonschema/1-0-0", '{"data":[]}', "\ud800", "\x00", "allow_selected", "consent"]
)  # fmt: skip
objects = st.dictionaries(
    keys,
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)),
    max_size=8,
)
oddities = st.sampled_from(
    [b"null", b"[]", b"[{}]", b"{", b'{"a":NaN}', b'{"a":1e999999999999999999}', b'{"a":1,"a":2}', b"\xff\xfe", b"\x00",
     b'{"a":' + b"9" * 5000 + b"}", b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b'"', b'a,"b', b"a,b,c,d",
     b'a,"b""c",d,e', b"\t" * 130, b"x" + b"\t" * 130, b"x\t" * 130 + b'{"a":', b"\xc2\xa0", b"{}\r", b"'", b",,,", b"\xef\xbb\xbf{}"]
)  # fmt: skip
lines = st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b" ")) | objects.map(
    lambda found: json.dumps(found).encode()
)


@pytest.mark.parametrize("format", FORMATS)
@given(st.lists(lines | oddities, max_size=8), st.booleans())
def test_every_record_is_one_line(format: str, found: list[bytes], ended: bool) -> None:
    if format == "csv":  # a quote would join lines; rows of several lines have a test of their own
        found = [line.replace(b'"', b"'") for line in found]
    content = start(format) + b"\n".join(found) + (b"\n" if ended else b"")
    out, report = adapt_bytes(format, content)
    records = [line for line in found if not stream._is_blank(line)]
    assert len(out) == report.records == len(records)
    assert report.adapted + report.unreadable == report.records
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in out)
    for came, line in zip(records, out, strict=True):
        if line.rstrip(b"\n") != came:  # adapted: an envelope and nothing beside it
            assert set(json.loads(line)) <= set(ENVELOPE)


@given(st.lists(lines | oddities, max_size=12))
def test_rows_of_a_csv_with_stray_quotes_are_never_lost(found: list[bytes]) -> None:
    good = [f"e-{n},purchase,t,u".encode() for n in range(150)]
    out, report = adapt_bytes("csv", HEADER + b"\n".join([*found, *good]))
    assert report.records == len(out) == report.adapted + report.unreadable
    # beyond the longest row that a stray quote can open, every row arrives
    assert [json.loads(line)["event_id"] for line in out[-40:]] == [f"e-{n}" for n in range(110, 150)]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_lines_do_not_depend_on_where_reads_end(format: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(name for name, found in FILES.items() if found == format)
    content = (FIXTURES / name).read_bytes()
    whole = adapt_bytes(format, content)
    monkeypatch.setattr(stream, "READ_BYTES", chunk)
    assert adapt_bytes(format, content) == whole


@pytest.mark.parametrize("name", FILES)
def test_the_stream_keeps_the_numbers_of_the_lines(name: str) -> None:
    content = b"\n" + (FIXTURES / name).read_bytes()
    source = Adaptation(FILES[name], CONTRACT, PLAN).open(io.BytesIO(content))
    out = b"".join(iter(source.read, b"")).split(b"\n")
    assert len(out) == len(content.split(b"\n"))
    if name == "events.csv":  # the second row ends on line 5: header on 2, a cell with an end of line in it on 4 and 5
        assert [number for number, line in enumerate(out, 1) if line] == [3, 5, 6, 7, 8]


class Endless(io.RawIOBase):
    """A file of very many records that nobody holds in memory."""

    def __init__(self, first: bytes, line: bytes, count: int) -> None:
        self.parts: Iterator[bytes] = iter([first, *[line * 1000] * (count // 1000)])

    def read(self, size: int = -1, /) -> bytes:
        return next(self.parts, b"")


@pytest.mark.parametrize("format", FORMATS)
def test_a_long_file_is_adapted_in_bounded_memory(format: str) -> None:
    line = b'e,purchase,t,"u"\n' if format == "csv" else b'{"type":"track","collector_tstamp":"x","event_name":"x"}\n'
    adaptation = Adaptation(format, CONTRACT, PLAN)
    source = adaptation.open(Endless(start(format) or line, line, 50_000))  # type: ignore[arg-type]
    tracemalloc.start()
    while source.read():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert adaptation.report.records >= 50_000
    assert peak < 12 * 2**20


def test_names_that_are_made_of_data_are_not_repeated_and_do_not_pile_up() -> None:
    records: list[Any] = [{"type": "track", f"field{n}": 1} for n in range(2 * MOST_NAMES)]
    records += [{"type": "track", "joe@example.com": 1}]
    _, report = adapt_bytes("segment", b"".join(json.dumps(record).encode() + b"\n" for record in records))
    assert len(report.unmapped) == MOST_NAMES + 2
    assert report.unmapped["(other names)"] == MOST_NAMES
    assert report.unmapped["(unreadable name)"] == 1
    assert "joe@" not in report.words()


def test_the_words_of_a_report_are_one_short_line(tmp_path: Path) -> None:
    _, report = adapt_bytes("segment", (FIXTURES / "segment.jsonl").read_bytes())
    assert report.words(most=2) == (
        "4 records from segment; without a place: context.ip 2, properties.url 2 and 17 more"
    )
