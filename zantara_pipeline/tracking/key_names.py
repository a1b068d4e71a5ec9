"""Names that a sender chose, keys and events that no plan declares: shown where a programmer may have written them.

A key of JSON can be a value: {"user_12345": 1} and {"joe@example.com": 1} are maps from people to something. What is
shown of a key goes into reasons, fingerprints, alerts and the ledger, where it stays after its line was erased. So a name
is shown only in the form of an identifier of a program, and is UNREADABLE otherwise; the line itself still has it.

The form: at most 40 letters of ASCII in snake, kebab, camel, Pascal or capital case, with at most one digit, and that not
after a single letter (`address2`, `line_1`, `ga4_id`; not `u1`, `u-1`, `user_12`). Eight letters or digits of hexadecimal
in a row are a hash; six consonants in a row are no word, and more than six words of camel case are letters at random. More than 20 undeclared keys of one object are a map: none of
them is shown. Names of events may also have spaces.

What this cannot tell: the name of a person that is written like an identifier (`joe_bloggs`).

Belongs here: that rule, as SQL. Does not belong here: which names are declared (reasons.py).
"""

from __future__ import annotations

from zantara_pipeline.tracking.sql_checks import quote

UNREADABLE = "(unreadable name)"
MOST_KEYS = 20
_LONGEST = 40
_WORDS = "(?:[a-z]+(?:[A-Z][a-z]+)*[A-Z]{0,3}|(?:[A-Z][a-z]+)+[A-Z]{0,3}|[A-Z]{1,12})"
_PART = f"{_WORDS}(?:[0-9]{_WORDS}?)?"
_KEY = f"_{{0,2}}{_PART}(?:[_-]{{1,2}}(?:{_PART}|[0-9]))*_?"
_EVENT = f"{_PART}(?:[ _-](?:{_PART}|[0-9]))*"
# Two digits; a digit after a single letter; a hash; no word; more than six words of camel case are letters at random.
_VALUE = (
    "[0-9].*[0-9]|(?:^|[^A-Za-z])[A-Za-z][ _-]?[0-9]|[0-9a-fA-F]{8,}|[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{6,}"
    "|[a-z][A-Z](?:.*[a-z][A-Z]){5}"
)


def shown_event_sql(name: str) -> str:
    """SQL: the name of an event, null where it may be a value. Declared names are shown whatever their form."""
    return f"CASE WHEN {_is_name(name, _EVENT)} THEN {name} END"


def shown_keys_sql(names: str) -> str:
    """SQL: a list of undeclared keys of one object as it is shown, sorted, each once."""
    shown = f"list_transform({names}, lambda k: CASE WHEN {_is_name('k', _KEY)} THEN k ELSE {quote(UNREADABLE)} END)"
    return f"CASE WHEN len({names}) > {MOST_KEYS} THEN [{quote(UNREADABLE)}] ELSE list_sort(list_distinct({shown})) END"


def _is_name(name: str, form: str) -> str:
    return (
        f"(length({name}) <= {_LONGEST} AND regexp_full_match({name}, {quote(form)}) "
        f"AND NOT regexp_matches({name}, {quote(_VALUE)}))"
    )
