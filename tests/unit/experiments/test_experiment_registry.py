"""What a person who edits experiment YAML sees: defaults, overlays, and one line for each kind of mistake."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import PACKAGED_EXPERIMENTS, load_experiments

SHORT_FORM = """\
# ab-test-guardrails.yaml
experiment_defaults:
  srm_check: chi_square
  variance_reduction: cuped
  min_duration_days: 14
  guardrails:
    - name: "p95_latency_ms"
      direction: "lower_is_better"
      threshold: "+5%"
    - name: "crash_free_sessions"
      direction: "higher_is_better"
      threshold: "-0.2%"
"""

EXPERIMENT = """\
experiment: my_test
hypothesis: It helps.
owner: someone@company.com
unit: user_id
variants:
  - name: control
    weight: 0.5
  - name: treatment
    weight: 0.5
primary: conversion
start: 2026-02-02
end: 2026-03-01
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    (tmp_path / "my_test.yaml").write_text(EXPERIMENT)
    return tmp_path


def _load(overlay: Path):
    return load_experiments([PACKAGED_EXPERIMENTS, overlay])


def test_packaged_experiments_inherit_the_defaults():
    registry = load_experiments()
    assert set(registry.experiments) == {"checkout_redesign", "search_ranking", "image_carousel"}
    for experiment in registry.experiments.values():
        assert experiment.variants == {"control": 0.5, "treatment": 0.5}
        assert [rule.name for rule in experiment.guardrails] == ["p95_latency_ms", "crash_free_sessions"]
        assert [rule.margin for rule in experiment.guardrails] == [0.05, 0.002]
        assert experiment.start == dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
        assert experiment.end == dt.datetime(2026, 3, 2, tzinfo=dt.UTC)  # the last day is included


def test_short_form_of_the_requirements_is_valid_as_written(overlay: Path):
    (overlay / "ab-test-guardrails.yaml").write_text(SHORT_FORM)
    defaults = _load(overlay).defaults
    assert (defaults.srm_alpha, defaults.pre_period_days, defaults.min_duration_days) == (0.001, 28, 14)
    assert [rule.basis for rule in defaults.guardrails] == ["relative", "relative"]


def test_a_later_folder_replaces_the_file_of_the_same_name(overlay: Path):
    shutil.copy(PACKAGED_EXPERIMENTS / "search_ranking.yaml", overlay)
    text = (overlay / "search_ranking.yaml").read_text().replace("secondary: [revenue_per_user]", "secondary: []")
    (overlay / "search_ranking.yaml").write_text(text)
    registry = _load(overlay)
    assert registry.experiments["search_ranking"].secondary == ()
    assert len(registry.experiments) == 4


def test_an_experiment_may_set_its_own_rules(overlay: Path):
    own = "srm_alpha: 0.01\nmin_duration_days: 7\nguardrails: []\nvariance_reduction: none\npre_period_days: 14\n"
    (overlay / "my_test.yaml").write_text(EXPERIMENT + own)
    registry = _load(overlay)
    mine = registry.experiments["my_test"]
    assert (mine.srm_alpha, mine.min_duration_days, mine.guardrails) == (0.01, 7, ())
    assert (mine.variance_reduction, mine.pre_period_days) == ("none", 14)
    assert registry.experiments["search_ranking"].srm_alpha == 0.001


def test_hash_changes_with_the_configuration_and_with_nothing_else(overlay: Path):
    first = _load(overlay).experiments["my_test"].config_hash
    (overlay / "my_test.yaml").write_text("# a comment\n" + EXPERIMENT)
    assert _load(overlay).experiments["my_test"].config_hash == first
    (overlay / "my_test.yaml").write_text(EXPERIMENT + "srm_alpha: 0.01\n")
    assert _load(overlay).experiments["my_test"].config_hash != first
    (overlay / "my_test.yaml").write_text(EXPERIMENT)
    (overlay / "metrics.yaml").write_text(
        (PACKAGED_EXPERIMENTS / "metrics.yaml").read_text().replace("quantile: 0.95", "quantile: 0.9")
    )
    assert _load(overlay).experiments["my_test"].config_hash != first


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("hypothesis:", "hypotesis:", 2, "did you mean 'hypothesis'?"),
        ("primary: conv", "secondry: []\nprimary: conv", 10, "did you mean 'secondary'?"),
        ("primary: conversion", "primary: conversoin", 10, "unknown metric 'conversoin'"),
        ("primary: conversion", "primary: [conversion, revenue_per_user]", 10, "exactly one primary metric"),
        ("primary: conversion", "primary: conversion\nprimary: revenue_per_user", 11, "'primary' stands twice"),
        ("primary: conversion", "primary: conversion\nsecondary:\n  - conversion", 12, "stands twice"),
        ("    weight: 0.5\nprimary", "    weight: 0.4\nprimary", 5, "sum to 0.9"),
        ("    weight: 0.5\nprimary", "    weight: -0.5\nprimary", 9, "greater than or equal to 0"),
        ("- name: treatment", "- name: control", 5, "stands twice"),
        ("primary:", "control: holdout\nprimary:", 10, "'holdout' is no variant"),
        ("unit: user_id", "unit: session_id", 4, "unit"),
        ("end: 2026-03-01", "end: 2026-02-10", 12, "fewer than min_duration_days (14)"),
        ("end: 2026-03-01", "end: 2026-01-01", 12, "0 days from start to end"),
        ("start: 2026-02-02", "start: soon", 11, "start"),
        ("experiment: my_test", "experiment: your_test", 1, "not the file's name"),
        ("owner: someone@company.com\n", "", 1, "owner"),
    ],
)
def test_mistakes_in_an_experiment_name_file_line_and_key(overlay: Path, old, new, line, says):
    assert old in EXPERIMENT
    (overlay / "my_test.yaml").write_text(EXPERIMENT.replace(old, new))
    with pytest.raises(InputError) as caught:
        _load(overlay)
    message = str(caught.value)
    assert f"my_test.yaml:{line}:" in message
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("srm_check: chi_square", "srm_check: g_test", 3, "srm_check"),
        ("variance_reduction:", "variance_reducton:", 4, "did you mean 'variance_reduction'?"),
        ("  min_dur", "  srm_alhpa: 0.01\n  min_dur", 5, "did you mean 'srm_alpha'?"),
        ("min_duration_days: 14", "min_duration_days: 0", 5, "min_duration_days"),
        ('"p95_latency_ms"', '"p99_latency_ms"', 7, "unknown metric 'p99_latency_ms'"),
        ('"+5%"', '"5%"', 7, 'must look like "+5%"'),
        ('"+5%"', '"-5%"', 7, "must begin with '+'"),
        ('"-0.2%"', '"+0.2%"', 10, "must begin with '-'"),
        ('"+5%"', '"+5"', 7, "relative and needs a %"),
        ('"lower_is_better"', '"higher_is_better"', 7, "must begin with '-'"),
        ('"crash_free_sessions"', '"p95_latency_ms"', 10, "stands twice"),
    ],
)
def test_mistakes_in_the_defaults_name_file_line_and_key(overlay: Path, old, new, line, says):
    assert old in SHORT_FORM
    (overlay / "ab-test-guardrails.yaml").write_text(SHORT_FORM.replace(old, new))
    with pytest.raises(InputError) as caught:
        _load(overlay)
    assert f"ab-test-guardrails.yaml:{line}:" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("{type: mean, description: d, direction: higher_is_better}", 2, "needs the key 'events'"),
        ("{type: mean, description: d, direction: up, events: [a]}", 2, "direction"),
        (
            "{type: proportion, description: d, direction: higher_is_better, events: [a], value: v}",
            2,
            "not use the key",
        ),
        (
            "{type: mean, description: d, direction: higher_is_better, events: [a], times: t}",
            2,
            "'times' needs 'value'",
        ),
        (
            "{type: quantile, description: d, direction: higher_is_better, events: [a], value: v, quantile: 95}",
            2,
            "less",
        ),
        ("{type: mean, description: d, direction: higher_is_better, events: ['a; drop table x']}", 2, "events"),
        ("{type: median, description: d, direction: higher_is_better, events: [a]}", 2, "type"),
    ],
)
def test_mistakes_in_a_metric_name_file_line_and_key(overlay: Path, body, line, says):
    (overlay / "metrics.yaml").write_text(f"metrics:\n  mine: {body}\n")
    with pytest.raises(InputError) as caught:
        _load(overlay)
    assert f"metrics.yaml:{line}:" in str(caught.value)
    assert says in str(caught.value)


def test_absolute_thresholds_are_points_or_units(overlay: Path):
    rules = """guardrails:
  - {name: crash_free_sessions, direction: higher_is_better, threshold: "-0.2%", basis: absolute}
  - {name: p95_latency_ms, direction: lower_is_better, threshold: "+50", basis: absolute}
"""
    (overlay / "my_test.yaml").write_text(EXPERIMENT + rules)
    assert [rule.margin for rule in _load(overlay).experiments["my_test"].guardrails] == [0.002, 50]


def test_files_that_nothing_reads_and_missing_files_are_said(tmp_path: Path, overlay: Path):
    with pytest.raises(InputError, match=r"ab-test-guardrails\.yaml is missing"):
        load_experiments([overlay])
    (overlay / "other.yml").write_text(EXPERIMENT)
    with pytest.raises(InputError, match=r"other\.yml: nothing reads this file"):
        _load(overlay)


def test_an_overlay_without_experiments_is_no_error(tmp_path: Path):
    assert len(load_experiments([PACKAGED_EXPERIMENTS, tmp_path / "absent"]).experiments) == 3
