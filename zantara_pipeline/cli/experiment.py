"""`zantara experiment`: planning an experiment, and analysing one that lies in a table.

Belongs here: arguments and printing. Does not belong here: statistics (statistics/), verdicts (experiments/).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from zantara_pipeline.contracts_io import parse_contract
from zantara_pipeline.errors import InputError

app = typer.Typer(help="Experiments: sizes before, analysis after.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.callback()
def _group() -> None:
    """Experiments: sizes before, analysis after."""


@app.command("power")
def power(
    deviation: Annotated[float | None, typer.Option(help="Standard deviation of the metric over units.")] = None,
    rate: Annotated[float | None, typer.Option(help="Or, for a proportion, its rate in control (0.04 is 4 %).")] = None,
    effect: Annotated[
        float | None, typer.Option(help="True difference to be found; prints the units it needs.")
    ] = None,
    units: Annotated[int | None, typer.Option(help="Units of both arms; prints the smallest effect they show.")] = None,
    share: Annotated[float, typer.Option(help="Share of units in the treatment.")] = 0.5,
    alpha: Annotated[float, typer.Option(help="Two-sided error.")] = 0.05,
    wanted: Annotated[float, typer.Option("--power", help="Chance to find the effect.")] = 0.8,
    looks: Annotated[int, typer.Option(help="Evenly spaced looks (O'Brien-Fleming spending).")] = 1,
    correlation: Annotated[float, typer.Option(help="Of metric and covariate: CUPED takes its square off.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Units that an effect needs, or the smallest effect that so many units show.

    Example: zantara experiment power --rate 0.04 --effect 0.004 --looks 4
    """
    from zantara_pipeline.statistics.group_sequential import drift_for_power, spending_bounds
    from zantara_pipeline.statistics.power import fixed_drift, minimum_detectable_effect, units_needed

    _one_of(deviation=deviation, rate=rate)
    _one_of(effect=effect, units=units)
    if rate is not None and not 0 < rate < 1:
        raise InputError(f"a rate is between 0 and 1, not {rate:g}", "--rate", "write 4 % as 0.04")
    if not 1 <= looks <= 400:
        raise InputError(f"{looks} looks", "--looks", "give 1 to 400 looks")
    if not -1 < correlation < 1:
        raise InputError(
            f"a correlation is between -1 and 1, not {correlation:g}", "--correlation", "leave it out for none"
        )
    spread = math.sqrt(rate * (1 - rate)) if rate is not None else deviation or 0.0
    spread *= math.sqrt(1 - correlation**2)
    try:
        drift = fixed_drift(alpha, wanted)
        if looks > 1:
            drift = drift_for_power(spending_bounds([(k + 1) / looks for k in range(looks)], alpha), wanted)
        sizes = {"share": share, "alpha": alpha, "power": wanted, "drift": drift}
        found = (
            math.ceil(units_needed(spread, effect, **sizes))
            if effect is not None
            else minimum_detectable_effect(spread, units or 0, **sizes)
        )
    except ValueError as error:
        raise InputError(str(error), "zantara experiment power", "give other numbers") from None
    told = {"units" if effect is not None else "effect": found, "deviation": spread, "looks": looks}
    told["looks_cost_units"] = (drift / fixed_drift(alpha, wanted)) ** 2 - 1
    if as_json:
        print(json.dumps(told))
    elif effect is not None:
        print(f"{found:,} units in both arms together")
    else:
        print(f"a true difference of {found:.4g} is found {wanted:.0%} of the time")
    if looks > 1 and not as_json:
        print(f"the {looks} looks cost {told['looks_cost_units']:.1%} more units than one at the end")


@app.command("analyze")
def analyze(
    units: Annotated[Path, typer.Option(help="Table with one row a unit: .parquet, .csv or .csv.gz.")],
    config: Annotated[Path, typer.Option(help="YAML that names its columns (docs/how-to-analyze-a-table.md).")],
    as_json: AsJson = False,
) -> None:
    """Analyse an experiment that lies in one table; nothing of the home is read.

    Example: zantara experiment analyze --units results.parquet --config results.yaml --json
    """
    from zantara_pipeline.experiments.unit_table import UnitTableFile, analyze_units

    found = analyze_units(units, parse_contract(UnitTableFile, config))
    if as_json:
        print(json.dumps(found.as_dict()))
        return
    print("units      " + ", ".join(f"{name} {count:,}" for name, count in found.units.items()))
    if found.clusters:
        print("clusters   " + ", ".join(f"{name} {count:,}" for name, count in found.clusters.items()))
    srm = "too few units to say" if found.srm_p_value is None else f"p = {found.srm_p_value:.2g}"
    print(f"split      {'BROKEN' if found.srm else 'as declared'} ({srm})")
    table = Table(box=None)
    for column in ("metric", "variant", "verdict", "difference", "95 % interval", "lift", "p", "adjusted p"):
        table.add_column(column)
    for row in found.metrics:
        table.add_row(
            row.metric, row.variant, row.verdict, _number(row.difference),
            "-" if row.difference is None else f"{_number(row.difference_low)} .. {_number(row.difference_high)}",
            "-" if row.lift is None else f"{row.lift:+.1%}", _p(row.log_p), "-" if row.adjusted_p is None else f"{row.adjusted_p:.2g}",
        )  # fmt: skip
    Console().print(table)
    for row in found.metrics:
        reduction = row.cuped_variance_reduction
        print(f"{row.metric}: {row.method}" + ("" if reduction is None else f"; variance reduced by {reduction:.0%}"))
    for notice in found.notices:
        print(f"notice: {notice}")


def _one_of(**given: float | None) -> None:
    if sum(value is not None for value in given.values()) != 1:
        names = " or ".join(f"--{name}" for name in given)
        raise InputError(f"exactly one of {names} is needed", "zantara experiment power", "see --help")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _p(log_p: float | None) -> str:
    from zantara_pipeline.statistics import format_p

    return format_p(log_p)
