"""What a simulation is asked for, its clock and its random streams.

Belongs here: the arguments, their bounds, and values that follow from them alone. Does not belong here: anything drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from zlib import crc32

import numpy as np

from zantara_pipeline.errors import InputError

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Parameters:
    """Arguments of `simulate`. `events` counts lines, dirty ones included; days are whole UTC days from `start`."""

    events: int
    seed: int
    days_before: int
    days_during: int
    start: date

    def __post_init__(self) -> None:
        for name, least in (("events", 2_000), ("days_before", 7), ("days_during", 7), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}", where="simulate", todo=f"use {least} or more")
        if not 1980 <= self.start.year <= 2200:  # accounts are up to 400 days older; the epoch begins in 1970
            raise InputError(f"start is {self.start}", where="simulate", todo="use a date from 1980 to 2200")

    @property
    def days(self) -> int:
        return self.days_before + self.days_during

    @cached_property
    def start_ms(self) -> int:
        """Start of the first day, milliseconds since the epoch."""
        return int(datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC).timestamp()) * 1000

    @cached_property
    def end_ms(self) -> int:
        """Last millisecond of the last day."""
        return self.start_ms + self.days * DAY_MS - 1

    @property
    def experiments_start_ms(self) -> int:
        return self.start_ms + self.days_before * DAY_MS

    def day_name(self, day: int) -> str:
        return (self.start + timedelta(days=day)).isoformat()

    def rng(self, topic: str, day: int = 0) -> np.random.Generator:
        """One independent stream per topic and day: changing one topic leaves the others' bits alone."""
        return np.random.default_rng([self.seed, crc32(topic.encode()), day])


def iso(ms: int, offset_hours: int = 0) -> str:
    """ISO 8601 text of an instant, in UTC (`Z`) or written with a whole-hour offset."""
    seconds = (ms + offset_hours * HOUR_MS) // 1000
    zone = "Z" if offset_hours == 0 else f"{offset_hours:+03d}:00"
    return f"{datetime.fromtimestamp(seconds, tz=UTC).isoformat()[:19]}.{ms % 1000:03d}{zone}"
