"""What real shops get wrong, told as reasons that an analyst understands.

Nearly all of it was sent by guests without consent, so a real run suppresses it before the plan is asked; here everybody
consents. What is expected was counted from the raw files by Python's own JSON reader.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from event_lines import RULES

from zantara_pipeline.tracking.validate import validate_file

EVENTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "events_sample" / "events"
CONSENT = {"analytics": True, "personalization": True}
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not EVENTS.is_dir(), reason="the sample of real events is not beside the project"),
]


def expected_reasons(line: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The two rules of the plan that real purchases break: at least one unit, at no negative price."""
    event, properties = line["event"], line["properties"]
    found = []
    if event == "purchase" and properties.get("quantity") is not None and properties["quantity"] < 1:
        found.append((event, "below_minimum", "$.properties.quantity"))
    if properties.get("price") is not None and Decimal(str(properties["price"])) < 0:
        found.append((event, "below_minimum", "$.properties.price"))
    return found


def lines_of(shop: str) -> Iterator[dict[str, Any]]:
    for path in sorted((EVENTS / shop).glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


@pytest.mark.parametrize("shop", ["retailrocket", "rees46", "uci_online_retail", "movielens"])
def test_the_dirt_of_a_real_shop_is_named(shop: str, tmp_path: Path) -> None:
    everything = tmp_path / "all.jsonl"
    rows, failing, reasons = 0, 0, Counter[tuple[str, str, str]]()
    with everything.open("w", encoding="utf-8") as out:
        for line in lines_of(shop):
            expected = expected_reasons(line)
            rows, failing = rows + 1, failing + bool(expected)
            reasons.update(expected)
            out.write(json.dumps(line | {"consent": CONSENT}, ensure_ascii=False) + "\n")
    found = validate_file(everything, RULES, threads=2)
    assert {(event, code, where): n for (event, code, where, _), n in found.reasons.items()} == dict(reasons)
    assert (found.counts.rows_in, found.counts.quarantined) == (rows, failing)
    assert found.counts.accepted == rows - failing
    if shop == "uci_online_retail":
        assert reasons[("purchase", "below_minimum", "$.properties.quantity")] > 0  # the dirtiest of the four is dirty
