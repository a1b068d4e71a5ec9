"""`zantara quarantine` and `zantara plan` as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from event_lines import RULES, Shop, event, viewed
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app

SECRET = "joe.bloggs@example.com"


def say(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path / "home"))
    shop = Shop(tmp_path / "home", RULES)
    shop.land(
        "a.jsonl",
        [event(), viewed(price="5", brand=SECRET), viewed(price="6"), event("wishlist_added", {"product_id": "p"})],
    )
    shop.ingest()
    return shop


def test_an_empty_home_has_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_HOME", str(tmp_path / "home"))
    assert "0 lines in quarantine" in say("quarantine", "list")
    assert "0 lines judged" in say("quarantine", "replay")
    assert json.loads(say("quarantine", "diff", "--json")) == []


def test_list_show_diff_and_discard(shop: Shop) -> None:
    listed = json.loads(say("quarantine", "list", "--json"))
    assert [(kind["event"], kind["rows"]) for kind in listed] == [("product_view", 2), ("wishlist_added", 1)]
    texts = say("quarantine", "list")
    first = listed[0]["fingerprint"][:8]
    shown = say("quarantine", "show", first)
    assert "wrong_type $.properties.price: expected money, is string (2)" in shown
    assert SECRET not in texts + shown and SECRET in say("quarantine", "show", first, "--payloads", "2")
    assert "3 lines judged again, 3 with the same verdict" in say("quarantine", "diff")
    assert "2 lines removed" in say("quarantine", "discard", first, "--reason", "test traffic")
    assert "1 lines in quarantine" in say("quarantine", "list")


def test_a_plan_that_learns_the_event_lets_it_in(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"event": "wishlist_added", "properties": {"product_id": "string"}, "description": "Wished for."}
    (tmp_path / "entry.json").write_text(json.dumps(entry))
    imported = say("plan", "import", str(tmp_path / "entry.json"), "--out", str(tmp_path / "ours"))
    assert "'consent_category' is missing" in imported
    path = tmp_path / "ours" / "tracking_plan" / "wishlist_added.yaml"
    path.write_text(path.read_text() + "consent_category: analytics\n")
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(tmp_path / "ours"))
    assert "wishlist_added: unknown_event $.event -> accepted" in say("quarantine", "diff")
    assert "1 would be accepted" in say("quarantine", "replay", "--dry-run")
    assert json.loads(say("quarantine", "list", "--json"))[-1]["event"] == "wishlist_added"
    replayed = json.loads(say("quarantine", "replay", "--json"))
    assert (replayed["accepted"], replayed["quarantined"], replayed["touched_dates"]) == (1, 2, ["2026-03-01"])
    assert [row["event"] for row in shop.accepted()] == ["product_view", "wishlist_added"]


def test_files_of_the_plan(tmp_path: Path) -> None:
    out = tmp_path / "schemas"
    assert "12 files from the plan" in say("plan", "codegen", "json-schema", "--out", str(out))
    assert (out / "purchase.schema.json").exists()
