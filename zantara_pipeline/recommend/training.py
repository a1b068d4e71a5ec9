"""Train, evaluate and register one bundle, or find that the same one exists already.

Belongs here: the order of steps and what identifies a bundle. Does not belong here: SQL (loading.py), models,
formulas, MLflow calls (registry/), published tables (publish.py).
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.recommend.artifacts import Bundle, make_bundle
from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.decisions import Action, Decision, decisions, held_back, record
from zantara_pipeline.recommend.evaluation import STACK, Evaluation, evaluate
from zantara_pipeline.recommend.gate import choose
from zantara_pipeline.recommend.loading import Collected, collect, dataset_hash, feature_hash, load, release
from zantara_pipeline.recommend.promotion import check_version
from zantara_pipeline.recommend.rolling import fit_all
from zantara_pipeline.registry import ModelVersion, NewVersion, Registry, open_registry
from zantara_pipeline.storage.ledger import Ledger

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MODEL_NAME = "zantara-recommender"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# Tag of a version: the clock of the run that trained it.
TRAINED_AS_OF = "trained_as_of"
# Libraries whose version may change a learned bit; part of a bundle's identity.
LIBRARIES = ("lightfm-next", "implicit", "lightgbm", "scikit-learn", "numpy", "scipy", "duckdb")
SERVING = ("mlflow", "numpy", "pyarrow", "pydantic", "scipy", "lightfm-next", "lightgbm", "pyyaml")
# Metrics of a version in MLflow, besides intervals of the gate's own: what one compares versions by at a glance.
LOGGED = ("ndcg", "ndcg_diff", "ndcg_lead", "recall", "ceiling")

METRIC_ROWS = pa.schema(
    [
        ("bundle_version", pa.string()),
        ("model", pa.string()),
        ("cut_date", pa.timestamp("us", tz="UTC")),
        ("slice", pa.string()),
        ("metric", pa.string()),
        ("k", pa.int32()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("users", pa.int64()),
    ]
)


@dataclass(frozen=True)
class TrainResult:
    """What happened; `metrics` has keys like "stack.warm.ndcg_10".

    bundle_version and served_model are None where there was nothing to do (`note` says why); decided is None where the
    version serves already, or was decided about before.
    """

    bundle_version: str | None
    reused: bool
    n_users: int
    n_items: int
    n_interactions: int
    metrics: dict[str, float] = field(default_factory=dict)
    served_model: str | None = None
    note: str = ""
    model_number: int | None = None
    identity: dict[str, str] = field(default_factory=dict)
    decided: Decision | None = None


def train_and_evaluate(
    con: DuckDBPyConnection,
    config: RecommendationConfig,
    *,
    as_of: datetime,
    home_mlflow: Path,
    git_revision: str,
    ledger: Ledger,
    progress: Callable[[str], None] = lambda step: None,
) -> TrainResult:
    """Train a version that fits the warehouse as of a time, and let the gate decide whether it serves.

    Reuses a registered version where data, features, configuration, code and libraries are the same. The alias
    `champion` is moved last, so that a kill leaves either the old champion or the new one.

    Parameters
    ----------
    con : warehouse connection (features.interactions, core.products); temporary tables are used and dropped.
    as_of : timezone-aware; later interactions are not read.
    home_mlflow : <home>/mlflow.
    ledger : the audit of decisions is written there.
    git_revision : recorded, not part of the identity (the source of this package is): a commit of a document
        must not make a new model.
    progress : called with a few words at each step.
    """
    try:
        found = collect(con, config, as_of)
        nothing = found.too_little(config)
        if nothing:
            return TrainResult(None, False, found.n_users, found.n_items, found.n_interactions, note=nothing)
        identity = _identity(con, config)
        bundle_version = _bundle_version(identity)
        with open_registry(home_mlflow, MODEL_NAME, write=True) as registry:
            reused = _reusable(registry, bundle_version)
            if reused is not None:
                registered, bundle = reused
            else:
                progress("training and evaluating")
                bundle = make_anew(con, config, found, bundle_version, identity)
                progress("logging the model")
                registered = registry.log(_new_version(registry, bundle, git_revision, as_of))
            decided = _settle(registry, ledger, registered, con, config, as_of, progress)
    finally:
        release(con)
    return TrainResult(
        bundle_version,
        reused is not None,
        found.n_users,
        found.n_items,
        found.n_interactions,
        bundle.manifest["metrics"],
        bundle.served_model,
        bundle.manifest["reason"],
        registered.number,
        identity,
        decided,
    )


def _settle(
    registry: Registry,
    ledger: Ledger,
    registered: ModelVersion,
    con: DuckDBPyConnection,
    config: RecommendationConfig,
    as_of: datetime,
    progress: Callable[[str], None],
) -> Decision | None:
    """Decide about a version, write that down, then move the aliases: killed in between, the next run does the same."""
    champion = registry.by_alias(CHAMPION)
    if champion is not None and champion.number == registered.number:
        return None
    said = [one for one in decisions(ledger) if one.version == registered.number]
    number = None if champion is None else champion.number
    if said and said[-1].action in ("challenger", "refused") and said[-1].champion == number:
        return None
    progress("deciding which version serves")
    old = _readable(champion)
    action, reasons = _judge(registered, champion, old, held_back(ledger), con, config)
    serves = action in ("first", "refresh", "replaced")
    decision = Decision(
        utc_text(as_of),
        action,
        registered.number,
        registered.tags["bundle_version"],
        registered.number if serves else number,
        reasons,
    )
    record(ledger, decision)
    if action == "challenger":
        registry.point(CHALLENGER, registered)
    elif serves:
        if champion is not None and old is not None and champion.retrain_by is None:
            registry.point(PREVIOUS, champion)
        registry.point(CHAMPION, registered)
    return decision


def _judge(
    registered: ModelVersion,
    champion: ModelVersion | None,
    old: Bundle | None,
    held: bool,
    con: DuckDBPyConnection,
    config: RecommendationConfig,
) -> tuple[Action, tuple[str, ...]]:
    new = Bundle.load(registered.files)
    alike = old is not None and recipe(old.manifest["config"]) == recipe(new.manifest["config"])
    today = None
    if old is not None and not alike:
        theirs = RecommendationConfig.model_validate(old.manifest["config"])
        dataset = load(con)
        today = evaluate(dataset, theirs)[0].per_user_table(dataset.user_ids)
    checks = check_version(new, old, today, config.gate, strict=not alike)
    failed = tuple(check.told for check in checks if not check.passed)
    told = tuple(check.told for check in checks)
    if broken := tuple(check.told for check in checks if check.breaks and not check.passed):
        return "refused", broken
    if champion is None:
        return "first", (config.gate.first, *told)
    if champion.retrain_by is not None:
        return "replaced", (f"version {champion.number} had learned from somebody who was erased", *told)
    if old is None:
        return "replaced", (f"version {champion.number} cannot be read by this program", *told)
    if failed:
        return "refused", failed
    if not alike:
        return "challenger", ("the configuration changed: promote it, or try it in an experiment first", *told)
    if held:
        return "challenger", ("somebody rolled back: runs replace nothing until somebody promotes", *told)
    return "refresh", told


def _readable(version: ModelVersion | None) -> Bundle | None:
    """Its bundle, or None where this program cannot read it or its configuration."""
    if version is None:
        return None
    try:
        bundle = Bundle.load(version.files)
        RecommendationConfig.model_validate(bundle.manifest["config"])
    except (InputError, ValueError):
        return None
    return bundle


def recipe(config: dict[str, Any]) -> str:
    """What of a configuration makes a model, as text: all but the gate and the length of lists."""
    return json.dumps({key: value for key, value in config.items() if key not in ("gate", "lists")}, sort_keys=True)


def load_champion(home_mlflow: Path) -> Bundle | None:
    """The bundle that serves, or None where nothing was ever trained."""
    with open_registry(home_mlflow, MODEL_NAME) as registry:
        champion = registry.by_alias(CHAMPION)
    return None if champion is None else Bundle.load(champion.files)


def config_hash(config: RecommendationConfig) -> str:
    """Hash of the contract's values (comments and layout do not count)."""
    return _sha(json.dumps(config.model_dump(mode="json"), sort_keys=True))


def code_hash() -> str:
    """Hash of this package's source files."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


def _identity(con: DuckDBPyConnection, config: RecommendationConfig) -> dict[str, str]:
    """Everything that decides a bundle's bits."""
    return {
        "dataset_hash": dataset_hash(con),
        "feature_hash": feature_hash(con),
        "config_hash": config_hash(config),
        "code_hash": code_hash(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: version(name) for name in LIBRARIES},
    }


def _bundle_version(identity: dict[str, str]) -> str:
    return f"stack-{_sha(json.dumps(identity, sort_keys=True))[:12]}"


def _reusable(registry: Registry, bundle_version: str) -> tuple[ModelVersion, Bundle] | None:
    """A registered version of this identity whose files can still be read."""
    registered = registry.find("bundle_version", bundle_version)
    if registered is None:
        return None
    try:
        return registered, Bundle.load(registered.files)
    except InputError:
        return None


def make_anew(
    con: DuckDBPyConnection,
    config: RecommendationConfig,
    found: Collected,
    bundle_version: str,
    identity: dict[str, str],
) -> Bundle:
    """Train and evaluate on what was collected; the same data, configuration and program give the same bits."""
    dataset = load(con)
    evaluation, learned = evaluate(dataset, config)
    choice = choose(evaluation, config.gate)
    manifest = {
        "bundle_version": bundle_version,
        "served_model": choice.served_model,
        "reason": choice.reason,
        "identity": identity,
        "counts": asdict(found),
        "metrics": _flat(evaluation),
        "rules": [asdict(cost) for cost in evaluation.rules()],
    }
    metrics = _metric_table(evaluation, bundle_version)
    per_user = evaluation.per_user_table(dataset.user_ids)
    return make_bundle(fit_all(dataset, config), learned, config, manifest, metrics, per_user)


def _new_version(registry: Registry, bundle: Bundle, git_revision: str, as_of: datetime) -> NewVersion:
    files = registry.empty_folder()
    bundle.save(files)
    identity, config = bundle.manifest["identity"], bundle.manifest["config"]
    return NewVersion(
        run_name=bundle.version,
        model_code=Path(__file__).with_name("bundle.py"),
        files=files,
        requirements=[f"{name}=={version(name)}" for name in SERVING],
        tags={
            "bundle_version": bundle.version,
            "served_model": bundle.served_model,
            "git_revision": git_revision,
            TRAINED_AS_OF: as_of.astimezone(UTC).isoformat(),
            **identity,
        },
        params={**_leaves(config), **{key: str(value) for key, value in bundle.manifest["counts"].items()}},
        metrics=bundle.manifest["metrics"],
    )


def _flat(evaluation: Evaluation) -> dict[str, float]:
    """Of all cuts together, like "stack.warm.ndcg_10"."""
    flat: dict[str, float] = {}
    for row in evaluation.rows:
        if row.cut_us is None and row.metric in LOGGED and row.value is not None:
            name = f"{row.model}.{row.slice.replace('=', '_')}.{row.metric}_{row.k}"
            bounds = {f"{name}.ci_low": row.ci_low, f"{name}.ci_high": row.ci_high} if row.metric != "recall" else {}
            if row.model == STACK and row.metric == "ndcg":
                flat[f"{row.model}.{row.slice.replace('=', '_')}.users"] = float(row.users)
            flat |= {name: row.value} | {key: bound for key, bound in bounds.items() if bound is not None}
    return flat


def _metric_table(evaluation: Evaluation, bundle_version: str) -> pa.Table:
    rows = []
    for row in evaluation.rows:
        values = asdict(row)
        cut_us = values.pop("cut_us")
        cut = None if cut_us is None else datetime.fromtimestamp(cut_us / 1e6, UTC)
        rows.append({"bundle_version": bundle_version, "cut_date": cut, **values})
    return pa.Table.from_pylist(rows, schema=METRIC_ROWS)


def _leaves(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested configuration as dotted names."""
    leaves: dict[str, str] = {}
    for key, value in config.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return leaves


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
