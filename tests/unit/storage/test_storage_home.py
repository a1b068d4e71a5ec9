"""The home: made on demand, refused where it cannot take a run, written by one at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home, home_lock

HOLD = """
import sys, time
from pathlib import Path
from zantara_pipeline.storage.home import Home, home_lock
with home_lock(Home(Path(sys.argv[1])), "nightly run"):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_holds_the_home_until_that_one_is_killed(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    process = hold(tmp_path)
    try:
        with pytest.raises(InputError) as error, home_lock(home, "me"):
            pass
        assert f"being written by nightly run (process {process.pid})" in str(error.value)
        assert "wait for it to end" in str(error.value)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with home_lock(home, "me"):
        assert "me" in home.lock_file.read_text()
    assert home.lock_file.read_text() == ""


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(RuntimeError), home_lock(home, "first"):
        raise RuntimeError
    with home_lock(home, "second"):
        pass


def test_homes_do_not_lock_each_other(tmp_path: Path) -> None:
    with home_lock(Home(tmp_path / "a"), "a"), home_lock(Home(tmp_path / "b"), "b"):
        pass


def test_making_a_home_twice_keeps_what_is_in_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home").create()
    (home.landing / "events" / "a.jsonl").write_text("{}")
    home.create()
    assert (home.landing / "events" / "a.jsonl").read_text() == "{}"
    assert not list(home.data.glob(".probe*"))


def test_a_home_below_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        Home(tmp_path / "file" / "home").create()
    said = str(error.value)
    assert str(tmp_path / "file" / "home") in said and "cannot be written" in said and "set ZANTARA_HOME" in said
    assert "\n" not in said


def test_a_full_disk_is_refused_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(
        InputError, match=r"only 3 MB free, a run needs at least \d+ MB; free space or set ZANTARA_HOME"
    ):
        Home(tmp_path).create()


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    child = "from zantara_pipeline.storage.home import die_with_parent; die_with_parent(); import time; time.sleep(60)"
    parent = f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(1.5); print(p.pid, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert _alive(pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # a killed orphan that nobody has waited for yet is no longer running
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
