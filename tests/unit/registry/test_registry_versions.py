"""The registry on a real MLflow: complete versions only, aliases, moved homes, killed writers."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from zantara_pipeline.registry import NewVersion, open_registry, prepare
from zantara_pipeline.registry.quiet import pointed_at

NAME = "toy"
MODEL = """
from __future__ import annotations
from pathlib import Path
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Toy(PythonModel):
    def load_context(self, context):
        self.word = (Path(context.artifacts["bundle"]) / "word.txt").read_text()

    def predict(self, context, model_input: list[str]) -> list[str]:
        return [self.word + text for text in model_input]

set_model(Toy())
"""


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory):
    """One empty registry, made once (MLflow's migrations take seconds); tests work on copies of it."""
    home = tmp_path_factory.mktemp("registry") / "empty"
    prepare(home / "mlflow")
    return home


@pytest.fixture
def root(empty_home, tmp_path):
    shutil.copytree(empty_home, tmp_path / "home ü 100%")
    return tmp_path / "home ü 100%" / "mlflow"


def log(root: Path, word: str, alias: str | None = "champion"):
    with open_registry(root, NAME, write=True) as registry:
        return log_into(registry, word, alias)


def log_into(registry, word: str, alias: str | None = "champion"):
    code = registry.place.root.parent / "toy.py"
    code.write_text(MODEL, encoding="utf-8")
    files = registry.empty_folder()
    (files / "word.txt").write_text(word, encoding="utf-8")
    version = registry.log(
        NewVersion(f"run {word}", code, files, ["mlflow"], {"word": word}, {"size": "3"}, {"lightfm.all.ndcg_10": 0.25})
    )
    if alias:
        registry.point(alias, version)
    return version


def serve(root: Path, text: str) -> str:
    """What anybody with plain MLflow gets."""
    with pointed_at(prepare(root).uri) as mlflow:
        return mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict([text])[0]


def run_states(root: Path) -> list[str]:
    with closing(sqlite3.connect(root / "mlflow.db")) as con:
        return sorted(row[0] for row in con.execute("SELECT status FROM runs"))


def test_a_version_is_found_by_its_tag_and_served_by_its_alias(root):
    first, second = log(root, "a"), log(root, "b")
    with open_registry(root, NAME) as registry:
        assert registry.find("word", "a") == first
        assert registry.find("word", "c") is None
        assert registry.by_alias("champion") == second
        assert registry.by_alias("challenger") is None
        assert [version.number for version in registry.versions()] == [1, 2]
        registry.point("champion", first)
    assert first.tags["complete"] == "true"
    assert serve(root, "!") == "a!"
    assert not (root / "staging").exists()


def test_parameters_metrics_and_tags_are_in_the_run_and_nothing_of_this_machine_is(root):
    version = log(root, "a")
    with pointed_at(prepare(root).uri) as mlflow:
        run = mlflow.get_run(version.run_id)
        model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    assert run.data.params == {"size": "3"}
    assert run.data.metrics == {"lightfm.all.ndcg_10": 0.25}
    assert run.data.tags["word"] == "a" and run.info.status == "FINISHED"
    assert run.data.tags["mlflow.user"] == "zantara"
    assert model.metadata.signature is not None
    assert not list(version.files.parent.parent.rglob("*.pkl"))


def test_the_callers_process_is_left_as_it_was(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    log(root, "a")
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///elsewhere.db"
    assert "MLFLOW_REGISTRY_URI" not in os.environ
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home ü 100%"]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_home_copied_elsewhere_works_there_and_goes_on(root, tmp_path):
    log(root, "a")
    old = root.parent
    new = tmp_path / "moved to" / "here"
    shutil.copytree(old, new)
    shutil.rmtree(old)
    assert serve(new / "mlflow", "!") == "a!"
    assert log(new / "mlflow", "b").number == 2
    assert serve(new / "mlflow", "!") == "b!"
    assert not old.exists()
    with closing(sqlite3.connect(new / "mlflow" / "mlflow.db")) as con:
        assert old.as_uri() not in "\n".join(con.iterdump())
        assert con.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone() == (
            (new / "mlflow" / "artifacts" / "0").as_uri(),
        )


def test_a_copy_beside_a_living_original_does_not_touch_it(root, tmp_path):
    log(root, "a")
    shutil.copytree(root.parent, tmp_path / "second")
    log(tmp_path / "second" / "mlflow", "b")
    assert serve(root, "!") == "a!"
    assert serve(tmp_path / "second" / "mlflow", "!") == "b!"


def test_a_failing_log_leaves_a_failed_run_and_no_version(root, monkeypatch):
    with open_registry(root, NAME, write=True) as registry:
        monkeypatch.setattr(registry, "_log_values", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            log_into(registry, "a")
        assert registry.versions() == []
    assert run_states(root) == ["FAILED"]
    assert not list((root / "artifacts").rglob("word.txt"))


def test_versions_whose_files_were_removed_by_hand_are_not_found(root):
    shutil.rmtree(log(root, "a").files)
    with open_registry(root, NAME) as registry:
        assert registry.find("word", "a") is None


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_registry_versions as t
from zantara_pipeline.registry.versions import Registry
step = sys.argv[3]
setattr(Registry, step, lambda *args, **kw: os.kill(os.getpid(), signal.SIGKILL))
t.log(Path(sys.argv[2]), "a")
"""


@pytest.mark.parametrize(("step", "runs"), [("_log_values", ["FINISHED", "KILLED"]), ("point", ["FINISHED"])])
def test_a_killed_writer_leaves_no_half_version_and_a_rerun_ends_like_an_undisturbed_run(root, step, runs):
    """Killed with the model's files written (_log_values), and with all but the alias written (point)."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(root), step], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_registry(root, NAME) as registry:
        assert registry.by_alias("champion") is None
    with open_registry(root, NAME, write=True) as registry:
        found = registry.find("word", "a")
        assert (found is None) == (step == "_log_values")
        registry.point("champion", found or log_into(registry, "a", alias=None))
        assert [version.number for version in registry.versions()] == [1]
    assert run_states(root) == runs
    assert len(list((root / "artifacts").rglob("word.txt"))) == 1
    assert serve(root, "!") == "a!"


def test_a_kill_while_the_database_is_made_does_no_harm(empty_home, tmp_path):
    root = tmp_path / "mlflow"
    root.mkdir()
    (root / "mlflow.db.new-1").write_bytes(b"half")
    (root / "mlflow.db.new-1-journal").write_bytes(b"half")
    place = prepare(root)
    assert [path.name for path in sorted(root.iterdir())] == ["artifacts", "mlflow.db"]
    assert prepare(root) == place
