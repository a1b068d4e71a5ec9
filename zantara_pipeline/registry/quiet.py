"""MLflow brought in without noise: no telemetry, no progress bars, no migration log, no traces in the caller's folder.

Belongs here: the one place that imports mlflow, and the process-wide settings it needs while we use it.
Does not belong here: any use of MLflow beyond that.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def quiet_mlflow() -> Any:
    """Import mlflow (4 s the first time) with telemetry and progress bars off and its logger at ERROR."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


@contextmanager
def pointed_at(uri: str, scratch: Path | None = None) -> Iterator[Any]:
    """Yield mlflow with its process-wide addresses set to `uri`, and put everything back afterwards.

    The fluent API and parts of the registry read global state, and MLflow copies it into the environment. `scratch`
    takes the place of the system's temporary folder: what a killed run leaves of a model must stay below the home.
    """
    mlflow = quiet_mlflow()
    from mlflow.tracking._model_registry import utils as registry_utils
    from mlflow.tracking._tracking_service import utils as tracking_utils

    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    environment = {name: os.environ.get(name) for name in names}
    before = tracking_utils._tracking_uri, registry_utils._registry_uri, tempfile.tempdir
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            tempfile.tempdir = str(scratch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield mlflow
    finally:
        _disconnect(mlflow)
        tracking_utils.set_tracking_uri(before[0])  # type: ignore[arg-type]
        registry_utils._registry_uri = before[1]
        tempfile.tempdir = before[2]
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _disconnect(mlflow: Any) -> None:
    """Close pooled connections: the stores outlive us, and would go on writing into a file moved or deleted since."""
    client = mlflow.MlflowClient()
    for store in (client._tracking_client.store, client._get_registry_client().store):
        store.engine.dispose()
