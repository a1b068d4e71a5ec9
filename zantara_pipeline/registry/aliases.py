"""Aliases by SQL: reading and moving one without MLflow, whose import alone takes 4 s of the 5 s that a rollback has.

Belongs here: the one row of an alias in MLflow's own table (3.17: registered_model_aliases). Does not belong here: everything
else about versions (versions.py), who may move an alias (recommend/).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from zantara_pipeline.errors import InputError
from zantara_pipeline.registry.place import RegistryPlace
from zantara_pipeline.registry.versions import RETRAIN_BY


def read_aliases(root: Path, name: str) -> dict[str, int]:
    """Alias -> version number; nothing where no model was ever registered."""
    database = RegistryPlace(root).database
    if not database.exists():
        return {}
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
        return dict(db.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", (name,)))


def version_tag(root: Path, name: str, version: int, key: str) -> str | None:
    """One tag of a version; None where it has none."""
    with closing(sqlite3.connect(RegistryPlace(root).database, timeout=30)) as db:
        row = db.execute(
            "SELECT value FROM model_version_tags WHERE name = ? AND version = ? AND key = ?", (name, version, key)
        ).fetchone()
    return None if row is None else str(row[0])


def check_move(root: Path, name: str, aliases: dict[str, int]) -> None:
    """Whether `move_aliases` may do this.

    Raises
    ------
    InputError : a version that is not registered, or that was trained on somebody who was erased since.
    """
    held = read_aliases(root, name)
    with closing(sqlite3.connect(RegistryPlace(root).database, timeout=30)) as db:
        known = {number for (number,) in db.execute("SELECT version FROM model_versions WHERE name = ?", (name,))}
    for alias, version in aliases.items():
        if version not in known:
            raise InputError(f"there is no version {version}", f"model {name}", "see `zantara model history`")
        if held.get(alias) != version and version_tag(root, name, version, RETRAIN_BY):
            what = f"version {version} was trained on somebody who was erased; it is not promoted"
            raise InputError(what, f"model {name}", "train a new one: run `zantara run`")


def move_aliases(root: Path, name: str, aliases: dict[str, int]) -> None:
    """Point aliases at versions, all in one transaction; ask `check_move` before."""
    with closing(sqlite3.connect(RegistryPlace(root).database, timeout=30)) as db, db:
        for alias, version in aliases.items():
            db.execute("DELETE FROM registered_model_aliases WHERE name = ? AND alias = ?", (name, alias))
            db.execute(
                "INSERT INTO registered_model_aliases (alias, version, name) VALUES (?, ?, ?)", (alias, version, name)
            )
