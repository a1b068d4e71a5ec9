"""The plan as one Markdown page that people read: every event with its owner, its promises and its properties.

Belongs here: that page. Does not belong here: dbt's own documentation of tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from zantara_pipeline.tracking.plan import EventPlan, Property, TrackingPlan, exact


def plan_page_files(plan: TrackingPlan) -> dict[str, str]:
    """tracking-plan.md."""
    lines = [
        "# Tracking plan",
        "",
        "| event | what it means | consent | owner | version | status |",
        "|---|---|---|---|---|---|",
    ]
    for event in plan.events.values():
        cells = (
            f"[{event.event}](#{event.event})",
            event.description,
            event.consent_category,
            event.owner,
            event.version,
            event.lifecycle.status,
        )
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines += ["", "## Purposes people consent to", ""]
    lines += [f"- **{name}**: {purpose.description}" for name, purpose in sorted(plan.privacy.purposes.items())]
    for event in plan.events.values():
        lines += ["", *_event(event)]
    return {"tracking-plan.md": "\n".join(lines) + "\n"}


def _event(event: EventPlan) -> Iterator[str]:
    yield f"## {event.event}"
    yield ""
    yield event.description or "No description yet."
    yield ""
    facts = {
        "Why": event.purpose,
        "Consent": event.consent_category or "none named: all of it is suppressed",
        "Lawful basis": event.lawful_basis,
        "Owner": event.owner,
        "Sent from": ", ".join(event.platforms),
        "Comes with": ", ".join(event.context),
        "Kept": f"{event.retention_days} days" if event.retention_days else None,
        "Promised": ", ".join(
            f"{key} {exact(value)}" for key, value in event.sla.model_dump(exclude_none=True).items()
        ),
        "Supersedes": event.lifecycle.supersedes,
        "Replaced by": event.lifecycle.replaced_by,
        "Read by": ", ".join(event.uses),
    }
    yield from (f"- {name}: {value}" for name, value in facts.items() if value)
    if event.properties:
        yield from (
            "",
            "| property | type | must be there | may be null | rules | personal | what it means |",
            "|---|---|---|---|---|---|---|",
        )
        for name, prop in event.properties.items():
            answers = ("yes" if answer else "no" for answer in (prop.required, prop.allows_null))
            cells = (f"`{name}`", prop.type, *answers, _rules(prop), prop.pii, prop.description)
            yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
    if event.migrations:
        yield from ("", "What a property was before; older partitions are read as today's:", "")
        yield from (f"- `{name}`: {', '.join(past)}" for name in event.properties if (past := event.past(name)))
    if event.examples.valid:
        yield from (
            "",
            "```json",
            *(json.dumps(example, ensure_ascii=False) for example in event.examples.valid),
            "```",
        )
    for example in event.examples.invalid:
        yield from (
            "",
            f"Fails with {', '.join(example.reasons)}: `{json.dumps(example.properties, ensure_ascii=False)}`",
        )
    if event.qa_steps:
        yield from ("", *(f"{number}. {step}" for number, step in enumerate(event.qa_steps, 1)))


def _rules(prop: Property) -> str:
    bounds = {"at least": prop.min, "at most": prop.max, "characters at most": prop.max_length}
    said = [f"one of {', '.join(prop.enum)}"] if prop.enum else []
    said += [f"like `{prop.pattern}`"] if prop.pattern else []
    return ", ".join(said + [f"{name} {exact(bound)}" for name, bound in bounds.items() if bound is not None])


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
