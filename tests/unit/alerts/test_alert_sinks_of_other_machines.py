"""Webhook, Slack and mail against servers on loopback: what arrives, what is tried again, that nothing is lost or told."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from zantara_pipeline.alerts import AlertLedger, AlertsConfig, Finding, deliver

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET_PATH = "/services/T000/very-secret"
MESSAGE = "Split <b> & *c* is broken.\nStop it."


@dataclass
class Web:
    """A web server that answers as told, in turn, and then 200."""

    answers: list[int | tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    told = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.asked.append((self.path, dict(self.headers), body))
            answer = told.answers.pop(0) if told.answers else 200
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told.url = f"http://127.0.0.1:{server.server_port}{SECRET_PATH}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("TEAM_URL", told.url)
        yield told
        server.shutdown()


class Mailbox:
    """A mail server's ear; refuses as told, in turn, and then takes everything."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.unknown: list[str] = []  # answers to addresses
        self.mails: list[EmailMessage] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.unknown:
            return self.unknown.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 known"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refusals:
            return self.refusals.pop(0)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 taken"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between attempts, without waiting them."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def ledger(tmp_path: Path) -> AlertLedger:
    ledger = AlertLedger(tmp_path / "data" / "state" / "alerts.db")
    ledger.raise_alert(Finding("srm", "critical", "experiment/e", MESSAGE, {"p": 0.0001}), AS_OF)
    return ledger


def config(**sink: Any) -> AlertsConfig:
    said = {"sinks": {"team": {"min_severity": "info", **sink}}, "kinds": {}, "retry_claim_after_minutes": 10}
    return AlertsConfig.model_validate(said)


WEBHOOK = config(kind="webhook", url_from="TEAM_URL", signing_key_from="TEAM_KEY")
SLACK = config(kind="slack", url_from="TEAM_URL")


def mail_to(listens: int, **more: Any) -> AlertsConfig:
    said = {"host": "127.0.0.1", "port": listens, "security": "none", "sender": "z@example.com",
            "to": ["a@example.com", "b@example.com"]}  # fmt: skip
    return config(kind="email", **(said | more))


def test_a_webhook_gets_the_alert_signed_and_once(
    ledger: AlertLedger, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_KEY", "k3y")
    assert deliver(ledger, WEBHOOK).delivered == {"team": 1}
    assert deliver(ledger, WEBHOOK).delivered == {"team": 0}
    [(path, headers, body)] = web.asked
    assert path == SECRET_PATH and headers["Content-Type"] == "application/json"
    told = json.loads(body)
    assert told["message"] == MESSAGE and told["details"] == {"p": 0.0001}
    assert headers["Idempotency-Key"] == told["alert_id"]
    expected = hmac.new(b"k3y", body, hashlib.sha256).hexdigest()
    assert headers["X-Zantara-Signature"] == f"sha256={expected}"


def test_slack_shows_the_message_as_it_stands(ledger: AlertLedger, web: Web) -> None:
    assert deliver(ledger, SLACK).delivered == {"team": 1}
    told = json.loads(web.asked[0][2])
    texts = [block["text"]["text"] for block in told["blocks"] if "text" in block]
    assert texts[0].endswith("*critical: srm, experiment/e*")
    assert texts[1] == "Split &lt;b&gt; &amp; *c* is broken.\nStop it."


def test_a_server_that_is_busy_is_asked_again_with_growing_pauses(
    ledger: AlertLedger, web: Web, pauses: list[float]
) -> None:
    web.answers = [503, (429, {"Retry-After": "3"})]
    assert deliver(ledger, SLACK).delivered == {"team": 1}
    assert len(web.asked) == 3 and pauses == [0.5, 3]


@pytest.mark.parametrize("answers", [[500] * 3, [(429, {"Retry-After": "600"})], [302], [404]])
def test_an_alert_that_could_not_be_sent_is_sent_by_the_next_delivery(
    ledger: AlertLedger, web: Web, answers: list[Any]
) -> None:
    web.answers = list(answers)
    result = deliver(ledger, SLACK)
    status = answers[0][0] if isinstance(answers[0], tuple) else answers[0]
    assert result.delivered == {"team": 0} and result.failed == {"team": f"the address in TEAM_URL answered {status}"}
    assert len(web.asked) == len(answers)
    assert deliver(ledger, SLACK).delivered == {"team": 1}


def test_an_alert_that_a_server_will_not_take_holds_up_no_other(ledger: AlertLedger, web: Web) -> None:
    ledger.raise_alert(Finding("stale", "critical", "event/purchase", "Late."), AS_OF)
    web.answers = [400]
    result = deliver(ledger, SLACK)
    assert result.delivered == {"team": 1} and "answered 400" in result.failed["team"]
    assert deliver(ledger, SLACK).delivered == {"team": 1}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1" + SECRET_PATH, "no answer from the address in TEAM_URL (ConnectionError)"),
        ("very-secret", "TEAM_URL holds no address that can be asked"),
        ("http://[very-secret", "TEAM_URL holds no address that can be asked"),
        ("", "the environment variable TEAM_URL is not set"),
    ],
)
def test_what_failed_is_told_without_the_address(
    ledger: AlertLedger, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEAM_URL", url)
    told = deliver(ledger, SLACK).failed["team"]
    assert said in told and "very-secret" not in told
    assert "very-secret" not in str(ledger.deliveries())


def test_a_server_that_never_answers_is_given_up(
    ledger: AlertLedger, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # it listens, and nobody serves
        monkeypatch.setenv("TEAM_URL", f"http://127.0.0.1:{silent.server_port}/")
        result = deliver(ledger, config(kind="slack", url_from="TEAM_URL", timeout_seconds=0.1))
    assert result.failed == {"team": "no answer from the address in TEAM_URL (ReadTimeout)"}


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def port(mailbox: Mailbox) -> Iterator[int]:
    with listening(mailbox) as listens:
        yield listens


@contextlib.contextmanager
def listening(mailbox: Mailbox, **more: Any) -> Iterator[int]:
    """The port of a mail server of this mailbox."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listens: int = free.getsockname()[1]
    server = Controller(mailbox, hostname="127.0.0.1", port=listens, **more)
    server.start()
    yield listens
    server.stop()


def test_a_mail_says_what_where_and_when(ledger: AlertLedger, mailbox: Mailbox, port: int) -> None:
    assert deliver(ledger, mail_to(port)).delivered == {"team": 1}
    assert deliver(ledger, mail_to(port)).delivered == {"team": 0}
    [mail] = mailbox.mails
    [alert] = ledger.alerts()
    assert mail["Subject"] == "[critical] srm: experiment/e" and mail["To"] == "a@example.com, b@example.com"
    assert mail["Message-ID"] == f"<{alert.alert_id}@zantara.invalid>"
    text = mail.get_content().replace("\r\n", "\n")
    assert text.startswith(MESSAGE) and "raised: 2026-03-01 12:00 UTC" in text and '"p": 0.0001' in text


def test_a_mail_server_that_is_busy_is_asked_again(ledger: AlertLedger, mailbox: Mailbox, port: int) -> None:
    mailbox.refusals = ["451 later", "451 later"]
    assert deliver(ledger, mail_to(port)).delivered == {"team": 1}


def test_a_mail_that_is_refused_waits_and_holds_up_no_other(ledger: AlertLedger, mailbox: Mailbox, port: int) -> None:
    ledger.raise_alert(Finding("stale", "critical", "event/purchase", "Late."), AS_OF)
    mailbox.refusals = ["554 spam"]
    result = deliver(ledger, mail_to(port))
    assert result.delivered == {"team": 1} and result.failed == {"team": "the mail server answered 554"}
    assert deliver(ledger, mail_to(port)).delivered == {"team": 1}


@pytest.mark.parametrize(("answer", "sent"), [("450 greylisted", 1), ("550 nobody", 0)])
def test_addresses_that_are_refused_for_now_are_asked_again(
    ledger: AlertLedger, mailbox: Mailbox, port: int, answer: str, sent: int
) -> None:
    mailbox.unknown = [answer] * 2
    result = deliver(ledger, mail_to(port))
    assert result.delivered == {"team": sent}
    assert result.failed == ({} if sent else {"team": "the mail server refused every address of 'to'"})


def test_a_mail_reaches_those_whom_the_server_knows(ledger: AlertLedger, mailbox: Mailbox, port: int) -> None:
    mailbox.unknown = ["550 nobody"]
    assert deliver(ledger, mail_to(port)).delivered == {"team": 1} and len(mailbox.mails) == 1


def test_nobody_listens(ledger: AlertLedger) -> None:
    told = deliver(ledger, mail_to(1)).failed["team"]
    assert told == "no connection to the mail server (ConnectionRefusedError)"


def test_starttls_is_not_left_out_where_the_server_lacks_it(ledger: AlertLedger, mailbox: Mailbox, port: int) -> None:
    told = deliver(ledger, mail_to(port, security="starttls")).failed["team"]
    assert told == "the mail server cannot do it (SMTPNotSupportedError)" and not mailbox.mails


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """(certificate, key) of 127.0.0.1, signed by itself."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True)  # fmt: skip
    return cert, key


def test_a_login_goes_over_tls_to_a_server_that_is_known(
    ledger: AlertLedger, mailbox: Mailbox, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def knows(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"me", b"pa55"), handled=False)

    monkeypatch.setenv("MAIL_USER", "me")
    monkeypatch.setenv("MAIL_PASSWORD", "pa55")
    with listening(
        mailbox, tls_context=context, require_starttls=True, authenticator=knows, auth_required=True
    ) as port:
        secure = mail_to(port, security="starttls", user_from="MAIL_USER", password_from="MAIL_PASSWORD")
        assert deliver(ledger, secure).failed == {"team": "no secure connection to the mail server"}
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusted)
        monkeypatch.setenv("MAIL_PASSWORD", "wrong")
        assert deliver(ledger, secure).failed == {"team": "the mail server answered 535"}
        assert not mailbox.mails
        monkeypatch.setenv("MAIL_PASSWORD", "pa55")
        assert deliver(ledger, secure).delivered == {"team": 1}
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"user_from": "MAIL_USER"}, "belong together"),
        ({"user_from": "MAIL_USER", "password_from": "MAIL_PASSWORD"}, "not sent in the clear"),
        ({"to": []}, "at least 1 item"),
        ({"sender": "nobody"}, "match pattern"),
        ({"port": 0}, "greater than or equal to 1"),
    ],
)
def test_a_mail_sink_that_cannot_work_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mail_to(25, **more)


def test_a_process_killed_after_the_send_sends_again_and_not_never(
    ledger: AlertLedger, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the same Idempotency-Key tells the receiver."""
    config = WEBHOOK
    monkeypatch.setenv("TEAM_KEY", "k3y")
    mark: Callable[..., bool] = AlertLedger.mark_delivered

    def dies(*arguments: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(AlertLedger, "mark_delivered", dies)
    with pytest.raises(KeyboardInterrupt):
        deliver(ledger, config)
    monkeypatch.setattr(AlertLedger, "mark_delivered", mark)
    assert deliver(ledger, config).held == {"team": 1}
    later = datetime.now(UTC).replace(year=datetime.now(UTC).year + 1)
    assert deliver(ledger, config, clock=lambda: later).delivered == {"team": 1}
    assert len({headers["Idempotency-Key"] for _, headers, _ in web.asked}) == 1 and len(web.asked) == 2
