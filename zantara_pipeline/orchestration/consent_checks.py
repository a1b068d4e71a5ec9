"""Blocking checks of consent: on every derived table, by its rows and by what the dbt project says it reads.

One result for each table would cost a run 30 ms each (Dagster's own record of it): segments share one, on core.users, which
everything that is made of segments depends on; it names the tables that fail.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import duckdb

from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.privacy.consented_tables import (
    Held,
    consent_read_anew,
    exempt_rows_reached,
    held_by,
    undeclared_tables,
    without_consent,
)
from zantara_pipeline.privacy.lineage import Lineage, faults_of
from zantara_pipeline.recommend import PERSONAL_TABLES

INDEXED, USERS = dg.AssetKey(["staging", "int_events__indexed"]), dg.AssetKey(["core", "users"])
ROWS, LINEAGE, EXEMPT = "nobody_without_consent", "reads_through_consent", "no_exempt_row"
# A table of its own kind, which is made from nothing that a check sees (segments/lifecycle.py).
HISTORY = "segments.membership_history"


def build_consent_checks(lineage: Lineage) -> list[dg.AssetChecksDefinition]:
    """Checks of the tables that dbt makes, before anything is made of them, and of lists when those are made."""
    declared = [held_by(model) for model in lineage.with_purpose()]
    tables: dict[dg.AssetKey, list[Held]] = {USERS: [held for held in declared if held.is_segment]}
    tables |= {dg.AssetKey(held.table.split(".")): [held] for held in declared if not held.is_segment}

    @dg.multi_asset_check(
        name="consent_of_models",
        specs=[
            *(_spec(ROWS, key, "Nobody is in it, or in any segment, who does not allow its purpose.") for key in tables),
            _spec(LINEAGE, USERS, "Whatever is made of people for a purpose reads them through consent, and nothing exempt."),
            _spec(EXEMPT, INDEXED, "No event that was never consented to is among those that models are built from."),
        ],
        pool="warehouse",
    )  # fmt: skip
    def consent_of_models(pipeline: dg.ResourceParam[Pipeline]) -> Iterator[dg.AssetCheckResult]:
        staged = [m.name for m in lineage.models if m.schema == "staging" and "consent_basis" in m.columns]
        with pipeline.warehouse() as con:
            with consent_read_anew(con):
                for key, held in tables.items():
                    yield _rows(con, key, held)
            reached = exempt_rows_reached(con, staged)
        purposes = pipeline.plan.purposes
        faults = [str(fault) for model in lineage.models for fault in faults_of(lineage, model, purposes)]
        yield _result(LINEAGE, USERS, {"faults": faults})
        yield _result(EXEMPT, INDEXED, {"rows": reached})

    lists = [Held(table, purpose, {"user_id": "user"}) for table, purpose in PERSONAL_TABLES.items()]
    known = [HISTORY, *(held.table for held in [*declared, *lists])]
    last = dg.AssetKey(lists[-1].table.split("."))

    @dg.asset_check(
        name=ROWS,
        asset=last,
        blocking=True,
        pool="warehouse",
        description="Nobody is in it who does not allow its purpose; no table beside the declared ones holds ids of people.",
    )
    def consent_of_lists(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
        with pipeline.warehouse() as con, consent_read_anew(con):
            return _rows(con, last, lists, undeclared_tables(con, known))

    return [consent_of_models, consent_of_lists]


def _spec(name: str, key: dg.AssetKey, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=key, blocking=True, description=description)


def _rows(
    con: duckdb.DuckDBPyConnection, key: dg.AssetKey, tables: Sequence[Held], undeclared: Sequence[str] = ()
) -> dg.AssetCheckResult:
    counted = {held.table: without_consent(con, held) for held in tables}
    found = {table: count for table, count in counted.items() if count}
    return _result(ROWS, key, {"without_consent": found, "tables_that_nobody_declared": list(undeclared)})


def _result(name: str, key: dg.AssetKey, found: dict[str, Any]) -> dg.AssetCheckResult:
    """It passes where nothing was found."""
    return dg.AssetCheckResult(asset_key=key, check_name=name, passed=not any(found.values()), metadata=found)
