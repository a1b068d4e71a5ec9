"""The recorded models, once for all tests of this folder."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from core_shop import Recorded, record


@pytest.fixture(scope="session")
def recorded(shared) -> Recorded:  # type: ignore[no-untyped-def]
    def build(place: Path) -> None:
        place.mkdir(parents=True)
        (place / "recorded").write_bytes(pickle.dumps(record(place)))

    return pickle.loads((shared("recorded_core", build) / "recorded").read_bytes())
