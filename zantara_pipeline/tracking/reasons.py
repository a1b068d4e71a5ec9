"""Why lines failed: every reason of every quarantined line, found after the verdicts and for failing lines only.

Failing lines are few, and explaining them costs a dozen statements however few they are; so they are held over the
batches of a commit and explained together.

Belongs here: reasons and the quarantine's rows. Does not belong here: the verdicts themselves (verdict.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from zantara_pipeline.tracking.direct import has_direct
from zantara_pipeline.tracking.key_names import shown_event_sql, shown_keys_sql
from zantara_pipeline.tracking.large_lines import LARGE_BYTES, whole_text
from zantara_pipeline.tracking.other_lines import ROW_ID
from zantara_pipeline.tracking.payloads import Payloads
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan
from zantara_pipeline.tracking.shapes import ENVELOPE, declared_paths
from zantara_pipeline.tracking.sql_checks import FAILED_BEFORE, compile_checks, quote, sql_list
from zantara_pipeline.tracking.typed_columns import range_rules, typed_value
from zantara_pipeline.tracking.verdict import LINES, REASON_TYPE, TEXTS, Rules, id_rules, reason_sql, time_rules

_USUAL_BYTES = 500


class Failures:
    """Holds failing lines of a judge's batches on its connection, and explains them.

    held : how many; a long one counts for as many as have its bytes.

    Temp tables: `failing` (held lines, the large ones short), `failing_large` (their long texts) and, after `explain`,
    `quarantined` (the quarantine's columns, and file_no, row_id, `large`); `hashed_failing` (row_id, of every line explained so far
    that fails for an identifier that had failed before it was hashed: no plan can let it pass). Payloads of large lines stay outside of the engine,
    which needs five times their memory to write them: `large_rows` has them.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, rules: Rules, *, stores: bool = True) -> None:
        """stores : `large_rows` will be asked for."""
        self.con, self.rules, self.stores = con, rules, stores
        self.held, self._came = 0, list[pa.Table]()
        con.execute(_EMPTY_SQL)
        con.execute(_NO_LARGE_SQL)
        con.execute("CREATE TEMP TABLE hashed_failing (row_id BIGINT)")
        con.execute(
            f"CREATE TEMP TABLE earlier_attempts (row_id BIGINT, attempts INTEGER, payload_raw VARCHAR, reasons {REASON_TYPE})"
        )

    def remember(self, attempts: pa.Table) -> None:
        """The lines of the next batch, which were judged before (file_no, line_no, attempts, payload_raw, reasons): how often they
        were, as they came, why they failed."""
        self.con.register("arrow_attempts", attempts)

    def hold(self, *, large: bool = True) -> None:
        """Keep the quarantined lines of the batch just judged; large: some of its lines may be large."""
        self.con.execute(_HOLD_SQL)
        if large:
            self.con.execute(_HOLD_LARGE_SQL)
        if self.rules.stored:
            self.con.execute(_HOLD_LARGE_BEFORE_SQL)
            self.con.execute(_HOLD_ATTEMPTS_SQL)
            self._hold_texts(_CAME_BEFORE_SQL)
            self.con.unregister("arrow_attempts")
        elif large:
            self._hold_texts(_CAME_SQL)
        [(lines, size)] = self.con.execute(_HELD_SQL).fetchall()
        self.held = max(lines, (size + sum(came.nbytes for came in self._came)) // _USUAL_BYTES)

    def _hold_texts(self, query: str) -> None:
        if self.stores and (came := self.con.sql(query).to_arrow_table()).num_rows:
            self._came.append(came)

    def explain(self) -> None:
        """Make `quarantined` from the held lines, and hold none of them any more."""
        plan = self.rules.plan
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE bad_values (row_id BIGINT, reasons {REASON_TYPE})")
        for (name,) in self.con.execute("SELECT DISTINCT event FROM failing WHERE NOT values_pass").fetchall():
            self.con.execute(f"INSERT INTO bad_values {_value_reasons_sql(plan.events[name], self.rules.stored)}")
        if self.rules.stored:
            self.con.execute(_HASHED_SQL)
            self.con.execute(_AS_BEFORE_SQL)
        rules = [*time_rules(self.rules), *id_rules()]
        times = ", ".join(f"CASE WHEN {condition} THEN {reason} END" for condition, reason in rules)
        self.con.execute(_FAILED_SQL.format(reason_type=REASON_TYPE, times=times))
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE unknown_keys AS {_unknown_keys_sql(plan)}")
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE quarantined AS {_quarantined_sql(plan)}")
        self.con.execute(_NO_LARGE_SQL)
        if has_direct(plan):
            self._without_identifiers()
        self.con.execute("DELETE FROM failing")
        self.con.execute("DELETE FROM earlier_attempts")
        self.held = 0

    def large_rows(self) -> Iterator[tuple[date, pa.Table]]:
        """After `explain`, the rows of large lines with their payloads: a day, and its rows as the quarantine's columns."""
        clean = None
        if self.rules.keyring and has_direct(self.rules.plan):
            clean = Payloads(self.rules.plan, self.rules.keyring, stored=self.rules.stored).without_identifiers
        while self._came:
            came = self._came.pop()
            if len(came) > 1:
                came = came.take(pc.sort_indices(came["row_id"]))
            self.con.register("arrow_came", came.select(["row_id"]))
            rows = self.con.sql("FROM quarantined SEMI JOIN arrow_came USING (row_id) ORDER BY row_id").to_arrow_table()
            payloads = came["came"]
            if clean:
                events = rows["event"].to_pylist()
                texts = [clean(event, text.as_py()) for event, text in zip(events, payloads, strict=True)]
                payloads = pa.chunked_array([texts], pa.string())
            rows = rows.set_column(rows.schema.get_field_index("payload_raw"), "payload_raw", payloads)
            days = rows["received_date"]
            rows = rows.drop_columns(["file_no", "row_id", "large", "received_date"])
            for day in pc.unique(days):
                yield day.as_py(), rows if len(rows) == 1 else rows.filter(pc.equal(days, day))

    def _without_identifiers(self) -> None:
        """No direct identifier stays in `quarantined`; without a key to hash it (nothing is stored then) no payload does."""
        if self.rules.keyring is None:
            self.con.execute("UPDATE quarantined SET payload_raw = NULL")
            return
        payloads = Payloads(self.rules.plan, self.rules.keyring, stored=self.rules.stored)
        rows = self.con.execute(
            "SELECT rowid, event, payload_raw FROM quarantined WHERE payload_raw IS NOT NULL"
        ).fetchall()
        clean = [(row, payloads.without_identifiers(event, line)) for row, event, line in rows]
        table = pa.table(
            {"row": [row for row, _ in clean], "clean": pa.array([line for _, line in clean], pa.string())}
        )
        self.con.register("arrow_clean", table)
        self.con.execute(
            "UPDATE quarantined SET payload_raw = clean FROM arrow_clean WHERE quarantined.rowid = arrow_clean.row"
        )
        self.con.unregister("arrow_clean")


def _value_reasons_sql(event: EventPlan, stored: bool) -> str:
    """Reasons of one event's rows whose values fail; the few rows are read again from their lines."""
    texts = json.dumps({"properties": dict.fromkeys(event.properties, "VARCHAR")})
    typed = "".join(", " + typed_value(_text(event, name), event, name) + f' AS "{name}"' for name in event.properties)
    found = ", ".join(
        f"CASE WHEN NOT coalesce({rule.passes}, true) THEN "
        f"{reason_sql(rule.code, rule.path, rule.keyword, rule.expected, _json_type(event, rule.path))} END"
        for rule in [*range_rules(event, '"{}"'.format, "t"), *compile_checks(event, stored=stored)]
    )
    return f"""
        WITH texts AS (
            SELECT row_id, json_transform(line, '{texts}').properties AS t FROM failing
            WHERE event = {quote(event.event)} AND NOT values_pass
        ), typed AS (SELECT row_id, t{typed} FROM texts LEFT JOIN failing_large AS large USING (row_id))
        SELECT row_id, list_filter([{found}]::{REASON_TYPE}, lambda r: r IS NOT NULL) FROM typed
    """


def _text(event: EventPlan, name: str) -> str:
    return whole_text("large", f't."{name}"') if event.properties[name].type == "string" else f't."{name}"'


def _json_type(event: EventPlan, path: str) -> str:
    kind = event.properties[path.rpartition(".")[2]].type
    return "number" if kind == "money" else kind


def _unknown_keys_sql(plan: TrackingPlan) -> str:
    """SQL over failed rows: the names of undeclared keys per level, as far as they may be shown (key_names.py)."""
    cases = " ".join(
        f"WHEN {quote(name)} THEN {sql_list(sorted(event.properties))}::VARCHAR[]"
        for name, event in plan.events.items()
    )
    top = f"list_filter(json_keys(line), lambda k: NOT list_contains({sql_list(ENVELOPE)}, k))"
    declared = f"CASE event {cases} ELSE []::VARCHAR[] END" if cases else "[]::VARCHAR[]"
    inner = f"list_filter(json_keys(line, '$.properties'), lambda k: NOT list_contains({declared}, k))"
    return f"SELECT row_id, {shown_keys_sql(top)} AS top, {shown_keys_sql(inner)} AS inner_keys FROM failing"


def _quarantined_sql(plan: TrackingPlan) -> str:
    """The failing rows as the quarantine's columns, with all reasons (unknown keys by name)."""
    versions = "".join(f" WHEN {quote(name)} THEN {quote(event.version)}" for name, event in plan.events.items())
    return _QUARANTINE_SQL.format(
        name=_event_name(plan),
        shape=_shape(plan),
        reasons=_named_unknown_keys(),
        versions=f"CASE p.event{versions} END" if versions else "NULL",
    )


def _event_name(plan: TrackingPlan) -> str:
    """An event that nobody declared is named by its sender: the name may be a value."""
    declared = sql_list(sorted(plan.events))
    return f"CASE WHEN list_contains({declared}::VARCHAR[], p.event) THEN p.event ELSE {shown_event_sql('p.event')} END"


def _shape(plan: TrackingPlan) -> str:
    """JSON types of the declared paths of a line whose payload may not be kept, as "path type"."""
    paths = sql_list(declared_paths(plan))
    return f"list_filter(list_transform(list_zip({paths}, json_type(p.line, {paths})), lambda x: x[1] || ' ' || lower(x[2])), lambda x: x IS NOT NULL)"


def _named_unknown_keys() -> str:
    """Reasons with the names of unknown keys filled in: one reason per key; a repeated declared key has its own code."""
    expand = (
        "flatten(list_transform({source}, lambda r: CASE WHEN r.code = 'unknown_key' AND r.path = {level} THEN "
        "CASE WHEN len({names}) = 0 THEN [struct_update(r, code := 'duplicate_key', keyword := 'uniqueKeys', expected := 'each key once')] "
        "ELSE list_transform({names}, lambda k: struct_update(r, path := {level} || '.' || k)) END ELSE [r] END))"
    )
    top = expand.format(source="f.reasons", level="'$'", names="u.top")
    return expand.format(source=top, level="'$.properties'", names="u.inner_keys")


_NO_LARGE_SQL = "CREATE OR REPLACE TEMP TABLE failing_large (row_id BIGINT, long MAP(VARCHAR, VARCHAR))"
_EMPTY_SQL = """
    CREATE TEMP TABLE failing (
        row_id BIGINT, file_no INTEGER, line_no BIGINT, line VARCHAR, event VARCHAR, event_id VARCHAR, shape_key UBIGINT,
        values_pass BOOLEAN, occurred_at TIMESTAMPTZ, received_at TIMESTAMPTZ, stated_received_at TIMESTAMPTZ,
        timestamp_wrong BOOLEAN, received_at_wrong BOOLEAN, exempt BOOLEAN, long_ids VARCHAR[]
    )
"""

_HOLD_SQL = f"""
    INSERT INTO failing
    SELECT p.row_id, p.file_no, p.line_no, l.line, p.event, p.event_id, p.shape_key, p.values_pass, p.occurred_at,
        p.received_at, p.stated_received_at, p.timestamp_wrong, p.received_at_wrong, p.exempt, p.long_ids
    FROM parsed p JOIN {TEXTS} l USING (row_id) WHERE p.stage = 'quarantined'
"""
_HOLD_LARGE_SQL = """
    INSERT INTO failing_large SELECT row_id, long FROM arrow_beside SEMI JOIN failing USING (row_id)
"""
_CAME_SQL = f"""
    SELECT row_id, rtrim(line, chr(10) || chr(13)) AS came FROM {LINES}
    WHERE row_id IN (SELECT row_id FROM arrow_beside) AND row_id IN (SELECT row_id FROM failing WHERE NOT exempt)
"""

# Of lines that are judged again. A fix may have made a large line short: what is kept is the line as it came.
_BEFORE = f"(SELECT {ROW_ID} AS row_id, attempts, payload_raw, reasons FROM arrow_attempts)"
_HOLD_LARGE_BEFORE_SQL = f"""
    INSERT INTO failing_large SELECT row_id, MAP([]::VARCHAR[], []::VARCHAR[]) FROM {_BEFORE}
    WHERE strlen(payload_raw) > {LARGE_BYTES} AND row_id IN (SELECT row_id FROM failing)
        AND row_id NOT IN (SELECT row_id FROM failing_large)
"""
_HOLD_ATTEMPTS_SQL = f"""
    INSERT INTO earlier_attempts
    SELECT row_id, b.attempts, CASE WHEN b.payload_raw <> f.line AND row_id NOT IN (SELECT row_id FROM failing_large) THEN b.payload_raw END,
        b.reasons
    FROM {_BEFORE} b JOIN failing f USING (row_id)
"""
_CAME_BEFORE_SQL = f"""
    SELECT row_id, payload_raw AS came FROM {_BEFORE}
    WHERE row_id IN (SELECT row_id FROM failing_large) AND row_id IN (SELECT row_id FROM failing WHERE NOT exempt)
"""
_HELD_SQL = """
    SELECT count(*), coalesce(sum(strlen(line)), 0) + (SELECT coalesce(sum(strlen(payload_raw)), 0) FROM earlier_attempts)
    FROM failing
"""

# A value that failed and was hashed then keeps the reasons that it had; the engine can only say that it failed. (What a fix
# put in the place of a missing value has no reasons of its own yet.)
_EARLIER = (
    "list_filter(earlier.reasons, lambda e: e.path = r.path AND e.code NOT IN ('missing_key', 'null_not_allowed'))"
)
_HASHED_SQL = f"""
    INSERT INTO hashed_failing
    SELECT row_id FROM bad_values WHERE len(list_filter(reasons, lambda r: r.code = '{FAILED_BEFORE}')) > 0
"""
_AS_BEFORE_SQL = f"""
    UPDATE bad_values SET reasons = flatten(list_transform(bad_values.reasons, lambda r:
        CASE WHEN r.code = '{FAILED_BEFORE}' AND len({_EARLIER}) > 0 THEN {_EARLIER} ELSE [r] END))
    FROM earlier_attempts AS earlier WHERE earlier.row_id = bad_values.row_id
"""

_FAILED_SQL = """
    CREATE OR REPLACE TEMP TABLE failed AS
    WITH joined AS (
        SELECT p.row_id, coalesce(s.reasons, []::{reason_type}) AS structural,
            list_concat(list_filter([{times}]::{reason_type}, lambda r: r IS NOT NULL), coalesce(v.reasons, []::{reason_type})) AS others
        FROM failing p
        LEFT JOIN bad_shapes s USING (shape_key)
        LEFT JOIN bad_values v USING (row_id)
    )
    SELECT row_id, list_concat(
        structural,
        list_filter(others, lambda o: NOT list_contains(list_transform(structural, lambda s: s.path), o.path))
    ) AS reasons
    FROM joined
"""

_QUARANTINE_SQL = f"""
    WITH named AS (
        SELECT f.row_id, {{reasons}}::{REASON_TYPE} AS reasons, {{name}} AS event
        FROM failed f JOIN unknown_keys u USING (row_id) JOIN failing p USING (row_id)
    )
    SELECT p.row_id, p.large, p.event_id, n.event, CASE WHEN NOT p.exempt AND NOT large THEN coalesce(a.payload_raw, rtrim(p.line, chr(10) || chr(13))) END AS payload_raw,
        CASE WHEN p.exempt THEN {{shape}} END AS shape, s.source, p.file_no, p.line_no,
        {{versions}} AS plan_version, n.reasons,
        md5(coalesce(n.event, '') || list_aggregate(list_sort(list_transform(n.reasons, lambda r: r.code || r.path)), 'string_agg', ' ')) AS fingerprint,
        coalesce(p.received_at, p.stated_received_at) AS first_seen, coalesce(a.attempts, 0)::INTEGER + 1 AS attempts, 'open' AS status,
        coalesce(p.received_at::DATE, p.stated_received_at::DATE, DATE '1970-01-01') AS received_date
    FROM (SELECT *, NOT exempt AND row_id IN (SELECT row_id FROM failing_large) AS large FROM failing) p
        JOIN named n USING (row_id) JOIN sources s USING (file_no) LEFT JOIN earlier_attempts a USING (row_id)
"""
