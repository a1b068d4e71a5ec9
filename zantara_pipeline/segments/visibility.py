"""Sizes of segments over time: whether a segment is readable outside the restricted store, and alerts about its size.

Belongs here: the rule of min_size with its hysteresis, remembering sizes, findings about them. Does not belong here:
hiding anything (reading.py says what readers see, storage/engine.py copies it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import Field

from zantara_pipeline.alerts import Finding
from zantara_pipeline.contracts_io import PACKAGED, overlay_files, parse_contract
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.segments.contract import Segment
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import Contract

KINDS = ("segment_size",)
# One person who comes and one who goes at the same time must not flip a small segment either.
LEAST_MARGIN = 2


class SegmentRules(Contract):
    """contracts/segments.yaml."""

    visible_margin_pct: float = Field(ge=0, le=1000)
    max_size_change_pct: float = Field(gt=0)


def load_rules(dirs: Sequence[Path] = (PACKAGED,)) -> SegmentRules:
    """Read segments.yaml; an InputError names file, line and key of the first thing wrong."""
    return parse_contract(SegmentRules, overlay_files(dirs, "segments.yaml")["segments.yaml"])


def margin(min_size: int, pct: float) -> int:
    """By how much a hidden segment must exceed min_size to be shown; a min_size of 1 hides nobody."""
    return 0 if min_size == 1 else max(LEAST_MARGIN, math.ceil(min_size * pct / 100))


def is_visible(size: int, min_size: int, extra: int, was_visible: bool) -> bool:
    """Shown from min_size + extra on, hidden below min_size, and in between as it was before.

    So between two flips the size changed by more than `extra`.
    """
    return size >= (min_size if was_visible else min_size + extra)


@dataclass(frozen=True)
class Size:
    """A segment at the clock of a run, beside what it was at the clock before (None: it was not there)."""

    segment: Segment
    size: int
    visible: bool
    previous: int | None
    since: str | None

    def told(self, size: int) -> str:
        smallest = self.segment.meta.min_size
        return f"{size:,}" if size >= smallest else f"fewer than {smallest:,}"


def record_sizes(
    ledger: Ledger, segments: Sequence[Segment], sizes: Mapping[str, int], as_of: datetime, rules: SegmentRules
) -> list[Size]:
    """Remember sizes at this clock and decide what is visible; the same run again decides the same.

    A clock before the latest remembered one (the past built anew) is not remembered, and shows only what is shown now.
    """
    now, found = utc_text(as_of), []
    with ledger.transaction() as db:
        latest = db.execute("SELECT max(as_of) FROM segment_sizes").fetchone()[0]
        is_past = latest is not None and latest > now
        for segment in segments:
            size, meta = sizes[segment.name], segment.meta
            before = db.execute(
                f"SELECT as_of, size, visible FROM segment_sizes WHERE segment = ? AND as_of {'<=' if is_past else '<'} ? "
                "ORDER BY as_of DESC LIMIT 1", [segment.name, latest if is_past else now],
            ).fetchone() or (None, None, False)  # fmt: skip
            extra = margin(meta.min_size, rules.visible_margin_pct)
            visible = is_visible(size, meta.min_size, extra, bool(before[2])) and (not is_past or bool(before[2]))
            visible = visible and meta.access_level != "restricted"
            found.append(Size(segment, size, visible, None if is_past else before[1], before[0]))
            if not is_past:
                row = (segment.name, now, size, int(visible))
                db.execute("INSERT OR REPLACE INTO segment_sizes VALUES (?, ?, ?, ?)", row)
    return found


def size_findings(sizes: Sequence[Size], rules: SegmentRules) -> list[Finding]:
    """Segments that grew or shrank by more than the contract allows since the clock before."""
    return [_finding(size, size.previous) for size in sizes if size.previous is not None and _jumped(size, rules)]


def _jumped(size: Size, rules: SegmentRules) -> bool:
    was, least = size.previous or 0, size.segment.meta.min_size
    if was < least and size.size < least:
        return False
    return abs(size.size - was) * 100 > max(was, least) * rules.max_size_change_pct


def _finding(size: Size, was: int) -> Finding:
    # an alert carries no address; the part before the @ is the team's name
    owner, name = size.segment.meta.owner.partition("@")[0], size.segment.name
    day = (size.since or "")[:10]
    message = f"{name} went from {size.told(was)} to {size.told(size.size)} members since {day}; its owner is {owner}"
    details = {"owner": owner, "was": size.told(was), "is": size.told(size.size), "since": size.since}
    return Finding("segment_size", "warning", f"segment/{name}", message, details)
