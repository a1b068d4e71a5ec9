"""Sinks that reach another machine: a webhook, Slack, a mail server.

Each send is tried three times while the other side is away or busy; then the alert stays due, and the next delivery (a
sensor, every half minute) tries again. Addresses and passwords come from the environment and never appear in an error: of
a request that failed only the kind of failure is told.

Belongs here: what goes over the wire, and which answers count as sent. Does not belong here: once-only bookkeeping
(delivery.py).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import smtplib
import ssl
import time
from collections.abc import Callable
from email.message import EmailMessage
from typing import TypeVar

import requests

from zantara_pipeline.alerts.config import EmailConfig, SlackConfig, WebhookConfig
from zantara_pipeline.alerts.ledger import Alert
from zantara_pipeline.alerts.sinks import SinkError, as_json

ATTEMPTS = 3
PAUSE = 0.5
"""Seconds before the second attempt; twice as many before the third."""
LONGEST_PAUSE = 5.0
"""A busy server may ask for more (Retry-After): then the next delivery tries again."""
Result = TypeVar("Result")

_SLACK_MARKS = {"info": ":information_source:", "warning": ":warning:", "critical": ":rotating_light:"}
_SLACK_LONGEST = 2900
"""Characters of a section's text, of 3,000 that Slack takes."""


class _Away(Exception):
    """The other side is away or busy; another attempt may reach it.

    Parameters
    ----------
    pause : seconds that it asked for.
    """

    def __init__(self, message: str, pause: float = 0) -> None:
        super().__init__(message)
        self.pause = pause


class WebhookSink:
    """POSTs the alert as JSON, as a line of the outbox has it.

    Headers: Idempotency-Key is the alert_id; with a signing key X-Zantara-Signature is `sha256=` and the HMAC-SHA256 of
    the body in hex. 2xx counts as sent. A redirect does not: it would carry the alert to an address that nobody configured.
    """

    def __init__(self, config: WebhookConfig) -> None:
        self.config = config

    def send(self, alert: Alert) -> None:
        body = json.dumps(as_json(alert), ensure_ascii=False).encode()
        headers = {"Idempotency-Key": alert.alert_id}
        if self.config.signing_key_from is not None:
            key = _secret(self.config.signing_key_from).encode()
            headers["X-Zantara-Signature"] = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
        _post(self.config.url_from, body, headers, self.config.timeout_seconds)


class SlackSink:
    """Posts to an incoming webhook; what Slack reads as markup is escaped as its documentation says (&, < and >)."""

    def __init__(self, config: SlackConfig) -> None:
        self.config = config

    def send(self, alert: Alert) -> None:
        _post(self.config.url_from, json.dumps(_slack_message(alert)).encode(), {}, self.config.timeout_seconds)


def _slack_message(alert: Alert) -> dict[str, object]:
    title = f"{alert.severity}: {alert.kind}, {alert.subject}"
    when = f"{alert.raised_at:%Y-%m-%d %H:%M} UTC" + (", resolved since" if alert.resolved_at else "")
    body = _escaped(alert.message)[:_SLACK_LONGEST]
    return {
        "text": f"{title}: {_one_line(alert.message)}"[:_SLACK_LONGEST],  # what a notification shows
        "blocks": [
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": f"{_SLACK_MARKS[alert.severity]} *{_escaped(title)}*"},
            },
            {"type": "section", "text": {"type": "mrkdwn", "text": body}},
            {"type": "context", "elements": [{"type": "plain_text", "text": f"raised {when}, {alert.alert_id}"}]},
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class EmailSink:
    """Sends one mail an alert. A mail that some of its addresses refused counts as sent to the others."""

    def __init__(self, config: EmailConfig) -> None:
        self.config = config

    def send(self, alert: Alert) -> None:
        login = self._login()
        _try(lambda: self._send(_mail(alert, self.config), login))

    def _login(self) -> tuple[str, str] | None:
        if self.config.user_from is None or self.config.password_from is None:
            return None
        return _secret(self.config.user_from), _secret(self.config.password_from)

    def _send(self, mail: EmailMessage, login: tuple[str, str] | None) -> None:
        try:
            with self._server() as server:
                if self.config.security == "starttls":
                    server.starttls(context=ssl.create_default_context())
                if login is not None:
                    server.login(*login)
                server.send_message(mail)
        except smtplib.SMTPResponseException as error:
            told = f"the mail server answered {error.smtp_code}"
            if 400 <= error.smtp_code < 500:
                raise _Away(told) from None
            raise SinkError(told, of_alert=isinstance(error, smtplib.SMTPDataError)) from None
        except smtplib.SMTPRecipientsRefused as error:
            told = "the mail server refused every address of 'to'"
            later = any(400 <= code < 500 for code, _ in error.recipients.values())  # greylisting: ask again
            raise (_Away(told) if later else SinkError(told)) from None
        except smtplib.SMTPServerDisconnected:
            raise _Away("the mail server ended the connection") from None
        except smtplib.SMTPException as error:  # an OSError too
            raise SinkError(f"the mail server cannot do it ({type(error).__name__})") from None
        except ssl.SSLError:  # an OSError too
            raise SinkError("no secure connection to the mail server") from None
        except OSError as error:
            raise _Away(f"no connection to the mail server ({type(error).__name__})") from None

    def _server(self) -> smtplib.SMTP:
        place = (self.config.host, self.config.port)
        if self.config.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(*place, timeout=self.config.timeout_seconds, context=context)
        return smtplib.SMTP(*place, timeout=self.config.timeout_seconds)


def _mail(alert: Alert, config: EmailConfig) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = _one_line(f"[{alert.severity}] {alert.kind}: {alert.subject}")
    mail["From"], mail["To"] = config.sender, ", ".join(config.to)
    mail["Message-ID"] = f"<{alert.alert_id}@zantara.invalid>"
    resolved = f"\nresolved: {alert.resolved_at:%Y-%m-%d %H:%M} UTC" if alert.resolved_at else ""
    mail.set_content(
        f"{alert.message}\n\nraised: {alert.raised_at:%Y-%m-%d %H:%M} UTC{resolved}\nalert: {alert.alert_id}\n"
        "details:\n" + json.dumps(json.loads(alert.details), indent=2, ensure_ascii=False) + "\n"
    )
    return mail


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _secret(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise SinkError(f"the environment variable {name} is not set")
    return value


def _post(url_from: str, body: bytes, headers: dict[str, str], timeout: float) -> None:
    url = _secret(url_from)
    _try(lambda: _post_once(url, url_from, body, {"Content-Type": "application/json", **headers}, timeout))


def _post_once(url: str, name: str, body: bytes, headers: dict[str, str], timeout: float) -> None:
    try:
        answer = requests.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Away(f"no answer from the address in {name} ({type(error).__name__})") from None
    except (requests.RequestException, ValueError):
        raise SinkError(f"{name} holds no address that can be asked: give one that begins with https://") from None
    told = f"the address in {name} answered {answer.status_code}"
    if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
        raise _Away(told, _asked_pause(answer))
    if answer.status_code >= 300:
        raise SinkError(told, of_alert=answer.status_code in (400, 409, 413, 422))


def _asked_pause(answer: requests.Response) -> float:
    """Seconds of Retry-After; 0 where it is absent or a date."""
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0


def _try(send: Callable[[], Result]) -> Result:
    """
    Raises
    ------
    SinkError : what `send` raised, or the other side stayed away.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return send()
        except _Away as away:
            pause = max(away.pause, PAUSE * 2 ** (attempt - 1))
            if attempt == ATTEMPTS or pause > LONGEST_PAUSE:
                raise SinkError(str(away)) from None
            time.sleep(pause)
    raise AssertionError("the loop returns or raises")
