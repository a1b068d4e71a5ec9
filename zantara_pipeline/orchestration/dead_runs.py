"""Clearing up after runs whose process was killed: their pool slots and their records in Dagster.

A killed process cannot give back its slot of the pool `warehouse`, and the next run waits for it for ever; its record
stays "started" and fills the queue's one place. The home's lock is the kernel's, so whoever can take it knows that
nobody works on the home.

Belongs here: slots and records. Does not belong here: the data (ingest, dbt and the registry recover by themselves).
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home, home_lock

# Tag of a run that works inside the process that started it: which process that is.
PROCESS_TAG = "zantara/process"
# A run of another launcher takes the lock seconds after its record says "started"; a loaded machine may need more.
GRACE = timedelta(minutes=2)
_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def this_process() -> str:
    """Names this process so that a later one with the same number is told apart."""
    return _name(os.getpid()) or str(os.getpid())


def clear_dead_runs(instance: dg.DagsterInstance, home: Home) -> int:
    """Free all pool slots and mark dead runs as failed, if nobody writes the home; returns how many died."""
    try:
        with home_lock(home, "clearing up after a killed run"):
            return _clear(instance)
    except InputError:  # somebody works: nothing is dead
        return 0


def _clear(instance: dg.DagsterInstance) -> int:
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        for key in storage.get_concurrency_keys():
            info = storage.get_concurrency_info(key)
            for run_id in {slot.run_id for slot in info.claimed_slots} | {step.run_id for step in info.pending_steps}:
                storage.free_concurrency_slots_for_run(run_id)
    dead = [record for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY)) if _is_dead(record)]
    for record in dead:
        instance.report_run_failed(
            record.dagster_run, "The process of this run was killed; the next run recovers what it left."
        )
    return len(dead)


def _is_dead(record: dg.RunRecord) -> bool:
    process = record.dagster_run.tags.get(PROCESS_TAG)
    if process is not None:
        return _name(int(process.partition(":")[0])) != process
    changed = (
        record.update_timestamp.replace(tzinfo=UTC)
        if record.update_timestamp.tzinfo is None
        else record.update_timestamp
    )
    return datetime.now(UTC) - changed > GRACE


def _name(pid: int) -> str | None:
    """`pid:start time` where the kernel tells (Linux), the number alone where it only knows that it lives; None: dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return f"{pid}:{stat.rpartition(')')[2].split()[19]}"
    except OSError:
        pass
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return str(pid)
