"""Erasure and access requests with the hands of every room: what `zantara privacy` and the start of every run share.

Belongs here: putting them together. Does not belong here: any step of an erasure (privacy/erasure.py), Dagster.
"""

from collections.abc import Collection
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.privacy.access import register, standing
from zantara_pipeline.privacy.erased_tables import published_rows
from zantara_pipeline.privacy.erasure import Hands, Receipt, finish_open, look
from zantara_pipeline.privacy.people import People
from zantara_pipeline.recommend.erasure import erase_from_models, trained_on
from zantara_pipeline.segments.destinations import load_export_keys
from zantara_pipeline.segments.exports import erase_from_exports, files, memberships, pseudonyms_of
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.inventory import EXPORTS
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.adapters.contract import load_adapters
from zantara_pipeline.tracking.clock import latest_received_at
from zantara_pipeline.tracking.lake_erasure import erase_from_lake
from zantara_pipeline.tracking.landed_lines import erase_landed
from zantara_pipeline.tracking.person_rows import accepted_rows, kept_lines, landed_lines
from zantara_pipeline.tracking.plan import TrackingPlan, load_plan
from zantara_pipeline.tracking.whose import rows_of, whose


def hands(settings: Settings, home: Home, ledger: Ledger, plan: TrackingPlan) -> Hands:
    """Everything that an erasure does outside its own room."""
    landing = settings.landing or home.landing / "events"
    rules = load_adapters(settings.contract_dirs, plan.privacy).csv
    places = {"events": settings.landing, "items": settings.items, "consent": settings.consent}
    outside = [
        name for name, place in places.items() if place and not place.resolve().is_relative_to(home.root.resolve())
    ]

    not_landed_here = [f"landed {name} outside the home: not written again, not taken again" for name in outside]
    handed_out = [
        f"copies of exports/{to.name} that were handed out: tell {to.recipient}"
        for to in plan.privacy.destinations
        if to.name in files(home)
    ]

    def who(users: Collection[str]) -> People:
        people = whose(home, users, rules)
        return replace(people, pseudonyms=pseudonyms_of(home, people, load_export_keys(settings)))

    return Hands(
        whose=who,
        held=lambda people: _held(home, ledger, people),
        landed=lambda people: erase_landed(home, ledger, landing, people.matcher, rules),
        lake=lambda people: erase_from_lake(home, ledger, plan, people),
        models=lambda people, due: erase_from_models(home.mlflow, people.users, due),
        exports=lambda people: erase_from_exports(home, people.pseudonyms),
        retrain_days=plan.privacy.erasure.retrain_within_days,
        out_of_reach=(*not_landed_here, *handed_out),
    )


def finish_open_erasure(settings: Settings, home: Home, ledger: Ledger, plan: TrackingPlan) -> Receipt | None:
    """Before a run does anything else."""
    return finish_open(home, ledger, hands(settings, home, ledger, plan))


def clock_of(settings: Settings, ledger: Ledger) -> datetime:
    """The clock that a run would take now, or the wall's where nothing was accepted yet."""
    return settings.as_of or latest_received_at(ledger) or datetime.now(UTC)


def kept_of(settings: Settings, home: Home, ledger: Ledger, plan: TrackingPlan, user: str) -> dict[str, Any] | None:
    """Everything that is kept of a person, in named parts; None: nobody here has the id."""
    work = hands(settings, home, ledger, plan)
    rules = load_adapters(settings.contract_dirs, plan.privacy).csv
    looked = look(home, ledger, work, [user])
    people = looked.people
    if not people.users:
        return None
    as_of = clock_of(settings, ledger)
    models = [str(path.relative_to(home.mlflow)) for path in trained_on(home.mlflow, people.users)]
    with ledger.read() as db:
        query = "SELECT segment, happened_at, change, exit_reason FROM membership WHERE entity_id = ? ORDER BY seq"
        names = ("segment", "happened_at", "change", "exit_reason")
        entries = [dict(zip(names, row, strict=True)) for row in db.execute(query, [user])]
    return {
        "about": {
            "written_at": datetime.now(UTC), "as_of": as_of, "user_id": user,
            "purposes": {name: purpose.description for name, purpose in plan.privacy.purposes.items()},
            "where_found": {store: found.hits for store, found in sorted(looked.found.items()) if found.hits},
        },
        "identities": {"user_id": user, "anonymous_ids": sorted(people.anonymous), "device_ids": sorted(people.devices)},
        "consent": [asdict(entry) for entry in standing(ledger, user, plan.purposes, as_of)],
        "events": accepted_rows(home, people),
        "lines_kept_as_they_came": kept_lines(home, people),
        "landed_lines": landed_lines(home, people, rules),
        "segment_memberships": entries,
        "exports": memberships(home, people.pseudonyms),
        "tables": published_rows(home, people.matcher),
        "models_trained_on_them": models,
    }  # fmt: skip


def register_of(settings: Settings) -> dict[str, Any]:
    """The record of processing, with the segments of the last run if there was one."""
    plan, home = load_plan(settings.contract_dirs), Home(settings.home)
    events = [
        {
            "event": event.event, "purpose": plan.category(event.event), "owner": event.owner,
            "retention_days": event.retention_days, "retention_enforced": plan.privacy.retention.accepted.enforce,
            "values_kept_shorter": {n: p.retention_days for n, p in event.properties.items() if p.retention_days},
        }
        for event in plan.events.values()
    ]  # fmt: skip
    segments: list[dict[str, Any]] = []
    if home.published.exists():
        names = ("segment", "description", "purpose", "legal_basis", "entity", "ttl_days", "access_level", "owner")
        with closing(duckdb.connect(str(home.published), read_only=True)) as con:
            there = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'segments' AND table_name = 'catalog'"
            if con.execute(there).fetchall():
                rows = con.execute(f"SELECT {', '.join(names)} FROM segments.catalog ORDER BY segment").fetchall()
                segments = [dict(zip(names, row, strict=True)) for row in rows]
    purposes = {name: purpose.description for name, purpose in plan.privacy.purposes.items()}
    exemptions = [rule.model_dump() for rule in plan.privacy.exemptions]
    destinations = [destination.model_dump() for destination in plan.privacy.destinations]
    return register(purposes, events, exemptions, segments, destinations)


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
    held[EXPORTS] = len(memberships(home, people.pseudonyms))
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
