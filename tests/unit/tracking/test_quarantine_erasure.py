"""Erasure from quarantine: found before by decoding every payload, absent after, and nobody else's lines touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import Shop, event, viewed
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking import commits, removal
from zantara_pipeline.tracking.quarantine_erasure import erase_quarantined, names_one_of

GONE = "u-gone"
# Lines that name the person, each at another place, and wrong for another reason.
THEIRS: list[Any] = [
    event("product_view", {"product_id": 1}, user_id=GONE),
    event("wish", {"product_id": "p"}, anonymous_id=GONE),
    event("wish", {"product_id": "p"}, device_id=GONE),
    viewed(owner=GONE),
    viewed(basket={"shared": {"with": [1, [GONE]]}}),
    viewed(**{GONE: 1}),
    event("wish", {}) | {"usre_id": GONE},
    '{"event_id": "e", "event": "wish", "timestamp": "2026-03-01T10:00:00Z", "consent": {"analytics": true}, '
    '"properties": {"a": "u-gone", "a": "other"}}',
    '{"event_id": "e", "event": "wish", "timestamp": "2026-03-01T10:00:00Z", "consent": {"analytics": true}, '
    '"properties": {"a": "\\u0075-gone"}}',
    event("wish", {"id": 4711}),
    event("wish", {"id": 4711.0}),
    event("wish", {}, event_id=GONE),
]
OTHERS: list[Any] = [
    event("wish", {}, user_id="u-gone-2"),
    event("wish", {"text": f"about {GONE}"}),
    event("wish", {"id": 47110}),
    event("wish", {"id": 0.4711}),
    event("product_view", {"product_id": 2}, user_id="u-1"),
]


def values(node: Any) -> Iterator[Any]:
    """Every key and value of decoded JSON, where pairs stand for objects so that no repeated key is lost."""
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from values(part)
    else:
        yield node


def naming(shop: Shop, wanted: str) -> set[int]:
    """The positive control and the proof: decode every Parquet file and every payload in it; line numbers."""
    found = set()
    for path in shop.home.lake.rglob("*.parquet"):
        for line, payload in duckdb.execute("SELECT line_no, payload_raw FROM read_parquet(?)", [str(path)]).fetchall():
            decoded = json.loads(payload, object_pairs_hook=lambda pairs: pairs)
            if any(value == wanted or (wanted.isdigit() and value == int(wanted)) for value in values(decoded)):
                found.add(line)
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "home")
    shop.land("a.jsonl", [*THEIRS, *OTHERS])
    shop.ingest()
    assert len(shop.quarantined()) == len(THEIRS) + len(OTHERS)
    return shop


def test_every_line_that_names_the_person_is_gone_and_no_other(shop: Shop) -> None:
    assert len(naming(shop, GONE)) == 10 and len(naming(shop, "4711")) == 2
    others = shop.quarantined()[len(THEIRS) :]
    counts = (
        shop.query("SELECT rows_in, quarantined FROM ingested_files"),
        shop.query("SELECT * FROM quarantine_reasons"),
    )
    assert erase_quarantined(shop.home, shop.ledger, {GONE, "4711"}) == len(THEIRS)
    assert naming(shop, GONE) == naming(shop, "4711") == set()
    assert shop.quarantined() == others and len(others) == len(OTHERS)
    assert (
        shop.query("SELECT rows_in, quarantined FROM ingested_files"),
        shop.query("SELECT * FROM quarantine_reasons"),
    ) == counts
    assert not any(path.suffix == ".parquet" for path in shop.home.incoming.rglob("*"))
    kept = shop.query("SELECT rows FROM quarantine_erasures")
    assert kept == [(len(THEIRS),)] and GONE not in str(shop.query("SELECT * FROM quarantine_erasures"))


def test_a_second_erasure_changes_nothing(shop: Shop) -> None:
    erase_quarantined(shop.home, shop.ledger, {GONE})
    before, files = shop.quarantined(), sorted(shop.home.quarantine.rglob("*.parquet"))
    assert erase_quarantined(shop.home, shop.ledger, {GONE}) == 0
    assert shop.quarantined() == before and sorted(shop.home.quarantine.rglob("*.parquet")) == files
    assert erase_quarantined(Shop(shop.home.root / "empty").home, shop.ledger, {GONE}) == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["write_rest", "stage", "move_in", "moving"])
def test_a_killed_erasure_is_finished_or_never_was(shop: Shop, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    others = [row for row in shop.quarantined() if row["line_no"] > len(THEIRS)]
    with monkeypatch.context() as patch:
        patch.setattr(*((commits, "_remove_if_empty") if moment == "moving" else (removal, moment)), kill)
        with pytest.raises(Killed):
            erase_quarantined(shop.home, shop.ledger, {GONE, "4711"})
    again = Ledger(shop.ledger.path)
    commits.recover(shop.home, again)
    assert len(shop.quarantined()) in (len(OTHERS), len(OTHERS) + len(THEIRS))
    erase_quarantined(shop.home, again, {GONE, "4711"})
    assert shop.quarantined() == others and naming(shop, GONE) == set()
    assert shop.query("SELECT rows FROM quarantine_erasures") == [(len(THEIRS),)]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
)


@given(JSON, st.text(max_size=4), st.booleans())
def test_tokens_find_what_a_parser_finds(whole: Any, wanted: str, escaped: bool) -> None:
    text = json.dumps(whole, ensure_ascii=escaped)
    decoded = list(values(json.loads(text, object_pairs_hook=lambda pairs: pairs)))
    numbers = {str(value) for value in decoded if isinstance(value, int) and not isinstance(value, bool)}
    assert names_one_of(text, {wanted}) == (wanted in numbers or wanted in [v for v in decoded if isinstance(v, str)])
    for value in decoded:
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            assert names_one_of(text, {str(value)})


def test_no_depth_hides_an_id() -> None:
    assert names_one_of("[" * 50_000 + f'"{GONE}"' + "]" * 50_000, {GONE})


def test_the_verb_reads_ids_from_a_file(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(shop.home.root))
    (tmp_path / "ids.txt").write_text(f"{GONE}\n\n 4711 \n")
    command = ["quarantine", "erase", "--users", str(tmp_path / "ids.txt")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.output == f"{len(THEIRS)} lines of 2 ids removed from quarantine\n"
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert json.loads(done.output) == {"ids": 2, "lines_removed": 0}
    (tmp_path / "ids.txt").write_text("\n")
    for place in ("ids.txt", "none.txt"):
        failed = CliRunner().invoke(app, ["quarantine", "erase", "--users", str(tmp_path / place)])
        assert isinstance(failed.exception, InputError) and place in str(failed.exception)
