"""Whatever values a sender uses as keys or as names of events: none of them is told anywhere but in the payload."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from event_lines import PLAN, Shop, event
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.tracking.quarantine import kinds
from zantara_pipeline.tracking.watch import findings

names = st.sampled_from(["Joe", "Bloggs", "Ana", "Müller", "Nguyen", "Óscar"])
secrets = st.one_of(
    st.integers(10**5, 10**15).map(str),
    st.builds("{}_{}".format, st.sampled_from(["user", "u", "id", "visitor"]), st.integers(10, 10**9)),
    st.builds("{}-{}".format, st.sampled_from(["u", "cust"]), st.integers(10, 10**9)),
    st.uuids().map(str),
    st.uuids().map(lambda u: u.hex),
    st.binary(min_size=5, max_size=32).map(bytes.hex).filter(lambda h: len(re.findall("[0-9]", h)) != 1),
    st.builds("{}.{}@example.com".format, names, names),
    st.builds("{}{}@example.com".format, names, st.integers(0, 99)),
    st.builds("+{} {} {}".format, st.integers(1, 99), st.integers(100, 999), st.integers(10**4, 10**8)),
    st.builds("{} {}".format, names, names),
    st.builds("{} {}-{}".format, names, names, names),
)


def line(number: int, secret: str, place: str) -> dict[str, Any]:
    whole = event("product_view", {"product_id": "p"}, event_id=f"e-{number}", user_id=None)
    if place == "event":
        return whole | {"event": secret}
    (whole if place == "top" else whole["properties"])[secret] = 1
    return whole


def told(shop: Shop) -> Iterator[str]:
    """Everything that is kept or printed beside payloads: ledger, rows, alerts, verbs."""
    for (table,) in shop.query("SELECT name FROM sqlite_master WHERE type = 'table'"):
        yield str(shop.query(f"SELECT * FROM {table}"))
    for row in shop.quarantined():
        yield str({name: value for name, value in row.items() if name != "payload_raw"})
    yield str(findings(shop.home, shop.ledger, PLAN, datetime(2026, 3, 2, tzinfo=UTC)))
    with patch.dict("os.environ", {"ZANTARA_HOME": str(shop.home.root)}):
        verbs = [["list"], ["list", "--json"], ["diff"], *(["show", kind.fingerprint] for kind in kinds(shop.home))]
        for verb in verbs:
            done = CliRunner().invoke(app, ["quarantine", *verb], catch_exceptions=False)
            assert done.exit_code == 0
            yield done.output


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(secrets, min_size=4, max_size=12, unique=True))
@example(["user_12345", "joe@example.com", "deadbeef", "u-17", "Joe Bloggs", "+49 151 2345678"])
def test_no_value_that_stands_as_a_key_is_told(values: list[str]) -> None:
    places = [(value, place) for value in values for place in ("top", "properties")]
    places += [(value, "event") for value in values if not re.fullmatch(r"[^\W\d]+( |-)[^\W\d]+.*", value)]
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        shop.land("a.jsonl", [line(number, *place) for number, place in enumerate(places)])
        shop.ingest()
        rows = shop.quarantined()
        assert len(rows) == len(places)
        assert all(value in str([row["payload_raw"] for row in rows]) for value in values), "the control"
        by_place: dict[str, set[str]] = {}
        for row in rows:
            by_place.setdefault(places[row["line_no"] - 1][1], set()).add(row["fingerprint"])
        assert all(len(found) == 1 for found in by_place.values()), "a fingerprint does not depend on the value"
        hashes = re.compile(r"[0-9a-f]{16,64}")
        everything = "\n".join(told(shop))
        everything = hashes.sub(lambda m: "" if m[0] not in values else m[0], everything)
        assert [value for value in values if value in everything] == []
