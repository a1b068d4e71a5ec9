"""The home: every path below it by name, and the one lock that guards it.

Belongs here: names of folders and files, creating them, locking. Does not belong here: what is inside the files.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zantara_pipeline.errors import InputError

# A run writes scratch, lake, warehouse and its published copy; below this it would stop half-way.
MIN_FREE_BYTES = 50 * 1024 * 1024


@dataclass(frozen=True)
class Home:
    """Paths below one ZANTARA_HOME; nothing here touches the disk but `create` and `check_writable`."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def landing(self) -> Path:
        return self.data / "landing"

    @property
    def lake(self) -> Path:
        return self.data / "lake"

    @property
    def accepted(self) -> Path:
        return self.lake / "accepted"

    @property
    def exempt(self) -> Path:
        return self.lake / "exempt"

    @property
    def quarantine(self) -> Path:
        return self.lake / "quarantine"

    @property
    def incoming(self) -> Path:
        """Written beside, renamed into the lake on commit."""
        return self.lake / ".incoming"

    @property
    def catalogue(self) -> Path:
        return self.lake / "items" / "items.parquet"

    @property
    def restricted(self) -> Path:
        """Raw lines that could not be parsed: restricted access, short expiry."""
        return self.data / "restricted"

    @property
    def state(self) -> Path:
        return self.data / "state"

    @property
    def warehouse(self) -> Path:
        return self.data / "warehouse.duckdb"

    @property
    def published(self) -> Path:
        return self.data / "published.duckdb"

    @property
    def restricted_segments(self) -> Path:
        """All segments whole, for those who may read small ones: a file of its own, because DuckDB has no roles."""
        return self.restricted / "segments_whole.duckdb"

    @property
    def served_experiments(self) -> Path:
        """What applications read to assign units of experiments."""
        return self.data / "serving" / "experiments.json"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    @property
    def dagster(self) -> Path:
        return self.data / "dagster"

    @property
    def dbt(self) -> Path:
        return self.data / "dbt"

    @property
    def reports(self) -> Path:
        return self.data / "reports"

    @property
    def alerts(self) -> Path:
        return self.data / "alerts"

    @property
    def exports(self) -> Path:
        """One folder a destination, with the file that is handed out."""
        return self.data / "exports"

    @property
    def receipts(self) -> Path:
        """What erasures did; nothing in it names anybody."""
        return self.data / "receipts"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def lock_file(self) -> Path:
        return self.data / "home.lock"

    def existing(self) -> Home:
        """For commands that tell of a home, or change what is in it.

        Raises
        ------
        InputError : no such folder, of which nothing can be said.
        """
        if not self.root.is_dir():
            raise InputError("there is no home here yet", self.root, "set ZANTARA_HOME, or run `zantara run` first")
        return self

    def create(self) -> Home:
        """Make the folders; an unwritable or full home is an InputError before anything else is done."""
        try:
            for folder in (self.landing / "events", self.accepted, self.quarantine, self.state, self.scratch,
                           self.reports, self.restricted, self.dagster, self.dbt, self.alerts, self.mlflow):  # fmt: skip
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the home cannot be written ({error.strerror})",
                self.root,
                "set ZANTARA_HOME to a folder you may write",
            ) from None
        self.check_writable()
        return self

    def check_writable(self) -> None:
        """Refuse a home that cannot take a run, before it starts."""
        probe = self.data / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"x" * 4096)
        except OSError as error:
            raise InputError(
                f"the home cannot be written ({error.strerror})", self.root, "free space or change its permissions"
            ) from None
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(self.data).free
        if free < MIN_FREE_BYTES:
            raise InputError(
                f"only {free // 2**20} MB free, a run needs at least {MIN_FREE_BYTES // 2**20} MB",
                self.root,
                "free space or set ZANTARA_HOME to another disk",
            )


@contextmanager
def home_lock(home: Home, holder: str) -> Iterator[None]:
    """Hold the home for one writer; a second one is told who holds it.

    The lock is the kernel's (flock), so a killed process never leaves it behind. The name in the file is only for
    the message.
    """
    home.data.mkdir(parents=True, exist_ok=True)
    with home.lock_file.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"the home is being written by {_holder(home.lock_file)}",
                home.root,
                "wait for it to end, then try again",
            ) from None
        handle.seek(0)
        handle.truncate()
        json.dump({"pid": os.getpid(), "holder": holder}, handle)
        handle.flush()
        try:
            yield
        finally:
            handle.seek(0)
            handle.truncate()


def _holder(path: Path) -> str:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return f"{data['holder']} (process {data['pid']})"
    except (OSError, ValueError, KeyError):
        return "another process"


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it dies (Linux; elsewhere nothing happens).

    Killing an orchestrator orphans its children, and an orphaned dbt keeps the warehouse locked.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died between the two calls
        os.kill(os.getpid(), signal.SIGKILL)
