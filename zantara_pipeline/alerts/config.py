"""The contract `alerts.yaml`: which sinks get which alerts.

Belongs here: the pydantic model of the file. Does not belong here: the sinks themselves (sinks.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from zantara_pipeline.alerts.finding import KINDS, SEVERITIES, Severity
from zantara_pipeline.contracts_io import PACKAGED, parse_contract

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
"""Name of an environment variable: addresses and passwords that are secrets never stand in a contract."""
Timeout = Annotated[float, Field(gt=0, le=60)]


Address = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]


class _Sink(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    min_severity: Severity

    def wants(self, severity: Severity) -> bool:
        """Whether an alert of this severity goes to this sink."""
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.min_severity)


class LogConfig(_Sink):
    """Python's logging."""

    kind: Literal["log"]


class FileConfig(_Sink):
    """The outbox in the home."""

    kind: Literal["file"]


class WebhookConfig(_Sink):
    """One POST of JSON an alert.

    url_from : environment variable with the address.
    signing_key_from : environment variable with a key; the body is signed with it (HMAC-SHA256).
    """

    kind: Literal["webhook"]
    url_from: EnvironmentName
    signing_key_from: EnvironmentName | None = None
    timeout_seconds: Timeout = 10


class SlackConfig(_Sink):
    """An incoming webhook of Slack, whose address is a secret."""

    kind: Literal["slack"]
    url_from: EnvironmentName
    timeout_seconds: Timeout = 10


class EmailConfig(_Sink):
    """One mail an alert, by SMTP.

    security : starttls (port 587 as a rule), tls from the first byte (465), or none (a server on this machine or network).
    user_from, password_from : environment variables to log in with; both or neither.
    """

    kind: Literal["email"]
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535, strict=True)
    security: Literal["starttls", "tls", "none"]
    sender: Address
    to: list[Address] = Field(min_length=1)
    user_from: EnvironmentName | None = None
    password_from: EnvironmentName | None = None
    timeout_seconds: Timeout = 10

    @model_validator(mode="after")
    def _whole_login(self) -> EmailConfig:
        if (self.user_from is None) != (self.password_from is None):
            raise ValueError("user_from and password_from belong together")
        if self.user_from is not None and self.security == "none":
            raise ValueError(
                "a password is not sent in the clear: security is starttls or tls where user_from is given"
            )
        return self


SinkConfig = Annotated[LogConfig | FileConfig | WebhookConfig | SlackConfig | EmailConfig, Field(discriminator="kind")]
"""One place that alerts go to."""


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
