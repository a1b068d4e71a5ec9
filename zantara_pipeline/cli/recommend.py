"""`zantara recommend`: recommenders on plain files, and what a person is shown and why.

Belongs here: arguments and printing. Does not belong here: models, metrics (recommend/).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from zantara_pipeline.cli.table import print_table
from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.engine import published
from zantara_pipeline.storage.home import Home

app = typer.Typer(help="Recommendations: on files, and what a person is shown and why.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Train = Annotated[
    Path, typer.Option(help="Interactions to learn from: .csv or .parquet with user_id, item_id, timestamp.")
]
Items = Annotated[
    Path | None, typer.Option(help="Attributes: .csv or .parquet with item_id, category, brand, provider.")
]
Config = Annotated[Path | None, typer.Option(help="recommendation.yaml to use instead of the packaged one.")]
# What is printed of an evaluation; everything else is in --json.
SHOWN = ("ndcg", "mrr", "recall", "map")


@app.callback()
def _group() -> None:
    """Recommendations: on files, and what a person is shown and why."""


@app.command("evaluate")
def evaluate(
    train: Train,
    test: Annotated[Path, typer.Option(help="Interactions that came later, same columns.")],
    items: Items = None,
    model: Annotated[str | None, typer.Option(help="Only this model, like stack or lightfm; default: all.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Fit every model on one file and measure it on another; nothing of the home is read.

    Example: zantara recommend evaluate --train train.csv --test test.csv --items items.csv --json
    """
    from zantara_pipeline.recommend import evaluate_files, load_config

    result = evaluate_files(train, test, items=items, model=model, config=load_config(config))
    if as_json:
        print(json.dumps(result))
        return
    print(f"trained on   {result['train_rows']:,} rows, {result['users']:,} users, {result['items']:,} items")
    print(f"tested on    {result['test_users']:,} users, {result['warm_test_users']:,} of them with a history")
    print(f"gate         {result['gate']['reason']}")
    at = min(row["k"] for row in result["metrics"])
    rows = [row for row in result["metrics"] if row["slice"] == "all" and row["k"] == at]
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["metric"]): row for row in rows}
    print_table(
        ("model", *(f"{metric}@{at}" for metric in SHOWN), "95 % of " + f"ndcg@{at}", "stack leads by"),
        ((name, *(_value(cells.get((name, metric))) for metric in SHOWN), _bounds(cells.get((name, "ndcg"))),
          _lead(cells.get((name, "ndcg_lead")))) for name in models),
    )  # fmt: skip


@app.command("get")
def get(
    user: Annotated[str, typer.Argument(help="The company's own id of a person.")],
    k: Annotated[int, typer.Option(help="At most so many products.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What the last run published for somebody, as an application would ask. Exit 1 where nobody may be told anything.

    Example: zantara recommend get u000017 --json
    """
    rows = _published_list(user)[:k]
    if as_json:
        print(json.dumps({"user_id": user, "products": rows}, default=str))
        return
    print_table(
        ("rank", "product", "score", "served by", "because"),
        ((str(row["rank"]), row["product_id"], f"{row['score']:.4f}", row["served_by"], ", ".join(row["reasons"]))
         for row in rows),
    )  # fmt: skip


@app.command("explain")
def explain_item(
    user: Annotated[str, typer.Argument(help="The company's own id of a person who has a list.")],
    product: Annotated[str, typer.Argument(help="A product.")],
    as_json: AsJson = False,
) -> None:
    """Why a product stands where it stands for somebody: parts that sum to the score. Exit 1 where they have no list.

    Example: zantara recommend explain u000017 p0042
    """
    from zantara_pipeline.recommend import explain, load_champion

    _published_list(user)
    bundle = load_champion(_home().mlflow)
    if bundle is None or user not in bundle.code_of_user:
        print("the model knows nothing of them: popularity serves", file=sys.stderr)
        raise typer.Exit(1)
    if product not in bundle.code_of_item:
        raise InputError(f"no product {product}", "the model that serves", "give a product of the catalogue")
    told = explain(bundle, bundle.code_of_user[user], bundle.code_of_item[product], bundle.config.lists.length)
    if as_json:
        print(json.dumps(asdict(told)))
        return
    where = "not in the list" if told.rank is None else f"place {told.rank}"
    print(f"{told.product_id}: {where}, served by {told.served_by}, score " + _or_none(told.score))
    for title, parts in (("parts of the score", told.parts), ("parts of LightFM's own score", told.lightfm)):
        if parts:
            print(f"{title} (sum {sum(parts.values()):+.4f})")
            ordered = sorted(parts.items(), key=lambda part: (-abs(part[1]), part[0]))
            print_table(("part", "share"), ((name, f"{share:+.4f}") for name, share in ordered))
    if told.places:
        print("place in the list of " + ", ".join(f"{name} {place}" for name, place in told.places.items()))


@app.command("fit")
def fit(
    train: Train,
    out: Annotated[Path, typer.Option(help="Folder for the fitted model.")],
    items: Items = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Fit the whole stack on a file; `zantara recommend top` lists from the folder it writes.

    Example: zantara recommend fit --train train.csv --out model
    """
    from zantara_pipeline.recommend import fit_file, load_config

    counts = fit_file(train, out, items=items, config=load_config(config))
    if as_json:
        print(json.dumps(counts))
    else:
        print(f"{out}: fitted on {counts['rows']:,} rows, {counts['users']:,} users, {counts['items']:,} items")


@app.command("top")
def top(
    model: Annotated[Path, typer.Option(help="Folder that `recommend fit` wrote.")],
    users: Annotated[Path | None, typer.Option(help="File with one user_id a line; default: everybody.")] = None,
    k: Annotated[int, typer.Option(help="Products per user.")] = 20,
    out: Annotated[Path | None, typer.Option(help=".csv or .parquet to write; default: print CSV.")] = None,
) -> None:
    """Write the best products of each user, best first: user_id, rank, product_id, score, served_by.

    Example: zantara recommend top --model model --users users.txt --k 10 --out lists.csv
    """
    import pyarrow.csv
    import pyarrow.parquet

    from zantara_pipeline.recommend import top_lists

    lists = top_lists(model, None if users is None else _users(users), k)
    if out is None:
        pyarrow.csv.write_csv(lists, typer.get_binary_stream("stdout"))
        return
    beside = out.with_name(out.name + ".new")
    try:
        if out.suffix == ".parquet":
            pyarrow.parquet.write_table(lists, beside)
        else:
            pyarrow.csv.write_csv(lists, beside)
        beside.rename(out)
    except OSError as error:
        raise InputError(
            f"cannot be written ({type(error).__name__})", out, "name a file in a folder that is there"
        ) from None
    print(f"{out}: {len(lists):,} rows")


def _home() -> Home:
    return Home(load_settings().home).existing().create()


def _published_list(user: str) -> list[dict[str, Any]]:
    """Somebody's list; ends with 1 where there is none, for want of consent or of acquaintance: neither is told."""
    from zantara_pipeline.recommend import published_list

    with published(_home()) as con:
        rows = published_list(con, user)
    if not rows:
        print("no list: they are unknown, or do not allow personalization", file=sys.stderr)
        raise typer.Exit(1)
    return rows


def _or_none(value: float | None) -> str:
    return "none: no source names it" if value is None else f"{value:.4f}"


def _users(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read ({type(error).__name__})", path, "give a text file, one user_id a line"
        ) from None
    return [line.strip() for line in lines if line.strip() and line.strip() != "user_id"]


def _value(row: dict[str, Any] | None) -> str:
    return "-" if row is None or row["value"] is None else f"{row['value']:.4f}"


def _bounds(row: dict[str, Any] | None) -> str:
    return "-" if row is None or row["ci_low"] is None else f"{row['ci_low']:.4f} .. {row['ci_high']:.4f}"


def _lead(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    return f"{row['value']:+.4f} ({row['ci_low']:+.4f} .. {row['ci_high']:+.4f})"
