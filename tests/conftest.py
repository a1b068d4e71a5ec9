"""Fixtures that several folders share: homes that cost a whole run are made once, also where pytest has many workers."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from pipeline_homes import copy_home, land, with_project, zantara

from zantara_pipeline.contracts_io import PACKAGED

# Whoever changes nothing gets the same verdict twice; `--hypothesis-profile default` looks for new cases at random.
settings.register_profile("same_each_time", derandomize=True)
settings.load_profile("same_each_time")

Shared = Callable[[str, Callable[[Path], object]], Path]

# The last file of step one and of step two; one earlier file comes with step three only, so that staging has to go back.
CUTS = ("events-2026-02-03.jsonl", "events-2026-02-23.jsonl")
STRAGGLER = "events-2026-01-24.jsonl"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-asset-specs", action="store_true", help="write tests/integration/asset_specs.json anew")


# What takes longest and builds homes that others wait for begins first, on different workers: the default shop, which
# shares nothing, beside the three steps. The rest is short enough to fill the ends.
_FIRST = ("test_planted_truth.py", "test_killed_runs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """`shared(name, build)`: a folder built by the first who asks; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    base = base / "shared"
    base.mkdir(exist_ok=True)

    def once(name: str, build: Callable[[Path], object]) -> Path:
        place, mark = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not mark.exists():
                shutil.rmtree(place, ignore_errors=True)
                build(place)
                mark.touch()
        return place

    return once


@pytest.fixture(scope="session")
def small_shop(shared: Shared) -> Path:
    """Landing files of a simulated shop of 6,000 lines (events/, items/, consent/, truth.json)."""
    return shared(
        "shop", lambda place: zantara(place.parent / "nowhere", "simulate", "--events", "6000", "--out", place)
    )


@pytest.fixture(scope="session")
def parsed(shared: Shared) -> Path:
    """data/dbt/target of a home in which nothing was done but parsing the dbt project: 5 CPU seconds, alike in every home.

    `small_home`, the default shop and the first run that is killed parse for themselves.
    """

    def build(place: Path) -> None:
        from zantara_pipeline.definitions import build_definitions
        from zantara_pipeline.settings import Settings

        build_definitions(Settings(home=place))

    return shared("parsed", build) / "data" / "dbt" / "target"


@pytest.fixture
def new_home(parsed: Path, tmp_path: Path) -> Path:
    """A home with nothing in it but the parsed dbt project."""
    return with_project(tmp_path / "home", parsed)


@pytest.fixture(scope="session")
def alerting(shared: Shared) -> dict[str, str]:
    """Contracts under which the small shop has something to alert about: CUPED must halve the variance and more."""

    def write(place: Path) -> None:
        text = (PACKAGED / "experiments" / "ab-test-guardrails.yaml").read_text(encoding="utf-8")
        assert "cuped_min_reduction: 0.02" in text
        (place / "experiments").mkdir(parents=True)
        changed = text.replace("cuped_min_reduction: 0.02", "cuped_min_reduction: 0.9")
        (place / "experiments" / "ab-test-guardrails.yaml").write_text(changed, encoding="utf-8")

    return {"ZANTARA_CONTRACTS": str(shared("contracts", write))}


@pytest.fixture(scope="session")
def small_home(shared: Shared, small_shop: Path, alerting: dict[str, str]) -> Path:
    """A home that took the whole small shop in one run. Read it or copy it; do not run in it."""

    def build(home: Path) -> None:
        land(home, small_shop)
        zantara(home, "run", env=alerting)

    return shared("home", build)


@pytest.fixture(scope="session")
def two_steps(shared: Shared, small_shop: Path, parsed: Path, alerting: dict[str, str]) -> Path:
    """A home that took the small shop's first 30 days, then days 31 to 50, a run after each; one file is held back."""

    def build(home: Path) -> None:
        names = [path.name for path in sorted((small_shop / "events").iterdir())]
        assert STRAGGLER in names and set(CUTS) <= set(names)
        with_project(home, parsed)
        for cut in CUTS:
            land(home, small_shop, [name for name in names if name <= cut and name != STRAGGLER])
            zantara(home, "run", env=alerting)

    return shared("two_steps", build)


@pytest.fixture(scope="session")
def third_landed(shared: Shared, two_steps: Path, small_shop: Path) -> Path:
    """`two_steps` with the rest landed and not run yet: where every kill starts from."""

    def build(home: Path) -> None:
        copy_home(two_steps, home)
        land(home, small_shop)

    return shared("third_landed", build)


@pytest.fixture(scope="session")
def three_steps(shared: Shared, third_landed: Path, alerting: dict[str, str]) -> Path:
    """The undisturbed third run; its words are in run.out beside the home's data."""

    def build(home: Path) -> None:
        copy_home(third_landed, home)
        (home / "run.out").write_text(zantara(home, "run", env=alerting).out, encoding="utf-8")

    return shared("three_steps", build)
