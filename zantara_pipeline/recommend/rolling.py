"""Cuts in time that follow each other, and what was learned before each of them.

Belongs here: where the cuts lie; generators fitted strictly before a cut; what counts as liked after it. Does not belong
here: candidates with labels (examples.py), rankers, metrics.

    c1    c2    c3    c4    c5    c6    end        6 cuts: 3 tests, 3 earlier ones for each ranker
    |--1--|--2--|--3--|--4--|--5--|--6--|          test at c4: ranker learns from steps 1, 2, 3
                                                   what serves: ranker learns from steps 4, 5, 6, generators from all
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zantara_pipeline.recommend.config import RecommendationConfig, SplitSettings
from zantara_pipeline.recommend.dataset import DAY_US, Dataset, Pairs
from zantara_pipeline.recommend.generators import Generator, Popularity, make_generators, make_popularities
from zantara_pipeline.recommend.histories import Histories, histories_of
from zantara_pipeline.recommend.threads import one_thread


@dataclass(frozen=True)
class Fitted:
    """Generators that saw `train` and nothing else."""

    train: Dataset
    generators: dict[str, Generator]
    popularities: dict[str, Popularity]

    @property
    def sources(self) -> dict[str, Generator]:
        """Everything that names candidates: generators and popularities, in one order."""
        return {**self.generators, **self.popularities}

    @cached_property
    def histories(self) -> Histories:
        """Of all users of the dataset, as of the cut."""
        return histories_of(self.train)


def choose_cuts(dataset: Dataset, settings: SplitSettings) -> list[int]:
    """Cuts in microseconds, ascending; [] where time has no two moments, fewer than wished where it has too few.

    Steps of `test_days`, if all of them fill at most half of the span and each test holds `min_test_users` users with a
    positive weight; else steps of equal shares of the interactions. (REES46 spans 2 h 50 min; the last weeks of
    MovieLens' 22 years hold a handful of users.)
    """
    if len(dataset.times) == 0:
        return []
    first, last, wished = int(dataset.times.min()), dataset.latest_us, settings.tests + settings.rankers
    step = round(settings.test_days * DAY_US)
    cuts = [last - step * place for place in range(wished, 0, -1)]
    if 2 * step * wished <= last - first and _enough_users(dataset, cuts[-settings.tests :], settings):
        return cuts
    share = min(settings.test_fraction, 0.5 / wished)
    ordered = np.sort(dataset.times)
    places = [int(len(ordered) * (1 - share * place)) for place in range(wished, 0, -1)]
    return sorted({int(ordered[place]) for place in places if ordered[place] > first})


def steps(cuts: Sequence[int]) -> list[tuple[int, int | None]]:
    """Each cut with the next one; None after the last, whose test has no end."""
    return list(zip(cuts, [*cuts[1:], None], strict=False))


def _enough_users(dataset: Dataset, cuts: list[int], settings: SplitSettings) -> bool:
    positive = dataset.weights > 0
    for start, end in zip(cuts, [*cuts[1:], dataset.latest_us + 1], strict=True):
        inside = positive & (dataset.times >= start) & (dataset.times < end)
        if len(np.unique(dataset.users[inside])) < settings.min_test_users:
            return False
    return True


def fit_all(train: Dataset, config: RecommendationConfig) -> Fitted:
    """Every generator and popularity, fitted on everything in `train`."""
    generators: dict[str, Generator] = {}
    if len(train.positives()):
        with one_thread():
            generators = {name: made.fit(train) for name, made in make_generators(config).items()}
    return Fitted(train, generators, {name: made.fit(train) for name, made in make_popularities(config).items()})


def relevant_pairs(train: Dataset, test: Dataset) -> Pairs:
    """Positive pairs of the test that a list made at the cut was allowed to hold."""
    pairs = test.positives()
    barred: NDArray[np.bool_] = np.isin(pairs.keys(train.n_items), train.seen_pairs().keys(train.n_items))
    return pairs.keep(~barred)
