"""Model versions: logging one completely or not at all, finding one by its tags, moving an alias.

Belongs here: runs, logged models, registered versions, aliases, cleaning up after a killed process.
Does not belong here: the meaning of tags, parameters and metrics (callers pass plain values).

Order of writing, which is what makes a kill harmless: run -> artifacts -> metrics -> run FINISHED -> version with all
its tags in ONE transaction -> alias. A version row therefore exists only for a complete model; a kill before it leaves
a RUNNING run, which the next writer marks KILLED and whose files it removes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from zantara_pipeline.errors import InputError
from zantara_pipeline.registry.place import EXPERIMENT, RegistryPlace, prepare
from zantara_pipeline.registry.quiet import pointed_at

# Tag of a version that was trained on somebody who was erased: the day by which it has to be replaced.
RETRAIN_BY = "erasure.retrain_by"

# Name of the one folder of files a model carries; `ModelVersion.files` is where it lies on disk.
FILES = "bundle"


@dataclass(frozen=True)
class NewVersion:
    """What a caller wants logged: plain values and paths.

    Parameters
    ----------
    model_code : Python file that calls `mlflow.models.set_model` (models-from-code; nothing is pickled).
    files : folder the model reads at load time; made by `Registry.empty_folder`.
    requirements : pip requirement lines. Given always: inferring them loads the model in a second process (10 s).
    tags : stored on the run and on the version; find a version by them.
    """

    run_name: str
    model_code: Path
    files: Path
    requirements: list[str]
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersion:
    """One registered version. `number` is MLflow's counter; it may have gaps and is never published in tables.

    made_at : when it was registered (wall clock).
    """

    name: str
    number: int
    run_id: str
    tags: dict[str, str]
    files: Path
    made_at: datetime

    @property
    def intact(self) -> bool:
        """Whether the files are still there (somebody may have removed artifacts by hand)."""
        return self.files.is_dir()

    @property
    def retrain_by(self) -> str | None:
        """The day by which a version has to be replaced that was trained on somebody who was erased."""
        return self.tags.get(RETRAIN_BY)


@contextmanager
def open_registry(root: Path, name: str, *, write: bool = False) -> Iterator[Registry]:
    """Open the registry below `root` (<home>/mlflow) for the registered model `name`.

    `write=True` also cleans up what a killed writer left behind; the home's lock guarantees there is one writer.
    """
    place = prepare(root)
    try:
        with pointed_at(place.uri, scratch=place.staging if write else None) as mlflow:
            registry = Registry(place, name, mlflow)
            if write:
                registry.recover()
            yield registry
    finally:
        if write:
            shutil.rmtree(place.staging, ignore_errors=True)


class Registry:
    """Versions of one registered model. Made by `open_registry`."""

    def __init__(self, place: RegistryPlace, name: str, mlflow: Any) -> None:
        self.place, self.name = place, name
        self._mlflow = mlflow
        self._client = mlflow.MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)

    def empty_folder(self) -> Path:
        """A fresh folder for the files of a new version (`NewVersion.files`); gone once the registry is closed."""
        folder = self.place.staging / FILES
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def find(self, tag: str, value: str) -> ModelVersion | None:
        """The newest intact version whose tag has this value; not one that has to be trained anew."""
        rule = f"name = '{self.name}' and tags.`{tag}` = '{value}'"
        found = [self._as_version(entry) for entry in self._client.search_model_versions(rule)]
        intact = [version for version in found if version.intact and version.retrain_by is None]
        return max(intact, key=lambda version: version.number, default=None)

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        found = [self._as_version(entry) for entry in self._client.search_model_versions(f"name = '{self.name}'")]
        return sorted(found, key=lambda version: version.number)

    def by_alias(self, alias: str) -> ModelVersion | None:
        """The version an alias points at, or None where there is no such alias (or no model yet)."""
        from mlflow.exceptions import MlflowException

        try:
            return self._as_version(self._client.get_model_version_by_alias(self.name, alias))
        except MlflowException:
            return None

    def point(self, alias: str, version: ModelVersion) -> None:
        """Move an alias; does nothing where it already points there.

        Raises
        ------
        InputError : the version was trained on somebody who was erased since.
        """
        current = self.by_alias(alias)
        if current is None or current.number != version.number:
            if self._client.get_model_version(self.name, str(version.number)).tags.get(RETRAIN_BY):
                what = f"version {version.number} was trained on somebody who was erased; it is not promoted"
                raise InputError(what, f"model {self.name}", "train a new one: run `zantara run`")
            self._client.set_registered_model_alias(self.name, alias, str(version.number))

    def mark_for_retraining(self, version: ModelVersion, by: datetime) -> None:
        """Say on the version and on its run by when it has to be replaced; the first such day stays."""
        if version.retrain_by is None:
            day = by.date().isoformat()
            self._client.set_tag(version.run_id, RETRAIN_BY, day)
            self._client.set_model_version_tag(self.name, str(version.number), RETRAIN_BY, day)

    def remove(self, version: ModelVersion) -> None:
        """Forget a version and remove its files; its run stays, with figures and parameters.

        Killed in between, the next writer removes the files of a model that no version points at.
        """
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        self._client.delete_model_version(self.name, str(version.number))
        self._discard_models(version.run_id, experiment.experiment_id)

    def log(self, new: NewVersion) -> ModelVersion:
        """Log a model with everything about it and register it; no alias is moved."""
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        # Given, so that MLflow records neither this machine's user name nor a path of it.
        own_tags = {"mlflow.user": "zantara", "mlflow.source.name": "zantara_pipeline", "mlflow.source.type": "LOCAL"}
        run = self._client.create_run(experiment.experiment_id, tags={**own_tags, **new.tags}, run_name=new.run_name)
        run_id = run.info.run_id
        try:
            # Leaving the block ends the run: FINISHED, or FAILED after an exception.
            with self._mlflow.start_run(run_id=run_id):
                model = self._log_model(new)
                self._log_values(run_id, new)
        except Exception:
            self._discard_models(run_id, experiment.experiment_id)
            raise
        return self._register(run_id, model, new)

    def recover(self) -> int:
        """Mark runs of a killed process as KILLED, drop their files, empty the staging folder; returns how many."""
        for left in self.place.staging.glob("*"):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        running = self._client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
        for run in running:
            self._client.set_terminated(run.info.run_id, "KILLED")
            self._discard_models(run.info.run_id, experiment.experiment_id)
        self._drop_unregistered(experiment.experiment_id)
        return len(running)

    def _log_model(self, new: NewVersion) -> Any:
        return self._mlflow.pyfunc.log_model(
            name="recommender",
            python_model=str(new.model_code),
            artifacts={FILES: str(new.files)},
            pip_requirements=new.requirements,
        )

    def _log_values(self, run_id: str, new: NewVersion) -> None:
        """One batch: single calls cost one SQLite transaction (20 ms) each, 60 metrics more than a second."""
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(key, float(value), now, 0) for key, value in new.metrics.items()]
        params = [Param(key, str(value)) for key, value in new.params.items()]
        self._client.log_batch(run_id, metrics=metrics, params=params)

    def _register(self, run_id: str, model: Any, new: NewVersion) -> ModelVersion:
        if not self._client.search_registered_models(f"name = '{self.name}'"):
            self._client.create_registered_model(self.name)
        entry = self._client.create_model_version(
            self.name,
            source=model.model_uri,
            run_id=run_id,
            tags={**new.tags, "complete": "true"},
            model_id=model.model_id,
        )
        return self._as_version(entry)

    def _drop_unregistered(self, experiment_id: str) -> None:
        """Models of finished runs whose process died just before the version row: nothing points at them."""
        registered = {version.run_id for version in self.versions()}
        for model in self._client.search_logged_models(experiment_ids=[experiment_id]):
            if model.source_run_id not in registered:
                self._discard(model)

    def _discard_models(self, run_id: str, experiment_id: str) -> None:
        for model in self._client.search_logged_models(experiment_ids=[experiment_id]):
            if model.source_run_id == run_id:
                self._discard(model)

    def _discard(self, model: Any) -> None:
        shutil.rmtree(_local(model.artifact_location).parent, ignore_errors=True)
        self._client.delete_logged_model(model.model_id)

    def _as_version(self, entry: Any) -> ModelVersion:
        location = self._client.get_model_version_download_uri(entry.name, entry.version)
        files = _local(location) / "artifacts" / FILES
        made_at = datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC)
        return ModelVersion(entry.name, int(entry.version), entry.run_id, dict(entry.tags), files, made_at)


def _local(uri: str) -> Path:
    """A file URI (or plain path) as a path."""
    return Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else Path(uri)
