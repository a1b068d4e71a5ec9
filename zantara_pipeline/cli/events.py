"""`zantara events`: judging event files without a warehouse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zantara_pipeline.settings import load_settings

app = typer.Typer(help="Event files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Event files."""


@app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .jsonl.gz file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    lines: Annotated[int, typer.Option(help="How many failing lines to name.")] = 20,
) -> None:
    """Judge a file as ingest would: accepted, quarantined with reasons, suppressed, unparsable. Nothing is stored.

    Consent is read from the events alone (a file has no ledger). Exit 1 when a line is unparsable or quarantined.

    Example: zantara events validate exports/2026-03-01.jsonl.gz --json
    """
    from zantara_pipeline.tracking.plan import load_plan
    from zantara_pipeline.tracking.validate import validate_file
    from zantara_pipeline.tracking.verdict import Rules

    settings = load_settings()
    rules = Rules(load_plan(settings.contract_dirs), settings.late_after_hours, settings.max_lateness_days)
    verdict = validate_file(file, rules, threads=settings.threads, examples=lines)
    if as_json:
        print(json.dumps(verdict.as_dict(), indent=2))
    else:
        _show(verdict.as_dict(), file)
    if verdict.counts.quarantined or verdict.counts.unparsable:
        raise typer.Exit(1)


def _show(verdict: dict[str, Any], file: Path) -> None:
    console = Console()
    counts = ", ".join(
        f"{verdict[name]:,} {name.replace('_', ' ')}"
        for name in ("rows_in", "accepted", "quarantined", "suppressed", "unparsable")
    )
    console.print(f"{file}: {counts}", highlight=False, soft_wrap=True)
    if verdict["reasons"]:
        table = Table("event", "code", "path", "expected", "rows", box=None)
        for reason in verdict["reasons"]:
            table.add_row(
                reason["event"] or "-", reason["code"], reason["path"], reason["expected"], f"{reason['rows']:,}"
            )
        console.print(table)
    for line in verdict["failing_lines"]:
        said = "; ".join(
            f"{r['code']} {r['path']} (expected {r['expected']}, is {r['actual_type']})" for r in line["reasons"]
        )
        console.print(f"  line {line['line']}: {said}", highlight=False, soft_wrap=True, markup=False)
