"""The part of the Python tracking client that is the same for every plan; `python_client.py` puts typed events before it.

Needs the standard library only, so that the generated file can be copied into any application.

Belongs here: envelope, consent, batches, retries, sinks. Does not belong here: anything that depends on the plan.
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

Event = dict[str, Any]
_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "number": _NUMBER, "money": _NUMBER, "integer": (int,), "boolean": (bool,),
}  # fmt: skip


_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "enum": lambda value, limit: value in limit,
    "pattern": lambda value, limit: re.fullmatch(limit, value) is not None,
    "max_length": lambda value, limit: len(value) <= limit,
    "min": lambda value, limit: value >= limit,
    "max": lambda value, limit: value <= limit,
}


class Sink(Protocol):
    """Where batches go. Raises OSError when it cannot take one now; the client tries again later."""

    def send(self, events: Sequence[Event]) -> None: ...


class FileSink:
    """Appends to a file that the pipeline ingests as it is (one JSON object a line)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, events: Sequence[Event]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as handle:
            handle.writelines(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in events)


class HttpSink:
    """Posts a batch as lines of JSON to a collector; any answer but 2xx counts as not taken."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url, self.timeout_s = url, timeout_s

    def send(self, events: Sequence[Event]) -> None:
        body = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/x-ndjson"})
        with urllib.request.urlopen(request, timeout=self.timeout_s):
            pass


class ClientCore:
    """Builds envelopes, holds events back until a batch is full, and never sends without consent.

    Parameters
    ----------
    sink : where batches go.
    consent : asked at every event: purpose -> whether the person allows it now. A purpose not in it is not allowed.
    batch_size : events per batch.
    tries : attempts per batch; between them the client waits 0.5, 1, 2, ... seconds. What cannot be sent is kept and
        tried again with the next batch, `most_held` events at most; beyond that the oldest are dropped and counted.
    """

    PLAN: Mapping[str, Mapping[str, Any]] = {}
    PURPOSES: tuple[str, ...] = ()

    def __init__(
        self,
        sink: Sink,
        consent: Callable[[], Mapping[str, bool]],
        *,
        batch_size: int = 20,
        tries: int = 4,
        most_held: int = 10_000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sink, self.consent, self.batch_size, self.tries = sink, consent, batch_size, tries
        self.most_held, self._sleep = most_held, sleep
        self.device_id: str | None = None
        self.anonymous_id: str | None = None
        self.user_id: str | None = None
        self.organisation_id: str | None = None
        self.session_id = str(uuid.uuid4())
        self.context: dict[str, str] = {}
        self.dropped = 0
        self._held: list[Event] = []

    def identify(self, user_id: str | None) -> None:
        """From here on events belong to this person; None after they logged out."""
        self.user_id = user_id

    def new_session(self) -> None:
        """Start another session."""
        self.session_id = str(uuid.uuid4())

    def _track(self, event: str, properties: Mapping[str, Any], category: str) -> str | None:
        """Queue one event; returns its id, or None where consent forbids it.

        Raises
        ------
        ValueError : the event is not what the plan says; names the property, never its value.
        """
        self._check(event, properties, category)
        allowed = self.consent()
        if allowed.get(category) is not True:
            return None
        event_id = str(uuid.uuid4())
        ids = {
            "user_id": self.user_id, "anonymous_id": self.anonymous_id, "session_id": self.session_id,
            "device_id": self.device_id, "organisation_id": self.organisation_id,
        }  # fmt: skip
        envelope: Event = {"event_id": event_id, "event": event, "timestamp": _now()}
        envelope |= {name: value for name, value in ids.items() if value is not None}
        envelope["properties"] = dict(properties)
        if self.context:
            envelope["context"] = dict(self.context)
        envelope["consent"] = {purpose: allowed.get(purpose) is True for purpose in self.PURPOSES}
        self._held.append(envelope)
        if len(self._held) >= self.batch_size:
            self.flush()
        return event_id

    def flush(self) -> bool:
        """Send what is held; True when nothing is left. Events whose consent was withdrawn since are dropped."""
        while self._held:
            allowed = self.consent()
            self._held = [e for e in self._held if allowed.get(self.PLAN[e["event"]]["consent"]) is True]
            batch = [event | {"sent_at": _now()} for event in self._held[: self.batch_size]]
            if not batch:
                break
            if not self._send(batch):
                surplus = max(0, len(self._held) - self.most_held)
                self.dropped += surplus
                del self._held[:surplus]
                return False
            del self._held[: len(batch)]
        return True

    def _send(self, batch: Sequence[Event]) -> bool:
        for attempt in range(self.tries):
            try:
                self.sink.send(batch)
                return True
            except OSError:
                if attempt + 1 < self.tries:
                    self._sleep(0.5 * 2**attempt)
        return False

    def _check(self, event: str, properties: Mapping[str, Any], category: str) -> None:
        plan = self.PLAN.get(event)
        if plan is None:
            raise ValueError(f"'{event}' is no event of the tracking plan")
        if category not in self.PURPOSES:
            raise ValueError(f"'{category}' is no consent category; known: {', '.join(self.PURPOSES)}")
        if category != plan["consent"]:
            raise ValueError(f"{event} needs the consent '{plan['consent']}', not '{category}'")
        rules = plan["properties"]
        for name in properties:
            if name not in rules:
                raise ValueError(f"{event}: the plan declares no property '{name}'")
        for name, rule in rules.items():
            _check_property(event, name, rule, properties)


def _check_property(event: str, name: str, rule: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    if name not in properties:
        if rule.get("required"):
            raise ValueError(f"{event}: the property '{name}' is missing")
        return
    value = properties[name]
    if value is None:
        if not rule.get("nullable"):
            raise ValueError(f"{event}: the property '{name}' must not be null")
        return
    kinds = _KINDS[rule["type"]]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{event}: the property '{name}' must be a {rule['type']}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{event}: the property '{name}' must be a finite number")
    for key, holds in _HOLDS.items():
        if key in rule and not holds(value, rule[key]):
            raise ValueError(f"{event}: the property '{name}' breaks the plan's '{key}'")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
