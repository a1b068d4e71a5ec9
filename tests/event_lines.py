"""Lines of events and small homes to land them in: what the tests of tracking/ and its neighbours share.

Belongs here: valid events to change, landing, reading back what became of every line. Does not belong here: asserts.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.privacy.consent import append_ledger_file
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.ingest import IngestResult, ingest
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.verdict import Rules

PLAN = load_plan((PACKAGED,))
RULES = Rules(PLAN, late_after_hours=24, max_lateness_days=30)
# The example of the requirements (section 3, Behavioural Tracking), word for word.
REQUIRED_ENTRY = """
{
  "event": "product_view",
  "description": "User views a product detail page",
  "properties": {
    "product_id": "string",
    "category": "string",
    "price": "number",
    "currency": "string"
  },
  "context": ["user", "session", "device"],
  "owner": "growth-data@company.com",
  "platforms": ["web", "ios", "android"]
}
"""
BOTH = {"analytics": True, "personalization": True}


def event(name: str = "product_view", properties: Any = None, **changes: Any) -> dict[str, Any]:
    """A valid event; keys given as `...` are left out."""
    whole = {
        "event_id": "e-1",
        "event": name,
        "timestamp": "2026-03-01T10:00:00Z",
        "received_at": "2026-03-01T10:00:05Z",
        "user_id": "u-1",
        "properties": {"product_id": "p-1"} if properties is None else properties,
        "consent": BOTH,
    } | changes
    return {key: value for key, value in whole.items() if value is not ...}


def viewed(**properties: Any) -> dict[str, Any]:
    """A product_view with these properties beside its product_id."""
    return event(properties={"product_id": "p-1"} | properties)


def text(lines: Iterable[Any]) -> bytes:
    """Lines as the bytes of a file: dicts become JSON, str and bytes stay."""
    return b"".join(_bytes(line) + b"\n" for line in lines)


def _bytes(line: Any) -> bytes:
    if isinstance(line, bytes):
        return line
    return line.encode() if isinstance(line, str) else json.dumps(line, ensure_ascii=False).encode()


class Shop:
    """A home with landed files, and what ingest made of them."""

    def __init__(self, root: Path, rules: Rules = RULES) -> None:
        self.home = Home(root).create()
        self.ledger = Ledger(self.home.state / "ledger.db")
        self.rules = rules
        self.landing = self.home.landing / "events"

    def land(self, name: str, lines: Iterable[Any] | bytes) -> Path:
        content = lines if isinstance(lines, bytes) else text(lines)
        path = self.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        return path

    def consent(self, *rows: Sequence[str]) -> None:
        path = self.home.landing / "consent.csv"
        path.write_text("\n".join(["user_id,purpose,status,effective_from", *map(",".join, rows)]) + "\n")
        append_ledger_file(self.ledger, path, PLAN.purposes)

    def ingest(self) -> IngestResult:
        return ingest(self.home, self.ledger, self.landing, self.rules, threads=1)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the state ledger."""
        with self.ledger.read() as db:
            return db.execute(sql).fetchall()

    def statements(self) -> list[tuple[str, str, str, str]]:
        """What the events said of consent: user, purpose, status, since."""
        return self.query(
            "SELECT user_id, purpose, status, effective_from FROM consent WHERE origin = 'event' ORDER BY 1, 2, 4, 3"
        )

    def accepted(self) -> list[dict[str, Any]]:
        """All accepted rows, whole, in a fixed order."""
        return _rows(self.home.accepted, "*/*/*.parquet", "source, line_no")

    def quarantined(self) -> list[dict[str, Any]]:
        return _rows(self.home.quarantine, "*/*.parquet", "source, line_no")

    def unparsable(self) -> list[dict[str, Any]]:
        return _rows(self.home.restricted / "unparsable", "*.parquet", "source, line_no")

    def stages(self, name: str) -> dict[int, str]:
        """line_no -> where the line went, for one landed file; suppressed lines are nowhere."""
        found = {}
        for stage in ("accepted", "quarantined", "unparsable"):
            rows = [row for row in getattr(self, stage)() if row["source"].startswith(f"{name}#")]
            found |= {row["line_no"]: stage for row in rows}
        return found

    def reasons(self) -> dict[int, set[tuple[str, str]]]:
        """line_no -> {(code, path)} of quarantined lines."""
        return {row["line_no"]: {(r["code"], r["path"]) for r in row["reasons"]} for row in self.quarantined()}

    def everything(self) -> dict[str, Any]:
        """All that must not depend on how often ingest was interrupted (audit times left out)."""
        with self.ledger.read() as db:
            columns = [row[1] for row in db.execute("PRAGMA table_info(ingested_files)")]
        files = ", ".join(name for name in columns if name not in ("ingested_at", "commit_id"))
        return {
            "accepted": self.accepted(),
            "quarantined": self.quarantined(),
            "unparsable": self.unparsable(),
            "files": self.query(f"SELECT {files} FROM ingested_files ORDER BY file"),
            "reasons": self.query("SELECT * FROM quarantine_reasons ORDER BY 1, 2, 3, 4"),
            "consent": self.query("SELECT * FROM consent ORDER BY 1, 2, 3, 4, 5"),
        }


def _rows(folder: Path, pattern: str, order: str) -> list[dict[str, Any]]:
    if not any(folder.glob(pattern)):
        return []
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    hive = "hive_types = {'received_date': DATE}" if "/" in pattern else "hive_partitioning = false"
    place = str(folder / pattern).replace("'", "''")
    cursor = con.execute(f"SELECT * FROM read_parquet('{place}', union_by_name = true, {hive}) ORDER BY {order}")
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    con.close()
    return [dict(sorted(row.items())) for row in rows]


def utc(text_: str) -> datetime:
    return datetime.fromisoformat(text_)
