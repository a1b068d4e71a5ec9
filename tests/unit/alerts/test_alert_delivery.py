"""Delivery: once each, with two processes at once and with a process killed between send and mark."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from zantara_pipeline.alerts import AlertLedger, AlertsConfig, Finding, deliver, load_alerts_config
from zantara_pipeline.alerts.sinks import OUTBOX

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOG_LINE = "ALERT critical srm"
DETAILS = {"lift": 0.2, "metric": "p95_latency_ms", "variant": "b"}

DELIVER_PROGRAM = """
import logging, sys, time
from pathlib import Path
from zantara_pipeline.alerts import AlertLedger, deliver, load_alerts_config
from zantara_pipeline.alerts.sinks import LogSink
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
ledger, config = AlertLedger(Path(sys.argv[1])), load_alerts_config()
send, LogSink.send = LogSink.send, lambda sink, alert: (send(sink, alert), time.sleep(0.01))  # sending takes time
print("ready", flush=True)
sys.stdin.readline()
deliver(ledger, config)
"""

KILLED_PROGRAM = """
import os, signal, sys
from pathlib import Path
from zantara_pipeline.alerts import AlertLedger, deliver, load_alerts_config
AlertLedger.mark_delivered = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
deliver(AlertLedger(Path(sys.argv[1])), load_alerts_config())
"""


@pytest.fixture
def ledger(tmp_path: Path) -> AlertLedger:
    return AlertLedger(tmp_path / "data" / "state" / "alerts.db")


def raise_some(ledger: AlertLedger, count: int) -> list[str]:
    findings = [Finding("srm", "critical", f"experiment/e{n}", "Broken.") for n in range(count)]
    return ledger.sync(findings, AS_OF)[0]


def outbox(ledger: AlertLedger) -> list[dict[str, object]]:
    path = ledger.path.parents[2] / OUTBOX
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_alert_reaches_every_sink_once(ledger: AlertLedger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ids = raise_some(ledger, 3)
    config = load_alerts_config()
    assert deliver(ledger, config).delivered == {"log": 3, "outbox": 3}
    assert deliver(ledger, config).delivered == {"log": 0, "outbox": 0}
    assert sorted(str(line["alert_id"]) for line in outbox(ledger)) == sorted(ids)
    assert sum(LOG_LINE in message for message in caplog.messages) == 3
    assert len(ledger.deliveries()) == 6


def test_outbox_line_carries_the_alert(ledger: AlertLedger) -> None:
    finding = Finding("guardrail_harm", "warning", "experiment/e", "Latency\nis worse.", DETAILS)
    alert_id = ledger.raise_alert(finding, AS_OF)
    deliver(ledger, load_alerts_config())
    assert outbox(ledger) == [
        {
            "alert_id": alert_id,
            "raised_at": "2026-03-01T12:00:00+00:00",
            "kind": "guardrail_harm",
            "severity": "warning",
            "subject": "experiment/e",
            "message": "Latency\nis worse.",
            "details": DETAILS,
            "fingerprint": finding.fingerprint,
            "resolved_at": None,
        }
    ]


def test_two_processes_delivering_at_once_send_each_alert_once(ledger: AlertLedger) -> None:
    ids = raise_some(ledger, 60)
    command = [sys.executable, "-c", DELIVER_PROGRAM, str(ledger.path)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    log_lines = "".join(outputs).splitlines()
    assert sorted(line.split("[")[1].rstrip("]") for line in log_lines) == sorted(ids)
    assert sorted(str(line["alert_id"]) for line in outbox(ledger)) == sorted(ids)
    assert all(outputs), "both processes should have had a share, or they did not run at the same time"


def test_killed_between_send_and_mark_is_retried_after_the_claim_is_stale(ledger: AlertLedger) -> None:
    config = AlertsConfig.model_validate(
        {"sinks": {"outbox": {"kind": "file", "min_severity": "info"}}, "kinds": {}, "retry_claim_after_minutes": 10}
    )
    (alert_id,) = raise_some(ledger, 1)
    program = KILLED_PROGRAM.replace("load_alerts_config()", f"__import__('pickle').loads({_pickled(config)!r})")
    killed = subprocess.run([sys.executable, "-c", program, str(ledger.path)], timeout=60, check=False)
    assert killed.returncode == -9
    assert len(outbox(ledger)) == 1, "it was sent before the kill"
    assert ledger.deliveries() == []

    soon = deliver(ledger, config)
    assert (soon.delivered, soon.held) == ({"outbox": 0}, {"outbox": 1})
    later = deliver(ledger, config, clock=lambda: datetime.now(UTC) + timedelta(minutes=11))
    assert later.delivered == {"outbox": 1}
    assert [line["alert_id"] for line in outbox(ledger)] == [alert_id], "the file sink must not repeat it"
    assert [(row[0], row[1]) for row in ledger.deliveries()] == [(alert_id, "outbox")]


def _pickled(config: AlertsConfig) -> bytes:
    import pickle

    return pickle.dumps(config)


def test_a_torn_line_is_cut_off_before_the_next_append(ledger: AlertLedger) -> None:
    raise_some(ledger, 2)
    path = ledger.path.parents[2] / OUTBOX
    path.parent.mkdir(parents=True)
    path.write_text('{"alert_id": "older"}\n{"alert_id": "to')
    deliver(ledger, load_alerts_config())
    assert len(outbox(ledger)) == 3


def test_a_sink_that_fails_is_retried_and_holds_up_no_other(ledger: AlertLedger) -> None:
    raise_some(ledger, 2)
    blocker = ledger.path.parents[1] / "alerts"
    blocker.write_text("a file where the folder should be")
    result = deliver(ledger, load_alerts_config())
    assert result.delivered == {"log": 2, "outbox": 0}
    assert "outbox" in result.failed
    blocker.unlink()
    assert deliver(ledger, load_alerts_config()).delivered == {"log": 0, "outbox": 2}


def test_min_severity_and_override_choose_what_a_sink_gets(ledger: AlertLedger) -> None:
    raise_some(ledger, 1)
    ledger.raise_alert(
        Finding("cuped_absent", "warning", "experiment/e", "No covariate.", {"metric": "revenue"}), AS_OF
    )
    config = AlertsConfig.model_validate(
        {
            "sinks": {"outbox": {"kind": "file", "min_severity": "critical"}},
            "kinds": {"srm": "info", "cuped_absent": "critical"},
            "retry_claim_after_minutes": 10,
        }
    )
    deliver(ledger, config)
    assert [(line["kind"], line["severity"]) for line in outbox(ledger)] == [("cuped_absent", "critical")]


def test_reopened_alert_is_not_sent_again_but_a_new_one_is(ledger: AlertLedger) -> None:
    config = load_alerts_config()
    raise_some(ledger, 1)
    deliver(ledger, config)
    ledger.resolve([], AS_OF)
    raise_some(ledger, 1)
    assert deliver(ledger, config).total == 0
    ledger.resolve([], AS_OF + timedelta(days=1))
    finding = Finding("srm", "critical", "experiment/e0", "Broken.")
    ledger.raise_alert(finding, AS_OF + timedelta(days=2))
    assert deliver(ledger, config).total == 2
