"""The contract: readable errors, overlay."""

from __future__ import annotations

import pytest

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.recommend import load_config

TEXT = (PACKAGED / "recommendation.yaml").read_text(encoding="utf-8")


def test_the_packaged_contract_is_valid_and_an_overlay_replaces_it(tmp_path):
    (tmp_path / "recommendation.yaml").write_text(TEXT.replace("length: 20", "length: 7"), encoding="utf-8")
    assert load_config().lists.length == 20
    assert load_config((PACKAGED, tmp_path)).lists.length == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  components: 32", "  component: 32", "component"),
        ("half_life_days: 14", "half_life_days: 0", "popularity.half_life_days"),
        ("  cutoff: 10\n", "  cutoff: 7\n", "gate.cutoff 7 is not one of evaluation.cutoffs"),
        ("exclude_seen: [product_view", "exclude_seen: [prodct_view", "exclude_seen"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path, old, new, message):
    assert old in TEXT
    path = tmp_path / "recommendation.yaml"
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_config(path)
    assert message in str(error.value) and "recommendation.yaml:" in str(error.value)
    assert "\n" not in str(error.value)
