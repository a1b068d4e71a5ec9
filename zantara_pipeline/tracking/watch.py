"""What a run tells people about its streams: findings for the alert ledger.

A kind of failure is told when its first line lies in the quarantine, and is over when the last one has left it (replayed
or discarded): coming back after that is news. Promises and the plan are told as health.py finds them.

Belongs here: turning those into findings, and how loud each is. Does not belong here: measuring (health.py,
failure_kinds.py), raising and delivering (alerts/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from zantara_pipeline.alerts import Finding, Severity
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.failure_kinds import FailureKind, failure_kinds
from zantara_pipeline.tracking.health import Broken, Problem, broken_promises, moment_of
from zantara_pipeline.tracking.plan import TrackingPlan

SEVERITIES: dict[Problem, Severity] = {
    "stale": "critical",  # every hour of it is lost for good
    "reject_rate": "warning",
    "volume_low": "warning",
    "volume_drop": "warning",
    "never_seen": "info",
    "unplanned": "info",  # its lines are a new kind of failure already, which is a warning
}
KINDS = ("new_failure", *SEVERITIES)
"""Kinds of alerts that `findings` speaks of: one that it does not find any more is resolved."""

# A sender that writes ids into names makes a kind of failure, and an event, of every one of them.
MOST_FAILURES, MOST_UNPLANNED = 100, 20
# A plan that was imported whole from another tool declares hundreds of events before the first of them is sent.
MOST_NEVER_SEEN = 20
# Of a line that is wrong all over, so many reasons are said.
MOST_REASONS = 3


def findings(home: Home, ledger: Ledger, plan: TrackingPlan, as_of: datetime) -> list[Finding]:
    """Everything about streams and quarantine that a person should know at this moment."""
    moment = moment_of(home, ledger, as_of)
    broken = [] if moment is None else broken_promises(home, plan, moment)
    return [*_failures(failure_kinds(home, ledger)), *_promises(broken)]


def _failures(kinds: Sequence[FailureKind]) -> Iterator[Finding]:
    for kind in kinds[:MOST_FAILURES]:
        name = kind.event or "(unreadable name)"
        more = f" and {len(kind.reasons) - MOST_REASONS} more" if len(kind.reasons) > MOST_REASONS else ""
        said = (
            f"new in quarantine: {', '.join(kind.reasons[:MOST_REASONS])}{more}, {kind.rows:,} lines "
            f"(zantara quarantine show {kind.fingerprint[:8]})"
        )
        code, _, path = kind.reasons[0].partition(" ") if kind.reasons else ("", "", "")
        details = {
            "quarantine_fingerprint": kind.fingerprint, "event": kind.event, "code": code, "path": path,
            "reasons": list(kind.reasons[:MOST_REASONS]), "rows": kind.rows,
        }  # fmt: skip
        yield Finding("new_failure", "warning", f"event/{name}", said, details)
    others = kinds[MOST_FAILURES:]
    if others:
        said = f"new in quarantine: {MOST_FAILURES} kinds of failure are told one by one, these are all the others"
        details = {"quarantine_fingerprint": "others", "kinds": len(others), "rows": sum(kind.rows for kind in others)}
        yield Finding("new_failure", "warning", "quarantine", said, details)


def _promises(found: Sequence[Broken]) -> Iterator[Finding]:
    counts = Counter(broken.problem for broken in found)
    many: dict[Problem, tuple[int, str]] = {
        "unplanned": (
            MOST_UNPLANNED,
            "different names of events came on one day that no plan declares; does a name hold an id?",
        ),
        "never_seen": (MOST_NEVER_SEEN, "events that the plan declares never came (zantara plan health names them)"),
    }
    together = {problem: said for problem, (most, said) in many.items() if counts[problem] > most}
    for broken in found:
        if broken.problem not in together:
            severity = SEVERITIES[broken.problem]
            details = {"event": broken.event, **broken.facts}
            yield Finding(broken.problem, severity, f"event/{broken.event}", broken.said, details)
    for problem, said in together.items():
        number = counts[problem]
        yield Finding(problem, SEVERITIES[problem], "events", f"{number} {said}", {"names": number})
