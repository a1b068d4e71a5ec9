"""Properties that are kept for fewer days than their event, as quarantined lines may carry them.

The lake makes such a value null when its days are over. A quarantined line is kept as it came, so the line goes whole:
taking single values out of lines that are wrong by definition would have to find where each value ends.

What fails is what a sender got wrong. So a property is sought by its name at every depth and in every spelling that
differs in capitals, underscores and hyphens only, under its earlier names, and in lines of other and unknown events too,
unless the line's own event declares that name: then its own days count (payloads.py seeks direct identifiers alike).
Where a payload hides its names, every such property counts as carried: a line goes early rather than late.

Belongs here: those names and their days, as SQL over a quarantine row. Does not belong here: when a line is over
(quarantine_expiry.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

# Between the letters of a name: anything that is folded away, escapes of JSON that no letter is among included.
_GAP = r'(?:\\["\\/bfnrt]|[^a-z0-9"])*'
# Names cannot be told where letters are escaped (nobody escapes those of ASCII by accident), or where `properties` is a
# list, a text or a number.
_HIDDEN = r'(?i)\\u00[3-7]|"properties"\s*:\s*["\[0-9tf-]'


@dataclass(frozen=True)
class ShortLived:
    """One name, folded to small letters and digits.

    own : event that declares it -> days there (None: as long as the event).
    """

    name: str
    own: tuple[tuple[str, int | None], ...]

    @property
    def shortest(self) -> int:
        return min(days for _, days in self.own if days is not None)

    def days_sql(self) -> str:
        """SQL over a quarantine row: the days that a payload with this name may be kept; null where it has none."""
        cases = "".join(f" WHEN {quote(event)} THEN {'NULL' if days is None else days}" for event, days in self.own)
        key = f'(?i)"{_GAP}{_GAP.join(self.name)}{_GAP}"\\s*:'
        carried = f"regexp_matches(payload_raw, {quote(key)}) OR regexp_matches(payload_raw, {quote(_HIDDEN)})"
        return f"CASE WHEN {carried} THEN CASE event{cases} ELSE {self.shortest} END END"


def short_lived(plan: TrackingPlan) -> list[ShortLived]:
    """Names of all properties that some event keeps for a time of their own, in the order of their names."""
    found: dict[str, dict[str, int | None]] = {}
    for event in plan.events.values():
        for name, prop in event.properties.items():
            for known in (name, *event.names_before(name)):
                days = found.setdefault(_folded(known), {})
                both = [d for d in (days.get(event.event), prop.retention_days) if d is not None]
                days[event.event] = min(both, default=None)
    return [
        ShortLived(name, tuple(sorted(days.items())))
        for name, days in sorted(found.items())
        if any(kept is not None for kept in days.values())
    ]


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
