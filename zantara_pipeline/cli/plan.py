"""`zantara plan`: the tracking plan as code.

Belongs here: arguments and printing. Does not belong here: rules about plans (tracking/lint.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zantara_pipeline.settings import load_settings

if TYPE_CHECKING:
    from datetime import datetime

    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.plan import TrackingPlan
    from zantara_pipeline.tracking.retention import Overdue


class Output(StrEnum):
    """What can be made from the plan (tracking/codegen)."""

    JSON_SCHEMA = "json-schema"
    DBT = "dbt"
    PAGE = "page"
    PYTHON = "python"
    TYPESCRIPT = "typescript"


app = typer.Typer(help="The tracking plan.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The tracking plan."""


@app.command("lint")
def lint(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Check names, documentation and examples of every event; each finding with file and line. Exit 1 on an error.

    Set ZANTARA_CONTRACTS to lint your own contracts over the packaged ones. Where the home holds events, a type that
    changed without a migration is an error too.

    Example: zantara plan lint --json
    """
    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.tracking.lint import as_dicts
    from zantara_pipeline.tracking.lint import lint as run

    settings = load_settings()
    findings = run(settings.contract_dirs, threads=settings.threads, home=Home(settings.home))
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        print(json.dumps(as_dicts(findings), indent=2))
    else:
        for finding in findings:
            print(finding)
        print(f"{errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(1)


@app.command("import")
def import_plan(
    file: Annotated[Path, typer.Argument(help="JSON: one entry, a list of entries, or a Segment tracking plan.")],
    out: Annotated[Path, typer.Option(help="Contracts folder to write into (its tracking_plan/).", metavar="<folder>")],
) -> None:
    """Make YAML of a plan that was written for another tool; then say what is still missing.

    Example: zantara plan import product_view.json --out our-contracts
    """
    from zantara_pipeline.tracking.lint import lint as run
    from zantara_pipeline.tracking.plan_import import read_foreign_plan, write_events

    settings = load_settings()
    plan = read_foreign_plan(file)
    written = write_events(plan.events, out / "tracking_plan")
    for path, event in zip(written, plan.events, strict=True):
        print(path)
        for note in event.notes:
            print(f"  {note}")
    for note in plan.notes:
        print(f"{file}: {note}")
    findings = run([*settings.contract_dirs, out], threads=settings.threads)
    for finding in [found for found in findings if Path(found.file) in written] or findings:
        print(finding)


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="Contracts folder as it was.")],
    new: Annotated[Path, typer.Argument(help="Contracts folder as it shall be.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what changed, what of it breaks, and what the new plan would reject of the last accepted day.

    A folder with a privacy.yaml is a plan by itself; one without is laid over the packaged plan. Exit 1 when a version
    does not say what its changes are, or when no migration says how older partitions are read after a change of type.

    Example: zantara plan diff contracts-of-main our-contracts
    """
    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.tracking.plan import load_plan_folder
    from zantara_pipeline.tracking.plan_diff import changes, rejected_on_last_day, unread_changes, version_problems

    settings = load_settings()
    before, after = load_plan_folder(old), load_plan_folder(new)
    found = changes(before, after)
    problems, unread = version_problems(before, after, found), unread_changes(before, after)
    rejected = rejected_on_last_day(Home(settings.home), before, after, threads=settings.threads)
    if as_json:
        parts = {
            "changes": [asdict(change) | {"breaking": change.breaking} for change in found],
            "versions": [asdict(problem) for problem in problems],
            "unread": [asdict(change) | {"where": change.where([new])} for change in unread],
            "last_day": [asdict(row) | {"day": row.day.isoformat()} for row in rejected],
        }
        print(json.dumps(parts, indent=2))
    else:
        for change in found:
            print(
                f"{change.event} {change.path}: {change.what} ({'BREAKING, ' if change.breaking else ''}{change.level})"
            )
        for problem in problems:
            print(
                f"{problem.event}: version {problem.new} after {problem.old} is too low; it must be {problem.needs} or more"
            )
        for unknown in unread:
            print(f"{unknown.where([new])}: {unknown.what}; {unknown.todo}")
        for row in rejected:
            if row.rejected:
                print(f"{row.event}: would reject {row.rejected:,} of the {row.rows:,} accepted on {row.day}")
        rows, wrong = sum(row.rows for row in rejected), sum(row.rejected for row in rejected)
        print(f"{len(found)} changes; of the last accepted day's {rows:,} events the new plan would reject {wrong:,}")
    if problems or unread:
        raise typer.Exit(1)


@app.command("codegen")
def codegen(
    output: Annotated[Output, typer.Argument(help="What to make.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.", metavar="<folder>")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which files would change; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every file, and whether it changed, as JSON.")] = False,
) -> None:
    """Make files from the plan: JSON Schema of each event, the dbt files of each event, a page to read, typed clients.

    A file whose text is the same already is not touched.

    Example: zantara plan codegen json-schema --out schemas
    """
    from zantara_pipeline.tracking.codegen import OUTPUTS, write_output
    from zantara_pipeline.tracking.plan import load_plan

    files = OUTPUTS[output.value](load_plan(load_settings().contract_dirs))
    changed = write_output(files, out, dry_run=dry_run)
    if as_json:
        listed = [{"path": str(out / name), "changed": out / name in changed} for name in files]
        print(json.dumps({"output": output.value, "dry_run": dry_run, "files": listed}, indent=2))
        return
    for path in changed:
        print(path)
    print(f"{len(files)} files from the plan; those listed {'would change' if dry_run else 'have changed'}")


@app.command("health")
def health(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Compare every stream with what its owner promised (`sla`), and the plan with what is sent. Exit 1 if any differs.

    Measured on the last whole received day. A run raises an alert for each line that this prints below the streams.

    Example: zantara plan health
    """
    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.clock import latest_received_at
    from zantara_pipeline.tracking.health import broken_promises, moment_of, streams
    from zantara_pipeline.tracking.plan import load_plan

    settings = load_settings()
    home, plan = Home(settings.home).existing().create(), load_plan(settings.contract_dirs)
    ledger = Ledger(home.state / "ledger.db")
    as_of = settings.as_of or latest_received_at(ledger)
    moment = moment_of(home, ledger, as_of) if as_of else None
    if moment is None:
        print("[]" if as_json else "nothing was ever accepted here; run `zantara run` first")
        return
    found = broken_promises(home, plan, moment)
    if as_json:
        print(json.dumps([asdict(broken) for broken in found], indent=2))
    else:
        for stream in streams(home, plan, moment.day):
            usual = "" if stream.usual is None else f", usually {stream.usual:,.0f}"
            print(
                f"{stream.event} on {stream.day}: {stream.accepted:,} accepted{usual}; {stream.reject_pct:.1f} % rejected"
            )
        if not moment.live:
            print("this home holds history only: freshness, volume and absence are not judged")
        for broken in found:
            print(f"{broken.problem}: {broken.event}: {broken.said}")
    if found:
        raise typer.Exit(1)


_NOUNS = {"quarantine": "lines", "segment_history": "memberships that ended", "models": "versions that no longer serve"}


def _history_and_models(home: Home, ledger: Ledger, plan: TrackingPlan, as_of: datetime) -> list[Overdue]:
    """What of segment history and of the recommender's versions is over its time."""
    from zantara_pipeline.recommend import models_over
    from zantara_pipeline.segments.history_retention import history_over
    from zantara_pipeline.tracking.retention import Overdue

    history, models = plan.privacy.retention.segment_history, plan.privacy.retention.models
    found = [
        Overdue("segment_history", o.segment, history.enforce, o.memberships, 0, o.first_day, o.last_day, {})
        for o in history_over(ledger, history.days, as_of)
    ]
    if trained := [moment.date() for moment in models_over(home.mlflow, models.days, as_of)]:
        found.append(Overdue("models", None, models.enforce, len(trained), 0, min(trained), max(trained), {}))
    return found


@app.command("retention")
def retention(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """What is older than the plan's retention_days (or privacy.yaml's) and still there, and whether the next run removes it. Writes nothing.

    The clock is ZANTARA_AS_OF, else the latest received_at. privacy.yaml says what is enforced (`retention`).

    Example: zantara plan retention
    """
    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.clock import latest_received_at
    from zantara_pipeline.tracking.plan import load_plan
    from zantara_pipeline.tracking.retention import overdue

    settings = load_settings()
    home, plan = Home(settings.home).existing().create(), load_plan(settings.contract_dirs)
    ledger = Ledger(home.state / "ledger.db")
    as_of = settings.as_of or latest_received_at(ledger)
    found = [] if as_of is None else overdue(home, ledger, plan, as_of, settings.landing or home.landing / "events")
    if as_of is not None:
        found += _history_and_models(home, ledger, plan, as_of)
    if as_json:
        print(json.dumps([asdict(part) for part in found], indent=2, default=str))
        return
    for part in found:
        what = (
            f"{part.rows:,} {_NOUNS[part.store]}"
            if part.store in _NOUNS
            else f"{part.rows:,} rows of {part.days:,} days"
        )
        values = "".join(f", values of {name} in {days:,} days" for name, days in part.properties.items())
        fate = "the next run removes them" if part.enforced else "kept: not enforced"
        print(f"{part.store}{f' {part.event}' if part.event else ''}: {what}{values} ({fate})")
    print(f"as of {as_of:%Y-%m-%d %H:%M} UTC" if as_of else "nothing was ever accepted here")
