"""Dagster's event log for a process that works one run: it keeps its connections.

Dagster opens and closes SQLite for every event, and a run writes 300 of them to two files: an engine of SQLAlchemy, the
schema read again, two commits that wait for the disk, and, as the last one out, the write-ahead log copied back and
deleted. That was a quarter of what a small shop's run took. Files, tables and rows are Dagster's own, so its pages and
daemon read them as ever (with Dagster's own class, which must not keep a connection for each of a thousand runs).

Belongs here: how long a connection lives. Does not belong here: what is written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import QueuePool


class KeptEventLog(SqliteEventLogStorage):  # type: ignore[misc]
    """SqliteEventLogStorage with one connection a file until it is disposed of."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, sqlalchemy.Engine] = {}
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "KeptEventLog":
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sqlalchemy.Connection]:
        with self._db_lock:
            if shard not in self._engines:
                self._engines[shard] = _engine(self.conn_string_for_shard(shard))
            engine = self._engines[shard]
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def dispose(self) -> None:
        super().dispose()
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()


def _engine(url: str) -> sqlalchemy.Engine:
    # whoever has the lock of the storage uses the connection, in whatever thread
    given = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
    engine = sqlalchemy.create_engine(url, poolclass=QueuePool, pool_size=1, connect_args=given)

    @sqlalchemy.event.listens_for(engine, "connect")
    def _wait_less(connection: Any, _: Any) -> None:
        # with a write-ahead log a killed process loses nothing either way, and a power cut loses the last events at most
        connection.execute("PRAGMA synchronous = NORMAL")

    return engine
