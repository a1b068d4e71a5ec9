"""Who agreed to what, and since when: the ledger, the flags that clients send, and what follows for each visit.

Belongs here: planting consent. Does not belong here: judging lines by it (`reference` does, from the lines alone).

Every planted person is one whose status at as_of is the same however the published rule is read (flags as sent, or
flags after the ledger): whoever withdraws analytics does so in the ledger, and whoever grants again has a client that
follows.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zantara_pipeline.simulate.parameters import DAY_MS, Parameters, iso
from zantara_pipeline.simulate.people import Bools, Ints, People
from zantara_pipeline.simulate.sessions import Sessions, sessions_of

BOTH, ANALYTICS_ONLY, DENIED = 0, 1, 2
DENIED_SHARE, ANALYTICS_ONLY_SHARE, IN_LEDGER_SHARE = 0.08, 0.12, 0.85
# Withdrawals as shares of all people: purposes withdrawn, whether the client goes on sending "granted", in the ledger.
WITHDRAWALS: dict[str, tuple[float, tuple[str, ...], bool, bool]] = {
    "personalization_withdrawn": (0.03, ("personalization",), False, True),
    "personalization_withdrawn_stale_client": (0.03, ("personalization",), True, True),
    "analytics_withdrawn": (0.015, ("analytics", "personalization"), False, True),
    "analytics_withdrawn_stale_client": (0.015, ("analytics", "personalization"), True, True),
    "personalization_withdrawn_by_flag_only": (0.01, ("personalization",), False, False),
    "personalization_granted_again": (0.01, ("personalization",), False, True),
}
ODD_SHARE = 0.006
ODD_KINDS = ["", "null", "missing", "text", "text_flags"]
LedgerRow = tuple[str, str, str, str]  # user_id, purpose, status, effective_from


@dataclass(frozen=True)
class Consent:
    """Per visit: the client's two flags, an odd form of consent (index into ODD_KINDS), what the rules then allow."""

    flag_analytics: Bools
    flag_personalization: Bools
    odd: Ints
    ok_analytics: Bools
    ok_personalization: Bools
    stable: Bools  # per person: never changes, analytics granted
    ledger: list[LedgerRow]
    planted: dict[str, int]


def base_consent(parameters: Parameters, people: People) -> Ints:
    """BOTH, ANALYTICS_ONLY or DENIED per person, in exact shares."""
    rng = parameters.rng("consent")
    n = len(people)
    base = np.full(n, BOTH)
    order = rng.permutation(n)
    denied, only = round(DENIED_SHARE * n), round(ANALYTICS_ONLY_SHARE * n)
    base[order[:denied]] = DENIED
    base[order[denied : denied + only]] = ANALYTICS_ONLY
    base[people.guest] = DENIED
    return base


def make_consent(parameters: Parameters, people: People, sessions: Sessions, base: Ints) -> Consent:
    """Plant withdrawals and odd forms over the visits, and write down the ledger."""
    rng = parameters.rng("withdrawals")
    visits = sessions_of(sessions, people)
    flags = {"analytics": base[sessions.user] != DENIED, "personalization": base[sessions.user] == BOTH}
    ok = {purpose: flag.copy() for purpose, flag in flags.items()}
    stable = (base != DENIED) & ~people.guest
    in_ledger = rng.random(len(people)) < IN_LEDGER_SHARE
    ledger: list[LedgerRow] = []
    planted: Counter[str] = Counter()

    for kind, user in _withdrawers(rng, people, visits, base):
        _, purposes, stale, by_ledger = WITHDRAWALS[kind]
        mine = visits[user]
        again = kind == "personalization_granted_again"
        first = int(rng.integers(1, len(mine) - (1 if again else 0)))
        last = int(rng.integers(first + 1, len(mine))) if again else len(mine)
        after = mine[first:last]
        for purpose in purposes:
            ok[purpose][after] = False
            if not stale:
                flags[purpose][after] = False
            if by_ledger:
                ledger.append(_row(people, user, purpose, "denied", int(sessions.start_ms[mine[first]])))
            if again:
                ledger.append(_row(people, user, purpose, "granted", int(sessions.start_ms[mine[last]])))
        stable[user] = False
        in_ledger[user] = by_ledger
        planted[kind] += 1

    odd = _odd_forms(rng, sessions, visits, base, stable)
    usual = odd == 0
    ledger += _first_rows(parameters, rng, people, visits, base, in_ledger)
    named = ~people.guest
    planted["denied"] = int(((base == DENIED) & named).sum())
    planted["analytics_only"] = int((base == ANALYTICS_ONLY).sum())
    planted["guests"] = int(people.guest.sum())
    planted |= Counter({f"sessions_with_consent_{ODD_KINDS[k]}": int((odd == k).sum()) for k in range(1, 5)})
    return Consent(
        flag_analytics=flags["analytics"],
        flag_personalization=flags["personalization"],
        odd=odd,
        ok_analytics=ok["analytics"] & usual,
        ok_personalization=ok["analytics"] & ok["personalization"] & usual,
        stable=stable,
        ledger=sorted(ledger, key=lambda row: (row[3], row[0], row[1])),
        planted=dict(sorted(planted.items())),
    )


def write_consent(path: Path, ledger: list[LedgerRow]) -> None:
    """consent.csv in the order in which the decisions took effect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["user_id", "purpose", "status", "effective_from"])
        writer.writerows(ledger)


def _row(people: People, user: int, purpose: str, status: str, at_ms: int) -> LedgerRow:
    user_id = people.user_id[user]
    assert user_id is not None
    return user_id, purpose, status, iso(at_ms)


def _withdrawers(rng: np.random.Generator, people: People, visits: list[Ints], base: Ints) -> list[tuple[str, int]]:
    """(kind, person) pairs; three visits are needed to withdraw after one and grant again at a later one."""
    able = [u for u in rng.permutation(len(people)).tolist() if base[u] == BOTH and len(visits[u]) >= 3]
    kinds = [kind for kind, (share, *_) in WITHDRAWALS.items() for _ in range(max(2, round(share * len(people))))]
    # A tiny shop may have fewer people than withdrawals: never more than a third of those able.
    room = max(len(WITHDRAWALS), len(able) // 3)
    if len(kinds) > room:
        kinds = sorted(kinds, key=kinds.count)[:room]
    return list(zip(kinds, able, strict=False))


def _odd_forms(rng: np.random.Generator, sessions: Sessions, visits: list[Ints], base: Ints, stable: Bools) -> Ints:
    """Visits whose consent is null, missing or no flags; never a person's last one, so that it decides no status."""
    odd = np.zeros(len(sessions), dtype=np.int64)
    able = np.zeros(len(sessions), dtype=np.bool_)
    for user in np.flatnonzero(stable & (base == BOTH)).tolist():
        able[visits[user][:-1]] = True
    picked = rng.permutation(np.flatnonzero(able))[: max(8, round(ODD_SHARE * len(sessions)))]
    odd[picked] = 1 + np.arange(len(picked)) % 4
    return odd


def _first_rows(
    parameters: Parameters, rng: np.random.Generator, people: People, visits: list[Ints], base: Ints, in_ledger: Bools
) -> list[LedgerRow]:
    """What people said when they signed up: before the period, or at the start of the day they arrived."""
    rows: list[LedgerRow] = []
    before = rng.integers(50, 300, len(people)) * DAY_MS + rng.integers(0, DAY_MS, len(people))
    for user in np.flatnonzero(in_ledger & ~people.guest).tolist():
        if len(visits[user]) == 0:
            continue
        arrival = int(people.arrival_day[user])
        at = parameters.start_ms + (arrival * DAY_MS if arrival else -int(before[user]))
        analytics = "denied" if base[user] == DENIED else "granted"
        personalization = "granted" if base[user] == BOTH else "denied"
        rows.append(_row(people, user, "analytics", analytics, at))
        rows.append(_row(people, user, "personalization", personalization, at))
    return rows
