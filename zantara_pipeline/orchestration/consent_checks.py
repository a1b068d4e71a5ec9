"""Blocking checks of consent: on every derived table, by its rows and by what the dbt project says it reads."""

from collections.abc import Iterator, Sequence

import dagster as dg

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

INDEXED = dg.AssetKey(["staging", "int_events__indexed"])
ROWS, LINEAGE, EXEMPT = "nobody_without_consent", "reads_through_consent", "no_exempt_row"


def build_consent_checks(lineage: Lineage) -> list[dg.AssetChecksDefinition]:
    """Checks of the tables that dbt makes, before anything is made of them, and of lists and history after those."""
    declared = [held_by(model) for model in lineage.with_purpose()]

    @dg.multi_asset_check(
        name="consent_of_models",
        specs=[
            *(_spec(ROWS, held.table, "Nobody is in it who does not allow its purpose.") for held in declared),
            *(_spec(LINEAGE, held.table, "It reads people through consent only, and nothing exempt.") for held in declared),
            dg.AssetCheckSpec(EXEMPT, asset=INDEXED, blocking=True,
                              description="No event that was never consented to is among those that models are built from."),
        ],
        pool="warehouse",
    )  # fmt: skip
    def consent_of_models(pipeline: dg.ResourceParam[Pipeline]) -> Iterator[dg.AssetCheckResult]:
        staged = [m.name for m in lineage.models if m.schema == "staging" and "consent_basis" in m.columns]
        with pipeline.warehouse() as con:
            yield from _rows(con, declared)
            reached = exempt_rows_reached(con, staged)
        yield dg.AssetCheckResult(asset_key=INDEXED, check_name=EXEMPT, passed=not reached, metadata={"rows": reached})
        for model in lineage.with_purpose():
            faults = [str(fault) for fault in faults_of(lineage, model, pipeline.plan.purposes)]
            yield dg.AssetCheckResult(
                asset_key=_key(model.name), check_name=LINEAGE, passed=not faults, metadata={"faults": faults}
            )

    lists = [Held(table, purpose, {"user_id": "user"}) for table, purpose in PERSONAL_TABLES.items()]
    known = [held.table for held in [*declared, *lists]] + ["segments.membership_history"]

    @dg.multi_asset_check(
        name="consent_of_lists",
        specs=[_spec(ROWS, held.table, "Nobody is in it who does not allow its purpose; no table beside the declared "
                     "ones holds ids of people.") for held in lists],
        pool="warehouse",
    )  # fmt: skip
    def consent_of_lists(pipeline: dg.ResourceParam[Pipeline]) -> Iterator[dg.AssetCheckResult]:
        with pipeline.warehouse() as con:
            yield from _rows(con, lists, undeclared_tables(con, known))

    return [consent_of_models, consent_of_lists]


def _key(table: str) -> dg.AssetKey:
    return dg.AssetKey(table.split("."))


def _spec(name: str, table: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=_key(table), blocking=True, description=description)


def _rows(con: object, tables: Sequence[Held], undeclared: Sequence[str] = ()) -> Iterator[dg.AssetCheckResult]:
    with consent_read_anew(con):  # type: ignore[arg-type]
        for held in tables:
            found = without_consent(con, held)  # type: ignore[arg-type]
            yield dg.AssetCheckResult(
                asset_key=_key(held.table), check_name=ROWS, passed=not found and not undeclared,
                metadata={"without_consent": found, "tables_that_nobody_declared": list(undeclared)},
            )  # fmt: skip
