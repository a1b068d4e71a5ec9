"""The quality floor that is not a test: lint, format, types, SQL style, dbt parse, and that Dagster can load it all.

Run by `make test` before pytest. Each tool says what it found; the first that fails ends the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CODE = ["zantara_pipeline", "tests", "tools"]


def main() -> int:
    """Run every tool; returns the exit code of the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"ZANTARA_HOME": folder, "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}
        for name in (
            "ZANTARA_LANDING",
            "ZANTARA_ITEMS",
            "ZANTARA_CONSENT",
            "ZANTARA_CONTRACTS",
            "ZANTARA_AS_OF",
            "ZANTARA_FORMAT",
            "ZANTARA_PII_KEYS",
            "ZANTARA_PII_KEYS_FILE",
            "DAGSTER_HOME",
        ):
            environment.pop(name, None)
        for name, command in tools(Path(folder)):
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {name}", flush=True)
            if done.returncode != 0:
                print((done.stdout + done.stderr)[-8000:])
                return done.returncode
    return 0


def tools(home: Path) -> list[tuple[str, list[str]]]:
    """(what it is, command) in order of speed."""
    dbt = [
        str(BIN / "zantara-dbt"),
        "parse",
        "--project-dir",
        "dbt_project",
        "--profiles-dir",
        "dbt_project",
        "--quiet",
    ]
    return [
        ("ruff lint", [str(BIN / "ruff"), "check", *CODE]),
        ("ruff format", [str(BIN / "ruff"), "format", "--check", *CODE]),
        ("layers (import-linter)", [str(BIN / "lint-imports")]),
        ("mypy", [str(BIN / "mypy")]),
        ("sqlfluff", [str(BIN / "sqlfluff"), "lint", "dbt_project/models", "dbt_project/tests"]),
        ("dbt parse", [*dbt, "--target-path", str(home / "target"), "--log-path", str(home / "logs")]),
        ("definitions load", [str(BIN / "dagster"), "definitions", "validate", "-w", "workspace.yaml"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
