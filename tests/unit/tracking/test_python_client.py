"""The generated Python client: mypy refuses what the plan does not know, so does the client, and what it writes is accepted."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from typing import Any

import pytest
from event_lines import PLAN, RULES, Shop
from node_tools import CLIENTS, ROOT

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.codegen import write_output
from zantara_pipeline.tracking.codegen.python_client import class_name, python_client_files
from zantara_pipeline.tracking.plan import TrackingPlan, load_plan

BOTH = {"analytics": True, "personalization": True}


@pytest.fixture(scope="module")
def client_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_output(python_client_files(PLAN), tmp_path_factory.mktemp("client"))[0]


@pytest.fixture(scope="module")
def client(client_file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("zantara_events", client_file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zantara_events"] = module
    spec.loader.exec_module(module)
    return module


RIGHT = 'client.track("product_view", {"product_id": "p", "price": 9.5, "currency": "EUR"}, consent="analytics")'
WRONG = {
    "unknown event": 'client.track("product_viewed", {"product_id": "p"}, consent="analytics")',
    "missing property": 'client.track("product_view", {"price": 9.5}, consent="analytics")',
    "misspelt property": 'client.track("product_view", {"product_id": "p", "prize": 9.5}, consent="analytics")',
    "mistyped property": 'client.track("product_view", {"product_id": "p", "price": "9.5"}, consent="analytics")',
    "unknown category": 'client.track("product_view", {"product_id": "p"}, consent="marketing")',
    "another event's category": 'client.track("product_view", {"product_id": "p"}, consent="personalization")',
}


def test_mypy_takes_right_calls_and_refuses_wrong_ones(client_file: Path, tmp_path: Path) -> None:
    head = (
        "from pathlib import Path\nfrom zantara_events import FileSink, TrackingClient\n"
        'client = TrackingClient(FileSink(Path("x")), consent=lambda: {"analytics": True}); FileSink("x")\n'
    )
    (tmp_path / "app.py").write_text(head + "\n".join([RIGHT, *WRONG.values()]) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "/dev/null", "app.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"MYPYPATH": str(client_file.parent), "PATH": ""}, capture_output=True, text=True
    )
    errors = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert errors == set(range(5, 5 + len(WRONG))), done.stdout + done.stderr


def test_a_file_is_named_by_a_text_or_a_path(client: Any, tmp_path: Path) -> None:
    for path in (str(tmp_path / "logs" / "text.jsonl"), tmp_path / "logs" / "path.jsonl"):
        tracker = client.TrackingClient(client.FileSink(path), BOTH)
        tracker.track("product_view", {"product_id": "p"}, consent="analytics")
        assert tracker.flush() and Path(path).read_text().count("\n") == 1
    with pytest.raises(TypeError):
        client.FileSink(None)


def test_the_how_to_is_typed_right(client_file: Path, tmp_path: Path) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to-send-events.md").read_text(), re.DOTALL)
    (tmp_path / "app.py").write_text(block)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "/dev/null", "app.py"]
    done = subprocess.run(command, cwd=tmp_path, env={"MYPYPATH": str(client_file.parent), "PATH": ""}, text=True)
    assert done.returncode == 0


ODD_RIGHT = [
    'every.track("order_checked", {"code": "AB-1", "note": None, "class": "c", "size": "l\'xl"}, consent="analytics")',
    'every.track("event", {}, consent="personalization")',
    'one.track("help_opened", {"topic": None}, consent="analytics")',
    'one.set_consent({"analytics": False})',
]
ODD_WRONG = [
    'every.track("order_checked", {"code": "AB-1"}, consent="analytics")',
    'every.track("order_checked", {"code": "AB-1", "note": None, "class": 3}, consent="analytics")',
    'every.track("order_checked", {"code": "AB-1", "note": None, "size": "xl"}, consent="analytics")',
    'every.track("event", {"topic": "x"}, consent="personalization")',
    'one.track("help_opened", {"topics": None}, consent="analytics")',
    'one.track("event", {}, consent="personalization")',
]


def test_words_of_python_names_that_are_taken_and_plans_of_one_event_are_typed_too(tmp_path: Path) -> None:
    plan = load_plan((PACKAGED, CLIENTS / "contracts"))
    single = TrackingPlan({"help_opened": plan.events["help_opened"]}, plan.privacy)
    for name, which in {"every": plan, "one": single}.items():
        write_output(python_client_files(which), tmp_path / name)
        (tmp_path / name / "zantara_events.py").rename(tmp_path / f"events_of_{name}.py")
    head = "".join(
        f"import events_of_{name}\n{name} = events_of_{name}.TrackingClient(events_of_{name}.HttpSink('x'), {{}})\n"
        for name in ("every", "one")
    )
    (tmp_path / "app.py").write_text(head + "\n".join([*ODD_RIGHT, *ODD_WRONG]) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "/dev/null", "app.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"MYPYPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True
    )
    errors = {(line.split(":")[0], int(line.split(":")[1])) for line in done.stdout.splitlines() if ": error:" in line}
    first = head.count("\n") + len(ODD_RIGHT) + 1
    assert errors == {("app.py", first + n) for n in range(len(ODD_WRONG))}, done.stdout + done.stderr


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_the_client_refuses_the_same_at_run_time_and_names_no_value(client: Any, call: str, tmp_path: Path) -> None:
    tracker = client.TrackingClient(client.FileSink(tmp_path / "x.jsonl"), consent=lambda: BOTH)
    with pytest.raises(ValueError) as error:
        eval(call, {"client": tracker})
    assert "9.5" not in str(error.value)


@pytest.mark.parametrize("name", sorted(PLAN.events))
def test_the_examples_of_the_plan_pass_and_fail_in_the_client_too(client: Any, name: str, tmp_path: Path) -> None:
    plan = PLAN.events[name]
    tracker = client.TrackingClient(client.FileSink(tmp_path / "x.jsonl"), consent=lambda: BOTH, batch_size=100)
    for example in plan.examples.valid:
        assert tracker.track(name, example, consent=plan.consent_category)
    for wrong in plan.examples.invalid:
        with pytest.raises(ValueError):
            tracker.track(name, wrong.properties, consent=plan.consent_category)


def test_from_client_to_file_to_lake(client: Any, tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home", RULES)
    tracker = client.TrackingClient(client.FileSink(shop.landing / "app.jsonl"), consent=lambda: BOTH, batch_size=4)
    tracker.anonymous_id, tracker.device_id, tracker.context = "a-1", "d-1", {"platform": "web", "country": "DE"}
    sent = []
    for name, plan in PLAN.events.items():
        sent += [tracker.track(name, example, consent=plan.consent_category) for example in plan.examples.valid]
        tracker.identify("u-1")
    assert tracker.flush()
    total = shop.ingest().total
    assert (total.accepted, total.rows_in) == (len(sent), len(sent))
    rows = shop.accepted()
    assert {row["event_id"] for row in rows} == set(sent)
    assert {row["user_id"] for row in rows} == {None, "u-1"}
    assert {(row["device_id"], row["platform"], row["country"]) for row in rows} == {("d-1", "web", "DE")}
    assert {row["session_id"] for row in rows} == {tracker.session_id}


@pytest.mark.parametrize(
    "allowed", [{}, {"analytics": False}, {"analytics": None}, {"analytics": 1}, {"personalization": True}]
)
def test_nothing_is_queued_without_consent(client: Any, tmp_path: Path, allowed: dict[str, Any]) -> None:
    tracker = client.TrackingClient(client.FileSink(tmp_path / "x.jsonl"), consent=lambda: allowed)
    assert tracker.track("product_view", {"product_id": "p"}, consent="analytics") is None
    assert tracker.flush() and not (tmp_path / "x.jsonl").exists()


def test_what_is_held_is_dropped_when_consent_is_withdrawn_before_it_was_sent(client: Any, tmp_path: Path) -> None:
    allowed = dict(BOTH)
    tracker = client.TrackingClient(client.FileSink(tmp_path / "x.jsonl"), consent=lambda: allowed)
    tracker.track("product_view", {"product_id": "p"}, consent="analytics")
    allowed["analytics"] = False
    assert tracker.flush() and not (tmp_path / "x.jsonl").exists()


class Flaky:
    """Refuses the first so many batches."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.batches = refusals, []  # type: ignore[var-annotated]

    def send(self, events: list[dict[str, Any]]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError
        self.batches.append(events)


def test_batches_are_tried_again_with_growing_waits(client: Any) -> None:
    waits: list[float] = []
    sink = Flaky(2)
    tracker = client.TrackingClient(sink, consent=lambda: BOTH, batch_size=2, sleep=waits.append, chance=lambda: 0.0)
    for _ in range(5):
        tracker.track("app_crashed", {"error_class": "Oops"}, consent="analytics")
    assert waits == [0.5, 1.0] and [len(batch) for batch in sink.batches] == [2, 2]
    assert tracker.flush() and [len(batch) for batch in sink.batches] == [2, 2, 1]


def test_what_cannot_be_sent_is_kept_up_to_a_bound(client: Any) -> None:
    sink = Flaky(10**6)
    tracker = client.TrackingClient(
        sink, consent=lambda: BOTH, batch_size=1, tries=1, most_held=3, sleep=lambda _: None
    )
    ids = [tracker.track("app_crashed", {"error_class": "Oops"}, consent="analytics") for _ in range(5)]
    assert tracker.dropped == 2
    sink.refusals = 0
    assert tracker.flush() and [event["event_id"] for batch in sink.batches for event in batch] == ids[2:]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503 if not bodies else 200)
            bodies.append(body)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/events", bodies
    server.shutdown()


def test_a_collector_gets_each_event_once_it_answers(client: Any, collector: tuple[str, list[bytes]]) -> None:
    url, bodies = collector
    tracker = client.TrackingClient(client.HttpSink(url), consent=lambda: BOTH, sleep=lambda _: None)
    event_id = tracker.track("app_crashed", {"error_class": "Oops"}, consent="analytics")
    assert tracker.flush()
    assert len(bodies) == 2
    [line] = bodies[1].splitlines()
    assert json.loads(line)["event_id"] == event_id


@pytest.fixture
def odd_collector() -> Iterator[tuple[str, list[bytes], list[str]]]:
    """Answers each POST by the next of the given raw answers, and says which methods it was asked by."""
    answers: list[bytes] = []
    asked: list[str] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().split()[0].decode())
            length = 0
            while line := self.rfile.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            self.wfile.write(answers.pop(0) if answers else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = TCPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/events", answers, asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_delivers_nothing_and_the_batch_is_tried_again(
    client: Any, odd_collector: tuple[str, list[bytes], list[str]], status: int
) -> None:
    """Followed, a 302 turns the POST into a GET without a body: its answer 200 says nothing about the events."""
    url, answers, asked = odd_collector
    redirect = f"HTTP/1.1 {status} Moved\r\nLocation: {url}/login\r\nContent-Length: 0\r\n\r\n".encode()
    answers += [redirect, redirect]
    tracker = client.TrackingClient(client.HttpSink(url), BOTH, tries=2, sleep=lambda _: None)
    tracker.track("app_crashed", {"error_class": "Oops"}, consent="analytics")
    assert not tracker.flush() and asked == ["POST", "POST"]
    assert tracker.flush() and asked == ["POST"] * 3


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 101 + b"\r\n"]
)
def test_an_answer_that_is_no_http_is_a_failed_attempt(
    client: Any, odd_collector: tuple[str, list[bytes], list[str]], answer: bytes
) -> None:
    url, answers, asked = odd_collector
    answers.append(answer)
    tracker = client.TrackingClient(client.HttpSink(url), BOTH, sleep=lambda _: None)
    tracker.track("app_crashed", {"error_class": "Oops"}, consent="analytics")
    assert tracker.flush() and asked == ["POST"] * 2


def test_an_answer_about_consent_that_is_none_allows_nothing(client: Any, tmp_path: Path) -> None:
    answer: Any = BOTH
    tracker = client.TrackingClient(client.FileSink(tmp_path / "x.jsonl"), consent=lambda: answer)
    assert tracker.track("product_view", {"product_id": "p"}, consent="analytics")
    answer = None
    assert tracker.flush() and not (tmp_path / "x.jsonl").exists()
    assert tracker.track("product_view", {"product_id": "p"}, consent="analytics") is None
    tracker.set_consent(None)
    assert tracker.track("product_view", {"product_id": "p"}, consent="analytics") is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_that_no_double_holds_is_refused_at_its_call(client: Any, tmp_path: Path, sign: int) -> None:
    """Python writes no integer of more than 4,300 digits: it would stand in the way of every later event."""
    tracker = client.TrackingClient(client.FileSink(tmp_path / "x.jsonl"), BOTH)
    plan = PLAN.events["rating"]
    rating = plan.examples.valid[0] | {"rating": sign * 10**5000}
    with pytest.raises(ValueError, match="'rating' must be of type 'number'"):
        tracker.track("rating", rating, consent=plan.consent_category)
    assert tracker.flush()


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from zantara_events import FileSink, TrackingClient

path, room = Path(sys.argv[1]), int(sys.argv[2])
lengths, texts = [], []

def more_room(seconds):
    lengths.append(path.stat().st_size)
    texts.append(path.read_text())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

client = TrackingClient(FileSink(path), {"analytics": True}, sleep=more_room)
ids = [client.track("app_crashed", {"error_class": "Oops"}, consent="analytics") for _ in range(5)]
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
print(json.dumps([ids, client.flush(), texts]))
"""


@pytest.mark.parametrize("room", [2, 7, 400])
def test_a_batch_that_a_full_disk_cut_short_is_written_once_and_whole_when_there_is_room(
    client_file: Path, tmp_path: Path, room: int
) -> None:
    """A limit of the process stands for the disk: the kernel writes what fits and refuses the rest, as it does there."""
    (tmp_path / "full.py").write_text(FULL_DISK)
    path = tmp_path / "x.jsonl"
    path.write_text('{"a":1}\n')
    command = [sys.executable, "full.py", str(path), str(8 + room)]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(client_file.parent)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ids, sent, after_failure = json.loads(done.stdout)
    assert sent and after_failure == ['{"a":1}\n']
    first, *lines = path.read_text().splitlines()
    assert first == '{"a":1}' and [json.loads(line)["event_id"] for line in lines] == ids


def test_a_line_that_a_killed_process_left_torn_takes_no_other_with_it(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"event_id":"tor')
    tracker = client.TrackingClient(client.FileSink(path), BOTH, batch_size=1)
    ids = [tracker.track("app_crashed", {"error_class": "Ö"}, consent="analytics") for _ in range(2)]
    torn, *lines = path.read_text(encoding="utf-8").splitlines()
    assert torn == '{"event_id":"tor' and [json.loads(line)["event_id"] for line in lines] == ids


def test_class_names() -> None:
    assert class_name("product_view") == "ProductView"
