"""What follows from a scorecard: continue, stop, ship or not, with its reasons in plain words.

| decision | when |
| --- | --- |
| stop_srm | the split is broken: nothing that the experiment says can be trusted |
| stop_harm | a guardrail is proven to be worse than tolerated, in any variant |
| continue | no planned look was decisive so far |
| ship | the primary metric of a variant is better (Holm over variants), and all of its guardrails are proven safe |
| do_not_ship | the primary metric of every variant is worse |
| inconclusive | the last look decided none of these: no proof either way, or a guardrail that is not proven safe |

The two stops are said at any time: of a split whose days share srm_alpha (srm.py), and of harm by an interval that holds at all
looks together (verdicts.py). Effects are judged at planned looks alone (looks.py);
what a look decided stays, whatever later runs would say.

Belongs here: those rules, and writing experiments.decisions. Does not belong here: verdicts of single metrics
(verdicts.py), the rows of stops (stops.py).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from zantara_pipeline.experiments import verdicts
from zantara_pipeline.experiments.looks import (
    DECISIVE,
    Look,
    Taken,
    look_at,
    next_day,
    read_looks,
    record_configuration,
    write_look,
)
from zantara_pipeline.experiments.moments import comment_columns, transaction
from zantara_pipeline.experiments.registry import Experiment, ExperimentRegistry
from zantara_pipeline.experiments.scorecard import ScorecardRow
from zantara_pipeline.experiments.stops import open_stops, stop
from zantara_pipeline.storage.ledger import Ledger

Word = Literal["continue", "stop_srm", "stop_harm", "ship", "do_not_ship", "inconclusive"]
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("experiment_id", "varchar", "Experiment (name of its YAML file)."),
    ("as_of", "timestamptz", "Clock of the run that decided."),
    ("decision", "varchar", "continue, stop_srm, stop_harm, ship, do_not_ship or inconclusive."),
    ("variants", "varchar[]", "Variants that it is about: those to ship, or those that harm."),
    ("reasons", "varchar[]", "Why, in plain words."),
    ("stopped", "boolean", "Is it taken out of serving at this clock?"),
    ("config_hash", "varchar", "sha256 of the experiment's settled configuration."),
    ("input_hash", "varchar", "sha256 of the scorecard's rows that it was decided by."),
)


@dataclass(frozen=True)
class Decision:
    """One row of experiments.decisions, without its stop."""

    experiment_id: str
    as_of: dt.datetime
    decision: Word
    variants: tuple[str, ...]
    reasons: tuple[str, ...]
    config_hash: str
    input_hash: str


def decide(
    experiment: Experiment, rows: Sequence[ScorecardRow], as_of: dt.datetime, taken: Sequence[Taken] = ()
) -> Decision:
    """Decide by the rows of one experiment; the same rows and looks give the same decision."""
    word, variants, reasons = _decided(experiment, rows, as_of, taken)
    text = json.dumps([_plain(row) for row in rows], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Decision(experiment.name, as_of, word, tuple(variants), tuple(reasons), experiment.config_hash, digest)


def decide_all(
    con: duckdb.DuckDBPyConnection,
    registry: ExperimentRegistry,
    rows: Sequence[ScorecardRow],
    as_of: dt.datetime,
    ledger: Ledger,
) -> list[Decision]:
    """Decide every experiment, stop those that have to be, and rebuild experiments.decisions."""
    taken = read_looks(ledger)
    decisions = []
    for name, experiment in sorted(registry.experiments.items()):
        looks = taken.get(name, ())
        own = [row for row in rows if row.experiment_id == name]
        found = decide(experiment, own, as_of, looks)
        decisions.append(found)
        record_configuration(ledger, experiment, as_of)
        look = look_at(experiment, as_of, looks)
        if own and look is not None and not look.again:  # where nobody was exposed nothing was looked at
            write_look(ledger, _taken(found, look))
    for found in decisions:
        if found.decision in ("stop_srm", "stop_harm"):
            cause = "srm" if found.decision == "stop_srm" else "harm"
            evidence = {"variants": list(found.variants), "input_hash": found.input_hash}
            stop(ledger, found.experiment_id, found.config_hash, cause, found.reasons[0], as_of, evidence)  # type: ignore[arg-type]
    stopped = open_stops(ledger)
    with transaction(con):
        con.execute(f"create or replace table experiments.decisions ({', '.join(f'{n} {k}' for n, k, _ in COLUMNS)})")
        for one in decisions:
            con.execute(
                "insert into experiments.decisions values (?, ?, ?, ?, ?, ?, ?, ?)",
                [one.experiment_id, one.as_of, one.decision, list(one.variants), list(one.reasons),
                 one.experiment_id in stopped, one.config_hash, one.input_hash],
            )  # fmt: skip
        comment_columns(con, "experiments.decisions", COLUMNS)
    return decisions


def _taken(found: Decision, look: Look) -> Taken:
    return Taken(
        found.experiment_id, look.day, found.as_of, look.alpha, found.config_hash, found.input_hash, found.decision,
        found.variants, found.reasons,
    )  # fmt: skip


def _decided(
    experiment: Experiment, rows: Sequence[ScorecardRow], as_of: dt.datetime, taken: Sequence[Taken]
) -> tuple[Word, list[str], list[str]]:
    broken = [row for row in rows if row.verdict == verdicts.SRM]
    if broken:
        where = broken[0].mismatch_at
        reasons = [f"the split is broken (p = {_p(broken[0])}): {_shares(broken)}", *([where] if where else [])]
        return "stop_srm", [], reasons
    harmed = [row for row in rows if row.verdict == verdicts.HARM]
    if harmed:
        reasons = [
            f"{row.variant} makes {row.metric} worse than tolerated ({row.threshold}): {_size(row)}" for row in harmed
        ]
        return "stop_harm", list(dict.fromkeys(row.variant for row in harmed)), reasons
    look = look_at(experiment, as_of, taken)
    if look is None or look.again:
        return _as_it_was(experiment, as_of, taken)
    word, variants, reasons = _at_a_look(rows) if rows else ("inconclusive", [], ["no unit was exposed"])
    if word == "inconclusive" and not look.last:
        return "continue", [], [f"look {look.number} of {look.of} was not decisive: {reason}" for reason in reasons]
    return word, variants, reasons


def _as_it_was(experiment: Experiment, as_of: dt.datetime, taken: Sequence[Taken]) -> tuple[Word, list[str], list[str]]:
    before = [one for one in taken if one.as_of <= as_of and one.decision in DECISIVE]
    if before:
        last = before[-1]
        told = [f"{reason} (decided on {last.as_of:%Y-%m-%d})" for reason in last.reasons]
        return last.decision, list(last.variants), told  # type: ignore[return-value]
    day = next_day(experiment, as_of)
    said = f"effects are judged on {day}" if day else "its last look stopped it; the stop was taken back"
    return "continue", [], [said]


def _at_a_look(rows: Sequence[ScorecardRow]) -> tuple[Word, list[str], list[str]]:
    primary = [row for row in rows if row.role == "primary"]
    shipped, worse, reasons = [], [], []
    for row in primary:
        told = f"{row.variant}: {row.metric} {_size(row)}"
        told += f", Holm over {len(primary)} variants" if len(primary) > 1 else ""
        if row.verdict == verdicts.WORSE:
            worse.append(row.variant)
            reasons.append(f"{told}: worse")
        elif row.verdict != verdicts.BETTER:
            reasons.append(f"{told}: not proven either way")
        else:
            unsafe = [
                guard.metric
                for guard in rows
                if guard.role == "guardrail" and guard.variant == row.variant and guard.verdict != verdicts.SAFE
            ]
            reasons.append(
                f"{told}: better" + (f"; not proven safe: {', '.join(unsafe)}" if unsafe else "; guardrails safe")
            )
            if not unsafe:
                shipped.append(row.variant)
    if shipped:
        return "ship", shipped, reasons
    if primary and len(worse) == len(primary):
        return "do_not_ship", [], reasons
    return "inconclusive", [], reasons


def _size(row: ScorecardRow) -> str:
    if row.lift is not None and row.ci_low is not None and row.ci_high is not None:
        return f"{row.lift:+.1%} [{row.ci_low:+.1%}, {row.ci_high:+.1%}]"
    if row.difference is not None and row.difference_low is not None and row.difference_high is not None:
        return f"{row.difference:+.4g} [{row.difference_low:+.4g}, {row.difference_high:+.4g}]"
    return "without an interval"


def _shares(rows: Sequence[ScorecardRow]) -> str:
    return ", ".join(f"{row.variant} {row.value:.4f} instead of {row.control_value:g}" for row in rows)


def _p(row: ScorecardRow) -> str:
    from zantara_pipeline.statistics import format_p

    return format_p(row.log_p)


def _plain(row: ScorecardRow) -> list[object]:
    """Values of a row as JSON; floats with all of their bits."""
    values = [getattr(row, name) for name in ScorecardRow.__dataclass_fields__]
    return [
        value.hex() if isinstance(value, float) else value.isoformat() if isinstance(value, dt.datetime) else value
        for value in values
    ]
