"""Where the registry lives below a home, and making it live there: creation in one step, and moving.

Belongs here: the database file, the artifact root, the rewriting of absolute addresses after a home was moved.
Does not belong here: runs, models and aliases (versions.py).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

# The experiment that every training run belongs to. Its artifact location is also the memory of where the home was.
EXPERIMENT = "zantara-recommender"


@dataclass(frozen=True)
class RegistryPlace:
    """Paths of one registry; `root` is <home>/mlflow."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def staging(self) -> Path:
        """Models on their way into the registry; emptied whenever it is opened for writing."""
        return self.root / "staging"

    @property
    def uri(self) -> str:
        """The backend address for `mlflow server --backend-store-uri` and clients."""
        return f"sqlite:///{self.database}"

    @property
    def artifact_uri(self) -> str:
        return self.artifacts.as_uri()


def prepare(root: Path) -> RegistryPlace:
    """Make the registry below `root` usable: create it if absent, follow the home if it was moved.

    Imports MLflow only when the database has to be created, so that it is cheap to call before `mlflow server`.
    """
    place = RegistryPlace(root.expanduser().resolve())
    place.artifacts.mkdir(parents=True, exist_ok=True)
    if not place.database.exists():
        _create(place)
    follow_move(place)
    return place


def _create(place: RegistryPlace) -> None:
    """Build the database beside and rename it: a kill during MLflow's 40-odd migrations leaves nothing half-made."""
    from zantara_pipeline.registry.quiet import pointed_at

    for left in place.root.glob("mlflow.db.new-*"):
        left.unlink()
    # A name of its own each time: MLflow keeps a store per address for the life of the process.
    beside = place.root / f"mlflow.db.new-{uuid4().hex}"
    with pointed_at(f"sqlite:///{beside}") as mlflow:
        mlflow.create_experiment(EXPERIMENT, artifact_location=f"{place.artifact_uri}/{EXPERIMENT}")
    with closing(sqlite3.connect(beside, timeout=60)) as con, con:
        # MLflow points experiment 0 at ./mlruns of whatever folder the process happened to start in.
        con.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (f"{place.artifact_uri}/0",)
        )
    beside.replace(place.database)


def follow_move(place: RegistryPlace) -> bool:
    """Rewrite the absolute addresses MLflow stores if the home now lies elsewhere; True if it had moved.

    MLflow keeps artifact addresses absolute (experiments, runs, logged models, versions). The old root is read from
    our experiment's own row, so a plain copy of the folder is enough. Every text cell that begins with the old
    address is changed, in one transaction: whichever column a later MLflow adds is covered too.
    """
    with closing(sqlite3.connect(place.database, timeout=60)) as con, con:
        row = con.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        old_uri = str(row[0]).removesuffix(f"/artifacts/{EXPERIMENT}")
        new_uri = place.root.as_uri()
        if old_uri == new_uri:
            return False
        for table, column in _text_columns(con):
            con.execute(
                f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) WHERE substr("{column}", 1, ?) = ?',
                (f"{new_uri}/", len(old_uri) + 2, len(old_uri) + 1, f"{old_uri}/"),
            )
    return True


def _text_columns(con: sqlite3.Connection) -> list[tuple[str, str]]:
    return con.execute(
        """
        SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c
        WHERE t.type = 'table' AND (c.type LIKE '%CHAR%' OR c.type LIKE '%TEXT%')
        """
    ).fetchall()
