"""The claim `incremental: true` of a segment, held against its SELECT before any SQL runs.

Whoever claims it says that a member depends on its own events, on consent and on the clock alone, and on the clock by
windows of whole intervals. These are the slips that can be seen in the text; a claim that is wrong in another way is not
found here, and `zantara run` makes the segment whole whenever its SELECT changes.

Belongs here: those slips. Does not belong here: what a build asks again (dbt_project/macros/following.sql).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

COLUMNS = {"user": "user_id", "device": "device_id", "organisation": "organisation_id", "session": "session_id"}
"""Kind of entity -> the column of what may be read that names it."""
_TODO = "take incremental away: the segment is made whole then, every time"
_COMPARES = re.compile(r"\b(ntile|percent_rank|cume_dist)\s*\(|\b(limit)\s+\d|\b(using\s+sample)\b", re.IGNORECASE)
_CALENDAR = re.compile(
    r"\b(date_?diff|date_?sub|date_?trunc|date_?part|time_bucket|extract|age|epoch\w*|strftime|year|month|week|day|dayofweek)\s*\(",
    re.IGNORECASE,
)
_WINDOW = re.compile(r"\bover\s*\(\s*(?:partition\s+by\s+(?:\w+\.)?(?P<column>\w+))?", re.IGNORECASE)
_ALLOWED = re.compile(r"\ballowed_\w+")
_READS = re.compile(
    r"\bselect\b(?P<columns>(?:(?!\bselect\b).)*?)\bfrom\s*\{\{-?\s*allowed_\w+", re.IGNORECASE | re.DOTALL
)


def claim_faults(code: str, entity: str) -> Iterator[tuple[str, str, int]]:
    """(what is wrong, what to do, position) of a SELECT without comments whose meta says `incremental: true`."""
    column = COLUMNS[entity]
    for found in _ALLOWED.finditer(code):
        # a session is followed by its stream, and no other event says which of our sessions it belongs to
        if (found[0] == "allowed_sessions") != (entity == "session"):
            yield f"incremental: '{found[0]}' does not read by {entity}", _TODO, found.start()
        # whether a device may be read depends on everybody who was logged in on it, and only those of the scope are asked
        if found[0] == "allowed_device_activity" and entity != "device":
            yield f"incremental: '{found[0]}' does not read by {entity}", _TODO, found.start()
    for found in _COMPARES.finditer(code):
        word = next(filter(None, found.groups()))
        yield f"incremental: '{word}' compares members with each other", _TODO, found.start()
    for found in _CALENDAR.finditer(code):
        todo = "measure with within_days or + and - interval, or take incremental away"
        yield f"incremental: '{found[1]}' changes with time, and no build can know when", todo, found.start()
    for found in _WINDOW.finditer(code):
        if found["column"] != column:
            yield f"incremental: a window is not over single members (partition by {column})", _TODO, found.start()
    for found in _READS.finditer(code):
        if not re.search(rf"\b{column}\b|\*", found["columns"]):
            yield f"incremental: a SELECT does not keep members apart by {column}", _TODO, found.start()
