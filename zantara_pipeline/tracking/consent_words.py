"""When what a line says of consent holds: its word as a span of time.

A line has two clocks, the device's (`timestamp`) and the collector's (`received_at`), and either may be wrong or absent.
A time is usable if it can be read and does not lie in the future: `received_at` at most a day after the clock of the
ingest, `timestamp` at most a day after `received_at` (or that clock), as for any line (verdict.time_rules).

- **A denial holds from the earliest** of its timestamp, its receipt and the clock of the ingest, whichever are usable,
  so that one from the future is in force from its receipt. It goes on to the latest of what it was dated by: grants
  dated in between do not count, or a device whose clock runs ahead would grant after it denied.
- **A denial without a usable time** holds from the latest receipt known (the clock of a run, where nobody names
  another) to the clock of the ingest: it is in force at both.
- **A grant holds from its timestamp and never before.** Without a usable timestamp it is not learnt: dated by its
  receipt it could override a denial said after it. One that was received before its timestamp may have been said any
  time between the two, and does not count where a denial touches that time.
- **Denied wins over granted at one moment.**
- **A line whose `user_id` is not one text** denies for everybody whom it names by an id (unclear_users.py), and grants for
  nobody.

Belongs here: the words of one batch. Does not belong here: what they change (observed.py), what a consent permits
(verdict.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa

from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.verdict import ID_COLUMNS, Rules

_DAY = 24 * 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNCLEAR = """(
    SELECT u.user_id, p.* FROM parsed p JOIN users_by_id u USING (row_id) WHERE NOT p.erased AND p.stage <> 'unparsable'
)"""


@dataclass(frozen=True)
class Heard:
    """What one batch says of consent; times in microseconds since 1970.

    said : one row a line that says something: user_id, since, until, and said_p for each purpose p (true, false, null).
        since is null for a denial without any usable time.
    people : one row a person; per purpose first_p, last_p (times), lines_p, slack_p (longest span), yes_p, no_p (was it
        granted, was it denied), and timeless.
    objections : denials of what an exemption would allow: kind (uid or one of verdict.ID_COLUMNS), id, purpose.
    """

    said: pa.Table
    people: pa.Table
    objections: pa.Table


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def heard_in_batch(con: duckdb.DuckDBPyConnection, rules: Rules) -> Heard:
    """Read it from the judge's temp table `parsed`."""
    purposes = rules.plan.purposes
    con.execute(_said_sql(list(purposes), microseconds(rules.judged_at)))
    people = con.sql(_people_sql(list(purposes))).to_arrow_table()
    return Heard(con.sql("FROM batch_said").to_arrow_table(), people, con.sql(_objections_sql(rules)).to_arrow_table())


def _objections_sql(rules: Rules) -> str:
    """Only for purposes that an exemption is about: for any other, nobody has to remember a device."""
    plan = rules.plan
    exempt = {plan.category(rule.event) for rule in plan.privacy.exemptions}
    denials = [
        f"SELECT {quote(column)} AS kind, {column} AS id, {quote(p)} AS purpose FROM parsed "
        f"WHERE says_{p} AND NOT event_consent_{p} AND stage <> 'unparsable' AND {column} IS NOT NULL"
        for p in plan.purposes if p in exempt for column in ("uid", *ID_COLUMNS)
    ]  # fmt: skip
    denials += [
        f"SELECT 'uid', user_id, {quote(p)} FROM {_UNCLEAR} WHERE says_{p} AND NOT event_consent_{p}"
        for p in plan.purposes
        if p in exempt
    ]
    return " UNION ".join(denials) or "SELECT '' AS kind, '' AS id, '' AS purpose WHERE false"


def _said_sql(purposes: Sequence[str], clock: int) -> str:
    said = "".join(
        f", CASE WHEN says_{p} AND (NOT event_consent_{p} OR stamp IS NOT NULL) THEN event_consent_{p} END AS said_{p}"
        for p in purposes
    )
    any_of = " OR ".join(f"says_{p}" for p in purposes) or "false"
    names = "".join(f", says_{p}, event_consent_{p}" for p in purposes)
    denied = "".join(f", says_{p} AND NOT event_consent_{p}, false" for p in purposes)
    any_denied = " OR ".join(f"(says_{p} AND NOT event_consent_{p})" for p in purposes) or "false"
    return f"""
        CREATE OR REPLACE TEMP TABLE batch_said AS
        WITH words AS (
            SELECT uid{names}, occurred_at, stated_received_at
            FROM parsed WHERE uid IS NOT NULL AND NOT user_unclear AND stage NOT IN ('unparsable', 'aside') AND ({any_of})
            UNION ALL
            SELECT user_id{denied}, occurred_at, stated_received_at FROM {_UNCLEAR} WHERE {any_denied}
        ), received AS (
            SELECT * EXCLUDE (occurred_at, stated_received_at), epoch_us(occurred_at) AS occurred,
                CASE WHEN epoch_us(stated_received_at) <= {clock + _DAY} THEN epoch_us(stated_received_at) END AS receipt
            FROM words
        ), dated AS (
            SELECT *, CASE WHEN occurred <= coalesce(receipt, {clock}) + {_DAY} THEN occurred END AS stamp FROM received
        )
        SELECT uid AS user_id,
            CASE WHEN coalesce(stamp, receipt) IS NOT NULL THEN least(stamp, receipt, {clock}) END AS since,
            coalesce(stamp, receipt, {clock}) AS until{said}
        FROM dated
    """


def _people_sql(purposes: Sequence[str]) -> str:
    columns = "".join(
        f", min(CASE WHEN said_{p} THEN until ELSE since END) FILTER (said_{p} IS NOT NULL) AS first_{p}"
        f", max(until) FILTER (said_{p} IS NOT NULL) AS last_{p}, count(said_{p}) AS lines_{p}"
        f", max(until - since) FILTER (said_{p} IS NOT NULL) AS slack_{p}"
        f", coalesce(bool_or(said_{p}), false) AS yes_{p}, coalesce(bool_or(NOT said_{p}), false) AS no_{p}"
        for p in purposes
    )
    return f"SELECT user_id, bool_or(since IS NULL) AS timeless{columns} FROM batch_said GROUP BY user_id"
