"""How good lists could be at best in the simulated shop: ranked by the probabilities that its people choose by.

Belongs here: the ceiling of NDCG@10 on the same cuts and people as the evaluation, from what was planted. Does not belong
here: anything that was learned.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import duckdb
import numpy as np

from zantara_pipeline.recommend.config import load_config
from zantara_pipeline.recommend.loading import collect, load, release
from zantara_pipeline.recommend.metrics import hit_matrix, ndcg
from zantara_pipeline.recommend.ranking import top_k
from zantara_pipeline.recommend.rolling import choose_cuts, relevant_pairs, steps
from zantara_pipeline.simulate.catalogue import ANY_CLUSTER, make_catalogue
from zantara_pipeline.simulate.parameters import DAY_MS, Parameters
from zantara_pipeline.simulate.people import make_people
from zantara_pipeline.simulate.visits import FIRST_TASTE, SIGNAL


def ceiling(con: duckdb.DuckDBPyConnection, planted: dict[str, Any], as_of: datetime) -> float:
    """Mean NDCG@10 over all test users of all cuts, of lists by the planted probabilities.

    planted : `parameters` of truth.json.
    """
    parameters = Parameters(
        planted["events"],
        planted["seed"],
        planted["days_before"],
        planted["days_during"],
        date.fromisoformat(planted["start"]),
    )
    config, people, catalogue = load_config(), make_people(parameters), make_catalogue(parameters)
    collect(con, config, as_of)
    data = load(con)
    release(con)
    visitor = {user: number for number, user in enumerate(people.user_id) if user}
    place = {product: number for number, product in enumerate(catalogue.product_id)}
    columns = np.array([place.get(product, -1) for product in data.item_ids.to_pylist()])
    values = []
    for cut, end in steps(choose_cuts(data, config.split)[-config.split.tests :]):
        train, later = data.before(cut), data.since(cut)
        relevant = relevant_pairs(train, later if end is None else later.until(end))
        users = np.unique(relevant.users)
        day = (cut // 1000 - parameters.start_ms) // DAY_MS
        chances = [np.diff(table, prepend=0.0) for table in catalogue.choices(int(day))]
        scores = np.empty((len(users), data.n_items))
        for row, user in enumerate(users):
            first, second = people.taste[visitor[data.user_ids[int(user)].as_py()]]
            taste = FIRST_TASTE * chances[first] + (1 - FIRST_TASTE) * chances[second]
            scores[row] = (SIGNAL * taste + (1 - SIGNAL) * chances[ANY_CLUSTER])[columns]
        scores[:, (columns < 0) | ~train.candidates] = -np.inf
        taken = train.seen_matrix()[users].tocoo()
        scores[taken.row, taken.col] = -np.inf
        counts = np.bincount(np.searchsorted(users, relevant.users), minlength=len(users))
        values.append(ndcg(hit_matrix(top_k(scores, 10).items, users, relevant, data.n_items), counts, 10))
    return float(np.concatenate(values).mean())
