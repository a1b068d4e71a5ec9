"""`simulate`: puts the pieces together, a day at a time, and writes what is true about the result.

Belongs here: the order of things and the comparison of the two witnesses (generator and reference). Does not belong
here: how any one piece is drawn.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np

from zantara_pipeline.errors import InputError
from zantara_pipeline.simulate import landing
from zantara_pipeline.simulate.catalogue import CLUSTERS, Catalogue, make_catalogue, write_items
from zantara_pipeline.simulate.consent import BOTH, Consent, base_consent, make_consent, write_consent
from zantara_pipeline.simulate.effects import EXPERIMENTS, experiment_truth, exposed_users, make_arms
from zantara_pipeline.simulate.entities import Entities
from zantara_pipeline.simulate.faults import make_plan, planned_lines
from zantara_pipeline.simulate.identity import Identity, make_identity
from zantara_pipeline.simulate.lines import Pen, Tally
from zantara_pipeline.simulate.parameters import DAY_MS, Parameters, iso
from zantara_pipeline.simulate.people import make_people
from zantara_pipeline.simulate.reference import Reference, read_ledger
from zantara_pipeline.simulate.sessions import make_sessions
from zantara_pipeline.simulate.truth import VERSION, Planted, Products, Taste, Truth
from zantara_pipeline.simulate.visits import SIGNAL, Shop

Progress = Callable[[int, int], None]


def simulate(
    out: Path,
    *,
    events: int = 100_000,
    seed: int = 7,
    days_before: int = 28,
    days_during: int = 28,
    start: date = date(2026, 1, 5),
    progress: Progress | None = None,
) -> Truth:
    """Write a simulated shop to `out` and return the truth about it.

    Writes events/events-YYYY-MM-DD.jsonl (one per received day, every seventh gzipped), items/items.csv,
    consent/consent.csv and truth.json. Same arguments, same bytes; `out` already holding them is left as it is.

    Parameters
    ----------
    out : folder that is empty, absent, or holds the very same simulation.
    events : lines to write, dirty ones included, met within 2 %; 2,000 or more.
    days_before, days_during : days before the experiments start, and of the experiments; 7 or more.
    progress : called with (days done, days) after each day.

    Raises
    ------
    InputError : an argument out of bounds, or a folder that holds something else.
    """
    parameters = Parameters(events, seed, days_before, days_during, start)
    named: dict[str, int | str] = {**asdict(parameters), "start": start.isoformat()}
    out = Path(out).resolve()
    earlier = landing.earlier_simulation(out, named)
    if earlier is not None:
        return earlier
    beside = landing.begin(out)
    try:
        truth = _write(beside, parameters, named, progress)
        (beside / landing.TRUTH).write_text(truth.to_json(), encoding="utf-8")
        landing.finish(beside, out)
    except OSError as error:
        raise InputError(
            f"cannot write: {error.strerror}", where=out, todo="make room or choose another folder"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # gone already when all went well
    return truth


def _write(beside: Path, parameters: Parameters, named: dict[str, int | str], progress: Progress | None) -> Truth:
    catalogue = make_catalogue(parameters)
    people = make_people(parameters)
    base = base_consent(parameters, people)
    budget = parameters.events - planned_lines(parameters.events)
    sessions = make_sessions(parameters, people, base == BOTH, budget)
    consent = make_consent(parameters, people, sessions, base)
    arms = make_arms(parameters, people, sessions, consent)
    write_items(beside / "items" / "items.csv", catalogue, parameters)
    write_consent(beside / "consent" / "consent.csv", consent.ledger)

    identity = make_identity(parameters, people, sessions, base, consent, arms)
    plan = make_plan(parameters, sessions, consent)
    pen = Pen(Shop(parameters, catalogue, people, sessions, arms), consent, plan, identity)
    reference = Reference(read_ledger(beside / "consent" / "consent.csv"))
    cuts = np.searchsorted(sessions.start_ms, parameters.start_ms + np.arange(parameters.days + 1) * DAY_MS).tolist()
    for day in range(parameters.days):
        lines = pen.write_day(day, range(cuts[day], cuts[day + 1]))
        if lines:
            name = landing.write_events(beside, day, parameters.day_name(day), lines)
            reference.feed(name, lines)
        if progress:
            progress(day + 1, parameters.days)
    assert not pen.waiting, "a line was received after the last day"

    planted = _planted(pen.tally, exposed_users(people, sessions, consent, arms), arms.contaminated, consent, identity)
    _compare(planted, reference)
    exposed, contaminated = _exposures(reference)
    entities = Entities(reference.visits)
    return Truth(
        version=VERSION,
        seed=parameters.seed,
        parameters=named,
        lines=reference.lines,
        rows_in=reference.total("rows_in"),
        unparsable=reference.total("unparsable"),
        suppressed=reference.total("suppressed"),
        quarantined=reference.total("quarantined"),
        quarantined_by_reason=dict(sorted(reference.reasons.items())),
        accepted=reference.total("accepted"),
        accepted_by_event=dict(sorted(reference.by_event.items())),
        duplicates=reference.by_event.total() - reference.unique_by_event.total(),
        unique=reference.unique_by_event.total(),
        unique_by_event=dict(sorted(reference.unique_by_event.items())),
        late=reference.late,
        files=reference.files,
        as_of=iso(round(reference.as_of.timestamp() * 1000)),
        users=len(reference.users),
        personalization_allowed=len(reference.allowed()),
        sessions=len(entities.sessions),
        devices=len({visit.device for visit in reference.visits}),
        products=_products(catalogue, reference),
        entities=entities.truth(),
        segments=reference.segments(),
        experiments=experiment_truth(parameters, people, sessions, consent, arms, exposed, contaminated),
        taste=Taste(clusters=CLUSTERS, signal=SIGNAL),
        planted=planted,
        digests=landing.digests(beside),
    )


def _products(catalogue: Catalogue, reference: Reference) -> Products:
    listed = {i for i, is_listed in zip(catalogue.product_id, catalogue.listed, strict=True) if is_listed}
    return Products(len(listed), len(reference.products), len(listed | reference.products), catalogue.arriving)


def _exposures(reference: Reference) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """The reference's exposures with a zero where a tiny shop has none."""
    exposed, contaminated = reference.exposures()
    filled = {e: {"control": 0, "treatment": 0, **exposed.get(e, {})} for e in EXPERIMENTS}
    return filled, {e: contaminated.get(e, 0) for e in EXPERIMENTS}


def _planted(
    tally: Tally,
    exposed: dict[str, dict[str, int]],
    contaminated: dict[str, int],
    consent: Consent,
    identity: Identity,
) -> Planted:
    return Planted(
        blank_lines=tally.blank_lines,
        unparsable=dict(sorted(tally.unparsable.items())),
        faults=dict(sorted(tally.faults.items())),
        faults_on_suppressed=tally.faults_on_suppressed,
        reasons=dict(sorted(tally.reasons.items())),
        duplicates=tally.duplicates,
        late=tally.late,
        received_at_missing=tally.received_at_missing,
        suppressed=tally.suppressed,
        accepted=tally.accepted,
        exposed=exposed,
        contaminated=contaminated,
        consent=consent.planted,
        identity=dict(sorted(identity.planted.items())),
    )


def _compare(planted: Planted, reference: Reference) -> None:
    """The generator's tally must equal what the reference reads back; anything else is a defect of this package."""
    exposed, contaminated = _exposures(reference)
    pairs = {
        "blank lines": (planted.blank_lines, reference.lines - reference.total("rows_in")),
        "unparsable": (sum(planted.unparsable.values()), reference.total("unparsable")),
        "suppressed": (planted.suppressed, reference.total("suppressed")),
        "reasons": (planted.reasons, dict(sorted(reference.reasons.items()))),
        "quarantined": (sum(planted.reasons.values()), reference.total("quarantined")),
        "accepted": (planted.accepted, reference.total("accepted")),
        "duplicates": (planted.duplicates, reference.by_event.total() - reference.unique_by_event.total()),
        "late": (planted.late, reference.late),
        "exposed": (planted.exposed, exposed),
        "contaminated": (planted.contaminated, contaminated),
    }
    wrong = {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}
    if wrong:
        raise AssertionError(f"planted and counted disagree: {wrong}")
