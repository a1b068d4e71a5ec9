"""Assets of the recommender: the model, its offline metrics, everybody's list."""

from typing import Any

import dagster as dg

from zantara_pipeline.orchestration.alert_ledger import alert_ledger
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.recommend import (
    RETRAINING_KINDS,
    expire_models,
    load_champion,
    load_config,
    models_over,
    retraining_findings,
    train_and_evaluate,
    write_offline_metrics,
    write_recommendations,
)
from zantara_pipeline.settings import PROJECT_ROOT
from zantara_pipeline.storage.revision import git_revision

_COMMON: dict[str, Any] = {"group_name": "recommendations", "owners": ["growth-data@example.com"], "pool": "warehouse"}


@dg.asset(
    key=["recommendations", "model"],
    deps=[["features", "interactions"], ["core", "products"]],
    kinds={"mlflow", "python"},
    description="The recommender that serves: LightFM (WARP) beside popularity, evaluated on a time split and registered "
    "in MLflow under the alias `champion`. The same data and configuration make no new version.",
    **_COMMON,
)
def model(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    mlflow, as_of = pipeline.home.mlflow, pipeline.as_of(context)
    try:
        with pipeline.warehouse() as con:
            result = train_and_evaluate(
                con, load_config(pipeline.settings.contract_dirs), as_of=as_of, home_mlflow=mlflow,
                git_revision=git_revision(PROJECT_ROOT), ledger=pipeline.ledger, progress=context.log.info,
            )  # fmt: skip
    finally:  # training that fails leaves the version that serves
        raised, resolved = alert_ledger(pipeline).sync(retraining_findings(mlflow, as_of), as_of, RETRAINING_KINDS)
    kept = pipeline.plan.privacy.retention.models
    expired = expire_models(mlflow, pipeline.ledger, kept.days, as_of) if kept.enforce else 0
    over = 0 if kept.enforce else len(models_over(mlflow, kept.days, as_of))
    return dg.MaterializeResult(
        metadata={
            "versions_expired": expired, "versions_over_their_retention_and_kept": over,
            "bundle_version": result.bundle_version or "none", "reused": result.reused, "serves": result.served_model or "none",
            "decided": "no change" if result.decided is None else result.decided.action, "reasons": [] if result.decided is None else list(result.decided.reasons),
            "alerts_raised": len(raised), "alerts_resolved": len(resolved), "note": result.note, "users": result.n_users, "items": result.n_items, "interactions": result.n_interactions,
            **{name: value for name, value in result.metrics.items() if "ndcg_10" in name},
        }
    )  # fmt: skip


@dg.asset(
    key=["recommendations", "offline_metrics"],
    deps=[model],
    kinds={"duckdb"},
    description="NDCG, MRR, recall and coverage of each model with intervals. Grain: bundle_version, model, slice, metric, k.",
    **_COMMON,
)
def offline_metrics(context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult:
    bundle = load_champion(pipeline.home.mlflow)
    with pipeline.warehouse() as con:
        rows = write_offline_metrics(
            con, load_config(pipeline.settings.contract_dirs), bundle, as_of=pipeline.as_of(context)
        )
    return dg.MaterializeResult(metadata={"rows": rows})


@dg.asset(
    key=["recommendations", "user_recommendations"],
    deps=[model, ["core", "users"]],
    kinds={"duckdb"},
    description="The list of everybody who allows personalization, popularity for whom the model does not know. "
    "Grain: user_id, rank. Read by the serving application.",
    **_COMMON,
)
def user_recommendations(
    context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    bundle = load_champion(pipeline.home.mlflow)
    with pipeline.warehouse() as con:
        result = write_recommendations(
            con, load_config(pipeline.settings.contract_dirs), bundle, as_of=pipeline.as_of(context)
        )
    return dg.MaterializeResult(
        metadata={"users": result.users, "rows": result.rows, "note": result.note, **result.users_by_model}
    )


ASSETS = [model, offline_metrics, user_recommendations]
