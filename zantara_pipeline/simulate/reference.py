"""The published rules of ingestion and of six segments, a second time, in plain Python.

Belongs here: reading lines back as bytes and judging them, with loops and dicts, by the published rules alone. Does
not belong here: anything the generator knows (it is the other witness), and anything of the pipeline (it is judged by
this; entities are made of what was accepted in `entities`). Keeps the ids of accepted events and the few events that
segments need: about 450 bytes an event.
"""

from __future__ import annotations

import csv
import hashlib
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from sys import intern
from typing import Any

import msgspec

from zantara_pipeline.simulate.entities import Seen
from zantara_pipeline.simulate.truth import FileCounts, SegmentTruth

Spec = tuple[str, bool, dict[str, Any]]  # JSON kind, required, limits
_TEXT: Spec = ("text", False, {})
_MONEY: Spec = ("number", False, {"minimum": 0})
_CURRENCY: Spec = ("text", False, {"pattern": re.compile("[A-Z]{3}")})
_ID: Spec = ("text", True, {})
_COUNT: Spec = ("integer", False, {"minimum": 1})
_NUMBER: Spec = ("number", False, {})
_VIEW: dict[str, Spec] = {
    "product_id": _ID,
    "category": _TEXT,
    "category_id": _TEXT,
    "brand": _TEXT,
    "price": _MONEY,
    "currency": _CURRENCY,
}
_ENTRY: dict[str, Spec] = {
    "list_id": _ID,
    "product_id": _ID,
    "position": ("integer", True, {"minimum": 1}),
    "bundle_version": _ID,
}
_BOUGHT: dict[str, Spec] = {"order_id": _TEXT, "description": _TEXT}
PLAN: dict[str, dict[str, Spec]] = {
    "session_started": {"entry_page": _ID, "referrer": _TEXT},
    "page_timing": {"page": _ID, "load_ms": ("number", True, {"minimum": 0, "maximum": 600_000})},
    "app_crashed": {"error_class": _ID},
    "product_view": _VIEW,
    "add_to_cart": {**_VIEW, "quantity": _COUNT},
    "purchase": {**_VIEW, **_BOUGHT, "quantity": _COUNT},
    "refund": {
        **{key: spec for key, spec in _VIEW.items() if key not in ("category_id", "brand")},
        **_BOUGHT,
        "quantity": ("integer", False, {}),
    },
    "rating": {"product_id": _ID, "rating": ("number", True, {}), "scale_min": _NUMBER, "scale_max": _NUMBER},
    "item_tag": {"product_id": _ID, "tag": ("text", True, {"longest": 500})},
    "recommendation_exposed": _ENTRY,
    "recommendation_clicked": _ENTRY,
    "experiment_exposed": {"experiment_id": _ID, "variant": _ID},
}
_KINDS: dict[str, tuple[type, ...]] = {"text": (str,), "number": (int, float), "integer": (int,)}
_SHOPPING = ("add_to_cart", "purchase", "refund")
LATE = timedelta(hours=24)
TOO_LATE = timedelta(days=30)
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass
class Reference:
    """Feed it every file's lines in the order received, then ask for the results.

    Parameters
    ----------
    ledger : (user_id, purpose) -> [(effective_from, status)] in ascending order; see `read_ledger`.
    """

    ledger: dict[tuple[str, str], list[tuple[datetime, str]]]
    files: dict[str, FileCounts] = field(default_factory=dict)
    lines: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    by_event: Counter[str] = field(default_factory=Counter)
    unique_by_event: Counter[str] = field(default_factory=Counter)
    late: int = 0
    as_of: datetime = _EARLIEST
    users: set[str] = field(default_factory=set)
    visits: list[Seen] = field(default_factory=list)
    products: set[str] = field(default_factory=set)
    _seen: set[bytes] = field(default_factory=set)
    _flags: dict[str, tuple[datetime, bool]] = field(default_factory=dict)
    _shopping: list[tuple[datetime, str, str, str, Decimal]] = field(default_factory=list)
    _activity: list[tuple[datetime, str, str, str | None]] = field(default_factory=list)
    _exposures: dict[tuple[str, str], list[tuple[datetime, str]]] = field(default_factory=lambda: defaultdict(list))

    def feed(self, name: str, lines: Iterable[bytes]) -> None:
        """Judge one file's lines; the first stage that applies counts the row."""
        counts: Counter[str] = Counter()
        for line in lines:
            self.lines += 1
            if line.strip():
                counts[self._judge(line)] += 1
        stages = ("unparsable", "suppressed", "quarantined", "accepted")
        self.files[name] = FileCounts(counts.total(), *(counts[stage] for stage in stages))

    def total(self, stage: str) -> int:
        """Sum of one column of `files`."""
        return sum(getattr(counts, stage) for counts in self.files.values())

    def allowed(self) -> set[str]:
        """Users of accepted events who may be personalized at as_of."""
        members = set()
        for user in self.users:
            status = self._status(user, "personalization", self.as_of)
            flag = self._flags.get(user, (_EARLIEST, None))[1]
            if status != "denied" and flag is not False and (status is not None or flag is not None):
                members.add(user)
        return members

    def segments(self) -> dict[str, SegmentTruth]:
        """Six of the published segments at as_of, members among the allowed."""
        allowed = self.allowed()
        shopping = [event for event in self._shopping if event[2] in allowed and event[0] <= self.as_of]
        bought: dict[tuple[str, str], datetime] = {}
        spent: dict[str, Decimal] = defaultdict(Decimal)
        buyers = set()
        for at, name, user, product, value in shopping:
            if name == "purchase":
                bought[user, product] = max(at, bought.get((user, product), _EARLIEST))
                if at > self.as_of - timedelta(days=30):
                    buyers.add(user)
            if name != "add_to_cart" and at > self.as_of - timedelta(days=90):
                spent[user] += value if name == "purchase" else -value
        abandoners = {
            user
            for at, name, user, product, _ in shopping
            if name == "add_to_cart"
            and at > self.as_of - timedelta(days=7)
            and bought.get((user, product), _EARLIEST) < at
        }
        return {
            "seg_recent_buyers": _segment(buyers),
            "seg_cart_abandoners": _segment(abandoners),
            "seg_high_spenders": _segment({user for user, value in spent.items() if value >= 500}),
            **self._segments_of_activity(allowed),
        }

    def _segments_of_activity(self, allowed: set[str]) -> dict[str, SegmentTruth]:
        """Segments that ask when and where people were, whatever they did."""
        first: dict[str, datetime] = {}
        devices: dict[str, set[str]] = defaultdict(set)
        people: dict[str, set[str]] = defaultdict(set)
        for at, user, device, organisation in self._activity:
            if user in allowed and at <= self.as_of:
                first[user] = min(at, first.get(user, at))
                if at > self.as_of - timedelta(days=30):
                    devices[user].add(device)
                    if organisation is not None:
                        people[organisation].add(user)
        begun = self.as_of - timedelta(days=14)
        return {
            "seg_multi_device_users": _segment({user for user, known in devices.items() if len(known) > 1}),
            "seg_active_organisations": _segment({name for name, known in people.items() if len(known) > 1}),
            "seg_new_users": _segment({user for user, at in first.items() if at > begun}),
        }

    def exposures(self) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """Users by variant of their first exposure, and how many saw two variants, per experiment."""
        exposed: dict[str, Counter[str]] = defaultdict(Counter)
        contaminated: Counter[str] = Counter()
        for (experiment, _), seen in self._exposures.items():
            exposed[experiment][min(seen)[1]] += 1
            contaminated[experiment] += len({variant for _, variant in seen}) > 1
        return {name: dict(sorted(counts.items())) for name, counts in exposed.items()}, dict(contaminated)

    def _judge(self, line: bytes) -> str:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return "unparsable"
        if not isinstance(row, dict):
            return "unparsable"
        event, occurred = row["event"], _instant(row["timestamp"])
        category = "personalization" if event.startswith("recommendation_") and event in PLAN else "analytics"
        if not self._granted(row, category, occurred):
            return "suppressed"
        received = _instant(row["received_at"]) if "received_at" in row else occurred
        reasons = _reasons(event, row["properties"], occurred, received)
        if reasons:
            self.reasons.update(reasons)
            return "quarantined"
        assert occurred is not None and received is not None
        self._accept(row, event, occurred, received)
        return "accepted"

    def _granted(self, row: dict[str, Any], purpose: str, occurred: datetime | None) -> bool:
        consent = row.get("consent")
        if not isinstance(consent, dict) or consent.get(purpose) is not True:
            return False
        return self._status(row["user_id"], purpose, occurred) != "denied"

    def _status(self, user: str | None, purpose: str, at: datetime | None) -> str | None:
        """The ledger's word on a user at an instant; without an instant, its last word."""
        entries = self.ledger.get((user, purpose), []) if user is not None else []
        known = len(entries) if at is None else bisect_right(entries, at, key=lambda entry: entry[0])
        return entries[known - 1][1] if known else None

    def _accept(self, row: dict[str, Any], event: str, occurred: datetime, received: datetime) -> None:
        self.by_event[event] += 1
        self.late += received - occurred > LATE
        self.as_of = max(self.as_of, received)
        fingerprint = hashlib.blake2b(row["event_id"].encode(), digest_size=12).digest()
        if fingerprint in self._seen:
            return
        self._seen.add(fingerprint)
        self.unique_by_event[event] += 1
        user, properties = row["user_id"], row["properties"]
        self.visits.append(
            Seen(
                occurred.timestamp(),
                row["event_id"],
                user and intern(user),
                intern(row["anonymous_id"]),
                intern(row["device_id"]),
                row.get("organisation_id") and intern(row["organisation_id"]),
            )
        )
        if "product_id" in properties:
            self.products.add(properties["product_id"])
        if user is None:
            return
        self.users.add(user)
        flag = row["consent"].get("personalization")
        if isinstance(flag, bool) and occurred >= self._flags.get(user, (_EARLIEST, False))[0]:
            self._flags[user] = (occurred, flag)
        allows = flag is True and self._status(user, "personalization", occurred) != "denied"
        if allows:
            self._activity.append((occurred, user, self.visits[-1].device, self.visits[-1].organisation))
        if event in _SHOPPING and allows:
            self._shopping.append((occurred, event, user, properties["product_id"], _value(properties)))
        if event == "experiment_exposed":
            self._exposures[properties["experiment_id"], user].append((occurred, properties["variant"]))


def read_ledger(path: Path) -> dict[tuple[str, str], list[tuple[datetime, str]]]:
    """consent.csv as (user_id, purpose) -> [(effective_from, status)], ascending."""
    ledger: dict[tuple[str, str], list[tuple[datetime, str]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["effective_from"])
            ledger[row["user_id"], row["purpose"]].append((at, row["status"]))
    for entries in ledger.values():
        entries.sort(key=lambda entry: entry[0])
    return dict(ledger)


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _reasons(event: str, properties: dict[str, Any], occurred: datetime | None, received: datetime | None) -> list[str]:
    if event not in PLAN:
        return ["unknown_event"]
    reasons = []
    if occurred is None or received is None:
        reasons.append("bad_timestamp")
    elif occurred > received + LATE:
        reasons.append("future_timestamp")
    elif received - occurred > TOO_LATE:
        reasons.append("too_late")
    plan = PLAN[event]
    for key, (kind, required, limits) in plan.items():
        if key not in properties:
            if required:
                reasons.append("missing_key")
            continue
        value = properties[key]
        if value is None:
            if required:
                reasons.append("null_not_allowed")
        elif isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
            reasons.append("wrong_type")
        elif limits:
            reasons += _limit_reasons(value, limits)
    reasons += ["unknown_key" for key in properties if key not in plan]
    return reasons


def _limit_reasons(value: Any, limits: dict[str, Any]) -> list[str]:
    reasons = []
    if "minimum" in limits and value < limits["minimum"]:
        reasons.append("below_minimum")
    if "maximum" in limits and value > limits["maximum"]:
        reasons.append("above_maximum")
    if "pattern" in limits and not limits["pattern"].fullmatch(value):
        reasons.append("pattern_mismatch")
    if "longest" in limits and len(value) > limits["longest"]:
        reasons.append("too_long")
    return reasons


def _value(properties: dict[str, Any]) -> Decimal:
    """price * |quantity|; a missing price is worth nothing, a missing quantity is one."""
    price, quantity = properties.get("price"), properties.get("quantity")
    return Decimal(str(price or 0)) * (1 if quantity is None else abs(quantity))


def _segment(members: set[str]) -> SegmentTruth:
    return SegmentTruth(len(members), hashlib.sha256("\n".join(sorted(members)).encode()).hexdigest())
