"""The published rules of entities, a second time, in plain Python: sessions, devices, organisations, whose an event is.

Belongs here: reading the accepted events by the rules of docs/how-entities-are-made.md, with loops and dicts. Does not
belong here: which lines are accepted (`reference`), what was planted (`identity`), and anything of the pipeline.

Two rules are not read here because nothing planted meets them: the collector's ids are never placeholders, and nobody
who browses without a login has ever denied analytics.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from zantara_pipeline.simulate.truth import EntityTruth

IDLE_S, LONGEST_S, MOST_PEOPLE = 30 * 60, 12 * 3600, 10


class Seen(NamedTuple):
    """What entities need of one accepted event; `at` in seconds since the epoch."""

    at: float
    event_id: str
    user: str | None
    anonymous: str
    device: str
    organisation: str | None


class Entities:
    """Everything that follows from the accepted events, copies left out."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = sorted(seen)
        self.sessions = self._sessions()
        self._logins: dict[str, list[Seen]] = defaultdict(list)  # anonymous id -> events with a login, in order
        for event in self.seen:
            if event.user is not None:
                self._logins[event.anonymous].append(event)

    def truth(self) -> EntityTruth:
        people = [_people(session) for session in self.sessions]
        on_device: dict[str, set[str]] = defaultdict(set)
        members: dict[str, dict[str, float]] = defaultdict(dict)
        for event in self.seen:
            if event.user is not None:
                on_device[event.device].add(event.user)
                if event.organisation is not None:
                    members[event.user][event.organisation] = event.at
        stitched = [
            (event, *self._person(event, there))
            for session, there in zip(self.sessions, people, strict=True)
            for event in session
        ]
        lines = sorted(f"{event.event_id} {person or ''}" for event, person, _ in stitched)
        return EntityTruth(
            shared_sessions=sum(len(there) > 1 for there in people),
            anonymous_sessions=sum(not there for there in people),
            shared_devices=sum(len(users) > 1 for users in on_device.values()),
            organisations=len({event.organisation for event in self.seen} - {None}),
            memberships=sum(len(mine) for mine in members.values()),
            former_memberships=sum(len(mine) - 1 for mine in members.values()),
            stitched_by=dict(sorted(Counter(why for _, _, why in stitched).items())),
            people_sha256=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        )

    def _sessions(self) -> list[list[Seen]]:
        """A device's events until it rests for more than half an hour, or has been busy for twelve hours."""
        by_device: dict[str, list[Seen]] = defaultdict(list)
        for event in self.seen:
            by_device[event.device].append(event)
        sessions: list[list[Seen]] = []
        for events in by_device.values():
            last = began = -float("inf")
            piece = 0
            for event in events:
                rested = event.at - last > IDLE_S
                if rested:
                    began, piece = event.at, 0
                if rested or (event.at - began) // LONGEST_S > piece:
                    piece = int((event.at - began) // LONGEST_S)
                    sessions.append([])
                sessions[-1].append(event)
                last = event.at
        return sessions

    def _person(self, event: Seen, there: set[str]) -> tuple[str | None, str]:
        """Whose an event is, and why; `there` are the people who logged in during its session."""
        if event.user is not None:
            return event.user, "login"
        if len(there) == 1:
            return next(iter(there)), "session"
        logins = self._logins.get(event.anonymous, [])
        users = _people(logins)
        if there or not users or len(users) > MOST_PEOPLE:
            return None, "nobody"
        earlier = bisect_right(logins, event.at, key=lambda login: login.at)
        if earlier:
            return logins[earlier - 1].user, "anonymous"
        return (logins[0].user, "anonymous") if len(users) == 1 else (None, "nobody")


def _people(events: Sequence[Seen]) -> set[str]:
    return {event.user for event in events if event.user is not None}
