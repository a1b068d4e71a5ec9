"""`zantara model`: versions of the recommender: which serves, how two compare, promoting, going back, making one again.

Belongs here: arguments and printing. Does not belong here: deciding (recommend/), MLflow (registry/).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from zantara_pipeline.cli.table import print_table
from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.engine import published
from zantara_pipeline.storage.home import Home, home_lock
from zantara_pipeline.storage.ledger import Ledger

app = typer.Typer(help="Versions of the recommender.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Version = Annotated[int, typer.Argument(help="Number of a version, as `zantara model history` shows it.")]


@app.callback()
def _group() -> None:
    """Versions of the recommender."""


@app.command("history")
def show_history(as_json: AsJson = False) -> None:
    """Every version with its figures, which one serves, and every decision about them.

    Example: zantara model history
    """
    from zantara_pipeline.recommend import decisions, history

    home = _home()
    versions, said = history(home.mlflow), decisions(_ledger(home))
    if as_json:
        print(json.dumps({"versions": [asdict(one) for one in versions], "decisions": [asdict(one) for one in said]}))
        return
    if not versions:
        print("no version was trained yet")
        return
    print_table(
        ("version", "bundle", "trained as of", "alias", "ndcg@10 of all", "lightfm alone", "popularity"),
        ((str(one.version), one.bundle_version, one.trained_as_of, ", ".join(one.aliases),
          *(_figure(one.metrics, name) for name in ("stack", "lightfm", "popularity"))) for one in versions),
    )  # fmt: skip
    print()
    print_table(
        ("as of", "decision", "version", "serves then", "because"),
        ((one.as_of, one.action, str(one.version), "" if one.champion is None else str(one.champion), "; ".join(one.reasons))
         for one in said),
    )  # fmt: skip


@app.command("compare")
def compare(
    first: Version,
    second: Version,
    metric: Annotated[str, typer.Option(help="Like ndcg_10, recall_20, mrr_10, map_10.")] = "ndcg_10",
    as_json: AsJson = False,
) -> None:
    """First minus second, on the cuts and people that both were measured on, paired by user.

    Example: zantara model compare 3 2
    """
    from zantara_pipeline.recommend import compare_versions

    told = compare_versions(_home().mlflow, first, second, metric)
    if as_json:
        print(json.dumps(told))
    else:
        print(
            f"{metric} of version {first} minus version {second}: {told['difference']:+.4f} "
            f"({told['ci_low']:+.4f} to {told['ci_high']:+.4f}, {told['users']} users)"
        )


@app.command("promote")
def promote_version(
    version: Version,
    experiment: Annotated[str | None, typer.Option(help="Experiment whose latest decision is ship.")] = None,
    without_experiment: Annotated[
        str | None, typer.Option(help="Why it serves without one; kept in the audit.")
    ] = None,
) -> None:
    """Let a version serve from the next run on; the one that served is kept for a rollback.

    Example: zantara model promote 4 --without-experiment "the catalogue doubled; checked by hand"
    """
    from zantara_pipeline.recommend import promote, require_shipped

    if (experiment is None) == (without_experiment is None):
        raise InputError(
            "one of the two is needed", "zantara model promote", "give --experiment or --without-experiment"
        )
    home = _home()
    reason = without_experiment or ""
    if experiment is not None:
        reason = f"experiment {experiment} was decided: ship"
        with published(home) as con:
            require_shipped(con, experiment)
    with home_lock(home, "zantara model promote"):
        decision = promote(home.mlflow, _ledger(home), version, reason)
    print(f"version {decision.version} serves from the next run on: `zantara run`")


@app.command("rollback")
def rollback(
    because: Annotated[str, typer.Option("--because", help="Why; it is kept in the audit.")],
) -> None:
    """Let the version serve again that served before; runs replace nothing until somebody promotes.

    Example: zantara model rollback --because "clicks fell by a third since yesterday"
    """
    from zantara_pipeline.recommend import roll_back

    home = _home()
    with home_lock(home, "zantara model rollback"):
        decision = roll_back(home.mlflow, _ledger(home), because)
    print(f"version {decision.version} serves again; the next run writes its lists: `zantara run`")


@app.command("reproduce")
def reproduce_version(version: Version, as_json: AsJson = False) -> None:
    """Train a version again as of its own clock and compare it bit for bit. Exit 1 where it cannot be had again.

    Example: zantara model reproduce 3
    """
    from zantara_pipeline.recommend import reproduce

    home = _home()
    with published(home) as con:
        told = reproduce(con, home.mlflow, version)
    if as_json:
        print(json.dumps(told))
    elif told["reproduced"]:
        print(f"version {version} was made again, every bit of it")
    else:
        print(f"version {version} cannot be had again: {'; '.join(told['differs'])}")
    if not told["reproduced"]:
        raise typer.Exit(1)


def _home() -> Home:
    return Home(load_settings().home).existing().create()


def _ledger(home: Home) -> Ledger:
    return Ledger(home.state / "ledger.db")


def _figure(metrics: dict[str, float], model: str) -> str:
    value = metrics.get(f"{model}.all.ndcg_10")
    return "-" if value is None else f"{value:.4f}"
