"""What a run ended because people withdrew: how many, by purpose, and of what. Counts only, whoever they were.

A withdrawal is counted by the run that first obeys it: its person allowed the purpose at the clock of the run before, as far
as was known then, and does not at this one. What it ended is read from what was published before this run.

Belongs here: counting that, keeping it in the ledger, and the table ops.withdrawals. Does not belong here: ending anything
(segments, features and lists are made of who allows it; consented_tables.py finds whoever is left).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.consented_tables import allowed_sql
from zantara_pipeline.storage.ledger import RECORDED_CLOCKS_SQL, Ledger

_COLUMNS = {
    "as_of": "VARCHAR", "purpose": "VARCHAR", "people": "BIGINT", "memberships": "BIGINT", "lists": "BIGINT",
    "interactions": "BIGINT",
}  # fmt: skip
INTERACTIONS = "features.interactions"


@dataclass(frozen=True)
class Withdrawn:
    """Of one purpose: people who withdrew it since the run before, and what of theirs ended."""

    purpose: str
    people: int
    memberships: int
    lists: int
    interactions: int

    def __str__(self) -> str:
        ended = f"{self.memberships:,} memberships, {self.lists:,} lists and {self.interactions:,} interactions ended"
        return f"{self.purpose}: {self.people:,} withdrew, {ended}"


def record_withdrawals(
    con: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    as_of: datetime,
    purpose_of_segment: Mapping[str, str],
    lists: Mapping[str, str],
    published: Path,
    purposes: Sequence[str],
) -> list[Withdrawn]:
    """Count, remember in the ledger, and write ops.withdrawals; the same run again counts the same.

    Parameters
    ----------
    con : the warehouse, after segments and lists were made.
    lists : table -> purpose, of the lists that are made for people.
    published : the copy that the run before left; where there is none, lists and interactions are not counted.

    A run of an earlier clock than the latest one recorded counts nothing: its past was counted then.
    """
    now = utc_text(as_of)
    with ledger.read() as db:
        latest = db.execute("SELECT max(as_of) FROM withdrawals").fetchone()[0]
        before = db.execute("SELECT max(as_of) FROM withdrawals WHERE as_of < ?", [now]).fetchone()[0]
        if before is None:
            before = db.execute(f"SELECT max(at) FROM ({RECORDED_CLOCKS_SQL}) WHERE at < ?", [now]).fetchone()[0]
        closed = db.execute(
            "SELECT segment, count(*) FROM membership WHERE exit_reason = 'consent_withdrawn' AND happened_at = ? GROUP BY 1",
            [now],
        ).fetchall()
    found: list[Withdrawn] = []
    if latest is None or latest <= now:
        ended = [(purpose_of_segment.get(segment), count) for segment, count in closed]
        with _withdrawn(con, before, now), _before(con, published) as tables:
            for purpose in sorted(purposes):
                found.append(
                    Withdrawn(
                        purpose,
                        _count(con, "withdrawn", purpose, "count(*)"),
                        sum(count for of, count in ended if of == purpose),
                        sum(_count(con, f"before.{table}", purpose, "count(DISTINCT user_id)")
                            for table, of in lists.items() if of == purpose and table in tables),
                        _count(con, f"before.{INTERACTIONS}", purpose, "count(*)")
                        if purpose == "personalization" and INTERACTIONS in tables else 0,
                    )
                )  # fmt: skip
        _remember(ledger, now, found)
    _write(con, ledger)
    return found


def _remember(ledger: Ledger, now: str, found: Sequence[Withdrawn]) -> None:
    """The same clock again: what was published before has ended by then, so the larger number is the true one."""
    with ledger.transaction() as db:
        db.executemany(
            "INSERT INTO withdrawals VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (as_of, purpose) DO UPDATE SET people = excluded.people, "
            "memberships = excluded.memberships, lists = max(lists, excluded.lists), "
            "interactions = max(interactions, excluded.interactions)",
            [(now, w.purpose, w.people, w.memberships, w.lists, w.interactions) for w in found],
        )


def _write(con: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    ledger.copy_table("withdrawals", con, _COLUMNS)
    con.execute("CREATE SCHEMA IF NOT EXISTS ops")
    con.execute(
        "CREATE OR REPLACE TABLE ops.withdrawals AS SELECT * REPLACE (as_of::TIMESTAMPTZ AS as_of) "
        "FROM state.withdrawals ORDER BY ALL"
    )
    for column, text in _COMMENTS.items():
        con.execute(f"COMMENT ON COLUMN ops.withdrawals.{column} IS '{text}'")


_COMMENTS = {
    "as_of": "Clock of the run that obeyed them first (UTC).",
    "purpose": "Purpose of contracts/privacy.yaml.",
    "people": "People who allowed it at the clock of the run before, and do not now.",
    "memberships": "Memberships of segments for it that ended for that reason.",
    "lists": "People of them who had a list of recommendations.",
    "interactions": "Interactions of theirs that training no longer sees.",
}


@contextmanager
def _withdrawn(con: duckdb.DuckDBPyConnection, before: str | None, now: str) -> Iterator[None]:
    """Temp table `withdrawn` (user_id, purpose)."""
    con.execute(allowed_sql("allowed_before", before or "0001-01-01T00:00:00.000000Z"))
    con.execute(allowed_sql("allowed_now", now))
    con.execute(
        "CREATE OR REPLACE TEMP TABLE withdrawn AS FROM allowed_before ANTI JOIN allowed_now USING (user_id, purpose)"
    )
    try:
        yield
    finally:
        con.execute("DROP TABLE withdrawn; DROP TABLE allowed_before; DROP TABLE allowed_now")


@contextmanager
def _before(con: duckdb.DuckDBPyConnection, published: Path) -> Iterator[set[str]]:
    """What was published before, attached as `before`; yields the names of its tables."""
    if not published.exists():
        yield set()
        return
    path = str(published).replace("'", "''")
    con.execute(f"ATTACH '{path}' AS before (READ_ONLY)")
    try:
        names = "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'before'"
        yield {name for (name,) in con.execute(names).fetchall()}
    finally:
        con.execute("DETACH before")


def _count(con: duckdb.DuckDBPyConnection, table: str, purpose: str, what: str) -> int:
    query = f"SELECT {what} FROM {table} SEMI JOIN (SELECT user_id FROM withdrawn WHERE purpose = ?) USING (user_id)"
    return int(con.execute(query, [purpose]).fetchall()[0][0])
