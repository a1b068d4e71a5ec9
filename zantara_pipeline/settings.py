"""The one typed settings object; the only reader of the environment (prefix ZANTARA_).

Belongs here: names, types and defaults of what a person can set. Does not belong here: paths inside a home
(storage/home.py) and anything that a contract in contracts/ says.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError

EventFormat = Literal["auto", "envelope", "segment", "snowplow", "ga4", "csv"]

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """What can be set from outside; every field is the variable ZANTARA_<FIELD>.

    Parameters
    ----------
    home : folder that holds data/ and mlflow/; default the project root.
    contracts : folder whose files add to the packaged contracts or replace them (same relative name).
    landing, items, consent : where events, the catalogue and the consent ledger are read from instead of
        <home>/data/landing/{events,items,consent}; a file or a folder; read in place, never copied, so that
        payloads nobody consented to are not stored a second time.
    format : of the landed event files; auto finds it per file, any other is held against each file.
    as_of : the clock of a run (ISO 8601 with zone); default the latest received_at seen.
    late_after_hours : an event received later than this after it occurred is marked is_late.
    max_lateness_days : an event later than this is quarantined (too_late); also how far back duplicates are sought.
    threads, memory_limit : bounds of the embedded engine.
    pii_keys_file, pii_keys : the keys for direct identifiers, as a file or as text (privacy/keyed_hash.py reads them).
    export_keys_file, export_keys : the keys for pseudonyms in exports, in the same way.
    """

    model_config = SettingsConfigDict(env_prefix="ZANTARA_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = PROJECT_ROOT
    contracts: Path | None = None
    landing: Path | None = None
    items: Path | None = None
    consent: Path | None = None
    format: EventFormat = "auto"
    as_of: datetime | None = None
    late_after_hours: int = Field(default=24, ge=1, le=2_400_000)
    max_lateness_days: int = Field(default=30, ge=1, le=100_000)
    threads: int = Field(default=2, ge=1)
    memory_limit: str = Field(default="2GB", pattern=r"^\d+(\.\d+)?\s?(MB|GB|MiB|GiB)$")

    pii_keys_file: Path | None = None
    pii_keys: SecretStr | None = None
    export_keys_file: Path | None = None
    export_keys: SecretStr | None = None

    @field_validator("as_of", mode="before")
    @classmethod
    def _no_number(cls, value: object) -> object:
        """pydantic takes 2026 and 20260301 for seconds since 1970."""
        if isinstance(value, (int, float)) or (
            isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?", value.strip())
        ):
            raise ValueError("a number is no time")
        return value

    @property
    def pii_keys_text(self) -> str | None:
        return None if self.pii_keys is None else self.pii_keys.get_secret_value()

    @property
    def export_keys_text(self) -> str | None:
        return None if self.export_keys is None else self.export_keys.get_secret_value()

    @cached_property
    def contract_dirs(self) -> tuple[Path, ...]:
        """Packaged contracts first, the overlay (if any) last."""
        return (PACKAGED,) if self.contracts is None else (PACKAGED, self.contracts)


def dagster_home_is_set() -> bool:
    """Was Dagster started with an instance of its own? `make ui` sees to it; a bare `dagster dev` does not."""
    return bool(os.environ.get("DAGSTER_HOME"))


def load_settings(**overrides: object) -> Settings:
    """Read the environment; a bad value is one line that names the variable."""
    try:
        settings = Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "ZANTARA_" + str(first["loc"][0]).upper()
        todo = _TIME if first["loc"][0] == "as_of" else "correct it or unset it"
        raise InputError(str(first["msg"]).removeprefix("Value error, "), f"setting {name}", todo) from None
    if settings.contracts is not None and not settings.contracts.is_dir():
        raise InputError("no such folder", f"setting ZANTARA_CONTRACTS ({settings.contracts})", "create it or unset it")
    update = {"home": settings.home.expanduser().resolve(), "as_of": _utc(settings.as_of)}
    return settings.model_copy(update=update)


_TIME = "write it like 2026-03-01T00:00:00Z"


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InputError("the time has no zone", "setting ZANTARA_AS_OF", _TIME)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InputError("the time is beyond the calendar", "setting ZANTARA_AS_OF", _TIME) from None
