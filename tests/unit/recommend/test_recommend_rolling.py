"""Where the cuts fall, and that nothing after it is learned from."""

from __future__ import annotations

import numpy as np
from recommend_shop import config, dataset

from zantara_pipeline.recommend.dataset import DAY_US
from zantara_pipeline.recommend.rolling import choose_cuts

SETTINGS = config(split={"min_test_users": 3, "tests": 1, "rankers": 2}).split


def days(*values):
    return [round(value * DAY_US) for value in values]


def test_steps_of_seven_days_where_the_tests_hold_enough_users():
    data = dataset([0, 1, 2, 0, 1, 2], [0] * 6, days(0, 1, 2, 54, 56, 60))
    assert choose_cuts(data, SETTINGS) == days(39, 46, 53)


def test_every_test_needs_its_users():
    data = dataset([0, 1, 2, 0, 1, 2], [0] * 6, days(0, 1, 2, 54, 56, 60))
    two = config(split={"min_test_users": 3, "tests": 2, "rankers": 1}).split
    assert choose_cuts(data, two) != days(39, 46, 53)


def test_too_few_users_in_the_last_days_fall_back_to_equal_shares():
    data = dataset([0] * 10, [0] * 10, days(*range(0, 1000, 100)))
    assert choose_cuts(data, SETTINGS) == days(700, 800, 900)


def test_a_short_span_falls_back_to_equal_shares_of_at_most_half():
    data = dataset(list(range(20)), [0] * 20, [second * 10**6 for second in range(20)])
    wide = config(split={"min_test_users": 3, "tests": 1, "rankers": 1, "test_fraction": 0.5}).split
    assert choose_cuts(data, wide) == [10 * 10**6, 15 * 10**6]


def test_users_with_only_negative_signals_do_not_count():
    data = dataset([0, 1, 2, 3, 4], [0] * 5, days(0, 30, 58, 59, 60), weights=[1, 1, 1, -5, -5])
    assert choose_cuts(data, SETTINGS) != days(39, 46, 53)


def test_equal_times_or_no_rows_cannot_be_cut():
    assert choose_cuts(dataset([0, 1], [0, 1], [5, 5]), SETTINGS) == []
    assert choose_cuts(dataset([], [], []), SETTINGS) == []


def test_few_moments_give_fewer_cuts():
    data = dataset([0] * 9, [0] * 9, [5] * 8 + [6])
    assert choose_cuts(data, SETTINGS) == [6]


def test_products_unknown_before_the_cut_are_no_candidates():
    data = dataset([0, 0, 0], [0, 1, 2], [10, 20, 30], n_items=5)
    known = np.array([np.iinfo(np.int64).max, 5, np.iinfo(np.int64).max, 15, 40])
    object.__setattr__(data, "known_from", known)
    assert data.before(25).candidates.tolist() == [True, True, False, True, False]
    assert data.before(25).latest_us == 20
    assert data.candidates.tolist() == [True] * 5
