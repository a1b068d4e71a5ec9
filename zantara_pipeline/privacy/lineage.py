"""What the dbt project says it does with people, checked on its manifest before any SQL runs.

Three rules, over models and what they read, directly or through others:

- **Exempt events reach counts only.** What reads a source whose meta says `consent: exempt` has the purpose
  `audience_measurement`, lies in `ops`, and holds nobody's id; nothing else reads it.
- **A model that holds somebody's id says for what purpose** (`meta.purpose`): one of privacy.yaml, or `collected` for
  staging and core, which hold what was accepted, for no purpose of their own.
- **A model with a purpose reads people through consent**: through the allowed_ macros, or it names the columns
  `consent_<purpose>` (when it happened) and `<purpose>_allowed` (now) itself, or it reads only models of its purpose.
  `meta.consent: then` asks for the first of the two alone (docs/decisions/0029-consent-of-derived-tables.md).

A relation that SQL names as text, without `ref` or `source`, is read as well: nobody steps around a rule by that.

Belongs here: these rules. Does not belong here: whether the rows keep to them (consented_tables.py), what segments say of
themselves (segments/contract.py).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zantara_pipeline.errors import InputError, InputErrors
from zantara_pipeline.privacy.people import is_field_of_people

COLLECTED, MEASURED = "collected", "audience_measurement"
COLLECTING_SCHEMAS = ("staging", "core")
WORKING_SCHEMA = "state"
"""What builds work with and keep for the next one; never published, like what was collected."""
MEASURING_SCHEMA = "ops"
EXEMPT_FILES = "lake/exempt"
CONSENT_MACROS = frozenset(("allowed_events", "allowed_activity", "allowed_device_activity", "allowed_sessions"))

_COMMENT = re.compile(r"--[^\n]*|\{#.*?#\}|/\*.*?\*/", re.DOTALL)
_RELATION = re.compile(r'"?\b([a-z_]\w*)"?\s*\.\s*"?([a-z_]\w*)\b"?', re.IGNORECASE)


@dataclass(frozen=True)
class Relation:
    """A model or a source of the manifest.

    reads : names of relations that it reads directly.
    macros : names of the project's macros that it uses, directly or through others.
    """

    name: str
    is_source: bool
    meta: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, Any]]
    code: str
    reads: tuple[str, ...]
    macros: frozenset[str]

    @property
    def schema(self) -> str:
        return self.name.partition(".")[0]

    @property
    def table(self) -> str:
        return self.name.partition(".")[2]

    @property
    def purpose(self) -> str | None:
        """What it is for, as its meta says."""
        return self.meta.get("purpose")

    @property
    def asks_then_only(self) -> bool:
        """Does what its people allowed when it happened suffice?"""
        return self.meta.get("consent") == "then"

    @property
    def is_exempt(self) -> bool:
        """Does it hold, or have a column of, events that were never consented to?"""
        return any(meta.get("consent") == "exempt" for meta in (self.meta, *self.columns.values())) or (
            EXEMPT_FILES in self.code
        )

    @property
    def people(self) -> tuple[str, ...]:
        """Columns that hold ids of people, of their browsers or devices, by their names."""
        return tuple(column for column in self.columns if is_field_of_people(f"{self.table}.{column}"))

    @property
    def holds_people(self) -> bool:
        """A source over the lake declares no columns, and holds events of people unless it is the catalogue."""
        return bool(self.people) or (self.is_source and self.schema == "lake" and self.table != "items")


@dataclass(frozen=True)
class Lineage:
    """Every model and source by name (schema.table)."""

    relations: Mapping[str, Relation]

    @cached_property
    def models(self) -> list[Relation]:
        return [self.relations[name] for name in sorted(self.relations) if not self.relations[name].is_source]

    def with_purpose(self) -> list[Relation]:
        """Models that hold people for a purpose, by name."""
        return [model for model in self.models if model.purpose not in (None, COLLECTED, MEASURED)]

    def path_to_exempt(self, model: Relation) -> list[str] | None:
        """The shortest chain of relations from an exempt one to a model; None: there is none."""
        ways, seen = deque([[model.name]]), {model.name}
        while ways:
            way = ways.popleft()
            relation = self.relations[way[-1]]
            if relation.is_exempt:
                return way[::-1]
            for name in relation.reads:
                if name not in seen:
                    seen.add(name)
                    ways.append([*way, name])
        return None

    def around_consent(self, model: Relation) -> str | None:
        """What a model with a purpose reads of people without asking for their consent; None: nothing."""
        parents = [self.relations[name] for name in model.reads]
        asked = [parent for parent in parents if parent.holds_people and parent.purpose != model.purpose]
        if not asked or CONSENT_MACROS & model.macros:
            return None
        wanted = [f"consent_{model.purpose}"] + ([] if model.asks_then_only else [f"{model.purpose}_allowed"])
        return None if all(re.search(rf"\b{column}\b", model.code) for column in wanted) else asked[0].name


def check_lineage(manifest: Path, purposes: Collection[str]) -> Lineage:
    """The project's lineage, when it keeps the rules above.

    Raises
    ------
    InputErrors : every fault, one line each; of exempt events with the path that they take.
    """
    lineage = read_lineage(manifest)
    faults = [fault for model in lineage.models for fault in faults_of(lineage, model, purposes)]
    if faults:
        raise InputErrors(faults)
    return lineage


def faults_of(lineage: Lineage, model: Relation, purposes: Collection[str]) -> Iterator[InputError]:
    """What is wrong with one model."""
    if (path := lineage.path_to_exempt(model)) and not _only_counts(model):
        what = f"exempt events reach {model.name}: {' -> '.join(path)}"
        todo = f"they may be counted only: in a model of {MEASURING_SCHEMA} with purpose {MEASURED}, which holds no ids"
        yield InputError(what, model.name, todo)
    elif model.people and model.purpose is None:
        what = f"it holds ids of people ({', '.join(model.people)}) and does not say for what purpose"
        yield InputError(what, model.name, f"write config: meta: purpose: one of {', '.join(sorted(purposes))}")
    elif model.purpose == COLLECTED and model.schema not in (*COLLECTING_SCHEMAS, WORKING_SCHEMA):
        what = f"the purpose '{COLLECTED}' is for {' and '.join(COLLECTING_SCHEMAS)} only"
        yield InputError(what, model.name, f"name one of {', '.join(sorted(purposes))}")
    elif model.purpose is not None and model.purpose not in {*purposes, COLLECTED, MEASURED}:
        yield InputError(f"unknown purpose '{model.purpose}'", model.name, f"known: {', '.join(sorted(purposes))}")
    elif model.purpose in purposes and (parent := lineage.around_consent(model)):
        what = f"it reads people for {model.purpose} without asking for their consent: {parent} -> {model.name}"
        todo = f"read the allowed_ macros, or ask for consent_{model.purpose} and {model.purpose}_allowed"
        yield InputError(what, model.name, todo)


def _only_counts(model: Relation) -> bool:
    return model.purpose == MEASURED and model.schema == MEASURING_SCHEMA and not model.people


def read_lineage(manifest: Path) -> Lineage:
    """Models and sources of a dbt manifest."""
    read = json.loads(manifest.read_text(encoding="utf-8"))
    nodes = {uid: node for uid, node in read["nodes"].items() if node["resource_type"] == "model"} | read["sources"]
    names = {uid: f"{node['schema']}.{node.get('identifier') or node['name']}" for uid, node in nodes.items()}
    relations = [_relation(uid, node, names, read["macros"]) for uid, node in nodes.items()]
    return Lineage({relation.name: relation for relation in relations})


def _relation(uid: str, node: Mapping[str, Any], names: Mapping[str, str], macros: Mapping[str, Any]) -> Relation:
    used = _macros(node.get("depends_on", {}).get("macros", ()), macros)
    code = "\n".join(_COMMENT.sub(" ", text) for text in (node.get("raw_code", ""), *(m["macro_sql"] for m in used)))
    named = {f"{schema}.{table}".lower() for schema, table in _RELATION.findall(code)}
    declared = [names[parent] for parent in node.get("depends_on", {}).get("nodes", ()) if parent in names]
    reads = dict.fromkeys([*declared, *sorted(named & set(names.values()))])
    reads.pop(names[uid], None)
    meta = node["config"].get("meta") or {}
    columns = {
        name: column.get("config", {}).get("meta") or column.get("meta") or {}
        for name, column in node["columns"].items()
    }
    own = frozenset(macro["name"] for macro in used)
    return Relation(names[uid], node["resource_type"] == "source", meta, columns, code, tuple(reads), own)


def _macros(first: Collection[str], macros: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The project's macros that are reached from some."""
    found: dict[str, Mapping[str, Any]] = {}
    waiting = [name for name in first if name in macros]
    while waiting:
        name = waiting.pop()
        if name in found or macros[name]["package_name"].startswith("dbt"):
            continue
        found[name] = macros[name]
        waiting += [other for other in macros[name]["depends_on"]["macros"] if other in macros]
    return [found[name] for name in sorted(found)]
