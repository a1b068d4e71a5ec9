"""What events say of consent must not depend on the order in which their files land."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.ingest import ingest
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.verdict import Rules

START = datetime(2026, 3, 1, tzinfo=UTC)


def _line(day: int, granted: bool) -> str:
    moment = (START + timedelta(days=day)).isoformat().replace("+00:00", "Z")
    consent = {"analytics": True, "personalization": granted}
    event = {"event_id": f"e{day}", "event": "session_started", "timestamp": moment, "user_id": "u1"}
    return json.dumps(event | {"properties": {"entry_page": "home"}, "consent": consent})


def _statements(home: Home, files: list[list[tuple[int, bool]]]) -> list[tuple[str, str]]:
    rules = Rules(load_plan([PACKAGED]), 24, 30)
    ledger = Ledger(home.create().state / "ledger.db")
    for number, days in enumerate(files):
        (home.landing / "events" / f"{number}.jsonl").write_text("\n".join(_line(*day) for day in days))
        ingest(home, ledger, home.landing / "events", rules, threads=1)
    with ledger.read() as db:
        rows = db.execute(
            "SELECT effective_from, status FROM consent WHERE purpose = 'personalization' ORDER BY 1, 2"
        ).fetchall()
    return [(moment[8:10], status) for moment, status in rows]


def test_a_late_event_does_not_override_what_the_person_said_after_it(tmp_path: Path) -> None:
    """Denied on day 5 and 9; a late grant of day 7 must not leave the person granted (this once failed open)."""
    assert _statements(Home(tmp_path), [[(5, False)], [(9, False)], [(7, True)]]) == [
        ("06", "denied"),
        ("08", "granted"),
        ("10", "denied"),
    ]


def test_the_same_word_again_is_not_kept(tmp_path: Path) -> None:
    assert _statements(Home(tmp_path), [[(1, True), (2, True)], [(3, True)], [(4, True)]]) == [("02", "granted")]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]])
def test_the_latest_word_is_the_same_whatever_landed_first(tmp_path: Path, order: list[int]) -> None:
    said = [(1, True), (4, False), (6, True), (9, False)]
    found = _statements(Home(tmp_path), [[said[i]] for i in order])
    assert found == [("02", "granted"), ("05", "denied"), ("07", "granted"), ("10", "denied")]
