"""From visits to landing lines: the envelope, delays, duplicates, and the planned dirt, one day at a time.

Belongs here: what a collector adds around an event, and the generator's own tally of what it planted. Does not belong
here: files (`landing`), the story of a visit (`visits`), and the rules of ingestion (`reference`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from zantara_pipeline.simulate.consent import ODD_KINDS, Consent
from zantara_pipeline.simulate.faults import FAULTS, UNPARSABLE, Plan
from zantara_pipeline.simulate.identity import BEFORE_LOGIN, Identity
from zantara_pipeline.simulate.parameters import DAY_MS, HOUR_MS, iso
from zantara_pipeline.simulate.visits import Draws, Shop, visit_events

_encode = msgspec.json.Encoder().encode
RESENT_MOST_MS = 6 * HOUR_MS


@dataclass
class Tally:
    """What the generator planted, counted as it goes (compare with what the reference finds)."""

    blank_lines: int = 0
    unparsable: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    faults_on_suppressed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    late: int = 0
    received_at_missing: int = 0
    suppressed: int = 0
    accepted: int = 0


@dataclass
class Pen:
    """Writes the lines of one day after the other; lines received on a later day wait for it in `waiting`."""

    shop: Shop
    consent: Consent
    plan: Plan
    identity: Identity
    tally: Tally = field(default_factory=Tally)
    waiting: dict[int, list[tuple[int, int, bytes]]] = field(default_factory=lambda: defaultdict(list))
    written: int = 0

    def write_day(self, day: int, visits: range) -> list[bytes]:
        """Every line received on `day`, in the order received; `visits` are those that begin on it."""
        draws = Draws(self.shop.parameters.rng("day", day))
        choices = self.shop.catalogue.choices(day)
        for visit in visits:
            self._write_visit(visit, choices, draws)
        return [line for _, _, line in sorted(self.waiting.pop(day, []))]

    def _write_visit(self, visit: int, choices: list[list[float]], draws: Draws) -> None:
        told = visit_events(self.shop, visit, choices, draws)
        envelope = self._envelope(visit, draws)
        flushed = int(self.shop.sessions.start_ms[visit] + self.shop.sessions.late_ms[visit])
        offline = self.shop.sessions.late_ms[visit] > 0
        again = self._pick(len(told), self.plan.duplicates.get(visit, 0), draws)
        silent = self._pick(len(told), self.plan.no_received.get(visit, 0), draws)
        for number, (at, name, properties) in enumerate(told):
            received = (flushed + HOUR_MS if offline else at) + int(next(draws.delay_ms))
            if name not in BEFORE_LOGIN:
                envelope["before"] = envelope["head"]
            line = self._line({**envelope, "head": envelope["before"]}, draws, name, properties, at, received)
            passes = self._passes(visit, name)
            self._count(passes, late=bool(offline))
            if number in silent and number not in again:
                del line["received_at"]
                line.pop("sent_at", None)
                received = at
                self.tally.received_at_missing += 1
            self._wait(received, _encode(line))
            for _ in range(again.get(number, 0)):
                self._resend(line, received, passes, draws)
        for _ in range(self.plan.blanks.get(visit, 0)):
            self._wait(told[0][0], b"")
            self.tally.blank_lines += 1
        for kind in self.plan.unparsable.get(visit, ()):
            at = told[0][0]
            whole = _encode(self._line(envelope, draws, told[0][1], told[0][2], at, at))
            self._wait(at, UNPARSABLE[kind](whole))
            self.tally.unparsable[kind] += 1
        for kind in self.plan.faults.get(visit, ()):
            self._write_fault(kind, visit, envelope, choices, draws)

    def _write_fault(
        self, kind: str, visit: int, envelope: dict[str, Any], choices: list[list[float]], draws: Draws
    ) -> None:
        at = int(self.shop.sessions.start_ms[visit]) + 1 + int(draws.u() * 600_000)
        received = at + int(next(draws.delay_ms))
        item = int(draws.u() * 8)  # the first products of the clusters are there from the start
        line = self._line(envelope, draws, "product_view", self.shop.catalogue.properties(item), at, received)
        reason, spoil = FAULTS[kind]
        spoil(line, received)
        self.tally.faults[kind] += 1
        if self.consent.ok_analytics[visit]:
            self.tally.reasons[reason] += 1
        else:
            self.tally.faults_on_suppressed += 1
            self.tally.suppressed += 1
        self._wait(received, _encode(line))

    def _resend(self, line: dict[str, Any], received: int, passes: bool, draws: Draws) -> None:
        """The same event again: half the time the very same bytes, else received some hours later."""
        if draws.u() < 0.5:
            later = received + 1 + int(draws.u() * RESENT_MOST_MS)
            received = later if later <= self.shop.parameters.end_ms else received
            line = {**line, "received_at": iso(received)}
        self._count(passes, late=False)
        self.tally.duplicates += passes
        self._wait(received, _encode(line))

    def _envelope(self, visit: int, draws: Draws) -> dict[str, Any]:
        """The part that all lines of a visit share, in the order of the published envelope."""
        people, user = self.shop.people, int(self.shop.sessions.user[visit])
        owner, device = self.identity.device_of.get(visit, (user, int(self.shop.sessions.device[visit])))
        nobody: dict[str, Any] = {
            "user_id": None,
            "anonymous_id": self.identity.private_id.get(visit, people.anonymous_id[owner][device]),
            "session_id": f"s-{next(draws.ids)[:18]}",
            "device_id": people.device_id[owner][device],
        }
        envelope = {**nobody, "user_id": people.user_id[user]}
        organisation = self.identity.organisation(people, user, int(self.shop.sessions.day[visit]))
        if organisation is not None:
            envelope["organisation_id"] = organisation
        if self.identity.anonymous[visit]:
            envelope = nobody
        context = {
            "platform": people.platform[owner][device],
            "country": people.country[user],
            "app_version": people.app_version[owner][device],
            "screen_size": "1170x2532",  # undeclared: to be dropped silently
        }
        shape = ODD_KINDS[self.consent.odd[visit]]
        consent: object = {
            "analytics": bool(self.consent.flag_analytics[visit]),
            "personalization": bool(self.consent.flag_personalization[visit]),
        }
        if shape == "null" or people.guest[user]:
            consent = None
        elif shape == "text":
            consent = "granted"
        elif shape == "text_flags":
            consent = {"analytics": "true", "personalization": "true"}
        tail: dict[str, object] = {"context": context}
        if shape != "missing":
            tail["consent"] = consent
        return {
            "head": envelope,
            "before": nobody if self.identity.login_later[visit] else envelope,
            "tail": tail,
            "offset": people.offset_hours[owner][device],
            "mobile": context["platform"] != "web",
        }

    def _line(
        self, envelope: dict[str, Any], draws: Draws, name: str, properties: dict[str, Any], at: int, received: int
    ) -> dict[str, Any]:
        line: dict[str, Any] = {
            "event_id": next(draws.ids),
            "event": name,
            "timestamp": iso(at, envelope["offset"]),
        }
        if envelope["mobile"]:
            line["sent_at"] = iso(max(at, received - 150))
        line["received_at"] = iso(received)
        line.update(envelope["head"])
        line["properties"] = properties
        line.update(envelope["tail"])
        return line

    def _passes(self, visit: int, name: str) -> bool:
        consent = self.consent
        return bool((consent.ok_personalization if name.startswith("recommendation") else consent.ok_analytics)[visit])

    def _count(self, passes: bool, late: bool) -> None:
        if passes:
            self.tally.accepted += 1
            self.tally.late += late
        else:
            self.tally.suppressed += 1

    @staticmethod
    def _pick(n: int, times: int, draws: Draws) -> Counter[int]:
        return Counter(int(draws.u() * n) for _ in range(times))

    def _wait(self, received: int, line: bytes) -> None:
        self.written += 1
        day = (received - self.shop.parameters.start_ms) // DAY_MS
        self.waiting[day].append((received, self.written, line))
