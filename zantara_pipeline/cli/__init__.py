"""The `zantara` command: one small module a verb group; every verb calls a domain function.

Belongs here: arguments, words on the terminal, exit codes (0 done, 1 what was checked failed, 2 usage or input).
Does not belong here: any rule of a domain.
"""

from __future__ import annotations

import gc
import sys
from typing import cast


def main() -> None:
    """Entry point: input errors become one line a fault on stderr and exit code 2, never a traceback."""
    # a command makes a million objects that live as long as it does (modules, the graph) and hardly any circles: looking for
    # them after every 700 was 8 % of a run's CPU
    gc.set_threshold(50_000, 20, 100)
    import typer

    from zantara_pipeline.cli.app import app
    from zantara_pipeline.errors import InputError

    usage_error = cast("type[Exception]", typer.BadParameter.__base__)
    try:
        code = app(prog_name="zantara", standalone_mode=False)
    except InputError as error:
        code = _say(str(error))
    except usage_error as error:
        text = error.format_message().replace(": Value error, ", ": ")  # type: ignore[attr-defined]
        if text.startswith("Usage:"):  # a group without a verb: its help
            print(text, file=sys.stderr)
            code = 2
        else:
            context = error.ctx  # type: ignore[attr-defined]
            text = " ".join(text.split()).rstrip(".")
            code = _say(f"{text}; see `{context.command_path if context else 'zantara'} --help`")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = _say(f"{place}{error.strerror or error}; free space or check permissions, then run it again")
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:
        _say("stopped; nothing is lost, run it again")
    sys.exit(code if isinstance(code, int) else 0)


def _say(problem: str) -> int:
    for line in problem.splitlines():
        print(f"zantara: {line}", file=sys.stderr)
    return 2
