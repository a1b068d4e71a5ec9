"""What the tests of the adapters share: the fixtures, adapting lines in memory, and a contract of one's own.

Belongs here: reading fixtures and running an adaptation. Does not belong here: what is asserted about them.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from event_lines import PLAN

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.settings import EventFormat
from zantara_pipeline.tracking.adapters import Adaptation, AdaptersContract, Intake, Report, load_adapters

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "adapters"
FILES: dict[str, str] = {
    "segment.jsonl": "segment",
    "snowplow.tsv": "snowplow",
    "snowplow.jsonl": "snowplow",
    "ga4.jsonl": "ga4",
    "events.csv": "csv",
}
CONTRACT = load_adapters((PACKAGED,), PLAN.privacy)


def declared(format: str, **changes: Any) -> AdaptersContract:
    """The packaged contract with keys of one format replaced."""
    whole = CONTRACT.model_dump()
    whole[format] |= changes
    return AdaptersContract.model_validate(whole)


def intake(given: EventFormat = "auto", contract: AdaptersContract = CONTRACT) -> Intake:
    return Intake(given, contract, PLAN)


def adapt_bytes(format: str, content: bytes, contract: AdaptersContract = CONTRACT) -> tuple[list[bytes], Report]:
    """Lines out, one a record, and the report."""
    adaptation = Adaptation(format, contract, PLAN)
    return list(adaptation.lines(io.BytesIO(content))), adaptation.report


def adapt(format: str, *records: Any, contract: AdaptersContract = CONTRACT) -> list[dict[str, Any]]:
    """Envelopes of records (objects, or lines of text)."""
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    lines, report = adapt_bytes(format, "".join(f"{text}\n" for text in texts).encode(), contract)
    assert report.unreadable == 0
    return [json.loads(line) for line in lines]


def unmapped(format: str, *records: Any, contract: AdaptersContract = CONTRACT) -> dict[str, int]:
    content = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    return adapt_bytes(format, content, contract)[1].unmapped


def fixture(name: str) -> list[dict[str, Any]]:
    """Envelopes of a fixture; a line that stayed as it came is left out."""
    lines, _ = adapt_bytes(FILES[name], (FIXTURES / name).read_bytes())
    return [json.loads(line) for line in lines if line.startswith(b"{")]
