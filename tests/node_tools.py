"""Node and the TypeScript compiler, where this machine has them; tests that need them say so and are skipped elsewhere.

Belongs here: finding and running them. Does not belong here: asserts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = Path(__file__).with_name("fixtures") / "clients"
# `make test` puts it there, where npm can.
_INSTALLED = ROOT / ".venv" / "node" / "node_modules" / "typescript" / "bin" / "tsc"

NODE = shutil.which("node")
TSC = [NODE or "node", str(_INSTALLED)] if _INSTALLED.exists() else [shutil.which("tsc") or ""]
needs_typescript = pytest.mark.skipif(
    NODE is None or not TSC[-1],
    reason="Node is not installed" if NODE is None else "the TypeScript compiler is not installed (see the Makefile)",
)


def tsc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`tsc --strict` in a folder."""
    return subprocess.run([*TSC, "--strict", *arguments], cwd=folder, capture_output=True, text=True)


def node(script: Path, *arguments: object, stdin: object = None) -> Any:
    """Run a script with JSON on stdin; returns the JSON that it prints."""
    command = [str(NODE), str(script), *map(str, arguments)]
    done = subprocess.run(command, input=json.dumps(stdin), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None
