"""The consent ledger: statements that a person made, from the company's ledger file and from the events themselves.

Belongs here: reading a ledger file, appending, since when a statement is known, looking up the statements of some users.
Does not belong here: what an event needs (tracking/) and consent as of a time over all users (dbt, core.consent_history).
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.tombstones import load_tombstones
from zantara_pipeline.storage.ledger import RECORDED_CLOCKS_SQL, Ledger

MOST_ID_LENGTH = 1_000
"""Characters of an id, in the ledger and in events: what is longer is nobody's, and would go through every join."""
_LONGEST_FIELD = 2**17  # of a consent file; csv gives up behind it
COLUMNS = ("user_id", "purpose", "status", "effective_from")
STATEMENT_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("purpose", pa.string()),
        ("status", pa.string()),
        ("effective_from", pa.string()),
        ("origin", pa.string()),
    ]
)
RUN_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("purpose", pa.string()),
        ("status", pa.string()),
        ("since", pa.int64()),
        ("until", pa.int64()),
        ("hidden", pa.int64()),
        ("slack", pa.int64()),
    ]
)
OBJECTION_SCHEMA = pa.schema([("kind", pa.string()), ("id", pa.string()), ("purpose", pa.string())])


class Statement(NamedTuple):
    """One statement: effective_from is UTC ISO 8601 with microseconds (text order is time order)."""

    user_id: str
    purpose: str
    status: str
    effective_from: str
    origin: str


def utc_text(moment: datetime) -> str:
    """UTC, ISO 8601, always with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"  # %Y does not pad


def consent_files(place: Path) -> list[Path]:
    """The ledger files at a place: the file itself, or every .csv / .csv.gz of the folder; none is fine."""
    if place.is_file():
        return [place]
    return sorted(p for p in place.glob("*.csv*") if p.name.endswith((".csv", ".csv.gz"))) if place.is_dir() else []


def append_ledger_file(ledger: Ledger, path: Path, purposes: Collection[str]) -> int:
    """Append a consent ledger CSV (user_id,purpose,status,effective_from); known statements are left as they are.

    Returns the number of new statements. All or nothing. Statements of people who were erased are not taken.

    Raises
    ------
    InputError : wrong header, purpose, status or time, with the line (never the user).
    """
    statements, tombstones = _read(path, purposes), load_tombstones(ledger)
    if tombstones is None:
        return append(ledger, statements)
    return append(ledger, (said for said in statements if not tombstones.covers("user", said.user_id)))


def append(ledger: Ledger, statements: Iterable[Statement]) -> int:
    """Append statements; the same one twice is one."""
    with ledger.transaction() as db:
        before = db.total_changes
        db.executemany(
            "INSERT OR IGNORE INTO consent (user_id, purpose, status, effective_from, origin) VALUES (?, ?, ?, ?, ?)",
            statements,
        )
        return db.total_changes - before


def date_new_statements(ledger: Ledger, as_of: datetime) -> datetime:
    """Say of statements that no run has read yet which clocks did not know them; returns the latest clock of any run.

    They came after the latest run that was built for an earlier clock than this run's: no clock up to that one knows
    them, so that a past date is built from what was known then. A run that goes back to an earlier clock is different:
    what it takes was not known at the later clocks either. There a grant waits until the clock has passed all of them;
    a denial counts at once, because a withdrawal reaches the next run whatever its clock.
    """
    now = utc_text(as_of)
    with ledger.transaction() as db:
        clocks = f"SELECT max(at) FROM ({RECORDED_CLOCKS_SQL})"
        latest = db.execute(clocks).fetchone()[0] or ""
        before = db.execute(f"{clocks} WHERE at < ?", [now]).fetchone()[0] or ""
        db.execute(
            "UPDATE consent SET unknown_at = CASE status WHEN 'denied' THEN ? ELSE ? END WHERE unknown_at IS NULL",
            [before, latest if latest > now else before],
        )
    return max(as_of, datetime.fromisoformat(latest)) if latest else as_of


def _read(path: Path, purposes: Collection[str]) -> Iterator[Statement]:
    opened = (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")  # noqa: SIM115 (closed by the with below)
        if path.name.endswith(".gz")
        else path.open(encoding="utf-8-sig", newline="")
    )
    limit = csv.field_size_limit(_LONGEST_FIELD)  # the interpreter's, and others raise it
    try:
        with opened as handle:  # type: ignore[union-attr]
            rows = csv.reader(handle)
            header = next(rows, None)
            if header is None or tuple(header) != COLUMNS:
                raise InputError(f"the header is not {','.join(COLUMNS)}", f"{path}:1", "write that header")
            for row in rows:
                if row:
                    yield _statement(row, f"{path}:{rows.line_num}", purposes)
    except csv.Error:  # too long a field: a quote that was never closed swallowed the lines after it
        raise InputError(
            "not a readable CSV line", f"{path}:{rows.line_num}", "look for a quote that is not closed"
        ) from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"cannot be read ({type(error).__name__})", path, "check the file") from None
    finally:
        csv.field_size_limit(limit)


def _statement(row: list[str], where: str, purposes: Collection[str]) -> Statement:
    if len(row) != len(COLUMNS):
        raise InputError(f"{len(row)} fields instead of {len(COLUMNS)}", where, "mend that line")
    user_id, purpose, status, effective_from = row
    if not user_id:
        raise InputError("no user_id", where, "mend that line")
    if len(user_id) > MOST_ID_LENGTH:
        raise InputError(f"a user_id of more than {MOST_ID_LENGTH:,} characters", where, "mend that line")
    if purpose not in purposes:  # not repeated: where columns were swapped it is the user
        raise InputError("unknown purpose", where, f"known: {', '.join(sorted(purposes))}")
    status = {"withdrawn": "denied"}.get(status, status)  # a withdrawal is a denial from then on
    if status not in ("granted", "denied"):
        raise InputError("the status is none of granted, denied, withdrawn", where, "correct it")
    try:
        moment = datetime.fromisoformat(effective_from)
        since = utc_text(moment)
    except (ValueError, OverflowError):
        raise InputError(
            "effective_from is not an ISO 8601 time", where, "write it like 2026-03-01T00:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise InputError("effective_from has no zone", where, "write it like 2026-03-01T00:00:00Z")
    return Statement(user_id, purpose, status, since, "ledger")


def statements_of(ledger: Ledger, user_ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """All statements of some users (STATEMENT_SCHEMA): cost follows the users asked for, not the ledger's length."""
    return _of(ledger, user_ids, "consent", STATEMENT_SCHEMA)


def runs_of(ledger: Ledger, user_ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """What some users went on saying in events (RUN_SCHEMA; tracking/observed.py)."""
    return _of(ledger, user_ids, "consent_runs", RUN_SCHEMA)


def objections_of(ledger: Ledger, ids: pa.Table) -> pa.Table:
    """Denials under some anonymous and device ids (columns kind and id; OBJECTION_SCHEMA)."""
    with ledger.read() as db:
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("CREATE TEMP TABLE wanted (kind TEXT, id TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID")
        wanted = zip(ids.column("kind").to_pylist(), ids.column("id").to_pylist(), strict=True)
        db.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?)", wanted)
        rows = db.execute("SELECT kind, id, purpose FROM wanted JOIN consent_objections USING (kind, id)").fetchall()
    return pa.Table.from_pylist([dict(zip(OBJECTION_SCHEMA.names, row, strict=True)) for row in rows], OBJECTION_SCHEMA)


def _of(ledger: Ledger, user_ids: pa.Array | pa.ChunkedArray, table: str, schema: pa.Schema) -> pa.Table:
    names = ", ".join(f"t.{name}" for name in schema.names)
    with ledger.read() as db:
        if db.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchall() == [
            (0,)
        ]:  # a first file may name a million people
            return schema.empty_table()
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("CREATE TEMP TABLE wanted (user_id TEXT PRIMARY KEY) WITHOUT ROWID")
        db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((user,) for user in user_ids.to_pylist()))
        rows = db.execute(f"SELECT {names} FROM wanted JOIN {table} t USING (user_id)").fetchall()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)
