"""A finding: one thing that is wrong now, before it becomes an alert.

Belongs here: the value type, its fingerprint, the closed list of kinds and severities, and the refusal of personal
values. Does not belong here: storing or sending (ledger.py, delivery.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, get_args

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From least to most severe."""


@dataclass(frozen=True)
class Kind:
    """A kind of alert: what it tells, and which entries of `details` tell two findings of one subject apart."""

    tells: str
    key: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "unreadable_file": Kind("a landed file could not be read whole, and nothing of it was taken"),
    "srm": Kind("sample ratio mismatch: the observed split of an experiment does not fit the planned one"),
    "assignment_disagrees": Kind("units logged another variant than the salt of their experiment gives them"),
    "variant_leak": Kind("units of an experiment were shown a variant that has no weight or is not registered"),
    "contaminated": Kind("too many units of an experiment were shown two variants"),
    "cuped_absent": Kind("CUPED is declared but could not be computed", ("metric",)),
    "cuped_below_floor": Kind("CUPED reduced the variance by less than the declared floor", ("metric",)),
    "new_failure": Kind(
        "lines lie in quarantine that failed in a way that was not there before", ("quarantine_fingerprint",)
    ),
    "reject_rate": Kind("more of a day's events were quarantined than their owner promised"),
    "volume_low": Kind("fewer events came in a day than their owner promised"),
    "volume_drop": Kind("fewer events came in a day than usual for that weekday, by more than their owner promised"),
    "stale": Kind("no event came for longer than their owner promised"),
    "never_seen": Kind("an event that the plan declares never came"),
    "unplanned": Kind("events come that no plan declares"),
    "segment_size": Kind("a segment grew or shrank by more than its contract allows since the clock before"),
    "retrain_soon": Kind(
        "the model that serves was trained on somebody who was erased, and its day to be replaced comes near",
        ("version",),
    ),
    "retrain_overdue": Kind(
        "the model that serves was trained on somebody who was erased, and its day to be replaced has passed",
        ("version",),
    ),
    "guardrail_harm": Kind("a guardrail metric is worse than its threshold allows", ("variant", "metric")),
}
"""Every kind of alert. Closed, so that a misspelt kind in alerts.yaml is found when it loads.

A key never names a number that moves from run to run, or every run would raise a new alert.
"""

_PERSONAL_KEYS = frozenset(
    ("user_id", "anonymous_id", "session_id", "device_id", "unit_id", "entity_id", "email", "phone", "ip", "address")
)
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong at the moment of a run.

    Parameters
    ----------
    kind : a name in `KINDS`.
    severity : 'info', 'warning' or 'critical' (alerts.yaml may override it by kind).
    subject : what it is about, e.g. ``experiment/checkout_button``.
    message : one sentence for a person.
    details : JSON-ready numbers and words for a machine, with the entries that the kind's key names; values that are
        not finite become null.

    Raises
    ------
    ValueError : unknown kind or severity, empty subject or message, a missing key entry, or a personal value (an id
        of a person in `details`, an e-mail address anywhere): alerts leave the house, so they carry none.
    """

    kind: str
    severity: Severity
    subject: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown alert kind '{self.kind}': add it to KINDS in alerts/finding.py")
        if self.severity not in SEVERITIES:
            raise ValueError(f"unknown severity '{self.severity}': one of {', '.join(SEVERITIES)}")
        if not self.subject.strip() or not self.message.strip():
            raise ValueError(f"an alert of kind '{self.kind}' needs a subject and a message")
        missing = [name for name in KINDS[self.kind].key if name not in self.details]
        if missing:
            raise ValueError(f"an alert of kind '{self.kind}' needs {', '.join(missing)} in its details")
        _refuse_personal_values(self)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that stay the same from run to run while the same thing is wrong."""
        return digest(self.kind, self.subject, *(str(self.details[name]) for name in KINDS[self.kind].key))

    def details_json(self) -> str:
        """`details` as JSON text with sorted keys."""
        return json.dumps(_plain(self.details), sort_keys=True, ensure_ascii=False, allow_nan=False)


def digest(*parts: str) -> str:
    """32 hex digits of SHA-256 over the parts; JSON keeps ('a', 'bc') and ('ab', 'c') apart."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """A JSON-ready copy: numpy scalars and Decimals as numbers, times as ISO 8601, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [_plain(inner) for inner in items]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):  # numpy
        return _plain(value.item())
    return _plain(float(value))  # Decimal, Fraction


def _refuse_personal_values(finding: Finding) -> None:
    personal = _PERSONAL_KEYS & _keys(finding.details)
    if personal:
        raise ValueError(f"alert details may not carry {', '.join(sorted(personal))}: no personal values in alerts")
    if _EMAIL.search(" ".join((finding.subject, finding.message, finding.details_json()))):
        raise ValueError(f"an alert of kind '{finding.kind}' carries an e-mail address: no personal values in alerts")


def _keys(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return set(value) | {key for inner in value.values() for key in _keys(inner)}
    if isinstance(value, (list, tuple)):
        return {key for inner in value for key in _keys(inner)}
    return set()
