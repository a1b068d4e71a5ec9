"""Who can be told to be who: visits without a login, private windows, borrowed devices, people who change organisation.

Belongs here: planting them over visits that are drawn already, from a random stream of their own. Does not belong here:
the rules by which the product gives them to people (`reference` applies them a second time).

What is planted must move no other truth: visits without a login are those that only look around before the experiments
start, of people whose consent never changes, and never a person's last visit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zantara_pipeline.simulate.consent import BOTH, Consent
from zantara_pipeline.simulate.effects import Arms
from zantara_pipeline.simulate.parameters import Parameters
from zantara_pipeline.simulate.people import Bools, Ints, People
from zantara_pipeline.simulate.sessions import Sessions, sessions_of

# Shares of all visits; a small shop gets a few of each.
ANONYMOUS_SHARE, PRIVATE_SHARE, LOGIN_LATER_SHARE, BORROWED_SHARE, HANDED_OVER_SHARE = 0.025, 0.01, 0.03, 0.01, 0.005
AT_LEAST = 4
HANDED_OVER_WITHIN_MS = 10 * 60_000  # well inside the half hour that keeps a session open
MOVED_SHARE = 0.2  # of people in an organisation
BEFORE_LOGIN = ("session_started", "page_timing")


@dataclass(frozen=True)
class Identity:
    """Per visit (index): is nobody logged in, whose browser, whose device; per person: the organisation later on.

    anonymous : nobody logs in during the visit.
    login_later : nobody is logged in until the first event that is none of BEFORE_LOGIN.
    private_id : the anonymous id of a private window, which nobody ever logs in under.
    device_of : (person, which of the two devices) that the visit is made on, if it is not the visitor's own.
    moved : person -> (first day, organisation) of those who change theirs.
    """

    anonymous: Bools
    login_later: Bools
    private_id: dict[int, str]
    device_of: dict[int, tuple[int, int]]
    moved: dict[int, tuple[int, str]]
    planted: dict[str, int]

    def organisation(self, people: People, user: int, day: int) -> str | None:
        """Organisation that a person acts for on a day."""
        since, other = self.moved.get(user, (day + 1, ""))
        return other if day >= since else people.organisation_id[user]


def make_identity(
    parameters: Parameters, people: People, sessions: Sessions, base: Ints, consent: Consent, arms: Arms
) -> Identity:
    """Choose the visits; a visit is chosen for one thing only."""
    rng = parameters.rng("identity")
    steady = consent.stable & (base == BOTH)
    usual = steady[sessions.user] & (consent.odd == 0)
    early = usual & (sessions.day < parameters.days_before) & ~sessions.shows_list
    looks_only = early & ~(
        arms.buys | arms.crashes | sessions.cart_only | sessions.rates | sessions.tags | sessions.refunds
    )
    for mine in sessions_of(sessions, people):
        early[mine[-1:]] = looks_only[mine[-1:]] = False

    free = np.ones(len(sessions), dtype=np.bool_)

    def choose(able: Bools, share: float) -> list[int]:
        picked = rng.permutation(np.flatnonzero(able & free))[: max(AT_LEAST, round(share * len(sessions)))]
        free[picked] = False
        return [int(visit) for visit in np.sort(picked)]

    handed = _handed_over(sessions, usual)
    device_of = {w: handed[w] for w in choose(np.isin(np.arange(len(sessions)), list(handed)), HANDED_OVER_SHARE)}
    planted = {"handed_over": len(device_of)}
    anonymous, private = choose(looks_only, ANONYMOUS_SHARE), choose(looks_only, PRIVATE_SHARE)
    later, borrowed = choose(early, LOGIN_LATER_SHARE), choose(usual, BORROWED_SHARE)
    lenders = rng.choice(np.flatnonzero(steady), len(borrowed))
    for visit, lender in zip(borrowed, lenders.tolist(), strict=True):
        device_of[visit] = (lender, 0)
    planted |= {
        "anonymous": len(anonymous),
        "private": len(private),
        "login_later": len(later),
        "borrowed": len(borrowed),
    }
    moved = _moves(parameters, rng, people)
    return Identity(
        anonymous=np.isin(np.arange(len(sessions)), anonymous + private),
        login_later=np.isin(np.arange(len(sessions)), later),
        private_id={visit: f"a{number:015x}" for visit, number in zip(private, _ids(rng, len(private)), strict=True)},
        device_of=device_of,
        moved=moved,
        planted=planted | {"moved": len(moved)},
    )


def _handed_over(sessions: Sessions, usual: Bools) -> dict[int, tuple[int, int]]:
    """Visits that begin within minutes of another person's, and could be made on that person's device: a shared session."""
    follows = np.diff(sessions.start_ms, prepend=-HANDED_OVER_WITHIN_MS * 2) < HANDED_OVER_WITHIN_MS
    able = follows & usual & np.roll(usual, 1) & (sessions.user != np.roll(sessions.user, 1))
    # the one before stays where it is
    return {w: (int(sessions.user[w - 1]), int(sessions.device[w - 1])) for w in np.flatnonzero(able).tolist() if w % 2}


def _moves(parameters: Parameters, rng: np.random.Generator, people: People) -> dict[int, tuple[int, str]]:
    members = [user for user, organisation in enumerate(people.organisation_id) if organisation is not None]
    known = sorted({organisation for organisation in people.organisation_id if organisation is not None})
    moved = rng.permutation(np.array(members, dtype=np.int64))[: max(2, round(MOVED_SHARE * len(members)))]
    return {
        user: (
            parameters.days // 2,
            str(rng.choice([o for o in known if o != people.organisation_id[user]] or ["o-new"])),
        )
        for user in moved.tolist()
    }


def _ids(rng: np.random.Generator, n: int) -> list[int]:
    return [int(number) for number in rng.integers(0, 2**60, n)]
