"""alerts.yaml: the packaged file loads, and every typo is named with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from zantara_pipeline.alerts import KINDS, load_alerts_config
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError


def test_packaged_file_loads_and_its_comment_lists_every_kind() -> None:
    config = load_alerts_config()
    assert {sink.kind for sink in config.sinks.values()} == {"log", "file"}
    text = (PACKAGED / "alerts.yaml").read_text()
    assert all(kind in text for kind in KINDS)


GOOD = (PACKAGED / "alerts.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "line_with", "said"),
    [
        (
            "    kind: file",
            "    kind: webhok",
            "kind: webhok",
            "key 'sinks.outbox.kind': 'webhok' is none of 'log', 'file',",
        ),
        ("    kind: file", "    kind: webhok", "kind: webhok", "did you mean 'webhook'?"),
        ("    kind: file\n", "", "outbox:", "key 'sinks.outbox.kind': Field required; add it"),
        ("    kind: file", "    kind: webhook", "outbox:", "key 'sinks.outbox.url_from': Field required; add it"),
        ("    kind: file", "    kind: slack\n    url_from: https://x", "url_from", "'SLACK_URL'"),
        ("    kind: file", "    kind: file\n    min_severty: info", "min_severty", "did you mean 'min_severity'"),
        ("retry_claim_after_minutes: 10", "retry_claim_after_minutes: 0", "minutes: 0", "greater than 0"),
        ("kinds: {}", "kinds: {smr: info}", "kinds: {smr", "unknown alert kind 'smr'"),
        ("kinds: {}", "kinds: {cuped_absent: loud}", "kinds: {cuped", "'warning'"),
        ("    kind: log", "    kind: file", "sinks:", "only one sink of kind 'file'"),
    ],
)
def test_typos_are_named_with_file_line_and_key(tmp_path: Path, old: str, new: str, line_with: str, said: str) -> None:
    path = tmp_path / "alerts.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_alerts_config(path)
    message = str(caught.value)
    lines = [n for n, line in enumerate(path.read_text().splitlines(), 1) if line_with in line and line[0] != "#"]
    assert any(f"alerts.yaml:{n}" in message for n in lines), message
    assert said in message


def test_a_misspelt_required_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(GOOD.replace("retry_claim_after_minutes: 10", "retry_claims_after_minutes: 10"))
    with pytest.raises(InputError, match=r"alerts\.yaml:\d+: key 'retry_claims?_after_minutes'"):
        load_alerts_config(path)
