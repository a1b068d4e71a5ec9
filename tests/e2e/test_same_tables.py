"""The same input gives the same tables, whichever way a home came to it: again, rebuilt, moved, or in three steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from pipeline_homes import (
    alert_facts,
    assert_same_home,
    assert_same_tables,
    copy_home,
    land,
    model_versions,
    published,
    table_hashes,
    unfinished_training_runs,
    warehouse,
    zantara,
)

from zantara_pipeline.contracts_io import PACKAGED

pytestmark = pytest.mark.e2e


def test_a_lost_warehouse_is_restored(small_home: Path, tmp_path: Path, alerting: dict[str, str]) -> None:
    home = copy_home(small_home, tmp_path / "home")
    warehouse(home).unlink()
    published(home).unlink()
    zantara(home, "run", env=alerting)
    assert_same_home(small_home, home)
    assert model_versions(home) == model_versions(small_home)
    shutil.rmtree(home)


def test_a_copied_home_works_at_its_new_place(small_home: Path, tmp_path: Path, alerting: dict[str, str]) -> None:
    """The first place is gone when the copy runs, so that no absolute path can help."""
    first, second = copy_home(small_home, tmp_path / "first"), tmp_path / "else" / "where"
    zantara(first, "run", env=alerting)
    report = (first / "data" / "reports" / "index.html").read_bytes()
    second.parent.mkdir()
    copy_home(first, second)
    shutil.rmtree(first)

    from zantara_pipeline.recommend import load_champion

    champion = load_champion(second / "mlflow")
    assert champion is not None and champion.served_model in ("stack", "popularity")
    zantara(second, "run", env=alerting)
    assert_same_home(small_home, second)
    assert model_versions(second) == model_versions(small_home) == 1
    assert (second / "data" / "reports" / "index.html").read_bytes() == report
    shutil.rmtree(second)


# History is what happened when: in three runs people came and went, and alerts were raised, at three clocks. (A segment
# whose size lies in the margin above its min_size would be shown or not by its history, too; none does in this shop.)
TELLS_WHEN = ("segments.membership_history", "expiring.membership_history", "ops.alerts", "ops.withdrawals")


def test_three_steps_equal_one(small_home: Path, three_steps: Path) -> None:
    """Days 1 to 30, 31 to 50, the rest and one held-back file of day 20: late events and duplicates cross every cut."""
    assert_same_home(small_home, three_steps, besides=TELLS_WHEN)
    jumps = [fact for fact in alert_facts(three_steps) if fact[0] == "segment_size"]  # of which one run knows nothing
    assert sorted([*alert_facts(small_home), *jumps]) == alert_facts(three_steps) != jumps


def test_three_steps_know_the_same_members_now(small_home: Path, three_steps: Path) -> None:
    import duckdb

    current = (
        "SELECT segment, entity_type, entity_id FROM segments.membership_history WHERE exited_at IS NULL ORDER BY ALL"
    )
    found = []
    for home in (small_home, three_steps):
        with duckdb.connect(str(published(home)), read_only=True) as con:
            found.append(con.execute(current).fetchall())
    assert found[0] == found[1] != []


def test_a_day_without_files_changes_nothing(three_steps: Path, tmp_path: Path, alerting: dict[str, str]) -> None:
    home = copy_home(three_steps, tmp_path / "home")
    done = zantara(home, "run", env=alerting)
    assert_same_tables(published(three_steps), published(home))
    assert_same_tables(warehouse(three_steps), warehouse(home))
    assert model_versions(home) == model_versions(three_steps)
    assert unfinished_training_runs(home) == 0
    assert done.err == ""
    shutil.rmtree(home)


def test_broken_mended_and_replayed_equals_never_broken(
    small_home: Path, small_shop: Path, new_home: Path, tmp_path: Path, alerting: dict[str, str]
) -> None:
    """A plan that refuses carts and timings; the run goes on without them; the plan is mended, replayed, run again."""
    overlay = tmp_path / "contracts" / "tracking_plan"
    overlay.mkdir(parents=True)
    for event, name, change in (("add_to_cart", "price", {"max": 0.01}), ("page_timing", "load_ms", {"max": 1})):
        entry = yaml.safe_load((PACKAGED / "tracking_plan" / f"{event}.yaml").read_text())
        entry["properties"][name] |= change
        (overlay / f"{event}.yaml").write_text(yaml.safe_dump(entry, sort_keys=False))
    home = new_home
    land(home, small_shop)
    zantara(home, "run", env=alerting | {"ZANTARA_CONTRACTS": str(overlay.parent)})
    replayed = json.loads(zantara(home, "quarantine", "replay", "--json", env=alerting).out)
    assert replayed["accepted"] > 1000 and replayed["written"]
    zantara(home, "run", env=alerting)
    assert_same_home(small_home, home, besides=TELLS_WHEN)
    before = table_hashes(published(home))
    again = json.loads(zantara(home, "quarantine", "replay", "--json", env=alerting).out)
    assert (again["accepted"], again["written"]) == (0, False)
    zantara(home, "run", env=alerting)
    assert table_hashes(published(home)) == before
    shutil.rmtree(home)
