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


class SizeRules(Contract):
    """What contracts/segments.yaml says of sizes."""

    visible_margin_pct: float = Field(ge=0, le=1000)
    max_change_pct: float = Field(gt=0)


class SegmentRules(Contract):
    """contracts/segments.yaml."""

    size: SizeRules


def load_rules(dirs: Sequence[Path] = (PACKAGED,)) -> SizeRules:
    """Read segments.yaml; an InputError names file, line and key of the first thing wrong."""
    return parse_contract(SegmentRules, overlay_files(dirs, "segments.yaml")["segments.yaml"]).size


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
    """A segment at the clock of a run, beside what it was at the clock before (previous is None: it was not there).

    shown_from : the size from which a hidden segment is shown.
    """

    segment: Segment
    size: int
    visible: bool
    previous: int | None
    was_visible: bool
    since: str | None
    shown_from: int

    @property
    def is_restricted(self) -> bool:
        return self.segment.meta.access_level == "restricted"

    def told(self, size: int, visible: bool) -> str:
        """Sizes that the catalogue hides are not told by an alert either."""
        return f"{size:,}" if visible else f"fewer than {self.shown_from:,}"


def record_sizes(
    ledger: Ledger, segments: Sequence[Segment], sizes: Mapping[str, int], as_of: datetime, rules: SizeRules
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
            previous = None if is_past else before[1]
            found.append(Size(segment, size, visible, previous, bool(before[2]), before[0], meta.min_size + extra))
            if not is_past:
                row = (segment.name, now, size, int(visible))
                db.execute("INSERT OR REPLACE INTO segment_sizes VALUES (?, ?, ?, ?)", row)
    return found


def size_findings(sizes: Sequence[Size], rules: SizeRules) -> list[Finding]:
    """Segments that grew or shrank by more than the contract allows since the clock before."""
    return [
        _finding(size, size.previous, rules) for size in sizes if size.previous is not None and _jumped(size, rules)
    ]


def _jumped(size: Size, rules: SizeRules) -> bool:
    was, least = size.previous or 0, size.segment.meta.min_size
    worth_telling = max(was, size.size) >= least if size.is_restricted else size.visible or size.was_visible
    return worth_telling and abs(size.size - was) * 100 > max(was, least) * rules.max_change_pct


def _finding(size: Size, was: int, rules: SizeRules) -> Finding:
    # an alert carries no address; the part before the @ is the team's name
    owner, name = size.segment.meta.owner.partition("@")[0], size.segment.name
    if size.is_restricted:
        way = "grew" if size.size > was else "shrank"
        said, numbers = f"{way} by more than {rules.max_change_pct:g} %", {}
    else:
        numbers = {"was": size.told(was, size.was_visible), "is": size.told(size.size, size.visible)}
        said = f"went from {numbers['was']} to {numbers['is']} members"
    message = f"{name} {said} since {(size.since or '')[:10]}; its owner is {owner}"
    details = {"owner": owner, "since": size.since, **numbers}
    return Finding("segment_size", "warning", f"segment/{name}", message, details)
