"""Versions in a person's hands: which there are, how two compare, promoting one, going back, making one again.

Belongs here: what `zantara model` does. Does not belong here: the gate of a run (promotion.py, training.py), printing.
"""

from __future__ import annotations

import filecmp
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.recommend.artifacts import Bundle
from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.decisions import Decision, record
from zantara_pipeline.recommend.loading import collect, dataset_hash, feature_hash, release
from zantara_pipeline.recommend.promotion import compare
from zantara_pipeline.recommend.training import (
    CHAMPION,
    MODEL_NAME,
    PREVIOUS,
    TRAINED_AS_OF,
    code_hash,
    make_anew,
)
from zantara_pipeline.registry import (
    ModelVersion,
    check_move,
    move_aliases,
    open_registry,
    read_aliases,
    version_tag,
)
from zantara_pipeline.storage.ledger import Ledger

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

WHERE = f"model {MODEL_NAME}"


def has_versions(home_mlflow: Path) -> bool:
    """Whether a registry is there; reading must not make one. No alias says so: somebody may have taken all off."""
    return (home_mlflow / "mlflow.db").exists()


@dataclass(frozen=True)
class Told:
    """One version as a person reads it."""

    version: int
    bundle_version: str
    trained_as_of: str
    serves: str
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    retrain_by: str | None


def history(home_mlflow: Path) -> list[Told]:
    """All versions, oldest first; nothing where none was trained."""
    if not has_versions(home_mlflow):
        return []
    aliases = read_aliases(home_mlflow, MODEL_NAME)
    with open_registry(home_mlflow, MODEL_NAME) as registry:
        return [_told(version, aliases) for version in registry.versions()]


def compare_versions(home_mlflow: Path, first: int, second: int, metric: str = "ndcg_10") -> dict[str, Any]:
    """First minus second on the cuts and people that both were measured on, paired by user.

    Raises
    ------
    InputError : no such version, no such metric, or nothing that both were measured on.
    """
    ours, theirs = (_version(home_mlflow, number) for number in (first, second))
    tables = [pq.read_table(version.files / "per_user_metrics.parquet") for version in (ours, theirs)]
    told = compare(tables[0], tables[1], f"stack_{metric}")
    if told is None:
        raise InputError(
            f"versions {first} and {second} share no user and cut of {metric}", WHERE,
            "versions of other days are measured on other cuts; `zantara model history` shows each one's own figures",
        )  # fmt: skip
    value, low, high, users = told
    return {"first": first, "second": second, "metric": metric, "difference": value, "ci_low": low, "ci_high": high,
            "users": users}  # fmt: skip


def promote(home_mlflow: Path, ledger: Ledger, number: int, reason: str) -> Decision:
    """Let a version serve from the next run on; the one that served becomes `previous`.

    Raises
    ------
    InputError : no such version, one that serves already, or one trained on somebody who was erased.
    """
    version, aliases = _version(home_mlflow, number), read_aliases(home_mlflow, MODEL_NAME)
    if aliases.get(CHAMPION) == number:
        raise InputError(f"version {number} serves already", WHERE, "see `zantara model history`")
    bundle = Bundle.load(version.files)
    if not bundle.keeps_its_golden_lists():
        raise InputError(f"version {number} does not reproduce its golden lists", WHERE, "train it anew: `zantara run`")
    moved = {CHAMPION: number} | ({PREVIOUS: aliases[CHAMPION]} if CHAMPION in aliases else {})
    return _move(home_mlflow, ledger, moved, "promote", bundle.version, reason)


def require_shipped(con: DuckDBPyConnection, experiment: str) -> None:
    """That the latest decision of an experiment is ship.

    Raises
    ------
    InputError : it is another one, or none is known.
    """
    query = "SELECT decision FROM experiments.decisions WHERE experiment_id = ? ORDER BY as_of DESC, decided_at DESC LIMIT 1"
    found = con.execute(query, [experiment]).fetchall()
    if not found or found[0][0] != "ship":
        told = f"its latest decision is {found[0][0]}" if found else "no decision of it is known"
        todo = "wait for it, or give --without-experiment REASON"
        raise InputError(f"{told}, not ship", f"experiment {experiment}", todo)


def roll_back(home_mlflow: Path, ledger: Ledger, reason: str) -> Decision:
    """Let the version serve again that served before; runs replace nothing until somebody promotes.

    Raises
    ------
    InputError : nothing served before, or it was trained on somebody who was erased since.
    """
    aliases = read_aliases(home_mlflow, MODEL_NAME)
    if PREVIOUS not in aliases or CHAMPION not in aliases:
        raise InputError("no version served before this one", WHERE, "see `zantara model history`")
    moved = {CHAMPION: aliases[PREVIOUS], PREVIOUS: aliases[CHAMPION]}
    name = version_tag(home_mlflow, MODEL_NAME, aliases[PREVIOUS], "bundle_version") or ""
    return _move(home_mlflow, ledger, moved, "rollback", name, reason)


def reproduce(con: DuckDBPyConnection, home_mlflow: Path, number: int) -> dict[str, Any]:
    """Train a version again from the tables of today as of its own clock, and compare every file.

    Returns
    -------
    dict with `reproduced`, and `differs`: what is not as it was (data, features, code, libraries, files).

    Raises
    ------
    InputError : no such version.
    """
    version = _version(home_mlflow, number)
    bundle = Bundle.load(version.files)
    config = RecommendationConfig.model_validate(bundle.manifest["config"])
    as_of = datetime.fromisoformat(version.tags[TRAINED_AS_OF])
    try:
        found = collect(con, config, as_of)
        differs = [
            told
            for tag, now, told in (
                (
                    "dataset_hash",
                    dataset_hash(con),
                    "interactions: erasure, withdrawal, retention or late events changed them",
                ),
                ("feature_hash", feature_hash(con), "products or their attributes changed"),
                ("code_hash", code_hash(), "the program changed"),
            )
            if version.tags.get(tag) != now
        ]
        if version.retrain_by is not None:
            differs.insert(0, "it was trained on somebody who was erased since: their data are gone on purpose")
        if differs:
            return {"version": number, "reproduced": False, "differs": differs}
        again = make_anew(con, config, found, bundle.version, bundle.manifest["identity"])
    finally:
        release(con)
    with tempfile.TemporaryDirectory(prefix="zantara-reproduce-") as folder:
        again.save(Path(folder))
        files = sorted(path.name for path in version.files.iterdir())
        _, unequal, lacking = filecmp.cmpfiles(version.files, folder, files, shallow=False)
    differs = [f"file {name}" for name in (*unequal, *lacking)]
    return {"version": number, "reproduced": not differs, "differs": differs}


def _move(
    home_mlflow: Path, ledger: Ledger, moved: dict[str, int], action: Any, bundle_version: str, reason: str
) -> Decision:
    if not reason.strip():
        raise InputError("no reason is given", WHERE, "say why: it is kept in the audit")
    number = moved[CHAMPION]
    check_move(home_mlflow, MODEL_NAME, {CHAMPION: number})
    decision = Decision(utc_text(datetime.now(UTC)), action, number, bundle_version, number, (reason.strip(),))
    record(ledger, decision)  # first: a kill must not leave a move that nobody wrote down
    move_aliases(home_mlflow, MODEL_NAME, moved)
    return decision


def _version(home_mlflow: Path, number: int) -> ModelVersion:
    if has_versions(home_mlflow):
        with open_registry(home_mlflow, MODEL_NAME) as registry:
            for version in registry.versions():
                if version.number == number:
                    return version
    raise InputError(f"there is no version {number}", WHERE, "see `zantara model history`")


def _told(version: ModelVersion, aliases: dict[str, int]) -> Told:
    metrics: dict[str, float] = {}
    with suppress(InputError):  # of an older program: it is listed without figures
        metrics = Bundle.load(version.files).manifest["metrics"]
    return Told(
        version.number,
        version.tags.get("bundle_version", ""),
        version.tags.get(TRAINED_AS_OF, ""),
        version.tags.get("served_model", ""),
        tuple(sorted(alias for alias, number in aliases.items() if number == version.number)),
        metrics,
        version.retrain_by,
    )
