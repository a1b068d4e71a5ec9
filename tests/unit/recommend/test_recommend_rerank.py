"""Rules of business: by hand, and that no rule ever adds, doubles or loses what it may not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recommend_shop import config
from scipy.sparse import csr_matrix

from zantara_pipeline.recommend.config import Reranking
from zantara_pipeline.recommend.ranking import Lists
from zantara_pipeline.recommend.rerank import Catalogue, rerank

# Six products: three shoes (two of them of one brand), two hats, one of nothing.
CATALOGUE = Catalogue(
    [f"p{i}" for i in range(6)],
    ["brand=acme", "category=hats", "category=shoes"],
    csr_matrix(np.array([[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=float)),
)


def reranked(rules, pools=((0, 1, 2, 3, 4, 5),), k=4, people=None):
    items = np.array(pools, dtype=np.int32)
    scores = np.where(items >= 0, -np.arange(items.shape[1], dtype=float), np.nan)
    reranking = Reranking.model_validate({"version": 1, "pool": 6, "rules": rules})
    people = people or [f"u{row}" for row in range(len(items))]
    return rerank(Lists(items, scores), people, CATALOGUE, reranking, k)


def test_no_rule_leaves_the_order():
    assert reranked([]).lists.items.tolist() == [[0, 1, 2, 3]]


def test_blocked_by_id_and_by_attribute():
    rule = {"rule": "blocked", "products": ["p2"], "attributes": ["brand=acme"]}
    made = reranked([rule])
    assert made.lists.items.tolist() == [[3, 4, 5, -1]] and np.isnan(made.lists.scores[0, 3])
    assert made.lists.scores[0, :3].tolist() == [-3, -4, -5]


def test_a_cap_puts_off_and_does_not_drop():
    rule = {"rule": "cap", "attribute": "category", "most": 1, "within": 3}
    # Places 1 to 3: the first shoe, the first hat, the one without a category; then what ranked best of the others.
    assert reranked([rule], k=6).lists.items.tolist() == [[0, 3, 5, 1, 2, 4]]
    scarce = reranked([rule], pools=((0, 1, 2, -1, -1, -1),), k=3)
    assert scarce.lists.items.tolist() == [[0, 1, 2]]


def test_diversity_by_hand():
    """Weight 0.6 over pool 0 1 2 3: relevance 1, .75, .5, .25. After 0 (shoes, acme): 1 is alike by 1: .3 - .6; 2 by
    1/sqrt 2: .2 - .42; 3 by 0: .1. So 3, then 2 (.2 - .42) before 1 (.3 - .6)."""
    made = reranked([{"rule": "diversity", "weight": 0.6}], pools=((0, 1, 2, 3),))
    assert made.lists.items.tolist() == [[0, 3, 2, 1]]
    assert reranked([{"rule": "diversity", "weight": 0}]).lists.items.tolist() == [[0, 1, 2, 3]]


def test_exploration_shows_each_hidden_product_as_often_as_it_says():
    n = 3000
    rule = {"rule": "explore", "slots": [2], "seed": 5}
    made = reranked([rule], pools=((0, 1, 2, 3, 4, 5),) * n, k=4)
    assert (made.lists.items[:, [0, 2, 3]] == [0, 1, 2]).all()
    drawn, counts = np.unique(made.lists.items[:, 1], return_counts=True)
    assert drawn.tolist() == [3, 4, 5] and (made.propensity[:, 1] == 1 / 3).all()
    assert (made.propensity[:, [0, 2, 3]] == 1).all()
    assert np.abs(counts / n - 1 / 3).max() < 3 * np.sqrt(2 / 9 / n)
    again = reranked([rule], pools=((0, 1, 2, 3, 4, 5),) * n, k=4)
    assert (again.lists.items == made.lists.items).all()


def test_exploration_must_come_last():
    explore = {"rule": "explore", "slots": [2], "seed": 5}
    with pytest.raises(ValueError, match="explore must be the last rule"):
        Reranking.model_validate({"version": 1, "pool": 6, "rules": [explore, {"rule": "diversity", "weight": 0.1}]})


RULES = st.one_of(
    st.builds(lambda p: {"rule": "blocked", "products": p}, st.lists(st.sampled_from(["p0", "p3", "p5"]), max_size=2)),
    st.builds(
        lambda a, m, w: {"rule": "cap", "attribute": a, "most": m, "within": w},
        st.sampled_from(["category", "brand"]),
        st.integers(1, 3),
        st.integers(1, 6),
    ),
    st.builds(lambda w: {"rule": "diversity", "weight": w}, st.floats(0, 1)),
)


@given(
    st.lists(RULES, max_size=3),
    st.lists(st.tuples(st.permutations(range(6)), st.integers(0, 6)), min_size=1, max_size=4),
    st.integers(1, 6),
    st.booleans(),
)
def test_a_rule_never_adds_or_doubles_and_only_blocking_loses(rules, people, k, explore):
    pools = [[*order[:held], *[-1] * (6 - held)] for order, held in people]
    slots = [{"rule": "explore", "slots": [1, 3], "seed": 2}] if explore else []
    made = reranked([*rules, *slots], pools=pools, k=k)
    barred = {int(name[1:]) for rule in rules for name in rule.get("products", [])}
    for pool, listed, chances in zip(pools, made.lists.items, made.propensity, strict=True):
        shown = [int(item) for item in listed if item >= 0]
        allowed = {item for item in pool if item >= 0} - barred
        assert set(shown) <= allowed and len(set(shown)) == len(shown)
        assert len(shown) == min(k, len(allowed))
        assert ((chances > 0) & (chances <= 1)).all()


def test_the_packaged_rules_are_versioned_and_known():
    assert config().reranking.version == 1
