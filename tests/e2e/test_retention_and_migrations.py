"""Whole runs: a type that changes with a migration, and days that go from the lake and from every table built of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from event_lines import event, text
from pipeline_homes import assert_same_home, copy_home, published, reading, warehouse, zantara

from zantara_pipeline.contracts_io import PACKAGED

pytestmark = pytest.mark.e2e

FIRST = datetime(2026, 1, 10, 12, tzinfo=UTC)


def land(home: Path, name: str, lines: list[dict[str, Any]]) -> None:
    folder = home / "data" / "landing" / "events"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text(lines))


def at(day: float, name: str, user: str, properties: dict[str, Any], event_id: str | None = None) -> dict[str, Any]:
    when = (FIRST + timedelta(days=day)).isoformat().replace("+00:00", "Z")
    return event(
        name, properties, event_id=event_id or f"{name}-{user}-{day}", timestamp=when, received_at=when, user_id=user
    )


def contracts(root: Path, privacy: dict[str, Any] | None = None, **changes: dict[str, Any]) -> dict[str, str]:
    """An overlay of the packaged contracts: keys of events (their properties are added to), and of privacy.yaml."""
    place = root / f"contracts-{len(list(root.glob('contracts-*')))}"
    (place / "tracking_plan").mkdir(parents=True)
    for name, keys in changes.items():
        entry = yaml.safe_load((PACKAGED / "tracking_plan" / f"{name}.yaml").read_text())
        entry |= keys | {"properties": entry["properties"] | keys.get("properties", {})}
        (place / "tracking_plan" / f"{name}.yaml").write_text(yaml.safe_dump(entry))
    if privacy:
        whole = yaml.safe_load((PACKAGED / "privacy.yaml").read_text()) | privacy
        (place / "privacy.yaml").write_text(yaml.safe_dump(whole))
    return {"ZANTARA_CONTRACTS": str(place)}


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with reading(path) as con:
        return con.execute(sql).fetchall()


def test_a_type_changes_with_a_migration_and_not_without(tmp_path: Path, new_home: Path) -> None:
    home = new_home
    shelf = {"description": "Shelf."}
    first = contracts(tmp_path, product_view={"properties": {"shelf": shelf | {"type": "string"}}})
    land(
        home,
        "a.jsonl",
        [at(0, "product_view", f"u{n}", {"product_id": "p", "shelf": s}) for n, s in enumerate(("7", "x7"))],
    )
    zantara(home, "run", env=first)
    assert rows(warehouse(home), "SELECT shelf FROM staging.stg_lake__product_view ORDER BY 1") == [("7",), ("x7",)]

    land(home, "b.jsonl", [at(1, "product_view", "u9", {"product_id": "p", "shelf": 12})])
    number = {"version": "2-0-0", "properties": {"shelf": shelf | {"type": "integer"}}}
    refused = zantara(home, "run", env=contracts(tmp_path, product_view=number), code=2)
    assert "product_view.shelf is integer in the plan and string in the lake" in refused.only_line
    assert "product_view.yaml:" in refused.only_line and "migrations" in refused.only_line
    assert rows(warehouse(home), "SELECT count(*) FROM state.ingested_files") == [(1,)]

    moved = number | {"migrations": [{"property": "shelf", "from": "string", "to": "integer", "since": "2-0-0"}]}
    zantara(home, "run", env=contracts(tmp_path, product_view=moved))
    staged = "SELECT user_id, shelf, typeof(shelf) FROM staging.stg_lake__product_view ORDER BY 1"
    assert rows(warehouse(home), staged) == [("u0", 7, "BIGINT"), ("u1", None, "BIGINT"), ("u9", 12, "BIGINT")]
    assert rows(published(home), "SELECT count(*) FROM core.users") == [(3,)]


def test_days_that_are_over_vanish_from_every_table(tmp_path: Path, new_home: Path) -> None:
    """With copies: an event whose first copy goes is there once, from its next copy, as in a warehouse made anew."""
    home = new_home
    counting = contracts(tmp_path, product_view={"retention_days": 20}, purchase={"retention_days": 90})
    lines = [at(day, "product_view", f"u{day}", {"product_id": "p", "brand": "Acme"}) for day in (0, 1, 10, 25)]
    lines += [
        at(0, "product_view", "copy", {"product_id": "p"}, "twice"),
        at(8, "product_view", "copy", {"product_id": "p"}, "twice"),
    ]
    lines += [at(0, "purchase", "u-old", {"product_id": "p", "price": 5, "currency": "EUR", "quantity": 1})]
    lines += [event("product_view", {"product_id": 5}, event_id="bad", received_at="2026-01-10T12:00:00Z")]
    land(home, "a.jsonl", lines)
    zantara(home, "run", env=counting)
    people = "SELECT user_id FROM core.users ORDER BY 1"
    everybody = [("copy",), ("u-old",), ("u0",), ("u1",), ("u10",), ("u25",)]
    assert rows(published(home), people) == everybody
    assert rows(published(home), "SELECT count(*) FROM ops.expired_rows") == [(0,)]
    said = zantara(home, "plan", "retention", "--json", env=counting).out
    assert {(p["store"], p["event"], p["rows"]) for p in json.loads(said)} == {
        ("quarantine", None, 1), ("accepted", "product_view", 3),
    }  # fmt: skip

    enforcing = contracts(
        tmp_path,
        {"retention": {"quarantine": {"enforce": True}, "accepted": {"enforce": True}}},
        product_view={"retention_days": 20, "properties": {"brand": {"type": "string", "retention_days": 10}}},
        purchase={"retention_days": 90},
    )
    done = zantara(home, "run", env=enforcing)
    assert "retention removed 2 days of the lake with 3 rows" in done.out
    staged = "SELECT user_id, brand FROM staging.stg_lake__product_view ORDER BY 1"
    assert rows(warehouse(home), staged) == [("copy", None), ("u10", None), ("u25", "Acme")]
    assert rows(warehouse(home), "SELECT count(*) FROM staging.int_events__indexed WHERE is_duplicate") == [(0,)]
    assert rows(published(home), people) == [("copy",), ("u-old",), ("u10",), ("u25",)]
    gone = "SELECT store, event, rows FROM ops.expired_rows ORDER BY ALL"
    assert rows(published(home), gone) == [("accepted", "product_view", 3), ("quarantine", "product_view", 1)]
    counts = "SELECT rows_in, quarantined, accepted FROM ops.ingested_files"
    assert rows(published(home), counts) == [(8, 1, 7)]

    anew = copy_home(home, tmp_path / "anew")
    warehouse(anew).unlink()
    zantara(anew, "run", env=enforcing)
    assert_same_home(home, anew)

    land(home, "b.jsonl", [at(31, "product_view", "u31", {"product_id": "p"})])
    zantara(home, "run", env=enforcing)
    assert rows(warehouse(home), staged) == [("u25", "Acme"), ("u31", None)]
    assert rows(published(home), people) == [("u-old",), ("u25",), ("u31",)]
