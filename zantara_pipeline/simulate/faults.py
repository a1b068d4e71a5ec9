"""The dirt: one planted fault per line, each with the one reason that the published rules give it.

Belongs here: how each kind of bad line looks, and on which visits it is planted. Does not belong here: judging lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from zantara_pipeline.simulate.consent import Consent
from zantara_pipeline.simulate.parameters import DAY_MS, Parameters, iso
from zantara_pipeline.simulate.people import Ints
from zantara_pipeline.simulate.sessions import Sessions

Line = dict[str, Any]
FAULT_SHARE = 0.001  # of all lines, for each kind
UNPARSABLE_SHARE = 0.0008
DUPLICATE_SHARE = 0.01
BLANK_SHARE = 0.0002
NO_RECEIVED_SHARE = 0.002
ON_SUPPRESSED = 0.1  # of faults


def _event(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Line, int], None]:
    def make(line: Line, received_ms: int) -> None:
        line["event"] = name
        change(line["properties"])

    return make


def _stamp(text: Callable[[int], str]) -> Callable[[Line, int], None]:
    def make(line: Line, received_ms: int) -> None:
        line["timestamp"] = text(received_ms)

    return make


def _set(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda properties: properties.update({key: value})


def _only(**properties: object) -> Callable[[dict[str, Any]], None]:
    """Replace the product's properties, keeping product_id where it is asked for with None."""

    def change(old: dict[str, Any]) -> None:
        product_id = old["product_id"]
        old.clear()
        old.update({k: product_id if k == "product_id" and v is None else v for k, v in properties.items()})

    return change


# kind -> (reason code, how to make it of a clean product_view line)
FAULTS: dict[str, tuple[str, Callable[[Line, int], None]]] = {
    "price_as_text": ("wrong_type", _event("product_view", _set("price", "53.0"))),
    "quantity_as_text": ("wrong_type", _event("add_to_cart", _set("quantity", "2"))),
    "quantity_fractional": ("wrong_type", _event("purchase", _set("quantity", 1.5))),
    "load_ms_as_flag": ("wrong_type", _event("page_timing", _only(page="/home", load_ms=True))),
    "product_id_as_number": ("wrong_type", _event("rating", _only(product_id=1234, rating=4))),
    "unknown_property": ("unknown_key", _event("product_view", _set("discount_code", "SPRING"))),
    "product_id_missing": ("missing_key", _event("purchase", lambda properties: properties.pop("product_id"))),
    "load_ms_missing": ("missing_key", _event("page_timing", _only(page="/home"))),
    "product_id_null": ("null_not_allowed", _event("add_to_cart", _set("product_id", None))),
    "unknown_event": ("unknown_event", _event("Product Viewed", lambda properties: None)),
    "price_negative": ("below_minimum", _event("purchase", _set("price", -5.0))),
    "quantity_zero": ("below_minimum", _event("add_to_cart", _set("quantity", 0))),
    "load_ms_huge": ("above_maximum", _event("page_timing", _only(page="/home", load_ms=900_000))),
    "currency_lower_case": ("pattern_mismatch", _event("product_view", _set("currency", "eur"))),
    "tag_too_long": ("too_long", _event("item_tag", _only(product_id=None, tag="x" * 501))),
    "timestamp_garbled": ("bad_timestamp", _stamp(lambda ms: "yesterday evening")),
    "timestamp_impossible": ("bad_timestamp", _stamp(lambda ms: "2026-02-30T25:00:00Z")),
    "timestamp_in_the_future": ("future_timestamp", _stamp(lambda ms: iso(ms + 3 * DAY_MS))),
    "too_late": ("too_late", _stamp(lambda ms: iso(ms - (31 + ms % 14) * DAY_MS))),
}


def _invalid_utf8(line: bytes) -> bytes:
    return line.replace(b'"event":"', b'"event":"\xff\xfe', 1)


UNPARSABLE: dict[str, Callable[[bytes], bytes]] = {
    "truncated_json": lambda line: line[: len(line) * 2 // 3],
    "plain_text": lambda line: b"<html><body>502 Bad Gateway</body></html>",
    "invalid_utf8": _invalid_utf8,
    "json_array": lambda line: b"[" + line + b"]",
    "json_string": lambda line: msgspec.json.encode("heartbeat"),
}


@dataclass(frozen=True)
class Plan:
    """What to plant on which visit (index): kinds of fault, kinds of unparsable line, and counts of the others."""

    faults: dict[int, list[str]]
    unparsable: dict[int, list[str]]
    duplicates: dict[int, int]
    no_received: dict[int, int]
    blanks: dict[int, int]


def planned_lines(events: int) -> int:
    """Lines that the plan adds to the clean ones."""
    counts = _counts(events)
    return (
        counts["fault"] * len(FAULTS) + counts["unparsable"] * len(UNPARSABLE) + counts["duplicate"] + counts["blank"]
    )


def make_plan(parameters: Parameters, sessions: Sessions, consent: Consent) -> Plan:
    """Choose the visits. Late visits stay free of dirt, so that "late" counts late arrivals alone."""
    rng = parameters.rng("faults")
    counts = _counts(parameters.events)
    on_time = sessions.late_ms == 0
    passing = np.flatnonzero(on_time & consent.ok_analytics)
    failing = np.flatnonzero(on_time & ~consent.ok_analytics)
    stable = np.flatnonzero(on_time & consent.ok_analytics & consent.stable[sessions.user])
    faults: dict[int, list[str]] = defaultdict(list)
    for kind in FAULTS:
        # A moved timestamp may fall under another consent; on people who never change it does not matter.
        moved = kind.startswith("timestamp") or kind == "too_late"
        visits = rng.choice(stable if moved else passing, counts["fault"])
        if not moved and len(failing):
            swap = rng.random(len(visits)) < ON_SUPPRESSED
            swap[0] = False  # every kind gets past consent at least once
            visits[swap] = rng.choice(failing, int(swap.sum()))
        for visit in visits.tolist():
            faults[visit].append(kind)
    unparsable: dict[int, list[str]] = defaultdict(list)
    for kind in UNPARSABLE:
        for visit in rng.choice(len(sessions), counts["unparsable"]).tolist():
            unparsable[visit].append(kind)
    return Plan(
        faults=dict(faults),
        unparsable=dict(unparsable),
        duplicates=_tally(rng.choice(np.flatnonzero(on_time), counts["duplicate"])),
        no_received=_tally(rng.choice(passing, min(counts["no_received"], len(passing)), replace=False)),
        blanks=_tally(rng.choice(len(sessions), counts["blank"])),
    )


def _counts(events: int) -> dict[str, int]:
    shares = {
        "fault": FAULT_SHARE,
        "unparsable": UNPARSABLE_SHARE,
        "duplicate": DUPLICATE_SHARE,
        "no_received": NO_RECEIVED_SHARE,
        "blank": BLANK_SHARE,
    }
    return {name: max(2, round(share * events)) for name, share in shares.items()}


def _tally(visits: Ints) -> dict[int, int]:
    values, counts = np.unique(visits, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
