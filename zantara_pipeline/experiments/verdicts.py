"""The one decision scale: every word that a scorecard may say, and when.

Belongs here: rules from numbers to verdicts. Does not belong here: the numbers.

| role | verdict | when |
| --- | --- | --- |
| srm | ok / srm | chi-square p-value at or above / below a day's part of srm_alpha |
| primary, secondary | better / worse | two-sided p, corrected for the variants (Holm) or for variants and secondary metrics (Benjamini-Hochberg), below what this look may spend (.05 for the only one), in the metric's own direction |
| | inconclusive | otherwise |
| guardrail | harm | the whole interval is worse than the threshold: the breach is proven |
| | safe | the whole interval is better than the threshold: non-inferiority is proven |
| | underpowered | the interval holds the threshold, or nothing varies: neither is proven; blocks shipping |
| all but srm | invalid: srm | the split is broken, so no effect can be trusted |
| | keep running | the run takes no planned look; harm alone is said at once |
| any | no data | no estimate in one of the variants |

The threshold is compared with the interval of the lift (basis relative) or of the difference (basis absolute): at a planned
look the interval that the look affords (95 % at the only one), and for harm at any time the always-valid one of 95 % too,
which may be looked at daily. So of experiments whose guardrail lies exactly on its threshold at most 2.5 % are ever called
harm between looks, and 2.5 % at them.
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


def guardrail_verdict(
    effect: Effect | None, rule: GuardrailRule, *, judged: bool, srm: bool, always: Effect | None = None
) -> str:
    """Verdict of a guardrail; an effect of None means that neither variant varies.

    judged : the run takes a look, and ``effect`` has its interval. always : the effect with the interval for any time.
    """
    if srm:
        return INVALID
    if always is not None and _against_threshold(always, rule) == HARM:
        return HARM
    return _against_threshold(effect, rule) if judged else KEEP_RUNNING


def harm_at_any_time_alone(effect: Effect | None, always: Effect | None, rule: GuardrailRule) -> bool:
    """Does the interval for any time prove a breach that the look's does not? Early looks afford less than that one."""
    proven = always is not None and _against_threshold(always, rule) == HARM
    return proven and _against_threshold(effect, rule) != HARM


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
