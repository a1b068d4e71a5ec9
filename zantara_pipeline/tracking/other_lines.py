"""Lines that are not plain, read by the engine's JSON functions: two lines of a hundred, and all that may be wrong.

Whatever the compiled pass is not sure of comes here (plain_lines.py): other spellings, escapes, keys twice, shapes that
are not as declared, text that is no JSON at all.

Belongs here: one such line as the columns that a batch is judged by. Does not belong here: the stages (verdict.py), what
plain lines hold (plain_lines.py).
"""

from __future__ import annotations

import json
from typing import Any

from zantara_pipeline.privacy.consent import MOST_ID_LENGTH
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, TrackingPlan
from zantara_pipeline.tracking.shapes import ENVELOPE, declared_paths, declared_properties
from zantara_pipeline.tracking.sql_checks import sql_list
from zantara_pipeline.tracking.typed_columns import by_event, range_rules, typed_column, typed_value

# RFC 3339. The engine's own cast would also take 'infinity', 'epoch' and times without a zone.
_RFC3339 = r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:?\d{2})"
# The engine's JSON reader also takes trailing commas, NaN and Infinity; such lines are asked again of a strict parser.
# (`nan` and `inf` in other spellings pass here and fail as numbers that are not finite.)
_LAX = r"(regexp_matches(text, ',\s*[}\]]') OR contains(text, 'NaN') OR contains(text, 'Infinity'))"
# The engine knows times that no calendar library does (year 0, a zone beyond the year 9999).
_CALENDAR = "TIMESTAMPTZ '0001-01-02 00:00:00+00' AND TIMESTAMPTZ '9999-12-30 00:00:00+00'"
ROWS_PER_FILE = 10**12
ROW_ID = f"file_no::BIGINT * {ROWS_PER_FILE} + line_no"


def others_sql(plan: TrackingPlan) -> str:
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
    long_ids = ", ".join(
        f"CASE WHEN types[{_index(plan, f'$.{name}')}] = 'VARCHAR' AND length(e.{name}) > {MOST_ID_LENGTH} THEN '{name}' END"
        for name in ("event_id", *ENVELOPE_STRINGS)
    )
    flat = f", list_filter([{long_ids}], lambda name: name IS NOT NULL) AS long_ids"
    flat += (
        f", CASE WHEN types[{_index(plan, '$.event_id')}] = 'VARCHAR' AND length(e.event_id) <= {MOST_ID_LENGTH} "
        "THEN e.event_id END AS event_id"
    )
    flat += "".join(
        f", CASE WHEN types[{_index(plan, f'$.{name}')}] NOT IN ('OBJECT', 'ARRAY') AND length(e.{name}) <= {MOST_ID_LENGTH} "
        f"THEN e.{name} END AS {name}"
        for name in ENVELOPE_STRINGS
    )
    user = _index(plan, "$.user_id")
    # whose line it is cannot be told where an id stands twice, nor which country where that does
    unclear = f"len(list_filter(keys[1], lambda k: k = 'user_id')) > 1 OR types[{user}] NOT IN ('NULL', 'VARCHAR')"
    context, twice = "", "false"
    if plan.privacy.exemptions:
        context = ", '$.context'"
        twice = "len(list_distinct(keys[1])) < len(keys[1]) OR len(list_distinct(keys[4])) < len(keys[4])"
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
                json_keys(text, ['$', '$.properties', '$.consent'{context}]) AS keys,
                json_transform(text, '{json.dumps(envelope)}') AS e
            FROM whole
        ), heard AS (
            SELECT *, coalesce(CASE WHEN len(keys[3]) > {said}
                THEN len(list_distinct(keys[3])) < len(keys[3]) END, false) AS says_twice
            FROM read
        ), typed AS (
            SELECT row_id, file_no, line_no, lax, is_object, says_twice{flat}{_typed_values(plan)},
                e.properties AS texts, e.timestamp AS timestamp_text, e.received_at AS received_at_text,
                CASE WHEN types[{user}] = 'VARCHAR' AND length(e.user_id) <= {MOST_ID_LENGTH} THEN e.user_id END AS uid,
                CASE WHEN types[{ENVELOPE.index("event") + 1}] = 'VARCHAR' THEN e.event END AS event,
                hash(types, len(keys[1]), len(keys[2])) AS shape_hash,
                is_object AND (says_twice OR {_consent_unreadable(plan)}) AS consent_unreadable,
                coalesce({unclear}, false) AS user_unclear, coalesce({twice}, false) AS keys_twice,
                coalesce(len(keys[3]) > {said}, false) AS asked_else,
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


def _index(plan: TrackingPlan, path: str) -> int:
    return declared_paths(plan).index(path) + 1


def _time(field: str) -> str:
    """A time from text; the two usual lengths need no regular expression (it costs as much as the parse itself)."""
    text = f"e.{field}"
    usual = f"length({text}) IN (20, 24) AND strpos({text}, 'T') = 11 AND suffix({text}, 'Z')"
    moment = f"CASE WHEN ({usual}) OR regexp_full_match({text}, '{_RFC3339}') THEN try_cast({text} AS TIMESTAMPTZ) END"
    return f"CASE WHEN ({moment}) BETWEEN {_CALENDAR} THEN {moment} END"


def _typed_values(plan: TrackingPlan) -> str:
    columns = {
        typed_column(name, event): typed_value(f'e.properties."{name}"', event, name)
        for event in plan.events.values()
        for name in event.properties
    }
    return "".join(f", {value} AS {column}" for column, value in columns.items())


def _ranges_pass(plan: TrackingPlan) -> str:
    return by_event(plan, lambda event, column: range_rules(event, column, "texts"))
