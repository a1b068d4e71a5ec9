"""The shape of `truth.json`: every planted fact with its exact count or size.

Belongs here: names and meanings. Does not belong here: computing them (`reference` counts the written lines by the
published rules, `planted` figures come from the generator; `shop` refuses to finish when the two disagree).

Reading guide
-------------
lines            all lines written, blank ones included; rows_in leaves the blank ones out.
rows_in          = unparsable + suppressed + quarantined + accepted, in all and for each file.
accepted         rows that pass, duplicates included; unique = accepted - duplicates.
late             accepted rows received more than 24 h after they occurred.
users            distinct user ids among accepted rows; personalization_allowed counts those of them that are allowed at
                 as_of; devices are distinct ids among accepted rows.
sessions         as the published rule cuts them: half an hour without an event of the device ends one.
entities         what the published rules make of ids: stitched_by counts events by why they belong to somebody (login,
                 session, anonymous; nobody otherwise), people_sha256 is of "event_id person" of all events, sorted and
                 joined by newlines, with an empty person for nobody.
as_of            latest received_at among accepted rows.
segments         size, and the SHA-256 of the member ids, sorted and joined by newlines.
planted          what the generator meant to do, per kind of fault; identity counts visits by kind, and people who moved.
experiments      exposed = users by the variant of their first accepted exposure (contaminated ones included);
                 effects hold the expected value of a metric in each arm over the exposed users, without sampling
                 noise. p95_latency_ms has its ratio only;
                 crash_free_sessions outside image_carousel takes that experiment's split as exactly half.
srm              lost_platform is the only one that exposures were lost on, those of its treatment users.
power            of a two-sided 5 % test (SRM: 0.1 %) with this many users, without CUPED; detectable = power >= 0.95.
                 power_past_threshold: that the 95 % interval lies wholly beyond the guardrail's threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

VERSION = 2


@dataclass(frozen=True)
class FileCounts:
    """Rows of one landing file by the first stage that counts them."""

    rows_in: int
    unparsable: int
    suppressed: int
    quarantined: int
    accepted: int


@dataclass(frozen=True)
class SegmentTruth:
    """Members of one segment at as_of."""

    size: int
    members_sha256: str


@dataclass(frozen=True)
class EntityTruth:
    """Sessions, devices, organisations and whose each event is, by the published rules."""

    shared_sessions: int
    anonymous_sessions: int
    shared_devices: int
    organisations: int
    memberships: int
    former_memberships: int
    stitched_by: dict[str, int]
    people_sha256: str


@dataclass(frozen=True)
class Effect:
    """One metric's planted effect: values per arm (None where only the ratio is planted), relative lift, power."""

    metric: str
    role: str
    control: float | None
    treatment: float | None
    relative: float
    power: float | None
    detectable: bool
    threshold: float | None = None
    power_past_threshold: float | None = None


@dataclass(frozen=True)
class Srm:
    """The split: declared share of treatment, expected share after planted losses, the chi-square test of `exposed`."""

    planted: bool
    declared_treatment_share: float
    expected_treatment_share: float
    lost_treatment_users: int
    chi_square: float
    p_value: float
    power: float
    detectable: bool
    lost_platform: str | None


@dataclass(frozen=True)
class ExperimentTruth:
    """One experiment as planted. verdict is one of positive, srm, guardrail_harm."""

    start: str
    salt: str
    exposed: dict[str, int]
    contaminated: int
    srm: Srm
    effects: list[Effect]
    verdict: str


@dataclass(frozen=True)
class Taste:
    """How much a recommender can learn: latent clusters, and the share of views that follow the user's own."""

    clusters: int
    signal: float


@dataclass(frozen=True)
class Products:
    """catalogue = rows of items.csv; seen = distinct ids on accepted rows; all = the union; arriving = new ones."""

    catalogue: int
    seen: int
    all: int
    arriving: int


@dataclass(frozen=True)
class Planted:
    """The generator's own tally, by kind. `reasons` count only the faults that get past consent."""

    blank_lines: int
    unparsable: dict[str, int]
    faults: dict[str, int]
    faults_on_suppressed: int
    reasons: dict[str, int]
    duplicates: int
    late: int
    received_at_missing: int
    suppressed: int
    accepted: int
    exposed: dict[str, dict[str, int]]
    contaminated: dict[str, int]
    consent: dict[str, int]
    identity: dict[str, int]


@dataclass(frozen=True)
class Truth:
    """The whole of `truth.json`; see the module's reading guide."""

    version: int
    seed: int
    parameters: dict[str, int | str]
    lines: int
    rows_in: int
    unparsable: int
    suppressed: int
    quarantined: int
    quarantined_by_reason: dict[str, int]
    accepted: int
    accepted_by_event: dict[str, int]
    duplicates: int
    unique: int
    unique_by_event: dict[str, int]
    late: int
    files: dict[str, FileCounts]
    as_of: str
    users: int
    personalization_allowed: int
    sessions: int
    devices: int
    products: Products
    entities: EntityTruth
    segments: dict[str, SegmentTruth]
    experiments: dict[str, ExperimentTruth]
    taste: Taste
    planted: Planted
    digests: dict[str, str]

    def to_json(self) -> str:
        """The file's text: indented JSON with a final newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Truth:
        """Read it back; raises msgspec.DecodeError (a ValueError) when it is something else."""
        return msgspec.json.decode(text, type=Truth)
