"""The `zantara` command: one small module a verb group; every verb calls a domain function.

Belongs here: arguments, words on the terminal, exit codes (0 done, 1 what was checked failed, 2 usage or input).
Does not belong here: any rule of a domain.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: input errors become one line on stderr and exit code 2, never a traceback."""
    from zantara_pipeline.cli.app import app
    from zantara_pipeline.errors import InputError

    try:
        app()
    except InputError as error:
        print(f"zantara: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"zantara: {place}{error.strerror or error}; free space or check permissions, then run it again", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("zantara: stopped; nothing is lost, run it again", file=sys.stderr)
        sys.exit(130)
