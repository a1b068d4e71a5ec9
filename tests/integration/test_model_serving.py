"""The registered model behind a real web server: `mlflow models serve` on loopback, as a serving team would start it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zantara_pipeline.recommend import load_champion, train_and_evaluate
from zantara_pipeline.registry import prepare
from zantara_pipeline.storage.ledger import Ledger

SHOP = Path(__file__).parents[1] / "unit" / "recommend" / "recommend_shop.py"


def _shop() -> Any:
    spec = importlib.util.spec_from_file_location("recommend_shop_of_serving", SHOP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shop, home = _shop(), tmp_path_factory.mktemp("served")
    con = shop.warehouse(shop.clustered_events(), shop.clustered_products())
    train_and_evaluate(
        con, shop.config(), as_of=shop.as_of(), home_mlflow=home / "mlflow", git_revision="abc",
        ledger=Ledger(home / "ledger.db"),
    )  # fmt: skip
    return home / "mlflow"


@pytest.fixture(scope="module")
def server(mlflow_home: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/zantara-recommender@champion",
               "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    # MLflow starts `uvicorn` by name: the environment's programs have to be on the path, as after `activate`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"MLFLOW_TRACKING_URI": prepare(mlflow_home).uri, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    environment = {**os.environ, **own}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            _wait(f"http://127.0.0.1:{port}/ping", process)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert process.poll() is None, "the server ended by itself"
            time.sleep(0.5)
    raise AssertionError("the server did not answer within two minutes")


def ask(url: str, queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    body = json.dumps({"inputs": queries}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        made = json.load(answer)
    return made["predictions"] if isinstance(made, dict) else made


def test_it_answers_with_lists_and_reasons(server: str, mlflow_home: Path) -> None:
    bundle = load_champion(mlflow_home)
    assert bundle is not None
    history = [f"p2-{place:03d}" for place in range(6)]
    known, stranger, told = ask(
        server,
        [{"user_id": "u0007", "k": 5}, {"user_id": "new", "k": 5}, {"user_id": "new", "history": history, "k": 5}],
    )
    made = bundle.recommend(np.array([bundle.code_of_user["u0007"]], dtype=np.int32), 5)
    assert known["product_ids"] == [str(bundle.item_ids[int(item)]) for item in made.lists.items[0]]
    assert known["served_by"] == "full" and stranger["served_by"] == "popularity"
    assert told["served_by"] in ("lightfm_fold_in", "popularity_content") and not set(history) & set(
        told["product_ids"]
    )
    assert sum(product.startswith("p2-") for product in told["product_ids"]) >= 3
    assert all(len(why) in (1, 2) for answer in (known, stranger, told) for why in answer["reasons"])
    assert known["bundle_version"] == bundle.version


def test_a_load_of_requests_has_no_errors(server: str, record_property: Any) -> None:
    """Latency is printed, not judged: a machine under load would fail it. `make bench` prints it, too."""
    took = []
    for number in range(80):
        start = time.perf_counter()
        (answer,) = ask(server, [{"user_id": f"u{number:04d}", "k": 20}])
        took.append(time.perf_counter() - start)
        assert len(answer["product_ids"]) == 20
    cuts = statistics.quantiles(took, n=20)
    record_property("p50_ms", round(cuts[9] * 1000, 1))
    record_property("p95_ms", round(cuts[18] * 1000, 1))
    print(f"p50 {cuts[9] * 1000:.1f} ms, p95 {cuts[18] * 1000:.1f} ms over {len(took)} requests, no errors")
