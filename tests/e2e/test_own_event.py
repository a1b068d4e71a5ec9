"""A whole run with an event that only the shop's own contracts declare: one file, as the how-to says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from event_lines import event, text
from pipeline_homes import published, reading, zantara

from zantara_pipeline.contracts_io import PACKAGED

pytestmark = pytest.mark.e2e


def test_an_event_of_an_overlay_is_kept_and_the_run_is_green(tmp_path: Path, new_home: Path) -> None:
    home, contracts = new_home, tmp_path / "contracts" / "tracking_plan"
    contracts.mkdir(parents=True)
    declared = yaml.safe_load((PACKAGED / "tracking_plan" / "rating.yaml").read_text()) | {"event": "wishlist_added"}
    (contracts / "wishlist_added.yaml").write_text(yaml.safe_dump(declared))
    landing = home / "data" / "landing" / "events"
    landing.mkdir(parents=True)
    own = event("wishlist_added", {"product_id": "p-1", "rating": 4}, event_id="e-2")
    (landing / "a.jsonl").write_bytes(text([event(), own]))
    for _ in range(2):  # a second run builds nothing anew
        assert zantara(home, "run", env={"ZANTARA_CONTRACTS": str(contracts.parent)}).code == 0
    with reading(published(home)) as con:
        assert con.execute("SELECT accepted, quarantined FROM ops.ingested_files").fetchall() == [(2, 0)]
    assert len(list((home / "data" / "lake" / "accepted" / "event=wishlist_added").rglob("*.parquet"))) == 1
