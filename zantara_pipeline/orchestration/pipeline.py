"""What every step is handed: settings, home, ledger, contracts, and the clock of the run.

Belongs here: opening those once, and reading the clock off a Dagster context. Does not belong here: assets, and
anything that a domain package should decide.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import dagster as dg
import duckdb

from zantara_pipeline.orchestration.erasure import finish_open_erasure
from zantara_pipeline.orchestration.preflight import DBT_PROJECT, check_contracts
from zantara_pipeline.privacy.keyed_hash import Keyring, load_keyring
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.engine import warehouse
from zantara_pipeline.storage.home import Home, home_lock
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.adapters import Intake, load_intake
from zantara_pipeline.tracking.clock import is_live, latest_received_at
from zantara_pipeline.tracking.migrations import refuse_unread_types, remember_types
from zantara_pipeline.tracking.plan import TrackingPlan, load_plan
from zantara_pipeline.tracking.verdict import Rules

# Before anything was accepted there is no clock; steps then find nothing to do.
NO_DATA_YET = datetime(1970, 1, 1, tzinfo=UTC)

logging.getLogger("alembic").setLevel(logging.WARNING)


class Pipeline:
    """Settings and what follows from them; cheap to make, opens nothing before it is asked."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = Home(settings.home)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.home.state / "ledger.db")

    @cached_property
    def plan(self) -> TrackingPlan:
        return load_plan(self.settings.contract_dirs)

    @cached_property
    def keyring(self) -> Keyring | None:
        return load_keyring(self.settings.pii_keys_file, self.settings.pii_keys_text)

    @property
    def rules(self) -> Rules:
        return Rules(self.plan, self.settings.late_after_hours, self.settings.max_lateness_days, keyring=self.keyring)

    @property
    def intake(self) -> Intake:
        return load_intake(self.settings.format, self.settings.contract_dirs, self.plan)

    @property
    def landing(self) -> Path:
        return self.settings.landing or self.home.landing / "events"

    @property
    def items(self) -> Path:
        return self.settings.items or self.home.landing / "items"

    @property
    def consent(self) -> Path:
        return self.settings.consent or self.home.landing / "consent"

    @property
    def dbt_project(self) -> Path:
        return DBT_PROJECT

    @property
    def manifest(self) -> Path:
        return self.home.dbt / "target" / "manifest.json"

    @property
    def parsed(self) -> Path:
        """The dbt project as dbt parsed it, in dbt's own format."""
        return self.home.dbt / "target" / "partial_parse.msgpack"

    def warehouse(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return warehouse(self.home, threads=self.settings.threads, memory_limit=self.settings.memory_limit)

    def as_of(self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> datetime:
        """The run's clock: ZANTARA_AS_OF, else the end of the run's partition, else the latest received_at seen.

        In a home that holds history only (no file ever arrived soon after its events) no partition moves the clock past
        the latest event: a nightly schedule over last year's data would expire everybody.
        """
        if self.settings.as_of is not None:
            return self.settings.as_of.astimezone(UTC)
        tags = context.run.tags
        day = tags.get("dagster/asset_partition_range_end") or tags.get("dagster/partition")
        latest = latest_received_at(self.ledger) or NO_DATA_YET
        if not day:
            return latest
        end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), datetime.min.time(), UTC)
        return end if is_live(self.ledger) else min(end, latest)


def pipeline_resource(settings: Settings) -> dg.ResourceDefinition:
    """The resource `pipeline`: holds the home's lock from the first step of a run to its last."""

    @contextmanager
    def hold(context: dg.InitResourceContext) -> Iterator[Pipeline]:
        pipeline = Pipeline(settings)
        check_contracts(settings)
        pipeline.home.create()
        with home_lock(pipeline.home, f"run {context.run_id or ''}".strip()):
            refuse_unread_types(pipeline.home, pipeline.plan, settings.contract_dirs)
            remember_types(pipeline.ledger, pipeline.plan)
            finish_open_erasure(settings, pipeline.home, pipeline.ledger, pipeline.plan)
            yield pipeline

    return dg.ResourceDefinition(hold, description="Settings, home, ledger, contracts; one writer per home.")
