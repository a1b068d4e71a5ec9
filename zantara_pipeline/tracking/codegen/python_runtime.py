"""The part of the Python tracking client that is the same for every plan; `python_client.py` puts typed events before it.

Needs the standard library only, so that the generated file can be copied into any application.

Belongs here: envelope, consent, batches, retries, sinks. Does not belong here: anything that depends on the plan.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import re
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

Event = dict[str, Any]
_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "number": _NUMBER, "money": _NUMBER, "integer": (int,), "boolean": (bool,),
}  # fmt: skip


# What the warehouse's BIGINT, DECIMAL(18,4) and DOUBLE hold.
_LIMITS: dict[str, tuple[float, float]] = {
    "number": (-sys.float_info.max, sys.float_info.max),
    "integer": (-(2**63), 2**63 - 1), "money": (-99_999_999_999_999.9, 99_999_999_999_999.9),
}  # fmt: skip
_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "enum": lambda value, limit: value in limit,
    "pattern": lambda value, limit: re.fullmatch(limit, value) is not None,
    "max_length": lambda value, limit: len(value) <= limit,
    "min": lambda value, limit: value >= limit,
    "max": lambda value, limit: value <= limit,
}


# The contract's limit; the pipeline quarantines an event with a longer one.
_ID_LENGTH = 1_000
_Text = TypeVar("_Text")


class _Id(Generic[_Text]):
    """An id of the envelope. Checked when it is set: an event that was accepted can be written, whatever it carries."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.kept = name, f"_{name}"

    def __get__(self, client: Any, owner: type | None = None) -> _Text:
        text: _Text = getattr(client, self.kept)
        return text

    def __set__(self, client: Any, value: _Text) -> None:
        problem = None if value is None else _text_problem(value)
        if isinstance(value, str) and len(value) > _ID_LENGTH:
            problem = problem or f"must have {_ID_LENGTH:,} characters at most"
        if problem:
            raise ValueError(f"the id '{self.name}' {problem}")
        setattr(client, self.kept, value)


class Sink(Protocol):
    """Where batches go. Raises OSError when it cannot take one now; the client tries again later."""

    def send(self, events: Sequence[Event]) -> None: ...


class FileSink:
    """Appends to a file that the pipeline ingests as it is (one JSON object a line). What fits in part is taken back."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def send(self, events: Sequence[Event]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(
            json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in events
        ).encode()
        with self.path.open("ab+", buffering=0) as handle:  # without a buffer: what was written is known
            before = handle.seek(0, os.SEEK_END)
            if before and _last_byte(handle) != b"\n":
                lines = b"\n" + lines  # somebody was killed while writing: their piece shall take no line with it
            _write_or_take_back(handle, lines, before)


def _last_byte(handle: FileIO) -> bytes:
    handle.seek(-1, os.SEEK_END)
    return handle.read(1)


def _write_or_take_back(handle: FileIO, lines: bytes, before: int) -> None:
    written = 0
    try:
        while written < len(lines):
            written += handle.write(lines[written:])
    except OSError:  # a full disk takes what fits; the batch comes again whole
        with suppress(OSError):
            if handle.seek(0, os.SEEK_END) == before + written:  # else another process has appended meanwhile
                handle.truncate(before)
        raise


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a POST that is redirected by 301, 302 or 303 becomes a GET without the events."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class HttpSink:
    """Posts a batch as lines of JSON to a collector; any answer but 2xx counts as not taken, a redirect too."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url, self.timeout_s = url, timeout_s
        self._opener = urllib.request.build_opener(_Stay)

    def send(self, events: Sequence[Event]) -> None:
        body = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/x-ndjson"})
        try:
            with self._opener.open(request, timeout=self.timeout_s):
                pass
        except http.client.HTTPException as error:  # BadStatusLine, say; no OSError, which urllib makes of the others
            raise ConnectionError("the collector's answer is no HTTP") from error


class ClientCore:
    """Builds envelopes, holds events back until a batch is full, and never sends without consent.

    Parameters
    ----------
    sink : where batches go.
    consent : purpose -> whether the person allows it now, or a function that is asked for this at every event. A purpose
        not in it is not allowed.
    batch_size : events per batch.
    tries : attempts per batch; between them the client waits 0.5, 1, 2, ... seconds, 30 at most, less up to a half by
        chance. What cannot be sent is kept, `most_held` events at most; beyond that the oldest are dropped and counted.
        Until a batch is taken `track` tries once after each pause, and the pauses go on growing where the waits ended;
        `flush` always tries.
    chance : a number from 0 up to 1.
    clock : seconds that only grow.
    """

    PLAN: Mapping[str, Mapping[str, Any]] = {}
    PURPOSES: tuple[str, ...] = ()
    device_id = _Id[str | None]()
    anonymous_id = _Id[str | None]()
    user_id = _Id[str | None]()
    organisation_id = _Id[str | None]()
    session_id = _Id[str]()

    def __init__(
        self,
        sink: Sink,
        consent: Mapping[str, bool] | Callable[[], Mapping[str, bool]],
        *,
        batch_size: int = 20,
        tries: int = 4,
        most_held: int = 10_000,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sink, self.batch_size, self.tries = sink, batch_size, tries
        self.consent = _asked(consent)
        self.most_held, self._sleep, self._chance, self._clock = most_held, sleep, chance, clock
        self._failures = 0  # attempts since a batch was taken
        self._not_before = -math.inf  # when `track` may send again
        self.device_id = self.anonymous_id = self.user_id = self.organisation_id = None
        self.session_id = str(uuid.uuid4())
        self._context: dict[str, str] = {}
        self.dropped = 0
        self._held: list[Event] = []

    @property
    def context(self) -> dict[str, str]:
        """Comes with every event."""
        return self._context

    @context.setter
    def context(self, context: dict[str, str]) -> None:
        self._context = _checked_context(context)

    def identify(self, user_id: str | None) -> None:
        """From here on events belong to this person; None after they logged out. ValueError: no text for an id."""
        self.user_id = user_id

    def new_session(self) -> None:
        """Start another session."""
        self.session_id = str(uuid.uuid4())

    def set_consent(self, consent: Mapping[str, bool]) -> None:
        """What the person allows from here on; what is held and not allowed any more is dropped."""
        self.consent = _asked(consent)
        self._drop_withdrawn()

    def _track(self, event: str, properties: Mapping[str, Any], category: str) -> str | None:
        """Queue one event; returns its id, or None where consent forbids it.

        Raises
        ------
        ValueError : the event is not what the plan says; names the property, never its value.
        """
        self._check(event, properties, category)
        context = _checked_context(self._context)  # again: who has it may change it in place
        allowed = self.consent()
        if allowed.get(category) is not True:
            self._held = [held for held in self._held if self._category(held) != category]
            return None
        event_id = str(uuid.uuid4())
        ids = {
            "user_id": self.user_id, "anonymous_id": self.anonymous_id, "session_id": self.session_id,
            "device_id": self.device_id, "organisation_id": self.organisation_id,
        }  # fmt: skip
        envelope: Event = {"event_id": event_id, "event": event, "timestamp": _now()}
        envelope |= {name: value for name, value in ids.items() if value is not None}
        envelope["properties"] = dict(properties)
        if context:
            envelope["context"] = context
        envelope["consent"] = {purpose: allowed.get(purpose) is True for purpose in self.PURPOSES}
        self._held.append(envelope)
        self._drop_oldest()
        if len(self._held) >= self.batch_size and self._clock() >= self._not_before:
            # The pause was the wait: 4 tries would hold the application up for 3.5 s more, again and again.
            self._send_held(1 if self._failures else self.tries)
        return event_id

    def flush(self) -> bool:
        """Send what is held; True when nothing is left. Events whose consent was withdrawn since are dropped."""
        return self._send_held(self.tries)

    def _send_held(self, tries: int) -> bool:
        attempt = 0
        while True:
            self._drop_withdrawn()  # before every attempt: a person may have withdrawn while the client was waiting
            if not self._held:
                return True
            batch = [event | {"sent_at": _now()} for event in self._held[: self.batch_size]]
            try:
                self.sink.send(batch)
            except OSError:
                attempt += 1
                self._failures += 1
                if attempt >= tries:
                    self._not_before = self._clock() + self._wait_after(self._failures)
                    return False
                self._sleep(self._wait_after(attempt))
            else:
                attempt = self._failures = 0
                self._not_before = -math.inf
                del self._held[: len(batch)]

    def _wait_after(self, failures: int) -> float:
        """Seconds: 0.5, 1, 2, ..., from the seventh failure on 30."""
        return min(0.5 * 2.0 ** min(failures - 1, 6), 30) * (1 - self._chance() / 2)

    def _category(self, event: Event) -> str:
        return str(self.PLAN[event["event"]]["consent"])

    def _drop_withdrawn(self) -> None:
        allowed = self.consent()
        self._held = [event for event in self._held if allowed.get(self._category(event)) is True]

    def _drop_oldest(self) -> None:
        surplus = max(0, len(self._held) - self.most_held)
        self.dropped += surplus
        del self._held[:surplus]

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
    problem = _problem(rule, properties[name])
    if problem:
        raise ValueError(f"{event}: the property '{name}' {problem}")


def _problem(rule: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a value; never the value itself."""
    if value is None:
        return None if rule.get("nullable") else "must not be null"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    kinds = _KINDS[rule["type"]]
    low, high = _LIMITS.get(rule["type"], (-math.inf, math.inf))
    wrong_kind = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
    if wrong_kind or (rule["type"] in _LIMITS and not low <= value <= high):
        return f"must be of type '{rule['type']}'"
    if isinstance(value, str) and (unfit := _text_problem(value)):
        return unfit
    for key, holds in _HOLDS.items():
        if key in rule and not holds(value, rule[key]):
            return f"breaks the plan's '{key}'"
    return None


def _text_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be of type 'string'"
    return "must be text that UTF-8 can carry" if any("\ud800" <= char <= "\udfff" for char in value) else None


def _checked_context(context: Mapping[str, str | None]) -> dict[str, str]:
    """A copy without what is None."""
    kept: dict[str, str] = {}
    for name, value in context.items():
        if problem := _text_problem(name):
            raise ValueError(f"a name in the context {problem}")
        if value is None:
            continue
        if problem := _text_problem(value):
            raise ValueError(f"the context '{name}' {problem}")
        kept[name] = value
    return kept


def _asked(consent: Mapping[str, bool] | Callable[[], Mapping[str, bool]]) -> Callable[[], Mapping[str, bool]]:
    """What is no state of consent (None, from a person who was never asked) allows nothing."""
    if callable(consent):
        ask = consent
        return lambda: _state(ask())
    state = dict(_state(consent))
    return lambda: state


def _state(answer: object) -> Mapping[str, bool]:
    return answer if isinstance(answer, Mapping) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
