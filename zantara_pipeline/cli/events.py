"""`zantara events`: judging event files, and adapting those of other tools, without a warehouse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from zantara_pipeline.settings import EventFormat, load_settings

_FORMAT_HELP = "Format of the file; default: ZANTARA_FORMAT, else found by its first lines."

app = typer.Typer(help="Event files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Event files."""


@app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(help="A .jsonl, .csv or .tsv file, also .gz.")],
    format: Annotated[EventFormat | None, typer.Option(help=_FORMAT_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    lines: Annotated[int, typer.Option(min=0, help="How many failing lines to name.")] = 20,
) -> None:
    """Judge a file as ingest would: accepted, quarantined with reasons, suppressed, unparsable. Nothing is stored.

    Consent is read from the events alone (a file has no ledger). Exit 1 when a line is unparsable or quarantined; a file
    without lines has none.

    Example: zantara events validate exports/2026-03-01.jsonl.gz --json
    """
    from zantara_pipeline.tracking.adapters import load_intake
    from zantara_pipeline.tracking.plan import load_plan
    from zantara_pipeline.tracking.validate import validate_file
    from zantara_pipeline.tracking.verdict import Rules

    settings = load_settings(format=format)
    rules = Rules(load_plan(settings.contract_dirs), settings.late_after_hours, settings.max_lateness_days)
    intake = load_intake(settings.format, settings.contract_dirs, rules.plan)
    verdict = validate_file(file, rules, threads=settings.threads, examples=lines, intake=intake)
    if as_json:
        print(json.dumps(verdict.as_dict(), indent=2))
    else:
        _show(verdict.as_dict(), file)
    if verdict.counts.quarantined or verdict.counts.unparsable:
        raise typer.Exit(1)


@app.command("adapt")
def adapt(
    file: Annotated[Path, typer.Argument(help="Segment, RudderStack, Snowplow or GA4 lines, or a CSV; also .gz.")],
    format: Annotated[EventFormat | None, typer.Option(help=_FORMAT_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="Default: <name>.envelope.jsonl in the working folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a file of another tool as lines of our envelope, and say which of its fields have no place there.

    One line a record; a record that cannot be read stays as it came. Runs and `validate` adapt such files by themselves.

    Example: zantara events adapt segment-2026-03-01.json.gz --format segment --out events.jsonl
    """
    from zantara_pipeline.tracking.adapters import adapt_file, default_out, load_intake
    from zantara_pipeline.tracking.plan import load_plan

    settings = load_settings(format=format)
    intake = load_intake(settings.format, settings.contract_dirs, load_plan(settings.contract_dirs))
    target = out or default_out(file)
    report = adapt_file(file, target, intake)
    if as_json:
        print(json.dumps({"file": str(file), "out": str(target), **dataclasses.asdict(report)}, indent=2))
        return
    unreadable = f", {report.unreadable:,} unreadable and passed through as they came" if report.unreadable else ""
    strange = f", {report.strange_words()}" if report.strange else ""
    adapted = f"{report.records:,} records, {report.adapted:,} adapted{strange}{unreadable}"
    print(f"{file} ({report.format}): {adapted}; wrote {target}")
    _show_unmapped(report.unmapped)


def _show_unmapped(unmapped: dict[str, int]) -> None:
    if unmapped:
        print("fields without a place in the envelope:")
    for name, count in unmapped.items():
        print(f"  {count:>9,}  {name}")


def _of_suppressed(verdict: dict[str, Any]) -> str:
    unreadable = verdict["consent_unreadable"]
    beside = f"; of {unreadable:,} the consent cannot be read" if unreadable else ""
    return f"suppressed lines do not grant (`consent`) the purpose that their event needs{beside}"


def _show_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as what is in them: a path that is cut off helps nobody."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(verdict: dict[str, Any], file: Path) -> None:
    if verdict["rows_in"] == 0:
        print(f"{file}: it holds no line")
        return
    counts = ", ".join(
        f"{verdict[name]:,} {name.replace('_', ' ')}"
        for name in ("rows_in", "accepted", "quarantined", "suppressed", "unparsable")
    )
    print(f"{file}: {counts}")
    if verdict["suppressed"]:
        print(_of_suppressed(verdict))
    if verdict["reasons"]:
        _show_table(
            ("event", "code", "path", "expected", "rows"),
            [
                (reason["event"] or "-", reason["code"], reason["path"], reason["expected"], f"{reason['rows']:,}")
                for reason in verdict["reasons"]
            ],
        )
    for line in verdict["failing_lines"]:
        said = "; ".join(
            f"{r['code']} {r['path']} (expected {r['expected']}, is {r['actual_type']})" for r in line["reasons"]
        )
        print(f"  line {line['line']}: {said}")
    for notice in verdict["notices"]:
        print(notice)
    if verdict["format"] != "envelope":
        print(f"adapted from {verdict['format']}")
    _show_unmapped(verdict["unmapped"])
