"""Lines of many megabytes: judged like any other, within the memory that is promised, and nothing of them lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import jsonschema_rs
import pytest
from event_lines import BOTH, PLAN, RULES, Shop, event, viewed
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from zantara_pipeline.privacy.keyed_hash import Key, Keyring
from zantara_pipeline.tracking import large_lines
from zantara_pipeline.tracking.codegen.json_schema import json_schema
from zantara_pipeline.tracking.key_names import UNREADABLE
from zantara_pipeline.tracking.payloads import _TOKEN
from zantara_pipeline.tracking.plan import Exemption, TrackingPlan
from zantara_pipeline.tracking.replay import replay

KB, MB = 2**10, 2**20


def _strict_plan() -> TrackingPlan:
    """The packaged plan; product_view is exempt in France, its brand is a direct identifier of at most 40 characters and
    its category at most 30 of small letters."""
    viewed = PLAN.events["product_view"]
    direct = viewed.properties["brand"].model_copy(update={"pii": "direct", "max_length": 40})
    short = viewed.properties["category"].model_copy(update={"max_length": 30, "pattern": "^[a-z ]+$"})
    viewed = viewed.model_copy(update={"properties": viewed.properties | {"brand": direct, "category": short}})
    rule = Exemption(event="product_view", countries=("FR",), legal_reference="a guideline")
    privacy = PLAN.privacy.model_copy(update={"exemptions": (rule,)})
    return TrackingPlan(PLAN.events | {"product_view": viewed}, privacy)


STRICT = replace(RULES, plan=_strict_plan(), keyring=Keyring((Key("k1", b"1" * 32),)))


def values(size: int) -> dict[str, str]:
    """One JSON value of about so many bytes of each kind that costs a reader more than its bytes."""
    return {
        "text": '"' + "x" * size + '"',
        "list": "[" + "1," * (size // 2) + "1]",
        "empty lists": "[" + "[]," * (size // 3) + "1]",
        "keys": "{" + ",".join(f'"key_{k:07d}": 1' for k in range(size // 16)) + "}",
        "one key again and again": "{" + '"a":1,' * (size // 6) + '"a":2}',
        "deep lists": "[" * (size // 2) + "]" * (size // 2),
        "deep objects": '{"a":' * (size // 6) + "1" + "}" * (size // 6),
        "escapes": '"' + "\\u00e9" * (size // 6) + '"',
        "line breaks": '"' + "\\n" * (size // 2) + '"',
        "long number": "1" * size,
        "long fraction": "0." + "1" * size,
    }


def hostile(size: int) -> Iterator[str | bytes]:
    """Each value as a property, an unknown one, a number, in the context, as an id; as granted, denied and unreadable."""
    places = (
        viewed(category="@"), viewed(colour="@"), viewed(price="@"), viewed(brand="@"), event(timestamp="@"), event("@"),
        event(context={"x": "@", "platform": "web"}), event(context={"platform": "@"}), event(user_id="@"), event(event_id="@"),
    )  # fmt: skip
    for value in values(size).values():
        for place in places:
            yield json.dumps(place).replace('"@"', value)
        for consent in ({"analytics": False}, {"analytics": "perhaps"}):
            for place in (viewed(category="@"), event(context={"x": "@", "platform": "web"}), event(user_id="@")):
                yield json.dumps(place | {"consent": consent}).replace('"@"', value)
        yield json.dumps(viewed()).replace('{"product_id": "p-1"}', value)
        yield json.dumps(event(consent="@")).replace('"@"', value)
        yield json.dumps(event())[:-1] + "," + json.dumps(value) + ":1}"
        yield json.dumps(viewed(colour="@"))[:-1].replace('"@"', value)  # not closed
        yield json.dumps(viewed(colour="@")).replace('"@"', value).encode().replace(b'"user_id"', b'"user\xff_id"')
        yield value
    for members in (values(size)["keys"], values(size)["one key again and again"]):
        yield json.dumps(viewed(colour=1))[:-1] + "," + members[1:]
        yield json.dumps(viewed(colour=1)).replace('"colour": 1', members[1:-1])
        yield json.dumps(event(consent=BOTH)).replace('"analytics": true', members[1:-1] + ', "analytics": true')


def everything(root: Path, lines: list[Any], rules: Any = STRICT) -> dict[str, Any]:
    """All that became of some lines, wherever it is stored."""
    shop = Shop(root, rules)
    shop.consent(["u-7", "analytics", "denied", "2026-01-01T00:00:00Z"])
    shop.land("a.jsonl", lines)
    shop.ingest()
    apart = {}
    for name, folder in (
        ("exempt", shop.home.lake / "exempt"),
        ("unreadable", shop.home.restricted / "consent_unreadable"),
    ):
        found = f"SELECT * FROM read_parquet('{folder}/**/*.parquet', union_by_name = true) ORDER BY line_no"
        apart[name] = duckdb.sql(found).fetchall() if any(folder.rglob("*.parquet")) else []
    return shop.everything() | apart


def test_a_large_line_ends_as_it_would_if_the_engine_read_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = list(hostile(20 * KB))
    short = everything(tmp_path / "short", lines)
    monkeypatch.setattr(large_lines, "LARGE_BYTES", 10**9)
    whole = everything(tmp_path / "whole", lines)
    for stage in whole:
        assert short[stage] == whole[stage], stage
    assert {len(whole[name]) > 4 for name in ("accepted", "quarantined", "unparsable", "unreadable")} == {True}


KEYS = st.sampled_from(
    ["event", "event_id", "timestamp", "user_id", "properties", "context", "consent", "analytics", "personalization", "country",
     "product_id", "category", "brand", "price", "stars", "x", "y", "Z-1", "bad name", "", "é", "\U0001f600", "received_at"]
)  # fmt: skip
SCALARS = st.sampled_from(
    ["null", "true", "false", "0", "-0", "1.5", "1e400", "1E-3", "01", "1.", "-", "nul", '"p"', '"long enough to stand beside"',
     '"\\ud800"', '"\\ud83d\\ude00 and long enough"', '"\\u00zz"', '"\\/"', '"tab\t"', '"\\x"', '"2026-03-01T10:00:00Z"', '"DE"',
     '"FR"', '"u-7"', "NaN", '"NaN"', "[1,]", "{}", "[]", '[["u-7"], 8]', "12345678901234567890", '"' + "A" * 50 + '"']
)  # fmt: skip


def _object(members: list[tuple[str, str]], escaped: bool) -> str:
    names = [json.dumps(key, ensure_ascii=False) for key, _ in members]
    if escaped:
        names = [
            '"' + "".join(f"\\u{ord(c):04x}" for c in key) + '"' if key.isascii() else json.dumps(key)
            for key, _ in members
        ]
    return "{" + ",".join(f"{name} : {value}" for name, (_, value) in zip(names, members, strict=True)) + "}"


FEW = st.lists(st.tuples(KEYS, SCALARS), max_size=5)
# Around the number from which undeclared keys are a map; of so few names some stand twice.
MANY = st.lists(st.tuples(st.integers(0, 60).map("key_{}".format), SCALARS), min_size=18, max_size=24)
OBJECTS = st.builds(_object, FEW | MANY, st.booleans())
MEMBERS = st.lists(st.tuples(KEYS, SCALARS | OBJECTS), max_size=6)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """An event with further members before or after, some of them keys that it has already; sometimes cut short."""
    category = draw(st.sampled_from(["shoes", "long enough to stand beside", "longer than any that the plan allows"]))
    consent = draw(st.sampled_from([BOTH, BOTH, {"analytics": False}, {}, None]))
    whole = event(properties={"product_id": "p-1", "category": category}, consent=consent, context={"country": "FR"})
    own = [(key, json.dumps(value)) for key, value in whole.items()]
    more = draw(MEMBERS | MANY)
    line = _object(more + own if draw(st.booleans()) else own + more, draw(st.booleans()))
    return line[: draw(st.integers(1, len(line)))] if draw(st.integers(0, 9)) == 0 else line


@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(some=st.lists(lines(), min_size=30, max_size=60))
def test_short_lines_and_whole_lines_have_the_same_verdict(
    some: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("lines")
    whole = everything(root / "whole", some)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_lines, "LARGE_BYTES", 0)
        patch.setattr(large_lines, "LONG_BYTES", 24)
        assert everything(root / "short", some) == whole


def test_many_unknown_keys_are_one_reason_and_the_payload_stays(tmp_path: Path) -> None:
    many, map_of = viewed(**{f"key_{k}": 1 for k in range(20_000)}), event(**{f"u-{k}": 1 for k in range(20_000)})
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [many, map_of])
    shop.ingest()
    assert shop.reasons() == {
        1: {("unknown_key", f"$.properties.{UNREADABLE}")},
        2: {("unknown_key", f"$.{UNREADABLE}")},
    }
    assert [json.loads(row["payload_raw"]) for row in shop.quarantined()] == [many, map_of]


def test_an_id_of_more_than_1000_characters_is_none(tmp_path: Path) -> None:
    lengths = (1_000, 1_001, 5_000, 100_000)
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [event(**{key: "é" * n}) for key in ("event_id", "user_id", "device_id") for n in lengths])
    shop.ingest()
    assert [(row["line_no"], row["event_id"] == "é" * 1_000) for row in shop.accepted()] == [
        (1, True),
        (5, False),
        (9, False),
    ]
    expected = {2: "event_id", 3: "event_id", 4: "event_id", 6: "user_id", 7: "user_id", 8: "user_id", 10: "device_id", 11: "device_id", 12: "device_id"}  # fmt: skip
    assert shop.reasons() == {line: {("too_long", f"$.{key}")} for line, key in expected.items()}
    assert shop.quarantined()[2]["event_id"] is None
    published = jsonschema_rs.validator_for(json_schema(PLAN.events["product_view"], PLAN))
    for key in ("event_id", "user_id", "device_id"):
        assert [published.is_valid(event(**{key: "é" * n})) for n in lengths] == [True, False, False, False]


def test_whom_a_line_is_about_that_nobody_can_look_through_has_denied(tmp_path: Path) -> None:
    """A list of a million users: one of them may have denied."""
    named = event(user_id=[f"u-{n}" for n in range(200_000)])
    shop = Shop(tmp_path)
    shop.land(
        "a.jsonl",
        [named, event(user_id=["u-1"]), json.dumps(event())[:-1] + ',"user_id":"u-1"' * 30 + "," * 20_000 + "}"],
    )
    shop.ingest()
    twice = json.dumps(event() | {"sent_at": "x" * 20_000})[:-1] + ',"user_id":"u-1"' * 30 + "}"
    shop.land("b.jsonl", [twice])
    shop.ingest()
    assert shop.query(
        "SELECT suppressed, quarantined, unparsable, consent_unreadable FROM ingested_files ORDER BY file"
    ) == [
        (1, 1, 1, 0),
        (1, 0, 0, 0),
    ]


def test_a_large_line_in_quarantine_is_replayed_as_it_came(tmp_path: Path) -> None:
    category = "\n" * 100_000
    shop = Shop(tmp_path, replace(RULES, plan=STRICT.plan, keyring=STRICT.keyring))
    shop.land("a.jsonl", [viewed(category=category)])
    shop.ingest()
    assert shop.reasons() == {1: {("pattern_mismatch", "$.properties.category"), ("too_long", "$.properties.category")}}
    assert replay(shop.home, shop.ledger, replace(RULES, keyring=STRICT.keyring)).accepted == 1
    assert [row["category"] for row in shop.accepted()] == [category]


def test_reading_the_tokens_of_a_payload_keeps_none_of_them() -> None:
    text = '{"a": "' + "\\n" * MB + '", "b": [' + "1," * MB + "1]}"
    peak = child(
        "import re, resource, sys; from zantara_pipeline.tracking.payloads import _TOKEN\n"
        "text = sys.stdin.read(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert sum(1 for _ in _TOKEN.finditer(text)) == 7\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)",
        stdin=text,
    )
    assert peak * KB < 2 * len(text)
    assert [found["key"] for found in _TOKEN.finditer('{"a" : {"b":1}}') if found["key"]] == ['"a"', '"b"']


def child(code: str, *arguments: str, stdin: str = "") -> int:
    """The last line that a process of its own prints, as a number."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


INGEST = """
import sys
from pathlib import Path
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.ingest import ingest
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.verdict import Rules
home = Home(Path(sys.argv[1])).create()
ingest(home, Ledger(home.state / "ledger.db"), home.landing / "events", Rules(load_plan((PACKAGED,)), 24, 30), threads=2)
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)  # maxrss would count the parent's too
"""


def test_lines_of_50_mb_stay_under_1_gb_and_are_kept(tmp_path: Path) -> None:
    """A list in quarantine, then an accepted text with escapes."""
    whole = json.dumps(viewed(colour="@")).replace('"@"', values(50 * MB)["empty lists"])
    shop = Shop(tmp_path)
    shop.land(
        "a.jsonl", [whole, json.dumps(viewed(category="@")).replace('"@"', values(50 * MB)["line breaks"]), event()]
    )
    assert child(INGEST, str(tmp_path)) < 1000
    assert shop.query("SELECT rows_in, accepted, quarantined FROM ingested_files") == [(3, 2, 1)]
    payload = duckdb.sql(
        f"SELECT payload_raw = ? FROM read_parquet('{shop.home.quarantine}/*/*.parquet')", params=[whole]
    )
    assert payload.fetchall() == [(True,)]
    kept = duckdb.sql(
        f"SELECT length(category) FROM read_parquet('{shop.home.accepted}/*/*/*.parquet') ORDER BY line_no"
    )
    assert kept.fetchall() == [(25 * MB,), (None,)]
