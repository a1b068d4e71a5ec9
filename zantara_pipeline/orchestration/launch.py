"""Running the whole graph once, in this process (what `zantara run` does).

Belongs here: executing the job and turning its failure into one exception. Does not belong here: what is printed.
"""

import contextlib
import errno
import os
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg

from zantara_pipeline.errors import InputError
from zantara_pipeline.orchestration.dead_runs import PROCESS_TAG, clear_dead_runs, this_process
from zantara_pipeline.orchestration.instance import open_instance
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.home import Home, home_lock

Say = Callable[[str, str], None]

# A step that failed with less than this left failed for want of space: one written block of the engine is 256 KB.
FULL_BYTES = 4 * 2**20


class RunFailed(Exception):
    """A step failed for a reason that is not the input; its log says more."""


def run_pipeline(settings: Settings, say: Say, build: Callable[[Settings, Say], dg.Definitions]) -> None:
    """Run every asset once; what the steps print goes to data/logs/run.log.

    Parameters
    ----------
    build : `definitions.build_definitions`, handed in because that room lies above this one.

    Raises
    ------
    InputError : the input is at fault (also: the home is being written by somebody else).
    RunFailed : anything else, in one line.
    """
    home = Home(settings.home).create()
    with home_lock(home, "a run that is starting"):
        pass
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    warnings.simplefilter("ignore")
    log = home.data / "logs" / "run.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as handle, contextlib.redirect_stdout(handle):
        try:
            _execute(settings, home, say, build)
        except Exception as error:
            with contextlib.suppress(OSError):  # a full disk takes no log either
                traceback.print_exc(file=handle)
            raise _translated(error, home, log) from None


def _execute(settings: Settings, home: Home, say: Say, build: Callable[[Settings, Say], dg.Definitions]) -> None:
    say("start", "preparing")
    definitions = build(settings, say)
    with open_instance(home) as instance:
        clear_dead_runs(instance, home)
        say("done", "preparing")
        job = definitions.resolve_job_def("pipeline")
        # whoever started this process sees it fail and decides; the daemon must not try it again behind their back
        tags = {PROCESS_TAG: this_process(), "dagster/max_retries": "0"}
        job.execute_in_process(instance=instance, run_config={"loggers": {"console": {}}}, tags=tags)


def _translated(error: BaseException, home: Home, log: Path) -> Exception:
    """The InputError at the bottom of a chain of framework errors, a full disk as one, or RunFailed with the innermost."""
    chain = list(_causes(error))
    for seen in chain:
        if isinstance(seen, InputError):
            return seen
    if _disk_is_full(chain, home):
        return InputError("the disk is full", home.root, "free space and run it again; nothing that was taken is lost")
    own = [seen for seen in chain if not type(seen).__module__.startswith("dagster.")]
    innermost = (own or chain)[-1]
    text = " ".join(str(innermost).split())[:300]
    return RunFailed(f"{type(innermost).__name__}: {text} (see {log})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    met: set[int] = set()  # Dagster raises a step's own exception again from its wrapper, which closes a circle
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _disk_is_full(chain: list[BaseException], home: Home) -> bool:
    """Engines say it in their own words, and dbt in another process; what is left on the disk says it too."""
    if any(isinstance(seen, OSError) and seen.errno == errno.ENOSPC for seen in chain):
        return True
    said = " ".join(str(seen).lower() for seen in chain)
    words = ("no space left on device", "disk is full", "could not write file", "out of disk")
    return any(word in said for word in words) or shutil.disk_usage(home.data).free < FULL_BYTES
