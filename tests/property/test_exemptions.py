"""Who is exempt from consent: however lines are cut into batches and files, whoever denied under any id is not."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from event_lines import PLAN, RULES, Shop, event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zantara_pipeline.tracking import ingest as ingest_module
from zantara_pipeline.tracking import reader, verdict
from zantara_pipeline.tracking.plan import Exemption, TrackingPlan

RULE = Exemption(event="page_timing", countries=("FR",), legal_reference="a guideline")
EXEMPTING = replace(RULES, plan=TrackingPlan(PLAN.events, PLAN.privacy.model_copy(update={"exemptions": (RULE,)})))
IDS = ("user_id", "anonymous_id", "device_id")
Person = tuple[str | None, ...]

people = st.tuples(*(st.sampled_from([None, None, f"{name}-1", f"{name}-2", f"{name}-3"]) for name in IDS))
said = st.sampled_from(["nothing", "nothing", "nothing", "yes", "no"])


def line(number: int, person: Person, word: str, plain: bool) -> dict[str, Any]:
    consent = {"yes": {"analytics": True}, "no": {"analytics": False}}.get(word)
    ids = dict(zip(IDS, person, strict=True))
    timing = {"page": "/" if plain else '/"', "load_ms": 1.5}  # an escape: the engine reads the line
    return event("page_timing", timing, event_id=f"e-{number}", context={"country": "FR"}, consent=consent, **ids)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(people, said, st.booleans()), min_size=2, max_size=12),
    st.integers(1, 3),
    st.integers(200, 2000),
    st.booleans(),
    st.booleans(),
)
def test_whoever_denied_anywhere_before_or_beside_is_not_exempt(
    found: list[tuple[Person, str, bool]], files: int, chunk: int, one_commit: bool, large: bool
) -> None:
    denied = {(n, one) for person, word, _ in found if word == "no" for n, one in enumerate(person) if one}
    unasked = [k for k, (_, word, _) in enumerate(found) if word == "nothing"]
    exempt = [k for k in unasked if not denied & set(enumerate(found[k][0]))]
    granted = sum(word == "yes" for _, word, _ in found)
    lines = [line(number, *one) for number, one in enumerate(found)]
    if not one_commit:  # what was taken cannot be taken back: denials land first
        lines = sorted(lines, key=lambda one: one["consent"] != {"analytics": False})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CHUNK_BYTES", chunk)
        patch.setattr(ingest_module, "BATCH_BYTES", 1)
        if large:
            patch.setattr(ingest_module, "LARGE_COMMIT", 0)
            patch.setattr(verdict, "FEW", 2.0)
        if not one_commit:
            patch.setattr(ingest_module, "COMMIT_BYTES", 1)
        shop = Shop(Path(folder), EXEMPTING)
        cut = -(-len(lines) // files)
        for number in range(files):
            shop.land(f"{number}.jsonl", lines[number * cut : (number + 1) * cut])
        shop.ingest()
        counts = shop.query("SELECT sum(rows_in), sum(accepted), sum(exempt), sum(suppressed) FROM ingested_files")
    assert counts == [(len(lines), granted + len(exempt), len(exempt), len(lines) - granted - len(exempt))]
