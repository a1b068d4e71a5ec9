"""Judging one batch of raw lines: unparsable, suppressed, quarantined or accepted, with typed values.

Works on an in-memory DuckDB connection; the batch is a temp table, so memory is bounded by the batch and not by the
file. The first stage that applies counts the line. The lines themselves stay in the batch's Arrow memory and are
fetched again for the few that failed.

Belongs here: the order of the stages and their SQL. Does not belong here: files and commits (ingest.py), why a line
failed (reasons.py), the rules themselves (plan.py, shapes.py, sql_checks.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from zantara_pipeline.privacy.keyed_hash import Keyring
from zantara_pipeline.tracking.plain_lines import PlainLines, value_column
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, SQL_TYPES, EventPlan, Exemption, TrackingPlan
from zantara_pipeline.tracking.shapes import (
    ENVELOPE,
    Reason,
    Shape,
    declared_paths,
    declared_properties,
    structural_reasons,
)
from zantara_pipeline.tracking.sql_checks import SqlCheck, compile_checks, quote

REASON_TYPE = "STRUCT(code VARCHAR, path VARCHAR, keyword VARCHAR, expected VARCHAR, actual_type VARCHAR)[]"

# RFC 3339. The engine's own cast would also take 'infinity', 'epoch' and times without a zone.
_RFC3339 = r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:?\d{2})"
# The engine's JSON reader also takes trailing commas, NaN and Infinity; such lines are asked again of a strict parser.
# (`nan` and `inf` in other spellings pass here and fail as numbers that are not finite.)
_LAX = r"(regexp_matches(text, ',\s*[}\]]') OR contains(text, 'NaN') OR contains(text, 'Infinity'))"
# The engine knows times that no calendar library does (year 0, a zone beyond the year 9999).
_CALENDAR = "TIMESTAMPTZ '0001-01-02 00:00:00+00' AND TIMESTAMPTZ '9999-12-30 00:00:00+00'"
# Arithmetic on microseconds: the engine's own on times with a zone asks a calendar, at forty times the cost.
_HOUR = 3_600_000_000
_LATENESS = "(epoch_us(stated_received_at) - epoch_us(occurred_at))"
_DAY_OF_RECEIPT = f"DATE '1970-01-01' + CAST(floor(epoch_us(received_at) / {24 * _HOUR}) AS INTEGER)"
_NO_CATEGORY = ""  # no purpose has this name, so nobody can grant it
_ROWS_PER_FILE = 10**12
ROW_ID = f"file_no::BIGINT * {_ROWS_PER_FILE} + line_no"
LINES = f"(SELECT {ROW_ID} AS row_id, line, rendering FROM arrow_lines)"
"""Subquery: the text of every line of the batch being judged (reader.BATCH_SCHEMA)."""


@dataclass(frozen=True)
class Rules:
    """What a batch is judged by; times in hours and days. Times after `judged_at` plus a day are in the future.

    keyring : for direct identifiers; whatever writes needs one if the plan declares any (direct.py).
    stored : lines come from our own quarantine, where direct identifiers are tokens already.
    """

    plan: TrackingPlan
    late_after_hours: int
    max_lateness_days: int
    judged_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    keyring: Keyring | None = None
    stored: bool = False


class Judge:
    """Judges batches of lines of one connection; `load`, `learn`, `judge`, read the temp tables; again.

    Temp tables after `judge`: `parsed` (one row a line: file_no, line_no, stage, the envelope's values, a column
    for each property in each type declared, ...) and `bad_shapes` (shape_key, reasons; of all batches so far); LINES
    has the text of each line by row_id. `plain` holds the columns of the lines that were plain; `plain_no` in `parsed` is the
    row there. Everything of a row is a column of its own, so that a query of one event reads that event's columns only.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, rules: Rules) -> None:
        self.con, self.rules = con, rules
        con.execute(f"CREATE TEMP TABLE bad_shapes (shape_key UBIGINT, reasons {REASON_TYPE})")
        self.forget_users()
        self._plain = PlainLines(rules.plan)
        self._parse_sql = _parse_sql(rules)
        self._shapes: dict[int, list[Reason]] = {}

    def load(self, lines: pa.Table) -> pa.Array:
        """Parse a batch (reader.BATCH_SCHEMA); returns the user ids whose consent statements were not asked for yet."""
        read = self._plain.read(lines)
        self.plain = read.plain
        for name, table in (("arrow_lines", lines), ("arrow_plain", read.plain), ("arrow_others", read.others)):
            self.con.register(name, table)
        self.con.execute(self._parse_sql)
        self.con.unregister("arrow_plain")
        self._refuse_lax_json()
        self.con.execute(_NEW_USERS_SQL)
        self.con.execute("INSERT INTO known_users SELECT user_id FROM new_users")
        return self.con.sql("SELECT user_id FROM new_users").to_arrow_table().column(0)

    def _refuse_lax_json(self) -> None:
        suspects = self.con.execute(f"SELECT row_id, line FROM parsed JOIN {LINES} USING (row_id) WHERE lax").fetchall()
        wrong = [row_id for row_id, line in suspects if not _is_strict_json(line)]
        if wrong:
            self.con.execute("UPDATE parsed SET stage = 'unparsable' WHERE row_id IN (SELECT unnest(?))", [wrong])

    def forget_users(self) -> None:
        """Drop the statements held for the users seen so far (they are kept over the batches of one commit only)."""
        self.con.execute("CREATE OR REPLACE TEMP TABLE known_users (user_id VARCHAR)")
        self.con.execute(
            "CREATE OR REPLACE TEMP TABLE statements "
            "(user_id VARCHAR, purpose VARCHAR, status VARCHAR, effective_from TIMESTAMPTZ, origin VARCHAR)"
        )

    def learn(self, statements: pa.Table) -> None:
        """Add consent statements (privacy.consent.STATEMENT_SCHEMA) to those that the next batches are judged by."""
        self.con.register("arrow_statements", statements)
        self.con.execute("INSERT INTO statements SELECT * FROM arrow_statements")
        self.con.unregister("arrow_statements")

    def judge(self) -> None:
        """Give every line of the loaded batch its stage."""
        for purpose in self.rules.plan.purposes:
            self.con.execute(_deny_sql(purpose))
        self.con.execute(_suppress_sql(self.rules.plan))
        self.con.execute(_plainly_denied_sql(self.rules.plan))
        for rule in self.rules.plan.privacy.exemptions:
            self.con.execute(_exempt_sql(rule, self.rules.plan))
        self._judge_shapes()
        self.con.execute(_QUARANTINE_SQL)

    def _judge_shapes(self) -> None:
        """One structural verdict per distinct shape: the types of one sample row stand for all rows of the shape."""
        seen = self.con.execute(
            "SELECT shape_key, min(row_id) FROM parsed WHERE stage = 'accepted' AND shape_key IS NOT NULL GROUP BY shape_key"
        ).fetchall()
        new = [row_id for key, row_id in seen if key not in self._shapes]
        if new:
            paths = sql_list(declared_paths(self.rules.plan))
            samples = self.con.execute(
                f"SELECT shape_key, event, json_type(line, {paths}), len(json_keys(line)), len(json_keys(line, '$.properties')) "
                f"FROM parsed JOIN {LINES} USING (row_id) WHERE row_id IN (SELECT unnest(?))", [new],
            ).fetchall()  # fmt: skip
            for key, *shape in samples:
                self._shapes[key] = structural_reasons(Shape(*shape), self.rules.plan)
            bad = [key for key, *_ in samples if self._shapes[key]]
            if bad:
                rows = [(key, [reason._asdict() for reason in self._shapes[key]]) for key in bad]
                self.con.executemany("INSERT INTO bad_shapes VALUES (?, ?)", rows)
        if any(self._shapes[key] for key, _ in seen):
            self.con.execute(_two_consents_sql(self.rules.plan))


def _is_strict_json(line: str) -> bool:
    def refuse(_: str) -> None:
        raise ValueError

    try:
        json.loads(line, parse_constant=refuse)
    except (ValueError, RecursionError):  # deeper than Python reads: nobody can say that it is strict
        return False
    return True


def sql_list(items: Sequence[str]) -> str:
    return "[" + ", ".join(quote(item) for item in items) + "]"


def _parse_sql(rules: Rules) -> str:
    """One table from lines: every declared value, whether values pass, consent, times, the first stages.

    Plain lines come read (plain_lines.py); the engine reads the others. Consent is read right after parsing. Denied
    wins over granted, wherever it was said.
    """
    plan, purposes = rules.plan, rules.plan.purposes
    consents = "".join(f", event_consent_{p} AS consent_{p}" for p in purposes)
    granted = " ".join(f"WHEN {quote(p)} THEN event_consent_{p}" for p in purposes)
    return f"""
        CREATE OR REPLACE TEMP TABLE parsed AS
        WITH {_others_sql(plan)}, plain AS (
            SELECT * REPLACE (event::VARCHAR AS event), {ROW_ID} AS row_id, false AS lax, true AS is_object, user_id AS uid,
                false AS consent_unreadable, false AS says_twice,
                NULL::UBIGINT AS shape_key, true AS ranges_pass, false AS timestamp_wrong, false AS received_at_wrong,
                stated_received_at IS NULL AS received_at_missing
            FROM arrow_plain
        ), named AS (FROM plain UNION ALL BY NAME FROM others)
        SELECT * EXCLUDE (ranges_pass){consents},
            {_category(plan)} AS category,
            ranges_pass AND {_checks_pass(rules)} AS values_pass,
            coalesce(stated_received_at, occurred_at) AS received_at, {_DAY_OF_RECEIPT} AS received_date,
            coalesce({_LATENESS} > {rules.late_after_hours * _HOUR}, false) AS is_late,
            {_time_problem(rules)} AS time_problem, false AS exempt,
            CASE WHEN NOT is_object THEN 'unparsable'
                WHEN NOT CASE category {granted} ELSE false END THEN 'suppressed'
                ELSE 'accepted' END AS stage
        FROM named
    """


def _others_sql(plan: TrackingPlan) -> str:
    """Common table expressions: `others`, the lines that are not plain, read by the engine's JSON functions."""
    texts = ("event_id", "event", "timestamp", "received_at", *ENVELOPE_STRINGS)
    envelope: dict[str, Any] = dict.fromkeys(texts, "VARCHAR")
    envelope["context"] = dict.fromkeys(CONTEXT_KEYS, "VARCHAR")
    envelope["consent"] = dict.fromkeys(plan.purposes, "VARCHAR")
    envelope["properties"] = dict.fromkeys(declared_properties(plan), "VARCHAR") or "JSON"
    paths = sql_list(declared_paths(plan))
    said = " + ".join(f"(types[{_index(plan, f'$.consent.{p}')}] IS NOT NULL)::INTEGER" for p in plan.purposes)
    says = "".join(
        f", coalesce(types[{i}] = 'BOOLEAN', false) AS says_{p}, "
        f"coalesce(types[{i}] = 'BOOLEAN' AND e.consent.{p} = 'true' AND NOT says_twice, false) "
        f"AS event_consent_{p}"
        for p, i in ((p, _index(plan, f"$.consent.{p}")) for p in plan.purposes)
    )
    # what is no text is not kept as one: an object in place of an id could hold anything
    flat = f", CASE WHEN types[{_index(plan, '$.event_id')}] = 'VARCHAR' THEN e.event_id END AS event_id"
    flat += "".join(f", e.{name} AS {name}" for name in ENVELOPE_STRINGS)
    flat += "".join(f", e.context.{name} AS {name}" for name in CONTEXT_KEYS)
    return f"""
        objects AS (
            SELECT file_no, line_no, line, {ROW_ID} AS row_id,
                rendering IS NULL AND (starts_with(line, '{{') OR starts_with(ltrim(line, ' ' || chr(9) || chr(13)), '{{'))
                    AND json_valid(line) AS is_object
            FROM arrow_others
        ), whole AS (
            SELECT * EXCLUDE (line), CASE WHEN is_object THEN line ELSE '{{}}' END AS text FROM objects
        ), read AS (
            SELECT *, {_LAX} AS lax, json_type(text, {paths}) AS types,
                json_keys(text, ['$', '$.properties', '$.consent']) AS keys,
                json_transform(text, '{json.dumps(envelope)}') AS e
            FROM whole
        ), heard AS (
            SELECT *, coalesce(CASE WHEN len(keys[3]) > {said}
                THEN len(list_distinct(keys[3])) < len(keys[3]) END, false) AS says_twice
            FROM read
        ), typed AS (
            SELECT row_id, file_no, line_no, lax, is_object, says_twice{flat}{_typed_values(plan)},
                e.properties AS texts, e.timestamp AS timestamp_text, e.received_at AS received_at_text,
                CASE WHEN types[{ENVELOPE.index("user_id") + 1}] = 'VARCHAR' THEN e.user_id END AS uid,
                CASE WHEN types[{ENVELOPE.index("event") + 1}] = 'VARCHAR' THEN e.event END AS event,
                hash(types, len(keys[1]), len(keys[2])) AS shape_hash,
                is_object AND (says_twice OR {_consent_unreadable(plan)}) AS consent_unreadable,
                {_time("timestamp")} AS occurred_at, {_time("received_at")} AS stated_received_at{says}
            FROM heard
        ), others AS (
            SELECT * EXCLUDE (texts, timestamp_text, received_at_text, shape_hash), hash(shape_hash, event) AS shape_key,
                {_ranges_pass(plan)} AS ranges_pass, received_at_text IS NULL AS received_at_missing,
                timestamp_text IS NOT NULL AND occurred_at IS NULL AS timestamp_wrong,
                received_at_text IS NOT NULL AND stated_received_at IS NULL AS received_at_wrong
            FROM typed
        )
    """


def _consent_unreadable(plan: TrackingPlan) -> str:
    """Whether a line speaks of consent and what it says is neither yes nor no."""
    wrong = [f"coalesce(types[{_index(plan, '$.consent')}] NOT IN ('NULL', 'OBJECT'), false)"]
    wrong += [
        f"coalesce(types[{_index(plan, f'$.consent.{purpose}')}] NOT IN ('NULL', 'BOOLEAN'), false)"
        for purpose in plan.purposes
    ]
    return " OR ".join(wrong)


def _category(plan: TrackingPlan) -> str:
    """The consent category of `event`; an event that nobody declared has the contract's fallback."""
    events: dict[str, list[str]] = {}
    for name, event in plan.events.items():
        events.setdefault(event.consent_category or _NO_CATEGORY, []).append(quote(name))
    cases = "".join(f" WHEN event IN ({', '.join(names)}) THEN {quote(category)}" for category, names in events.items())
    fallback = quote(plan.privacy.unknown_event_category)
    return f"CASE{cases} ELSE {fallback} END" if cases else fallback


def _deny_sql(purpose: str) -> str:
    """Take a consent back where the company's ledger said denied when the event occurred (or at all, without a time).

    Touches denied rows only; most people have one statement, and most say granted.
    """
    return f"""
        UPDATE parsed SET consent_{purpose} = false
        FROM (
            SELECT user_id, list({{effective_from: effective_from, status: status}} ORDER BY effective_from, status DESC) AS said
            FROM statements WHERE origin = 'ledger' AND purpose = {quote(purpose)}
            GROUP BY user_id HAVING bool_or(status = 'denied')
        ) AS heard
        WHERE heard.user_id = parsed.uid AND parsed.consent_{purpose}
            AND list_filter(said, lambda x: x.effective_from <= coalesce(occurred_at, 'infinity'::TIMESTAMPTZ))[-1].status = 'denied'
    """


def _suppress_sql(plan: TrackingPlan) -> str:
    granted = " ".join(f"WHEN {quote(p)} THEN consent_{p}" for p in plan.purposes)
    return f"UPDATE parsed SET stage = 'suppressed' WHERE stage = 'accepted' AND NOT CASE category {granted} ELSE false END"


def _two_consents_sql(plan: TrackingPlan) -> str:
    """A second `consent` key could take back what the first gave; which one holds cannot be known, so none does.

    Nothing is learnt of it either. (The CASE keeps the engine from looking at keys before joining, in lines that are no
    JSON.)
    """
    unsaid = "".join(f", says_{p} = false, event_consent_{p} = false" for p in plan.purposes)
    return f"""
        UPDATE parsed SET stage = 'suppressed', consent_unreadable = true{unsaid}
        FROM {LINES} AS lines
        WHERE lines.row_id = parsed.row_id AND stage = 'accepted' AND shape_key IN (SELECT shape_key FROM bad_shapes)
            AND CASE WHEN is_object THEN len(list_filter(json_keys(line), lambda k: k = 'consent')) > 1 END
    """


def _plainly_denied_sql(plan: TrackingPlan) -> str:
    """What the event's own category was denied is not kept, whatever else of the consent is unreadable."""
    denied = " ".join(
        f"WHEN {quote(p)} THEN says_{p} AND NOT event_consent_{p} AND NOT says_twice" for p in plan.purposes
    )
    return f"""
        UPDATE parsed SET consent_unreadable = false
        WHERE consent_unreadable AND (
            CASE category {denied} ELSE false END
            OR coalesce((uid, category) IN (SELECT (user_id, purpose) FROM statements WHERE status = 'denied'), false)
        )
    """


def _exempt_sql(rule: Exemption, plan: TrackingPlan) -> str:
    """Take an event of people who were not asked where a rule exempts it.

    Not of people who denied before, in the ledger, or in this batch: an exemption leaves everybody the right to object.
    """
    countries, category = ", ".join(map(quote, rule.countries)), plan.category(rule.event) or _NO_CATEGORY
    said = f"says_{category}" if category in plan.purposes else "true"
    denied = f"p.says_{category} AND NOT p.event_consent_{category}" if category in plan.purposes else "false"
    return f"""
        UPDATE parsed SET stage = 'accepted', exempt = true
        WHERE stage = 'suppressed' AND event = {quote(rule.event)} AND country IN ({countries})
            AND NOT consent_unreadable AND NOT {said}
            AND NOT coalesce(uid IN (
                SELECT user_id FROM statements WHERE purpose = {quote(category)} AND status = 'denied'
                UNION ALL SELECT p.uid FROM parsed p WHERE {denied}
            ), false)
    """


def _index(plan: TrackingPlan, path: str) -> int:
    return declared_paths(plan).index(path) + 1


def _time(field: str) -> str:
    """A time from text; the two usual lengths need no regular expression (it costs as much as the parse itself)."""
    text = f"e.{field}"
    usual = f"length({text}) IN (20, 24) AND strpos({text}, 'T') = 11 AND suffix({text}, 'Z')"
    moment = f"CASE WHEN ({usual}) OR regexp_full_match({text}, '{_RFC3339}') THEN try_cast({text} AS TIMESTAMPTZ) END"
    return f"CASE WHEN ({moment}) BETWEEN {_CALENDAR} THEN {moment} END"


def _time_problem(rules: Rules) -> str:
    """Rare, so only whether any of them holds; `_time_reasons` says which, for those rows."""
    return " OR ".join(f"coalesce({condition}, false)" for condition, _ in time_rules(rules))


def time_rules(rules: Rules) -> list[tuple[str, str]]:
    format_name = "RFC 3339 date-time with zone"
    late = f"at most {rules.max_lateness_days} days after timestamp"
    tomorrow = f"TIMESTAMPTZ {quote((rules.judged_at + timedelta(hours=24)).isoformat())}"
    return [
        (
            "timestamp_wrong",
            reason_sql("bad_timestamp", "$.timestamp", "format", format_name, "string"),
        ),
        (
            "received_at_wrong",
            reason_sql("bad_timestamp", "$.received_at", "format", format_name, "string"),
        ),
        (
            f"{_LATENESS} < {-24 * _HOUR}",
            reason_sql(
                "future_timestamp", "$.timestamp", "formatMaximum", "at most 24 hours after received_at", "string"
            ),
        ),
        # One event from the year 9999 would become the clock of the run and expire everybody.
        (
            f"stated_received_at > {tomorrow}",
            reason_sql("future_timestamp", "$.received_at", "formatMaximum", "at most 24 hours from now", "string"),
        ),
        (
            f"stated_received_at IS NULL AND occurred_at > {tomorrow}",
            reason_sql("future_timestamp", "$.timestamp", "formatMaximum", "at most 24 hours from now", "string"),
        ),
        (
            f"{_LATENESS} > {rules.max_lateness_days * 24 * _HOUR}",
            reason_sql("too_late", "$.received_at", "formatMaximum", late, "string"),
        ),
        ("event_id = ''", reason_sql("too_short", "$.event_id", "minLength", "1", "string")),
    ]


def reason_sql(code: str, path: str, keyword: str, expected: str, actual_type: str) -> str:
    values = {"code": code, "path": path, "keyword": keyword, "expected": expected, "actual_type": actual_type}
    return "{" + ", ".join(f"{key}: {quote(value)}" for key, value in values.items()) + "}"


def typed_column(name: str, event: EventPlan) -> str:
    """The column of `parsed` that holds a property's values, quoted."""
    return f'"{value_column(name, event.properties[name].type)}"'


def typed_value(text: str, event: EventPlan, name: str) -> str:
    """A value from its text: a number too large for its type becomes null, which `_value_rules` tells from absent."""
    kind = event.properties[name].type
    return text if kind == "string" else f"try_cast({text} AS {SQL_TYPES[kind]})"


def _typed_values(plan: TrackingPlan) -> str:
    columns = {
        typed_column(name, event): typed_value(f'e.properties."{name}"', event, name)
        for event in plan.events.values()
        for name in event.properties
    }
    return "".join(f", {value} AS {column}" for column, value in columns.items())


def range_rules(event: EventPlan, column: Callable[[str], str], texts: str) -> list[SqlCheck]:
    """Every number of an event fits its type: over its typed columns and the struct of their texts."""
    return [
        SqlCheck(
            f"$.properties.{name}", "out_of_range", "type", SQL_TYPES[prop.type],
            f'({column(name)} IS NOT NULL OR {texts}."{name}" IS NULL)',
        )
        for name, prop in event.properties.items() if prop.type != "string"
    ]  # fmt: skip


def _ranges_pass(plan: TrackingPlan) -> str:
    return _by_event(plan, lambda event, column: range_rules(event, column, "texts"))


def _checks_pass(rules: Rules) -> str:
    return _by_event(rules.plan, partial(compile_checks, stored=rules.stored))


def _by_event(plan: TrackingPlan, rules: Callable[[EventPlan, Callable[[str], str]], list[SqlCheck]]) -> str:
    """Whether a row's values satisfy the rules of its event."""
    cases = []
    for event in plan.events.values():
        checks = rules(event, lambda name, event=event: typed_column(name, event))  # type: ignore[misc]
        if checks:
            passes = " AND ".join(f"coalesce({check.passes}, true)" for check in checks)
            cases.append(f"WHEN {quote(event.event)} THEN {passes}")
    return f"CASE event {' '.join(cases)} ELSE true END" if cases else "true"


_NEW_USERS_SQL = """
    CREATE OR REPLACE TEMP TABLE new_users AS
    SELECT DISTINCT uid AS user_id FROM parsed ANTI JOIN known_users ON known_users.user_id = parsed.uid
    WHERE uid IS NOT NULL
"""

_QUARANTINE_SQL = """
    UPDATE parsed SET stage = 'quarantined'
    WHERE stage = 'accepted' AND (NOT values_pass OR time_problem OR shape_key IN (SELECT shape_key FROM bad_shapes))
"""
