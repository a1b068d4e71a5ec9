"""Planned looks: on which runs effects may be judged, and how sure they have to be then.

An experiment declares on which days (`looks`, days after its start) it is judged; without them once, on its last day. The
first run at whose clock such a day is over takes the look, and it is written down. Runs between looks show the split and harm
alone. A look spends of alpha what its spending function gives up to its share of the planned days, less what the looks that
were taken before have spent (Lan & DeMets, Biometrika 1983): one that was missed spends nothing, and none is taken twice. What a decisive look judged is shown by later runs, too, by its bounds.

Belongs here: which look a run takes, and the ledger of looks. Does not belong here: bounds (statistics/group_sequential.py),
what a look shows (scorecard.py), what follows (decisions.py).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zantara_pipeline.experiments.registry import Experiment, ExperimentRegistry
from zantara_pipeline.experiments.verdicts import ALPHA
from zantara_pipeline.statistics.group_sequential import SPENDING, spending_bounds
from zantara_pipeline.storage.ledger import Ledger

# The clock of a run is the newest event's time: on the evening of a day it never reaches midnight.
CLOSING = dt.timedelta(hours=1)
DECISIVE = ("ship", "do_not_ship", "inconclusive")
"""Decisions after which no further look is taken."""


@dataclass(frozen=True)
class Look:
    """A look that a run takes. day : days after the start; alpha : below which two-sided p an effect is proven now.

    again : it was taken by an earlier run and decided: shown as it was judged, it decides nothing any more.
    """

    number: int
    of: int
    day: int
    alpha: float
    again: bool = False

    @property
    def last(self) -> bool:
        return self.number == self.of


@dataclass(frozen=True)
class Taken:
    """A look that was taken, and what was decided then. input_hash : of the scorecard's rows."""

    experiment_id: str
    day: int
    as_of: dt.datetime
    alpha: float
    config_hash: str
    input_hash: str
    decision: str
    variants: tuple[str, ...]
    reasons: tuple[str, ...]


def look_at(experiment: Experiment, as_of: dt.datetime, taken: Sequence[Taken] = ()) -> Look | None:
    """The look that a run with this clock takes; None: it is none of the planned ones.

    taken : the looks of this experiment so far. One that this very clock took is taken again: the same run, done twice.
    """
    due = [day for day in experiment.looks if as_of >= _over(experiment, day)]
    if not due:
        return None
    before = [one for one in taken if one.as_of < as_of]
    decided = [one for one in before if one.decision in DECISIVE or one.day == experiment.looks[-1]]
    if decided:
        first = decided[0]
        number = experiment.looks.index(first.day) + 1 if first.day in experiment.looks else len(experiment.looks)
        return Look(number, len(experiment.looks), first.day, first.alpha, again=True)
    if any(one.day >= due[-1] for one in before):
        return None
    days = sorted({one.day for one in before if one.day < due[-1]} | {due[-1]})
    total = (experiment.end - experiment.start).days
    alpha = ALPHA
    if days != [total]:
        alpha = spending_bounds([day / total for day in days], ALPHA, SPENDING[experiment.spending]).p[-1]
    return Look(experiment.looks.index(due[-1]) + 1, len(experiment.looks), due[-1], alpha)


def looks_of(
    registry: ExperimentRegistry, as_of: dt.datetime, taken: Mapping[str, Sequence[Taken]]
) -> dict[str, Look | None]:
    """Experiment -> the look that a run with this clock takes."""
    return {name: look_at(one, as_of, taken.get(name, ())) for name, one in registry.experiments.items()}


def next_day(experiment: Experiment, as_of: dt.datetime) -> dt.date | None:
    """The day of the next planned look; None when all are over."""
    days = [day for day in experiment.looks if as_of < _over(experiment, day)]
    return (experiment.start + dt.timedelta(days=days[0] - 1)).date() if days else None


def _over(experiment: Experiment, day: int) -> dt.datetime:
    return experiment.start + dt.timedelta(days=day) - CLOSING


def read_looks(ledger: Ledger) -> dict[str, list[Taken]]:
    """Experiment -> its looks, the first first."""
    found: dict[str, list[Taken]] = {}
    with ledger.read() as db:
        rows = db.execute(
            "SELECT experiment_id, day, as_of, alpha, config_hash, input_hash, decision, variants, reasons "
            "FROM experiment_looks ORDER BY experiment_id, day"
        ).fetchall()
    for name, day, as_of, alpha, config_hash, input_hash, decision, variants, reasons in rows:
        one = Taken(
            name, day, dt.datetime.fromisoformat(as_of), alpha, config_hash, input_hash, decision,
            tuple(json.loads(variants)), tuple(json.loads(reasons)),
        )  # fmt: skip
        found.setdefault(name, []).append(one)
    return found


def write_look(ledger: Ledger, look: Taken) -> None:
    """Write a look down, once: what was seen first stays."""
    with ledger.transaction() as db:
        db.execute(
            "INSERT OR IGNORE INTO experiment_looks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [look.experiment_id, look.day, look.as_of.isoformat(), look.alpha, look.config_hash, look.input_hash,
             look.decision, json.dumps(look.variants), json.dumps(look.reasons), dt.datetime.now(dt.UTC).isoformat()],
        )  # fmt: skip


@dataclass(frozen=True)
class Amendment:
    """A configuration of an experiment after its start, and the clock of the run that saw it first."""

    config_hash: str
    as_of: dt.datetime


def record_configuration(ledger: Ledger, experiment: Experiment, as_of: dt.datetime) -> None:
    """From the start on every configuration is kept: the first is what was registered, any other an amendment."""
    if as_of < experiment.start:
        return
    with ledger.transaction() as db:
        db.execute(
            "INSERT OR IGNORE INTO experiment_configurations VALUES (?, ?, ?, ?)",
            [experiment.name, experiment.config_hash, as_of.isoformat(), dt.datetime.now(dt.UTC).isoformat()],
        )


def amendments(ledger: Ledger, experiment_id: str) -> list[Amendment]:
    """What was changed after the start, the first first."""
    with ledger.read() as db:
        query = "SELECT config_hash, as_of FROM experiment_configurations WHERE experiment_id = ? ORDER BY rowid"
        rows = db.execute(query, [experiment_id]).fetchall()
    return [Amendment(config_hash, dt.datetime.fromisoformat(as_of)) for config_hash, as_of in rows[1:]]
