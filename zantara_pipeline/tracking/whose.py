"""Which anonymous ids and devices are a person's alone: those that no line of the home shows with anybody else.

The same rule as `core.identities` with one person (users = 1), asked of everything that lies here and not of the last
build: accepted events, and the lines as they landed, failed or were set apart, where people stand who never consented. So
an id that a suppressed line shows with somebody else is shared, and is left alone.

Belongs here: that question. Does not belong here: whose an event is for the models (dbt, core.identities).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zantara_pipeline.privacy.people import PLACEHOLDERS, Matcher, Pairs, People, is_field_of_others, is_known, leaves
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.adapters.contract import CsvRules
from zantara_pipeline.tracking.landed_lines import DAMAGED, files_of_lines, people_fields, raw_records
from zantara_pipeline.tracking.sql_checks import quote

MEMORY = "300MB"
_KEYS = {
    "user": ("userid", "uid", "customerid"),
    "anonymous": ("anonymousid", "userpseudoid", "domainuserid"),
    "device": ("deviceid",),
}
Ids = dict[str, str]


def whose(home: Home, users: Collection[str], rules: CsvRules) -> People:
    """The people with these user ids, and the ids that are theirs alone. rules : how the shop's tables are read."""
    wanted, fields = frozenset(users), people_fields(rules)
    theirs: dict[str, set[str]] = {"anonymous": set(), "device": set()}
    others: dict[str, set[str]] = {"anonymous": set(), "device": set()}
    for kind, text, mine, foreign in _in_lake(home, wanted):
        theirs[kind] |= {text} if mine else set()
        others[kind] |= {text} if foreign else set()
    elsewhere = _elsewhere_in_lake(home, wanted)
    for line in _lines(home, Matcher(wanted, fields=fields), rules):
        ids = ids_of(line)
        if ids.get("user") in wanted:
            for kind, known in theirs.items():
                known |= {ids[kind]} if kind in ids else set()
        else:
            elsewhere |= _of_others(line) & wanted
    candidates = theirs["anonymous"] | theirs["device"]
    if candidates:
        for ids in map(ids_of, _lines(home, Matcher(candidates, fields=fields), rules)):
            if "user" in ids and ids["user"] not in wanted:
                for kind, known in others.items():
                    known |= {ids[kind]} if kind in ids else set()
        for kind, text, _, foreign in _in_lake(home, wanted, theirs):
            others[kind] |= {text} if foreign else set()
    return People(
        wanted,
        frozenset(theirs["anonymous"] - others["anonymous"] - wanted),
        frozenset(theirs["device"] - others["device"] - wanted),
        elsewhere=frozenset(elsewhere),
        fields=fields,
    )


def _in_lake(
    home: Home, users: Collection[str], besides: dict[str, set[str]] | None = None
) -> Iterator[tuple[str, str, bool, bool]]:
    """(kind, id, seen with these people, seen with others) of ids that accepted events show with these people (or `besides`)."""
    if not any(home.accepted.glob("*/*/*.parquet")):
        return
    everything = quote(str(home.accepted / "*" / "*" / "*.parquet"))
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        con.execute("CREATE TEMP TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS user_id", [sorted(users)])
        con.execute(
            "CREATE TEMP TABLE seen AS SELECT DISTINCT user_id, anonymous_id, device_id "
            f"FROM read_parquet({everything}, union_by_name = true, hive_partitioning = false) WHERE user_id IS NOT NULL"
        )
        for kind in ("anonymous", "device"):
            asked = sorted(besides[kind]) if besides else []
            for text, mine, foreign in con.execute(
                _SEEN_SQL.format(column=f"{kind}_id"), [asked, sorted(PLACEHOLDERS)]
            ).fetchall():
                if is_known(text):
                    yield kind, text, mine, foreign
    finally:
        con.close()


# A word that stands for no person (guest) is nobody else's login; few ids are left when those are asked about.
_SEEN_SQL = """
    WITH ids AS (
        SELECT {column} AS id, user_id, user_id IN (SELECT user_id FROM wanted) AS mine FROM seen WHERE {column} IS NOT NULL
    ), asked AS (SELECT id FROM ids WHERE mine UNION SELECT unnest(?::VARCHAR[]))
    SELECT id, bool_or(mine), coalesce(bool_or(NOT mine AND lower(trim(user_id)) NOT IN (SELECT unnest(?::VARCHAR[]))), false)
    FROM ids SEMI JOIN asked USING (id) GROUP BY id
"""


def _elsewhere_in_lake(home: Home, users: Collection[str]) -> set[str]:
    """Those ids of users that are ids of something else, too, in events of others or in the catalogue (people.py says why).

    What these users' own events say does not count: a client that takes the user's id for the session's names the user.
    """
    found: set[str] = set()
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        con.execute("CREATE TEMP TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS id", [sorted(users)])
        for place in (home.accepted / "*" / "*" / "*.parquet", home.lake / "items" / "*.parquet"):
            if not any(home.lake.glob(place.relative_to(home.lake).as_posix())):
                continue
            source = f"read_parquet({quote(str(place))}, union_by_name = true, hive_partitioning = false)"
            columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE FROM {source}").fetchall()}
            ids = [f'"{name}"' for name, kind in columns.items() if kind == "VARCHAR" and is_field_of_others(name)]
            others = "coalesce(user_id NOT IN (SELECT id FROM wanted), true)" if "user_id" in columns else "true"
            if ids:
                query = f"SELECT DISTINCT id FROM (SELECT unnest([{', '.join(ids)}]) AS id FROM {source} WHERE {others}) SEMI JOIN wanted USING (id)"
                found |= {row[0] for row in con.execute(query).fetchall()}
    finally:
        con.close()
    return found


def _of_others(line: str) -> set[str]:
    """Values of a line that its fields call ids of something else than people."""
    try:
        whole = json.loads(line, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return set()
    return {leaf for key, leaf in leaves(whole) if is_field_of_others(key)}


def _lines(home: Home, matcher: Matcher, rules: CsvRules) -> Iterator[str]:
    """As JSON where they are any: the landed, quarantined and restricted lines that name somebody."""
    for path in files_of_lines(home):
        with contextlib.suppress(*DAMAGED):  # what can be read of a damaged file counts
            for record in raw_records(path, rules):
                if record.may_name(matcher) and record.surely_names(matcher):
                    yield record.as_json()
    yield from stored_lines(home, matcher)


def stored_lines(home: Home, matcher: Matcher) -> Iterator[str]:
    """Payloads and raw lines of the quarantine and the restricted stores that name somebody."""
    for folder, column in (
        (home.quarantine, "payload_raw"),
        (home.restricted / "unparsable", "line"),
        (home.restricted / "consent_unreadable", "line"),
    ):
        for path in sorted(folder.rglob("*.parquet")):
            lines = pq.read_table(path, columns=[column], partitioning=None).column(0).cast(pa.string())
            may_be = lines.filter(pc.match_substring_regex(lines, matcher.prefilter))
            yield from (line for line in may_be.drop_null().to_pylist() if matcher.in_text(line))


def ids_of(line: str) -> Ids:
    """Kind -> id of a line in any of the formats that land: the first that stands there, other than a placeholder."""
    try:
        whole = json.loads(line, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return {}
    found: Ids = {}
    for name, value in _pairs(whole):
        folded = re.sub(r"[^a-z0-9]", "", name.lower())
        for kind, keys in _KEYS.items():
            if folded in keys and isinstance(value, (str, int, float)) and is_known(str(value)):
                found.setdefault(kind, str(value))
    return found


def _pairs(node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, Pairs):
        yield from node
        for _, value in node:
            yield from _pairs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _pairs(value)


def rows_of(home: Home, people: People) -> int:
    """Accepted rows of these people, by the columns of ids; asks nothing that the proof asks."""
    if not any(home.accepted.glob("*/*/*.parquet")):
        return 0
    everything = quote(str(home.accepted / "*" / "*" / "*.parquet"))
    con = duckdb.connect()
    try:
        query = (
            "SELECT count(*) FROM read_parquet("
            f"{everything}, union_by_name = true, hive_partitioning = false) WHERE user_id IN (SELECT unnest(?::VARCHAR[]))"
        )
        return int(con.execute(query, [sorted(people.users)]).fetchall()[0][0])
    finally:
        con.close()


def landed_sources(home: Home, landing: Path) -> set[str]:
    """Names by which files of the home's own landing folder are known."""
    from zantara_pipeline.tracking.reader import landed_paths

    if not landing.exists() or not landing.is_relative_to(home.landing):
        return set()
    return {name for _, name in landed_paths(landing)}
