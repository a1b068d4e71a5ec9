"""The inventory of stores: every file below a home belongs to one entry, which says whose it is and how it ends.

Belongs here: the list of stores, and naming files that none of them explains. Does not belong here: carrying out
retention or erasure (privacy/ and tracking/ do that, following this list).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

Access = Literal["restricted", "internal", "export"]
"""restricted: may hold statements about single people, for those who run the pipeline; internal: for colleagues with
a need to know; export: made to be handed out."""


OnErasure = Literal["rewritten", "dropped", "removed", "nobody"]
"""rewritten: files that hold the person are written again without them; dropped: the whole store goes, and is made again or
was never needed; removed: a file goes whole where it names the person, and the next run makes it again; nobody: holds
nobody (an erasure that finds somebody there is not complete)."""


@dataclass(frozen=True)
class Store:
    """One place where data is kept.

    Parameters
    ----------
    name : what people call it.
    paths : globs below the home; `*` stays within one folder level, `**` crosses levels.
    holds : what is in it.
    owner : who answers for it.
    access : who may read it; see Access.
    retention : how long it is kept.
    erasure : how one person is removed from it; for stores without people, why there is nothing to remove.
    on_erasure : the same as one of few ways; see OnErasure.
    legal_basis : why data about people may be kept here, for the record of processing; None: there are none.
    """

    name: str
    paths: tuple[str, ...]
    holds: str
    owner: str
    access: Access
    retention: str
    erasure: str
    on_erasure: OnErasure
    legal_basis: str | None = None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(_regex(path) for path in self.paths))

    def explains(self, relative: str) -> bool:
        """Does this store own the file with this path below the home (with forward slashes)?"""
        return self._pattern.fullmatch(relative) is not None


_PLATFORM, _GROWTH, _PRIVACY = "data-platform@example.com", "growth-data@example.com", "privacy@example.com"
_NOBODY = "holds nothing about a person"

EXPORTS = "exports"
"""The store in which people have other names: pseudonyms."""

STORES: tuple[Store, ...] = (
    Store(
        name="landing",
        paths=("data/landing/**", "data/.landing.unfinished/**"),
        holds="events, items and consent as they landed (and, for a simulated shop, truth.json)",
        owner=_GROWTH,
        access="restricted",
        retention="privacy.yaml: retention.landing days after receipt, where it enforces it, for event files that were taken "
        "(tracking/landed_retention.py); else until whoever landed a file removes it",
        erasure="files of lines are written again without the person's (tracking/landed_lines.py); what was landed "
        "outside the home belongs to whoever named it, and is not taken again",
        on_erasure="rewritten",
        legal_basis="consent; a line without it is read for what it says of consent, and not stored elsewhere",
    ),
    Store(
        name="accepted events",
        paths=("data/lake/accepted/event=*/received_date=*/*.parquet",),
        holds="typed events that passed the plan, with the ids of their people",
        owner=_GROWTH,
        access="restricted",
        retention="retention_days of the event (whole days) and of its properties (values), where privacy.yaml enforces "
        "it; as packaged it is only counted (tracking/lake_retention.py, `zantara plan retention`)",
        erasure="the files that hold the person are written again (tracking/lake_erasure.py)",
        on_erasure="rewritten",
        legal_basis="consent to the event's category",
    ),
    Store(
        name="quarantine",
        paths=("data/lake/quarantine/received_date=*/*.parquet",),
        holds="events that failed the plan, with reasons and their payload, for replay",
        owner=_GROWTH,
        access="restricted",
        retention="retention_days of the event after receipt, else privacy.yaml: quarantine_expiry_days; no longer than "
        "those of any property that the line carries (tracking/quarantine_expiry.py)",
        erasure="lines that name the person anywhere go (tracking/lake_erasure.py); of the quarantine alone: "
        "zantara quarantine erase --users FILE (tracking/quarantine_erasure.py)",
        on_erasure="rewritten",
        legal_basis="consent to the event's category",
    ),
    Store(
        name="exempt events",
        paths=("data/lake/exempt/event=*/received_date=*/*.parquet",),
        holds="events that privacy.yaml exempts from consent, without ids of people, devices and sessions",
        owner=_PRIVACY,
        access="internal",
        retention="as for accepted events: retention_days of the event and of its properties, where privacy.yaml "
        "enforces it (tracking/lake_retention.py, `zantara plan retention`)",
        erasure=_NOBODY,
        on_erasure="rewritten",
    ),
    Store(
        name="lines with unreadable consent",
        paths=("data/restricted/consent_unreadable/*.parquet",),
        holds="lines whose consent is neither yes nor no, kept apart for repair",
        owner=_PRIVACY,
        access="restricted",
        retention="privacy.yaml: unparsable_expiry_days after receipt (tracking/restricted.py)",
        erasure="lines that name the person anywhere go (tracking/lake_erasure.py)",
        on_erasure="rewritten",
        legal_basis="legitimate interest: repair of what was sent, for some days",
    ),
    Store(
        name="ingest in progress",
        paths=("data/lake/.incoming/**",),
        holds="what a commit writes beside the lake",
        owner=_PLATFORM,
        access="restricted",
        retention="the next ingest finishes or drops it",
        erasure="finished or dropped before anything else is erased",
        on_erasure="dropped",
        legal_basis="as for the store it is written for",
    ),
    Store(
        name="items",
        paths=("data/lake/items/items.parquet", "data/lake/items/items.new"),
        holds="the catalogue as last landed",
        owner=_GROWTH,
        access="internal",
        retention="replaced by the next catalogue",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="unparsable lines",
        paths=("data/restricted/unparsable/*.parquet",),
        holds="lines that are not JSON, kept apart for repair; what is in them is unknown",
        owner=_PRIVACY,
        access="restricted",
        retention="privacy.yaml: unparsable_expiry_days after receipt (tracking/restricted.py)",
        erasure="lines that name the person as a word go (tracking/lake_erasure.py)",
        on_erasure="rewritten",
        legal_basis="legitimate interest: repair of what was sent, for some days",
    ),
    Store(
        name="state ledger",
        paths=("data/state/ledger.db", "data/state/ledger.db-*"),
        holds="consent statements and runs, ids that denied what is exempt, ingested files, reasons, kinds of failure per quarantine file, what expired (counts), "
        "which keys identifiers were hashed with (never a key), segment entries and exits, sizes of segments, looks and stops of experiments",
        owner=_PRIVACY,
        access="restricted",
        retention="unlimited: it cannot be computed again; memberships that ended: privacy.yaml, retention.segment_history, "
        "where it enforces it (segments/history_retention.py)",
        erasure="rows of consent are deleted, memberships closed and their entity made a random word, then VACUUM "
        "(privacy/erased_tables.py)",
        on_erasure="rewritten",
        legal_basis="legal obligation: proof of consent and its withdrawal; for memberships the basis of their segment",
    ),
    Store(
        name="alert ledger",
        paths=("data/state/alerts.db", "data/state/alerts.db-*"),
        holds="alerts and their deliveries",
        owner=_PLATFORM,
        access="internal",
        retention="unlimited",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="warehouse",
        paths=("data/warehouse.duckdb", "data/warehouse.duckdb.wal"),
        holds="all tables of the last run",
        owner=_PLATFORM,
        access="restricted",
        retention="one run",
        erasure="the file is deleted, because a deleted row's bytes stay in it, and rebuilt by the next run from the lake and the "
        "ledgers",
        on_erasure="dropped",
        legal_basis="consent; of each segment its own basis",
    ),
    Store(
        name="published copy",
        paths=("data/published.duckdb", "data/published.duckdb.new", "data/published.duckdb.new.wal"),
        holds="read-only tables for analysts, sensors and read verbs",
        owner=_PLATFORM,
        access="internal",
        retention="one run",
        erasure="copied, without rows that name the person, into a new file that takes its place (privacy/erased_tables.py)",
        on_erasure="rewritten",
        legal_basis="consent; of each segment its own basis",
    ),
    Store(
        name="restricted segments",
        paths=(
            "data/restricted/segments_whole.duckdb",
            "data/restricted/segments_whole.duckdb.new",
            "data/restricted/segments_whole.duckdb.new.wal",
        ),
        holds="all segments with their history, also those that are restricted or smaller than their min_size",
        owner=_PRIVACY,
        access="restricted",
        retention="one run",
        erasure="copied, as the published copy is (privacy/erased_tables.py)",
        on_erasure="rewritten",
        legal_basis="of each segment its own basis",
    ),
    Store(
        name=EXPORTS,
        paths=tuple(f"data/exports/*/segments.duckdb{end}" for end in ("", ".new", ".new.wal")),
        holds="segments of access level export, one file a destination of privacy.yaml: pseudonyms of its own and until when "
        "each is a member; no id, no name",
        owner=_PRIVACY,
        access="export",
        retention="one run; whoever is past their time is not shown; a destination that is gone or off takes its file along",
        erasure="the files that hold the person's pseudonyms are written again, and sessions of them left out until the next "
        "run (segments/exports.py); files that were handed out already belong to their recipients",
        on_erasure="rewritten",
        legal_basis="of each segment its own basis",
    ),
    Store(
        name="scratch",
        paths=("data/scratch/**", "data/.probe-*"),
        holds="what the engine spills while it works",
        owner=_PLATFORM,
        access="restricted",
        retention="one run",
        erasure="delete the folder's content",
        on_erasure="dropped",
        legal_basis="as for the store it is worked on for",
    ),
    Store(
        name="orchestrator",
        paths=("data/dagster/**",),
        holds="runs, logs and schedules of Dagster",
        owner=_PLATFORM,
        access="internal",
        retention="90 days for schedule ticks; runs until deleted in the UI",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="dbt",
        paths=(
            "data/dbt/target/**",
            "data/dbt/parse-*/**",
            "data/dbt/docs/**",
            "data/dbt/docs.html*",
            "data/dbt/lineage.html*",
            "data/dbt/logs/**",
        ),
        holds="compiled models, documentation, column lineage and logs of dbt",
        owner=_PLATFORM,
        access="internal",
        retention="replaced by the next build",
        erasure=_NOBODY,
        on_erasure="removed",
    ),
    Store(
        name="run log",
        paths=("data/logs/*.log",),
        holds="what the steps of the last run printed",
        owner=_PLATFORM,
        access="internal",
        retention="one run",
        erasure=_NOBODY,
        on_erasure="removed",
    ),
    Store(
        name="alert outbox",
        paths=("data/alerts/outbox.jsonl",),
        holds="delivered alerts, one JSON line each",
        owner=_PLATFORM,
        access="internal",
        retention="until whoever reads it removes it",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="report",
        paths=("data/reports/index.html", "data/reports/index.html.new"),
        holds="aggregates of the last run",
        owner=_GROWTH,
        access="export",
        retention="one run",
        erasure=_NOBODY,
        on_erasure="removed",
    ),
    Store(
        name="experiments for applications",
        paths=("data/serving/experiments.json", "data/serving/experiments.json.new"),
        holds="salts, bounds and stops of experiments, by which applications assign units",
        owner="experimentation@example.com",
        access="export",
        retention="replaced by the next run, stop or reversal",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="home lock",
        paths=("data/home.lock",),
        holds="who is writing here now",
        owner=_PLATFORM,
        access="internal",
        retention="while somebody writes",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="model registry",
        paths=("mlflow/mlflow.db*",),
        holds="training runs, metrics and model versions",
        owner=_GROWTH,
        access="internal",
        retention="unlimited",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="model artifacts",
        paths=("mlflow/artifacts/**", "mlflow/staging/**"),
        holds="the recommender's versions: ids and embeddings of people and products",
        owner=_GROWTH,
        access="restricted",
        retention="privacy.yaml, retention.models, where it enforces it: so many days after training, but for the version that "
        "serves (recommend/retention.py)",
        erasure="ids and what was learnt of the person alone leave the files; the version is marked in the registry, is not "
        "promoted again, and is replaced by the next training (recommend/erasure.py)",
        on_erasure="rewritten",
        legal_basis="consent to personalization",
    ),
    Store(
        name="open erasure",
        paths=tuple(f"data/state/erasure.{kind}.json{new}" for kind in ("open", "asked") for new in ("", ".new")),
        holds="the ids of an erasure while it is under way",
        owner=_PRIVACY,
        access="restricted",
        retention="until the erasure ends, or the run that finishes it",
        erasure="removed when the erasure ends",
        on_erasure="dropped",
        legal_basis="legal obligation: fulfilling a request",
    ),
    Store(
        name="key of tombstones",
        paths=("data/state/erasure.key", "data/state/erasure.key.new"),
        holds="the key under which erased ids are kept as hashes, so that they are not taken in again",
        owner=_PRIVACY,
        access="restricted",
        retention="unlimited: without it nobody knows who was erased",
        erasure=_NOBODY,
        on_erasure="nobody",
        legal_basis="legal obligation: not to take in again who was erased",
    ),
    Store(
        name="erasure receipts",
        paths=("data/receipts/*.json", "data/receipts/*.json.new"),
        holds="what each erasure did: stores, files, counts before and after; names nobody",
        owner=_PRIVACY,
        access="internal",
        retention="unlimited: proof that a request was fulfilled",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
    Store(
        name="notes of the repository",
        paths=("data/README.md", "mlflow/README.md"),
        holds="what these folders are for",
        owner=_PLATFORM,
        access="export",
        retention="part of the source",
        erasure=_NOBODY,
        on_erasure="nobody",
    ),
)


def unexplained(home: Path) -> list[str]:
    """Files below <home>/data and <home>/mlflow that no store explains, as sorted paths below the home."""
    return sorted(path for path in _files(home) if store_of(path) is None)


def store_of(relative: str) -> Store | None:
    """The store that owns a path below the home (with forward slashes); None: unexplained."""
    return next((store for store in STORES if store.explains(relative)), None)


def _files(home: Path) -> Iterator[str]:
    for top in ("data", "mlflow"):
        for path in (home / top).rglob("*"):
            if path.is_symlink() or not path.is_dir():
                yield path.relative_to(home).as_posix()


@lru_cache
def _regex(glob: str) -> str:
    parts = {"**": ".+", "*": "[^/]*"}
    return "".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*)", glob))
