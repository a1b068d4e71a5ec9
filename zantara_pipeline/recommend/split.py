"""One cut in time: train strictly before, test at and after.

Belongs here: choosing the cut. Does not belong here: cutting (Dataset.before, Dataset.since) or measuring.
"""

from __future__ import annotations

import numpy as np

from zantara_pipeline.recommend.config import SplitSettings
from zantara_pipeline.recommend.dataset import DAY_US, Dataset


def choose_cut(dataset: Dataset, settings: SplitSettings) -> int | None:
    """The cut in microseconds, or None where no cut leaves rows on both sides (all times equal).

    The last `test_days` if they hold enough users with a positive weight and leave at least half of the span to train
    on; else the latest `test_fraction` of the interactions. (REES46 spans 2 h 50 min; the last week of MovieLens'
    22 years holds a handful of users.)
    """
    if len(dataset.times) == 0:
        return None
    first, last = int(dataset.times.min()), dataset.latest_us
    cut = last - round(settings.test_days * DAY_US)
    if cut - first >= (last - first) / 2 and _test_users(dataset, cut) >= settings.min_test_users:
        return cut
    position = int(len(dataset.times) * (1 - settings.test_fraction))
    cut = int(np.partition(dataset.times, position)[position])
    return cut if cut > first else None


def _test_users(dataset: Dataset, cut: int) -> int:
    return len(np.unique(dataset.users[(dataset.times >= cut) & (dataset.weights > 0)]))
