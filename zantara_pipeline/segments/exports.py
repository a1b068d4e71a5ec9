"""Exports: of each destination one file with its segments, in which people have pseudonyms and nothing else.

A file holds who is a member, by pseudonym, and until which day; what each segment is; for whom it was made and with which
key. What could join two files or tell who somebody is stays out of it: ids, columns of the SELECT, the moment of an entry
(an event's, to the microsecond), the hour of an expiry, and the order of rows (docs/decisions/0026).

Belongs here: writing, reading and removing these files, and taking people out of them. Does not belong here: who may
receive what, and keys (destinations.py); which segment is visible (visibility.py); the order of an erasure (privacy/).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.keyed_hash import Key, Keyring, SqlTokens
from zantara_pipeline.privacy.people import People
from zantara_pipeline.segments.destinations import (
    SETTING,
    key_of,
    latest_key,
    named,
    refuse_changed_key,
    remember_key,
)
from zantara_pipeline.storage.engine import EXPIRING, copy_without, written_beside
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import Destination

FILE = "segments.duckdb"
# Its tables are in no schema of their own: one called segments, in a file of that name, would have to be named twice.


@dataclass(frozen=True)
class Clock:
    """When members expire.

    as_of : clock of the run.
    live : the reader's own clock counts, too; in a home of history by today's everybody would be gone.
    """

    as_of: datetime
    live: bool

    @property
    def sql(self) -> str:
        at = f"TIMESTAMPTZ '{self.as_of.isoformat()}'"
        return f"greatest({at}, now())" if self.live else at


@dataclass(frozen=True)
class Written:
    """What a run wrote for a destination.

    members : segment -> members, None where it is not shown.
    replaced_key : id of the key before, if every pseudonym is a new one now.
    """

    destination: Destination
    path: Path
    key_id: str
    replaced_key: str | None
    members: dict[str, int | None]

    @property
    def told(self) -> str:
        """A rotation in one line, for whoever reads what the run said."""
        return (
            f"exports/{self.destination.name}: every pseudonym is a new one, key '{self.key_id}' took the place of "
            f"'{self.replaced_key}'; tell {self.destination.recipient}"
        )


def file_of(home: Home, destination: str) -> Path:
    return home.exports / destination / FILE


def files(home: Home) -> dict[str, Path]:
    """Destination -> its file, of those that were written."""
    return {path.parent.name: path for path in sorted(home.exports.glob(f"*/{FILE}"))}


def remove_others(home: Home, keep: Collection[str]) -> list[str]:
    """Remove files of destinations that are gone or off; returns their names."""
    gone = set()
    for path in sorted(home.exports.glob(f"*/{FILE}*")):
        if path.parent.name not in keep:
            path.unlink()
            gone.add(path.parent.name)
    for name in gone:
        folder = home.exports / name
        if not any(folder.iterdir()):
            folder.rmdir()
    return sorted(gone)


def write_exports(
    home: Home, ledger: Ledger, destinations: Sequence[Destination], keyring: Keyring | None, clock: Clock,
    *, threads: int, memory_limit: str,
) -> list[Written]:  # fmt: skip
    """Write every destination's file anew from the warehouse; each is swapped in whole.

    Raises
    ------
    InputError : there is no key, or another one under an id that was used. Nothing is written then.
    """
    if not destinations:
        return []
    if keyring is None:
        raise InputError("no key is set for pseudonyms", f"setting {SETTING}_FILE", "name the file of the keys")
    refuse_changed_key(ledger, keyring)
    written = []
    for destination in destinations:
        path = file_of(home, destination.name)
        before = _last_key(path, ledger, destination.name)
        with written_beside(home, home.warehouse, path, threads=threads, memory_limit=memory_limit) as con:
            members = _fill(con, destination, keyring.last, clock)
        with ledger.transaction() as db:
            remember_key(db, destination.name, keyring.last)
        replaced = before if before not in (None, keyring.last.id) else None
        written.append(Written(destination, path, keyring.last.id, replaced, members))
    return written


def _last_key(path: Path, ledger: Ledger, destination: str) -> str | None:
    """Id of the key of the file that lies there; where none does, or nobody can read it, that of the last one known."""
    try:
        return str(_about(path)["key_id"]) if path.exists() else latest_key(ledger, destination)
    except (InputError, duckdb.Error):
        return latest_key(ledger, destination)


def _fill(con: duckdb.DuckDBPyConnection, destination: Destination, key: Key, clock: Clock) -> dict[str, int | None]:
    """The tables and views of one file; p is the file, w the warehouse."""
    digests = SqlTokens(con, Keyring((key_of(key, destination.name),)))
    con.execute(f"CREATE SCHEMA p.{EXPIRING}")
    con.execute(_CATALOG_SQL)
    members: dict[str, int | None] = {}
    for name, entity, purpose, min_size, visible in con.execute(_SEGMENTS_SQL, [list(destination.segments)]).fetchall():
        pseudonym = digests.digest_of(f"'{named(entity, '')}' || entity_id")
        con.execute(_MEMBERS_SQL.format(name=name, pseudonym=pseudonym, clock=clock.sql),
                    {"visible": visible, "is_user": entity == "user", "purpose": purpose, "min_size": min_size})  # fmt: skip
        _see(con, name, min_size, clock)
        shown = con.execute(f"SELECT count(*) FROM p.{EXPIRING}.{name}").fetchall()[0][0]
        members[name] = shown or None
        con.execute(_DESCRIBED_SQL, {"name": name, "members": members[name]})
    about = [destination.name, destination.description, destination.recipient, list(destination.purposes), key.id,
             clock.as_of, clock.live]  # fmt: skip
    con.execute(_ABOUT_SQL)
    con.execute("INSERT INTO p.main.about VALUES (?, ?, ?, ?, ?, ?, ?)", about)
    for column, text in _COMMENTS.items():
        con.execute(f"COMMENT ON COLUMN p.main.{column} IS '{text}'")
    return members


def _see(con: duckdb.DuckDBPyConnection, name: str, min_size: int, clock: Clock) -> None:
    """The view through which readers see a segment; what is left when most have expired is not shown either."""
    rows = f"FROM {EXPIRING}.{name} WHERE expires_at > {clock.sql}"
    con.execute("USE p")
    con.execute(f"CREATE VIEW {name} AS SELECT * {rows} AND (SELECT count(*) {rows}) >= {min_size}")
    con.execute("USE memory")


# What may be handed out now; a segment of which nobody says that it is visible is not.
_SEGMENTS_SQL = """
    SELECT segment, entity, purpose, min_size, coalesce(v.visible, false)
    FROM w.segments.catalog LEFT JOIN w.state.segment_visibility AS v USING (segment)
    WHERE segment IN (SELECT unnest(?::VARCHAR[])) AND access_level = 'export' ORDER BY segment
"""

# A day and no moment, because moments are different for each person and the same in every file; the day before the end and
# not after it, because nobody is readable past their time. In the order of pseudonyms: any other could be that of the ids.
# People are asked once more whether they allow the purpose, though the segment asked already: this leaves the house.
_MEMBERS_SQL = f"""
    CREATE TABLE p.{EXPIRING}.{{name}} AS
    WITH members AS (
        SELECT {{pseudonym}} AS pseudonym, date_trunc('day', expires_at) AS expires_at
        FROM w.segments.{{name}}
        WHERE $visible AND (NOT $is_user OR entity_id IN (
            SELECT user_id FROM w.core.consent_history
            WHERE purpose = $purpose AND status = 'granted' AND effective_to IS NULL
        ))
    ), shown AS (
        SELECT * FROM members WHERE expires_at > {{clock}}
    )
    SELECT * FROM shown WHERE (SELECT count(*) FROM shown) >= $min_size ORDER BY pseudonym
"""

_CATALOG_SQL = """
    CREATE TABLE p.main.catalog (segment VARCHAR, description VARCHAR, purpose VARCHAR, legal_basis VARCHAR,
        entity VARCHAR, ttl_days INTEGER, min_size INTEGER, members BIGINT)
"""
_DESCRIBED_SQL = """
    INSERT INTO p.main.catalog
    SELECT segment, description, purpose, legal_basis, entity, ttl_days, min_size, $members
    FROM w.segments.catalog WHERE segment = $name
"""
_ABOUT_SQL = """
    CREATE TABLE p.main.about (destination VARCHAR, description VARCHAR, recipient VARCHAR, purposes VARCHAR[],
        key_id VARCHAR, as_of TIMESTAMPTZ, live BOOLEAN)
"""
_COMMENTS = {
    "catalog.segment": "Name; its members are in the view of this name: pseudonym and expires_at.",
    "catalog.description": "Who is in it.",
    "catalog.purpose": "What its people allowed, and all that it may be used for.",
    "catalog.legal_basis": "Legal basis of using it.",
    "catalog.entity": "What a member is: user, session, device or organisation.",
    "catalog.ttl_days": "Nobody stays longer than this without qualifying again.",
    "catalog.min_size": "With fewer members it is not handed out.",
    "catalog.members": "Members at as_of; null where there are too few.",
    "about.destination": "For whom this file is; pseudonyms of other files are others.",
    "about.description": "What for.",
    "about.recipient": "Who receives it.",
    "about.purposes": "All that it may be used for.",
    "about.key_id": "Which key the pseudonyms were made with; where it changes, every pseudonym does.",
    "about.as_of": "Clock of the run that wrote it (UTC).",
    "about.live": "Does the clock of the reader end memberships, too? Not in a home of history.",
}


@contextmanager
def opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A file as its recipient opens it; one that is damaged is told in one line."""
    try:
        con = duckdb.connect(str(path), read_only=True)
    except duckdb.Error:
        raise InputError("the file cannot be read", path, "remove it; the next run writes it anew") from None
    with closing(con):
        con.execute("SET TimeZone = 'UTC'")
        yield con


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    done = con.execute(query)
    names = [column[0] for column in done.description or ()]
    return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def _about(path: Path) -> dict[str, Any]:
    with opened(path) as con:
        return rows(con, "FROM about")[0]


def told(path: Path) -> dict[str, Any]:
    """What a file says of itself, and how many members each segment shows now."""
    with opened(path) as con:
        about, segments = rows(con, "FROM about")[0], rows(con, "FROM catalog ORDER BY segment")
        for segment in segments:
            segment["shown_now"] = con.execute(f"SELECT count(*) FROM {segment['segment']}").fetchall()[0][0]
    return about | {"segments": segments}


def pseudonyms_of(home: Home, people: People, keyring: Keyring | None) -> frozenset[str]:
    """All that these people are called in the files that lie here: they, their devices, and sessions known to be theirs.

    Raises
    ------
    InputError : a file was made with a key that is not given, so nobody can tell whether they are in it.
    """
    ids = [*(("user", one) for one in people.users), *(("device", one) for one in people.devices)]
    written = files(home)
    if written:
        ids += [("session", one) for one in _sessions_of(home, people.users)]
    keys = {key.id: key for key in keyring.keys} if keyring else {}
    found: set[str] = set()
    for name, path in written.items():
        key_id = _about(path)["key_id"]
        if key_id not in keys:
            what = f"its pseudonyms were made with key '{key_id}', which is not given: nobody can tell who is in it"
            raise InputError(what, path, f"give it back ({SETTING}_FILE), or write it anew: zantara run")
        key = key_of(keys[key_id], name)
        found.update(key.digest(named(entity, one)) for entity, one in ids)
    return frozenset(found)


def _sessions_of(home: Home, users: Collection[str]) -> list[str]:
    """Sessions in which nobody else was logged in, as the published copy has them."""
    if not home.published.exists():
        return []
    with opened(home.published) as con:
        there = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'core' AND table_name = 'sessions'"
        if not con.execute(there).fetchall():
            return []
        query = "SELECT session_id FROM core.sessions WHERE user_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY 1"
        return [row[0] for row in con.execute(query, [sorted(users)]).fetchall()]


def memberships(home: Home, pseudonyms: Collection[str]) -> list[dict[str, Any]]:
    """Which files hold somebody: destination, recipient, purposes, segment, expires_at; for an access request."""
    found = []
    for name, path in files(home).items():
        with opened(path) as con:
            about = rows(con, "FROM about")[0]
            for segment, until in _held(con, pseudonyms):
                kept = {"destination": name, "recipient": about["recipient"], "purposes": about["purposes"]}
                found.append(kept | {"segment": segment, "expires_at": until})
    return found


def _held(con: duckdb.DuckDBPyConnection, pseudonyms: Collection[str]) -> list[tuple[str, datetime]]:
    """(segment, expires_at) of every row of theirs in one file."""
    found: list[tuple[str, datetime]] = []
    for (segment,) in con.execute("SELECT segment FROM catalog ORDER BY segment").fetchall():
        query = f"SELECT expires_at FROM {EXPIRING}.{segment} WHERE pseudonym IN (SELECT unnest(?::VARCHAR[]))"
        found += [(segment, row[0]) for row in con.execute(query, [sorted(pseudonyms)]).fetchall()]
    return found


def erase_from_exports(
    home: Home, pseudonyms: Collection[str], *, threads: int = 1, memory_limit: str = "500MB"
) -> int:
    """Write files that hold somebody again without them; returns how many. May be done again.

    Of sessions in which several people were logged in nobody here knows whose they are: segments of sessions are left
    empty until the next run. What falls below its min_size goes whole.
    """
    written = 0
    for path in files(home).values():
        with opened(path) as con:
            segments = {s["segment"]: s for s in rows(con, "FROM catalog")}
            sessions = [name for name, segment in segments.items() if segment["entity"] == "session"]
            touched = bool(_held(con, pseudonyms)) or any(rows(con, f"FROM {EXPIRING}.{s} LIMIT 1") for s in sessions)
        if touched:
            keep = _Keep(segments, pseudonyms)
            copy_without(home, path, keep, threads=threads, memory_limit=memory_limit)
            written += 1
    return written


class _Keep:
    """Which rows of a file stay (storage.engine.Keep)."""

    def __init__(self, segments: Mapping[str, dict[str, Any]], pseudonyms: Collection[str]) -> None:
        self.segments, self.pseudonyms = segments, sorted(pseudonyms)

    def __call__(self, con: duckdb.DuckDBPyConnection, schema: str, table: str) -> str:
        if schema != EXPIRING:
            return "true"
        if self.segments[table]["entity"] == "session":
            return "false"
        con.execute("CREATE OR REPLACE TEMP TABLE erased_pseudonyms AS SELECT unnest(?::VARCHAR[]) AS pseudonym",
                    [self.pseudonyms])  # fmt: skip
        stays = "pseudonym NOT IN (SELECT pseudonym FROM erased_pseudonyms)"
        left = con.execute(f"SELECT count(*) FROM w.{schema}.{table} WHERE {stays}").fetchall()[0][0]
        return stays if left >= self.segments[table]["min_size"] else "false"
