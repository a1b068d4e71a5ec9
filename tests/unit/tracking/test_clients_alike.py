"""One table of behaviour for the generated clients of every language: same calls, same envelopes, waits and errors."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from event_lines import BOTH, Shop, event
from node_tools import CLIENTS, needs_typescript, node, tsc

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.codegen import write_output
from zantara_pipeline.tracking.codegen.python_client import python_client_files
from zantara_pipeline.tracking.codegen.typescript_client import typescript_client_files
from zantara_pipeline.tracking.plan import load_plan
from zantara_pipeline.tracking.verdict import Rules

PLAN = load_plan((PACKAGED, CLIENTS / "contracts"))
CASES: list[dict[str, Any]] = json.loads((CLIENTS / "behaviour.json").read_text(encoding="utf-8"))["cases"]
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TRICKY: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, 0.49, 1000, 1000.5, 2.0, 2**53 + 2, 2**63 - 1, 2**63, 2**31, 2**53 - 1, -(2**53) + 1, 1e14, -1e14, 10**14, 99999999999999.9,
    1e300, 5e-324, -0.5, 1.25e-7, "", "s", "xl", "l'xl", "1", "true", "AB-1", "AB_𝄞𝄞𝄞", "AB_𝄞𝄞𝄞𝄞", "AB-\n", "AB-\r\u2028", "xAB-1", "AB-1\n",
    "\ud834", "é" * 5, "é" * 6, "𝄞" * 5, "𝄞" * 6, "a\u0000b", [], {}, ["s"], {"a": 1},
]  # fmt: skip
by_name = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def same(case: dict[str, Any], result: dict[str, Any]) -> None:
    """The result is what the table says, and what differs each time has its form."""
    assert result["gives"] == [step[key] for step in case["steps"] for key in ("gives", "flush", "attempts") if key in step]  # fmt: skip
    events = [one for batch in result["batches"] for one in batch]
    for one in events:
        assert UUID.fullmatch(one["event_id"]) and UUID.fullmatch(one["session_id"])
        assert TIME.fullmatch(one["timestamp"]) and TIME.fullmatch(one["sent_at"])
        assert one["timestamp"] <= one["sent_at"]
    assert len({one["event_id"] for one in events}) == len(events)
    if events:
        assert len({one["session_id"] for one in events}) == case.get("sessions", 1)
    own = ("event_id", "timestamp", "sent_at", "session_id")
    told = [[{k: v for k, v in one.items() if k not in own} for one in batch] for batch in result["batches"]]
    assert told == case["batches"]
    assert (result["waits"], result["dropped"]) == (case.get("waits", []), case.get("dropped", 0))


@pytest.fixture
def tried() -> list[dict[str, Any]]:
    """Every property with every tricky value."""
    good = {"code": "AB-1", "note": "x"}
    found = [good | {name: value} for name in PLAN.events["order_checked"].properties for value in TRICKY]
    return [*found, {}, {"code": "AB-1"}, {"note": "x"}, good | {"colour": "red"}, good | {"__proto__": "x"}]


def pipeline_takes(root: Path, tried: list[dict[str, Any]]) -> list[bool]:
    """What ingest makes of each, sent without a client."""
    shop = Shop(root, Rules(PLAN, late_after_hours=24, max_lateness_days=30))
    shop.land("raw.jsonl", [json.dumps(event("order_checked", properties)) for properties in tried])
    shop.ingest()
    stages = shop.stages("raw.jsonl")
    return [stages.get(number) == "accepted" for number in range(1, len(tried) + 1)]


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
        self.now, self.attempts = 1000.0, 0
        self.batches: list[Any] = []
        self.waits: list[float] = []
        self.client = module.TrackingClient(
            self,
            self.allowed if case.get("consent_as") == "state" else lambda: self.allowed,
            batch_size=case.get("batch_size", 20),
            tries=case.get("tries", 4),
            most_held=case.get("most_held", 10_000),
            sleep=self.wait,
            clock=lambda: self.now,
            chance=lambda: case.get("chance", 0.0),
        )

    def send(self, events: list[Any]) -> None:
        self.attempts += 1
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError
        self.batches.append(events)

    def wait(self, seconds: float) -> None:
        if "on_wait" in self.case:
            self.allowed = self.case["on_wait"][len(self.waits)]
        self.waits.append(seconds)
        self.now += seconds

    def result(self) -> dict[str, Any]:
        gives = [self.step(step) for step in self.case["steps"]]
        dropped = self.client.dropped
        return {"gives": [g for g in gives if g is not None], "batches": self.batches, "waits": self.waits, "dropped": dropped}  # fmt: skip

    def step(self, step: dict[str, Any]) -> str | bool | int | None:
        [(verb, value)] = [(key, step[key]) for key in step if key != "gives"]
        match verb:
            case "track":
                return self.track(*value)
            case "flush":
                return bool(self.client.flush())
            case "set":
                for name in value:
                    assert hasattr(self.client, name)
                return words(lambda: [setattr(self.client, name, text) for name, text in value.items()])
            case "context":
                return words(lambda: setattr(self.client, "context", value))
            case "context_in_place":
                self.client.context.update(value)
            case "consent":
                self.allowed = value
            case "pass":
                self.now += value
            case "attempts":
                return self.attempts
            case "refuse":
                self.refusals = value
            case "set_consent":
                self.client.set_consent(value)
            case "identify":
                return words(lambda: self.client.identify(value))
            case "new_session":
                self.client.new_session()
        return None

    def track(self, event: str, properties: dict[str, Any], category: str) -> str:
        try:
            return "held" if self.client.track(event, properties, consent=category) else "nothing"
        except ValueError as error:
            return str(error)


def words(call: Callable[[], object]) -> str | None:
    """What the call was refused with, if it was."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


def meant(value: Any) -> Any:
    """{"$number": "NaN"} and the like as the numbers that they are, {"$repeat": ["x", 3]} as "xxx"."""
    if isinstance(value, dict) and "$repeat" in value:
        text, times = value["$repeat"]
        return text * times
    if isinstance(value, dict):
        return float(value["$number"]) if "$number" in value else {key: meant(item) for key, item in value.items()}
    return [meant(item) for item in value] if isinstance(value, list) else value


@by_name
def test_python(python_client: ModuleType, case: dict[str, Any]) -> None:
    case = meant(case)
    same(case, PythonRun(python_client, case).result())


def test_python_takes_what_the_pipeline_takes_and_nothing_else(
    python_client: ModuleType, tried: list[dict[str, Any]], tmp_path: Path
) -> None:
    client = python_client.TrackingClient(python_client.FileSink(tmp_path / "x"), BOTH, batch_size=10_000)

    def takes(properties: dict[str, Any]) -> bool:
        try:
            return client.track("order_checked", properties, consent="analytics") is not None
        except ValueError:
            return False

    taken = [takes(properties) for properties in tried]
    assert taken == pipeline_takes(tmp_path / "home", tried)
    assert 0.2 < sum(taken) / len(taken) < 0.8


# ---- TypeScript -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def typescript_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    write_output(typescript_client_files(PLAN), folder)
    done = tsc(folder, "--target", "es2020", "--module", "commonjs", "zantara_events.ts")
    assert done.returncode == 0, done.stdout
    return folder / "zantara_events.js"


@pytest.fixture(scope="module")
def typescript_results(typescript_client: Path) -> dict[str, dict[str, Any]]:
    results = node(CLIENTS / "behave.mjs", typescript_client, stdin=CASES)
    return {case["name"]: result for case, result in zip(CASES, results, strict=True)}


@needs_typescript
@by_name
def test_typescript(typescript_results: dict[str, dict[str, Any]], case: dict[str, Any]) -> None:
    same(meant(case), typescript_results[case["name"]])


@needs_typescript
def test_typescript_takes_what_the_pipeline_takes_and_nothing_else(
    typescript_client: Path, tried: list[dict[str, Any]], tmp_path: Path
) -> None:
    """But for what JavaScript cannot tell or hold: it writes 2.0 as 2, and integers from 2^53 on are refused."""
    told = [
        (properties, taken)
        for properties, taken in zip(tried, pipeline_takes(tmp_path / "home", tried), strict=True)
        if not any(beyond_javascript(value) for value in properties.values())
    ]
    calls = [("order_checked", properties, "analytics") for properties, _ in told]
    said = node(CLIENTS / "send.mjs", typescript_client, tmp_path / "app.jsonl", stdin=calls)["said"]
    assert [isinstance(answer, str) for answer in said] == [taken for _, taken in told]
    assert len(told) > 300


def beyond_javascript(value: Any) -> bool:
    whole = isinstance(value, float) and value.is_integer()
    return not isinstance(value, bool) and (whole or (isinstance(value, int) and abs(value) >= 2**53))


def test_the_table_names_each_case_once() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_a_description_cannot_end_its_comment() -> None:
    assert "/** Holds everything; * / and" in typescript_client_files(PLAN)["zantara_events.ts"]
    compile(python_client_files(PLAN)["zantara_events.py"], "zantara_events.py", "exec")


def test_a_client_has_the_events_that_somebody_can_consent_to_and_that_are_not_retired() -> None:
    for files in (python_client_files(PLAN), typescript_client_files(PLAN)):
        [text] = files.values()
        assert "order_checked" in text and "never_granted" not in text and '"gone"' not in text and "gone:" not in text
