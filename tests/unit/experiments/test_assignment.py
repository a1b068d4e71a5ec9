"""Assignment: places that sha256sum of the coreutils gives, too, in Python, SQL and TypeScript; the split that comes of them;
what an application is told.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.util
import json
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_tools import needs_typescript, node, tsc

from zantara_pipeline.experiments import load_experiments, served
from zantara_pipeline.experiments.assigners import assigner_files
from zantara_pipeline.experiments.assignment import PLACES, assign, bounds, place, place_sql
from zantara_pipeline.experiments.stops import Stop
from zantara_pipeline.simulate.effects import bucket

UNITS = [
    "",
    "u-1",
    "17",
    "Ünïcode",
    "日本",
    "😀",
    "a" * 119,
    "a" * 120,
    "b" * 5_000,
    "line\nbreak",
    "tab\t",
    '"quoted"',
    "0",
    "007",
]
SALTS = ["checkout_redesign:v1", "a", "x:y:z"]
NOW = dt.datetime(2026, 2, 10, tzinfo=dt.UTC)
REGISTRY = load_experiments()


def sha256sum(text: str) -> str:
    done = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True)
    return done.stdout.decode()[:13]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The assigner as an application has it: the file alone."""
    [(name, text)] = assigner_files("python").items()
    path = tmp_path_factory.mktemp("application") / name
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("zantara_experiments", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["zantara_experiments"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled assigner and a script that asks it."""
    folder = tmp_path_factory.mktemp("typescript")
    [(name, text)] = assigner_files("typescript").items()
    (folder / name).write_text(text)
    (folder / "package.json").write_text('{"type": "module"}')
    done = tsc(folder, name, "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler")
    assert done.returncode == 0, done.stdout
    (folder / "ask.mjs").write_text(
        """import { readFileSync } from "node:fs";
import { Assigner, BrokenFile, place } from "./zantara_experiments.js";
const asked = JSON.parse(readFileSync(0, "utf8"));
const told = { places: (asked.places ?? []).map(([salt, unit]) => place(salt, unit)) };
if (asked.text !== undefined) {
  try {
    const assigner = new Assigner(asked.text);
    told.assigned = asked.units.map(([name, unit, now]) => assigner.assign(name, unit, new Date(now)));
  } catch (error) {
    told.broken = error instanceof BrokenFile ? error.message : "another: " + error;
  }
}
console.log(JSON.stringify(told));
"""
    )
    return folder


def test_places_are_those_of_sha256sum_in_python_and_sql(python: ModuleType) -> None:
    con = duckdb.connect()
    for salt in SALTS:
        for unit in UNITS:
            expected = int(sha256sum(f"{salt}:{unit}"), 16)
            assert place(salt, unit) == python.place(salt, unit) == expected
            query = f"SELECT {place_sql('$salt::VARCHAR', '$unit::VARCHAR')}"
            assert con.execute(query, {"salt": salt, "unit": unit}).fetchall() == [(expected,)]


@needs_typescript
def test_places_are_the_same_in_typescript(typescript: Path, python: ModuleType) -> None:
    pairs = [[salt, unit] for salt in SALTS for unit in UNITS]
    pairs += [["s", "x" * length] for length in range(130)]  # every way in which a message can fill its blocks
    assert node(typescript / "ask.mjs", stdin={"places": pairs})["places"] == [place(*pair) for pair in pairs]
    halves = ["\ud83d", "a\ude00b", "\ude00\ud83d"]
    found = node(typescript / "ask.mjs", stdin={"places": [["s", half] for half in halves]})["places"]
    assert found == [python.place("s", half) for half in halves]


@needs_typescript
@pytest.mark.parametrize("options", ["", "--target es2022 --module nodenext --lib es2022",
    "--target es2022 --module esnext --moduleResolution bundler --lib es2022,dom --noUncheckedIndexedAccess --noUnusedLocals "
    "--exactOptionalPropertyTypes --noImplicitReturns --noPropertyAccessFromIndexSignature --declaration"])  # fmt: skip
def test_tsc_takes_it_under_any_options(tmp_path: Path, options: str) -> None:
    [(name, text)] = assigner_files("typescript").items()
    (tmp_path / name).write_text(text)
    done = tsc(tmp_path, name, *options.split())
    assert done.returncode == 0, done.stdout


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20))
def test_bounds_share_all_places_by_weight(shares: list[int]) -> None:
    weights = {f"v{number}": share / sum(shares) for number, share in enumerate(shares)}
    found = list(bounds(weights).values())
    assert found[-1] == PLACES and found == sorted(found)
    for before, below, weight in zip([0, *found], found, weights.values(), strict=False):
        assert abs((below - before) / PLACES - weight) < 1e-12


def test_a_tenth_is_a_tenth() -> None:
    """0.1 as a double is more than a tenth; ten of them must not move the bounds."""
    weights = {f"v{number}": 0.1 for number in range(10)}
    assert list(bounds(weights).values()) == [PLACES * number // 10 for number in range(1, 11)]


def test_units_fall_as_declared_and_salts_are_independent() -> None:
    weights = {"control": 0.5, "a": 0.3, "b": 0.2}
    units = [f"u-{number}" for number in range(20_000)]
    counts = Counter(assign("one:v1", weights, unit) for unit in units)
    for variant, weight in weights.items():
        assert abs(counts[variant] - 20_000 * weight) < 4 * (20_000 * weight * (1 - weight)) ** 0.5
    both = Counter((assign("one:v1", weights, unit), assign("two:v1", weights, unit)) for unit in units)
    for (one, two), count in both.items():
        expected = 20_000 * weights[one] * weights[two]
        assert abs(count - expected) < 4.5 * expected**0.5


def test_the_simulated_shop_assigns_alike() -> None:
    """The shop has code of its own for it (simulate/ knows nothing of experiments/)."""
    for experiment in REGISTRY.experiments.values():
        for number in range(200):
            treated = bucket(str(experiment.salt), f"u-{number}") >= 0.5
            assert assign(str(experiment.salt), experiment.variants, f"u-{number}") == (
                "treatment" if treated else "control"
            )


STOPPED = Stop("t", "search_ranking", "h", "srm", "the split is broken", {}, NOW, NOW)


def document(**changes: Any) -> str:
    return json.dumps(served(REGISTRY, {"search_ranking": STOPPED}, NOW) | changes, ensure_ascii=False)


def asked() -> list[list[str]]:
    days = ["2026-02-01T23:59:59Z", "2026-02-02T00:00:00Z", "2026-03-01T23:59:59Z", "2026-03-02T00:00:00Z"]
    names = [*sorted(REGISTRY.experiments), "no_such"]
    return [[name, unit, day] for name in names for unit in ("u-1", "u-2", "日本") for day in days]


def expected() -> list[dict[str, Any]]:
    told = []
    for name, unit, day in asked():
        moment, experiment = dt.datetime.fromisoformat(day), REGISTRY.experiments.get(name)
        if experiment is None:
            reason = "unknown"
        elif name == "search_ranking":
            reason = "stopped"
        else:
            reason = (
                "before_start" if moment < experiment.start else "after_end" if moment >= experiment.end else "running"
            )
        running = reason == "running" and experiment is not None
        variant = assign(str(experiment.salt), experiment.variants, unit) if running and experiment else "control"
        told.append({"variant": variant, "expose": running, "reason": reason})
    return told


def test_an_application_in_python_is_told_the_same(python: ModuleType) -> None:
    assigner = python.Assigner(document())
    found = [vars(assigner.assign(name, unit, dt.datetime.fromisoformat(day))) for name, unit, day in asked()]
    assert found == expected()
    assert {one["reason"] for one in found} == {"unknown", "stopped", "before_start", "after_end", "running"}
    assert assigner.assign("no_such", "u-1").reason == "unknown"  # by the clock of now


@needs_typescript
def test_an_application_in_typescript_is_told_the_same(typescript: Path) -> None:
    assert node(typescript / "ask.mjs", stdin={"text": document(), "units": asked()})["assigned"] == expected()


BROKEN = {
    "torn": document()[:-9],
    "changed": document().replace('"stopped": true', '"stopped": false'),
    "another hash": document(sha256="0" * 64),
    "no experiments": "{}",
    "no object": "[1]",
    "nothing": "",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_was_changed_or_torn_is_refused(name: str, python: ModuleType) -> None:
    with pytest.raises(python.BrokenFile):
        python.Assigner(BROKEN[name])


@needs_typescript
def test_and_so_it_is_in_typescript(typescript: Path) -> None:
    for text in BROKEN.values():
        told = node(typescript / "ask.mjs", stdin={"text": text, "units": []})
        assert told["broken"].startswith("experiments.json"), (text, told)


def test_a_later_format_is_refused(python: ModuleType) -> None:
    whole = {"format": 2, "experiments": []}
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    with pytest.raises(python.BrokenFile, match="later format"):
        python.Assigner(json.dumps(whole | {"sha256": digest}))


def test_an_experiment_without_a_salt_is_not_served() -> None:
    bare = {name: replace(one, salt=None) for name, one in REGISTRY.experiments.items()}
    assert served(replace(REGISTRY, experiments=bare), {}, NOW)["experiments"] == []


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_salt_and_reason_hash_alike(reason: str) -> None:
    stop = replace(STOPPED, reason=reason.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    [(_, text)] = assigner_files("python").items()
    scope: dict[str, Any] = {"__name__": "zantara_experiments"}
    exec(compile(text, "zantara_experiments.py", "exec"), scope)
    whole = json.dumps(served(REGISTRY, {"search_ranking": stop}, NOW))
    assert scope["Assigner"](whole).assign("search_ranking", "u-1", NOW).reason == "stopped"
