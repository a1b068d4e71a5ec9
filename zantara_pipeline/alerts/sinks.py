"""Sinks: where an alert is sent.

Belongs here: what a sink is, and the two that stay on this machine. Does not belong here: sinks that reach another one
(remote.py), which kind a configuration names (delivery.py), which alert goes where and once-only bookkeeping
(delivery.py).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from pathlib import Path
from typing import BinaryIO, Protocol

from zantara_pipeline.alerts.ledger import Alert

OUTBOX = Path("data/alerts/outbox.jsonl")
"""The file sink's file, relative to the home."""

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


class SinkError(Exception):
    """A send that failed; the delivery is retried later.

    Parameters
    ----------
    of_alert : the sink took offence at this alert alone; others may pass.
    """

    def __init__(self, message: str, *, of_alert: bool = False) -> None:
        super().__init__(message)
        self.of_alert = of_alert


class Sink(Protocol):
    """Sends one alert; returns only when it is sent, else raises SinkError."""

    def send(self, alert: Alert) -> None: ...


class LogSink:
    """One line of Python logging (logger ``zantara_pipeline.alerts``) at the alert's severity."""

    def send(self, alert: Alert) -> None:
        message = " ".join(alert.message.split())
        logging.getLogger("zantara_pipeline.alerts").log(
            _LEVELS[alert.severity], "ALERT %s %s %s: %s [%s]",
            alert.severity, alert.kind, alert.subject, message, alert.alert_id,
        )  # fmt: skip


class FileSink:
    """Appends JSON lines to one file, each alert_id once whatever happens.

    A file lock makes "is it there already? append" one step for all processes; fsync makes it durable before the
    delivery is marked; a line torn by a crash is cut off before the next append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, alert: Alert) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel when the process ends, however it ends
                self._append_once(file, alert)
        except OSError as error:
            raise SinkError(f"{self.path}: {error.strerror}") from error

    def _append_once(self, file: BinaryIO, alert: Alert) -> None:
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
        if any(_alert_id(line) == alert.alert_id for line in content[:whole].splitlines()):
            return
        file.write((json.dumps(as_json(alert), ensure_ascii=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _alert_id(line: bytes) -> object:
    """The alert_id of an outbox line; None for a line that somebody else wrote."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value.get("alert_id") if isinstance(value, dict) else None


def as_json(alert: Alert) -> dict[str, object]:
    """The alert as a JSON-ready object, details unpacked; holds no wall clock."""
    resolved = None if alert.resolved_at is None else alert.resolved_at.isoformat()
    return {
        **vars(alert),
        "raised_at": alert.raised_at.isoformat(),
        "details": json.loads(alert.details),
        "resolved_at": resolved,
    }
