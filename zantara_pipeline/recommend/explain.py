"""Why one product stands where it stands for one person: parts that sum to the score.

Belongs here: taking scores apart. Does not belong here: words for people who are shown a list (artifacts.py: reasons).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zantara_pipeline.recommend.artifacts import Bundle
from zantara_pipeline.recommend.generators.lightfm_warp import LightFMWarp
from zantara_pipeline.recommend.histories import Histories
from zantara_pipeline.recommend.ladder import CONTENT, FOLD_IN, FULL, FUSION, RUNGS
from zantara_pipeline.recommend.line_features import column_names, line_features
from zantara_pipeline.recommend.rerank import pool_size

BASE = "(everybody)"


@dataclass(frozen=True)
class Explanation:
    """One product for one person.

    Parameters
    ----------
    rank : place in the list as it would be served with `k` products; None: not among them.
    score : of the rung that serves. parts : name -> share of the score; they sum to it.
    lightfm : name -> share of LightFM's own score `lightfm_score`: the person's bias, the product itself, each attribute.
    places : source of candidates -> place in its list.
    """

    product_id: str
    served_by: str
    rank: int | None
    score: float | None
    parts: dict[str, float]
    lightfm_score: float | None
    lightfm: dict[str, float]
    places: dict[str, int]


def explain(bundle: Bundle, user: int, item: int, k: int) -> Explanation:
    """Take one score apart; a product that no source names has no score and no parts.

    Parameters
    ----------
    user, item : codes of the bundle.
    """
    row = np.array([user], dtype=np.int32)
    told, seen, stack = bundle.histories.take(row), bundle.seen[row], bundle.stack
    made = bundle.recommend(row, k)
    rung = int(made.rungs[0])
    place = np.flatnonzero(made.lists.items[0] == item)
    lines = stack.candidates(told, seen, pool_size(bundle.reranking, k))
    line = lines.keep(lines.items == item)
    names = list(stack.sources)
    places = (
        {name: int(rank) for name, rank in zip(names, line.ranks[0], strict=True) if np.isfinite(rank)}
        if len(line)
        else {}
    )
    parts: dict[str, float] = {}
    score = None
    if len(line):
        at = np.flatnonzero(lines.items == item)[0]
        score = float(stack.scores(lines, told, made.rungs)[at])
        parts = _parts(bundle, told, lines, int(at), rung)
    lightfm = _of_lightfm(bundle, told, item)
    return Explanation(
        str(bundle.item_ids[item]),
        RUNGS[rung],
        int(place[0]) + 1 if len(place) else None,
        score,
        parts,
        sum(lightfm.values()) if lightfm else None,
        lightfm,
        places,
    )


def _parts(bundle: Bundle, told: Histories, lines: Any, at: int, rung: int) -> dict[str, float]:
    stack, names = bundle.stack, list(bundle.stack.sources)
    if rung == FULL and stack.ranker is not None:
        # All lines: standardised scores of one are relative to the others.
        features = line_features(lines, told, stack.facts).astype(np.float32)
        shares = stack.ranker.contributions(features[[at]])[0]
        columns = [*column_names(tuple(names), stack.facts), BASE]
        return {name: float(share) for name, share in zip(columns, shares, strict=True) if share != 0}
    if rung in (FULL, FOLD_IN):
        return {"lightfm": float(lines.scores[at, names.index("lightfm")])}
    popularity = stack.thresholds.popularity
    if rung == CONTENT:
        ranks = {name: lines.ranks[at, names.index(name)] for name in (popularity, "content") if name in names}
        return {f"place_{name}": float(1 / (FUSION + rank)) for name, rank in ranks.items() if np.isfinite(rank)}
    return {popularity: float(lines.scores[at, names.index(popularity)])}


def _of_lightfm(bundle: Bundle, told: Histories, item: int) -> dict[str, float]:
    """Exact: score = bias of the person + sum over the item's features of weight * (user . vector + bias)."""
    lightfm = bundle.stack.sources.get("lightfm")
    if not isinstance(lightfm, LightFMWarp) or not lightfm.offered_[item] or not lightfm.knows(told)[0]:
        return {}
    user = lightfm.users_of(told)[0]
    parts = {"(the person)": lightfm.user_bias(told)[0]} if lightfm.trained(told)[0] else {}
    attributes = bundle.features[[item]].indices
    weight = 1.0 / (1 + len(attributes))
    offered = int(np.count_nonzero(lightfm.offered_[:item]))
    first = int(np.count_nonzero(lightfm.offered_))
    named = [("(the product itself)", offered)]
    named += [(str(bundle.feature_names[int(code)]), first + int(code)) for code in attributes]
    for name, place in named:
        vector = lightfm.feature_vectors_[place].astype(np.float64)
        parts[name] = weight * (float(user @ vector) + float(lightfm.feature_biases_[place]))
    return {name: float(share) for name, share in parts.items()}
