"""What events themselves say of consent, kept as changes: a withdrawal must be learnt, also from a suppressed event.

All words of one commit are put in order together, whichever of its batches they came in. Of what was said before, the
ledger keeps runs and not words: how long somebody went on saying the same (docs/decisions/0013-latest-word-on-consent.md
says why). In a run of denials with more words than its two ends, nobody knows any more where they stood: a grant that
comes late and belongs inside such a run does not count. So a moment that stands as granted was granted by all words that
ever came; the opposite may be wrong by what was forgotten.

Most people say the same with each of their events. Who goes on granting costs one row a person, whatever the number of
lines: single words are looked at only of those who said both, and are packed until then.

Belongs here: the changes that judged batches make, and saving them with their commit. Does not belong here: when one
word holds (consent_words.py), what a consent permits (verdict.py), consent over time (dbt, core.consent_history).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from zantara_pipeline.privacy.consent import runs_of, statements_of
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.consent_words import Heard, microseconds
from zantara_pipeline.tracking.packed_tables import packed, unpacked
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.verdict import Rules

MOST_ROWS = 250_000
"""Of `people` between two summings: a row takes 100 bytes, and most people come with many batches."""
SHARES = 2
"""People are settled in so many shares, one beside another: what one says changes nothing of anybody else."""


class ObservedConsent:
    """Collects over the batches of one commit: people in an engine of bounded memory, single words packed."""

    def __init__(self, home: Home, ledger: Ledger, rules: Rules) -> None:
        self.ledger, self.purposes = ledger, list(rules.plan.purposes)
        self.clock = microseconds(rules.judged_at)
        self.con = open_engine(None, home, threads=1, memory_limit="300MB")
        self._heard, self._words, self._rows = False, list[pa.Buffer](), 0
        self._shares: list[tuple[_Share, list[Future[_Settled]]]] = []

    def close(self) -> None:
        for share, _ in self._shares:
            share.con.close()
        self.con.close()

    def add(self, heard: Heard) -> None:
        """What one batch says."""
        self._words.append(_packed_words(heard.said))
        for name, table in (("people", heard.people), ("objections", heard.objections)):
            self.con.register("arrow_heard", table)
            how = f"INSERT INTO {name}" if self._heard else f"CREATE TABLE {name} AS"
            self.con.execute(f"{how} FROM arrow_heard")
            self.con.unregister("arrow_heard")
        self._heard = True
        self._rows += heard.people.num_rows
        if self._rows > MOST_ROWS:
            self.con.execute(_summed_sql(self.purposes))
            self._rows = 0

    def objections(self) -> pa.Table:
        """Denials heard so far of what an exemption would allow (privacy.consent.OBJECTION_SCHEMA, and kind uid)."""
        query = "SELECT DISTINCT kind, id, purpose FROM objections" if self._heard else _NO_OBJECTIONS
        return self.con.sql(query).to_arrow_table()

    def settle(self, latest: datetime | None, pool: Executor) -> None:
        """Begin to find what the batches change; `save` waits for it.

        latest : the latest receipt of an accepted line of the commit.
        """
        if not self._heard:
            return
        now = self._now(latest)
        shares = [_Share(self.con.cursor(), self.ledger, self.purposes, number) for number in range(SHARES)]
        first = [pool.submit(share.settle_simple) for share in shares]
        pool.submit(self._forget_people, first)
        rest = [
            pool.submit(share.settle_rest, done, self._words, now, self.clock)
            for share, done in zip(shares, first, strict=True)
        ]
        self._shares = [(share, list(parts)) for share, *parts in zip(shares, first, rest, strict=True)]

    def _forget_people(self, simple: Sequence[Future[_Settled]]) -> None:
        for settled in simple:
            settled.result()
        with self.con.cursor() as con:
            con.execute("DROP TABLE people")

    def _now(self, latest: datetime | None) -> int:
        """The latest receipt that anybody knows of: a run that is given no clock takes this one."""
        with self.ledger.read() as db:
            ((before,),) = db.execute("SELECT max(max_received_at) FROM ingested_files").fetchall()
        known = [datetime.fromisoformat(before)] if before else []
        known += [latest] if latest else []
        return min([self.clock, max(map(microseconds, known))]) if known else self.clock

    def save(self, db: sqlite3.Connection) -> None:
        """Write changes and runs in the commit's own transaction, as they are settled: what is simple first."""
        for part in zip(*(parts for _, parts in self._shares), strict=True):
            for settled in part:
                settled.result().save(db)
        if self._heard:
            objections = self.con.sql(
                "SELECT DISTINCT kind, id, purpose FROM objections WHERE kind <> 'uid' ORDER BY ALL"
            )
            _write(
                db, objections.to_arrow_table(),
                "INSERT OR IGNORE INTO consent_objections (kind, id, purpose) VALUES (?, ?, ?)",
            )  # fmt: skip


@dataclass(frozen=True)
class _Settled:
    """What is to be written of some people: new statements, runs, and whose runs they replace (user, purpose)."""

    changes: pa.Table
    runs: pa.Table
    replaced: pa.Table | None = None

    def save(self, db: sqlite3.Connection) -> None:
        _write(
            db, self.changes,
            "INSERT OR IGNORE INTO consent (user_id, purpose, status, effective_from, origin) VALUES (?, ?, ?, ?, 'event')",
        )  # fmt: skip
        if self.replaced is not None:
            _write(db, self.replaced, "DELETE FROM consent_runs WHERE user_id = ? AND purpose = ?")
        _write(
            db, self.runs,
            "INSERT OR REPLACE INTO consent_runs (user_id, purpose, status, since, until, hidden, slack) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
        )  # fmt: skip


class _Share:
    """What the batches of a commit change for one share of the people.

    Most people said one thing only, now and before. They are settled first, and written while the others are settled.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, ledger: Ledger, purposes: Sequence[str], number: int) -> None:
        self.con, self.ledger, self.purposes, self.number = con, ledger, purposes, number

    def settle_simple(self) -> _Settled:
        """Those of whom no single word is needed: they speak for the first time, or go on granting."""
        self.con.execute(_voices_sql(self.purposes, self.number))
        self._recall("runs", runs_of(self.ledger, self._users("voices")))
        self.con.execute(_GOING_ON_SQL)
        self.con.execute(_REST_SQL)
        self._recall("statements", statements_of(self.ledger, self._users("rest")))
        self.con.execute(_POINTS_SQL)
        self.con.execute(_BOTH_VOICES_SQL)
        first = f"{_FIRST_WORDS} ANTI JOIN points USING (user_id, purpose)"
        settled = _Settled(
            changes=self._table(f"SELECT user_id, purpose, {_STATUS}, {_text('since')} FROM ({first})"),
            runs=self._table(f"{_RUN_COLUMNS} FROM ({first} UNION ALL BY NAME FROM going_on)"),
        )
        self._drop("voices", "going_on")
        return settled

    def settle_rest(self, simple: Future[_Settled], words: Sequence[pa.Buffer], now: int, clock: int) -> _Settled:
        """Everybody else.

        now, clock : microseconds since 1970; nothing is said later than either.
        """
        simple.result()
        self._unpack(words)
        self.con.execute(_stretches_sql(self.purposes, now, clock))
        self._drop("said")
        self.con.execute(_KEPT_SQL)
        self._drop("stretches")
        self.con.execute(_NEW_RUNS_SQL)
        self.con.execute(_CHANGES_SQL)
        return _Settled(
            changes=self._table(f"SELECT user_id, purpose, {_STATUS}, {_text('moment')} FROM changes"),
            runs=self._table(f"{_RUN_COLUMNS} FROM new_runs"),
            replaced=self._table("SELECT DISTINCT user_id, purpose FROM runs SEMI JOIN rest USING (user_id, purpose)"),
        )

    def _drop(self, *tables: str) -> None:
        """What is not read again: all of them together are 100 MB of ten million lines, where an ingest needs most."""
        for table in tables:
            self.con.execute(f"DROP TABLE {table}")

    def _table(self, query: str) -> pa.Table:
        return self.con.sql(f"{query} ORDER BY ALL").to_arrow_table()

    def _unpack(self, packed_words: Sequence[pa.Buffer]) -> None:
        """Temp table `said`: the words of those in `both_voices`."""
        users = self._users("both_voices").combine_chunks()
        for number, words in enumerate(packed_words):
            self.con.register("words", _words_of(words, users))
            how = "INSERT INTO said" if number else "CREATE OR REPLACE TEMP TABLE said AS"
            self.con.execute(f"{how} FROM words")
            self.con.unregister("words")

    def _users(self, relation: str) -> pa.ChunkedArray:
        return self.con.sql(f"SELECT DISTINCT user_id FROM {relation}").to_arrow_table().column(0)

    def _recall(self, name: str, table: pa.Table) -> None:
        self.con.register("recalled", table)
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM recalled")
        self.con.unregister("recalled")


def _write(db: sqlite3.Connection, rows: pa.Table, statement: str) -> None:
    for batch in rows.to_batches(max_chunksize=50_000):
        db.executemany(statement, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _packed_words(said: pa.Table) -> pa.Buffer:
    """Words with numbers for users and spans for ends: most spans are nothing."""
    users = said.column("user_id").combine_chunks().dictionary_encode()
    spans = pc.subtract(said.column("until"), pc.fill_null(said.column("since"), 0))
    return packed(said.set_column(0, "user_id", users).set_column(2, "until", spans))


def _words_of(words: pa.Buffer, users: pa.Array) -> pa.Table:
    """What some users said."""
    said = unpacked(words)
    column = said.column("user_id").combine_chunks()
    said = said.filter(pc.is_in(column.dictionary, value_set=users).take(column.indices))
    until = pc.add(said.column("until"), pc.fill_null(said.column("since"), 0))
    return said.set_column(0, "user_id", said.column("user_id").cast(pa.string())).set_column(2, "until", until)


def _summed_sql(purposes: Sequence[str]) -> str:
    """Make `people` have one row a person again."""
    columns = "".join(
        f", min(first_{p}) AS first_{p}, max(last_{p}) AS last_{p}, sum(lines_{p})::BIGINT AS lines_{p}, "
        f"max(slack_{p}) AS slack_{p}, bool_or(yes_{p}) AS yes_{p}, bool_or(no_{p}) AS no_{p}"
        for p in purposes
    )
    return f"""
        CREATE TABLE summed AS SELECT user_id, bool_or(timeless) AS timeless{columns} FROM people GROUP BY user_id;
        DROP TABLE people;
        ALTER TABLE summed RENAME TO people
    """


def _voices_sql(purposes: Sequence[str], share: int) -> str:
    """One row a person of the share and purpose: what was said of it in the whole commit, in short."""
    voices = " UNION ALL ".join(
        f"SELECT user_id, {quote(p)} AS purpose, bool_or(yes_{p}) AS yes, bool_or(no_{p}) AS no, bool_or(timeless) AS timeless, "
        f"min(first_{p}) AS first, max(last_{p}) AS last, sum(lines_{p}) AS lines, max(slack_{p}) AS slack "
        f"FROM people WHERE hash(user_id) % {SHARES} = {share} GROUP BY user_id HAVING bool_or(yes_{p} OR no_{p})"
        for p in purposes
    )
    return f"CREATE OR REPLACE TEMP TABLE voices AS {voices}"


def _stretches_sql(purposes: Sequence[str], now: int, clock: int) -> str:
    """What is known of those in `rest` of whom anything else was ever said: runs of the ledger, and what is new.

    Who said one thing only, now and before, is summed up; of the others every word counts.
    """
    words = " UNION ALL ".join(
        f"SELECT user_id, {quote(p)} AS purpose, NOT said_{p} AS denied, coalesce(since, {min(now, clock)}) AS since, until "
        f"FROM said SEMI JOIN both_voices b ON b.user_id = said.user_id AND b.purpose = {quote(p)} WHERE said_{p} IS NOT NULL"
        for p in purposes
    )
    return f"""
        CREATE OR REPLACE TEMP TABLE stretches AS
        WITH words AS ({words})
        SELECT user_id, purpose, denied, CASE WHEN denied THEN since ELSE until END AS since, until,
            denied AND until > since AS hidden, CASE WHEN denied THEN 0 ELSE until - since END AS slack
        FROM words
        UNION ALL
        SELECT user_id, purpose, no, first, last, no AND (lines > 2 OR slack > 0), CASE WHEN no THEN 0 ELSE slack END
        FROM rest SEMI JOIN runs USING (user_id, purpose) ANTI JOIN both_voices USING (user_id, purpose)
        UNION ALL
        SELECT user_id, purpose, status = 'denied', since, until, hidden::BOOLEAN, slack
        FROM runs SEMI JOIN rest USING (user_id, purpose)
    """


_NO_OBJECTIONS = "SELECT '' AS kind, '' AS id, '' AS purpose WHERE false"
_STATUS = "CASE WHEN denied THEN 'denied' ELSE 'granted' END AS status"
_RUN_COLUMNS = f"SELECT user_id, purpose, {_STATUS}, since, until, hidden::INTEGER AS hidden, slack"


def _text(moment: str) -> str:
    return f"strftime(make_timestamp({moment}), '%Y-%m-%dT%H:%M:%S.%fZ') AS effective_from"


# Those who granted last and go on granting: their run gets longer, and nothing else can have changed. (With a span, a
# grant could touch a denial before it; then the long way is taken, unless there never was one.)
_GOING_ON_SQL = """
    CREATE OR REPLACE TEMP TABLE going_on AS
    WITH last_runs AS (
        SELECT user_id, purpose, arg_max(status, since) AS status, max(since) AS since, arg_max(until, since) AS until,
            arg_max(slack, since) AS slack, count(*) AS runs
        FROM runs GROUP BY user_id, purpose
    )
    SELECT user_id, purpose, false AS denied, r.since, v.last AS until, false AS hidden, greatest(r.slack, v.slack) AS slack
    FROM voices v JOIN last_runs r USING (user_id, purpose)
    WHERE v.yes AND NOT v.no AND NOT v.timeless AND r.status = 'granted' AND r.until <= v.first
        AND (v.slack = 0 OR r.runs = 1)
"""

_REST_SQL = "CREATE OR REPLACE TEMP TABLE rest AS SELECT v.* FROM voices v ANTI JOIN going_on USING (user_id, purpose)"

# What stands in the ledger of them already.
_POINTS_SQL = """
    CREATE OR REPLACE TEMP TABLE points AS
    SELECT user_id, purpose, status = 'denied' AS denied, epoch_us(effective_from::TIMESTAMPTZ) AS moment
    FROM statements SEMI JOIN rest USING (user_id, purpose) WHERE origin = 'event'
"""

# Of whom single words are needed: they said both, or the ledger knows the opposite of them.
_BOTH_VOICES_SQL = """
    CREATE OR REPLACE TEMP TABLE both_voices AS
    SELECT user_id, purpose FROM rest r
    WHERE (yes AND no) OR timeless OR EXISTS (
        FROM runs WHERE runs.user_id = r.user_id AND runs.purpose = r.purpose AND (runs.status = 'denied') <> r.no
    )
"""

# Who spoke for the first time, and said one thing only: one run, and nothing to weigh.
_FIRST_WORDS = """
    SELECT user_id, purpose, no AS denied, first AS since, last AS until, no AND (lines > 2 OR slack > 0) AS hidden,
        CASE WHEN no THEN 0 ELSE slack END AS slack
    FROM rest ANTI JOIN both_voices USING (user_id, purpose) ANTI JOIN runs USING (user_id, purpose)
"""

# Moments at which somebody said something: the ends of each stretch. A grant counts where no denial touches the time in
# which it may have been said; denials of which only the ends are known, and those that last, touch all between their ends.
_KEPT_SQL = """
    CREATE OR REPLACE TEMP TABLE kept AS
    WITH ends AS (
        SELECT user_id, purpose, denied, hidden, slack, since AS moment, CASE WHEN hidden THEN until ELSE since END AS reach
        FROM stretches
        UNION ALL
        SELECT user_id, purpose, denied, hidden, slack, until, until FROM stretches WHERE until > since
    ), counting AS (
        SELECT *, max(CASE WHEN denied THEN reach END) OVER (
            PARTITION BY user_id, purpose ORDER BY moment, denied DESC ROWS UNBOUNDED PRECEDING
        ) AS denied_to
        FROM ends
        QUALIFY denied OR denied_to IS NULL OR denied_to < moment - slack
    ), marked AS (
        SELECT *, denied IS DISTINCT FROM lag(denied) OVER (PARTITION BY user_id, purpose ORDER BY moment) AS is_change
        FROM counting
    )
    SELECT *, sum(is_change::INTEGER) OVER (PARTITION BY user_id, purpose ORDER BY moment ROWS UNBOUNDED PRECEDING) AS run
    FROM marked
"""

_NEW_RUNS_SQL = f"""
    CREATE OR REPLACE TEMP TABLE new_runs AS
    SELECT user_id, purpose, bool_and(denied) AS denied, min(moment) AS since, max(moment) AS until,
        bool_and(denied) AND (bool_or(hidden) OR count(DISTINCT moment) > 2) AS hidden, max(slack) AS slack
    FROM kept GROUP BY user_id, purpose, run
    UNION ALL {_FIRST_WORDS} SEMI JOIN points USING (user_id, purpose)
"""

# What to add so that the ledger's statements say the same as the moments kept: a grant that stands there and counts no
# more is denied at its own moment.
_CHANGES_SQL = f"""
    CREATE OR REPLACE TEMP TABLE changes AS
    WITH turns AS (
        SELECT user_id, purpose, denied, moment FROM kept WHERE is_change
        UNION ALL
        SELECT user_id, purpose, denied, since FROM ({_FIRST_WORDS} SEMI JOIN points USING (user_id, purpose))
    )
    (FROM turns EXCEPT SELECT user_id, purpose, denied, moment FROM points)
    UNION
    SELECT p.user_id, p.purpose, true, p.moment
    FROM points p ASOF JOIN turns t ON t.user_id = p.user_id AND t.purpose = p.purpose AND p.moment >= t.moment
    WHERE t.denied AND NOT p.denied
"""
