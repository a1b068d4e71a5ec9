"""What a run tells: the summary in the terminal and the HTML report, both from the published tables only; and the page of
column lineage (lineage_page.py), from the SQL of the models.

Belongs here: reading `published.duckdb`, wording, tables, plots. Does not belong here: computing anything that other
packages publish; a number that is missing here is missing in the published tables.
"""

from zantara_pipeline.report.page import build_report
from zantara_pipeline.report.summary import RunSummary, summary
from zantara_pipeline.report.terminal import render_terminal

__all__ = ["RunSummary", "build_report", "render_terminal", "summary"]
