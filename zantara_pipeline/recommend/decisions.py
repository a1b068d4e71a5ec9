"""The audit of which version serves: who moved the alias, from where, and why.

Belongs here: rows of the ledger's table model_decisions. Does not belong here: deciding (promotion.py), aliases (registry/).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from zantara_pipeline.storage.ledger import Ledger

Action = Literal["first", "refresh", "challenger", "refused", "replaced", "promote", "rollback"]
# After one of these the automatic refresh is on; after a rollback it waits for somebody to promote.
MOVES = ("first", "refresh", "replaced", "promote", "rollback")


@dataclass(frozen=True)
class Decision:
    """One decision about a version.

    Parameters
    ----------
    as_of : clock of the run, or of the command that decided; ISO text in UTC.
    action : first (nothing served before), refresh (the same configuration on newer data took over), challenger (it may be
        tried in an experiment), refused (the gate said no), replaced (the one that served had learned from somebody who was
        erased), promote, rollback (a person did it).
    version, bundle_version : what was decided about. champion : the version that serves afterwards; None: none.
    reasons : sentences; of what the gate looked at, or a person's own words.
    """

    as_of: str
    action: Action
    version: int
    bundle_version: str
    champion: int | None
    reasons: tuple[str, ...]


def record(ledger: Ledger, decision: Decision) -> None:
    """Append, unless the latest row about this version says the same: a run that changed nothing decides nothing."""
    with ledger.transaction() as db:
        latest = db.execute(
            "SELECT action, reasons FROM model_decisions WHERE version = ? ORDER BY decision_id DESC LIMIT 1",
            (decision.version,),
        ).fetchone()
        reasons = json.dumps(decision.reasons)
        if latest is not None and tuple(latest) == (decision.action, reasons):
            return
        db.execute(
            "INSERT INTO model_decisions (as_of, action, version, bundle_version, champion, reasons) VALUES (?, ?, ?, ?, ?, ?)",
            (decision.as_of, decision.action, decision.version, decision.bundle_version, decision.champion, reasons),
        )


def decisions(ledger: Ledger) -> list[Decision]:
    """All of them, oldest first."""
    with ledger.read() as db:
        rows = db.execute(
            "SELECT as_of, action, version, bundle_version, champion, reasons FROM model_decisions ORDER BY decision_id"
        ).fetchall()
    return [
        Decision(as_of, action, version, bundle_version, champion, tuple(json.loads(reasons)))
        for as_of, action, version, bundle_version, champion, reasons in rows
    ]


def held_back(ledger: Ledger) -> bool:
    """Whether somebody rolled back and nobody promoted since: no run replaces what serves then."""
    moves = [decision.action for decision in decisions(ledger) if decision.action in MOVES]
    return bool(moves) and moves[-1] == "rollback"
