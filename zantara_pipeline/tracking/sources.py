"""What dbt reads: one typed relation per declared event over the lake, the catalogue, and copies of the ledgers.

Belongs here: making those relations in the warehouse before a build, and saying from which received date staging has
to be rebuilt. Does not belong here: any shaping of data (dbt's models do that).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import duckdb

from zantara_pipeline.privacy.consent import date_new_statements
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.migrations import event_files_sql, read_accepted, types_fingerprint
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, SQL_TYPES, EventPlan, TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

BEGINNING = date(1, 1, 1)
NOTHING_NEW = date(9999, 12, 31)

_LEDGER_COLUMNS = {
    "consent": {"user_id": "VARCHAR", "purpose": "VARCHAR", "origin": "VARCHAR", "effective_from": "VARCHAR", "status": "VARCHAR",
                "unknown_at": "VARCHAR"},
    "ingested_files": {
        "file": "VARCHAR", "sha256": "VARCHAR", "source": "VARCHAR", "rows_in": "BIGINT", "unparsable": "BIGINT",
        "suppressed": "BIGINT", "quarantined": "BIGINT", "accepted": "BIGINT", "late": "BIGINT", "exempt": "BIGINT",
        "consent_unreadable": "BIGINT", "erased": "BIGINT",
        "min_received_at": "VARCHAR", "max_received_at": "VARCHAR", "first_received_date": "VARCHAR",
    },
    "quarantine_reasons": {"sha256": "VARCHAR", "event": "VARCHAR", "code": "VARCHAR", "path": "VARCHAR", "rows": "BIGINT"},
    "tombstones": {"kind": "VARCHAR", "token": "VARCHAR", "erasure_id": "VARCHAR", "erased_at": "VARCHAR"},
    "replays": {"replay_id": "VARCHAR", "first_received_date": "VARCHAR"},
    "key_rotations": {"rotation_id": "VARCHAR", "first_received_date": "VARCHAR"},
    "expired_lines": {
        "expiry_id": "VARCHAR", "as_of": "VARCHAR", "fingerprint": "VARCHAR", "event": "VARCHAR", "reasons": "VARCHAR",
        "first_seen": "VARCHAR", "last_seen": "VARCHAR", "rows": "BIGINT",
    },
    "expired_rows": {
        "expiry_id": "VARCHAR", "as_of": "VARCHAR", "event": "VARCHAR", "received_date": "VARCHAR", "source": "VARCHAR",
        "rows": "BIGINT",
    },
    "expired_exempt_rows": {
        "expiry_id": "VARCHAR", "as_of": "VARCHAR", "event": "VARCHAR", "received_date": "VARCHAR", "source": "VARCHAR",
        "rows": "BIGINT",
    },
    "expired_memberships": {
        "as_of": "VARCHAR", "segment": "VARCHAR", "memberships": "BIGINT", "first_day": "VARCHAR", "last_day": "VARCHAR",
    },
    "expired_models": {"version": "BIGINT", "bundle_version": "VARCHAR", "trained_at": "VARCHAR", "as_of": "VARCHAR"},
    "expired_values": {"expiry_id": "VARCHAR", "event": "VARCHAR", "received_date": "VARCHAR"},
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """rebuild_from: staging starts here; full: every incremental table is made anew (models or plan changed)."""

    rebuild_from: date
    full: bool


def lake_columns(event: EventPlan) -> dict[str, str]:
    """Columns of one event in the lake with their types, partition column last."""
    columns = {"event_id": "VARCHAR", "event": "VARCHAR", "occurred_at": "TIMESTAMPTZ", "received_at": "TIMESTAMPTZ"}
    columns |= dict.fromkeys(ENVELOPE_STRINGS, "VARCHAR")
    columns |= {"plan_version": "VARCHAR", "source": "VARCHAR", "line_no": "BIGINT", "consent_basis": "VARCHAR"}
    columns |= {"consent_analytics": "BOOLEAN", "consent_personalization": "BOOLEAN"}
    columns |= {"is_late": "BOOLEAN", "received_at_missing": "BOOLEAN"}
    columns |= dict.fromkeys(CONTEXT_KEYS, "VARCHAR")
    columns |= {name: SQL_TYPES[prop.type] for name, prop in event.properties.items()}
    return columns | {"received_date": "DATE"}


def fingerprint(plan: TrackingPlan, model_files: Sequence[Path]) -> str:
    """Hash of what decides the tables' shape: the plan and the models. When it changes, everything is rebuilt."""
    digest = hashlib.sha256()
    for name, event in sorted(plan.events.items()):
        digest.update(f"{name} {sorted(lake_columns(event).items())}".encode())
        if event.migrations:
            digest.update(types_fingerprint(event).encode())
    for path in sorted(model_files):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def prepare(
    con: duckdb.DuckDBPyConnection,
    home: Home,
    ledger: Ledger,
    plan: TrackingPlan,
    *,
    build: str,
    as_of: datetime,
    max_lateness_days: int,
) -> Prepared:
    """Make the relations of the schemas `lake` and `state`, the clock of the run among them; see Prepared.

    Parameters
    ----------
    build : the fingerprint of this build.
    as_of : the clock of the run.
    max_lateness_days : copies of one event are at most this many days apart.
    """
    latest_clock = date_new_statements(ledger, as_of)
    for table, columns in _LEDGER_COLUMNS.items():
        ledger.copy_table(table, con, columns)
    con.execute("CREATE TABLE IF NOT EXISTS state.staged_sources (source VARCHAR)")
    con.execute("CREATE TABLE IF NOT EXISTS state.staged_replays (replay_id VARCHAR)")
    con.execute("CREATE TABLE IF NOT EXISTS state.staged_rotations (rotation_id VARCHAR)")
    con.execute("CREATE TABLE IF NOT EXISTS state.staged_expiries (expiry_id VARCHAR)")
    con.execute("CREATE TABLE IF NOT EXISTS state.build (fingerprint VARCHAR)")
    full = con.execute("SELECT fingerprint FROM state.build").fetchall() != [(build,)]
    rebuild_from = BEGINNING if full else _first_new_date(con)
    restaged = _expiries(con, rebuild_from, max_lateness_days + 1)
    con.execute("CREATE SCHEMA IF NOT EXISTS lake")
    for event in plan.events.values():
        con.execute(_event_view(event, _partitions(home.accepted / f"event={event.event}", rebuild_from, restaged)))
    con.execute(_items_view(home.catalogue))
    con.execute(_exempt_view(home.exempt))
    kept = [path.name.partition("=")[2] for path in sorted(home.accepted.glob("event=*"))]
    con.execute("CREATE OR REPLACE TABLE state.kept_events AS SELECT unnest(?::VARCHAR[]) AS event", [kept])
    con.execute(
        "CREATE OR REPLACE TABLE state.run_clock AS "
        "SELECT ?::TIMESTAMPTZ AS as_of, ?::TIMESTAMPTZ AS latest_clock, ?::DATE AS rebuild_from, "
        "?::INTEGER AS duplicate_window_days",
        [as_of, latest_clock, rebuild_from, max_lateness_days + 1],
    )
    return Prepared(rebuild_from, full)


def mark_staged(con: duckdb.DuckDBPyConnection, build: str) -> None:
    """Remember what the warehouse has built from, so that the next run starts at the first date that changed."""
    con.execute("BEGIN")
    con.execute("DELETE FROM state.staged_sources")
    con.execute("INSERT INTO state.staged_sources SELECT source FROM state.ingested_files")
    con.execute("DELETE FROM state.staged_replays")
    con.execute("INSERT INTO state.staged_replays SELECT replay_id FROM state.replays")
    con.execute("DELETE FROM state.staged_rotations")
    con.execute("INSERT INTO state.staged_rotations SELECT rotation_id FROM state.key_rotations")
    con.execute("DELETE FROM state.staged_expiries")
    con.execute(f"INSERT INTO state.staged_expiries {_EXPIRIES}")
    con.execute("DELETE FROM state.build")
    con.execute("INSERT INTO state.build VALUES (?)", [build])
    con.execute("COMMIT")


def _first_new_date(con: duckdb.DuckDBPyConnection) -> date:
    found = con.execute(
        """
        SELECT min(first_received_date)::DATE FROM (
            SELECT first_received_date FROM state.ingested_files WHERE source NOT IN (SELECT source FROM state.staged_sources)
            UNION ALL
            SELECT first_received_date FROM state.replays WHERE replay_id NOT IN (SELECT replay_id FROM state.staged_replays)
            UNION ALL
            SELECT first_received_date FROM state.key_rotations
            WHERE rotation_id NOT IN (SELECT rotation_id FROM state.staged_rotations)
        )
        """
    ).fetchall()[0][0]
    return NOTHING_NEW if found is None else found


_EXPIRIES = "SELECT expiry_id FROM state.expired_rows UNION SELECT expiry_id FROM state.expired_values"


def _expiries(con: duckdb.DuckDBPyConnection, rebuild_from: date, window_days: int) -> set[date]:
    """Tell dbt what retention took from the lake since the last build, without rebuilding all that came after it.

    state.removed_partitions : (event, received_date) whose rows leave staging.
    state.restaged_dates : single dates before rebuild_from that are staged again: some of their values are null now, or
        they hold copies of removed events, of which the earliest one left counts from now on.
    """
    con.execute(
        "CREATE OR REPLACE TABLE state.removed_partitions AS SELECT DISTINCT event, received_date::DATE AS received_date "
        "FROM state.expired_rows WHERE expiry_id NOT IN (SELECT expiry_id FROM state.staged_expiries)"
    )
    con.execute(
        "CREATE OR REPLACE TABLE state.restaged_dates AS SELECT DISTINCT received_date::DATE AS received_date "
        "FROM state.expired_values WHERE expiry_id NOT IN (SELECT expiry_id FROM state.staged_expiries) "
        "AND received_date::DATE < ?", [rebuild_from],
    )  # fmt: skip
    staged = (
        "SELECT 1 FROM information_schema.tables WHERE table_schema = 'staging' AND table_name = 'int_events__indexed'"
    )
    if con.execute(staged).fetchall():
        con.execute(_COPIES_OF_REMOVED_SQL, {"rebuild_from": rebuild_from, "window": window_days})
    return {row[0] for row in con.execute("SELECT received_date FROM state.restaged_dates").fetchall()}


_COPIES_OF_REMOVED_SQL = """
    INSERT INTO state.restaged_dates
    SELECT DISTINCT copies.received_date
    FROM staging.int_events__indexed AS copies
    WHERE copies.is_duplicate AND copies.received_date < $rebuild_from
        AND copies.received_date >= (SELECT min(received_date) FROM state.removed_partitions)
        AND copies.received_date <= (SELECT max(received_date) FROM state.removed_partitions) + $window
        AND copies.received_date NOT IN (SELECT received_date FROM state.restaged_dates)
        AND (copies.event, copies.received_date) NOT IN (SELECT (event, received_date) FROM state.removed_partitions)
        AND copies.event_id IN (
            SELECT event_id FROM staging.int_events__indexed
            WHERE (event, received_date) IN (SELECT (event, received_date) FROM state.removed_partitions)
        )
"""


def _partitions(folder: Path, first: date, besides: Collection[date]) -> list[Path]:
    """Folders of the received dates from `first` on, and of some besides: listing all files of a long history would cost more every day."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir() and any(path.iterdir()))
    wanted = {day.isoformat() for day in besides}
    dates = ((name.partition("=")[2], name) for name in sorted(names))
    return [folder / name for day, name in dates if day >= first.isoformat() or day in wanted]


def _readers(event: EventPlan, partitions: Sequence[Path]) -> list[str]:
    """SELECTs over an event's partitions. Without migrations all files are alike (a run checks that before it takes any)."""
    if not partitions:
        return []
    if not event.migrations:
        return [f"SELECT * FROM {read_accepted([str(folder / '*.parquet') for folder in partitions])}"]
    return event_files_sql(event, [path for folder in partitions for path in sorted(folder.glob("*.parquet"))])


def _event_view(event: EventPlan, partitions: Sequence[Path]) -> str:
    columns = lake_columns(event)
    empty = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns.items())
    wanted = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in columns.items())
    body = " UNION ALL BY NAME ".join([f"SELECT {empty} WHERE false", *_readers(event, partitions)])
    return f'CREATE OR REPLACE VIEW lake."{event.event}" AS SELECT {wanted} FROM ({body})'


ITEM_COLUMNS = {
    "product_id": "VARCHAR", "title": "VARCHAR", "category": "VARCHAR", "brand": "VARCHAR", "provider": "VARCHAR",
    "price": "DECIMAL(18,4)", "currency": "VARCHAR", "available_from": "TIMESTAMPTZ",
}  # fmt: skip


def _items_view(catalogue: Path) -> str:
    empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in ITEM_COLUMNS.items())
    if not catalogue.exists():
        return f"CREATE OR REPLACE VIEW lake.items AS SELECT {empty} WHERE false"
    wanted = ", ".join(f"{name}::{kind} AS {name}" for name, kind in ITEM_COLUMNS.items())
    return f"CREATE OR REPLACE VIEW lake.items AS SELECT {wanted} FROM read_parquet({quote(str(catalogue))})"


# What counting needs; properties differ from event to event, and nobody needs them for a count.
EXEMPT_COLUMNS = {
    "event": "VARCHAR", "received_date": "DATE", "country": "VARCHAR", "platform": "VARCHAR", "legal_reference": "VARCHAR",
    "source": "VARCHAR", "line_no": "BIGINT",
}  # fmt: skip


def _exempt_view(folder: Path) -> str:
    if not next(folder.glob("event=*/received_date=*/*.parquet"), None):
        empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in EXEMPT_COLUMNS.items())
        return f"CREATE OR REPLACE VIEW lake.exempt_events AS SELECT {empty} WHERE false"
    files = quote(str(folder / "event=*" / "received_date=*" / "*.parquet"))
    wanted = ", ".join(f"{name}::{kind} AS {name}" for name, kind in EXEMPT_COLUMNS.items())
    return (
        f"CREATE OR REPLACE VIEW lake.exempt_events AS SELECT {wanted} "
        f"FROM read_parquet({files}, hive_partitioning = true, union_by_name = true)"
    )
