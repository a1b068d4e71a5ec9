"""Segments that do not say what they must are refused before anything runs, every fault in a line that helps."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from segment_meta import META

from zantara_pipeline import cli
from zantara_pipeline.errors import InputErrors
from zantara_pipeline.orchestration import preflight
from zantara_pipeline.segments.contract import SegmentMeta, check_segments, sql_faults

PROJECT = Path(__file__).resolve().parents[3] / "dbt_project"
PURPOSES = ("analytics", "personalization")
SELECT = "select user_id as entity_id from {{ allowed_events(['purchase']) }}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A dbt project of one sound segment."""
    (tmp_path / "models/segments").mkdir(parents=True)
    (tmp_path / "models/segments/seg_a.sql").write_text(SELECT)
    declare(tmp_path, META)
    return tmp_path


def declare(project: Path, meta: Any, **others: Any) -> None:
    model = {"name": "seg_a", "description": "People.", "config": {"meta": meta}} | others
    (project / "models/segments/_segments.yml").write_text(yaml.safe_dump({"models": [model]}, sort_keys=False))


def faults(project: Path) -> list[str]:
    with pytest.raises(InputErrors) as error:
        check_segments(project, PURPOSES)
    return str(error.value).splitlines()


def test_the_projects_own_segments_are_sound() -> None:
    check_segments(PROJECT, PURPOSES)


def test_a_sound_segment_is_taken(project: Path) -> None:
    check_segments(project, PURPOSES)


@pytest.mark.parametrize("key", META)
def test_a_missing_key_is_named_with_file_line_and_what_to_do(project: Path, key: str) -> None:
    declare(project, {name: value for name, value in META.items() if name != key})
    (line,) = faults(project)
    assert re.fullmatch(rf".*/_segments\.yml:5: seg_a: meta key '{key}': missing; (name|say) .+", line), line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ttl_days", 0), ("ttl_days", "soon"), ("ttl_days", 30.5), ("ttl_days", True), ("ttl_days", 5000), ("owner", "me"),
        ("owner", None), ("legal_basis", "whim"), ("entity", "household"), ("access_level", "all"), ("min_size", 0),
        ("purpose", "win back"), ("purpose", ""), ("purpose", 3),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_named_with_its_line(project: Path, key: str, value: Any) -> None:
    declare(project, META | {key: value})
    (line,) = faults(project)
    place = 6 + list(META).index(key)
    assert f"_segments.yml:{place}: seg_a: meta key '{key}'" in line and "; " in line


def test_an_unknown_key_is_refused_and_the_near_one_named(project: Path) -> None:
    declare(project, META | {"tll_days": 3})
    assert faults(project)[0].endswith("meta key 'tll_days': unknown key; did you mean 'ttl_days'?")


def test_every_fault_has_a_line_of_its_own(project: Path) -> None:
    declare(project, {"owner": "me", "colour": "red"}, description=" ")
    lines = faults(project)
    assert len(lines) == 1 + 1 + 1 + 6  # description, owner, colour, and six keys that are missing
    assert len({line.split(":")[1] for line in lines}) >= 3 and all("_segments.yml:" in line for line in lines)


def test_what_is_not_where_it_belongs_is_named(project: Path) -> None:
    models = project / "models"
    (models / "segments/seg_b.sql").write_text("{{ config(materialized='view') }}\n" + SELECT)
    (models / "core").mkdir()
    (models / "core/seg_c.sql").write_text(SELECT)
    (models / "segments/_more.yml").write_text("models:\n  - name: seg_d\n    description: d\n    meta: {owner: x}\n")
    said = "\n".join(faults(project))
    for part in (
        "seg_b: no YAML says whose it is", "seg_b: key 'config' sets what only the project may",
        "seg_c: a segment lies in models/segments",
        "_more.yml:4: seg_d: key 'meta' stands where dbt no longer reads it", "seg_d: there is no model of this name",
    ):  # fmt: skip
        assert part in said, part


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select 1\nfrom {{ ref('users') }}", "it reads 'ref'"),
        ("select 1\nfrom {{ source('lake', 'purchase') }}", "it reads 'source'"),
        ("select 1\nwhere occurred_at > now() - interval 1 day", "it asks 'now'"),
        ("select 1\nwhere occurred_at > CURRENT_TIMESTAMP", "it asks 'CURRENT_TIMESTAMP'"),
        ("select 1\norder by random()", "it asks 'random'"),
    ],
)
def test_a_select_that_leaves_what_was_allowed_and_known_at_the_clock_is_refused(
    project: Path, sql: str, said: str
) -> None:
    (project / "models/segments/seg_a.sql").write_text(sql)
    (line,) = faults(project)
    assert f"seg_a.sql:2: seg_a: {said}" in line
    assert not list(sql_faults("-- now() and ref('x')\n{# source('a') #} select prefix_ref from known"))


def test_a_run_ends_with_two_and_all_faults_before_it_makes_anything(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    declare(project, META | {"owner": "me", "ttl_days": 0})
    home = tmp_path / "home"
    monkeypatch.setenv("ZANTARA_HOME", str(home))
    monkeypatch.setattr(preflight, "DBT_PROJECT", project)
    monkeypatch.setattr("sys.argv", ["zantara", "run", "--simulated-shop"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and not home.exists()
    assert len(lines) == 2 and all(line.startswith("zantara: ") and "_segments.yml:" in line for line in lines)


def test_the_projects_yaml_without_one_key_is_refused(tmp_path: Path) -> None:
    """The real file, so that what people copy is checked as they will write it."""
    copy = tmp_path / "dbt"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("target"))
    path = copy / "models/segments/_segments.yml"
    text = path.read_text(encoding="utf-8")
    at = text.index("        ttl_days: 30\n")
    path.write_text(text[:at] + text[at + len("        ttl_days: 30\n") :], encoding="utf-8")
    (line,) = faults(copy)
    assert "meta key 'ttl_days': missing" in line


TOUCHES = "select user_id as entity_id, min(occurred_at) as entered_at from {{ allowed_activity() }} group by user_id"
CLAIMS = {
    # what is wrong -> (entity, SELECT)
    "'ntile' compares": ("user", f"with a as ({TOUCHES}) select *, ntile(5) over (partition by user_id) from a"),
    "'limit' compares": ("user", f"{TOUCHES} limit 100"),
    "'using sample' compares": ("user", f"{TOUCHES} using sample 5"),
    "'date_diff' changes with time": ("user", f"{TOUCHES} having date_diff('day', max(occurred_at), {{{{ as_of() }}}}) > 9"),
    "'date_trunc' changes with time": ("user", f"{TOUCHES} having max(occurred_at) > date_trunc('month', {{{{ as_of() }}}})"),
    "a window is not over single members": (
        "user", f"with a as ({TOUCHES}) select *, row_number() over (order by entered_at) from a"),
    "a window is not over single members (partition by device_id)": (
        "device", "select device_id, sum(1) over (partition by user_id) from {{ allowed_device_activity() }}"),
    "does not keep members apart by user_id": (
        "user", f"with m as (select avg(price) as mean from {{{{ allowed_events(['purchase']) }}}}) {TOUCHES}"),
    "does not keep members apart by organisation_id": ("organisation", TOUCHES),
    "'allowed_sessions' does not read by device": ("device", "select min(device_id) from {{ allowed_sessions(7) }}"),
    "'allowed_device_activity' does not read by user": (
        "user", "select user_id, min(occurred_at) from {{ allowed_device_activity() }} group by user_id"),
    "'allowed_device_activity' does not read by organisation": (
        "organisation", "select organisation_id from {{ allowed_device_activity() }} group by all"),
    "'allowed_activity' does not read by session": ("session", "select session_id from {{ allowed_activity() }}"),
    "does not keep members apart by session_id": ("session", "select max(carts) from {{ allowed_sessions(7) }}"),
}  # fmt: skip


@pytest.mark.parametrize("said", CLAIMS)
def test_a_claim_to_follow_that_the_select_belies_is_refused(said: str) -> None:
    entity, sql = CLAIMS[said]
    meta = SegmentMeta.model_validate(META | {"entity": entity, "incremental": True})
    assert any(said in what for what, _, _ in sql_faults(sql, meta)), list(sql_faults(sql, meta))
    whole = SegmentMeta.model_validate(META | {"entity": entity})
    assert not any("incremental" in what for what, _, _ in sql_faults(sql, whole))


def test_a_claim_is_one_of_two_words(project: Path) -> None:
    for value in ("yes", 1, None):
        declare(project, META | {"incremental": value})
        (line,) = faults(project)
        assert "meta key 'incremental'" in line and line.endswith("say true or false, or leave it out (false)")
