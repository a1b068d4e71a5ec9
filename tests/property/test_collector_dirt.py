"""Every malformed thing that a collector delivers, alone and together: each line is counted once, and kept where it belongs.

A line is put together of parts, each of which is fine or malformed in a known way; the first stage that any part asks for
is the line's: unparsable, suppressed, quarantined, accepted.
"""

from __future__ import annotations

import codecs
import tempfile
from pathlib import Path

import pytest
from event_lines import Shop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zantara_pipeline.tracking import ingest as ingest_module
from zantara_pipeline.tracking import large_lines, reader

UNPARSABLE, SUPPRESSED, QUARANTINED, ACCEPTED = "unparsable", "suppressed", "quarantined", "accepted"
STAGES = (UNPARSABLE, SUPPRESSED, QUARANTINED, ACCEPTED)
Part = tuple[bytes, str]

IDS: list[Part] = [
    (b'"event_id":""', QUARANTINED),
    (b'"event_id":["e"]', QUARANTINED),
    (b'"event_id":"e","event_id":"f"', QUARANTINED),
    (b'"id":"e"', QUARANTINED),
    (b'"event_id":"%s"' % (b"e" * 1001), QUARANTINED),
]
EVENTS: list[Part] = [
    (b'"event":""', QUARANTINED),
    (b'"event":[]', QUARANTINED),
    (b'"event":null', QUARANTINED),
    (b'"event":"product_view","event":"purchase"', QUARANTINED),
    (b'"event":"product\\u005fview"', ACCEPTED),
    (b'"event":"Product_View"', QUARANTINED),
]
TIMES: list[Part] = [
    (b'"timestamp":"1960-01-01T00:00:00Z"', ACCEPTED),
    (b'"timestamp":"1969-12-31T23:59:59.999999Z","received_at":"1970-01-01T00:00:00Z"', ACCEPTED),
    (b'"timestamp":"1960-01-01T00:00:00Z","received_at":"2026-03-01T00:00:00Z"', QUARANTINED),
    (b'"timestamp":"2999-01-01T00:00:00Z"', QUARANTINED),
    (b'"timestamp":"2026-03-01T10:00:00Z","received_at":"9999-12-31T23:59:59Z"', QUARANTINED),
    (b'"timestamp":"2026-02-30T10:00:00Z"', QUARANTINED),
    (b'"timestamp":1772359200', QUARANTINED),
    (b'"timestamp":"2026-03-01T10:00:00"', QUARANTINED),
]
PROPERTIES: list[Part] = [
    (b'"properties":[]', QUARANTINED),
    (b'"properties":[{"product_id":"p"}]', QUARANTINED),
    (b'"properties":"{}"', QUARANTINED),
    (b'"properties":{"product_id":"p"},"properties":{"product_id":"q"}', QUARANTINED),
    (b'"properties":{"product_id":"p","product_id":"q"}', QUARANTINED),
    (b'"properties":{"product_id":"p","price":1000000000000000000000000000000}', QUARANTINED),
    (b'"properties":{"product_id":"p","price":-18446744073709551616}', QUARANTINED),
    (b'"properties":{"product_id":"p","price":1e400}', QUARANTINED),
    (b'"properties":{"product_id":"p","price":NaN}', UNPARSABLE),
    (b'"properties":{"product_id":"p","price":-Infinity}', UNPARSABLE),
    (b'"properties":{"product_id":"p","price":"NaN"}', QUARANTINED),
    (b'"properties":{"product_id":"\\ud800"}', UNPARSABLE),
    (b'"properties":{"product_id":"\\udfff\\ud800"}', UNPARSABLE),
    (b'"properties":{"product_id":"\\ud83d\\ude00"}', ACCEPTED),
    (b'"properties":{"product_id":"a\x00b"}', UNPARSABLE),
    (b'"properties":{"product_id":"\xff\xfe"}', UNPARSABLE),
    (b'"properties":{"product_id":"\xed\xa0\x80"}', UNPARSABLE),
    (b'"properties":{"product_id":["p"]}', QUARANTINED),
    (b'"properties":{"product_id":"p","zz":' + b"[" * 40 + b"]" * 40 + b"}", QUARANTINED),
    (b'"properties":{"product_id":"p","zz":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}", QUARANTINED),
    (b'"properties":{"product_id":"p","zz":"' + b"x" * 40_000 + b'"}', QUARANTINED),
    (b'"properties":{"product_id":"p","brand":"' + b"x" * 40_000 + b'"}', ACCEPTED),
    (b'"properties":{"product_id":"p"' + b"".join(b',"k%d":1' % n for n in range(400)) + b"}", QUARANTINED),
]
CONSENTS: list[Part] = [
    (b'"consent":{"analytics":false,"personalization":true}', SUPPRESSED),
    (b'"consent":{}', SUPPRESSED),
    (b'"consent":[]', SUPPRESSED),
    (b'"consent":"yes"', SUPPRESSED),
    (b'"consent":{"analytics":[true]}', SUPPRESSED),
    (b'"consent":{"analytics":true},"consent":{"analytics":true}', SUPPRESSED),
    (b'"x":1', SUPPRESSED),
]
WHOLE: list[Part] = [
    (b"", UNPARSABLE), (b"[%s]", UNPARSABLE), (b"%s%s", UNPARSABLE), (b"%s,", UNPARSABLE), (b"\x00%s", UNPARSABLE),
    (codecs.BOM_UTF8 + b"%s", UNPARSABLE), (b" \t%s \r", ACCEPTED),
]  # fmt: skip
FINE = {
    "ids": (b'"event_id":"e"', ACCEPTED),
    "events": (b'"event":"product_view"', ACCEPTED),
    "times": (b'"timestamp":"2026-03-01T10:00:00Z"', ACCEPTED),
    "properties": (b'"properties":{"product_id":"p"}', ACCEPTED),
    "consents": (b'"consent":{"analytics":true,"personalization":true}', ACCEPTED),
    "whole": (b"%s", ACCEPTED),
}
MALFORMED = dict(zip(FINE, (IDS, EVENTS, TIMES, PROPERTIES, CONSENTS, WHOLE), strict=True))


def put_together(parts: dict[str, Part]) -> Part:
    """A line of these parts, and the stage that the first of them asks for."""
    *inside, (whole, _) = (parts[name][0] for name in FINE if name != "whole"), parts["whole"]
    line = b'{"user_id":"u",' + b",".join(*inside) + b"}"
    stage = min((stage for _, stage in parts.values()), key=STAGES.index)
    return whole.replace(b"%s", line) if whole else line[: len(line) // 2], stage


ALONE = [put_together(FINE | {name: part}) for name, parts in MALFORMED.items() for part in parts]


@st.composite
def lines(draw: st.DrawFn) -> Part:
    """One to three malformed parts."""
    names = draw(st.lists(st.sampled_from(sorted(FINE)), max_size=3, unique=True))
    return put_together(FINE | {name: draw(st.sampled_from(MALFORMED[name])) for name in names})


@pytest.mark.parametrize("large", [large_lines.LARGE_BYTES, 64], ids=["as it is", "every line a large one"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(lines(), min_size=1, max_size=30), st.booleans(), st.sampled_from([2**20, 3000]))
@example(ALONE, False, 2**20).via("each alone")
@example(ALONE, True, 3000)
def test_each_line_goes_where_its_worst_part_belongs(large: int, found: list[Part], bom: bool, chunk: int) -> None:
    """A byte order mark at the start of the file is no part of its first line."""
    found = [put_together(FINE), *found]
    content = codecs.BOM_UTF8 * bom + b"\n".join(line for line, _ in found)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_lines, "LARGE_BYTES", large)
        patch.setattr(reader, "CHUNK_BYTES", chunk)
        patch.setattr(ingest_module, "BATCH_BYTES", chunk)
        shop = Shop(Path(folder))
        shop.land("a.jsonl", content)
        counts = shop.ingest().total
        stages = shop.stages("a.jsonl")
    assert counts.rows_in == len(found)
    went = [stages.get(number, SUPPRESSED) for number in range(1, len(found) + 1)]
    wrong = [(line[:300], stage, where) for (line, stage), where in zip(found, went, strict=True) if stage != where]
    assert wrong == []
    assert [getattr(counts, stage) for stage in STAGES] == [went.count(stage) for stage in STAGES]
