"""Train, log, reuse, publish: the chain on a real MLflow and a fabricated warehouse."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
from recommend_shop import as_of, clustered_events, clustered_products, config, warehouse

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend import (
    Bundle,
    load_champion,
    train_and_evaluate,
    write_offline_metrics,
    write_recommendations,
)
from zantara_pipeline.recommend.decisions import decisions
from zantara_pipeline.registry import open_registry, prepare, read_aliases
from zantara_pipeline.registry.quiet import pointed_at
from zantara_pipeline.storage.ledger import Ledger

EXTRA = [("guest", True), ("denied", False)]
TABLES = ("recommendations.offline_metrics", "recommendations.user_recommendations")


def shop(**shape):
    return warehouse(clustered_events(**shape), clustered_products(), EXTRA)


def train(con, home, settings=None, when=None, revision="abc"):
    return train_and_evaluate(
        con,
        settings or config(),
        as_of=when or as_of(),
        home_mlflow=home / "mlflow",
        git_revision=revision,
        ledger=Ledger(home / "ledger.db"),
    )


def publish(con, home, settings=None, when=None):
    """Both tables as anybody could read them, and what was said about them."""
    settings, when, bundle = settings or config(), when or as_of(), load_champion(home / "mlflow")
    count = write_offline_metrics(con, settings, bundle, as_of=when)
    result = write_recommendations(con, settings, bundle, as_of=when)
    return count, result, [con.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in TABLES]


def versions(home):
    with open_registry(home / "mlflow", "zantara-recommender") as registry:
        return registry.versions()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One trained home, not to be written to; copy it."""
    home = tmp_path_factory.mktemp("shop") / "home"
    con = shop()
    return home, con, train(con, home)


@pytest.fixture
def home(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "home")
    return tmp_path / "home"


def test_the_result_says_what_was_learned(trained):
    _, con, result = trained
    events = con.execute("SELECT count(*), count(DISTINCT user_id) FROM features.interactions").fetchone()
    assert (result.n_interactions, result.n_users, result.n_items) == (*events, 80)
    assert result.served_model == "stack" and not result.reused
    assert result.note.startswith("the stack serves users with history: ndcg@10 of the stack minus popularity is +")
    assert result.metrics["lightfm.warm.ndcg_10"] > result.metrics["popularity.warm.ndcg_10"]
    assert len(result.bundle_version) == len("stack-") + 12


def test_the_version_carries_hashes_revision_parameters_and_metrics(trained):
    home, _, result = trained
    (version,) = versions(home)
    assert version.tags["git_revision"] == "abc" and version.tags["bundle_version"] == result.bundle_version
    assert {"dataset_hash", "feature_hash", "config_hash", "code_hash", "lightfm-next"} <= set(version.tags)
    with pointed_at(prepare(home / "mlflow").uri) as mlflow:
        run = mlflow.get_run(version.run_id)
    assert run.data.params["lightfm.components"] == "32"
    assert run.data.metrics == pytest.approx(result.metrics)


def test_every_consented_user_gets_a_full_list_and_nobody_else(trained, home):
    con, bundle = trained[1], load_champion(home / "mlflow")
    count, result, (metrics, lists) = publish(con, home)
    assert count == len(metrics) == len(bundle.offline_metrics)
    assert result.users == 161 and result.users_by_model == {"full": 160, "popularity": 1}
    by_user = {}
    for row in sorted(lists):
        by_user.setdefault(row[0], []).append(row)
    assert "denied" not in by_user and len(by_user) == 161
    assert all([row[1] for row in rows] == list(range(1, 21)) for rows in by_user.values())
    assert {row[4] for row in by_user["guest"]} == {"popularity"}
    assert {tuple(row[5]) for row in by_user["guest"]} == {("popular_recently",)}
    assert {row[7] for row in lists} == {as_of()}
    seen = set(con.execute("SELECT DISTINCT user_id, product_id FROM features.interactions").fetchall())
    assert not seen & {(row[0], row[2]) for row in lists}


def test_lists_follow_the_planted_tastes_and_say_so(trained, home):
    _, _, (_, lists) = publish(trained[1], home)
    # Users saw 12 of the 20 products of their cluster: the 8 left are what they should be shown first.
    top = [row for row in lists if row[1] <= 5 and row[0] != "guest"]
    own = [row for row in top if row[2].startswith(f"p{int(row[0][1:]) % 4}-")]
    assert len(own) / len(top) > 0.9
    words = {"similar_users", "often_next", "often_together", "similar_products", "popular_recently"}
    assert {row[5][0] for row in top} <= words
    explained = [row for row in own if row[5] == ["popular_recently"] or f"category=c{row[2][1]}" in row[5]]
    assert len(explained) / len(own) > 0.8


def test_published_columns_are_the_declared_ones_and_all_explained(trained, home):
    con = trained[1]
    publish(con, home)
    columns = con.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'recommendations' ORDER BY table_name, ordinal_position"
    ).fetchall()
    assert [column[1] for column in columns if column[0] == "user_recommendations"] == (
        [
            "user_id",
            "rank",
            "product_id",
            "score",
            "served_by",
            "reasons",
            "bundle_version",
            "generated_at",
            "propensity",
        ]
    )
    assert [column[1] for column in columns if column[0] == "offline_metrics"] == (
        ["bundle_version", "model", "cut_date", "slice", "metric", "k", "value", "ci_low", "ci_high", "users"]
    )
    comments = con.execute(
        "SELECT count(comment), count(*) FROM duckdb_columns() WHERE schema_name = 'recommendations'"
    )
    assert len(set(comments.fetchone())) == 1


def test_the_same_input_makes_no_new_version_and_the_same_tables(trained, home):
    con, first = trained[1], trained[2]
    before = publish(con, home)
    # Later clock, another commit, a rebuilt warehouse in another order: none of it is a different training set.
    events = clustered_events()
    other = warehouse(events[::-1], clustered_products()[::-1], EXTRA)
    again = train(other, home, when=as_of(75), revision="def")
    assert again.reused and again.bundle_version == first.bundle_version and again.metrics == first.metrics
    assert len(versions(home)) == 1
    assert publish(other, home) == before


def test_an_undisturbed_home_gives_the_same_bytes(trained, tmp_path):
    home, con, first = trained
    fresh = train(con, tmp_path / "other")
    assert not fresh.reused and fresh.bundle_version == first.bundle_version
    ours, theirs = versions(home)[0].files, versions(tmp_path / "other")[0].files
    for path in ours.iterdir():
        assert path.read_bytes() == (theirs / path.name).read_bytes(), path.name


def test_another_configuration_becomes_the_challenger_and_comes_back_without_training(trained, home):
    con, first = trained[1], trained[2]
    changed = config(popularity={"half_life_days": 13.5}, gate={"tolerance": 0.1})
    second = train(con, home, changed)
    assert not second.reused and second.bundle_version != first.bundle_version
    assert second.decided.action == "challenger" and second.decided.champion == 1
    assert load_champion(home / "mlflow").version == first.bundle_version
    assert read_aliases(home / "mlflow", "zantara-recommender") == {"champion": 1, "challenger": 2}
    back = train(con, home)
    assert back.reused and back.decided is None and len(versions(home)) == 2
    again = train(con, home, changed)
    assert again.reused and again.decided is None


def test_newer_data_take_over_and_the_old_version_is_kept_for_a_rollback(trained, home):
    more = warehouse(
        [*clustered_events(), ("u0001", "p2-019", "product_view", 60.5, None)], clustered_products(), EXTRA
    )
    second = train(more, home, when=as_of(61))
    assert second.decided.action == "refresh" and load_champion(home / "mlflow").version == second.bundle_version
    assert read_aliases(home / "mlflow", "zantara-recommender") == {"champion": 2, "previous": 1}


def test_a_bad_challenger_is_refused_with_its_reasons(trained, home):
    """LightFM alone, one component, one epoch: worse on the same cuts and people."""
    worse = config(
        lightfm={"components": 1, "epochs": 1, "learning_rate": 1e-6},
        ranking={"generators": ["lightfm"], "min_positives": 10**9},
    )
    refused = train(trained[1], home, worse)
    assert refused.decided.action == "refused" and refused.decided.champion == 1
    assert any("minus that of the configuration that serves is -" in why for why in refused.decided.reasons)
    assert read_aliases(home / "mlflow", "zantara-recommender") == {"champion": 1}
    assert [one.action for one in decisions(Ledger(home / "ledger.db"))] == ["first", "refused"]


def test_a_moved_home_serves_publishes_and_reuses(trained, home, tmp_path):
    con, first = trained[1], trained[2]
    before = publish(con, home)
    home.rename(tmp_path / "moved")
    assert publish(con, tmp_path / "moved") == before
    assert train(con, tmp_path / "moved").reused
    assert first.bundle_version == load_champion(tmp_path / "moved" / "mlflow").version


def test_the_registered_model_answers_queries_like_the_table(trained, home):
    _, _, (_, lists) = publish(trained[1], home)
    with pointed_at(prepare(home / "mlflow").uri) as mlflow:
        model = mlflow.pyfunc.load_model("models:/zantara-recommender@champion")
    known, unknown = model.predict([{"user_id": "u0007", "k": 20}, {"user_id": "somebody new", "k": 3}])
    rows = sorted(row for row in lists if row[0] == "u0007")
    assert known.product_ids == [row[2] for row in rows] and known.scores == [row[3] for row in rows]
    assert known.reasons == [row[5] for row in rows] and known.served_by == "full"
    assert unknown.served_by == "popularity" and len(unknown.product_ids) == 3
    assert unknown.product_ids == [row[2] for row in sorted(lists) if row[0] == "guest"][:3]
    assert {"user_id", "k"} <= set(str(model.metadata.signature.inputs.to_dict()).replace("'", " ").split())


def test_where_popularity_wins_it_serves_everybody(trained, tmp_path):
    """Views without any taste in them: nothing speaks for LightFM."""
    rng = np.random.default_rng(3)
    products = clustered_products()
    events = [
        (f"u{user:04d}", products[int(place)]["product_id"], "product_view", rng.random() * 60, None)
        for user in range(160)
        for place in rng.integers(0, len(products), 12)
    ]
    con = warehouse(events, products, EXTRA)
    settings = config(gate={"tolerance": 0.0})
    result = train(con, tmp_path, settings)
    assert result.served_model == "popularity" and result.note.startswith("popularity serves everybody")
    _, written, (_, lists) = publish(con, tmp_path, settings)
    assert written.users_by_model == {"popularity": 161} and {row[4] for row in lists} == {"popularity"}


def test_a_drift_of_tastes_is_followed_after_retraining(tmp_path):
    """From day 45 on everybody likes the cluster after their own; lists of the retrained model follow."""
    rng = np.random.default_rng(6)
    early = clustered_events(per_cluster=40, days=45)
    drifted = [
        (user, f"p{(int(user[1:]) + 1) % 4}-{int(place):03d}", "product_view", 45 + rng.random() * 15, None)
        for user in sorted({event[0] for event in early})
        for place in rng.permutation(40)[:10]
    ]

    def share_of(shift, events, when, home):
        con = warehouse(events, clustered_products(4, 40))
        assert train(con, home, when=when).decided.action in ("first", "refresh")
        _, _, (_, lists) = publish(con, home, when=when)
        top = [row for row in lists if row[1] <= 5]
        return np.mean([row[2].startswith(f"p{(int(row[0][1:]) + shift) % 4}-") for row in top])

    assert share_of(0, early, as_of(45), tmp_path) > 0.8
    assert share_of(1, [*early, *drifted], as_of(60), tmp_path) > 0.8


def test_a_small_catalogue_gives_shorter_lists(tmp_path):
    con = warehouse(clustered_events(clusters=2, per_cluster=6, views=3), clustered_products(2, 6))
    result = train(con, tmp_path)
    assert result.n_items == 12
    _, written, (_, lists) = publish(con, tmp_path)
    assert written.users == 160
    counts = {user: sum(row[0] == user for row in lists) for user in ("u0000", "u0001")}
    seen = dict(
        con.execute("SELECT user_id, count(DISTINCT product_id) FROM features.interactions GROUP BY 1").fetchall()
    )
    assert all(counts[user] == 12 - seen[user] for user in counts)


@pytest.mark.parametrize("events", [[], clustered_events(n_users=5)])
def test_too_little_data_is_said_and_nothing_is_served_even_where_a_champion_exists(home, events):
    con = warehouse(events, clustered_products(), EXTRA)
    result = train(con, home)
    assert result.bundle_version is None and result.note.startswith("nothing to do: ")
    count, written, tables = publish(con, home)
    assert (count, written.users, tables) == (0, 0, [[], []])
    assert written.note == result.note
    assert len(versions(home)) == 1


def test_without_a_model_the_tables_are_empty_and_say_so(tmp_path):
    _, written, tables = publish(shop(), tmp_path)
    assert tables == [[], []] and written.note == "nothing to do: no model has been trained yet"


def test_one_moment_for_all_events_is_trained_but_not_measured(tmp_path):
    con = warehouse([(u, p, e, 3.0, s) for u, p, e, _, s in clustered_events()], clustered_products())
    result = train(con, tmp_path)
    assert result.served_model == "popularity" and "all interactions lie at one time" in result.note
    count, written, _ = publish(con, tmp_path)
    assert count == 0 and written.users == 160


def test_damaged_files_are_trained_anew(trained, home):
    (versions(home)[0].files / "arrays.npz").write_bytes(b"half")
    with pytest.raises(InputError, match="train it anew"):
        Bundle.load(versions(home)[0].files)
    result = train(trained[1], home)
    assert not result.reused and result.bundle_version == trained[2].bundle_version
    assert load_champion(home / "mlflow").version == result.bundle_version


def test_a_failed_write_leaves_the_old_table(trained, home, monkeypatch):
    con = trained[1]
    before = publish(con, home)[2]
    monkeypatch.setattr("zantara_pipeline.recommend.publish._reasons", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish(con, home)
    monkeypatch.undo()
    assert [con.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in TABLES] == before


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import recommend_shop as shop
from zantara_pipeline.recommend import train_and_evaluate
from zantara_pipeline.registry.versions import Registry
from zantara_pipeline.storage.ledger import Ledger
Registry._register = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
con = shop.warehouse(shop.clustered_events(), shop.clustered_products(), [("guest", True), ("denied", False)])
config = shop.config(popularity={"half_life_days": 3})
train_and_evaluate(con, config, as_of=shop.as_of(), home_mlflow=Path(sys.argv[2]), git_revision="abc",
    ledger=Ledger(Path(sys.argv[2]).parent / "ledger.db"))
"""


def test_killed_before_registration_the_old_champion_serves_and_a_rerun_ends_the_same(trained, home):
    con, first = trained[1], trained[2]
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(home / "mlflow")]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert load_champion(home / "mlflow").version == first.bundle_version
    result = train(con, home, config(popularity={"half_life_days": 3}))
    assert [version.number for version in versions(home)] == [1, 2] and result.model_number == 2
    assert result.decided.action in ("challenger", "refused")
    assert len(list((home / "mlflow" / "artifacts").rglob("arrays.npz"))) == 2


def test_the_package_imports_without_mlflow_lightfm_or_pandas():
    code = (
        "import sys, zantara_pipeline.recommend, zantara_pipeline.registry;"
        "print([name for name in ('mlflow', 'lightfm', 'pandas', 'scipy', 'dagster') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert shown.stdout.strip() == "[]"


def test_a_real_file_warehouse_works_too(trained, home, tmp_path):
    """On disk, closed and opened again: temporary tables and the transaction do not depend on memory."""
    con = duckdb.connect(str(tmp_path / "warehouse.duckdb"))
    for schema, table in (("features", "interactions"), ("core", "products"), ("core", "users")):
        rows = trained[1].sql(f"FROM {schema}.{table}").to_arrow_table()
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        con.register("rows", rows)
        con.execute(f"CREATE TABLE {schema}.{table} AS FROM rows")
        con.unregister("rows")
    assert train(con, home).reused
    tables = publish(con, home)[2]
    con.close()
    con = duckdb.connect(str(tmp_path / "warehouse.duckdb"))
    con.execute("SET TimeZone = 'UTC'")
    assert [con.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in TABLES] == tables
