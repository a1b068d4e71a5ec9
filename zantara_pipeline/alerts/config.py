"""The contract `alerts.yaml`: which sinks get which alerts.

Belongs here: the pydantic model of the file. Does not belong here: the sinks themselves (sinks.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from zantara_pipeline.alerts.finding import KINDS, SEVERITIES, Severity
from zantara_pipeline.contracts_io import PACKAGED, parse_contract


class SinkConfig(BaseModel):
    """One place that alerts go to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["log", "file"]
    min_severity: Severity

    def wants(self, severity: Severity) -> bool:
        """Whether an alert of this severity goes to this sink."""
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.min_severity)


class AlertsConfig(BaseModel):
    """The whole of alerts.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sinks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], SinkConfig]
    kinds: dict[str, Severity]
    retry_claim_after_minutes: Annotated[float, Field(gt=0, le=1440)]

    @field_validator("sinks")
    @classmethod
    def _one_outbox(cls, sinks: dict[str, SinkConfig]) -> dict[str, SinkConfig]:
        files = [name for name, sink in sinks.items() if sink.kind == "file"]
        if len(files) > 1:
            raise ValueError(f"only one sink of kind 'file' can write the outbox, here are {', '.join(files)}")
        return sinks

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, kinds: dict[str, Severity]) -> dict[str, Severity]:
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"unknown alert kind '{kind}': one of {', '.join(sorted(KINDS))}")
        return kinds

    def severity(self, kind: str, declared: Severity) -> Severity:
        """The override for a kind, or the severity that the finding declared."""
        return self.kinds.get(kind, declared)


def load_alerts_config(path: Path = PACKAGED / "alerts.yaml") -> AlertsConfig:
    """Read alerts.yaml; an InputError names file, line and key of the first thing wrong."""
    return parse_contract(AlertsConfig, path)
