"""The bundle: everything that serves recommendations, as plain files (Parquet, npz, JSON; nothing pickled).

Belongs here: saving, loading, and lists with reasons for users and for histories. Does not belong here: MLflow (bundle.py
wraps this), training, the warehouse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend.config import RecommendationConfig, Reranking
from zantara_pipeline.recommend.generators import make_generators, make_popularities
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.histories import Histories, from_lists
from zantara_pipeline.recommend.ladder import FOLD_IN, POPULARITY, Thresholds
from zantara_pipeline.recommend.learning import Learned, fresh_rankers, stack_of
from zantara_pipeline.recommend.line_features import ItemFacts
from zantara_pipeline.recommend.rankers import Ranker
from zantara_pipeline.recommend.ranking import Lists
from zantara_pipeline.recommend.rerank import Catalogue, pool_size, rerank
from zantara_pipeline.recommend.rolling import Fitted
from zantara_pipeline.recommend.stack import Stack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Raised when files change shape; a bundle of another format is refused (and trained anew by the next run).
FORMAT = 2
# What the source that placed an item best says of it; popularities of all half-lives say the first.
POPULAR = "popular_recently"
WORDS = {
    "lightfm": "similar_users",
    "als": "similar_users",
    "ease": "similar_users",
    "item_knn": "similar_users",
    "sequence": "often_next",
    "item2vec": "often_together",
    "content": "similar_products",
}
# Histories whose lists are stored with a bundle: whoever loads it can see that it serves what it served when it was made.
GOLDEN = 20


@dataclass(frozen=True)
class Recommendations:
    """Lists with their origin, row i for user i.

    `rungs` is int8 (n,), codes of ladder.RUNGS. `sources` int8 (n, k): which source placed the item best, -1 if none.
    `affinity` int32 (n, k): the feature that a listed item shares most with the user's history, -1 if none. `propensity`
    float64 (n, k): how probable it was that this item stood here; 1 but in slots of exploration.
    """

    lists: Lists
    rungs: NDArray[np.int8]
    sources: NDArray[np.int8]
    affinity: NDArray[np.int32]
    propensity: NDArray[np.float64]


@dataclass(frozen=True)
class Bundle:
    """One trained recommender.

    Parameters
    ----------
    manifest : plain values: format, bundle_version, served_model, reason, hashes, counts, metrics, thresholds, config.
    seen : sparse (n_users, n_items). histories : of all users, row i is user i. features : sparse (n_items, n_features).
    offline_metrics : rows of recommendations.offline_metrics. per_user_metrics : one line per cut and test user.
    """

    manifest: dict[str, Any]
    user_ids: pa.StringArray
    item_ids: pa.StringArray
    feature_names: pa.StringArray
    seen: csr_matrix
    histories: Histories
    features: csr_matrix
    stack: Stack
    offline_metrics: pa.Table
    per_user_metrics: pa.Table

    @property
    def version(self) -> str:
        """The published bundle_version: a content hash, so that a repeated run publishes the same one."""
        return str(self.manifest["bundle_version"])

    @property
    def served_model(self) -> str:
        """What serves users with history: stack or popularity."""
        return str(self.manifest["served_model"])

    @cached_property
    def code_of_user(self) -> dict[str, int]:
        """User id -> code, for single look-ups (the warehouse joins instead)."""
        return {user: code for code, user in enumerate(self.user_ids.to_pylist())}

    @cached_property
    def code_of_item(self) -> dict[str, int]:
        """Product id -> code."""
        return {item: code for code, item in enumerate(self.item_ids.to_pylist())}

    def recommend(self, users: NDArray[np.int32], k: int) -> Recommendations:
        """Lists of at most k items for user codes, shape (n,); -1 is a user unknown to the bundle."""
        known = users >= 0
        made = _empty(len(users), k)
        if known.any():
            people = [str(self.user_ids[int(user)]) for user in users[known]]
            told = self.histories.take(users[known])
            self._put(made, known, self._listed(told, self.seen[users[known]], people, k))
        if not known.all():
            # Users without history all get the same list: rank it once.
            nothing = from_lists([[]], len(self.item_ids))
            self._put(made, ~known, self._listed(nothing, nothing.matrix(), [""], k))
        return made

    def recommend_to(self, lists: Sequence[Sequence[str]], k: int) -> Recommendations:
        """Lists for histories that came with a request: product ids, oldest first; unknown products say nothing.

        What is in a history is not listed again, unless nothing bars it (`exclude_seen` empty).
        """
        codes = [[self.code_of_item[item] for item in row if item in self.code_of_item] for row in lists]
        told = from_lists(codes, len(self.item_ids))
        barred = told if self.manifest["config"]["exclude_seen"] else from_lists([[]] * len(told), told.n_items)
        return self._listed(told, barred.matrix(), [""] * len(told), k)

    @cached_property
    def config(self) -> RecommendationConfig:
        """The contract that it was made by."""
        return RecommendationConfig.model_validate(self.manifest["config"])

    @cached_property
    def reranking(self) -> Reranking:
        """The rules over ranked products."""
        return Reranking.model_validate(self.manifest["config"]["reranking"])

    @cached_property
    def catalogue(self) -> Catalogue:
        """What the rules know of products."""
        return Catalogue(self.item_ids.to_pylist(), self.feature_names.to_pylist(), self.features)

    def _listed(self, told: Histories, seen: csr_matrix, people: Sequence[str], k: int) -> Recommendations:
        if self.served_model == "popularity":
            rungs = np.full(len(told), POPULARITY, dtype=np.int8)
        else:
            rungs = self.stack.rungs(told)
        pools, sources = self.stack.serve(told, seen, rungs, pool_size(self.reranking, k))
        made = rerank(pools, people, self.catalogue, self.reranking, k)
        return Recommendations(
            made.lists,
            rungs,
            _moved(sources, pools.items, made.lists.items),
            self._affinity(told, made.lists.items),
            made.propensity,
        )

    @staticmethod
    def _put(into: Recommendations, rows: NDArray[np.bool_], made: Recommendations) -> None:
        into.lists.items[rows], into.lists.scores[rows] = made.lists.items, made.lists.scores
        into.rungs[rows], into.sources[rows], into.affinity[rows] = made.rungs, made.sources, made.affinity
        into.propensity[rows] = made.propensity

    def reasons(self, rung: int, source: int, feature: int) -> list[str]:
        """Why an item is in a list, as words a caller can translate."""
        names = list(self.stack.sources)
        word = POPULAR
        if rung == FOLD_IN:
            word = WORDS["lightfm"]
        elif rung != POPULARITY and source >= 0:
            word = WORDS.get(names[source], POPULAR)
        return [word] if feature < 0 or word == POPULAR else [word, str(self.feature_names[feature])]

    def golden(self) -> list[dict[str, Any]]:
        """Lists of fixed histories, made of the most liked products and of nobody's: what `manifest["golden"]` promised."""
        liked = np.bincount(self.histories.items, minlength=len(self.item_ids))
        order = np.lexsort((np.arange(len(liked)), -liked))[:GOLDEN]
        rows = [
            [str(self.item_ids[int(item)]) for item in order[place : place + place % 6]] for place in range(len(order))
        ]
        made = self.recommend_to(rows, 10)
        listed = [[str(self.item_ids[int(item)]) for item in items if item >= 0] for items in made.lists.items]
        return [{"history": row, "product_ids": items} for row, items in zip(rows, listed, strict=True)]

    def keeps_its_golden_lists(self) -> bool:
        """Whether it serves the lists that it served when it was made."""
        promised = self.manifest["golden"]
        made = self.recommend_to([entry["history"] for entry in promised], 10)
        listed = [[str(self.item_ids[int(item)]) for item in items if item >= 0] for items in made.lists.items]
        return listed == [entry["product_ids"] for entry in promised]

    def _affinity(self, told: Histories, items: NDArray[np.int32]) -> NDArray[np.int32]:
        affinity = np.full_like(items, -1)
        rows, places = np.nonzero(items >= 0)
        if len(rows) == 0 or self.features.shape[1] == 0:
            return affinity
        shared = (told.matrix() @ self.features)[rows].multiply(self.features[items[rows, places]]).tocsr()
        best = np.asarray(shared.argmax(axis=1)).ravel()
        found = np.asarray(shared.max(axis=1).todense()).ravel() > 0
        affinity[rows, places] = np.where(found, best, -1)
        return affinity

    def save(self, folder: Path) -> None:
        """Write all files; the same bundle gives the same bytes."""
        for name, ids in (("users", self.user_ids), ("items", self.item_ids), ("features", self.feature_names)):
            pq.write_table(pa.table({"id": ids}), folder / f"{name}.parquet")
        pq.write_table(self.offline_metrics, folder / "offline_metrics.parquet")
        pq.write_table(self.per_user_metrics, folder / "per_user_metrics.parquet")
        told, facts = self.histories, self.stack.facts
        arrays: dict[str, Any] = {"offered": self.stack.offered, "facts.values": facts.values}
        arrays |= {f"histories.{name}": getattr(told, name) for name in ("starts", "items", "weights", "ages")}
        for name in ("seen", "features"):
            matrix = getattr(self, name)
            arrays |= {f"{name}.indptr": matrix.indptr, f"{name}.indices": matrix.indices}
        for name, source in self.stack.sources.items():
            arrays |= {f"source.{name}.{key}": values for key, values in source.arrays().items()}
        if self.stack.ranker is not None:
            arrays |= {f"ranker.{key}": values for key, values in self.stack.ranker.arrays().items()}
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
        users, items, features = (_ids(folder / f"{name}.parquet") for name in ("users", "items", "features"))
        starts, liked, weights, ages = (arrays[f"histories.{name}"] for name in ("starts", "items", "weights", "ages"))
        attributes = _ones(arrays, "features", (len(items), len(features)))
        return cls(
            manifest,
            users,
            items,
            features,
            _ones(arrays, "seen", (len(users), len(items))),
            Histories(np.arange(len(users), dtype=np.int32), starts, liked, weights, ages, len(items)),
            attributes,
            _stack(manifest, arrays, attributes),
            pq.read_table(folder / "offline_metrics.parquet"),
            pq.read_table(folder / "per_user_metrics.parquet"),
        )


def make_bundle(
    fitted: Fitted,
    learned: Learned,
    config: RecommendationConfig,
    manifest: Mapping[str, Any],
    offline_metrics: pa.Table,
    per_user_metrics: pa.Table,
) -> Bundle:
    """Put what was fitted on all of a dataset and what the cuts taught together; `manifest` gains what loading needs."""
    dataset, stack = fitted.train, stack_of(fitted, learned, config)
    thresholds = stack.thresholds
    bundle = Bundle(
        {
            **manifest,
            "format": FORMAT,
            "config": config.model_dump(mode="json"),
            "sources": list(stack.sources),
            "ranker": learned.chosen,
            "validation": learned.validation,
            "thresholds": {
                "fold_in": thresholds.fold_in, "full": thresholds.full, "popularity": thresholds.popularity
            },
            "facts": list(stack.facts.names),
        },
        dataset.user_ids,
        dataset.item_ids,
        dataset.feature_names,
        dataset.seen_matrix(),
        fitted.histories,
        dataset.feature_matrix(),
        stack,
        offline_metrics,
        per_user_metrics,
    )  # fmt: skip
    bundle.manifest["golden"] = bundle.golden()
    return bundle


def _stack(manifest: dict[str, Any], arrays: dict[str, Any], attributes: csr_matrix) -> Stack:
    config = RecommendationConfig.model_validate(manifest["config"])
    makers: dict[str, Any] = {**make_generators(config), **make_popularities(config)}
    sources = {name: makers[name].restore(_part(arrays, f"source.{name}")) for name in manifest["sources"]}
    rankers: dict[str, Any] = {ranker.name: ranker for ranker in fresh_rankers(len(sources), config)}
    ranker: Ranker | None = None
    if manifest["ranker"] is not None:
        ranker = rankers[manifest["ranker"]].restore(_part(arrays, "ranker"))
    facts = ItemFacts(tuple(manifest["facts"]), arrays["facts.values"], attributes.astype(np.float64))
    most = config.ranking.candidates_per_generator
    return Stack(sources, facts, ranker, Thresholds(**manifest["thresholds"]), arrays["offered"], most)


def without_users(stack: Stack, keep: NDArray[np.bool_]) -> Stack:
    """The stack without what LightFM learned of some users alone (codes not kept); nothing else in it is of anybody."""
    lightfm = stack.sources.get("lightfm")
    if not isinstance(lightfm, LightFMWarp):
        return stack
    return replace(stack, sources={**stack.sources, "lightfm": lightfm.with_users(keep)})


def _empty(n: int, k: int) -> Recommendations:
    nothing = np.full((n, k), -1, dtype=np.int32)
    lists = Lists(nothing, np.full((n, k), np.nan))
    sources = np.full((n, k), -1, dtype=np.int8)
    return Recommendations(lists, np.zeros(n, dtype=np.int8), sources, nothing.copy(), np.ones((n, k)))


def _moved(values: NDArray[np.int8], items: NDArray[np.int32], reordered: NDArray[np.int32]) -> NDArray[np.int8]:
    """Values of items, in the order that the rules gave them; -1 for padding."""
    place = (items[:, None, :] == reordered[:, :, None]).argmax(axis=2)
    return np.where(reordered >= 0, np.take_along_axis(values, place, axis=1), -1).astype(np.int8)


def _ids(path: Path) -> pa.StringArray:
    return pq.read_table(path)["id"].cast(pa.string()).combine_chunks()


def _part(arrays: dict[str, Any], name: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(f"{name}."): values for key, values in arrays.items() if key.startswith(f"{name}.")}


def _ones(arrays: dict[str, Any], name: str, shape: tuple[int, int]) -> csr_matrix:
    from scipy.sparse import csr_matrix

    indptr, indices = arrays[f"{name}.indptr"], arrays[f"{name}.indices"]
    return csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=shape)
