"""Running the whole graph once, in this process (what `zantara run` does).

Belongs here: executing the job and turning its failure into one exception. Does not belong here: what is printed.
"""

import contextlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.home import Home, home_lock


class RunFailed(Exception):
    """A step failed for a reason that is not the input; its log says more."""


def run_pipeline(settings: Settings, say: Callable[[str, str], None]) -> None:
    """Run every asset once; what the steps print goes to data/logs/run.log.

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
            _execute(settings, home, say)
        except Exception as error:
            import traceback

            traceback.print_exc(file=handle)
            raise _translated(error, log) from None


def _execute(settings: Settings, home: Home, say: Callable[[str, str], None]) -> None:
    from zantara_pipeline.definitions import build_definitions
    from zantara_pipeline.orchestration.instance import open_instance

    say("start", "preparing")
    definitions = build_definitions(settings, say)
    with open_instance(home) as instance:
        say("done", "preparing")
        job = definitions.resolve_job_def("pipeline")
        job.execute_in_process(instance=instance, run_config={"loggers": {"console": {}}})


def _translated(error: BaseException, log: Path) -> Exception:
    """The InputError at the bottom of a chain of framework errors, or RunFailed with the innermost message."""
    seen: BaseException | None = error
    innermost = error
    while seen is not None:
        if isinstance(seen, InputError):
            return seen
        innermost = seen
        seen = seen.__cause__ or seen.__context__
    text = " ".join(str(innermost).split())[:300]
    return RunFailed(f"{type(innermost).__name__}: {text} (see {log})")
