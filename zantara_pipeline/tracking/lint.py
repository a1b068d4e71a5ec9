"""`zantara plan lint`: what is wrong with a tracking plan, or missing from it, each with file and line.

Errors: names that analytics tools refuse, documentation that is missing, an example that does not do what it says.
Warnings: names that other tools keep for themselves.

Belongs here: rules about the plan. Does not belong here: whether the YAML can be read at all (plan.py raises), the
verdict on an example (verdict.py, through validate.py).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from zantara_pipeline.contracts_io import LineOf, load_yaml, overlay_files
from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.migrations import unread_types
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan, load_plan
from zantara_pipeline.tracking.validate import FileVerdict, validate_file
from zantara_pipeline.tracking.verdict import Rules

# Google Analytics 4, "Event collection limits" and "Event naming rules" (support.google.com/analytics/answer/13316687):
# the names of web and app streams together.
MAX_NAME = 40
MAX_PROPERTIES = 25
RESERVED_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
RESERVED_EVENTS = frozenset(
    ("ad_activeview", "ad_click", "ad_exposure", "ad_impression", "ad_query", "ad_reward", "adunit_exposure",
     "app_background", "app_clear_data", "app_exception", "app_remove", "app_store_refund",
     "app_store_subscription_cancel", "app_store_subscription_convert", "app_store_subscription_renew",
     "app_update", "app_upgrade", "click", "dynamic_link_app_open", "dynamic_link_app_update",
     "dynamic_link_first_open", "error", "file_download", "first_open", "first_visit", "form_start",
     "form_submit", "in_app_purchase", "notification_dismiss", "notification_foreground", "notification_open",
     "notification_receive", "notification_send", "os_update", "page_view", "screen_view", "scroll",
     "session_start", "session_start_with_rollout", "user_engagement", "video_progress", "video_start",
     "view_complete", "view_search_results",)
)  # fmt: skip
CUSTOM_DIMENSION_CLASHES = frozenset(
    ("cid", "currency", "customer_id", "customerid", "dclid", "gclid", "session_id", "sessionid", "sfmc_id",
     "sid", "srsltid", "uid", "user_id", "userid",)
)  # fmt: skip
_SNAKE_CASE = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
_DOCUMENTED = {
    "description": "what it means",
    "purpose": "why it is collected",
    "consent_category": "the consent it needs; until it is named, all of it is suppressed",
    "owner": "who answers for it",
    "platforms": "where it is sent from",
    "lawful_basis": "the legal ground of GDPR article 6",
    "context": "the entities an event comes with: user, session, device, organisation",
    "retention_days": "days until its rows are removed",
    "qa_steps": "how someone checks that the event is sent rightly",
    "uses": "who or what reads it",
}


@dataclass(frozen=True)
class Finding:
    """One thing that the plan's author should change."""

    level: Literal["error", "warning"]
    file: str
    line: int
    event: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.level}: {self.event}: {self.message}"


def lint(dirs: Sequence[Path], *, threads: int, home: Home | None = None) -> list[Finding]:
    """All findings over the plan in these contract folders, in file and line order.

    With a home, also the types that its lake holds otherwise and that no migration explains.

    A file that cannot be read as a plan at all ends the lint of that plan: its one error is all that is known.
    """
    try:
        plan = load_plan(dirs)
    except InputError as error:
        where, _, line = str(error.where).rpartition(":")
        file, number = (where, int(line)) if line.isdigit() else (str(error.where), 1)
        said = f"{error.what}; {error.todo}" if error.todo else error.what
        return [Finding("error", file, number, Path(file).stem, said)]
    findings: list[Finding] = []
    for path in overlay_files(dirs, "tracking_plan/*.yaml").values():
        _, line_of = load_yaml(path)
        event = plan.events[path.stem]
        report = _reporter(findings, path, line_of, event)
        for rule in (_names, _documentation, _values, _lifecycle):
            rule(event, plan, report)
        _examples(event, plan, report, threads)
    if home is not None:
        findings += _unread_in_the_lake(home, plan, dirs)
    return sorted(findings, key=lambda finding: (finding.file, finding.line, finding.message))


def _unread_in_the_lake(home: Home, plan: TrackingPlan, dirs: Sequence[Path]) -> Iterator[Finding]:
    for unread in unread_types(home, plan):
        file, _, line = str(unread.where(dirs)).rpartition(":")
        yield Finding("error", file, int(line), unread.event, f"{unread.what}; {unread.todo}")


Report = Callable[..., None]


def _reporter(findings: list[Finding], path: Path, line_of: LineOf, event: EventPlan) -> Report:
    def report(message: str, *keys: Any, level: Literal["error", "warning"] = "error") -> None:
        findings.append(Finding(level, str(path), line_of(*keys), event.event, message))

    return report


def _names(event: EventPlan, plan: TrackingPlan, report: Report) -> None:
    for problem in _name_problems(event.event):
        report(f"the event name {problem}", "event")
    if event.event in RESERVED_EVENTS:
        report("GA4 reserves this event name for itself", "event")
    if len(event.properties) > MAX_PROPERTIES:
        report(f"{len(event.properties)} properties; GA4 takes {MAX_PROPERTIES} at most", "properties")
    for name in event.properties:
        for problem in _name_problems(name):
            report(f"the property name '{name}' {problem}", "properties", name, level="warning")
        if name in CUSTOM_DIMENSION_CLASHES:
            clash = f"'{name}' collides with a parameter of GA4 when it is registered as a custom dimension"
            report(clash, "properties", name, level="warning")


def _name_problems(name: str) -> Iterator[str]:
    if not _SNAKE_CASE.match(name):
        yield "is not snake_case (lower case, single underscores between words)"
    if len(name) > MAX_NAME:
        yield f"has {len(name)} characters; {MAX_NAME} at most"
    for prefix in RESERVED_PREFIXES:
        if name.startswith(prefix):
            yield f"starts with '{prefix}', which is reserved"


def _documentation(event: EventPlan, plan: TrackingPlan, report: Report) -> None:
    for key, meaning in _DOCUMENTED.items():
        if not getattr(event, key):
            report(f"'{key}' is missing: {meaning}")
    if not event.examples.valid:
        report("no valid example (examples.valid)", "examples")
    if not event.examples.invalid:
        report("no invalid example with its reason codes (examples.invalid)", "examples")
    if all(value is None for value in event.sla.model_dump().values()):
        report("'sla' is missing: freshness_hours, min_daily, max_drop_pct or max_reject_pct", "sla")
    for name, prop in event.properties.items():
        if prop.description is None:
            report(f"the property '{name}' has no description", "properties", name)
        if prop.retention_days and event.retention_days and prop.retention_days > event.retention_days:
            report(f"'{name}' is kept longer than its event ({event.retention_days} days)", "properties", name)


def _values(event: EventPlan, plan: TrackingPlan, report: Report) -> None:
    """Values that the plan lists and its other rules never let pass."""
    for name, prop in event.properties.items():
        for value in prop.enum or ():
            if prop.pattern is not None and re.fullmatch(prop.pattern, value) is None:
                report(
                    f"the value '{value}' of '{name}' never passes: it does not match '{prop.pattern}'",
                    "properties",
                    name,
                    "enum",
                )
            if prop.max_length is not None and len(value) > prop.max_length:
                report(
                    f"the value '{value}' of '{name}' never passes: max_length is {prop.max_length}",
                    "properties",
                    name,
                    "enum",
                )


def _lifecycle(event: EventPlan, plan: TrackingPlan, report: Report) -> None:
    state = event.lifecycle
    for key in ("supersedes", "replaced_by"):
        other = getattr(state, key)
        if other == event.event:
            report(f"'{key}' names the event itself", "lifecycle", key)
        elif other is not None and other not in plan.events:
            report(f"'{key}' names '{other}', which is no event of the plan", "lifecycle", key)
    if state.status == "deprecated" and state.replaced_by is None:
        report("deprecated, but 'replaced_by' names no successor", "lifecycle", "status", level="warning")
    if state.status in ("planned", "active") and state.replaced_by is not None:
        report(f"replaced by '{state.replaced_by}', but still {state.status}", "lifecycle", "status")


def _examples(event: EventPlan, plan: TrackingPlan, report: Report, threads: int) -> None:
    """Run the examples through the engine that ingest uses; each is one line of a file."""
    cases: list[tuple[tuple[str, int], dict[str, Any], tuple[str, ...]]] = []
    cases += [(("valid", n), example, ()) for n, example in enumerate(event.examples.valid)]
    cases += [(("invalid", n), e.properties, e.reasons) for n, e in enumerate(event.examples.invalid)]
    unquoted = [where for where, example, _ in cases if not _is_json(example)]
    for where in unquoted:
        report(f"example {where[0]}[{where[1]}] holds what no JSON event can; write dates and times in quotes", "examples", *where)  # fmt: skip
    if unquoted or not cases:
        return
    verdict = _judge([example for _, example, _ in cases], event, plan, threads)
    failing = {line["line"]: line["reasons"] for line in verdict.failing_lines}
    for number, (where, _, expected) in enumerate(cases, 1):
        found = sorted(reason["code"] for reason in failing.get(number, ()))
        if found == sorted(expected):
            continue
        said = ", ".join(found) or "passes"
        wanted = ", ".join(sorted(expected)) or "pass"
        report(f"example {where[0]}[{where[1]}] should {'fail with ' if expected else ''}{wanted}; it {'fails with ' if found else ''}{said}",
               "examples", *where)  # fmt: skip


def _is_json(example: dict[str, Any]) -> bool:
    """YAML reads an unquoted 2026-01-01 as a date."""
    try:
        json.dumps(example)
    except TypeError:
        return False
    return True


def _judge(examples: Sequence[dict[str, Any]], event: EventPlan, plan: TrackingPlan, threads: int) -> FileVerdict:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.jsonl"
        file.write_text("".join(json.dumps(_line(n, e, event, plan)) + "\n" for n, e in enumerate(examples)))
        rules = Rules(plan, late_after_hours=24, max_lateness_days=30)
        return validate_file(file, rules, threads=threads, examples=len(examples))


def _line(number: int, properties: dict[str, Any], event: EventPlan, plan: TrackingPlan) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {
        "event_id": f"example-{number}", "event": event.event, "timestamp": now, "received_at": now, "user_id": "example",
        "properties": properties, "consent": dict.fromkeys(plan.purposes, True),
    }  # fmt: skip


def as_dicts(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings for `--json`."""
    return [asdict(finding) for finding in findings]
