"""`zantara events adapt` and `--format` as people meet them: their own process, exit codes, one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pipeline_homes import zantara

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "adapters"
SEGMENT = FIXTURES / "segment.jsonl"


def test_a_file_is_adapted_and_the_report_names_what_was_left_behind(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = zantara(tmp_path / "home", "events", "adapt", SEGMENT, "--out", out)
    first, second, *fields = done.out.splitlines()
    assert first == f"{SEGMENT} (segment): 4 records, 4 adapted; wrote {out}"
    assert second == "fields without a place in the envelope:"
    assert fields[0].split() == ["2", "context.ip"]
    assert "joe" not in done.out + done.err
    assert len(out.read_text().splitlines()) == 4
    assert not (tmp_path / "home").exists()


def test_machines_get_the_report_as_json_and_can_judge_the_output(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    told = json.loads(zantara(tmp_path, "events", "adapt", FIXTURES / "events.csv", "--out", out, "--json").out)
    assert told == {
        "file": str(FIXTURES / "events.csv"), "out": str(out), "format": "csv", "records": 5, "adapted": 4, "unreadable": 1,
        "strange": 0, "first_strange": None, "unmapped": {"e_mail": 3, "note": 1},
    }  # fmt: skip
    verdict = json.loads(zantara(tmp_path, "events", "validate", out, "--json", code=1).out)
    assert (verdict["format"], verdict["rows_in"], verdict["accepted"]) == ("envelope", 5, 2)


def test_validate_adapts_by_itself_and_says_so(tmp_path: Path) -> None:
    done = zantara(tmp_path, "events", "validate", FIXTURES / "ga4.jsonl")
    assert "3 rows in, 2 accepted, 0 quarantined, 1 suppressed, 0 unparsable" in done.out
    assert "adapted from ga4" in done.out and "user_properties" in done.out


@pytest.mark.parametrize("verb", ["validate", "adapt"])
def test_a_wrong_format_is_one_line(tmp_path: Path, verb: str) -> None:
    expected = (
        f"zantara: {SEGMENT}: its first lines look like Segment or RudderStack JSON, not like Snowplow enriched events; "
        "give --format segment, or auto"
    )
    assert zantara(tmp_path, "events", verb, SEGMENT, "--format", "snowplow", code=2).only_line == expected
    setting = {"ZANTARA_FORMAT": "snowplow"}
    assert zantara(tmp_path, "events", verb, SEGMENT, env=setting, code=2).only_line == expected


def test_an_unknown_format_names_those_that_there_are(tmp_path: Path) -> None:
    said = zantara(tmp_path, "run", "--events", SEGMENT, "--format", "mixpanel", code=2).only_line
    assert all(name in said for name in ("auto", "envelope", "segment", "snowplow", "ga4", "csv"))
    setting = zantara(tmp_path, "run", env={"ZANTARA_FORMAT": "mixpanel"}, code=2).only_line
    assert setting.startswith("zantara: setting ZANTARA_FORMAT: ")


def test_a_contract_with_an_unknown_key_stops_a_run_before_anything_is_taken(tmp_path: Path) -> None:
    contracts = tmp_path / "contracts"
    contracts.mkdir()
    (contracts / "adapters.yaml").write_text("mixpanel: {}\n")
    env = {"ZANTARA_CONTRACTS": str(contracts)}
    said = zantara(tmp_path / "home", "run", "--events", SEGMENT, env=env, code=2).only_line
    assert said.startswith(f"zantara: {contracts}/adapters.yaml:1: key 'mixpanel': unknown key")
