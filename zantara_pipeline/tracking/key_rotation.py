"""Rotation of keys: stored tokens of earlier keys become tokens of the last one, without the values.

One commit of the lake holds all files that change, so that values join at any moment: killed, it is finished by whoever
writes the home next, or never was. What it writes beside the lake has to fit on the disk. A second rotation finds nothing.

Values that were stored before their property was declared a direct identifier are hashed on the way.

Belongs here: which files hold such tokens and values, and writing them again. Does not belong here: folding
(privacy/keyed_hash.py), that staging reads the days again (sources.py tells dbt, from the ledger).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.keyed_hash import Keyring, SqlTokens
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.commits import move_in, recover, stage
from zantara_pipeline.tracking.direct import direct_properties, record_keys, refuse_other_keys
from zantara_pipeline.tracking.migrations import migrated_columns, stored_types
from zantara_pipeline.tracking.payloads import Payloads
from zantara_pipeline.tracking.plan import RESERVED, EventPlan, TrackingPlan
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.stored_lines import PAYLOAD, parts, read_rows, write_parts

MEMORY = "300MB"


@dataclass(frozen=True)
class Rotated:
    """What is, or would be, written again.

    key : id of the last key.
    first_date : earliest received date among the accepted rows; the next run rebuilds its tables from there.
    """

    key: str
    accepted_files: int = 0
    accepted_rows: int = 0
    quarantine_files: int = 0
    quarantine_lines: int = 0
    first_date: date | None = None


def rotate_keys(home: Home, ledger: Ledger, plan: TrackingPlan, keyring: Keyring, *, dry_run: bool = False) -> Rotated:
    """Fold every stored token on to the keyring's last key.

    Raises
    ------
    InputError : the keys that the home was written with are not the first of the keyring.
    """
    recover(home, ledger)
    refuse_other_keys(ledger, keyring)
    con = open_engine(None, home, threads=1, memory_limit=MEMORY)
    try:
        work = _Rotation(con, home, plan, keyring)
        done = work.look()
        if work.files and not dry_run:
            work.commit(ledger, done)
        return done
    finally:
        con.close()


class _Rotation:
    def __init__(self, con: duckdb.DuckDBPyConnection, home: Home, plan: TrackingPlan, keyring: Keyring) -> None:
        self.con, self.home, self.plan, self.keyring = con, home, plan, keyring
        self.tokens = SqlTokens(con, keyring)
        self.payloads = Payloads(plan, keyring, stored=True)
        self.accepted: dict[Path, dict[str, str]] = {}
        self.quarantined: list[Path] = []

    @property
    def files(self) -> list[str]:
        return [path.relative_to(self.home.lake).as_posix() for path in [*self.accepted, *self.quarantined]]

    def look(self) -> Rotated:
        rows = lines = 0
        for path in sorted(self.home.accepted.glob("event=*/received_date=*/*.parquet")):
            columns, found = self._stale_columns(path)
            if found:
                self.accepted[path] = columns
                rows += found
        for path in sorted(self.home.quarantine.glob("received_date=*/*.parquet")):
            changed = 0
            for _, differ in self._renewed(path):
                changed += differ
            if changed:
                self.quarantined.append(path)
                lines += changed
        first = min((path.parent.name.partition("=")[2] for path in self.accepted), default=None)
        return Rotated(
            self.keyring.last.id, len(self.accepted), rows, len(self.quarantined), lines,
            None if first is None else date.fromisoformat(first),
        )  # fmt: skip

    def _stale_columns(self, path: Path) -> tuple[dict[str, str], int]:
        """Column -> SQL of its tokens, of those that may hold others than of the last key; rows where one does."""
        event = self.plan.events.get(path.parent.parent.name.partition("=")[2])
        columns, stale = {}, []
        for name, text, is_direct in _texts(event, path):
            others = [key.id for key in self.keyring.keys[:-1]]
            if is_direct:
                stale.append(
                    f"{text} IS NOT NULL AND NOT regexp_full_match({text}, '{self._token([self.keyring.last.id])}')"
                )
            elif others:
                stale.append(f"coalesce(regexp_full_match({text}, '{self._token(others)}'), false)")
            else:
                continue
            columns[name] = f"CASE WHEN {stale[-1]} THEN {self.tokens.of_stored(text)} ELSE {text} END"
        if not columns:
            return {}, 0
        counts = ", ".join(f"count(*) FILTER ({condition})" for condition in stale)
        any_stale = " OR ".join(f"({condition})" for condition in stale)
        [(found, *each)] = self.con.execute(
            f"SELECT count(*) FILTER ({any_stale}), {counts} FROM {_one_file(path)}"
        ).fetchall()
        return {name: sql for (name, sql), count in zip(columns.items(), each, strict=True) if count}, int(found)

    def _token(self, ids: list[str]) -> str:
        return f"hashed:({'|'.join(ids)}):[0-9a-f]{{64}}"

    def _renewed(self, path: Path) -> Iterator[tuple[pa.Table, int]]:
        """The lines of a quarantine file with their payloads as they have to be, and how many differ from what is there."""
        for lines in parts(read_rows(path)):
            texts, differ = list[str | None](), 0
            for event, payload in zip(lines["event"], lines[PAYLOAD], strict=True):
                line = payload.as_py()
                texts.append(line and self.payloads.without_identifiers(event.as_py(), self.payloads.renewed(line)))
                differ += texts[-1] != line
            place = lines.schema.get_field_index(PAYLOAD)
            yield lines.set_column(place, PAYLOAD, pa.array(texts, pa.string())), differ

    def commit(self, ledger: Ledger, done: Rotated) -> None:
        rotation_id = hashlib.sha256("".join(["rotation", self.keyring.last.id, *self.files]).encode()).hexdigest()[:16]
        folder = self.home.incoming / rotation_id
        shutil.rmtree(folder, ignore_errors=True)
        for number, (path, columns) in enumerate(self.accepted.items()):
            tokens = ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())
            self._copy(f"SELECT * REPLACE ({tokens}) FROM {_one_file(path)}", folder, path, number)
        for number, path in enumerate(self.quarantined, len(self.accepted)):
            write_parts((lines for lines, _ in self._renewed(path)), self._target(folder, path, number))
        with ledger.transaction() as db:
            stage(db, rotation_id, self.files)
            record_keys(db, self.keyring)
            db.execute(
                "INSERT OR REPLACE INTO key_rotations VALUES (?, ?, ?, ?, ?, ?)",
                [rotation_id, utc_text(datetime.now(UTC)), done.key, len(self.files),
                 done.accepted_rows + done.quarantine_lines, done.first_date.isoformat() if done.first_date else None],
            )  # fmt: skip
        move_in(self.home, ledger, rotation_id)

    def _target(self, folder: Path, path: Path, number: int) -> Path:
        return (folder / path.relative_to(self.home.lake)).with_name(f"{folder.name}-{number:04d}.parquet")

    def _copy(self, query: str, folder: Path, path: Path, number: int) -> None:
        target = self._target(folder, path, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.con.execute(f"COPY ({query}) TO {quote(str(target))} (FORMAT parquet)")


def _texts(event: EventPlan | None, path: Path) -> Iterator[tuple[str, str, bool]]:
    """Columns of one file that may hold tokens: name, SQL of the text, whether all of it are direct identifiers.

    Of an event or a property that is in the plan no more, or is no identifier any more, tokens may be left.
    """
    stored = stored_types(path)
    direct = [] if event is None else direct_properties(event)
    renamed = {} if event is None else {old: name for name in direct for old in event.names_before(name)}
    for column, kind in stored.items():
        name = renamed.get(column, column)
        if event is not None and name in direct and kind != "string":  # it was no text before it was an identifier
            read_from, text = migrated_columns(event, {column: kind})[name]
            assert read_from == column
            yield column, text, True
        elif kind == "string" and column not in RESERVED:
            yield column, f'"{column}"', name in direct


def _one_file(path: Path) -> str:
    return f"read_parquet({quote(str(path))}, hive_partitioning = false)"
