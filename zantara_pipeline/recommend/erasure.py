"""Erasure of people from stored models: their ids and everything learnt of them alone leave a bundle's files.

What a model learnt of somebody together with others (the vectors of products, popularity) cannot be taken out of it. So a
version that was trained on an erased person is marked in the registry with the day by which it has to be replaced, and is
never promoted again; the next run trains anew, because its data are others now. The mark is written first: a killed
erasure would else find nobody in the files and mark nothing.

Belongs here: which versions hold somebody, and writing their files again. Does not belong here: the registry's tags
(registry/versions.py), the other stores (privacy/erasure.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend.artifacts import Bundle
from zantara_pipeline.recommend.artifacts import without_users as stack_without
from zantara_pipeline.recommend.training import MODEL_NAME
from zantara_pipeline.registry import open_registry

_NEW, _OLD = ".erased", ".replaced"


def trained_on(home_mlflow: Path, users: Collection[str]) -> list[Path]:
    """Folders of bundles that hold one of these users; reads ids only, and no MLflow."""
    wanted = pa.array(sorted(users), pa.string())
    found = []
    for path in sorted(home_mlflow.glob("artifacts/**/users.parquet")):
        ids = pq.read_table(path, columns=["id"]).column(0).cast(pa.string())
        if pc.any(pc.is_in(ids, value_set=wanted)).as_py():
            found.append(path.parent)
    return found


def erase_from_models(home_mlflow: Path, users: Collection[str], retrain_by: datetime) -> int:
    """Mark the versions trained on these users and take the users out of their files; returns the versions marked.

    May be done again; killed, it is to be done again.
    """
    _finish_swaps(home_mlflow)
    held = {folder.resolve() for folder in trained_on(home_mlflow, users)}
    if not held:
        return 0
    marked = 0
    with open_registry(home_mlflow, MODEL_NAME, write=True) as registry:
        for version in registry.versions():
            if version.files.resolve() in held:
                registry.mark_for_retraining(version, retrain_by)
                marked += 1
    for folder in sorted(held):
        _write_without(folder, users)
    return marked


def without_users(bundle: Bundle, users: Collection[str]) -> Bundle:
    """The bundle as if it had never heard of these users; everybody else's lists stay as they were."""
    gone = pc.is_in(bundle.user_ids, value_set=pa.array(sorted(users), pa.string()))
    keep: NDArray[np.bool_] = ~gone.to_numpy(zero_copy_only=False)
    tested = bundle.per_user_metrics
    others = pc.invert(pc.is_in(tested["user_id"].cast(pa.string()), value_set=pa.array(sorted(users), pa.string())))
    return replace(
        bundle,
        user_ids=bundle.user_ids.filter(pa.array(keep)),
        seen=bundle.seen[keep],
        histories=replace(
            bundle.histories.take(np.flatnonzero(keep)), users=np.arange(int(keep.sum()), dtype=np.int32)
        ),
        stack=stack_without(bundle.stack, keep),
        per_user_metrics=tested.filter(others),
    )


def _write_without(folder: Path, users: Collection[str]) -> None:
    try:
        bundle = without_users(Bundle.load(folder), users)
    except InputError:  # of another version of this program, which serves nobody any more
        shutil.rmtree(folder)
        return
    beside, old = folder.with_name(folder.name + _NEW), folder.with_name(folder.name + _OLD)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    bundle.save(beside)
    folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old)


def _finish_swaps(home_mlflow: Path) -> None:
    """What a kill left: a bundle between its two names, or the one that was replaced."""
    for old in sorted(home_mlflow.glob(f"artifacts/**/*{_OLD}")):
        folder = old.with_name(old.name.removesuffix(_OLD))
        beside = folder.with_name(folder.name + _NEW)
        if not folder.exists():
            beside.rename(folder)
        shutil.rmtree(old)
    for beside in sorted(home_mlflow.glob(f"artifacts/**/*{_NEW}")):
        shutil.rmtree(beside)
