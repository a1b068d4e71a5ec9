"""Consent of what is derived: models that step around it are refused before any SQL, rows that do not keep to it are found."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from core_shop import PROJECT, CoreShop, Lake, Recorded, Row, at, row

from zantara_pipeline.definitions import build_definitions
from zantara_pipeline.errors import InputErrors
from zantara_pipeline.orchestration import pipeline
from zantara_pipeline.privacy.consented_tables import (
    Held,
    consent_read_anew,
    exempt_rows_reached,
    held_by,
    undeclared_tables,
    without_consent,
)
from zantara_pipeline.privacy.lineage import check_lineage, read_lineage
from zantara_pipeline.recommend import load_config
from zantara_pipeline.recommend.loading import collect
from zantara_pipeline.settings import Settings

PURPOSES = ("analytics", "personalization")
EXEMPT = "source.zantara.exempt.exempt_events"
Plant = Callable[..., list[str]]


@pytest.fixture
def plant(recorded: Recorded, tmp_path: Path) -> Plant:
    """The faults that are named when models are added to the project: schema.name -> (what it reads, changes of its node)."""

    def faults(**models: tuple[list[str], dict[str, Any]]) -> list[str]:
        manifest = json.loads(recorded.manifest)
        for full, (reads, changes) in models.items():
            schema, _, name = full.partition("__")
            node = copy.deepcopy(manifest["nodes"]["model.zantara.interactions"])
            node |= {"schema": schema, "name": name, "columns": {}, "raw_code": "", "config": node["config"] | {"meta": {}},
                     "depends_on": {"macros": [], "nodes": reads}}  # fmt: skip
            meta, columns = changes.pop("meta", {}), changes.pop("columns", [])
            if not isinstance(columns, dict):
                columns = {column: {"config": {}} for column in columns}
            node["config"]["meta"], node["columns"] = meta, columns
            manifest["nodes"][f"model.zantara.{name}"] = node | changes
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(manifest))
        try:
            check_lineage(path, PURPOSES)
        except InputErrors as error:
            return str(error).splitlines()
        return []

    return faults


def test_the_projects_own_models_keep_the_rules(plant: Plant) -> None:
    assert plant() == []


# --- exempt events ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema", ["segments", "features", "recommendations", "experiments", "exports", "core", "staging"]
)
def test_a_model_that_exempt_events_reach_is_refused_with_the_path_that_they_take(plant: Plant, schema: str) -> None:
    planted = {
        "staging__int_exempt": ([EXEMPT], {"meta": {"purpose": "collected"}}),
        f"{schema}__reached": (["model.zantara.int_exempt"], {"meta": {"purpose": "personalization"}}),
    }
    first, second = sorted(plant(**planted), key=len)
    assert first.startswith(
        "staging.int_exempt: exempt events reach staging.int_exempt: lake.exempt_events -> staging."
    )
    path = f"lake.exempt_events -> staging.int_exempt -> {schema}.reached;"
    assert second.startswith(f"{schema}.reached: exempt events reach {schema}.reached: {path}")


def test_a_count_may_read_exempt_events_and_nothing_but_a_count_may_read_the_count(plant: Plant) -> None:
    counts = {"meta": {"purpose": "audience_measurement"}, "columns": ["event", "events"]}
    assert plant(ops__more_counts=(["model.zantara.audience_counts"], counts)) == []
    (line,) = plant(segments__seg_loud=(["model.zantara.audience_counts"], {"meta": {"purpose": "personalization"}}))
    assert "lake.exempt_events -> ops.audience_counts -> segments.seg_loud" in line


@pytest.mark.parametrize(
    ("schema", "changes"),
    [
        ("ops", {"meta": {"purpose": "audience_measurement"}, "columns": ["user_id", "events"]}),
        ("ops", {"meta": {}}),
        ("features", {"meta": {"purpose": "audience_measurement"}}),
    ],
    ids=["ids beside the counts", "no purpose", "not in ops"],
)
def test_who_calls_itself_a_count_has_to_be_one(plant: Plant, schema: str, changes: dict[str, Any]) -> None:
    (line,) = plant(**{f"{schema}__counts": ([EXEMPT], changes)})
    assert f"lake.exempt_events -> {schema}.counts" in line


@pytest.mark.parametrize(
    "code",
    ["select * from lake.exempt_events", 'select * from "lake"."exempt_events"',
     "select * from read_parquet('data/lake/exempt/*/*/*.parquet')"],
    ids=["named", "quoted", "files"],
)  # fmt: skip
def test_exempt_events_that_sql_names_without_a_source_are_found_too(plant: Plant, code: str) -> None:
    (line,) = plant(features__sly=([], {"raw_code": code, "meta": {"purpose": "personalization"}}))
    assert "exempt events reach features.sly" in line
    assert (
        plant(features__fine=([], {"raw_code": f"-- {code}\nselect 1", "meta": {"purpose": "personalization"}})) == []
    )


def test_a_column_that_says_that_it_is_exempt_is_followed_as_well(plant: Plant) -> None:
    counts = {
        "meta": {"purpose": "audience_measurement"},
        "columns": {"views": {"config": {"meta": {"consent": "exempt"}}}},
    }
    core = (["model.zantara.mixed"], {"meta": {"purpose": "collected"}})
    (line,) = plant(ops__mixed=([], counts), core__widened=core)
    assert "exempt events reach core.widened: ops.mixed -> core.widened" in line


def test_a_run_ends_before_any_sql_where_exempt_events_reach_a_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real project with two more files, through dbt's own parser."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    (project / "models/staging/int_visits.sql").write_text("select * from {{ source('exempt', 'exempt_events') }}")
    (project / "models/features/visits.sql").write_text("select count(*) as visits from {{ ref('int_visits') }}")
    monkeypatch.setattr(pipeline, "DBT_PROJECT", project)
    with pytest.raises(InputErrors) as error:
        build_definitions(Settings(home=tmp_path / "home"))
    assert "exempt events reach features.visits: lake.exempt_events -> staging.int_visits -> features.visits;" in str(
        error.value
    )
    assert not (tmp_path / "home/data/warehouse.duckdb").exists()


def test_an_exempt_row_among_staged_ones_is_found_by_its_line_and_by_its_basis(
    recorded: Recorded, tmp_path: Path
) -> None:
    shop = CoreShop(recorded)
    shop.build(Lake([row("a", at(0)), row("b", at(0), line_no=2)]), as_of=at(1))
    staged = ["staging.stg_lake__product_view"]
    assert exempt_rows_reached(shop.con, staged) == 0
    shop.con.execute("INSERT INTO lake.exempt_events (source, line_no) VALUES ('file', 9), ('file', 2)")
    assert exempt_rows_reached(shop.con, staged) == 1
    shop.con.execute("UPDATE staging.stg_lake__product_view SET consent_basis = 'exempt' WHERE event_id = 'a'")
    assert exempt_rows_reached(shop.con, staged) == 2


# --- people without consent -------------------------------------------------------------------------------------------


def test_a_model_that_holds_ids_of_people_says_what_for(plant: Plant) -> None:
    (line,) = plant(features__affinity=([], {"columns": ["user_id", "weight"]}))
    assert line.startswith("features.affinity: it holds ids of people (user_id) and does not say for what purpose; ")
    assert plant(features__prices=([], {"columns": ["product_id", "weight"]})) == []


@pytest.mark.parametrize(
    ("purpose", "said"),
    [
        ("marketing", "unknown purpose 'marketing'"),
        ("collected", "the purpose 'collected' is for staging and core only"),
    ],
)
def test_the_purpose_is_one_that_people_can_allow(plant: Plant, purpose: str, said: str) -> None:
    (line,) = plant(features__affinity=([], {"columns": ["user_id"], "meta": {"purpose": purpose}}))
    assert said in line


def test_a_model_with_a_purpose_reads_people_through_consent(plant: Plant) -> None:
    reads = ["model.zantara.stg_lake__purchase", "model.zantara.users"]
    meta = {"purpose": "personalization"}
    (line,) = plant(features__sly=(reads, {"meta": meta, "raw_code": "select user_id where consent_personalization"}))
    assert "for personalization without asking for their consent: staging.stg_lake__purchase -> features.sly" in line
    (line,) = plant(features__sly=(["source.zantara.lake.purchase"], {"meta": meta}))
    assert "lake.purchase -> features.sly" in line
    (line,) = plant(features__sly=([], {"meta": meta, "raw_code": "select * from staging.stg_lake__purchase"}))
    assert "staging.stg_lake__purchase -> features.sly" in line
    both = "select 1 from p where consent_personalization and personalization_allowed"
    assert plant(features__fine=(reads, {"meta": meta, "raw_code": both})) == []
    (line,) = plant(features__other=(reads, {"meta": {"purpose": "analytics"}, "raw_code": both}))
    assert "for analytics" in line
    macro = {"macros": ["macro.zantara.allowed_events"], "nodes": reads}
    assert plant(features__fine=(reads, {"meta": meta, "depends_on": macro})) == []
    assert plant(features__derived=(["model.zantara.interactions"], {"meta": meta})) == []
    (line,) = plant(features__derived=(["model.zantara.interactions"], {"meta": {"purpose": "analytics"}}))
    assert "features.interactions -> features.derived" in line


@pytest.fixture
def held(recorded: Recorded, tmp_path: Path) -> dict[str, Held]:
    path = tmp_path / "manifest.json"
    path.write_text(recorded.manifest)
    return {model.name: held_by(model) for model in read_lineage(path).with_purpose()}


def shopping(*users: str) -> Iterator[Row]:
    for user in users:
        for kind in ("product_view", "add_to_cart", "purchase", "experiment_exposed"):
            yield row(f"{kind} {user}", at(1), event=kind, user_id=user, device_id=f"d {user}", organisation_id=f"o {user}",
                      product_id="p", experiment_id="x", variant="a")  # fmt: skip


def grants(*users: str) -> list[tuple[str, ...]]:
    return [(user, "personalization", "ledger", at(0).isoformat(), "granted") for user in users]


def test_the_check_finds_whoever_slipped_into_any_table_that_holds_people(
    recorded: Recorded, held: dict[str, Held]
) -> None:
    """Put by hand into every derived table: a person, a device, a session and an organisation of one who denies."""
    shop = CoreShop(recorded)
    shop.build(Lake(list(shopping("u", "v")), grants("u")), as_of=at(2))
    shop.build_segments()
    sessions = dict(shop.read("SELECT device_id, session_id FROM core.sessions"))
    of_v = {"user": "v", "device": "d v", "organisation": "o v", "session": sessions["d v"]}
    lists = Held("recommendations.user_recommendations", "personalization", {"user_id": "user"})
    shop.con.execute(
        "CREATE SCHEMA recommendations; CREATE TABLE recommendations.user_recommendations AS SELECT 'u' AS user_id"
    )
    tables = [one for one in [*held.values(), lists] if not one.then_only]
    assert len(tables) == 14 and {kind for one in tables for kind in one.kinds.values()} == set(of_v)
    with consent_read_anew(shop.con):
        assert {one.table: without_consent(shop.con, one) for one in tables} == dict.fromkeys(
            (one.table for one in tables), 0
        )
        for one in tables:
            ((column, kind),) = one.kinds.items()
            shop.con.execute(f"INSERT INTO {one.table} ({column}) VALUES (?)", [of_v[kind]])
        assert {one.table: without_consent(shop.con, one) for one in tables} == dict.fromkeys(
            (one.table for one in tables), 1
        )


def test_the_check_asks_for_what_each_table_is_for(recorded: Recorded) -> None:
    shop = CoreShop(recorded)
    shop.build(Lake(list(shopping("u")), grants("u")), as_of=at(2))
    shop.build_segments()
    with consent_read_anew(shop.con):
        kinds = {"entity_id": "user"}
        found = [without_consent(shop.con, Held("segments.seg_recent_buyers", purpose, kinds)) for purpose in PURPOSES]
    assert found == [1, 0]


def expose(shop: CoreShop) -> None:
    """Make experiments.exposures by its model's SQL; dbt's own way of making a table cannot be replayed."""
    sql = (PROJECT / "models/experiments/exposures.sql").read_text(encoding="utf-8")
    sql = sql.replace("{{ ref('stg_lake__experiment_exposed') }}", "lake.experiment_exposed")
    sql = sql.replace("{{ as_of() }}", "(SELECT as_of FROM state.run_clock)")
    shop.con.execute(f"CREATE SCHEMA IF NOT EXISTS experiments; CREATE OR REPLACE TABLE experiments.exposures AS {sql}")


def test_units_of_an_experiment_allowed_it_when_it_happened(recorded: Recorded, held: dict[str, Held]) -> None:
    shop, exposures = CoreShop(recorded), held["experiments.exposures"]
    events = [event | {"consent_analytics": event["user_id"] != "v"} for event in shopping("u", "v")]
    shop.build(Lake(events), as_of=at(2))
    expose(shop)
    assert shop.read("SELECT unit_id FROM experiments.exposures") == [("u",)]
    with consent_read_anew(shop.con):
        assert without_consent(shop.con, exposures) == 0
        shop.con.execute("INSERT INTO experiments.exposures (unit_id) VALUES ('v')")
        assert without_consent(shop.con, exposures) == 1


def test_a_table_with_ids_of_people_that_nobody_declared_is_found(recorded: Recorded) -> None:
    shop = CoreShop(recorded)
    shop.build(Lake(list(shopping("u")), grants("u")), as_of=at(2))
    known = ["features.interactions", "experiments.exposures"]
    assert undeclared_tables(shop.con, known) == []
    shop.con.execute(
        "CREATE TABLE features.lists (userId VARCHAR); CREATE TABLE features.sizes (users BIGINT, product_id VARCHAR)"
    )
    assert undeclared_tables(shop.con, known) == ["features.lists"]


# --- training ---------------------------------------------------------------------------------------------------------


def trained_on(shop: CoreShop, days: float) -> set[str]:
    """Events that the recommender collects at a clock, by their ids."""
    collect(shop.con, load_config(), at(days))
    return {event for (event,) in shop.read("SELECT event_id FROM recommend_signals")}


def test_training_takes_only_what_was_allowed_when_it_happened_and_is_now(recorded: Recorded) -> None:
    events = [
        row(f"{user} {said}", at(1), user_id=user, consent_personalization=said)
        for user in ("both", "not now", "never", "only now") for said in (True, False, None)
        if user != "only now" or not said
    ]  # fmt: skip
    said = [
        *grants("both", "not now", "only now"),
        ("not now", "personalization", "event", at(2).isoformat(), "denied"),
    ]
    shop = CoreShop(recorded)
    shop.build(Lake(events, said), as_of=at(3))
    assert trained_on(shop, 3) == {"both True"}


def test_training_for_a_past_date_follows_what_is_known_now(recorded: Recorded) -> None:
    """Before the withdrawal it takes her events; once that is known, no date takes them, and the segments of then stay."""
    events, shop = list(shopping("stays", "leaves")), CoreShop(recorded)
    shop.build(Lake(events, grants("stays", "leaves")), as_of=at(2))
    assert {event.split()[-1] for event in trained_on(shop, 2)} == {"stays", "leaves"}
    then = shop.build_segments()
    said = [*grants("stays", "leaves"), ("leaves", "personalization", "ledger", at(4).isoformat(), "denied")]
    for past in (shop, CoreShop(recorded)):
        past.build(Lake(events, said, latest_clock=at(5)), as_of=at(2), since=None if past is shop else at(0).date())
        assert {event.split()[-1] for event in trained_on(past, 2)} == {"stays"}
        assert past.build_segments() == then
    assert {member[0] for member in then["seg_recent_buyers"]} == {"stays", "leaves"}


# --- odd records ------------------------------------------------------------------------------------------------------


def buyers(shop: CoreShop) -> set[str]:
    return {member[0] for member in shop.build_segments()["seg_recent_buyers"]}


def test_a_record_from_the_future_counts_once_the_clock_has_passed_it(recorded: Recorded) -> None:
    later = [("grants", "personalization", "ledger", at(5).isoformat(), "granted"),
             ("leaves", "personalization", "ledger", at(5).isoformat(), "denied")]  # fmt: skip
    shop, lake = CoreShop(recorded), Lake(list(shopping("grants", "leaves")), [*grants("leaves"), *later])
    shop.build(lake, as_of=at(4))
    assert buyers(shop) == {"leaves"} and {event.split()[-1] for event in trained_on(shop, 4)} == {"leaves"}
    shop.build(lake, as_of=at(5), since=None)
    assert buyers(shop) == {"grants"} and {event.split()[-1] for event in trained_on(shop, 5)} == {"grants"}


@pytest.mark.parametrize("origins", [("ledger", "ledger"), ("ledger", "event"), ("event", "event")])
def test_of_two_records_at_one_instant_the_denial_holds(recorded: Recorded, origins: tuple[str, str]) -> None:
    said = [("u", "personalization", origin, at(0).isoformat(), status)
            for origin, status in zip(origins, ("granted", "denied"), strict=True)]  # fmt: skip
    for words in (said, said[::-1]):
        shop = CoreShop(recorded)
        shop.build(Lake(list(shopping("u")), words), as_of=at(2))
        assert buyers(shop) == set() and trained_on(shop, 2) == set()
        with consent_read_anew(shop.con):
            shop.con.execute("INSERT INTO segments.seg_recent_buyers (entity_id) VALUES ('u')")
            assert (
                without_consent(shop.con, Held("segments.seg_recent_buyers", "personalization", {"entity_id": "user"}))
                == 1
            )


def test_an_id_that_is_sql_is_a_person_like_any_other(recorded: Recorded) -> None:
    allows, denies = "x'); DROP TABLE core.users; --", '" OR 1=1; DELETE FROM state.consent; --'
    shop, lake = CoreShop(recorded), Lake(list(shopping(allows, denies)), grants(allows))
    shop.build(lake, as_of=at(2))
    assert buyers(shop) == {allows}
    with consent_read_anew(shop.con):
        held = Held("segments.seg_recent_buyers", "personalization", {"entity_id": "user"})
        assert without_consent(shop.con, held) == 0
        shop.con.execute("INSERT INTO segments.seg_recent_buyers (entity_id) VALUES (?)", [denies])
        assert without_consent(shop.con, held) == 1
        shop.con.execute("DELETE FROM segments.seg_recent_buyers WHERE entity_id = ?", [denies])
    lake.consent.append((allows, "personalization", "ledger", at(2).isoformat(), "denied"))
    shop.build(lake, as_of=at(3), since=None)
    assert (
        buyers(shop) == set() and len(shop.read("FROM core.users")) == 2 and len(shop.read("FROM state.consent")) == 2
    )
