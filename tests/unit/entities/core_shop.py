"""The models of core on small made-up lakes, without a dbt process for each: dbt runs twice and its SQL is replayed.

What dbt sends to the engine depends on the models and on whether tables exist, never on data (the clock and the dates to
stage are tables). So it is recorded once for a build from nothing and once for a build that follows, and any history of
builds can be played in memory in a tenth of a second. Does not belong here: what is asserted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.plan import TrackingPlan, load_plan
from zantara_pipeline.tracking.sources import BEGINNING, EXEMPT_COLUMNS, ITEM_COLUMNS, NOTHING_NEW, lake_columns

PROJECT = Path(__file__).resolve().parents[3] / "dbt_project"
DAY = datetime(2026, 3, 1, tzinfo=UTC)
Row = dict[str, Any]
Statement = tuple[int, str]
Members = dict[str, list[tuple[Any, ...]]]


def at(days: float = 0, *, hours: float = 0, minutes: float = 0, seconds: float = 0) -> datetime:
    """An instant, counted from 1 March 2026, UTC."""
    return DAY + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def row(event_id: str, occurred_at: datetime, received_at: datetime | None = None, **columns: Any) -> Row:
    """One accepted event of the lake (a product view unless it says otherwise), with consent."""
    received = received_at or occurred_at + timedelta(seconds=2)
    line = {"event_id": event_id, "event": "product_view", "occurred_at": occurred_at, "received_at": received,
            "received_date": received.date(), "source": "file", "line_no": 1, "consent_basis": "granted",
            "consent_analytics": True, "consent_personalization": True, "platform": "web"}  # fmt: skip
    return line | ({"product_id": "p1"} if columns.get("event", "product_view") == "product_view" else {}) | columns


@dataclass
class Lake:
    """What was accepted so far, and what the ledgers say of consent (in a sixth place: the latest clock without it)."""

    rows: list[Row] = field(default_factory=list)
    consent: list[tuple[str, ...]] = field(default_factory=list)
    latest_clock: datetime | None = None  # of any run; None: that of the build


@dataclass(frozen=True)
class SegmentRecorded:
    """What makes a segment whole; of one that follows also the question whether it can, and what it does then.

    alone : what is sent by a build that does not bring up to date what the segment reads.
    """

    whole: list[Statement]
    follow: list[Statement]
    alone: list[Statement]
    can_follow: str | None


@dataclass(frozen=True)
class Recorded:
    """(number of the connection, statement) in the order sent: core from nothing, core that follows.

    segments : segment -> how it is made, in the order of the build.
    manifest : of the project, as JSON.
    column_checks : model -> the SELECT of what it promises of its columns, of every model that promises something.
    """

    anew: list[Statement]
    follow: list[Statement]
    segments: dict[str, SegmentRecorded]
    manifest: str
    column_checks: dict[str, str]


class CoreShop:
    """A warehouse in memory, built from a lake; `build` follows the lake as a run does."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self.con = duckdb.connect()
        self.con.execute("ATTACH ':memory:' AS warehouse; USE warehouse; SET TimeZone = 'UTC'; SET threads = 1")
        self.empty = True
        self.followed: set[str] = set()

    def build(
        self,
        lake: Lake,
        *,
        as_of: datetime,
        since: date | None = BEGINNING,
        removed: Iterable[tuple[str, date]] = (),
        restaged: Iterable[date] = (),
        killed_after: int | None = None,
    ) -> bool:
        """Build from the received date `since` on (None: nothing came); whether the end was reached.

        Parameters
        ----------
        removed, restaged : what `tracking.sources.prepare` says of retention.
        killed_after : the process ends after so many statements; what it had not committed is lost.
        """
        land(self.con, lake, as_of, since, removed, restaged)
        statements = self.recorded.anew if self.empty else self.recorded.follow
        self._send(statements[:killed_after])
        self._drop_left_behind()
        self.empty = False
        return killed_after is None or killed_after >= len(statements)

    def build_segments(self, *, killed_after: int | None = None, alone: bool = False) -> Members:
        """Make the segments of what core is now; name -> members as (entity_id, entered_at, expires_at, ...), sorted.

        Each follows where it says that it can, as the materialization does; `followed` has the names of those that did.

        Parameters
        ----------
        killed_after : as in `build`.
        alone : by a build of segments only.
        """
        self.followed.clear()
        left = killed_after
        for name, segment in self.recorded.segments.items():
            if not alone and segment.can_follow is not None and self.read(segment.can_follow) == [(True,)]:
                self.followed.add(name)
            statements = segment.alone if alone else segment.follow if name in self.followed else segment.whole
            self._send(statements[:left])
            left = None if left is None else max(0, left - len(statements))
        return self.members()

    def members(self) -> Members:
        """Members of every segment as they stand."""
        names = self.read(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'segments' ORDER BY ALL"
        )
        return {name: sorted(self.read(f"SELECT * FROM segments.{name}")) for (name,) in names}

    def _send(self, statements: list[Statement]) -> None:
        with contextlib.ExitStack() as open_connections:
            connections: dict[int, duckdb.DuckDBPyConnection] = {}
            for number, statement in statements:
                if number not in connections:
                    connections[number] = open_connections.enter_context(self.con.cursor())
                    connections[number].execute("USE warehouse; SET TimeZone = 'UTC'")
                connections[number].execute(statement)

    def _drop_left_behind(self) -> None:
        """What dbt does first where a process was killed before it dropped the table that it had replaced."""
        left = self.read(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name LIKE '%__dbt_backup'"
        )
        for schema, name in left:
            self.con.execute(f"DROP TABLE {schema}.{name}")

    def read(self, query: str) -> list[tuple[Any, ...]]:
        return self.con.execute(query).fetchall()

    def tables(self) -> dict[str, list[str]]:
        """Every row of core and of what it is made of, as sorted text."""
        names = [name for (name,) in self.read(_BUILT)]
        return {name: sorted(text for (text,) in self.read(f"SELECT t::VARCHAR FROM {name} t")) for name in names}


_BUILT = """
    SELECT table_schema || '.' || table_name FROM information_schema.tables
    WHERE table_catalog = 'warehouse' AND table_schema IN ('core', 'staging', 'features') ORDER BY ALL
"""


def land(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    as_of: datetime,
    since: date | None = BEGINNING,
    removed: Iterable[tuple[str, date]] = (),
    restaged: Iterable[date] = (),
) -> None:
    """Make the relations that dbt reads, as `tracking.sources.prepare` does."""
    con.execute("CREATE SCHEMA IF NOT EXISTS lake; CREATE SCHEMA IF NOT EXISTS state")
    for event in _plan().events.values():
        columns = lake_columns(event)
        declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        con.execute(f'CREATE OR REPLACE TABLE lake."{event.event}" ({declared})')
        _insert(
            con, f'lake."{event.event}"', [[r.get(c) for c in columns] for r in lake.rows if r["event"] == event.event]
        )
    items = ", ".join(f"NULL::{kind} AS {name}" for name, kind in ITEM_COLUMNS.items())
    con.execute(f"CREATE OR REPLACE VIEW lake.items AS SELECT {items} WHERE false")
    exempt = ", ".join(f"{name} {kind}" for name, kind in EXEMPT_COLUMNS.items())
    con.execute(f"CREATE OR REPLACE TABLE lake.exempt_events ({exempt})")
    con.execute("CREATE OR REPLACE TABLE state.consent (user_id VARCHAR, purpose VARCHAR, origin VARCHAR, "
                "effective_from VARCHAR, status VARCHAR, unknown_at VARCHAR)")  # fmt: skip
    _insert(con, "state.consent", [[*statement, ""][:6] for statement in lake.consent])
    con.execute("CREATE OR REPLACE TABLE state.run_clock AS SELECT ?::TIMESTAMPTZ AS as_of, ?::TIMESTAMPTZ AS latest_clock, "
                "?::DATE AS rebuild_from, 31 AS duplicate_window_days",
                [as_of, max(as_of, lake.latest_clock or as_of), since or NOTHING_NEW])  # fmt: skip
    con.execute("CREATE OR REPLACE TABLE state.restaged_dates (received_date DATE)")
    con.execute("CREATE OR REPLACE TABLE state.removed_partitions (event VARCHAR, received_date DATE)")
    _insert(con, "state.restaged_dates", [[day] for day in restaged])
    _insert(con, "state.removed_partitions", [list(partition) for partition in removed])


@cache
def _plan() -> TrackingPlan:
    return load_plan([PACKAGED])


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[list[Any]]) -> None:
    if rows:
        con.execute(f"INSERT INTO {table} VALUES " + ", ".join(f"({', '.join('?' * len(r))})" for r in rows),
                    [value for r in rows for value in r])  # fmt: skip


_CHANGES = ("create", "insert", "delete", "drop", "alter", "begin", "commit", "update")


def record(folder: Path) -> Recorded:
    """Run dbt on a small lake in `folder`, twice, and write down what it does to the database."""
    lake = Lake([row("e1", at(), user_id="u", device_id="d", anonymous_id="a", organisation_id="o")])
    recorded: list[dict[str, list[Statement]]] = []
    for since, day in ((BEGINNING, 1), (at(1).date(), 2)):
        with contextlib.closing(duckdb.connect(str(folder / "warehouse.duckdb"))) as con:
            land(con, lake, at(day), since)
        recorded.append(_recorded(folder, _MODELS))
        lake.rows.append(row("e2", at(1), device_id="d"))
    recorded.append(_recorded(folder, ["path:models/segments"]))
    anew, follow, _ = (
        [
            statement
            for node, sent in nodes.items()
            if not _is_segment(node)
            for statement in sent
            if _changes(*statement)
        ]
        for nodes in recorded
    )
    manifest = (folder / "target" / "manifest.json").read_text(encoding="utf-8")
    _dbt(folder, ["test_name:sound_columns"], "compile")
    checks = {
        path.stem.removeprefix("sound_columns_"): path.read_text(encoding="utf-8")
        for path in (folder / "target" / "compiled").rglob("sound_columns_*.sql")
    }
    return Recorded(anew, follow, _segments(*recorded), manifest, checks)


_MODELS = ["+path:models/core", "int_events__stitched", "interactions", "path:models/segments"]
_NODE = re.compile(r'"node_id": "(?P<id>[^"]+)"')


def _is_segment(node: str) -> bool:
    return node.startswith("model.zantara.seg_")


def _changes(_: int, sql: str) -> bool:
    return _first_word(sql) in _CHANGES


def _first_word(sql: str) -> str:
    code = [line for line in sql.split("*/", 1)[-1].splitlines() if line.strip() and not line.strip().startswith("--")]
    return code[0].split()[0].lower().rstrip(";") if code else ""


def _segments(*recorded: dict[str, list[Statement]]) -> dict[str, SegmentRecorded]:
    found = {}
    for node in filter(_is_segment, recorded[0]):
        asked = [sql for _, sql in recorded[1][node] if "can_follow" in sql]
        made = ([one for one in nodes[node] if _changes(*one)] for nodes in recorded)
        found[node.split(".")[-1]] = SegmentRecorded(*made, asked[0] if asked else None)
    return found


def _recorded(folder: Path, models: list[str]) -> dict[str, list[Statement]]:
    """node -> what dbt sent for it; each has a connection of its own, and '' is what belongs to none."""
    statements: list[Statement] = []
    with _listening(statements):
        _dbt(folder, models)
    # a connection that only looked around begins transactions and changes nothing
    busy = {number for number, sql in statements if _first_word(sql) in set(_CHANGES) - {"begin", "commit"}}
    node_of = {number: told["id"] for number, sql in statements if (told := _NODE.search(sql))}
    nodes: dict[str, list[Statement]] = {}
    for number, sql in statements:
        if number in busy:
            nodes.setdefault(node_of.get(number, ""), []).append((number, sql))
    return nodes


@contextlib.contextmanager
def _listening(statements: list[Statement]) -> Iterator[None]:
    from dbt.adapters.duckdb.environments.local import DuckDBCursorWrapper

    execute = DuckDBCursorWrapper.execute
    cursors: list[Any] = []  # kept, so that no two have the same place in memory

    def listen(cursor: Any, sql: str, bindings: Any = None) -> Any:
        done = execute(cursor, sql, bindings)
        assert bindings is None or not _changes(0, sql)
        if not any(cursor is known for known in cursors):
            cursors.append(cursor)
        statements.append((next(n for n, known in enumerate(cursors) if known is cursor), sql))
        return done

    with mock.patch.object(DuckDBCursorWrapper, "execute", listen):
        yield


def _dbt(folder: Path, models: list[str], verb: str = "run") -> None:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    environment = {"ZANTARA_WAREHOUSE": str(folder / "warehouse.duckdb"), "ZANTARA_SCRATCH": str(folder / "scratch"),
                   "DO_NOT_TRACK": "1", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}  # fmt: skip
    places = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target-path", str(folder / "target"),
              "--log-path", str(folder / "logs"), "--log-level", "none"]  # fmt: skip
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(io.StringIO()):
        done = dbtRunner().invoke([verb, "--select", *models, *places])
        DuckDBConnectionManager.close_all_connections()  # as the end of its process does: it holds the file until then
    problems = [
        f"{one.node.name}: {one.message}" for one in getattr(done.result, "results", []) if one.status != "success"
    ]
    assert done.success and not problems, problems or done.exception
