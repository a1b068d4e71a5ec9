"""The gate: may a version serve in place of the one that does?

A version of the configuration that serves, on newer data, takes over by itself when it passes: yesterday's model would be
worse for everybody, and no experiment could end within a day. Another configuration only becomes the challenger: it takes
over after an experiment, or by somebody's word that is kept. Two are compared on the same cuts and people: the
configuration that serves is evaluated again on the data of today.

Belongs here: the checks and what follows from them. Does not belong here: measuring (evaluation.py), the audit
(decisions.py), aliases (registry/).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from zantara_pipeline.recommend.artifacts import Bundle
from zantara_pipeline.recommend.config import Gate
from zantara_pipeline.recommend.intervals import bootstrap_means

# Slices of fewer people say too little to refuse a version.
SEGMENT_USERS = 100


@dataclass(frozen=True)
class Check:
    """One question of the gate and its answer, as a sentence with the figures.

    breaks : a version that fails it cannot serve at all, whatever it would replace.
    """

    passed: bool
    told: str
    breaks: bool = False


def check_version(
    new: Bundle, champion: Bundle | None, champion_today: pa.Table | None, gate: Gate, *, strict: bool
) -> list[Check]:
    """All questions.

    Parameters
    ----------
    new : as loaded from the registry's files, so that what is checked is what would serve.
    champion : what serves; None: nothing does.
    champion_today : per-user values of the champion's configuration on the data of the new one, as
        `Evaluation.per_user_table`; None where both have one configuration, or the champion serves nothing.
    """
    metrics = new.manifest["metrics"]
    checks = [_golden(new), _finite(new)]
    if not any(key.startswith("stack.") for key in metrics):
        return [*checks, Check(new.served_model == "popularity", f"nothing was measured: {new.manifest['reason']}")]
    if new.served_model == "popularity":
        checks.append(Check(True, f"it serves popularity to everybody: {new.manifest['reason']}"))
    else:
        checks += [
            _against_popularity(metrics, gate, strict),
            _against_blend(metrics, gate, strict),
            *_slices(metrics, gate),
        ]
    if champion is not None:
        checks += _kept(new, champion, gate)
        if champion_today is not None:
            checks.append(paired(new.per_user_metrics, champion_today, gate))
    return checks


def paired(ours: pa.Table, theirs: pa.Table, gate: Gate) -> Check:
    """Non-inferiority by the paired bootstrap over users, each with all their cuts."""
    told = compare(ours, theirs, f"stack_{gate.metric}_{gate.cutoff}")
    if told is None:
        return Check(False, "no user and cut was measured for both versions")
    value, low, high, users = told
    sentence = (
        f"{gate.metric}@{gate.cutoff} minus that of the configuration that serves is {value:+.4f} "
        f"({low:+.4f} to {high:+.4f}, {users} users, paired; tolerated -{gate.tolerance})"
    )
    return Check(low > -gate.tolerance, sentence)


def compare(ours: pa.Table, theirs: pa.Table, column: str) -> tuple[float, float, float, int] | None:
    """Mean difference of one column of two per-user tables over the users and cuts that both hold, with its 95 % interval
    and the number of users; None where they share none."""
    if column not in ours.column_names or column not in theirs.column_names:
        return None
    keys = ["user_id", "cut_us"]
    both = ours.select([*keys, column]).join(
        theirs.select([*keys, column]), keys, right_suffix="_theirs", join_type="inner"
    )
    if len(both) == 0:
        return None
    both = both.sort_by([("user_id", "ascending"), ("cut_us", "ascending")])
    difference = both[column].to_numpy() - both[f"{column}_theirs"].to_numpy()
    owners = np.unique(both["user_id"].to_numpy(), return_inverse=True)[1]
    low, high = bootstrap_means(difference[:, None], owners, samples=1000, confidence=0.95, seed=17)
    return float(difference.mean()), float(low[0]), float(high[0]), len(np.unique(owners))


def _golden(new: Bundle) -> Check:
    kept = new.keeps_its_golden_lists()
    return Check(
        kept, "golden lists are reproduced" if kept else "golden lists are not reproduced by the stored files", True
    )


def _finite(new: Bundle) -> Check:
    """Every learned number: one that is none silences a source, and lists alone would not show it."""
    parts = {**new.stack.sources} | ({} if new.stack.ranker is None else {"ranker": new.stack.ranker})
    bad = [
        name
        for name, part in parts.items()
        if any(values.dtype.kind == "f" and not np.isfinite(values).all() for values in part.arrays().values())
    ]
    told = f"learned values of {', '.join(bad)} are not finite numbers" if bad else "learned values are finite"
    return Check(not bad, told, True)


def _against_popularity(metrics: dict[str, float], gate: Gate, strict: bool) -> Check:
    key = f"stack.all.{gate.metric}_diff_{gate.cutoff}"
    low, high = metrics.get(f"{key}.ci_low", float("nan")), metrics.get(f"{key}.ci_high", float("nan"))
    told = f"{gate.metric}@{gate.cutoff} minus recent popularity's, whole traffic: {low:+.4f} to {high:+.4f}"
    return Check(low > 0 if strict else high > -gate.tolerance, told)


def _against_blend(metrics: dict[str, float], gate: Gate, strict: bool) -> Check:
    key = f"blend.all.{gate.metric}_lead_{gate.cutoff}"
    low, high = metrics.get(f"{key}.ci_low", 0.0), metrics.get(f"{key}.ci_high", 0.0)
    told = f"{gate.metric}@{gate.cutoff} minus the logistic blend's, whole traffic: {low:+.4f} to {high:+.4f}"
    return Check((low if strict else high) > -gate.tolerance, f"{told} (tolerated -{gate.tolerance})")


def _slices(metrics: dict[str, float], gate: Gate) -> list[Check]:
    """No slice of enough people is clearly worse off than with popularity."""
    checks = []
    ending = f".{gate.metric}_diff_{gate.cutoff}.ci_high"
    for key in sorted(metrics):
        if key.startswith("stack.") and key.endswith(ending):
            name = key.removeprefix("stack.").removesuffix(ending)
            users = metrics.get(f"stack.{name}.users", 0)
            if users >= SEGMENT_USERS and metrics[key] < 0:
                checks.append(Check(False, f"{name} ({users:.0f} users) is clearly worse off than with popularity"))
    return checks or [Check(True, f"no slice of {SEGMENT_USERS} users is clearly worse off than with popularity")]


def _kept(new: Bundle, champion: Bundle, gate: Gate) -> list[Check]:
    """Coverage of the catalogue and the candidates' ceiling, against what the one that serves had."""
    checks = []
    for what in ("coverage", "ceiling"):
        now, then = _least(new, what), _least(champion, what)
        if now is not None and then is not None:
            told = f"{what} {now:.3f}, {then:.3f} before (at least {gate.kept_share:.0%} of it is to stay)"
            checks.append(Check(now >= gate.kept_share * then, told))
    return checks


def _least(bundle: Bundle, metric: str) -> float | None:
    rows = bundle.offline_metrics
    if "metric" not in rows.column_names:
        return None
    found = [
        row["value"]
        for row in rows.to_pylist()
        if (row["model"], row["slice"], row["metric"]) == ("stack", "all", metric) and row["value"] is not None
    ]
    return float(np.mean(found)) if found else None
