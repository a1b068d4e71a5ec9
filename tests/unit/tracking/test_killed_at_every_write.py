"""Whatever removes or moves lines is killed before each write that can count, and ends whole with the next run.

A death is final: once a write was refused, all later ones are, also those of handlers that a SIGKILL would not run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import PLAN, RULES, Shop, event, viewed

from zantara_pipeline.errors import InputError
from zantara_pipeline.orchestration.erasure import hands
from zantara_pipeline.privacy import erasure
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking import commits
from zantara_pipeline.tracking.lake_retention import enforce_lake
from zantara_pipeline.tracking.plan import Exemption, TrackingPlan
from zantara_pipeline.tracking.quarantine import kinds
from zantara_pipeline.tracking.quarantine_erasure import erase_quarantined
from zantara_pipeline.tracking.quarantine_expiry import expire_quarantine
from zantara_pipeline.tracking.replay import discard, replay
from zantara_pipeline.tracking.restricted import purge_restricted

DAY = timedelta(days=1)
FIRST = datetime(2019, 6, 1, 12, tzinfo=UTC)
LATER = FIRST + 12 * DAY
VIEW, TIMED = PLAN.events["product_view"], PLAN.events["page_timing"]
RULE = Exemption(event="page_timing", countries=("FR",), legal_reference="a guideline")
PRIVACY = PLAN.privacy.model_copy(update={"exemptions": (RULE,)})
BRAND = VIEW.properties["brand"].model_copy(update={"retention_days": 5})
# Days after ten, brand after five; and what a replay takes: a colour, and consent by another purpose.
KEPT = PLAN.events | {
    "product_view": VIEW.model_copy(update={"retention_days": 10, "properties": VIEW.properties | {"brand": BRAND}}),
    "page_timing": TIMED.model_copy(update={"retention_days": 10}),
}
COLOUR = VIEW.properties["brand"].model_copy(update={"max_length": 9})
BOUGHT = PLAN.events["purchase"].model_copy(update={"consent_category": "personalization"})
MENDED = PLAN.events | {
    "product_view": VIEW.model_copy(update={"properties": VIEW.properties | {"colour": COLOUR}}),
    "purchase": BOUGHT,
}


def at(day: int, number: int, line: dict[str, Any]) -> dict[str, Any]:
    when = f"{FIRST + day * DAY:%Y-%m-%dT%H:%M:%SZ}"
    return line | {"timestamp": when, "received_at": when, "event_id": f"{day}-{number}"}


def a_day(day: int) -> list[dict[str, Any]]:
    """One line of each fate: accepted, exempt, unreadable, quarantined (to be accepted, to fail again, to be set apart)."""
    unasked = {"user_id": "u-unasked", "context": {"country": "FR"}}
    timed = {key: value for key, value in event("page_timing", {"page": "/", "load_ms": 1}).items() if key != "consent"}
    lines = [
        viewed(brand="Acme"),
        timed | unasked,
        event(consent="perhaps"),
        viewed(colour="red") | {"user_id": "u-gone"},
        viewed(colour="very, very red"),
        event("purchase", {}, consent={"analytics": True, "personalization": "perhaps"}),
    ]
    return [at(day, number, line) for number, line in enumerate(lines)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    shop = Shop(root, replace(RULES, plan=TrackingPlan(PLAN.events, PRIVACY)))
    for day in (0, 6):
        shop.land(f"{day}.jsonl", a_day(day))
        shop.ingest()
    assert (
        shop.query("SELECT accepted, exempt, consent_unreadable, quarantined FROM ingested_files") == [(2, 1, 1, 3)] * 2
    )
    return root


def discard_red(shop: Shop) -> None:
    """As a person would, who types it again after the kill and is told that the lines are gone."""
    wanted = [kind.fingerprint for kind in kinds(shop.home) if kind.reasons.endswith("colour")]
    for fingerprint in wanted:
        try:
            discard(shop.home, shop.ledger, fingerprint, "test traffic")
        except InputError:
            assert not [kind for kind in kinds(shop.home) if kind.fingerprint == fingerprint]


def erase_person(shop: Shop) -> None:
    """As a person would who types it again: what is open is finished first, and then there may be nobody left."""
    work = hands(Settings(home=shop.home.root), shop.home, shop.ledger, TrackingPlan(PLAN.events, PRIVACY))
    receipt = erasure.finish_open(shop.home, shop.ledger, work)
    looked = erasure.look_to_erase(shop.home, shop.ledger, work, {"u-1"})
    if looked.people.users:
        receipt = erasure.erase(shop.home, shop.ledger, work, looked)
    assert receipt is None or (receipt.status, receipt.hits_after) == ("complete", 0)


WORK: dict[str, Callable[[Shop], Any]] = {
    "expiry": lambda shop: expire_quarantine(shop.home, shop.ledger, TrackingPlan(KEPT, PRIVACY), LATER),
    "lake and exempt": lambda shop: enforce_lake(shop.home, shop.ledger, TrackingPlan(KEPT, PRIVACY), LATER),
    "discard": discard_red,
    "erasure": lambda shop: erase_quarantined(shop.home, shop.ledger, {"u-gone"}),
    "replay": lambda shop: replay(
        shop.home, shop.ledger, replace(RULES, plan=TrackingPlan(MENDED, PRIVACY))
    ),
    "person": erase_person,
    "purge": lambda shop: purge_restricted(shop.home, LATER + 9 * DAY, 7),
}  # fmt: skip


class Killed(BaseException):
    pass


@contextmanager
def killed_before_write(number: int) -> Iterator[list[str]]:
    """Every write from the numbered one on is refused; yields the names of those that were asked for."""
    asked: list[str] = []

    def refused(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def write(*arguments: Any, **names: Any) -> Any:
            asked.append(name)
            if len(asked) >= number:
                raise Killed
            return real(*arguments, **names)

        return write

    real_transaction = Ledger.transaction

    @contextmanager
    def transaction(self: Ledger) -> Iterator[Any]:
        with real_transaction(self) as db:
            yield db
            asked.append("commit")
            if len(asked) >= number:
                raise Killed

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "rmdir", "mkdir"):
            patch.setattr(Path, name, refused(getattr(Path, name), name))
        patch.setattr(shutil, "rmtree", refused(shutil.rmtree, "rmtree"))
        patch.setattr(Ledger, "transaction", transaction)
        yield asked


def restricted(shop: Shop) -> list[Any]:
    paths = sorted((shop.home.restricted / "consent_unreadable").glob("*.parquet"))
    return sorted(row for path in paths for row in duckdb.sql(f"SELECT source, line_no, line FROM '{path}'").fetchall())


def exempt(shop: Shop) -> list[Any]:
    paths = sorted(shop.home.exempt.glob("*/*/*.parquet"))
    return sorted(row for path in paths for row in duckdb.sql(f"SELECT source, line_no FROM '{path}'").fetchall())


def state(shop: Shop) -> dict[str, Any]:
    """All that a reader can see, and what was written down of it; ids of commits and times of the wall left out."""
    counts = "source, rows_in, suppressed, quarantined, accepted, exempt, consent_unreadable"
    audits = {
        "expired_lines": "fingerprint, event, rows", "expired_rows": "event, received_date, source, rows",
        "expired_values": "event, received_date, properties", "expired_exempt_rows": "event, received_date, source, rows",
        "consent": "*", "consent_runs": "*", "tombstones": "kind", "rewritten_files": "file", "lake_erasures": "rows",
        "discards": "fingerprint, rows, reason", "quarantine_erasures": "rows", "replays": "rows, accepted, suppressed",
        "ingested_files": counts, "quarantine_reasons": "*", "replaced_files": "*",
    }  # fmt: skip
    return {
        "landed": {path.name: path.read_bytes() for path in shop.landing.iterdir()},
        "requests": [path.name for path in shop.home.state.iterdir() if "open" in path.name],
        "accepted": shop.accepted(), "quarantined": shop.quarantined(), "exempt": exempt(shop),
        "restricted": restricted(shop), "incoming": [*shop.home.incoming.glob("*")],
        "staged": shop.query("SELECT * FROM ingest_commits WHERE state <> 'done'"),
        "empty folders": [path for path in shop.home.lake.glob("*/**/received_date=*") if not any(path.iterdir())],
    } | {table: sorted(shop.query(f"SELECT {columns} FROM {table}")) for table, columns in audits.items()}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_what_was_killed_before_any_write_ends_whole(home: Path, tmp_path: Path, name: str) -> None:
    def copy(to: str) -> Shop:
        shutil.copytree(home, tmp_path / to)
        return Shop(tmp_path / to)

    before, never = state(copy("before")), copy("never")
    with killed_before_write(10**6) as writes:
        WORK[name](never)
    whole = state(never)
    assert whole != before, "the work does something here"
    # What is written beside the lake before the first commit counts for nothing: one death there is enough.
    first = writes.index("commit") if "commit" in writes else 0
    for number in range(max(first, 1), len(writes) + 1):
        shop = copy(f"killed-{number}")
        with killed_before_write(number) as asked, pytest.raises(Killed):
            WORK[name](shop)
        again = Shop(shop.home.root)
        commits.recover(again.home, again.ledger)  # as every run begins
        WORK[name](again)
        assert state(again) == whole, f"killed before write {number}: {asked}"
