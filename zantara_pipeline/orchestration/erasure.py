"""Erasure of people with the hands of every room: what `zantara privacy` and the start of every run share.

Belongs here: putting them together. Does not belong here: any step of an erasure (privacy/erasure.py), Dagster.
"""

from contextlib import closing
from pathlib import Path

import duckdb

from zantara_pipeline.privacy.erasure import Hands, Receipt, finish_open
from zantara_pipeline.privacy.people import People
from zantara_pipeline.recommend.erasure import erase_from_models, trained_on
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.lake_erasure import erase_from_lake
from zantara_pipeline.tracking.landed_lines import erase_landed
from zantara_pipeline.tracking.plan import TrackingPlan
from zantara_pipeline.tracking.whose import rows_of, whose


def hands(settings: Settings, home: Home, ledger: Ledger, plan: TrackingPlan) -> Hands:
    """Everything that an erasure does outside its own room."""
    landing = settings.landing or home.landing / "events"
    places = {"events": settings.landing, "items": settings.items, "consent": settings.consent}
    outside = [name for name, place in places.items() if place and not place.resolve().is_relative_to(home.root.resolve())]
    return Hands(
        whose=lambda users: whose(home, users),
        held=lambda people: _held(home, ledger, people),
        landed=lambda people: erase_landed(home, ledger, landing, people.matcher),
        lake=lambda people: erase_from_lake(home, ledger, plan, people),
        models=lambda people, due: erase_from_models(home.mlflow, people.users, due),
        retrain_days=plan.privacy.erasure.retrain_within_days,
        out_of_reach=tuple(f"landed {name} outside the home: not written again, not taken again" for name in outside),
    )


def finish_open_erasure(settings: Settings, home: Home, ledger: Ledger, plan: TrackingPlan) -> Receipt | None:
    """Before a run does anything else."""
    return finish_open(home, ledger, hands(settings, home, ledger, plan))


def _held(home: Home, ledger: Ledger, people: People) -> dict[str, int]:
    """Counts by queries of known columns, to hold the control against."""
    users = sorted(people.users)
    marks = ", ".join("?" * len(users))
    with ledger.read() as db:
        statements = sum(
            db.execute(f"SELECT count(*) FROM {table} WHERE {column} IN ({marks})", users).fetchone()[0]
            for table, column in (("consent", "user_id"), ("consent_runs", "user_id"), ("membership", "entity_id"))
        )
    held = {"accepted events": rows_of(home, people), "state ledger": statements}
    held["model artifacts"] = len(trained_on(home.mlflow, people.users))
    held["published copy"] = _published_users(home.published, users)
    held["warehouse"] = _published_users(home.warehouse, users)
    return held


def _published_users(path: Path, users: list[str]) -> int:
    if not path.exists():
        return 0
    with closing(duckdb.connect(str(path), read_only=True)) as con:
        there = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'core' AND table_name = 'users'"
        if not con.execute(there).fetchall():
            return 0
        query = "SELECT count(*) FROM core.users WHERE user_id IN (SELECT unnest(?::VARCHAR[]))"
        return int(con.execute(query, [users]).fetchall()[0][0])
