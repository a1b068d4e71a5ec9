"""`zantara ui`, `models`, `docs`: the pages of Dagster and MLflow for this home, on loopback; those of dbt as files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import PROJECT_ROOT, load_settings
from zantara_pipeline.storage.home import Home

_BIN = Path(sys.executable).parent


def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000) -> None:
    """Serve Dagster: the graph, runs, schedule and sensors (until Ctrl-C).

    Example: zantara ui --port 3001
    """
    from zantara_pipeline.orchestration.instance import render_instance

    home = Home(load_settings().home).create()
    environment = os.environ | {
        "DAGSTER_HOME": str(render_instance(home)),
        "ZANTARA_HOME": str(home.root),
        "DO_NOT_TRACK": "1",
        "PYTHONWARNINGS": "ignore",
    }
    os.chdir(PROJECT_ROOT)
    command = [str(_BIN / "dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    os.execve(command[0], command, environment)


def models(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Serve MLflow: runs, metrics and the registered recommender (until Ctrl-C).

    Example: zantara models --port 5001
    """
    from zantara_pipeline.registry import prepare

    place = prepare(Home(load_settings().home).create().mlflow)
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else seven worker processes that nothing here uses
    }
    command = [
        str(_BIN / "mlflow"),
        "server",
        "--backend-store-uri",
        place.uri,
        "--default-artifact-root",
        place.artifact_uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    os.execve(command[0], command, environment)


def docs() -> None:
    """Build the dbt docs of this home, and the lineage of every column, as one static page each: data/dbt/docs.html, lineage.html.

    Example: zantara docs
    """
    from zantara_pipeline.orchestration.dbt import dbt_environment
    from zantara_pipeline.orchestration.pipeline import Pipeline
    from zantara_pipeline.report.lineage_page import read_lineage, said, write_lineage_page

    pipeline = Pipeline(load_settings())
    if not pipeline.home.warehouse.exists():
        raise InputError("there is no warehouse to document yet", pipeline.home.root, "run `zantara run` first")
    target = pipeline.home.dbt / "docs"
    command = [str(_BIN / "zantara-dbt"), "docs", "generate", "--static", "--project-dir", str(pipeline.dbt_project)]
    done = subprocess.run(
        [*command, "--target-path", str(target), "--quiet"],
        env=os.environ | dbt_environment(pipeline),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise InputError(
            f"dbt docs failed: {' '.join((done.stdout + done.stderr).split())[-300:]}", target, "mend what it names"
        )
    page = pipeline.home.dbt / "docs.html"
    (target / "static_index.html").replace(page)
    lineage = read_lineage(target / "manifest.json", pipeline.home.warehouse)
    print(page)
    print(f"{write_lineage_page(lineage, pipeline.plan, pipeline.home.dbt / 'lineage.html')} ({said(lineage)})")
