"""Adapters: events of other tools become lines of our envelope, one line a record, before anything is judged.

Belongs here: one small module a format (segment, snowplow, ga4, csv_rows), what they share (contract, draft, times), finding
out which format a file has (detect), and streaming a file through one (stream). Does not belong here: judging events.
"""

from __future__ import annotations

from zantara_pipeline.tracking.adapters.contract import AdaptersContract, load_adapters
from zantara_pipeline.tracking.adapters.convert import adapt_file, default_out
from zantara_pipeline.tracking.adapters.detect import Intake, NotEvents, load_intake
from zantara_pipeline.tracking.adapters.stream import Adaptation, Report, total_report

__all__ = [
    "Adaptation",
    "AdaptersContract",
    "Intake",
    "NotEvents",
    "Report",
    "adapt_file",
    "default_out",
    "load_adapters",
    "load_intake",
    "total_report",
]
