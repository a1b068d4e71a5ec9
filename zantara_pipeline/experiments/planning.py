"""What an experiment can find: the smallest effect that its horizon shows, by what is known of its metric so far.

Belongs here: from an experiment and moments of control to that effect. Does not belong here: formulas (statistics/power.py).
"""

from __future__ import annotations

from zantara_pipeline.experiments.registry import Experiment
from zantara_pipeline.experiments.verdicts import ALPHA
from zantara_pipeline.statistics import Moments, mean_estimate
from zantara_pipeline.statistics.group_sequential import SPENDING, drift_for_power, spending_bounds
from zantara_pipeline.statistics.power import fixed_drift, minimum_detectable_effect


def smallest_effect(experiment: Experiment, control: Moments, variable: str) -> float | None:
    """Relative to control, found with the declared power once ``horizon_units`` are in and all planned looks are taken.

    Of the first treatment against control, without CUPED, which only makes it smaller. None: control has no spread, or its
    mean is not above 0.
    """
    estimate = mean_estimate(control, variable)
    if estimate is None or not estimate.variance > 0 or not estimate.value > 0:
        return None
    of_control = experiment.weighed[experiment.control]
    of_both = of_control + experiment.weighed[experiment.treatments[0]]
    effect = minimum_detectable_effect(
        (estimate.variance * estimate.n) ** 0.5,
        experiment.horizon_units * of_both,
        share=1 - of_control / of_both,
        drift=_drift(experiment),
    )
    return effect / estimate.value


def _drift(experiment: Experiment) -> float:
    if len(experiment.looks) == 1:
        return fixed_drift(ALPHA, experiment.power)
    days = (experiment.end - experiment.start).days
    fractions = [day / days for day in experiment.looks]
    return drift_for_power(spending_bounds(fractions, ALPHA, SPENDING[experiment.spending]), experiment.power)
