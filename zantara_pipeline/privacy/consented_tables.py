"""Whether the rows of derived tables keep to consent: found in the built tables, by another way than they were made.

Consent is read here from the copy of the ledger itself, with the rule of core.consent_history in its own words: of each
voice the latest word holds, denied wins. Segments are held against what was known at the clock of the run; everything else
also against what is known now (docs/decisions/0028-known-at.md).

Belongs here: counting entities without consent, a table at a time, and tables that nobody declared. Does not belong here:
what models say of themselves (lineage.py), and ids: only counts leave this module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.lineage import Relation
from zantara_pipeline.privacy.people import PLACEHOLDERS, is_field_of_people

SEGMENTS = "segments"
# Nothing of these is derived for a purpose: what landed, the ledgers, and what was accepted.
_NOT_DERIVED = ("lake", "state", "staging", "core")


@dataclass(frozen=True)
class Held:
    """A table that holds people for a purpose.

    kinds : column -> what its ids are of: user, anonymous, device, session or organisation.
    then_only : what people allowed when it happened suffices.
    where : which rows are of today, in SQL.
    """

    table: str
    purpose: str
    kinds: dict[str, str]
    then_only: bool = False
    where: str = "true"

    @property
    def is_segment(self) -> bool:
        return self.table.startswith(f"{SEGMENTS}.")


def held_by(model: Relation) -> Held:
    """What a model that names a purpose holds."""
    if model.schema == SEGMENTS:
        kinds = {"entity_id": str(model.meta.get("entity", "user"))}
    else:
        kinds = {column: _kind(column) for column in model.people}
    return Held(model.name, str(model.purpose), kinds, model.asks_then_only)


def _kind(column: str) -> str:
    return next((kind for kind in ("anonymous", "device") if kind in column), "user")


@contextmanager
def consent_read_anew(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Temp tables of who allows what, and of who was logged in where; for `without_consent`."""
    [(as_of, latest)] = con.execute("SELECT as_of, latest_clock FROM state.run_clock").fetchall()
    con.execute(allowed_sql("consent_then", utc_text(as_of)))
    con.execute(_WORDS_SQL.format(table="consent_now", clock=f"TIMESTAMPTZ '{utc_text(latest)}'", known="true"))
    con.execute(_LOGINS_SQL.format(placeholders=", ".join(f"'{word}'" for word in sorted(PLACEHOLDERS))))
    try:
        yield
    finally:
        for table in ("consent_then", "consent_now", "consent_logins"):
            con.execute(f"DROP TABLE IF EXISTS {table}")


def without_consent(con: duckdb.DuckDBPyConnection, held: Held) -> int:
    """How many entities stand in a table although somebody behind them does not allow its purpose."""
    clocks = ("then",) if held.is_segment else ("then", "now")
    texts = {name for (name,) in con.execute(_TEXTS_SQL, held.table.split(".")).fetchall()}
    found = 0
    for column, kind in held.kinds.items():
        if column not in texts:  # a number of people is no id of theirs
            continue
        if held.then_only:
            queries = [_WITHOUT_THEN_SQL]
        else:
            queries = [_WITHOUT_SQL[kind].replace("{consent}", f"consent_{clock}") for clock in clocks]
        for query in queries:
            asked = query.replace("{table}", f"(SELECT * FROM {held.table} WHERE {held.where})").replace(
                "{column}", column
            )
            named = {"purpose": held.purpose} if "$purpose" in asked else {}
            asked = asked.replace("{flag}", f"consent_{held.purpose}")
            found = max(found, con.execute(asked, named).fetchall()[0][0])
    return int(found)


def undeclared_tables(con: duckdb.DuckDBPyConnection, declared: Collection[str]) -> list[str]:
    """Derived tables with a column of people's ids that nobody declared a purpose of, by name."""
    rows = con.execute(
        "SELECT schema_name || '.' || table_name, column_name FROM duckdb_columns() WHERE NOT internal "
        f"AND data_type = 'VARCHAR' AND database_name = current_database() AND schema_name NOT IN {_NOT_DERIVED!r} ORDER BY ALL"
    ).fetchall()
    found = {table for table, column in rows if is_field_of_people(f"{table.partition('.')[2]}.{column}")}
    return sorted(found - set(declared))


def exempt_rows_reached(con: duckdb.DuckDBPyConnection, staged: Sequence[str]) -> int:
    """Rows of exempt events among those that models are built from: by their basis, and by the line that they came from."""
    parts = [f"SELECT count(*) AS n FROM {table} WHERE consent_basis IS DISTINCT FROM 'granted'" for table in staged]
    parts.append(
        "SELECT count(*) FROM staging.int_events__indexed SEMI JOIN lake.exempt_events USING (source, line_no)"
    )
    return int(con.execute(f"SELECT sum(n)::BIGINT FROM ({' UNION ALL '.join(parts)})").fetchall()[0][0])


_TEXTS_SQL = """
    SELECT column_name FROM duckdb_columns()
    WHERE database_name = current_database() AND schema_name = ? AND table_name = ? AND data_type = 'VARCHAR'
"""

_WORDS_SQL = """
    CREATE OR REPLACE TEMP TABLE {table} AS
    WITH words AS (
        SELECT user_id, purpose, origin,
            arg_max(status, (effective_from::TIMESTAMPTZ, status = 'denied')) AS status
        FROM state.consent
        WHERE effective_from::TIMESTAMPTZ <= {clock} AND {known}
        GROUP BY user_id, purpose, origin
    )
    SELECT user_id, purpose FROM words GROUP BY user_id, purpose HAVING bool_and(status = 'granted');
"""


def allowed_sql(table: str, clock: str) -> str:
    """Makes a temp table (user_id, purpose) of who allowed what at a clock (UTC text), as was known then."""
    known = "(unknown_at = '' OR nullif(unknown_at, '')::TIMESTAMPTZ < {clock})"
    at = f"TIMESTAMPTZ '{clock}'"
    return _WORDS_SQL.format(table=table, clock=at, known=known.format(clock=at))


_LOGINS_SQL = """
    CREATE OR REPLACE TEMP TABLE consent_logins AS
    SELECT user_id, device_id, anonymous_id, organisation_id, stream, occurred_at
    FROM staging.stg_lake__events, state.run_clock
    WHERE user_id IS NOT NULL AND lower(trim(user_id)) NOT IN ({placeholders})
        AND occurred_at <= as_of AND received_at <= as_of
"""

_DENIED_LOGINS = "(FROM consent_logins ANTI JOIN (FROM {consent} WHERE purpose = $purpose) USING (user_id))"
# Not as a person, not as somebody who was logged in on a device or during a session, not as all of an organisation.
_WITHOUT_SQL = {
    "user": "SELECT count(DISTINCT {column}) FROM {table} "
    "WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT user_id FROM {consent} WHERE purpose = $purpose)",
    "device": "SELECT count(DISTINCT {column}) FROM {table} "
    f"WHERE {{column}} IN (SELECT device_id FROM {_DENIED_LOGINS})",
    "anonymous": "SELECT count(DISTINCT {column}) FROM {table} "
    f"WHERE {{column}} IN (SELECT anonymous_id FROM {_DENIED_LOGINS})",
    "session": "SELECT count(DISTINCT {column}) FROM {table} AS t JOIN core.sessions AS s ON s.session_id = t.{column} "
    f"SEMI JOIN {_DENIED_LOGINS} AS l ON l.stream = s.stream AND l.occurred_at BETWEEN s.started_at AND s.ended_at",
    "organisation": "SELECT count(DISTINCT {column}) FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN ("
    "SELECT organisation_id FROM consent_logins SEMI JOIN (FROM {consent} WHERE purpose = $purpose) USING (user_id) "
    "WHERE organisation_id IS NOT NULL)",
}
_WITHOUT_THEN_SQL = (
    "SELECT count(DISTINCT {column}) FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN ("
    "SELECT user_id FROM staging.stg_lake__events WHERE {flag} AND user_id IS NOT NULL)"
)
