"""What the lake, the restricted stores and landed files hold of a person, for an access request.

Belongs here: reading those rows and lines. Does not belong here: which ids are theirs (whose.py), taking rows out
(lake_erasure.py), the folder that a person is given (privacy/access.py).
"""

from __future__ import annotations

import contextlib
from typing import Any

import duckdb

from zantara_pipeline.privacy.people import PLACEHOLDERS, People
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.adapters.contract import CsvRules
from zantara_pipeline.tracking.landed_lines import DAMAGED, files_of_lines, raw_records
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.whose import stored_lines


def accepted_rows(home: Home, people: People) -> list[dict[str, Any]]:
    """Accepted events that are theirs, whole, in the order of their times."""
    found: list[dict[str, Any]] = []
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone = 'UTC'")
        for folder in sorted(home.accepted.glob("event=*")):
            everything = quote(str(folder / "*" / "*.parquet"))
            source = f"read_parquet({everything}, union_by_name = true, hive_partitioning = true)"
            cursor = con.execute(
                f"SELECT * FROM {source} WHERE user_id IN (SELECT unnest($users::VARCHAR[])) OR "
                "(coalesce(lower(trim(user_id)) IN (SELECT unnest($nobody::VARCHAR[])), true) AND "
                "(anonymous_id IN (SELECT unnest($anonymous::VARCHAR[])) OR device_id IN (SELECT unnest($devices::VARCHAR[]))))",
                {
                    "users": sorted(people.users), "anonymous": sorted(people.anonymous), "devices": sorted(people.devices),
                    "nobody": sorted(PLACEHOLDERS),
                },
            )  # fmt: skip
            names = [column[0] for column in cursor.description]
            found += [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    finally:
        con.close()
    return sorted(found, key=lambda row: (row["occurred_at"], row["event_id"]))


def kept_lines(home: Home, people: People) -> list[str]:
    """Lines of the quarantine and the restricted stores that name them, as they came."""
    return list(stored_lines(home, people.matcher))


def landed_lines(home: Home, people: People, rules: CsvRules) -> list[dict[str, str]]:
    """Landed lines that name them, with the file they stand in; none that may be somebody else's."""
    found = []
    for path in files_of_lines(home):
        with contextlib.suppress(*DAMAGED):
            for record in raw_records(path, rules):
                if record.may_name(people.matcher) and record.surely_names(people.matcher):
                    name = path.relative_to(home.landing).as_posix()
                    found.append({"file": name, "line": record.text.rstrip("\r\n")})
    return found
