"""The ledger: idempotent raising, resolving, reopening, determinism, append-only, the warehouse copy."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest

from zantara_pipeline.alerts import AlertLedger, Finding
from zantara_pipeline.errors import InputError

DAY = timedelta(days=1)
AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)


def srm(experiment: str = "checkout_button", p: float = 1e-9) -> Finding:
    return Finding("srm", "critical", f"experiment/{experiment}", "The split is broken.", {"p": p})


def guardrail(metric: str) -> Finding:
    return Finding(
        "guardrail_harm", "warning", "experiment/checkout_button", "Worse.", {"metric": metric, "variant": "b"}
    )


@pytest.fixture
def ledger(tmp_path: Path) -> AlertLedger:
    return AlertLedger(tmp_path / "data" / "state" / "alerts.db")


def test_same_finding_while_open_raises_nothing_new_even_when_its_numbers_move(ledger: AlertLedger) -> None:
    first = ledger.raise_alert(srm(p=1e-9), AS_OF)
    assert first is not None
    assert ledger.raise_alert(srm(p=1e-12), AS_OF + DAY) is None
    (alert,) = ledger.alerts()
    assert (alert.alert_id, alert.raised_at, alert.details) == (first, AS_OF, '{"p": 1e-09}')


def test_key_parts_tell_findings_of_one_subject_apart(ledger: AlertLedger) -> None:
    assert ledger.raise_alert(guardrail("p95_latency_ms"), AS_OF)
    assert ledger.raise_alert(guardrail("crash_free_sessions"), AS_OF)
    assert len(ledger.alerts(open_only=True)) == 2


def test_resolved_when_gone_and_raised_anew_when_back_on_a_later_day(ledger: AlertLedger) -> None:
    first = ledger.raise_alert(srm(), AS_OF)
    assert ledger.resolve([srm().fingerprint], AS_OF + DAY) == []
    assert ledger.resolve([], AS_OF + 2 * DAY) == [first]
    assert ledger.alerts(open_only=True) == []
    second = ledger.raise_alert(srm(), AS_OF + 3 * DAY)
    assert second not in (None, first)
    assert [alert.resolved_at for alert in ledger.alerts()] == [AS_OF + 2 * DAY, None]


def test_back_at_the_same_as_of_is_the_same_alert_reopened(ledger: AlertLedger) -> None:
    first = ledger.raise_alert(srm(), AS_OF)
    ledger.resolve([], AS_OF)
    assert ledger.raise_alert(srm(), AS_OF) == first
    (alert,) = ledger.alerts()
    assert alert.resolved_at is None


def test_resolve_leaves_other_kinds_and_alerts_raised_after_as_of(ledger: AlertLedger) -> None:
    ledger.raise_alert(srm(), AS_OF)
    ledger.raise_alert(guardrail("p95_latency_ms"), AS_OF + DAY)
    assert ledger.resolve([], AS_OF - DAY) == []
    assert ledger.resolve([], AS_OF + DAY, kinds=["cuped_absent"]) == []
    assert len(ledger.resolve([], AS_OF + DAY, kinds=["guardrail_harm"])) == 1


def test_sync_raises_and_resolves_at_once_and_is_idempotent(ledger: AlertLedger) -> None:
    raised, resolved = ledger.sync([srm("a"), srm("b")], AS_OF)
    assert (len(raised), resolved) == (2, [])
    assert ledger.sync([srm("a"), srm("b")], AS_OF) == ([], [])
    raised, resolved = ledger.sync([srm("b"), srm("c")], AS_OF + DAY)
    assert (len(raised), len(resolved)) == (1, 1)


def test_same_input_gives_identical_tables_in_two_homes_and_in_any_order(tmp_path: Path) -> None:
    tables = []
    findings = [srm("a"), srm("b"), guardrail("p95_latency_ms")]
    for name, ordered in (("one", findings), ("two", findings[::-1])):
        ledger = AlertLedger(tmp_path / name / "data" / "state" / "alerts.db")
        ledger.sync(ordered, AS_OF)
        with duckdb.connect() as con:
            ledger.copy_to_warehouse(con)
            tables.append(con.execute("SELECT * FROM ops.alerts").fetchall())
    assert tables[0] == tables[1]
    assert len(tables[0]) == 3


def test_warehouse_copy_has_the_published_columns_and_replaces_itself(ledger: AlertLedger) -> None:
    with duckdb.connect() as con:
        assert ledger.copy_to_warehouse(con) == 0
        ledger.raise_alert(srm(), AS_OF)
        ledger.resolve([], AS_OF + DAY)
        assert ledger.copy_to_warehouse(con) == 1
        con.execute("SET TimeZone = 'UTC'")
        row = con.execute(
            "SELECT kind, raised_at, resolved_at, (details::JSON ->> 'p')::DOUBLE FROM ops.alerts"
        ).fetchall()
        columns = [name for (name,) in con.execute("SELECT column_name FROM (DESCRIBE ops.alerts)").fetchall()]
        undocumented = con.execute("SELECT 1 FROM duckdb_columns() WHERE table_name = 'alerts' AND comment IS NULL")
        assert undocumented.fetchall() == []
    assert row == [("srm", AS_OF, AS_OF + DAY, 1e-9)]
    assert columns == [
        *("alert_id", "raised_at", "kind", "severity", "subject", "message", "details", "fingerprint", "resolved_at")
    ]


def test_severity_override_holds_in_the_table(tmp_path: Path) -> None:
    ledger = AlertLedger(tmp_path / "alerts.db", severities={"srm": "info"})
    ledger.raise_alert(srm(), AS_OF)
    assert ledger.alerts()[0].severity == "info"


@pytest.mark.parametrize("statement", ["UPDATE alerts SET message = ''", "DELETE FROM alerts", "DELETE FROM changes"])
def test_ledger_is_append_only(ledger: AlertLedger, statement: str) -> None:
    ledger.raise_alert(srm(), AS_OF)
    ledger.resolve([], AS_OF)
    con = sqlite3.connect(ledger.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        con.execute(statement)
    con.close()


def test_details_take_numpy_and_turn_what_json_lacks_into_null() -> None:
    details = {"n": np.int64(3), "lift": np.float32(0.5), "p": float("nan"), "at": AS_OF, "log_p": [-float("inf")]}
    finding = Finding("srm", "critical", "experiment/a", "Broken.", details)
    assert finding.details_json() == (
        '{"at": "2026-03-01T12:00:00+00:00", "lift": 0.5, "log_p": [null], "n": 3, "p": null}'
    )


@pytest.mark.parametrize(
    ("message", "details"),
    [("Broken.", {"user_id": "u1"}), ("Broken.", {"rows": [{"email": "x"}]}), ("Ask jo@example.com", {})],
)
def test_personal_values_are_refused(message: str, details: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no personal values"):
        Finding("srm", "critical", "experiment/a", message, details)


def test_unknown_kind_and_naive_time_are_refused(ledger: AlertLedger) -> None:
    with pytest.raises(ValueError, match="unknown alert kind"):
        Finding("smr", "critical", "experiment/a", "Broken.")
    with pytest.raises(ValueError, match="timezone-aware"):
        ledger.raise_alert(srm(), datetime(2026, 3, 1))  # noqa: DTZ001


def test_a_file_that_is_no_ledger_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "alerts.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(InputError, match=r"alerts\.db.*not a database"):
        AlertLedger(path)


def test_a_newer_schema_is_refused(ledger: AlertLedger) -> None:
    con = sqlite3.connect(ledger.path)
    con.execute("PRAGMA user_version = 99")
    con.close()
    with pytest.raises(InputError, match="schema version 99"):
        AlertLedger(ledger.path)


def test_a_finding_without_its_key_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="needs variant in its details"):
        Finding("guardrail_harm", "critical", "experiment/a", "Worse.", {"metric": "p95_latency_ms"})
