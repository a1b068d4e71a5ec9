"""The shop's visitors: who they are, how often they come, what they like, how readily they buy.

Belongs here: traits that a person keeps. Does not belong here: single visits (`sessions`) and consent (`consent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zantara_pipeline.simulate.catalogue import CLUSTERS
from zantara_pipeline.simulate.parameters import Parameters

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

EVENTS_PER_USER = 30
GUEST_SHARE = 0.03
ARRIVING_SHARE = 0.25
SLOWNESS_SIGMA = 0.08  # of log page load time, between people
COUNTRIES = ["DE", "FR", "NL", "ES", "IT", "AT"]
PLATFORMS = ["web", "ios", "android"]


@dataclass(frozen=True)
class People:
    """Parallel arrays, one entry per visitor. user_id is None for guests; devices are two per visitor."""

    user_id: list[str | None]
    guest: Bools
    arrival_day: Ints
    activity: Floats
    buy: Floats  # chance that a session ends in a purchase, before any treatment
    bulk: Floats  # mean of quantity - 1
    taste: list[tuple[int, int]]  # first and second taste cluster
    slowness: Floats  # factor on page load times
    platform: list[tuple[str, str]]
    device_id: list[tuple[str, str]]
    anonymous_id: list[tuple[str, str]]
    offset_hours: list[tuple[int, int]]  # how the device's clock writes its zone
    app_version: list[tuple[str, str]]
    country: list[str]
    organisation_id: list[str | None]

    def __len__(self) -> int:
        return len(self.user_id)


def make_people(parameters: Parameters) -> People:
    """About one visitor for every 30 events."""
    rng = parameters.rng("people")
    n = max(40, round(parameters.events / EVENTS_PER_USER))
    guest = rng.random(n) < GUEST_SHARE
    guest[:2] = True  # a small shop has guests too
    arrival = np.where(rng.random(n) < ARRIVING_SHARE, rng.integers(1, parameters.days - 3, n), 0)
    first = rng.choice(CLUSTERS, n, p=_cluster_shares(rng))
    second = (first + rng.integers(1, CLUSTERS, n)) % CLUSTERS
    platform = rng.choice(3, (n, 2), p=[0.5, 0.25, 0.25])
    ids = rng.integers(0, 2**62, (n, 4))
    offset = (rng.random((n, 2)) < 0.1).astype(int)
    version = rng.integers(0, 6, (n, 2))
    organisation = rng.integers(1, max(3, n // 100), n)
    in_organisation = rng.random(n) < 0.08
    return People(
        user_id=[None if g else f"u{i:06d}" for i, g in enumerate(guest, start=1)],
        guest=guest,
        arrival_day=arrival,
        activity=np.where(guest, 0.5, rng.gamma(1.0, 1.0, n) + 0.15),
        buy=1.0 / (1.0 + np.exp(-rng.normal(-1.3, 2.3, n))),
        bulk=rng.gamma(0.5, 0.6, n),
        taste=list(zip(first.tolist(), second.tolist(), strict=True)),
        slowness=rng.lognormal(0.0, SLOWNESS_SIGMA, n),
        platform=[(PLATFORMS[a], PLATFORMS[b]) for a, b in platform],
        device_id=[(f"d{a:015x}", f"d{b:015x}") for a, b in ids[:, :2].tolist()],
        anonymous_id=[(f"a{a:015x}", f"a{b:015x}") for a, b in ids[:, 2:].tolist()],
        offset_hours=[(a, b) for a, b in offset.tolist()],
        app_version=[(f"4.{a}.0", f"4.{b}.0") for a, b in version.tolist()],
        country=[COUNTRIES[c] for c in rng.choice(len(COUNTRIES), n, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05])],
        organisation_id=[f"o{o:04d}" if m else None for o, m in zip(organisation, in_organisation, strict=True)],
    )


def _cluster_shares(rng: np.random.Generator) -> Floats:
    shares = rng.permutation(np.geomspace(1.0, 2.0, CLUSTERS))
    return np.asarray(shares / shares.sum())
