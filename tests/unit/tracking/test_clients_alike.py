"""One table of behaviour for the generated clients of every language: same calls, same envelopes, waits and errors."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from node_tools import CLIENTS, needs_typescript, node, tsc

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.codegen import write_output
from zantara_pipeline.tracking.codegen.python_client import python_client_files
from zantara_pipeline.tracking.codegen.typescript_client import typescript_client_files
from zantara_pipeline.tracking.plan import load_plan

PLAN = load_plan((PACKAGED, CLIENTS / "contracts"))
CASES: list[dict[str, Any]] = json.loads((CLIENTS / "behaviour.json").read_text(encoding="utf-8"))["cases"]
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
by_name = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def same(case: dict[str, Any], result: dict[str, Any]) -> None:
    """The result is what the table says, and what differs each time has its form."""
    assert result["gives"] == [step["gives"] if "track" in step else step["flush"] for step in case["steps"] if {"track", "flush"} & set(step)]  # fmt: skip
    events = [event for batch in result["batches"] for event in batch]
    for event in events:
        assert UUID.fullmatch(event["event_id"]) and UUID.fullmatch(event["session_id"])
        assert TIME.fullmatch(event["timestamp"]) and TIME.fullmatch(event["sent_at"])
        assert event["timestamp"] <= event["sent_at"]
    assert len({event["event_id"] for event in events}) == len(events)
    if events:
        assert len({event["session_id"] for event in events}) == case.get("sessions", 1)
    own = ("event_id", "timestamp", "sent_at", "session_id")
    told = [[{k: v for k, v in event.items() if k not in own} for event in batch] for batch in result["batches"]]
    assert told == case["batches"]
    assert (result["waits"], result["dropped"]) == (case.get("waits", []), case.get("dropped", 0))


# ---- Python ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    [path] = write_output(python_client_files(PLAN), tmp_path_factory.mktemp("client"))
    spec = importlib.util.spec_from_file_location("zantara_events_of_every_type", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class PythonRun:
    """The steps of a case, with the Python client; it is also the client's sink and its clock."""

    def __init__(self, module: ModuleType, case: dict[str, Any]) -> None:
        self.case, self.allowed, self.refusals = case, case["consent"], 0
        self.batches: list[Any] = []
        self.waits: list[float] = []
        self.client = module.TrackingClient(
            self,
            self.allowed if case.get("consent_as") == "state" else lambda: self.allowed,
            batch_size=case.get("batch_size", 20),
            tries=case.get("tries", 4),
            most_held=case.get("most_held", 10_000),
            sleep=self.wait,
            chance=lambda: case.get("chance", 0.0),
        )

    def send(self, events: list[Any]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError
        self.batches.append(events)

    def wait(self, seconds: float) -> None:
        if "on_wait" in self.case:
            self.allowed = self.case["on_wait"][len(self.waits)]
        self.waits.append(seconds)

    def result(self) -> dict[str, Any]:
        gives = [self.step(step) for step in self.case["steps"]]
        dropped = self.client.dropped
        return {"gives": [g for g in gives if g is not None], "batches": self.batches, "waits": self.waits, "dropped": dropped}  # fmt: skip

    def step(self, step: dict[str, Any]) -> str | bool | None:
        [(verb, value)] = [(key, step[key]) for key in step if key != "gives"]
        match verb:
            case "track":
                return self.track(*value)
            case "flush":
                return bool(self.client.flush())
            case "set":
                for name, text in value.items():
                    assert hasattr(self.client, name)
                    setattr(self.client, name, text)
            case "context":
                self.client.context = value
            case "consent":
                self.allowed = value
            case "refuse":
                self.refusals = value
            case "set_consent":
                self.client.set_consent(value)
            case "identify":
                self.client.identify(value)
            case "new_session":
                self.client.new_session()
        return None

    def track(self, event: str, properties: dict[str, Any], category: str) -> str:
        try:
            return "held" if self.client.track(event, properties, consent=category) else "nothing"
        except ValueError as error:
            return str(error)


def numbers(value: Any) -> Any:
    """{"$number": "NaN"} and the like as the numbers that they are."""
    if isinstance(value, dict):
        return float(value["$number"]) if "$number" in value else {key: numbers(item) for key, item in value.items()}
    return [numbers(item) for item in value] if isinstance(value, list) else value


@by_name
def test_python(python_client: ModuleType, case: dict[str, Any]) -> None:
    same(case, PythonRun(python_client, numbers(case)).result())


# ---- TypeScript -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def typescript_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("client")
    write_output(typescript_client_files(PLAN), folder)
    done = tsc(folder, "--target", "es2020", "--module", "commonjs", "zantara_events.ts")
    assert done.returncode == 0, done.stdout
    results = node(CLIENTS / "behave.mjs", folder / "zantara_events.js", stdin=CASES)
    return {case["name"]: result for case, result in zip(CASES, results, strict=True)}


@needs_typescript
@by_name
def test_typescript(typescript_results: dict[str, dict[str, Any]], case: dict[str, Any]) -> None:
    same(case, typescript_results[case["name"]])


def test_the_table_names_each_case_once() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_a_client_has_the_events_that_somebody_can_consent_to_and_that_are_not_retired() -> None:
    for files in (python_client_files(PLAN), typescript_client_files(PLAN)):
        [text] = files.values()
        assert "order_checked" in text and "never_granted" not in text and '"gone"' not in text and "gone:" not in text


def test_folder_of_fixtures_is_a_plan(tmp_path: Path) -> None:
    assert {"order_checked", "help_opened", "event", "never_granted", "gone"} <= set(PLAN.events)
