"""The model registry (MLflow on SQLite): log a version once, find it again, move the alias that serves.

Belongs here: everything that speaks to MLflow, the place of its files, recovery after a kill or a move of the home.
Does not belong here: what a model is, how good it must be, which data it saw (`recommend/` passes those as values).
"""

from __future__ import annotations

from zantara_pipeline.registry.aliases import check_move, move_aliases, read_aliases, version_tag
from zantara_pipeline.registry.place import RegistryPlace, prepare
from zantara_pipeline.registry.versions import ModelVersion, NewVersion, Registry, open_registry

__all__ = [
    "ModelVersion",
    "NewVersion",
    "Registry",
    "RegistryPlace",
    "check_move",
    "move_aliases",
    "open_registry",
    "prepare",
    "read_aliases",
    "version_tag",
]
