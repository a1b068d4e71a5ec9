"""Judging one batch of raw lines: unparsable, suppressed, quarantined or accepted, with typed values.

Works on an in-memory DuckDB connection; the batch is a temp table, so memory is bounded by the batch and not by the
file. The first stage that applies counts the line. The lines themselves stay in the batch's Arrow memory and are
fetched again for the few that failed.

Belongs here: the order of the stages and their SQL. Does not belong here: files and commits (ingest.py), why a line
failed (reasons.py), reading lines (plain_lines.py, other_lines.py), what is in them beside what is judged (line_values.py), the rules themselves (plan.py, shapes.py, sql_checks.py).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import duckdb
import pyarrow as pa

from zantara_pipeline.privacy.consent import MOST_ID_LENGTH
from zantara_pipeline.privacy.keyed_hash import Keyring
from zantara_pipeline.privacy.people import PLACEHOLDERS
from zantara_pipeline.privacy.tombstones import Tombstones
from zantara_pipeline.tracking.large_lines import LargeLines, is_object, only
from zantara_pipeline.tracking.line_values import OTHER_VALUES, other_values_sql
from zantara_pipeline.tracking.other_lines import ROW_ID
from zantara_pipeline.tracking.plain_lines import PlainLines
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, Exemption, TrackingPlan
from zantara_pipeline.tracking.shapes import Reason, Shape, declared_paths, structural_reasons
from zantara_pipeline.tracking.sql_checks import compile_checks, quote, sql_list
from zantara_pipeline.tracking.typed_columns import by_event, typed_column
from zantara_pipeline.tracking.unclear_users import ids_named, users_named

REASON_TYPE = "STRUCT(code VARCHAR, path VARCHAR, keyword VARCHAR, expected VARCHAR, actual_type VARCHAR)[]"

# Arithmetic on microseconds: the engine's own on times with a zone asks a calendar, at forty times the cost.
_HOUR = 3_600_000_000
_LATENESS = "(epoch_us(stated_received_at) - epoch_us(occurred_at))"
_DAY_OF_RECEIPT = f"DATE '1970-01-01' + CAST(floor(epoch_us(received_at) / {24 * _HOUR}) AS INTEGER)"
ID_COLUMNS = ("anonymous_id", "device_id")
"""Ids beside the user's under which somebody may deny."""
# Whom a line may be about whose user_id is too long to be looked through: of anybody, somebody denied.
ANYBODY = f"(anybody {secrets.token_hex(8)})"
# Lines that are not plain cost 65 of a batch's 110 ms beside its lines, however few they are.
FEW = 0.1
_NO_CATEGORY = ""  # no purpose has this name, so nobody can grant it
LINES = f"(SELECT {ROW_ID} AS row_id, line, rendering FROM arrow_lines)"
"""Subquery: every line of the batch being judged as it came (reader.BATCH_SCHEMA)."""
OTHER_LINES = f"(SELECT {ROW_ID} AS row_id, line, rendering FROM arrow_not_plain)"
"""Subquery: of the few that are not plain, among which are all that are no events, as they came."""
TEXTS = f"(SELECT {ROW_ID} AS row_id, line FROM arrow_texts)"
"""Subquery: what the JSON functions may read of the batch: the lines that are not plain, after `judge` those too that are and
failed. Large lines are short there (large_lines.py)."""


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

    Temp tables after `judge`: `parsed` (one row a line: file_no, line_no, stage, times, consent: what judging needs) and
    `bad_shapes` (shape_key, reasons; of all batches so far); `users_by_id` (row_id, user_id: whom a line names by an id that
    is not one text). By row_id, LINES and TEXTS have each line, and line_values.py what
    is in it: the envelope's values, a column for each property in each type declared, so that a query of one event reads
    that event's columns only. `plain` holds the columns of the lines that were plain; `plain_no` in `parsed` is the row there.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, rules: Rules, tombstones: Tombstones | None = None) -> None:
        self.con, self.rules, self.tombstones = con, rules, tombstones
        con.execute(_STAGES_SQL)
        for name in ("unclear_users", "users_by_id"):
            self._put_users(name, [])
        con.execute(f"CREATE TEMP TABLE bad_shapes (shape_key UBIGINT, reasons {REASON_TYPE})")
        self.forget_users()
        self._unclear, self._no_others = False, False
        self._plain, self._large = PlainLines(rules.plan), LargeLines(rules.plan)
        self._large_sql = other_values_sql(rules.plan, large=True)
        # Reading these texts takes a tenth of what each of them does for a batch.
        (self._others,) = con.extract_statements(other_values_sql(rules.plan, large=False))
        (self._parse,) = con.extract_statements(
            _parse_sql(rules, ids=bool(tombstones or rules.plan.privacy.exemptions))
        )
        self._shapes: dict[int, list[Reason]] = {}

    def load(self, lines: pa.Table, *, leave_few: bool = False) -> pa.Array:
        """Parse a batch (reader.BATCH_SCHEMA); returns the user ids whose consent statements were not asked for yet.

        leave_few : lines that are not plain are left for another batch if they are few: `left` has them.
        """
        read = self._plain.read(lines)
        self.left = read.others if leave_few and 0 < read.others.nbytes < FEW * lines.nbytes else None
        others = read.others if self.left is None else read.others.slice(0, 0)
        self.plain, self._lines, self._texts = read.plain, lines, self._large.shortened(others)
        self.all_plain = others.num_rows == 0
        tables = {"lines": lines, "plain": read.plain, "not_plain": others, "others": self._texts.lines}
        for name, table in tables.items():
            self.con.register(f"arrow_{name}", table)
        self._register_texts()
        self._read_others()
        self.con.execute(self._parse)
        if not self.all_plain:
            self._refuse_lax_json()
        self._name_unclear_users()
        if self.tombstones:
            self._refuse_erased(self.tombstones)
        self.con.execute(_NEW_USERS_SQL)
        self.con.execute("INSERT INTO known_users SELECT user_id FROM new_users")
        return self.con.sql("SELECT user_id FROM new_users").to_arrow_table().column(0)

    @property
    def any_large(self) -> bool:
        """Whether any text that the engine reads of the batch is a short one (large_lines.py)."""
        return bool(self._texts.beside.num_rows)

    def _read_others(self) -> None:
        """An empty table stays as it is: making one costs as much as reading a thousand lines (17 ms)."""
        if not (self.all_plain and self._no_others):
            self.con.execute(self._large_sql if self.any_large else self._others)
        self._no_others = self.all_plain

    def _register_texts(self) -> None:
        self.con.register("arrow_texts", self._texts.lines)
        self.con.register("arrow_beside", self._texts.beside)

    def _refuse_lax_json(self) -> None:
        suspects = self.con.execute(f"SELECT row_id, line FROM parsed JOIN {TEXTS} USING (row_id) WHERE lax").fetchall()
        wrong = [row_id for row_id, line in suspects if not _is_strict_json(line)]
        if wrong:
            self.con.execute("UPDATE parsed SET stage = 'unparsable' WHERE row_id IN (SELECT unnest(?))", [wrong])

    def _name_unclear_users(self) -> None:
        """Temp tables `unclear_users`: whom a line may be about whose user_id is not one text (few lines, or a broken feed), and
        `users_by_id`: whom of them it names by an id."""
        if self.all_plain and not self._unclear:
            return
        query = (
            "SELECT row_id, line, coalesce(anybody, false) FROM parsed "
            f"JOIN {TEXTS} USING (row_id) LEFT JOIN arrow_beside USING (row_id) "
            "WHERE user_unclear AND stage <> 'unparsable'"
        )
        lines = self.con.execute(query).fetchall()
        named = [
            (row_id, user)
            for row_id, line, anybody in lines
            for user in users_named(line) | ({ANYBODY} if anybody else set())
        ]
        self._unclear = bool(named)
        self._put_users("unclear_users", named)
        self._put_users("users_by_id", [(row_id, user) for row_id, line, _ in lines for user in ids_named(line)])

    def _put_users(self, name: str, rows: list[tuple[int, str]]) -> None:
        columns = {"row_id": [row_id for row_id, _ in rows], "user_id": [user for _, user in rows]}
        schema = pa.schema([("row_id", pa.int64()), ("user_id", pa.string())])
        self.con.register("arrow_users", pa.table(columns, schema=schema))
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM arrow_users")
        self.con.unregister("arrow_users")

    def forget_lines(self) -> None:
        """Give back the memory of the batch just judged, when all was read of it."""
        self.con.execute("DROP TABLE parsed")
        if not self._no_others:
            self.con.execute(f"DROP TABLE {OTHER_VALUES}")
        for name in ("lines", "plain", "not_plain", "others", "texts", "beside"):
            self.con.unregister(f"arrow_{name}")
        del self.plain, self._lines, self._texts, self.left

    def _refuse_erased(self, tombstones: Tombstones) -> None:
        """Lines of people who were erased are suppressed, and nothing is learnt of them.

        Theirs is what their user id stands on, and what stands on nobody's but was sent by an id that was theirs alone.
        Whoever else logs in on such a device is somebody else.
        """
        nobodys = f"(uid IS NULL OR lower(trim(uid)) IN ({', '.join(map(quote, sorted(PLACEHOLDERS)))}))"
        for kind, column, which in (
            ("user", "uid", "uid IS NOT NULL"),
            ("anonymous", "anonymous_id", f"{nobodys} AND anonymous_id IS NOT NULL"),
            ("device", "device_id", f"{nobodys} AND device_id IS NOT NULL"),
        ):
            asked = self.con.execute(f"SELECT DISTINCT {column} FROM parsed WHERE {which}").fetchall()
            found = tombstones.covered(kind, (row[0] for row in asked))
            if found:
                self.con.execute(f"{_ERASE_SQL} WHERE {which} AND {column} IN (SELECT unnest(?::VARCHAR[]))", [found])
        unclear = self.con.execute("SELECT row_id, user_id FROM unclear_users").fetchall()
        self._erase_rows([row_id for row_id, user in unclear if tombstones.covers("user", user)])

    def _refuse_named(self, tombstones: Tombstones) -> None:
        """A line that would be kept as it came may name somebody who was erased anywhere in it."""
        kept = "stage IN ('quarantined', 'unparsable') OR (stage = 'suppressed' AND consent_unreadable)"
        query = f"SELECT row_id, coalesce(rendering, line) FROM parsed JOIN {LINES} USING (row_id) WHERE {kept}"
        self._erase_rows([row_id for row_id, line in self.con.execute(query).fetchall() if tombstones.named_in(line)])

    def _erase_rows(self, row_ids: list[int]) -> None:
        if row_ids:
            self.con.execute(f"{_ERASE_SQL} WHERE row_id IN (SELECT unnest(?::BIGINT[]))", [row_ids])

    def forget_users(self) -> None:
        """Drop the statements held for the users seen so far (they are kept over the batches of one commit only)."""
        self.con.execute("CREATE OR REPLACE TEMP TABLE known_users (user_id VARCHAR)")
        self.con.execute(
            "CREATE OR REPLACE TEMP TABLE statements "
            "(user_id VARCHAR, purpose VARCHAR, status VARCHAR, effective_from TIMESTAMPTZ, origin VARCHAR)"
        )
        denials = [(ANYBODY, purpose) for purpose in self.rules.plan.purposes]
        if denials:
            self.con.executemany("INSERT INTO statements VALUES (?, ?, 'denied', '-infinity', 'ledger')", denials)
        self.con.execute("CREATE OR REPLACE TEMP TABLE objections (kind VARCHAR, id VARCHAR, purpose VARCHAR)")

    def learn(self, statements: pa.Table) -> None:
        """Add consent statements (privacy.consent.STATEMENT_SCHEMA) to those that the next batches are judged by."""
        self.con.register("arrow_statements", statements)
        self.con.execute("INSERT INTO statements SELECT * FROM arrow_statements")
        self.con.unregister("arrow_statements")

    def object(self, objections: pa.Table) -> None:
        """Add denials (privacy.consent.OBJECTION_SCHEMA) that keep lines from being exempt."""
        self.con.register("arrow_objections", objections)
        self.con.execute("INSERT INTO objections FROM arrow_objections")
        self.con.unregister("arrow_objections")

    def ids_to_exempt(self) -> pa.Table | None:
        """Anonymous and device ids of the loaded lines that a rule may exempt: kind, id; None where no rule is."""
        rules = self.rules.plan.privacy.exemptions
        if not rules:
            return None
        events = ", ".join(quote(rule.event) for rule in rules)
        return self.con.sql(
            " UNION ".join(
                f"SELECT {quote(column)} AS kind, {column} AS id FROM parsed "
                f"WHERE stage = 'suppressed' AND event IN ({events}) AND {column} IS NOT NULL"
                for column in ID_COLUMNS
            )
        ).to_arrow_table()

    def put_aside(self, lines: pa.Table) -> pa.Table:
        """Stage `aside` for what a rule may exempt of the loaded batch (`lines`), and those lines.

        They are judged again when all denials are known. Their rows stay: plain lines are found by their row's number.
        """
        may_be = " OR ".join(
            f"({_may_be_exempt(rule, self.rules.plan)})" for rule in self.rules.plan.privacy.exemptions
        )
        self.con.execute(f"UPDATE parsed SET stage = 'aside' WHERE {may_be}")
        aside = self.con.sql("SELECT file_no, line_no FROM parsed WHERE stage = 'aside'").to_arrow_table()
        return lines.join(aside, ["file_no", "line_no"], join_type="left semi") if aside.num_rows else lines.slice(0, 0)

    def judge(self, aside: Callable[[], None] | None = None) -> None:
        """Give every line of the loaded batch its stage; `aside` is called in place of deciding on exemptions."""
        for purpose in self.rules.plan.purposes:
            self.con.execute(_deny_sql(purpose))
            if self._unclear:
                self.con.execute(_deny_unclear_sql(purpose))
        self.con.execute(_suppress_sql(self.rules.plan))
        if not self.all_plain:
            self.con.execute(_plainly_denied_sql(self.rules.plan))
        if aside:
            aside()
        else:
            for rule in self.rules.plan.privacy.exemptions:
                self.con.execute(_exempt_sql(rule, self.rules.plan))
        if not self.all_plain:
            self._judge_shapes()
        self.con.execute(_QUARANTINE_SQL)
        self._add_texts_of_plain_failures()
        if self.tombstones:
            self._refuse_named(self.tombstones)

    def _add_texts_of_plain_failures(self) -> None:
        failed = self.con.execute(_PLAIN_FAILURES_SQL).fetchnumpy()["row_id"]
        if len(failed):
            self._texts = self._texts.joined(self._large.shortened(only(self._lines, failed)))
            self._register_texts()

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
                f"FROM parsed JOIN {TEXTS} USING (row_id) WHERE row_id IN (SELECT unnest(?))", [new],
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
    except ValueError:
        return False
    except RecursionError:  # deeper than Python reads
        return is_object(line)
    return True


def _unjudged(plan: TrackingPlan, *, ids: bool) -> list[str]:
    """Columns that no verdict needs once values were checked: storing them of every line was a third of this statement.

    ids : browsers, devices and countries are asked about, too.
    """
    values = {typed_column(name, event) for event in plan.events.values() for name in event.properties}
    who = {*ENVELOPE_STRINGS, *CONTEXT_KEYS} - ({*ID_COLUMNS, "country"} if ids else set())
    return sorted(values | who)


def _parse_sql(rules: Rules, *, ids: bool) -> str:
    """One table from lines: whether values pass, consent, times, the first stages.

    Plain lines come read (plain_lines.py); the engine reads the others. Consent is read right after parsing. Denied
    wins over granted, wherever it was said.
    """
    plan, purposes = rules.plan, rules.plan.purposes
    consents = "".join(f", event_consent_{p} AS consent_{p}" for p in purposes)
    granted = " ".join(f"WHEN {quote(p)} THEN event_consent_{p}" for p in purposes)
    return f"""
        CREATE OR REPLACE TEMP TABLE parsed AS
        WITH plain AS (
            SELECT * REPLACE (event::VARCHAR AS event), {ROW_ID} AS row_id, false AS lax, true AS is_object, user_id AS uid,
                false AS consent_unreadable, false AS says_twice, false AS user_unclear, false AS keys_twice,
                NULL::VARCHAR[] AS long_ids, NULL::UBIGINT AS shape_key, true AS ranges_pass, false AS timestamp_wrong,
                false AS received_at_wrong, stated_received_at IS NULL AS received_at_missing
            FROM arrow_plain
        ), named AS (FROM plain UNION ALL BY NAME FROM {OTHER_VALUES})
        SELECT * EXCLUDE (ranges_pass, {", ".join(_unjudged(plan, ids=ids))}){consents},
            {_category(plan)} AS category,
            ranges_pass AND {_checks_pass(rules)} AS values_pass,
            coalesce(stated_received_at, occurred_at) AS received_at, {_DAY_OF_RECEIPT} AS received_date,
            coalesce({_LATENESS} > {rules.late_after_hours * _HOUR}, false) AS is_late,
            {_time_problem(rules)} AS time_problem, false AS exempt, false AS erased,
            (CASE WHEN NOT is_object THEN 'unparsable'
                WHEN NOT CASE category {granted} ELSE false END THEN 'suppressed'
                ELSE 'accepted' END)::stage_of_line AS stage
        FROM named
    """


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


def _deny_unclear_sql(purpose: str) -> str:
    """Whose line it is cannot be told: any denial of anybody whom it may name counts, whenever it was said."""
    return f"""
        UPDATE parsed SET consent_{purpose} = false
        WHERE user_unclear AND consent_{purpose} AND row_id IN (
            SELECT u.row_id FROM unclear_users u JOIN statements s USING (user_id)
            WHERE s.origin = 'ledger' AND s.purpose = {quote(purpose)} AND s.status = 'denied'
        )
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
        FROM {TEXTS} AS lines
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
            OR (row_id, category) IN (
                SELECT (u.row_id, s.purpose) FROM unclear_users u JOIN statements s USING (user_id) WHERE s.status = 'denied'
            )
        )
    """


def _may_be_exempt(rule: Exemption, plan: TrackingPlan) -> str:
    """Lines of people who were not asked where a rule exempts the event: nothing in the line itself speaks against it.

    Each key of the line and of its context stands once: a second country, or a second id, could be the right one. Who was
    asked about a purpose that nobody declared was asked, whatever was meant by it.
    """
    countries, category = ", ".join(map(quote, rule.countries)), plan.category(rule.event) or _NO_CATEGORY
    said = f"says_{category}" if category in plan.purposes else "true"
    return (
        f"stage = 'suppressed' AND event = {quote(rule.event)} AND country IN ({countries}) "
        f"AND NOT consent_unreadable AND NOT {said} AND NOT keys_twice AND NOT user_unclear "
        "AND NOT asked_else AND NOT erased"
    )


def _exempt_sql(rule: Exemption, plan: TrackingPlan) -> str:
    """Take an event of people who were not asked where a rule exempts it.

    Not of people, browsers or devices that ever denied, in the ledger, with any line of the commit or an earlier one: an
    exemption leaves everybody the right to object.
    """
    category = plan.category(rule.event) or _NO_CATEGORY
    unheard = ""
    for column in ("uid", *ID_COLUMNS):
        denied = f"SELECT id FROM objections WHERE kind = {quote(column)} AND purpose = {quote(category)}"
        if column == "uid":
            denied += (
                f" UNION ALL SELECT user_id FROM statements WHERE purpose = {quote(category)} AND status = 'denied'"
            )
        if category in plan.purposes:
            denied += (
                f" UNION ALL SELECT p.{column} FROM parsed p WHERE p.says_{category} AND NOT p.event_consent_{category}"
            )
        unheard += f" AND NOT coalesce({column} IN (SELECT id FROM ({denied}) WHERE id IS NOT NULL), false)"
    return f"UPDATE parsed SET stage = 'accepted', exempt = true WHERE {_may_be_exempt(rule, plan)}{unheard}"


def _time_problem(rules: Rules) -> str:
    """Rare, so only whether any of them holds, or an id is too long; `time_rules` and `id_rules` say which, for those rows."""
    conditions = [*(condition for condition, _ in time_rules(rules)), "len(long_ids) > 0"]
    return " OR ".join(f"coalesce({condition}, false)" for condition in conditions)


def id_rules() -> list[tuple[str, str]]:
    return [
        (f"list_contains(long_ids, '{name}')", reason_sql("too_long", f"$.{name}", "maxLength", str(MOST_ID_LENGTH), "string"))
        for name in ("event_id", *ENVELOPE_STRINGS)
    ]  # fmt: skip


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


def _checks_pass(rules: Rules) -> str:
    return by_event(rules.plan, partial(compile_checks, stored=rules.stored))


# A dozen statements a batch ask for the stage of every line: numbers are compared sooner than texts.
_STAGES_SQL = """
    CREATE TYPE IF NOT EXISTS stage_of_line AS ENUM ('unparsable', 'suppressed', 'quarantined', 'accepted', 'aside')
"""

# Without its ids, no step that comes later can learn anything from the line.
_ERASE_SQL = """
    UPDATE parsed SET stage = 'suppressed', erased = true, consent_unreadable = false, exempt = false,
        uid = NULL, anonymous_id = NULL, device_id = NULL
"""

_NEW_USERS_SQL = """
    CREATE OR REPLACE TEMP TABLE new_users AS
    SELECT DISTINCT uid AS user_id FROM parsed ANTI JOIN known_users ON known_users.user_id = parsed.uid
    WHERE uid IS NOT NULL
    UNION SELECT user_id FROM unclear_users ANTI JOIN known_users USING (user_id)
"""

_PLAIN_FAILURES_SQL = "SELECT row_id FROM parsed WHERE stage = 'quarantined' AND plain_no IS NOT NULL"

_QUARANTINE_SQL = """
    UPDATE parsed SET stage = 'quarantined'
    WHERE stage = 'accepted' AND (NOT values_pass OR time_problem OR shape_key IN (SELECT shape_key FROM bad_shapes))
"""
