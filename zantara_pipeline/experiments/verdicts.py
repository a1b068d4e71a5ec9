"""The one decision scale: every word that a scorecard may say, and when.

Belongs here: rules from numbers to verdicts. Does not belong here: the numbers.

| role | verdict | when |
| --- | --- | --- |
| srm | ok / srm | chi-square p-value at or above / below srm_alpha |
| primary, secondary | better / worse | two-sided p below what this look may spend (.05 for the only one), in the metric's own direction |
| | inconclusive | otherwise |
| guardrail | harm | the whole 95 % interval is worse than the threshold: the breach is proven |
| | safe | the whole 95 % interval is better than the threshold: non-inferiority is proven |
| | underpowered | the interval holds the threshold, or nothing varies: neither is proven; blocks shipping |
| all but srm | invalid: srm | the split is broken, so no effect can be trusted |
| | keep running | the run takes no planned look; harm alone is said at once |
| any | no data | no estimate in one of the variants |

The threshold is compared with the interval of the lift (basis relative) or of the difference (basis absolute).
"""

from __future__ import annotations

from zantara_pipeline.experiments.contract import GuardrailRule
from zantara_pipeline.statistics import Effect

ALPHA = 0.05
CONFIDENCE = 0.95

OK, SRM, NO_DATA = "ok", "srm", "no data"
BETTER, WORSE, INCONCLUSIVE = "better", "worse", "inconclusive"
HARM, SAFE, UNDERPOWERED = "harm", "safe", "underpowered"
INVALID, KEEP_RUNNING = "invalid: srm", "keep running"


def effect_verdict(effect: Effect | None, direction: str, *, alpha: float | None, srm: bool) -> str:
    """Verdict of a primary or secondary metric; ``effect`` None means that neither variant varies.

    alpha : what the look may spend; None: the run takes none.
    """
    if srm:
        return INVALID
    if alpha is None:
        return KEEP_RUNNING
    if effect is None or effect.p_value >= alpha:
        return INCONCLUSIVE
    return BETTER if (effect.difference > 0) == (direction == "higher_is_better") else WORSE


def guardrail_verdict(effect: Effect | None, rule: GuardrailRule, *, judged: bool, srm: bool) -> str:
    """Verdict of a guardrail; ``effect`` None means that neither variant varies. judged : the run takes a look."""
    if srm:
        return INVALID
    verdict = _against_threshold(effect, rule)
    return verdict if judged or verdict == HARM else KEEP_RUNNING


def _against_threshold(effect: Effect | None, rule: GuardrailRule) -> str:
    if effect is None:
        return UNDERPOWERED
    low, high = effect.difference_low, effect.difference_high
    if rule.basis == "relative":
        if effect.lift_low is None or effect.lift_high is None:
            return UNDERPOWERED
        low, high = effect.lift_low, effect.lift_high
    if rule.direction == "higher_is_better":
        low, high = -high, -low
    if low > rule.margin:  # low and high are now sizes of worsening
        return HARM
    return SAFE if high < rule.margin else UNDERPOWERED
