"""The bundle: everything that serves recommendations, as plain files (Parquet, npz, JSON; nothing pickled).

Belongs here: saving, loading, and lists with reasons for users. Does not belong here: MLflow (bundle.py wraps this),
training, the warehouse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend.config import RecommendationConfig
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.generators.popularity import Popularity
from zantara_pipeline.recommend.ranking import Lists, rank_users

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from zantara_pipeline.recommend.dataset import Dataset

# Raised when files change shape; a bundle of another format is refused (and trained anew by the next run).
FORMAT = 1
POPULAR = "popular_recently"
SIMILAR = "similar_users"


@dataclass(frozen=True)
class Recommendations:
    """Lists with their origin, row i for user i.

    `personal` is bool (n,): served by LightFM, else by popularity. `affinity` int32 (n, k): the feature that a listed
    item shares most with the user's positives, -1 if none (always -1 for popularity).
    """

    lists: Lists
    personal: NDArray[np.bool_]
    affinity: NDArray[np.int32]


@dataclass(frozen=True)
class Bundle:
    """One trained recommender.

    Parameters
    ----------
    manifest : plain values: format, bundle_version, served_model, reason, hashes, counts, metrics, config.
    candidates : bool (n_items,). seen, history : sparse (n_users, n_items). features : sparse (n_items, n_features).
    offline_metrics : rows of recommendations.offline_metrics. per_user_metrics : one line per test user.
    """

    manifest: dict[str, Any]
    user_ids: pa.StringArray
    item_ids: pa.StringArray
    feature_names: pa.StringArray
    candidates: NDArray[np.bool_]
    seen: csr_matrix
    history: csr_matrix
    features: csr_matrix
    popularity: Popularity
    lightfm: LightFMWarp
    offline_metrics: pa.Table
    per_user_metrics: pa.Table

    @property
    def version(self) -> str:
        """The published bundle_version: a content hash, so that a repeated run publishes the same one."""
        return str(self.manifest["bundle_version"])

    @property
    def served_model(self) -> str:
        """Which model serves users with history: lightfm or popularity."""
        return str(self.manifest["served_model"])

    @cached_property
    def code_of_user(self) -> dict[str, int]:
        """User id -> code, for single look-ups (the warehouse joins instead)."""
        return {user: code for code, user in enumerate(self.user_ids.to_pylist())}

    def recommend(self, users: NDArray[np.int32], k: int) -> Recommendations:
        """Lists of at most k items for user codes, shape (n,); -1 is a user unknown to the bundle."""
        personal = self.lightfm.knows(users) if self.served_model == "lightfm" else np.zeros(len(users), dtype=bool)
        stranger = (users < 0) & ~personal
        items = np.full((len(users), k), -1, dtype=np.int32)
        scores = np.full((len(users), k), np.nan)
        for generator, mask in ((self.lightfm, personal), (self.popularity, ~personal & ~stranger)):
            ranked = self._rank(generator, users[mask], k)
            items[mask], scores[mask] = ranked.items, ranked.scores
        if stranger.any():
            # Users without history all get the same list: rank it once.
            ranked = self._rank(self.popularity, np.array([-1], dtype=np.int32), k)
            items[stranger], scores[stranger] = ranked.items, ranked.scores
        affinity = np.full_like(items, -1)
        affinity[personal] = self._affinity(users[personal], items[personal])
        return Recommendations(Lists(items, scores), personal, affinity)

    def reasons(self, personal: bool, feature: int) -> list[str]:
        """Why an item is in a list, as words a caller can translate."""
        if not personal:
            return [POPULAR]
        return [SIMILAR] if feature < 0 else [SIMILAR, str(self.feature_names[feature])]

    def _rank(self, generator: LightFMWarp | Popularity, users: NDArray[np.int32], k: int) -> Lists:
        return rank_users(generator, users, k, candidates=self.candidates, seen=self.seen)

    def _affinity(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.int32]:
        if items.size == 0 or self.features.shape[1] == 0:
            return np.full_like(items, -1)
        rows, places = np.nonzero(items >= 0)
        shared = (self.history[users] @ self.features)[rows].multiply(self.features[items[rows, places]]).tocsr()
        best = np.asarray(shared.argmax(axis=1)).ravel()
        found = np.asarray(shared.max(axis=1).todense()).ravel() > 0
        affinity = np.full_like(items, -1)
        affinity[rows, places] = np.where(found, best, -1)
        return affinity

    def save(self, folder: Path) -> None:
        """Write all files; the same bundle gives the same bytes."""
        for name, ids in (("users", self.user_ids), ("items", self.item_ids), ("features", self.feature_names)):
            pq.write_table(pa.table({"id": ids}), folder / f"{name}.parquet")
        pq.write_table(self.offline_metrics, folder / "offline_metrics.parquet")
        pq.write_table(self.per_user_metrics, folder / "per_user_metrics.parquet")
        arrays: dict[str, Any] = {"candidates": self.candidates}
        for name in ("seen", "history", "features"):
            matrix = getattr(self, name)
            arrays |= {f"{name}.indptr": matrix.indptr, f"{name}.indices": matrix.indices}
        for generator in (self.popularity, self.lightfm):
            arrays |= {f"{generator.name}.{key}": values for key, values in generator.arrays().items()}
        np.savez(folder / "arrays.npz", **arrays)
        text = json.dumps(self.manifest, indent=1, sort_keys=True)
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read what `save` wrote.

        Raises
        ------
        InputError : missing or damaged files, or another format.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise InputError(
                    f"the model has format {manifest['format']}, this version reads {FORMAT}", folder, "train it anew"
                )
            with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
                return cls._assemble(folder, manifest, dict(stored))
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"the model's files cannot be read ({type(error).__name__})", folder, "train it anew"
            ) from None

    @classmethod
    def _assemble(cls, folder: Path, manifest: dict[str, Any], arrays: dict[str, Any]) -> Bundle:
        config = RecommendationConfig.model_validate(manifest["config"])
        users, items, features = (_ids(folder / f"{name}.parquet") for name in ("users", "items", "features"))
        return cls(
            manifest,
            users,
            items,
            features,
            arrays["candidates"],
            _ones(arrays, "seen", (len(users), len(items))),
            _ones(arrays, "history", (len(users), len(items))),
            _ones(arrays, "features", (len(items), len(features))),
            Popularity.restore(_part(arrays, "popularity"), config.popularity.half_life_days),
            LightFMWarp.restore(_part(arrays, "lightfm"), config.lightfm, config.weight_cap),
            pq.read_table(folder / "offline_metrics.parquet"),
            pq.read_table(folder / "per_user_metrics.parquet"),
        )


def fit_bundle(
    dataset: Dataset,
    config: RecommendationConfig,
    manifest: Mapping[str, Any],
    offline_metrics: pa.Table,
    per_user_metrics: pa.Table,
) -> Bundle:
    """Fit both models on all of the dataset; `manifest` gains format and config."""
    return Bundle(
        {**manifest, "format": FORMAT, "config": config.model_dump(mode="json")},
        dataset.user_ids,
        dataset.item_ids,
        dataset.feature_names,
        dataset.candidates,
        dataset.seen_matrix(),
        dataset.matrix(dataset.positives()),
        dataset.feature_matrix(),
        Popularity(config.popularity.half_life_days).fit(dataset),
        LightFMWarp(config.lightfm, config.weight_cap).fit(dataset),
        offline_metrics,
        per_user_metrics,
    )


def _ids(path: Path) -> pa.StringArray:
    return pq.read_table(path)["id"].cast(pa.string()).combine_chunks()


def _part(arrays: dict[str, Any], name: str) -> dict[str, NDArray[np.generic]]:
    return {key.removeprefix(f"{name}."): values for key, values in arrays.items() if key.startswith(f"{name}.")}


def _ones(arrays: dict[str, Any], name: str, shape: tuple[int, int]) -> csr_matrix:
    from scipy.sparse import csr_matrix

    indptr, indices = arrays[f"{name}.indptr"], arrays[f"{name}.indices"]
    return csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=shape)
