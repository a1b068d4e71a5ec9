"""The TypeScript tracking client: one self-contained file, typed by the plan, for browsers and Node 18 or later.

`tsc --strict` refuses an unknown event, a missing, misspelt or mistyped property and an unknown consent category; what
types cannot say (ranges, patterns, lengths, whole numbers) is refused at run time.

Belongs here: the part that depends on the plan. Does not belong here: sending (typescript_runtime.ts), which rules an
event has (client_rules.py).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from zantara_pipeline.tracking.codegen.client_rules import client_events, client_rules
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, EventPlan, Property, TrackingPlan

_TYPES = {"string": "string", "number": "number", "money": "number", "integer": "number", "boolean": "boolean"}
_RUNTIME = Path(__file__).with_name("typescript_runtime.ts")
_HEAD = """// Typed tracking client, made by `zantara plan codegen typescript`: change the tracking plan, not this file.
//
//   const client = new TrackingClient(new HttpSink("/events"), { analytics: true });
//   client.track("product_view", { product_id: "p-17" }, { consent: "analytics" });
//   await client.flush();

/* eslint-disable */
/// <reference lib="es2017" />
"""
_CLIENT = """/** The events of the plan. */
export class TrackingClient extends ClientCore {
  private kept: Context = {};

  /** `consent`: what the person allows now, or a function that is asked at every event. What it does not name is not allowed. */
  constructor(sink: Sink, consent: Consent | (() => Consent), settings: ClientSettings = {}) {
    super(PLAN, PURPOSES, sink, consent, settings);
  }

  /** Comes with every event. Throws TypeError where a value is no text. */
  get context(): Context {
    return this.kept;
  }

  set context(context: Context) {
    this.kept = checkedContext(context) as Context;
  }

  /** What the person allows from here on; what is held and not allowed any more is dropped. */
  setConsent(consent: Consent): void {
    this.changeConsent(consent);
  }

  /** Queue one event; returns its id, or null where the person does not allow it. Throws TypeError where the plan does not. */
  track<E extends EventName>(event: E, properties: Properties<E>, options: { consent: Events[E]["consent"] }): string | null {
    return this.queue(event, properties, options?.consent, this.kept);
  }
}
"""


def typescript_client_files(plan: TrackingPlan) -> dict[str, str]:
    """zantara_events.ts."""
    runtime = _RUNTIME.read_text(encoding="utf-8").partition("*/\n\n")[2]
    events = client_events(plan)
    parts = [_HEAD, _types(events, plan), runtime, _plan(events, plan), _CLIENT]
    return {"zantara_events.ts": "\n".join(part.strip("\n") + "\n" for part in parts)}


def _types(events: list[EventPlan], plan: TrackingPlan) -> str:
    purposes = " | ".join(_literal(purpose) for purpose in plan.purposes)
    lines = [
        "/** What people consent to. */",
        f"export type Purpose = {purposes};",
        "export type Consent = { readonly [P in Purpose]?: boolean | null };",
        f"export type Context = {{ {' '.join(f'{key}?: string;' for key in CONTEXT_KEYS)} }};",
        "",
        "/** Every event: the consent that it needs, and what it carries. */",
        "export interface Events {",
    ]
    for event in events:
        lines += [line for said in _comment(event.description, "  ") for line in said.splitlines()]
        lines.append(f"  {event.event}: {{")
        lines.append(f"    consent: {_literal(event.consent_category)};")
        lines.append(f"    properties: {_properties(event)};")
        lines.append("  };")
    return "\n".join(
        [
            *lines,
            "}",
            "export type EventName = keyof Events;",
            'export type Properties<E extends EventName> = Events[E]["properties"];',
        ]
    )


def _properties(event: EventPlan) -> str:
    if not event.properties:
        return "Record<string, never>"  # {} would take anything
    lines = ["{"]
    for name, prop in event.properties.items():
        lines += _comment(prop.description, " " * 6)
        lines.append(f"      {name}{'' if prop.required else '?'}: {_annotation(prop)};")
    return "\n".join([*lines, "    }"])


def _annotation(prop: Property) -> str:
    kind = " | ".join(_literal(value) for value in prop.enum) if prop.enum else _TYPES[prop.type]
    return f"{kind} | null" if prop.allows_null else kind


def _comment(text: str | None, indent: str) -> list[str]:
    return [f"{indent}/** {' '.join(text.split()).replace('*/', '* /')} */"] if text else []


def _plan(events: list[EventPlan], plan: TrackingPlan) -> str:
    lines = [f"const PURPOSES: readonly Purpose[] = {_literal(list(plan.purposes))};", "", "const PLAN: Plan = {"]
    for event in events:
        rules = client_rules(event)
        lines += [f"  {event.event}: {{", f"    consent: {_literal(rules['consent'])},", "    properties: {"]
        for name, rule in rules["properties"].items():
            if "pattern" in rule:
                rule = rule | {"pattern": javascript_pattern(rule["pattern"])}
            lines.append(
                f"      {name}: {{ {', '.join(f'{key}: {_literal(value)}' for key, value in rule.items())} }},"
            )
        lines += ["    },", "  },"]
    return "\n".join(
        [*lines, "} as const;"]
    )  # const, or TypeScript takes a property `constructor` for the one of objects


def _literal(value: Any) -> str:
    """JSON is an expression of TypeScript."""
    return json.dumps(value, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


_TOKENS = re.compile(
    r"""
      \\(?P<escaped>.)
    | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])
    | (?P<times>\{\d+(?:,\d*)?\})
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SYNTAX = set("^$\\.*+?()[]{}|/")


def javascript_pattern(pattern: str) -> str:
    """A pattern of the plan as a JavaScript one under the flag `u`, which reads characters and refuses needless escapes."""
    return "".join(_token(match) for match in _TOKENS.finditer(pattern))


def _token(match: re.Match[str]) -> str:
    if match["escaped"]:
        return _escape(match["escaped"], _SYNTAX)
    if match["set"]:
        return _set(match["set"])
    if match["times"]:
        return match["times"]
    # A dot is any character but \n; JavaScript's would leave out \r and two more.
    return {".": r"[^\n]", "{": r"\{", "}": r"\}", "]": r"\]"}.get(match["other"], match["other"])


def _set(text: str) -> str:
    negated = text.startswith("[^")
    inner = text[2 if negated else 1 : -1]
    parts = (
        _escape(found["escaped"], _SYNTAX | {"-"}) if found["escaped"] else {"]": r"\]", "[": r"\["}.get(found[0], found[0])
        for found in re.finditer(r"\\(?P<escaped>.)|.", inner, re.DOTALL)
    )  # fmt: skip
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _escape(char: str, syntax: set[str]) -> str:
    if char == "a":
        return r"\x07"  # JavaScript has no bell
    return f"\\{char}" if char in syntax or char.isalnum() else char
