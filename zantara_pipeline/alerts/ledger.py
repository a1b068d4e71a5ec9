"""The alert ledger: an append-only SQLite file that outlives the warehouse.

Belongs here: the schema, raising, resolving, reading, the copy into the warehouse, the claim rows of deliveries.
Does not belong here: sending (delivery.py, sinks.py) and what is wrong (the domains' findings).

Tables: `alerts` (one row per raised alert) and `changes` (resolved, reopened) are append-only: triggers refuse
UPDATE and DELETE. Whether an alert is open is its latest change. `deliveries` holds one row per (alert, sink).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zantara_pipeline.alerts.finding import Finding, Severity, digest
from zantara_pipeline.errors import InputError

if TYPE_CHECKING:
    import duckdb

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another process: a delivery holds the write lock for milliseconds only."""

_SCHEMA = """
CREATE TABLE alerts (
    alert_id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    raised_at TEXT NOT NULL,      -- as_of of the run, ISO 8601 UTC, fixed width: sorts as text
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    subject TEXT NOT NULL,
    message TEXT NOT NULL,
    details TEXT NOT NULL,        -- JSON
    recorded_at TEXT NOT NULL     -- audit: wall clock
) STRICT;
CREATE INDEX alerts_fingerprint ON alerts (fingerprint);
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY,
    alert_id TEXT NOT NULL REFERENCES alerts (alert_id),
    change TEXT NOT NULL CHECK (change IN ('resolved', 'reopened')),
    as_of TEXT NOT NULL,
    recorded_at TEXT NOT NULL     -- audit: wall clock
) STRICT;
CREATE INDEX changes_alert ON changes (alert_id, seq);
CREATE TRIGGER alerts_no_update BEFORE UPDATE ON alerts BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER alerts_no_delete BEFORE DELETE ON alerts BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER changes_no_update BEFORE UPDATE ON changes BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER changes_no_delete BEFORE DELETE ON changes BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE VIEW alert_state AS
    SELECT a.*, CASE WHEN c.change = 'resolved' THEN c.as_of END AS resolved_at
    FROM alerts AS a
    LEFT JOIN changes AS c ON c.seq = (SELECT max(seq) FROM changes WHERE alert_id = a.alert_id);
CREATE TABLE deliveries (         -- every column but the key is audit: wall clock
    alert_id TEXT NOT NULL REFERENCES alerts (alert_id),
    sink TEXT NOT NULL,
    claim TEXT,                   -- token of the process that is sending now
    claimed_at TEXT,
    attempts INTEGER NOT NULL,
    delivered_at TEXT,
    error TEXT,
    PRIMARY KEY (alert_id, sink)
) STRICT;
"""

_STATE_COLUMNS = "alert_id, raised_at, kind, severity, subject, message, details, fingerprint, resolved_at"

_DUE = f"""
SELECT {_STATE_COLUMNS} FROM alert_state
WHERE NOT EXISTS (SELECT 1 FROM deliveries AS d
                  WHERE d.alert_id = alert_state.alert_id AND d.sink = ? AND d.delivered_at IS NOT NULL)
ORDER BY raised_at, alert_id
"""

# One statement, so that of two processes exactly one sees a changed row.
_CLAIM = """
INSERT INTO deliveries (alert_id, sink, claim, claimed_at, attempts) VALUES (?, ?, ?, ?, 1)
ON CONFLICT (alert_id, sink) DO UPDATE
SET claim = excluded.claim, claimed_at = excluded.claimed_at, attempts = attempts + 1
WHERE delivered_at IS NULL AND (claimed_at IS NULL OR claimed_at <= ?)
"""

_WAREHOUSE_TABLE = """
CREATE SCHEMA IF NOT EXISTS ops;
CREATE OR REPLACE TABLE ops.alerts (
    alert_id VARCHAR NOT NULL, raised_at TIMESTAMPTZ NOT NULL, kind VARCHAR NOT NULL, severity VARCHAR NOT NULL,
    subject VARCHAR NOT NULL, message VARCHAR NOT NULL, details VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    resolved_at TIMESTAMPTZ
);
COMMENT ON TABLE ops.alerts IS 'One row per raised alert; a copy of the ledger data/state/alerts.db, made by each run';
COMMENT ON COLUMN ops.alerts.alert_id IS 'Hash of the fingerprint and of the as_of at which it was first raised';
COMMENT ON COLUMN ops.alerts.raised_at IS 'as_of of the run that raised it (UTC)';
COMMENT ON COLUMN ops.alerts.kind IS 'What sort of thing is wrong (alerts/finding.py lists all kinds)';
COMMENT ON COLUMN ops.alerts.severity IS 'info, warning or critical, after the overrides of alerts.yaml';
COMMENT ON COLUMN ops.alerts.subject IS 'What the alert is about, e.g. experiment/checkout_button';
COMMENT ON COLUMN ops.alerts.message IS 'One sentence for a person, without personal values';
COMMENT ON COLUMN ops.alerts.details IS 'Numbers behind the message, as JSON text';
COMMENT ON COLUMN ops.alerts.fingerprint IS 'Equal for the same kind, subject and key parts in every run';
COMMENT ON COLUMN ops.alerts.resolved_at IS 'as_of of the run that no longer found it; null while open';
"""


@dataclass(frozen=True)
class Alert:
    """One alert as it stands now; the columns of ops.alerts."""

    alert_id: str
    raised_at: datetime
    kind: str
    severity: Severity
    subject: str
    message: str
    details: str
    fingerprint: str
    resolved_at: datetime | None


class AlertLedger:
    """The ledger in one SQLite file (WAL); safe for several processes, one connection per operation.

    Parameters
    ----------
    path : the file, ``data/state/alerts.db`` in a home; created with its folder when absent.
    severities : kind -> severity that replaces the finding's own when an alert is raised (`AlertsConfig.kinds`).

    Raises
    ------
    InputError : the file cannot be written, is no SQLite database, or was written by a newer version.
    """

    def __init__(self, path: Path, severities: Mapping[str, Severity] | None = None) -> None:
        self.path = Path(path)
        self._severities = dict(severities or {})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot be created ({error.strerror})", self.path.parent, "make it writable") from None
        with self._connect() as con:
            _migrate(con, self.path)

    def raise_alert(self, finding: Finding, as_of: datetime) -> str | None:
        """Open an alert for a finding, unless one with its fingerprint is open already.

        Parameters
        ----------
        as_of : the run's clock (timezone-aware); becomes `raised_at`.

        Returns
        -------
        The alert_id, or None when the alert is open already. Coming back at the as_of at which it was first raised
        reopens that same alert (a re-run is not news); coming back later raises a new one.
        """
        with self._write() as con:
            return self._raise(con, finding, as_of)

    def resolve(self, still_true: Iterable[str], as_of: datetime, kinds: Collection[str] | None = None) -> list[str]:
        """Close open alerts whose finding is gone.

        Parameters
        ----------
        still_true : fingerprints found in this run; their alerts stay open.
        as_of : the run's clock; becomes `resolved_at`. Alerts raised after it (a run for an earlier time) stay open.
        kinds : look at these kinds only: the ones that the caller has checked in this run. None: all kinds.

        Returns
        -------
        The alert_ids that were closed, oldest first.
        """
        with self._write() as con:
            return self._resolve(con, set(still_true), as_of, kinds)

    def sync(
        self, findings: Iterable[Finding], as_of: datetime, kinds: Collection[str] | None = None
    ) -> tuple[list[str], list[str]]:
        """Raise all findings and resolve what is gone, in one transaction.

        Returns
        -------
        (raised, resolved) : alert_ids; both empty when nothing has changed.
        """
        findings = list(findings)
        with self._write() as con:
            raised = [alert_id for finding in findings if (alert_id := self._raise(con, finding, as_of))]
            resolved = self._resolve(con, {finding.fingerprint for finding in findings}, as_of, kinds)
        return raised, resolved

    def alerts(self, open_only: bool = False) -> list[Alert]:
        """All alerts, or the open ones, ordered by raised_at and alert_id."""
        where = "WHERE resolved_at IS NULL" if open_only else ""
        with self._connect() as con:
            rows = con.execute(f"SELECT {_STATE_COLUMNS} FROM alert_state {where} ORDER BY raised_at, alert_id")
            return [_alert(row) for row in rows]

    def deliveries(self) -> list[tuple[str, str, datetime]]:
        """(alert_id, sink, delivered_at) of every finished delivery; delivered_at is the wall clock."""
        with self._connect() as con:
            rows = con.execute(
                "SELECT alert_id, sink, delivered_at FROM deliveries WHERE delivered_at IS NOT NULL "
                "ORDER BY alert_id, sink"
            )
            return [(alert_id, sink, datetime.fromisoformat(at)) for alert_id, sink, at in rows]

    def copy_to_warehouse(self, con: duckdb.DuckDBPyConnection) -> int:
        """Replace ops.alerts in an open DuckDB connection; returns its number of rows."""
        alerts = self.alerts()
        con.execute(_WAREHOUSE_TABLE)
        if alerts:  # executemany refuses an empty list
            rows = [tuple(vars(alert).values()) for alert in alerts]
            con.executemany("INSERT INTO ops.alerts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return len(alerts)

    def due(self, sink: str) -> list[Alert]:
        """Alerts not yet delivered to a sink, claimed by somebody or not; oldest first."""
        with self._connect() as con:
            return [_alert(row) for row in con.execute(_DUE, (sink,))]

    def claim(self, alert_id: str, sink: str, token: str, now: datetime, stale_before: datetime) -> bool:
        """Claim a delivery; True for exactly one caller until it marks, releases or its claim is stale."""
        with self._write() as con:
            return con.execute(_CLAIM, (alert_id, sink, token, _text(now), _text(stale_before))).rowcount == 1

    def mark_delivered(self, alert_id: str, sink: str, token: str, now: datetime) -> bool:
        """Finish a claimed delivery; False when the claim was taken over meanwhile."""
        return self._end_claim("delivered_at = ?, error = NULL", alert_id, sink, token, _text(now))

    def release(self, alert_id: str, sink: str, token: str, error: str) -> bool:
        """Give a claim back after a failed send, so that the next delivery retries at once."""
        return self._end_claim("claimed_at = NULL, error = ?", alert_id, sink, token, error)

    def _end_claim(self, assignment: str, alert_id: str, sink: str, token: str, value: str) -> bool:
        sql = f"UPDATE deliveries SET claim = NULL, {assignment} WHERE alert_id = ? AND sink = ? AND claim = ?"
        with self._write() as con:
            return con.execute(sql, (value, alert_id, sink, token)).rowcount == 1

    def _raise(self, con: sqlite3.Connection, finding: Finding, as_of: datetime) -> str | None:
        fingerprint, now = finding.fingerprint, _text(datetime.now(UTC))
        open_row = con.execute(
            "SELECT 1 FROM alert_state WHERE fingerprint = ? AND resolved_at IS NULL", (fingerprint,)
        ).fetchone()
        if open_row:
            return None
        alert_id = digest(fingerprint, _text(as_of))
        if con.execute("SELECT 1 FROM alerts WHERE alert_id = ?", (alert_id,)).fetchone():
            _change(con, alert_id, "reopened", as_of)
            return alert_id
        severity = self._severities.get(finding.kind, finding.severity)
        con.execute(
            "INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (alert_id, fingerprint, _text(as_of), finding.kind, severity, finding.subject, finding.message,
             finding.details_json(), now),
        )  # fmt: skip
        return alert_id

    def _resolve(
        self, con: sqlite3.Connection, still_true: set[str], as_of: datetime, kinds: Collection[str] | None
    ) -> list[str]:
        rows = con.execute(
            "SELECT alert_id, fingerprint, kind FROM alert_state WHERE resolved_at IS NULL AND raised_at <= ? "
            "ORDER BY raised_at, alert_id",
            (_text(as_of),),
        ).fetchall()
        gone = [
            alert_id
            for alert_id, fingerprint, kind in rows
            if fingerprint not in still_true and (kinds is None or kind in kinds)
        ]
        for alert_id in gone:
            _change(con, alert_id, "resolved", as_of)
        return gone

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        con = None
        try:
            con = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            yield con
        except sqlite3.DatabaseError as error:
            # Full, locked or unwritable is OperationalError, "not a database" the bare class; the rest are our bugs.
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise
            todo = "check that the disk has room and the file is writable and no other process holds it"
            raise InputError(f"alert ledger: {error}", self.path, todo) from error
        finally:
            if con is not None:
                con.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._connect() as con:
            con.execute("BEGIN IMMEDIATE")
            yield con
            con.execute("COMMIT")  # on any error the connection is closed first: a rollback


def _migrate(con: sqlite3.Connection, path: Path) -> None:
    version = con.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise InputError(
            f"alert ledger has schema version {version}, this program knows {SCHEMA_VERSION}",
            path,
            "update the program",
        )
    if version == SCHEMA_VERSION:
        return
    _switch_to_wal(con)
    con.execute("BEGIN IMMEDIATE")
    if con.execute("PRAGMA user_version").fetchone()[0] == 0:  # another process may have been first
        for statement in _statements(_SCHEMA):
            con.execute(statement)
        con.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    con.execute("COMMIT")


def _switch_to_wal(con: sqlite3.Connection) -> None:
    """WAL is a property of the file; the switch does not honour busy_timeout, so wait by hand."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            con.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _statements(script: str) -> Iterator[str]:
    """Single statements of a script (executescript would commit the open transaction)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _change(con: sqlite3.Connection, alert_id: str, change: str, as_of: datetime) -> None:
    con.execute(
        "INSERT INTO changes (alert_id, change, as_of, recorded_at) VALUES (?, ?, ?, ?)",
        (alert_id, change, _text(as_of), _text(datetime.now(UTC))),
    )


def _alert(row: tuple[str, str, str, Severity, str, str, str, str, str | None]) -> Alert:
    alert_id, raised_at, kind, severity, subject, message, details, fingerprint, resolved_at = row
    resolved = None if resolved_at is None else datetime.fromisoformat(resolved_at)
    raised = datetime.fromisoformat(raised_at)
    return Alert(alert_id, raised, kind, severity, subject, message, details, fingerprint, resolved)


def _text(time_: datetime) -> str:
    """ISO 8601 UTC with microseconds always present, so that text order is time order."""
    if time_.tzinfo is None:
        raise ValueError("alert times must be timezone-aware")
    return time_.astimezone(UTC).isoformat(timespec="microseconds")
