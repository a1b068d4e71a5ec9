"""The summary says what the tables say, and says nothing where they are empty."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.report import summary, words

Change = Callable[[str], None]


def test_totals_equal_the_table(shop: Path) -> None:
    run = summary(shop)
    with duckdb.connect(str(shop), read_only=True) as con:
        expected = con.execute(
            "SELECT sum(rows_in), sum(accepted), sum(quarantined), sum(suppressed), sum(unparsable), sum(duplicates), "
            "count(*) FROM ops.ingested_files"
        ).fetchone()
    assert expected == (
        run.events_in, run.accepted, run.quarantined, run.suppressed, run.unparsable, run.duplicates, run.files
    )  # fmt: skip
    assert run.events_in == run.accepted + run.quarantined + run.suppressed + run.unparsable
    assert run.quarantined_by_code == {
        "wrong_type": 2875, "missing_key": 1402, "unknown_event": 1218, "above_maximum": 651
    }  # fmt: skip


def test_as_of_is_the_published_clock_and_files_are_only_its_stand_in(shop: Path, change: Change) -> None:
    change("UPDATE ops.ingested_files SET max_received_at = TIMESTAMPTZ '2026-09-09 00:00:00+00'")
    assert summary(shop).as_of == datetime.fromisoformat("2026-03-01T23:59:40+00:00")
    change("DELETE FROM segments.catalog")
    change("DELETE FROM experiments.scorecard")
    change("DELETE FROM recommendations.user_recommendations")
    assert summary(shop).as_of == datetime.fromisoformat("2026-09-09T00:00:00+00:00")


def test_days_are_utc_days_whatever_the_zone_of_this_machine(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    days = [day.day.isoformat() for day in summary(shop).days if day.day]
    assert (days[0], days[-1], len(days)) == ("2026-02-02", "2026-03-01", 28)


def test_model_and_popularity_of_the_bundle_that_serves(shop: Path) -> None:
    run = summary(shop)
    assert {model: row.value for model, row in run.ndcg_at_10.items()} == {"lightfm": 0.0812, "popularity": 0.0590}
    assert run.slice == "all"
    assert [(row.served_by, row.users) for row in run.served_by] == [("lightfm", 310), ("popularity", 190)]
    assert run.users_with_recommendations == 500


def test_only_the_latest_scorecard_of_an_experiment_counts(shop: Path, change: Change) -> None:
    change(
        "INSERT INTO experiments.scorecard SELECT * REPLACE (as_of - INTERVAL 1 DAY AS as_of, 'harm' AS verdict) "
        "FROM experiments.scorecard"
    )
    run = summary(shop)
    assert run.experiments == ("checkout_button", "heavy_images", "new_search")
    verdicts = {role: [row.verdict for row in rows] for role, rows in run.scorecard("checkout_button").items()}
    assert verdicts == {
        "srm": ["ok"], "primary": ["better"], "secondary": ["inconclusive"], "guardrail": ["safe", "safe"]
    }  # fmt: skip


def test_nan_is_no_number(shop: Path, change: Change) -> None:
    change("UPDATE recommendations.offline_metrics SET value = 'nan', ci_low = 'nan' WHERE model = 'lightfm'")
    assert summary(shop).ndcg_at_10["lightfm"].value is None


def test_empty_and_missing_tables_are_empty_not_errors(empty_shop: Path, bare_shop: Path) -> None:
    for path in (empty_shop, bare_shop):
        run = summary(path)
        assert (run.as_of, run.events_in, run.experiments, run.segments, run.ndcg_at_10) == (None, 0, (), (), {})


def test_no_published_file_and_a_broken_one_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make run"):
        summary(tmp_path / "published.duckdb")
    broken = tmp_path / "broken.duckdb"
    broken.write_bytes(b"not a database" * 1000)
    with pytest.raises(InputError, match=r"broken\.duckdb: cannot be read"):
        summary(broken)


def test_the_paired_difference_is_told_when_it_was_measured(shop: Path, change: Change) -> None:
    assert (words.comparison(summary(shop)) or "").endswith("their intervals do not overlap.")
    change(
        "INSERT INTO recommendations.offline_metrics "
        "SELECT * REPLACE ('ndcg_diff' AS metric, 0.0222 AS value, 0.018 AS ci_low, 0.026 AS ci_high) "
        "FROM recommendations.offline_metrics WHERE bundle_version = 'v3' AND model = 'lightfm' AND metric = 'ndcg'"
    )
    assert words.comparison(summary(shop)) == (
        "lightfm has +37.6 % NDCG@10 against popularity (difference +0.0222 [+0.0180, +0.0260], paired by user)."
    )
