"""The state ledger: all or nothing, several writers, copied whole into the warehouse."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.ledger import SCHEMA_VERSION, Ledger

ADD = "INSERT INTO consent (user_id, purpose, status, effective_from, origin) VALUES (?, 'analytics', 'granted', '2026-03-01T00:00:00.000000Z', 'ledger')"
WRITE = f"""
import sys
from pathlib import Path
from zantara_pipeline.storage.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for n in range(60):
    with ledger.transaction() as db:
        db.execute({ADD!r}, [f"{{sys.argv[2]}}-{{n}}"])
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "ledger.db")


def users(ledger: Ledger) -> list[str]:
    with ledger.read() as db:
        return [row[0] for row in db.execute("SELECT user_id FROM consent ORDER BY user_id")]


def test_two_processes_may_write_at_once(ledger: Ledger) -> None:
    command = [sys.executable, "-c", WRITE, str(ledger.path)]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    with ledger.transaction() as db:
        db.execute(ADD, ["mine"])
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(users(ledger)) == 121


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.transaction() as db:
        db.execute(ADD, ["half"])
        raise KeyboardInterrupt
    assert users(ledger) == []


def test_a_killed_transaction_leaves_nothing_and_no_lock(ledger: Ledger) -> None:
    code = (
        "import os, sys; from pathlib import Path; from zantara_pipeline.storage.ledger import Ledger\n"
        f"with Ledger(Path(sys.argv[1])).transaction() as db: db.execute({ADD!r}, ['half']); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(ledger.path)]).returncode == -9
    with ledger.transaction() as db:
        db.execute(ADD, ["whole"])
    assert users(ledger) == ["whole"]


def test_readers_do_not_wait_for_a_writer(ledger: Ledger) -> None:
    with ledger.transaction() as db:
        db.execute(ADD, ["u"])
        assert users(ledger) == []
    assert users(ledger) == ["u"]


def test_opening_it_again_keeps_it(ledger: Ledger) -> None:
    with ledger.transaction() as db:
        db.execute(ADD, ["u"])
    assert users(Ledger(ledger.path)) == ["u"]


def test_a_copy_in_the_warehouse_is_replaced_whole(ledger: Ledger) -> None:
    con = duckdb.connect()
    columns = {"user_id": "VARCHAR", "status": "VARCHAR"}
    assert ledger.copy_table("consent", con, columns) == 0
    assert con.execute("DESCRIBE state.consent").fetchall()[1][:2] == ("status", "VARCHAR")
    with ledger.transaction() as db:
        db.executemany(ADD, [(f"u{n:06d}",) for n in range(120_000)])  # more than two of the batches it is copied in
    assert ledger.copy_table("consent", con, columns) == 120_000
    assert ledger.copy_table("consent", con, columns) == 120_000
    found = con.execute("SELECT count(*), count(DISTINCT user_id), min(status) FROM state.consent").fetchone()
    assert found == (120_000, 120_000, "granted")


def test_numbers_and_nulls_are_copied_as_such(ledger: Ledger) -> None:
    with ledger.transaction() as db:
        db.execute(
            "INSERT INTO ingested_files (sha256, file, source, bytes, rows_in, unparsable, suppressed, quarantined, accepted, "
            "late, commit_id, ingested_at) VALUES ('s', 'f', 'f#s', 1, 9007199254740993, 0, 0, 0, 0, 0, 'c', 't')"
        )
    con = duckdb.connect()
    ledger.copy_table("ingested_files", con, {"file": "VARCHAR", "rows_in": "BIGINT", "max_received_at": "VARCHAR"})
    assert con.execute("SELECT * FROM state.ingested_files").fetchall() == [("f", 9007199254740993, None)]


def test_a_ledger_of_another_version_is_refused_in_one_line(ledger: Ledger) -> None:
    with sqlite3.connect(ledger.path) as db:
        db.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(InputError) as error:
        Ledger(ledger.path)
    assert f"schema 99, this version knows {SCHEMA_VERSION}" in str(error.value) and str(ledger.path) in str(
        error.value
    )
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_ledger_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(InputError, match=r"ledger\.db: the ledger cannot be opened .*restore it from a backup"):
        Ledger(path)


def test_statuses_are_checked_by_the_ledger_itself(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.IntegrityError), ledger.transaction() as db:
        db.execute(
            "INSERT INTO consent (user_id, purpose, status, effective_from, origin) VALUES ('u', 'analytics', 'maybe', 't', 'ledger')"
        )
