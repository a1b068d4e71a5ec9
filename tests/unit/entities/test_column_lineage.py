"""Where columns come from: the SQL that dbt really sent, traced and compared with what a person reads in the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from core_shop import CoreShop, Lake, Recorded, at, row

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.report.lineage import Column, Trace, origins, trace, untraced
from zantara_pipeline.report.lineage_page import Lineage, Model, read_lineage, render, said
from zantara_pipeline.tracking.plan import load_plan

PLAN = load_plan((PACKAGED,))


@pytest.fixture(scope="module")
def lineage(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """Every model that the recorded builds make, as `make docs` reads it: a manifest, and the warehouse of a run."""
    shop = CoreShop(recorded)
    shop.build(Lake([row("e1", at(), user_id="u")]), as_of=at(1))
    shop.build_segments()
    folder = tmp_path_factory.mktemp("lineage")
    warehouse, manifest = folder / "warehouse.duckdb", folder / "manifest.json"
    shop.con.execute(f"ATTACH '{warehouse}' AS kept; COPY FROM DATABASE warehouse TO kept; DETACH kept")
    manifest.write_text(json.dumps({"groups": {}, "nodes": dict(_nodes(recorded))}))
    return read_lineage(manifest, warehouse)


def _nodes(recorded: Recorded) -> Any:
    from sqlglot import exp, parse_one

    segments = [statement for segment in recorded.segments.values() for statement in segment.whole]
    for _, statement in [*recorded.anew, *segments]:
        if not statement.lstrip().lower().startswith(("create", "/*")) or " as" not in statement:
            continue
        made = parse_one(statement, dialect="duckdb")
        table = made.find(exp.Table)
        if isinstance(made, exp.Create) and made.expression and table and table.db not in ("state", "lake"):
            kind = "segment" if table.db == "segments" else "table"
            yield f"{table.db}.{table.name}", {
                "resource_type": "model", "schema": table.db, "name": table.name.removesuffix("__dbt_tmp"), "description": "d", "columns": {},
                "config": {"materialized": kind, "meta": {}}, "compiled_code": made.expression.sql(dialect="duckdb"),
            }  # fmt: skip


def begins(lineage: Lineage, relation: str, name: str) -> set[str]:
    return {f"{column.relation}.{column.name}" for column in lineage.origins[Column(relation, name)]}


def test_three_columns_come_from_where_a_person_reads_it(lineage: Lineage) -> None:
    """By hand, from seg_recent_buyers.sql, seg_rfm_classes.sql and core/users.sql with what they read."""
    assert begins(lineage, "segments.seg_recent_buyers", "entity_id") == {"lake.purchase.user_id"}
    money = {f"lake.{event}.{name}" for event in ("purchase", "refund") for name in ("event", "price", "quantity")}
    assert begins(lineage, "segments.seg_rfm_classes", "monetary_score") == money
    assert begins(lineage, "core.users", "personalization_allowed") == {"state.consent.purpose", "state.consent.status"}


def test_the_end_of_a_membership_comes_from_when_it_was_earned(lineage: Lineage) -> None:
    assert begins(lineage, "segments.seg_recent_buyers", "expires_at") == {"lake.purchase.occurred_at"}
    made = lineage.traces[Column("segments.seg_recent_buyers", "expires_at")]
    assert "INTERVAL '30' DAY" in made.expression
    assert made.direct == (Column("staging.stg_lake__purchase", "occurred_at"),)


def test_every_column_of_every_segment_has_a_lineage(lineage: Lineage) -> None:
    segments = [model for model in lineage.models if model.relation.startswith("segments.")]
    columns = [Column(model.relation, name) for model in segments for name in lineage.columns[model.relation]]
    assert len(segments) >= 12 and len(columns) >= 40
    assert [column for column in columns if column in lineage.lost or not lineage.origins[column]] == []


def test_every_column_that_dbt_makes_is_told(lineage: Lineage) -> None:
    assert lineage.lost == {} and len(lineage.models) >= 30
    assert said(lineage).endswith("of every one it is known where it comes from")


def test_what_cannot_be_followed_is_said_counted_and_carried_on() -> None:
    columns = {"lake.a": ["x"], "core.b": ["x", "y"], "core.c": ["z"], "core.d": ["x"], "core.e": ["x"]}
    models = {
        "core.b": "this is no SQL (", "core.c": "select x as z from core.b", "core.d": "select 1 as other from lake.a",
        "core.e": "select x from lake.a",
    }  # fmt: skip
    found = trace(models, columns)
    lost = untraced(found)
    assert set(lost) == {Column("core.b", "x"), Column("core.b", "y"), Column("core.c", "z"), Column("core.d", "x")}
    assert lost[Column("core.c", "z")] == "core.b.x is not known"
    assert origins(found)[Column("core.e", "x")] == {Column("lake.a", "x")}
    page = render(_page(models, columns, found, lost), PLAN)
    assert "of 4 it is not known where they come from" in page and "Not known: 4" in page
    assert "<code>core.b.y</code>: its SQL cannot be followed" in page


@pytest.mark.parametrize(
    "sql",
    [
        "select nowhere.x from lake.a", "select x from lake.unheard_of_a, lake.unheard_of_b", "select * from lake.unheard_of",
        "select a.x from (values (1)) as v (y)",
    ],
)  # fmt: skip
def test_nothing_found_is_not_taken_for_made_of_nothing(sql: str) -> None:
    assert untraced(trace({"core.m": sql}, {"lake.a": ["y"], "core.m": ["x"]})), sql


def test_columns_of_a_union_by_name_are_not_mixed_up() -> None:
    columns = {"lake.a": ["x", "y"], "lake.b": ["y", "w", "x"], "core.u": ["x", "y", "w"]}
    for sql in (
        "select * from (select a.* from lake.a as a union all by name select b.* from lake.b as b)",
        "select x, y, w from (select * from lake.a union all by name select y, w, x from lake.b) as both_of_them",
    ):
        found = origins(trace({"core.u": sql}, columns))
        assert found[Column("core.u", "y")] == {Column("lake.a", "y"), Column("lake.b", "y")}
        assert found[Column("core.u", "w")] == {Column("lake.b", "w")}


def test_what_an_incremental_model_had_before_is_no_origin_and_ends_nothing() -> None:
    sql = "select x from lake.a union all select x from core.m"
    found = trace({"core.m": sql}, {"lake.a": ["x"], "core.m": ["x"]})
    assert found == {Column("core.m", "x"): Trace((Column("lake.a", "x"),))}


def test_a_segment_that_no_run_has_built_is_told_as_unknown(tmp_path: Path) -> None:
    node = {"resource_type": "model", "schema": "segments", "name": "seg_new", "description": "d", "compiled_code": "select 1",
            "config": {"materialized": "segment", "meta": {}}, "columns": {"entity_id": {"description": "Member."}}}  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps({"nodes": {"seg_new": node}}))
    with duckdb.connect(str(tmp_path / "w.duckdb")) as con:
        con.execute("CREATE SCHEMA state; CREATE TABLE state.segment_sql (segment VARCHAR, sql VARCHAR)")
    lineage = read_lineage(tmp_path / "m.json", tmp_path / "w.duckdb")
    assert list(lineage.lost.values()) == ["no run has built it yet, so nobody knows its SQL"]


def test_the_page_is_whole_names_owner_consent_and_pii_and_fetches_nothing(lineage: Lineage) -> None:
    page = render(lineage, PLAN)
    for model in lineage.models:
        assert f'id="{model.relation}"' in page
    start = page.index('id="segments.seg_recent_buyers"')
    first = page[start : page.index("</tr>", page.index("<tbody>", start))]
    for words in ("user_id", ">purchase<", "analytics", "pseudonym", PLAN.events["purchase"].owner or ""):
        assert words in first
    assert "http" not in page and "src=" not in page and "@import" not in page
    assert page.count("<details") == page.count("</details>") == len(lineage.models) + len(PLAN.events)


def _page(
    models: dict[str, str], columns: dict[str, list[str]], found: dict[Column, Trace], lost: dict[Column, str]
) -> Lineage:
    return Lineage([Model(name, "", "", {}, sql) for name, sql in models.items()], columns, found, origins(found), lost)
