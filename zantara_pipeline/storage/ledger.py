"""The state ledger: what cannot be recomputed, kept append-only in SQLite (WAL), outside the warehouse.

Belongs here: the file, its tables, transactions, and copying a table into the warehouse. Does not belong here: the
meaning of a row (consent -> privacy/, files -> tracking/, membership -> segments/, alerts have a ledger of their own).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from zantara_pipeline.errors import InputError

SCHEMA_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS consent (          -- one statement about one person and purpose
    user_id TEXT NOT NULL, purpose TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('granted', 'denied')),
    effective_from TEXT NOT NULL,             -- UTC, ISO 8601 with microseconds, so that text order is time order
    origin TEXT NOT NULL CHECK (origin IN ('ledger', 'event')),
    unknown_at TEXT,                          -- the latest clock that a run was built for without it; '': none; null: not read yet
    PRIMARY KEY (user_id, purpose, origin, effective_from, status)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS consent_runs (     -- how long each person's events went on saying the same; microseconds since 1970
    user_id TEXT NOT NULL, purpose TEXT NOT NULL, status TEXT NOT NULL,
    since INTEGER NOT NULL, until INTEGER NOT NULL,
    hidden INTEGER NOT NULL,                  -- of a denial: was it said between the two ends as well, or does it last
    slack INTEGER NOT NULL,                   -- of a grant: how long before its time it may have been said
    PRIMARY KEY (user_id, purpose, since)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS consent_objections ( -- anonymous and device ids that denied what an exemption would allow
    kind TEXT NOT NULL CHECK (kind IN ('anonymous_id', 'device_id')), id TEXT NOT NULL, purpose TEXT NOT NULL,
    PRIMARY KEY (kind, id, purpose)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS ingested_files (   -- one landed file, committed with its counts
    sha256 TEXT PRIMARY KEY, file TEXT NOT NULL, source TEXT NOT NULL, bytes INTEGER NOT NULL,
    rows_in INTEGER NOT NULL, unparsable INTEGER NOT NULL, suppressed INTEGER NOT NULL, quarantined INTEGER NOT NULL,
    accepted INTEGER NOT NULL, late INTEGER NOT NULL, min_received_at TEXT, max_received_at TEXT,
    first_received_date TEXT, commit_id TEXT NOT NULL, ingested_at TEXT NOT NULL,
    exempt INTEGER NOT NULL DEFAULT 0, consent_unreadable INTEGER NOT NULL DEFAULT 0,
    erased INTEGER NOT NULL DEFAULT 0         -- of suppressed: lines of people who were erased
    );

CREATE TABLE IF NOT EXISTS rewritten_files (  -- landed files that an erasure wrote again: their new content was taken already
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, file TEXT NOT NULL, PRIMARY KEY (sha256, file)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS tombstones (       -- keyed hashes of erased ids; the key lies beside the ledger
    kind TEXT NOT NULL CHECK (kind IN ('user', 'anonymous', 'device')), token TEXT NOT NULL,
    erasure_id TEXT NOT NULL, erased_at TEXT NOT NULL, PRIMARY KEY (kind, token)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS tombstones_in_fields ( -- erased ids that name something else, too: refused in fields of people only
    token TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lake_erasures (    -- rows of people that left the lake and the restricted stores; whose is not kept
    erasure_id TEXT PRIMARY KEY, erased_at TEXT NOT NULL, rows INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS quarantine_reasons ( -- how many rows of a file gave a reason
    sha256 TEXT NOT NULL, event TEXT NOT NULL, code TEXT NOT NULL, path TEXT NOT NULL, rows INTEGER NOT NULL,
    PRIMARY KEY (sha256, event, code, path)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS ingest_commits (   -- write-ahead: what a batch of files wrote beside, until all is renamed
    commit_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('staged', 'done')));

CREATE TABLE IF NOT EXISTS replaced_files (   -- files that a staged commit replaces, removed when it is moved in
    commit_id TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (commit_id, path)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS replays (          -- one replay of quarantined lines; fixes: what was done to them first, as JSON
    replay_id TEXT PRIMARY KEY, replayed_at TEXT NOT NULL, rows INTEGER NOT NULL, accepted INTEGER NOT NULL,
    suppressed INTEGER NOT NULL, first_received_date TEXT,
    fixes TEXT);

CREATE TABLE IF NOT EXISTS discards (         -- lines that somebody gave up, by kind of failure
    discard_id TEXT PRIMARY KEY, discarded_at TEXT NOT NULL, fingerprint TEXT NOT NULL, rows INTEGER NOT NULL,
    reason TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS quarantine_files ( -- which kinds of failure a quarantine file holds; a cache of what lies there
    path TEXT NOT NULL, stamp TEXT NOT NULL,  -- relative to the lake; size and time of change of the file that was read
    fingerprint TEXT NOT NULL, event TEXT,    -- '' where the file holds no open line
    reasons TEXT NOT NULL, rows INTEGER NOT NULL, -- reasons: JSON list of "code path"
    PRIMARY KEY (path, fingerprint)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lake_types_checked ( -- types and migrations under which all of an event's files can be read
    event TEXT PRIMARY KEY, types TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_lines (    -- quarantined lines that were removed because their time was over
    expiry_id TEXT NOT NULL, as_of TEXT NOT NULL, fingerprint TEXT NOT NULL, event TEXT, reasons TEXT NOT NULL,
    first_seen TEXT, last_seen TEXT, rows INTEGER NOT NULL, PRIMARY KEY (expiry_id, fingerprint)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_rows (     -- accepted rows that were removed because their time was over
    expiry_id TEXT NOT NULL, as_of TEXT NOT NULL, event TEXT NOT NULL, received_date TEXT NOT NULL, source TEXT NOT NULL,
    rows INTEGER NOT NULL, PRIMARY KEY (expiry_id, event, received_date, source)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_values (   -- partitions in which properties became null because their time was over
    expiry_id TEXT NOT NULL, as_of TEXT NOT NULL, event TEXT NOT NULL, received_date TEXT NOT NULL,
    properties TEXT NOT NULL, PRIMARY KEY (expiry_id, event, received_date)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_exempt_rows ( -- the same of exempt rows; no table is built from them
    expiry_id TEXT NOT NULL, as_of TEXT NOT NULL, event TEXT NOT NULL, received_date TEXT NOT NULL, source TEXT NOT NULL,
    rows INTEGER NOT NULL, PRIMARY KEY (expiry_id, event, received_date, source)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_exempt_values (
    expiry_id TEXT NOT NULL, as_of TEXT NOT NULL, event TEXT NOT NULL, received_date TEXT NOT NULL,
    properties TEXT NOT NULL, PRIMARY KEY (expiry_id, event, received_date)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_landed_files ( -- landed files of the home that were removed because their time was over
    sha256 TEXT PRIMARY KEY, file TEXT NOT NULL, as_of TEXT NOT NULL, received_date TEXT NOT NULL, rows INTEGER NOT NULL)
    WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_memberships ( -- memberships of segments that were removed because their time was over
    as_of TEXT NOT NULL, segment TEXT NOT NULL, memberships INTEGER NOT NULL, first_day TEXT NOT NULL, last_day TEXT NOT NULL,
    PRIMARY KEY (as_of, segment)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS expired_models (   -- versions of a model that were removed because their time was over
    version INTEGER NOT NULL, bundle_version TEXT NOT NULL, trained_at TEXT NOT NULL, as_of TEXT NOT NULL,
    PRIMARY KEY (version, bundle_version)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS model_decisions (   -- which version of the recommender serves, and why: append only
    decision_id INTEGER PRIMARY KEY, as_of TEXT NOT NULL, action TEXT NOT NULL, version INTEGER NOT NULL,
    bundle_version TEXT NOT NULL, champion INTEGER,               -- serves afterwards
    reasons TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS retention_seen (   -- partitions that need no look before a time, while their files and the rules stay
    store TEXT NOT NULL, partition TEXT NOT NULL, state TEXT NOT NULL, due TEXT,
    PRIMARY KEY (store, partition)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS quarantine_erasures ( -- lines of people that were removed; who they were is not kept
    erasure_id TEXT PRIMARY KEY, erased_at TEXT NOT NULL, rows INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS pii_keys (         -- keys that direct identifiers were hashed with, in order; never a key itself
    position INTEGER PRIMARY KEY, key_id TEXT NOT NULL,
    check_value TEXT NOT NULL,                -- tells two keys of one id apart
    first_used TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS key_rotations (    -- stored tokens that were folded on to the last key; the date is of the accepted rows
    rotation_id TEXT PRIMARY KEY, rotated_at TEXT NOT NULL, key_id TEXT NOT NULL, files INTEGER NOT NULL,
    rows INTEGER NOT NULL, first_received_date TEXT);

CREATE TABLE IF NOT EXISTS export_keys (      -- keys that a destination's pseudonyms were made with; never a key itself
    destination TEXT NOT NULL, key_id TEXT NOT NULL,
    check_value TEXT NOT NULL,                -- tells two keys of one id apart
    first_used TEXT NOT NULL, PRIMARY KEY (destination, key_id)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS membership (       -- one entry or exit of one entity
    seq INTEGER PRIMARY KEY,                  -- order of things at one moment (two runs may share a clock)
    segment TEXT NOT NULL, entity_type TEXT NOT NULL, entity_id TEXT NOT NULL,
    happened_at TEXT NOT NULL, change TEXT NOT NULL CHECK (change IN ('enter', 'exit')), exit_reason TEXT);

CREATE TABLE IF NOT EXISTS membership_open (  -- memberships that no exit has ended, and until when each was good
    segment TEXT NOT NULL, entity_id TEXT NOT NULL, entered_at TEXT NOT NULL,
    expires_at TEXT,                          -- null: not known, recorded by an earlier version
    PRIMARY KEY (segment, entity_id)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS withdrawals (      -- how many people withdrew a purpose since the run before, and what of theirs ended
    as_of TEXT NOT NULL, purpose TEXT NOT NULL, people INTEGER NOT NULL, memberships INTEGER NOT NULL,
    lists INTEGER NOT NULL, interactions INTEGER NOT NULL, PRIMARY KEY (as_of, purpose)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS experiment_stops ( -- an experiment taken out of serving; token: what takes that back
    token TEXT PRIMARY KEY, experiment_id TEXT NOT NULL, config_hash TEXT NOT NULL,
    cause TEXT NOT NULL CHECK (cause IN ('srm', 'harm', 'person')), reason TEXT NOT NULL, evidence TEXT NOT NULL,
    as_of TEXT NOT NULL, stopped_at TEXT NOT NULL, reverted_at TEXT, reverted_because TEXT) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS experiment_looks ( -- planned looks that were taken, and what was decided; day: after the start
    experiment_id TEXT NOT NULL, day INTEGER NOT NULL, as_of TEXT NOT NULL, alpha REAL NOT NULL, config_hash TEXT NOT NULL,
    input_hash TEXT NOT NULL, decision TEXT NOT NULL, variants TEXT NOT NULL, reasons TEXT NOT NULL, taken_at TEXT NOT NULL,
    PRIMARY KEY (experiment_id, day));

CREATE TABLE IF NOT EXISTS experiment_configurations ( -- how an experiment was configured from its start on
    experiment_id TEXT NOT NULL, config_hash TEXT NOT NULL, as_of TEXT NOT NULL, seen_at TEXT NOT NULL,
    PRIMARY KEY (experiment_id, config_hash));

CREATE TABLE IF NOT EXISTS segment_sizes (    -- a segment at the clock of a run; visible: outside the restricted store, too
    segment TEXT NOT NULL, as_of TEXT NOT NULL, size INTEGER NOT NULL, visible INTEGER NOT NULL,
    PRIMARY KEY (segment, as_of)) WITHOUT ROWID;
"""


# Columns that came after the first ledgers were made, with what they mean there.
_LATER_COLUMNS = {"ingested_files": ("exempt", "consent_unreadable", "erased")}


def _add_columns(db: sqlite3.Connection) -> None:
    for table, names in _LATER_COLUMNS.items():
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        for name in set(names) - there:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0")


def _add_known(db: sqlite3.Connection) -> None:
    """A ledger of an earlier version does not say since when anything was known (docs/decisions/0028-known-at.md).

    Its denials count at every clock. Its grants were known to the latest run, and count from that run's clock on.
    """
    if "unknown_at" not in {row[1] for row in db.execute("PRAGMA table_info(consent)")}:
        db.execute("ALTER TABLE consent ADD COLUMN unknown_at TEXT")
        clocks = [
            row[0] for row in db.execute(f"SELECT DISTINCT at FROM ({RECORDED_CLOCKS_SQL}) ORDER BY at DESC LIMIT 2")
        ]
        before = clocks[1] if len(clocks) == 2 else ""
        db.execute("UPDATE consent SET unknown_at = CASE status WHEN 'granted' THEN ? ELSE '' END", [before])


# The clocks of which segment history tells: what was built for them has to be built again alike.
RECORDED_CLOCKS_SQL = """
    SELECT as_of AS at FROM segment_sizes UNION SELECT happened_at FROM membership WHERE change = 'enter'
"""


def _tables(db: sqlite3.Connection) -> set[str]:
    return {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


# A ledger of an earlier version has memberships without a list of those that are open.
_OPEN_MEMBERSHIPS_SQL = """
    INSERT INTO membership_open
    SELECT segment, entity_id, max(happened_at) FILTER (WHERE change = 'enter'), NULL FROM membership
    GROUP BY segment, entity_id HAVING sum(CASE change WHEN 'enter' THEN 1 ELSE -1 END) > 0
"""


def _runs_from_latest_words(db: sqlite3.Connection) -> None:
    """A ledger of an earlier version kept changes and one latest word a person: what it forgot counts as denied."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'consent_seen'").fetchall():
        db.execute(_RUNS_FROM_LATEST_WORDS_SQL)
        db.execute("DROP TABLE consent_seen")


# A denial is taken to have gone on until just before the next grant, or until the latest word.
_RUNS_FROM_LATEST_WORDS_SQL = """
    INSERT OR IGNORE INTO consent_runs
    WITH timed AS (
        SELECT user_id, purpose, status,
            CAST(strftime('%s', effective_from) AS INTEGER) * 1000000 + CAST(substr(effective_from, 21, 6) AS INTEGER) AS at
        FROM (SELECT user_id, purpose, status, effective_from FROM consent WHERE origin = 'event'
              UNION SELECT user_id, purpose, status, effective_from FROM consent_seen)
    ), points AS (
        SELECT user_id, purpose, min(status) AS status, at FROM timed GROUP BY user_id, purpose, at
    ), ordered AS (
        SELECT *, lead(at) OVER person AS next_at, lead(status) OVER person AS next_status
        FROM points WINDOW person AS (PARTITION BY user_id, purpose ORDER BY at)
    )
    SELECT user_id, purpose, status, at,
        CASE WHEN next_at IS NULL OR status = 'granted' THEN at WHEN next_status = 'granted' THEN next_at - 1 ELSE next_at END,
        status = 'denied' AND next_at IS NOT NULL, 0
    FROM ordered
"""


class Ledger:
    """One SQLite file that several processes may read and write.

    Parameters
    ----------
    path : the file; created with its tables when absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.transaction() as db:
            before = _tables(db)
            for statement in _TABLES.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            _add_columns(db)
            _add_known(db)
            _runs_from_latest_words(db)
            if "membership" in before and "membership_open" not in before:
                db.execute(_OPEN_MEMBERSHIPS_SQL)
            row = db.execute("SELECT version FROM schema_version").fetchone()
            if row is None:
                db.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
            elif row[0] != SCHEMA_VERSION:
                raise InputError(
                    f"the ledger has schema {row[0]}, this version knows {SCHEMA_VERSION}",
                    path,
                    "use the matching version",
                )

    def connect(self) -> sqlite3.Connection:
        """A connection in WAL mode that waits up to 30 s for another writer; commits are durable."""
        try:
            db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        except sqlite3.DatabaseError as error:
            raise InputError(f"the ledger cannot be opened ({error})", self.path, "restore it from a backup") from None
        return db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commit on leaving, roll back on an exception or a kill."""
        db = self.connect()
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        finally:
            db.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        db = self.connect()
        try:
            yield db
        finally:
            db.close()

    def copy_table(self, table: str, con: duckdb.DuckDBPyConnection, columns: dict[str, str]) -> int:
        """Replace state.<table> in the warehouse by this ledger's rows, in bounded batches; returns the row count.

        Parameters
        ----------
        columns : ledger column -> warehouse type, in the order wanted.
        """
        con.execute("CREATE SCHEMA IF NOT EXISTS state")
        declared = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        con.execute(f"CREATE OR REPLACE TABLE state.{table} ({declared})")
        schema = pa.schema([(name, pa.int64() if kind == "BIGINT" else pa.string()) for name, kind in columns.items()])
        rows = 0
        with self.read() as db:
            cursor = db.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(columns)}")
            while batch := cursor.fetchmany(50_000):
                arrays = [
                    pa.array(column, type=field.type)
                    for column, field in zip(zip(*batch, strict=True), schema, strict=True)
                ]
                con.register("ledger_batch", pa.table(arrays, schema=schema))
                con.execute(f"INSERT INTO state.{table} SELECT * FROM ledger_batch")
                con.unregister("ledger_batch")
                rows += len(batch)
        return rows
