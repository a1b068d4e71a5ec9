"""Where the cut falls, and that nothing after it is learned from."""

from __future__ import annotations

import numpy as np
from recommend_shop import config, dataset

from zantara_pipeline.recommend.dataset import DAY_US
from zantara_pipeline.recommend.split import choose_cut

SETTINGS = config(split={"min_test_users": 3}).split


def days(*values):
    return [round(value * DAY_US) for value in values]


def test_the_last_seven_days_where_they_hold_enough_users():
    data = dataset([0, 1, 2, 0, 1, 2], [0] * 6, days(0, 1, 2, 54, 56, 60))
    assert choose_cut(data, SETTINGS) == 53 * DAY_US


def test_too_few_users_in_the_last_days_fall_back_to_the_latest_fifth():
    data = dataset([0] * 10, [0] * 10, days(*range(0, 1000, 100)))
    assert choose_cut(data, SETTINGS) == 800 * DAY_US


def test_a_short_span_falls_back_to_the_latest_fifth():
    data = dataset(list(range(10)), [0] * 10, [second * 10**6 for second in range(10)])
    assert choose_cut(data, SETTINGS) == 8 * 10**6


def test_users_with_only_negative_signals_do_not_count():
    data = dataset([0, 1, 2, 3, 4], [0] * 5, days(0, 30, 58, 59, 60), weights=[1, 1, 1, -5, -5])
    assert choose_cut(data, SETTINGS) != 53 * DAY_US


def test_equal_times_or_no_rows_cannot_be_cut():
    assert choose_cut(dataset([0, 1], [0, 1], [5, 5]), SETTINGS) is None
    assert choose_cut(dataset([], [], []), SETTINGS) is None


def test_products_unknown_before_the_cut_are_no_candidates():
    data = dataset([0, 0, 0], [0, 1, 2], [10, 20, 30], n_items=5)
    known = np.array([np.iinfo(np.int64).max, 5, np.iinfo(np.int64).max, 15, 40])
    object.__setattr__(data, "known_from", known)
    assert data.before(25).candidates.tolist() == [True, True, False, True, False]
    assert data.before(25).latest_us == 20
    assert data.candidates.tolist() == [True] * 5
