"""Delivery: each alert to each sink that wants it, once.

Belongs here: claim, send, mark, and what happens when a process dies between them. Does not belong here: how a sink
sends (sinks.py) or when delivery runs (a sensor).

The promise. A delivery is claimed in a transaction (unique key alert, sink), then sent, then marked. Processes that
deliver at the same time never send the same one. A process killed between send and mark leaves a stale claim, which
is retried after `retry_claim_after_minutes`: at least once, because an alert sent twice does less harm than one that
is lost. The file sink looks for the alert_id before it appends, so there it is exactly once; the log sink may then
repeat its line, and a webhook, Slack or a mailbox get it twice: the webhook's Idempotency-Key and the Message-ID of the
mail are the alert_id, by which a receiver can tell.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zantara_pipeline.alerts.config import AlertsConfig, EmailConfig, FileConfig, LogConfig, SinkConfig, SlackConfig
from zantara_pipeline.alerts.ledger import Alert, AlertLedger
from zantara_pipeline.alerts.sinks import OUTBOX, FileSink, LogSink, Sink, SinkError


@dataclass
class DeliveryResult:
    """What one call of `deliver` did, by sink name.

    delivered : number of alerts this call sent and marked.
    held : number of alerts that another process has just claimed, or died while sending (retried when stale).
    failed : why a sink refused; its remaining alerts wait for the next call, unless it refused one alert only.
    """

    delivered: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of deliveries made over all sinks."""
        return sum(self.delivered.values())


def deliver(
    ledger: AlertLedger,
    config: AlertsConfig,
    home: Path | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> DeliveryResult:
    """Send every alert that a configured sink has not had yet.

    Parameters
    ----------
    home : folder that holds `data/`; by default the one the ledger lies in (home/data/state/alerts.db).
    clock : the wall clock (UTC), which decides when a claim is stale.

    Notes
    -----
    An alert resolved before it could be delivered is still delivered, with its `resolved_at`. Severity overrides are
    applied here again, so that a changed alerts.yaml holds for alerts that are not delivered yet.
    """
    home = ledger.path.resolve().parents[2] if home is None else home
    result = DeliveryResult()
    for name, sink_config in config.sinks.items():
        sink = make_sink(sink_config, home)
        _deliver_to(name, sink, sink_config, ledger, config, clock, result)
    return result


def make_sink(config: SinkConfig, home: Path) -> Sink:
    """The sink that a configuration names. A new kind is a class of it (config.py), of the sink, and a line here."""
    if isinstance(config, LogConfig):
        return LogSink()
    if isinstance(config, FileConfig):
        return FileSink(home / OUTBOX)
    from zantara_pipeline.alerts.remote import (
        EmailSink,
        SlackSink,
        WebhookSink,
    )  # an HTTP client: 0.1 s of every command

    match config:
        case SlackConfig():
            return SlackSink(config)
        case EmailConfig():
            return EmailSink(config)
        case _:
            return WebhookSink(config)


def _deliver_to(
    name: str,
    sink: Sink,
    sink_config: SinkConfig,
    ledger: AlertLedger,
    config: AlertsConfig,
    clock: Callable[[], datetime],
    result: DeliveryResult,
) -> None:
    stale_after = timedelta(minutes=config.retry_claim_after_minutes)
    result.delivered[name] = result.held[name] = 0
    for alert in ledger.due(name):
        alert = Alert(**{**vars(alert), "severity": config.severity(alert.kind, alert.severity)})
        if not sink_config.wants(alert.severity):
            continue
        token, now = uuid.uuid4().hex, clock()
        if not ledger.claim(alert.alert_id, name, token, now, now - stale_after):
            result.held[name] += 1
            continue
        try:
            sink.send(alert)
        except SinkError as error:
            ledger.release(alert.alert_id, name, token, str(error))
            result.failed[name] = str(error)
            if error.of_alert:  # it stays due, and does not stand in the way of those behind it
                continue
            return
        if ledger.mark_delivered(alert.alert_id, name, token, clock()):
            result.delivered[name] += 1
