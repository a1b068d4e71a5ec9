"""Invariants of recommend: exact lists, no leak through the cut, metrics within bounds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zantara_pipeline.recommend.candidates import gather
from zantara_pipeline.recommend.config import load_config
from zantara_pipeline.recommend.dataset import Dataset, Pairs
from zantara_pipeline.recommend.examples import examples_at
from zantara_pipeline.recommend.generators import Popularity, make_generators, make_popularities
from zantara_pipeline.recommend.histories import histories_of
from zantara_pipeline.recommend.intervals import coverage_interval
from zantara_pipeline.recommend.metrics import PER_USER, coverage, gini, hit_matrix
from zantara_pipeline.recommend.ranking import top_k
from zantara_pipeline.recommend.rolling import choose_cuts, relevant_pairs
from zantara_pipeline.recommend.stack import best_lines

CONFIG = load_config()
QUICK = CONFIG.model_copy(
    update={
        "lightfm": CONFIG.lightfm.model_copy(update={"epochs": 1, "components": 4}),
        "als": CONFIG.als.model_copy(update={"factors": 4, "iterations": 2}),
    }
)


def own_lists(generator, data, k):
    found = gather({"one": generator}, histories_of(data), allowed=data.candidates, seen=data.seen_matrix(), most=k)
    return best_lines(found, found.scores[:, 0], data.n_users, k).items


@st.composite
def datasets(draw, max_rows=60):
    n_users, n_items = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    n = draw(st.integers(1, max_rows))
    users = draw(hnp.arrays(np.int32, n, elements=st.integers(0, n_users - 1)))
    items = draw(hnp.arrays(np.int32, n, elements=st.integers(0, n_items - 1)))
    times = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 40)))
    weights = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([-5.0, 0.0, 1.0, 3.0])))
    known = draw(hnp.arrays(np.int64, n_items, elements=st.integers(0, 60)))
    order = np.lexsort((weights, times, items, users))
    return Dataset(
        pa.array([f"u{code:03d}" for code in range(n_users)]),
        pa.array([f"i{code:03d}" for code in range(n_items)]),
        users[order],
        items[order],
        times[order],
        weights[order],
        np.ones(n, dtype=bool),
        known,
        np.empty(0, dtype=np.int32),
        np.empty(0, dtype=np.int32),
        pa.array([], pa.string()),
    )


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=25), elements=st.integers(-3, 3)),
    st.integers(1, 30),
)
def test_top_k_is_the_sorted_head(scores, k):
    scores[scores == -3] = -np.inf
    made = top_k(scores, k)
    for row, listed in zip(scores, made.items, strict=True):
        allowed = [column for column in range(len(row)) if row[column] > -np.inf]
        assert listed[listed >= 0].tolist() == sorted(allowed, key=lambda column: (-row[column], column))[:k]


@given(datasets())
def test_cuts_part_the_rows_and_leave_some_to_train_on(data):
    cuts = choose_cuts(data, CONFIG.split)
    assert cuts == sorted(set(cuts))
    for cut in cuts:
        train, test = data.before(cut), data.since(cut)
        assert len(train.times) + len(test.times) == len(data.times)
        assert len(train.times) > 0 and train.times.max() < cut <= test.times.min()


@given(datasets(), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_nothing_at_or_after_the_cut_changes_what_is_learned(data, cut):
    """Change the future in every way (move, reweigh, drop): models and lists before the cut stay bit-identical."""
    train = data.before(cut)
    if len(train.positives()) == 0:
        return
    late = data.times >= cut
    keep = ~late | (np.arange(len(late)) % 2 == 0)
    other = Dataset(
        data.user_ids,
        data.item_ids,
        data.users[keep],
        np.where(late, (data.items + 1) % data.n_items, data.items)[keep].astype(np.int32),
        np.where(late, data.times + 1000, data.times)[keep],
        np.where(late, 1.0, data.weights)[keep],
        data.seen[keep],
        np.where(data.known_from >= cut, data.known_from + 5, data.known_from),
        data.feature_items,
        data.feature_codes,
        data.feature_names,
    )
    changed = other.before(cut)
    assert (train.candidates == changed.candidates).all()
    pairs = [{**make_generators(QUICK), **make_popularities(QUICK)} for _ in range(2)]
    for name in pairs[0]:
        ours, theirs = pairs[0][name].fit(train), pairs[1][name].fit(changed)
        for key, values in ours.arrays().items():
            assert values.tobytes() == theirs.arrays()[key].tobytes(), (name, key)
        assert (own_lists(ours, train, 5) == own_lists(theirs, changed, 5)).all()


@given(datasets(), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_candidates_and_features_know_nothing_of_the_labels(data, cut):
    """The rows after the cut decide who is looked at and what is a hit, and nothing else of the examples."""
    made = examples_at(data, QUICK, cut, None)
    later = data.since(cut)
    if made is None or len(later.positives()) < 2:
        return
    half = later.times < np.quantile(later.times, 0.5)
    other = examples_at(data, QUICK, cut, int(later.times[~half].min()) if (~half).any() else None)
    if other is None:
        return
    shared, ours, theirs = np.intersect1d(made.users, other.users, return_indices=True)
    for user, mine, his in zip(shared, ours, theirs, strict=True):
        at, there = made.lines.rows == mine, other.lines.rows == his
        assert (made.lines.items[at] == other.lines.items[there]).all(), user
        assert np.array_equal(made.features[at], other.features[there], equal_nan=True)


@given(datasets(), st.integers(1, 40))
def test_what_was_seen_before_the_cut_is_neither_listed_nor_relevant(data, cut):
    train = data.before(cut)
    seen = {(int(u), int(i)) for u, i in zip(train.users, train.items, strict=True)}
    relevant = relevant_pairs(train, data.since(cut))
    assert not seen & {(int(u), int(i)) for u, i in zip(relevant.users, relevant.items, strict=True)}
    made = own_lists(Popularity(14).fit(train), train, 20)
    assert not seen & {(user, int(item)) for user in range(len(made)) for item in made[user] if item >= 0}
    assert all(train.candidates[item] for item in made[made >= 0])


@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 12))),
    st.integers(1, 15),
    st.integers(0, 5),
)
def test_metrics_lie_in_0_1_and_grow_with_better_lists(hits, k, missing):
    n_relevant = hits.sum(axis=1) + missing
    for formula in PER_USER.values():
        values = formula(hits, n_relevant, k)
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()
        best = formula(-np.sort(-hits.astype(int), axis=1) > 0, n_relevant, k)
        assert (best >= values - 1e-12).all()


@given(st.lists(st.permutations(range(10)), min_size=1, max_size=8), st.integers(1, 6), st.integers(0, 9))
def test_coverage_lies_in_its_interval(orders, k, padded_from):
    lists = np.array(orders, dtype=np.int32)[:, :k]
    lists[lists >= padded_from] = -1
    value = coverage(lists, 10, lists.shape[1])
    low, high = coverage_interval(lists, 10, 0.95)
    assert 0 <= low <= value + 1e-12 and value <= high + 1e-12 and high <= 1
    assert 0 <= gini(lists, 10) < 1


@given(datasets())
def test_hits_are_the_relevant_pairs(data):
    relevant: Pairs = data.positives()
    users = np.arange(data.n_users, dtype=np.int32)
    lists = np.tile(np.arange(-1, data.n_items, dtype=np.int32), (data.n_users, 1))
    hits = hit_matrix(lists, users, relevant, data.n_items)
    assert hits.sum() == len(relevant) and not hits[:, 0].any()
