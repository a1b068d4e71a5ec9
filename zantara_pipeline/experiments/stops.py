"""Stops: that an experiment was taken out of serving, by whom and why, and how somebody took that back.

An experiment has one stop at a time. A stop that the pipeline made and a person reverted is not made again for the same
cause while the experiment is configured as it was: the person has seen that evidence.

Belongs here: the rows of the ledger. Does not belong here: when to stop (decisions.py), what applications read (served.py).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.ledger import Ledger

Cause = Literal["srm", "harm", "person"]
_COLUMNS = (
    "token, experiment_id, config_hash, cause, reason, evidence, as_of, stopped_at, reverted_at, reverted_because"
)


@dataclass(frozen=True)
class Stop:
    """One stop. token : what reverts it. as_of : clock of the run that saw the evidence. Times are UTC."""

    token: str
    experiment_id: str
    config_hash: str
    cause: Cause
    reason: str
    evidence: Mapping[str, Any]
    as_of: dt.datetime
    stopped_at: dt.datetime
    reverted_at: dt.datetime | None = None
    reverted_because: str | None = None


def stop(
    ledger: Ledger,
    experiment_id: str,
    config_hash: str,
    cause: Cause,
    reason: str,
    as_of: dt.datetime,
    evidence: Mapping[str, Any] | None = None,
) -> Stop | None:
    """Stop an experiment. None: it is stopped already, or a person reverted this very cause."""
    now = dt.datetime.now(dt.UTC)
    with ledger.transaction() as db:
        if db.execute(
            "SELECT 1 FROM experiment_stops WHERE experiment_id = ? AND (reverted_at IS NULL OR "
            "(? <> 'person' AND cause = ? AND config_hash = ?))",
            [experiment_id, cause, cause, config_hash],
        ).fetchone():
            return None
        before = db.execute("SELECT count(*) FROM experiment_stops WHERE experiment_id = ?", [experiment_id])
        # by what it stands for, so that a run that is done again makes the same
        text = f"{experiment_id}:{config_hash}:{cause}:{before.fetchone()[0]}"
        token = hashlib.sha256(text.encode()).hexdigest()[:16]
        new = Stop(token, experiment_id, config_hash, cause, reason, dict(evidence or {}), as_of, now)
        db.execute(
            f"INSERT INTO experiment_stops ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            [new.token, experiment_id, config_hash, cause, reason, json.dumps(new.evidence, sort_keys=True),
             as_of.isoformat(), now.isoformat()],
        )  # fmt: skip
    return new


def revert(ledger: Ledger, token: str, because: str) -> Stop:
    """Take a stop back.

    Raises
    ------
    InputError : no such token, or it was reverted before.
    """
    with ledger.transaction() as db:
        rows = db.execute(f"SELECT {_COLUMNS} FROM experiment_stops WHERE token = ?", [token]).fetchall()
        if not rows:
            raise InputError("no stop has this token", token, "`zantara experiment list` shows those that hold")
        found = _stop(rows[0])
        if found.reverted_at is not None:
            raise InputError(f"it was reverted on {found.reverted_at:%Y-%m-%d} already", token, "nothing is left to do")
        now = dt.datetime.now(dt.UTC).isoformat()
        db.execute(
            "UPDATE experiment_stops SET reverted_at = ?, reverted_because = ? WHERE token = ?", [now, because, token]
        )
    return found


def open_stops(ledger: Ledger) -> dict[str, Stop]:
    """Experiment -> the stop that holds."""
    with ledger.read() as db:
        rows = db.execute(f"SELECT {_COLUMNS} FROM experiment_stops WHERE reverted_at IS NULL").fetchall()
    return {found.experiment_id: found for found in map(_stop, rows)}


def all_stops(ledger: Ledger, experiment_id: str) -> list[Stop]:
    """Every stop of an experiment, the oldest first."""
    with ledger.read() as db:
        query = f"SELECT {_COLUMNS} FROM experiment_stops WHERE experiment_id = ? ORDER BY stopped_at, token"
        return [_stop(row) for row in db.execute(query, [experiment_id]).fetchall()]


def _stop(row: tuple[Any, ...]) -> Stop:
    token, experiment_id, config_hash, cause, reason, evidence, as_of, stopped_at, reverted_at, because = row
    return Stop(
        token, experiment_id, config_hash, cause, reason, json.loads(evidence), dt.datetime.fromisoformat(as_of),
        dt.datetime.fromisoformat(stopped_at), dt.datetime.fromisoformat(reverted_at) if reverted_at else None, because,
    )  # fmt: skip
