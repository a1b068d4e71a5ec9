"""`zantara experiment`: planning experiments, looking at those that run, stopping them, analysing one that lies in a table.

Belongs here: arguments and printing. Does not belong here: statistics (statistics/), verdicts (experiments/).
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zantara_pipeline.cli.table import print_table
from zantara_pipeline.contracts_io import parse_contract
from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.engine import published
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger

app = typer.Typer(help="Experiments: sizes before, stops meanwhile, analysis after.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of an experiment, like checkout_redesign.")]
Because = Annotated[str, typer.Option("--because", help="Why; it is kept and shown.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.callback()
def _group() -> None:
    """Experiments: sizes before, stops meanwhile, analysis after."""


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
    print_table(
        ("metric", "variant", "verdict", "difference", "95 % interval", "lift", "p", "adjusted p"),
        ((row.metric, row.variant, row.verdict, _number(row.difference),
          "-" if row.difference is None else f"{_number(row.difference_low)} .. {_number(row.difference_high)}",
          "-" if row.lift is None else f"{row.lift:+.1%}", _p(row.log_p),
          "-" if row.adjusted_p is None else f"{row.adjusted_p:.2g}")
         for row in found.metrics),
    )  # fmt: skip
    for row in found.metrics:
        reduction = row.cuped_variance_reduction
        print(f"{row.metric}: {row.method}" + ("" if reduction is None else f"; variance reduced by {reduction:.0%}"))
    for notice in found.notices:
        print(f"notice: {notice}")


class Language(StrEnum):
    """What an assigner can be written in."""

    PYTHON = "python"
    TYPESCRIPT = "typescript"


@app.command("list")
def list_experiments(as_json: AsJson = False) -> None:
    """Every registered experiment: dates, what the last run decided, and whether it is stopped.

    Example: zantara experiment list
    """
    told = [_told(name) for name in sorted(_registry().experiments)]
    if as_json:
        print(json.dumps(told))
        return
    columns = ("experiment", "start", "end", "decision", "stopped", "token")
    print_table(columns, (_row(one) for one in told), whole=columns)


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    stop = told["stop"]
    cells = (stop["cause"], stop["token"]) if stop else ("no", "")
    return (told["experiment"], told["start"], told["end"], told["decision"] or "-", *cells)


@app.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """One experiment: how it is declared, what the last run decided and why, every stop.

    Example: zantara experiment show checkout_redesign
    """
    from zantara_pipeline.experiments.looks import amendments, read_looks
    from zantara_pipeline.experiments.stops import all_stops

    told = _told(name)
    told["looks"] = [
        {"day": one.day, "as_of": one.as_of.isoformat(), "alpha": one.alpha, "decision": one.decision,
         "config_hash": one.config_hash, "input_hash": one.input_hash}
        for one in read_looks(_ledger()).get(name, [])
    ]  # fmt: skip
    told["amendments"] = [
        {"config_hash": one.config_hash, "as_of": one.as_of.isoformat()} for one in amendments(_ledger(), name)
    ]
    stops: list[dict[str, Any]] = [
        {"token": one.token, "cause": one.cause, "reason": one.reason, "stopped_at": one.stopped_at.isoformat(),
         "reverted_at": one.reverted_at.isoformat() if one.reverted_at else None, "reverted_because": one.reverted_because}
        for one in all_stops(_ledger(), name)
    ]  # fmt: skip
    if as_json:
        print(json.dumps(told | {"stops": stops}))
        return
    for key, value in told.items():
        if key not in ("reasons", "stop", "looks", "amendments"):
            print(f"{key:12} {'-' if value is None else value}")
    for reason in told["reasons"]:
        print(f"{'because':12} {reason}")
    for look in told["looks"]:
        print(f"{'look':12} day {look['day']} on {look['as_of'][:10]}, p below {look['alpha']:.3g}: {look['decision']}")
    for change in told["amendments"]:
        print(f"{'amended':12} after its start, seen on {change['as_of'][:10]}: {change['config_hash'][:12]}")
    for one in stops:
        ended = f"reverted {one['reverted_at'][:10]}: {one['reverted_because']}" if one["reverted_at"] else "holds"
        print(f"{'stop':12} {one['token']} on {one['stopped_at'][:10]} ({one['cause']}): {one['reason']}; {ended}")


@app.command("check")
def check(name: Name, as_json: AsJson = False) -> None:
    """The checklist of an experiment, and the smallest effect that it can find; ends with 1 where a point is open.

    A run stops before the scorecard while an experiment that has begun has open points.

    Example: zantara experiment check checkout_redesign
    """
    from zantara_pipeline.experiments.checklist import checklist
    from zantara_pipeline.tracking.plan import load_plan

    experiment = _experiment(name)
    points = checklist(experiment, load_plan(load_settings().contract_dirs).required_properties())
    power = _power_of(experiment)
    if as_json:
        told = [{"point": one.name, "passed": one.passed, "said": one.said} for one in points]
        print(json.dumps({"experiment": name, "points": told, "power": power}))
    else:
        print_table(("", "point", "what"), (("ok" if one.passed else "OPEN", one.name, one.said) for one in points))
        print(f"power: {power}")
    if not all(one.passed for one in points):
        raise typer.Exit(1)


@app.command("decide")
def decide_again(name: Name, as_json: AsJson = False) -> None:
    """Decide again by the last run's scorecard and looks, and hold that against what the run wrote; changes nothing.

    Ends with 1 where the two differ.

    Example: zantara experiment decide checkout_redesign
    """
    from zantara_pipeline.experiments.decisions import decide
    from zantara_pipeline.experiments.looks import read_looks
    from zantara_pipeline.experiments.scorecard import read_scorecard

    experiment, written = _experiment(name), _written(name)
    if written is None:
        raise InputError("no run has decided it yet", name, "run `zantara run` first")
    with published(Home(load_settings().home)) as con:
        rows = [row for row in read_scorecard(con) if row.experiment_id == name]
    found = decide(experiment, rows, written["as_of"], read_looks(_ledger()).get(name, ()))
    same = {
        "decision": (found.decision, list(found.variants), list(found.reasons))
        == (written["decision"], written["variants"], written["reasons"]),
        "input_hash": found.input_hash == written["input_hash"],
        "config_hash": found.config_hash == written["config_hash"],
    }
    if as_json:
        told = {"experiment": name, "decision": found.decision, "variants": found.variants, "reasons": found.reasons}
        hashes = {"input_hash": found.input_hash, "config_hash": found.config_hash}
        print(json.dumps(told | hashes | {"as_of": written["as_of"].isoformat(), "same": same}))
    else:
        print(f"{name}: {found.decision}{' ' + ', '.join(found.variants) if found.variants else ''}")
        for reason in found.reasons:
            print(f"because      {reason}")
        for what, equal in same.items():
            print(f"{what:12} {'as the run wrote it' if equal else 'DIFFERS from what the run wrote'}")
    if not all(same.values()):
        raise typer.Exit(1)


@app.command("stop")
def stop_experiment(name: Name, because: Because) -> None:
    """Take an experiment out of serving: applications show control as soon as they read experiments.json.

    Example: zantara experiment stop checkout_redesign --because "support is flooded"
    """
    from zantara_pipeline.experiments.stops import stop

    if not because.strip():
        raise InputError("no reason was given", "--because", "say why in a few words")
    ledger, experiment = _ledger(), _experiment(name)
    found = stop(ledger, name, experiment.config_hash, "person", because.strip(), _clock(ledger))
    if found is None:
        raise InputError("it is stopped already", name, "`zantara experiment show` says since when and why")
    print(f"stopped; applications show control from {_serve(ledger)} on")
    print(f"to take it back: zantara experiment revert {found.token} --because REASON")


@app.command("revert")
def revert_stop(token: Annotated[str, typer.Argument(help="Token of the stop.")], because: Because) -> None:
    """Take a stop back, the pipeline's or a person's. The pipeline does not stop the experiment for that cause again.

    Example: zantara experiment revert 5f0c9a1b2d3e4f60 --because "the logging was broken, and is mended"
    """
    from zantara_pipeline.experiments.stops import revert

    if not because.strip():
        raise InputError("no reason was given", "--because", "say why in a few words")
    ledger = _ledger()
    found = revert(ledger, token, because.strip())
    print(f"{found.experiment_id} is served again from {_serve(ledger)} on")
    if found.cause != "person":
        print(f"it is not stopped for {found.cause} again while its configuration stays as it is")


@app.command("assigner")
def assigner(
    language: Annotated[Language, typer.Argument(help="python or typescript.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.", metavar="<folder>")],
) -> None:
    """Write the file by which an application assigns units as experiments.json says; it needs no other package.

    Example: zantara experiment assigner typescript --out src
    """
    from zantara_pipeline.experiments.assigners import assigner_files

    out.mkdir(parents=True, exist_ok=True)
    for name, text in assigner_files(language.value).items():
        (out / name).write_text(text, encoding="utf-8")
        print(out / name)


def _registry() -> Any:
    from zantara_pipeline.experiments import load_experiments

    return load_experiments([folder / "experiments" for folder in load_settings().contract_dirs])


def _experiment(name: str) -> Any:
    known = _registry().experiments
    if name not in known:
        raise InputError("no such experiment", name, f"registered: {', '.join(sorted(known)) or 'none'}")
    return known[name]


def _ledger() -> Ledger:
    return Ledger(Home(load_settings().home).existing().create().state / "ledger.db")


def _clock(ledger: Ledger) -> datetime:
    from zantara_pipeline.tracking.clock import latest_received_at

    return load_settings().as_of or latest_received_at(ledger) or datetime.now(UTC)


def _serve(ledger: Ledger) -> Path:
    """Write experiments.json anew, for applications not to wait for the next run."""
    from zantara_pipeline.experiments import open_stops, served, write_served

    path = Home(load_settings().home).served_experiments
    write_served(path, served(_registry(), open_stops(ledger), _clock(ledger)))
    return path


def _told(name: str) -> dict[str, Any]:
    from zantara_pipeline.experiments import open_stops

    experiment, ledger = _experiment(name), _ledger()
    found, stop = _decision(name), open_stops(ledger).get(name)
    return {
        "experiment": name, "hypothesis": experiment.hypothesis, "owner": experiment.owner, "unit": experiment.unit,
        "salt": experiment.salt, "variants": ", ".join(f"{one} {weight:g}" for one, weight in experiment.variants.items()),
        "primary": experiment.primary, "secondary": ", ".join(experiment.secondary),
        "guardrails": ", ".join(f"{rule.name} {rule.threshold} {rule.basis}" for rule in experiment.guardrails),
        "start": f"{experiment.start:%Y-%m-%d}", "end": f"{experiment.end:%Y-%m-%d}",
        "planned": ", ".join(f"day {day}" for day in experiment.looks), "config_hash": experiment.config_hash,
        "decided_at": found[0].isoformat() if found else None, "decision": found[1] if found else None,
        "reasons": found[2] if found else [],
        "stop": {"token": stop.token, "cause": stop.cause, "reason": stop.reason} if stop else None,
    }  # fmt: skip


def _power_of(experiment: Any) -> str:
    """By the moments of the last run, if there was one; nothing of people is read."""
    from zantara_pipeline.experiments.planning import smallest_effect
    from zantara_pipeline.statistics import Moments

    rows: list[Any] = []
    if Home(load_settings().home).published.exists():
        with published(Home(load_settings().home)) as con:
            if con.execute(_MOMENTS_EXIST).fetchall():
                rows = con.execute(_CONTROL, [experiment.name, experiment.primary, experiment.control]).fetchall()
    if not rows or rows[0][1][0] != "value":
        return "unknown before a run has seen exposures; `zantara experiment power` tells by a rate or a deviation"
    n, names, sums, products = rows[0]
    found = smallest_effect(experiment, Moments(n, tuple(names), tuple(sums), tuple(products)), "value")
    if found is None:
        return f"{experiment.primary} does not vary in {experiment.control} so far"
    told = (
        f"{experiment.horizon_units:,} units show {experiment.primary} {found:+.1%} {experiment.power:.0%} of the time"
    )
    if experiment.minimum_effect is not None:
        enough = "is enough" if found <= experiment.minimum_effect else "is NOT enough"
        told += f", which {enough} for the declared {experiment.minimum_effect:+.1%}"
    return told


_MOMENTS_EXIST = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'experiments' AND table_name = 'moments'"
_CONTROL = (
    "SELECT n, names, sums, products FROM experiments.moments "
    "WHERE experiment_id = ? AND metric = ? AND variant = ? AND stratum = 'all'"
)


def _decision(name: str) -> tuple[datetime, str, list[str]] | None:
    found = _written(name)
    return (found["as_of"], found["decision"], found["reasons"]) if found else None


def _written(name: str) -> dict[str, Any] | None:
    """The row of experiments.decisions."""
    home = Home(load_settings().home)
    if not home.published.exists():
        return None
    with published(home) as con:
        there = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'experiments' AND table_name = 'decisions'"
        if not con.execute(there).fetchall():
            return None
        found = con.execute("FROM experiments.decisions WHERE experiment_id = ?", [name])
        columns = [column[0] for column in found.description or []]
        rows = found.fetchall()
    return dict(zip(columns, rows[0], strict=True)) if rows else None


def _one_of(**given: float | None) -> None:
    if sum(value is not None for value in given.values()) != 1:
        names = " or ".join(f"--{name}" for name in given)
        raise InputError(f"exactly one of {names} is needed", "zantara experiment power", "see --help")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _p(log_p: float | None) -> str:
    from zantara_pipeline.statistics import format_p

    return format_p(log_p)
