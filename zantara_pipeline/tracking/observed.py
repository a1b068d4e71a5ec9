"""What events themselves say of consent, kept as changes: a withdrawal must be learnt, also from a suppressed event.

Most people say the same with each of their events, so only changes are kept, and beside them the latest thing each
person said. Without that latest word a late event would fail open: denied at 5, denied at 9 (no change, not kept), and
then a late "granted" of 7 arrives: only the word of 9 says that the person still denies.

Belongs here: finding those changes in judged batches and saving them with their commit. Does not belong here: what a
consent permits (verdict.py) and consent over time (dbt, core.consent_history).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from zantara_pipeline.privacy.consent import statements_of
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote

# Rows held of a commit's batches, about 100 bytes each; a batch of 48 MB has 22,000 where people come back often.
MOST_HELD_WORDS = 500_000


@dataclass(frozen=True)
class Heard:
    """What one batch says of consent.

    words : one row a person; per purpose p: first_p, last_p (times), yes_p, no_p (was it granted, was it denied).
    mixed : user_id, purpose, status, occurred_at; every word of those who said both.
    """

    words: pa.Table
    mixed: pa.Table


def heard_in_batch(con: duckdb.DuckDBPyConnection, purposes: Sequence[str]) -> Heard:
    """Read it from the judge's temp table `parsed`."""
    words = _arrow(con, f"CREATE OR REPLACE TEMP TABLE batch_words AS {_summary_sql(purposes)}", "FROM batch_words")
    mixed = _arrow(con, "", " UNION ALL ".join(_mixed_sql(purpose) for purpose in purposes))
    return Heard(words, mixed)


class ObservedConsent:
    """Collects over the batches of one commit, in their order.

    Batches are held and taken together: what they change is found in a dozen statements however many they are.
    """

    def __init__(self, home: Home, ledger: Ledger, plan: TrackingPlan) -> None:
        self.ledger = ledger
        self.con = open_engine(None, home, threads=1, memory_limit="300MB")
        self.con.execute(_TABLES_SQL)
        self._held: list[Heard] = []
        self._join = _joined_words_sql(plan.purposes)
        self._mixed = " UNION ALL ".join(_both_words_sql(purpose) for purpose in plan.purposes)
        self._seen = _SEEN_SQL.format(latest=" UNION ALL ".join(_latest_sql(purpose) for purpose in plan.purposes))
        self._says = " UNION ALL ".join(_says_sql(purpose) for purpose in plan.purposes)

    def close(self) -> None:
        self.con.close()

    def add(self, heard: Heard) -> None:
        """What one batch says; found out about together with others, at the latest when `settle` is called."""
        self._held.append(heard)
        if sum(held.words.num_rows + held.mixed.num_rows for held in self._held) > MOST_HELD_WORDS:
            self.settle()

    def settle(self) -> None:
        """Find what the held batches change, and let the next ones of the commit know it."""
        if not self._held:
            return
        self.con.register("held_words", pa.concat_tables(held.words for held in self._held))
        self.con.register("held_mixed", pa.concat_tables(held.mixed for held in self._held))
        self._held = []
        self.con.execute(self._join)
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE batch_mixed AS FROM held_mixed UNION ALL {self._mixed}")
        self._recall()
        self.con.execute(_HEARD_SQL.format(says=self._says))
        self.con.execute(_CHANGES_SQL)
        self.con.execute("INSERT INTO observed_changes SELECT * FROM batch_changes")
        self.con.execute("INSERT INTO statements SELECT *, 'event' FROM batch_changes")
        self.con.execute(self._seen)
        self.con.execute(_FORGET_SEEN_SQL)
        self.con.execute("INSERT INTO statements SELECT *, 'seen' FROM batch_seen")

    def _recall(self) -> None:
        """Fetch what events said before of people not met in this commit yet."""
        new = "SELECT user_id FROM batch_words ANTI JOIN known_users USING (user_id)"
        users = _arrow(self.con, "", new)
        self.con.execute(f"INSERT INTO known_users {new}")
        self.con.register("recalled", statements_of(self.ledger, users.column(0)))
        self.con.execute("INSERT INTO statements SELECT * FROM recalled WHERE origin IN ('event', 'seen')")

    def save(self, db: sqlite3.Connection) -> None:
        """Write changes and latest words, once settled, in the commit's own transaction."""
        changes = "SELECT user_id, purpose, status, {time} FROM observed_changes".format(
            time=_TEXT.format("effective_from")
        )
        self._write(
            db,
            changes,
            "INSERT OR IGNORE INTO consent (user_id, purpose, status, effective_from, origin) VALUES (?, ?, ?, ?, 'event')",
        )
        seen = "SELECT user_id, purpose, status, {time} FROM statements WHERE origin = 'seen'".format(
            time=_TEXT.format("effective_from")
        )
        self._write(
            db,
            seen,
            "INSERT OR REPLACE INTO consent_seen (user_id, purpose, status, effective_from) VALUES (?, ?, ?, ?)",
        )

    def _write(self, db: sqlite3.Connection, query: str, insert: str) -> None:
        cursor = self.con.execute(f"{query} ORDER BY ALL")
        rows: list[tuple[Any, ...]]
        while rows := cursor.fetchmany(50_000):
            db.executemany(insert, rows)


def _summary_sql(purposes: Sequence[str]) -> str:
    """Per person and purpose: first and last word, and whether both words were said. One pass over the batch."""
    columns = "".join(
        f", min(occurred_at) FILTER (says_{p}) AS first_{p}, max(occurred_at) FILTER (says_{p}) AS last_{p}, "
        f"bool_or(says_{p} AND event_consent_{p}) AS yes_{p}, bool_or(says_{p} AND NOT event_consent_{p}) AS no_{p}"
        for p in purposes
    )
    return f"""
        SELECT uid AS user_id{columns} FROM parsed
        WHERE uid IS NOT NULL AND occurred_at IS NOT NULL AND stage <> 'unparsable' GROUP BY uid
    """


def _joined_words_sql(purposes: Sequence[str]) -> str:
    """`batch_words` of several batches: one row a person again."""
    columns = "".join(
        f", min(first_{p}) AS first_{p}, max(last_{p}) AS last_{p}, bool_or(yes_{p}) AS yes_{p}, bool_or(no_{p}) AS no_{p}"
        for p in purposes
    )
    return f"CREATE OR REPLACE TEMP TABLE batch_words AS SELECT user_id{columns} FROM held_words GROUP BY user_id"


def _both_words_sql(purpose: str) -> str:
    """First and last words of those who said one thing in one batch and the other in another.

    (Who says both in one batch is in that batch's `mixed` already.)
    """
    one_word = (
        f"FROM held_words h SEMI JOIN batch_words b ON b.user_id = h.user_id AND b.yes_{purpose} AND b.no_{purpose} "
        f"WHERE h.first_{purpose} IS NOT NULL AND NOT (h.yes_{purpose} AND h.no_{purpose})"
    )
    status = f"CASE WHEN yes_{purpose} THEN 'granted' ELSE 'denied' END"
    return (
        f"SELECT user_id, {quote(purpose)}, {status}, first_{purpose} {one_word} "
        f"UNION ALL SELECT user_id, {quote(purpose)}, {status}, last_{purpose} {one_word} AND last_{purpose} <> first_{purpose}"
    )


def _mixed_sql(purpose: str) -> str:
    return f"""
        SELECT uid AS user_id, {quote(purpose)} AS purpose,
            CASE WHEN event_consent_{purpose} THEN 'granted' ELSE 'denied' END AS status, occurred_at
        FROM parsed SEMI JOIN batch_words b ON b.user_id = parsed.uid AND b.yes_{purpose} AND b.no_{purpose}
        WHERE says_{purpose} AND stage <> 'unparsable' AND occurred_at IS NOT NULL
    """


def _latest_sql(purpose: str) -> str:
    """The last word of everybody in the batch who said one thing only."""
    return (
        f"SELECT user_id, {quote(purpose)} AS purpose, CASE WHEN yes_{purpose} THEN 'granted' ELSE 'denied' END AS status, "
        f"last_{purpose} AS occurred_at FROM batch_words WHERE first_{purpose} IS NOT NULL AND NOT (yes_{purpose} AND no_{purpose})"
    )


def _says_sql(purpose: str) -> str:
    """Observations of one purpose that can change something.

    Nothing of those who go on saying what they said last (nearly everybody, every day); the first and the last of
    others who said one thing only; all of the rest.
    """
    name = quote(purpose)
    status = f"CASE WHEN yes_{purpose} THEN 'granted' ELSE 'denied' END"
    one_word = (
        f"FROM batch_words ANTI JOIN statements s ON s.origin = 'seen' AND s.user_id = batch_words.user_id AND s.purpose = {name} "
        f"AND s.status = {status} AND s.effective_from <= first_{purpose} "
        f"WHERE first_{purpose} IS NOT NULL AND NOT (yes_{purpose} AND no_{purpose})"
    )
    return f"""
        SELECT user_id, {name} AS purpose, {status} AS status, first_{purpose} AS occurred_at {one_word}
        UNION ALL SELECT user_id, {name}, {status}, last_{purpose} {one_word} AND last_{purpose} <> first_{purpose}
        UNION ALL
        SELECT user_id, purpose, status, occurred_at FROM batch_mixed WHERE purpose = {name}
    """


def _arrow(con: duckdb.DuckDBPyConnection, before: str, query: str) -> pa.Table:
    if before:
        con.execute(before)
    return con.sql(query).to_arrow_table()


_TABLES_SQL = """
    CREATE TEMP TABLE observed_changes (user_id VARCHAR, purpose VARCHAR, status VARCHAR, effective_from TIMESTAMPTZ);
    CREATE TEMP TABLE known_users (user_id VARCHAR);
    CREATE TEMP TABLE statements
        (user_id VARCHAR, purpose VARCHAR, status VARCHAR, effective_from TIMESTAMPTZ, origin VARCHAR)
"""
_TEXT = "strftime({}, '%Y-%m-%dT%H:%M:%S.%fZ')"

# What the batch says, and each of its people's latest word so far, which is one more observation.
_HEARD_SQL = """
    CREATE OR REPLACE TEMP TABLE heard AS
    WITH says AS ({says})
    FROM says
    UNION ALL
    SELECT s.user_id, s.purpose, s.status, s.effective_from
    FROM statements s SEMI JOIN says ON says.user_id = s.user_id AND says.purpose = s.purpose
    WHERE s.origin = 'seen'
"""

_CHANGES_SQL = """
    CREATE OR REPLACE TEMP TABLE batch_changes AS
    WITH known AS (SELECT user_id, purpose, status, effective_from FROM statements WHERE origin = 'event'),
    ordered AS (
        SELECT *, lag(status) OVER (PARTITION BY user_id, purpose ORDER BY occurred_at, status DESC) AS before FROM heard
    )
    SELECT DISTINCT o.user_id, o.purpose, o.status, o.occurred_at AS effective_from
    FROM ordered o ASOF LEFT JOIN known k ON k.user_id = o.user_id AND k.purpose = o.purpose AND o.occurred_at >= k.effective_from
    WHERE CASE WHEN o.before IS NULL THEN k.status IS DISTINCT FROM o.status ELSE o.before <> o.status END
"""

_FORGET_SEEN_SQL = """
    DELETE FROM statements
    WHERE origin = 'seen' AND (user_id, purpose) IN (SELECT (user_id, purpose) FROM batch_seen)
"""

# Denied wins where one moment has both.
_SEEN_SQL = """
    CREATE OR REPLACE TEMP TABLE batch_seen AS
    WITH latest AS ({latest} UNION ALL FROM heard)
    SELECT l.user_id, l.purpose, arg_max(l.status, (l.occurred_at, l.status = 'denied')) AS status, max(l.occurred_at) AS effective_from
    FROM (
        FROM latest
        UNION ALL
        SELECT s.user_id, s.purpose, s.status, s.effective_from FROM statements s
        SEMI JOIN latest ON latest.user_id = s.user_id AND latest.purpose = s.purpose WHERE s.origin = 'seen'
    ) AS l
    GROUP BY l.user_id, l.purpose
"""
