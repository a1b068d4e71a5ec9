"""Retention of models: the copies of versions that no longer serve go so many days after they were trained.

A version holds ids and vectors of the people that it was trained on. What remains are its run's figures and parameters,
which name nobody. The version that serves stays however old.

Belongs here: which versions are over, and removing them with an audit row. Does not belong here: whether it is enforced
(privacy.yaml: retention.models), erasure of people (erasure.py), MLflow (registry/).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.recommend.training import CHAMPION, MODEL_NAME, TRAINED_AS_OF
from zantara_pipeline.registry import ModelVersion, Registry, open_registry
from zantara_pipeline.storage.ledger import Ledger


def models_over(home_mlflow: Path, days: int, as_of: datetime) -> list[datetime]:
    """When each version was trained that is older than so many days and does not serve; nothing is written."""
    if not (home_mlflow / "mlflow.db").exists():
        return []
    with open_registry(home_mlflow, MODEL_NAME) as registry:
        return [trained for _, trained in _over(registry, as_of - timedelta(days=days))]


def expire_models(home_mlflow: Path, ledger: Ledger, days: int, as_of: datetime) -> int:
    """Remove those versions, each written down first; killed, the next run goes on. Returns how many."""
    if not models_over(home_mlflow, days, as_of):
        return 0
    with open_registry(home_mlflow, MODEL_NAME, write=True) as registry:
        over = _over(registry, as_of - timedelta(days=days))
        for version, trained in over:
            row = (version.number, version.tags.get("bundle_version", ""), utc_text(trained), utc_text(as_of))
            with ledger.transaction() as db:
                db.execute("INSERT OR IGNORE INTO expired_models VALUES (?, ?, ?, ?)", row)
            registry.remove(version)
    return len(over)


def _over(registry: Registry, limit: datetime) -> list[tuple[ModelVersion, datetime]]:
    serving = registry.by_alias(CHAMPION)
    dated = [(version, _trained(version)) for version in registry.versions()]
    return [(v, trained) for v, trained in dated if trained < limit and (serving is None or v.number != serving.number)]


def _trained(version: ModelVersion) -> datetime:
    """The clock of the run that trained it; of versions made before that was kept, the time at which they were made."""
    said = version.tags.get(TRAINED_AS_OF)
    return datetime.fromisoformat(said) if said else version.made_at.astimezone(UTC)
