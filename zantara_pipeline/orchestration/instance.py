"""The Dagster instance of a home: its dagster.yaml, made from a template at every start, and a handle to it.

Belongs here: storage, pools, retries, telemetry of Dagster. Does not belong here: what is run.
"""

from pathlib import Path

import dagster as dg
from dagster._core.instance import InstanceRef

from zantara_pipeline.storage.home import Home

# A pool without a limit does nothing; the embedded engine takes one writer, so does the home.
_TEMPLATE = """\
# Made by zantara at every start; changes here are lost.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
  runs:
    max_concurrent_runs: 1
run_retries:
  enabled: true
  max_retries: 1
retention:
  schedule:
    purge_after_days: 90
  sensor:
    purge_after_days:
      skipped: 7
      success: 90
"""


def render_instance(home: Home) -> Path:
    """Write dagster.yaml into the home's Dagster folder; returns the folder (DAGSTER_HOME)."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    beside = home.dagster / "dagster.yaml.new"
    beside.write_text(_TEMPLATE, encoding="utf-8")
    beside.replace(home.dagster / "dagster.yaml")
    return home.dagster


def open_instance(home: Home) -> dg.DagsterInstance:
    """The persistent instance, so that a run started in a shell is seen in the UI; for one run in this process."""
    folder = str(render_instance(home))
    event_log = {
        "module": "zantara_pipeline.orchestration.event_log",
        "class": "KeptEventLog",
        "config": {"base_dir": str(home.dagster / "history" / "runs")},
    }
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(folder, overrides={"event_log_storage": event_log}))
