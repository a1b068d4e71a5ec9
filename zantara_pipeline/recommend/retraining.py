"""Whether the model that serves is one that had to be replaced: what an erasure marked, and whose day comes near or passed.

Every run trains anew after an erasure, because its data are others; the mark matters where that does not replace the
version: training failed, too little is left to train on, or nobody ran anything. The day was set by the wall's clock, as a
promise to a person, so it is measured by the later of the wall's and the run's clock: the clock of a home that holds
history would never reach it.

Belongs here: those findings. Does not belong here: the mark itself (registry/versions.py), making it (erasure.py), the
ledger of alerts (alerts/).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from zantara_pipeline.alerts import Finding
from zantara_pipeline.recommend.training import CHAMPION, MODEL_NAME
from zantara_pipeline.registry import ModelVersion, open_registry

KINDS = ("retrain_soon", "retrain_overdue")
# A week holds a working day whatever the holidays, and daily runs that could have replaced it were tried seven times.
NEAR = timedelta(days=7)
_TODO = (
    "run `zantara run`, which trains anew; if it says that there is too little to train on, or fails, "
    f"take the alias '{CHAMPION}' off this version (`make models`): popularity serves then"
)


def retraining_findings(home_mlflow: Path, as_of: datetime, now: datetime | None = None) -> list[Finding]:
    """What is to be told of the version that serves; names the model, its version and the day, and nobody.

    as_of : the run's clock. now : the wall's clock, if another one is wanted.
    """
    serving = serving_version(home_mlflow)
    if serving is None or serving.retrain_by is None:
        return []
    due = date.fromisoformat(serving.retrain_by)
    today = max(as_of, now or datetime.now(UTC)).astimezone(UTC).date()
    if today > due:
        return [_finding(serving, "retrain_overdue", f"had to be replaced by {due} and still serves")]
    if today >= due - NEAR:
        return [_finding(serving, "retrain_soon", f"has to be replaced by {due} and still serves")]
    return []


def serving_version(home_mlflow: Path) -> ModelVersion | None:
    """The version under the alias of the champion; None where nothing was ever trained."""
    if not (home_mlflow / "mlflow.db").exists():
        return None
    with open_registry(home_mlflow, MODEL_NAME) as registry:
        return registry.by_alias(CHAMPION)


def _finding(version: ModelVersion, kind: str, told: str) -> Finding:
    return Finding(
        kind,
        "critical" if kind == "retrain_overdue" else "warning",
        f"model/{version.name}",
        f"version {version.number} of {version.name} was trained on somebody who was erased, {told}: {_TODO}",
        {"version": version.number, "retrain_by": version.retrain_by, "model": version.name},
    )
