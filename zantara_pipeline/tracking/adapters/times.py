"""Times of other tools: reading them and writing them as the envelope wants them.

Belongs here: text and numbers to UTC and back, and the correction of a device's clock. Does not belong here: which field
is which (the formats).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(value: Any, *, zone_is_utc: bool = False) -> datetime | None:
    """A time from ISO 8601 text ('T' or a blank between date and time, also '... UTC'); None where it is none.

    zone_is_utc : a text without a zone is UTC; else it is no time.
    """
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.removesuffix(" UTC") + ("+00:00" if value.endswith(" UTC") else ""))
        if found.tzinfo is None:
            return found.replace(tzinfo=UTC) if zone_is_utc else None
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def from_micros(value: Any) -> datetime | None:
    """Microseconds since 1970, as a number or its digits."""
    try:
        return _EPOCH + timedelta(microseconds=int(value)) if isinstance(value, (int, str)) else None
    except (ValueError, OverflowError):
        return None


def rfc3339(moment: datetime) -> str:
    """As short as it can be without loss: seconds, milliseconds or microseconds."""
    spec = "seconds" if not moment.microsecond else "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")


def corrected(received: datetime, created: datetime, sent: datetime) -> datetime:
    """When it happened by the collector's clock: received - (sent - created), both of those by the device's clock.

    As Snowplow (derived_tstamp) and Segment (timestamp) define it. A device that sent before it created has jumped its
    clock; the time of receipt is then the best that is known.
    """
    waited = sent - created
    try:
        return received - max(waited, timedelta(0))
    except OverflowError:
        return received
