"""The page of column lineage: every column of every model, from what it is made, up to the events' properties.

Belongs here: what is read for it (dbt's manifest, the columns of the warehouse, the tracking plan) and the page. Does not
belong here: tracing (lineage.py), running dbt (cli/serve.py). Self-contained like the report; it fetches nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from html import escape
from pathlib import Path

import duckdb

from zantara_pipeline.report.lineage import Column, Trace, origins, trace, untraced
from zantara_pipeline.report.style import CSS
from zantara_pipeline.tracking.plan import TrackingPlan

_IDS = frozenset(("user_id", "anonymous_id", "device_id", "session_id", "organisation_id"))
"""Columns of the envelope by which somebody is known again."""
# What people look for first, first.
_ORDER = ("segments", "core", "features", "experiments", "ops", "staging")
_PLACES = {
    "state.consent": "consent ledger", "state.run_clock": "clock of the run", "lake.items": "catalogue",
    "state.ingested_files": "ledger of files", "state.quarantine_reasons": "ledger of reasons",
}  # fmt: skip
_MANY = 4  # relations that are named; more are counted


@dataclass(frozen=True)
class Model:
    """One model of dbt; sql is None where nobody knows it."""

    relation: str
    description: str
    owner: str
    columns: Mapping[str, str]
    sql: str | None


@dataclass(frozen=True)
class Lineage:
    """What the page shows."""

    models: list[Model]
    columns: dict[str, list[str]]
    traces: dict[Column, Trace]
    origins: dict[Column, frozenset[Column]]
    lost: dict[Column, str]


def read_lineage(manifest: Path, warehouse: Path) -> Lineage:
    """Trace the models of a manifest with compiled SQL.

    Parameters
    ----------
    warehouse : that of the last run: it knows columns, and the SELECT that was made of each segment.
    """
    with closing(duckdb.connect(str(warehouse), read_only=True)) as con:
        columns: dict[str, list[str]] = defaultdict(list)
        for relation, name in con.execute(_COLUMNS_SQL).fetchall():
            columns[relation].append(name)
        segments = dict(con.execute("SELECT 'segments.' || segment, sql FROM state.segment_sql").fetchall())
    models = list(_models(manifest, segments))
    for model in models:  # one that was not built yet has the columns that it promises
        columns[model.relation] = columns.get(model.relation) or list(model.columns)
    traces = trace({model.relation: model.sql for model in models if model.sql}, columns)
    for model in models:
        if not model.sql:
            unknown = Trace(problem="no run has built it yet, so nobody knows its SQL")
            traces |= {Column(model.relation, name): unknown for name in columns[model.relation]}
    return Lineage(models, dict(columns), traces, origins(traces), untraced(traces))


_COLUMNS_SQL = """
    SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns
    WHERE table_schema != 'main' ORDER BY table_schema, table_name, ordinal_position
"""


def _models(manifest: Path, segments: Mapping[str, str]) -> Iterator[Model]:
    whole = json.loads(manifest.read_text(encoding="utf-8"))
    owners = {group["name"]: group["owner"].get("email") or "" for group in whole.get("groups", {}).values()}
    for node in whole["nodes"].values():
        if node["resource_type"] == "model":
            relation = f"{node['schema']}.{node['name']}"
            # of a segment the compiled code is the SELECT of its author; members are made of it (materializations/)
            made = segments.get(relation) if node["config"]["materialized"] == "segment" else node.get("compiled_code")
            owner = node["config"]["meta"].get("owner") or owners.get(node.get("group") or "", "")
            described = {name: column["description"] for name, column in node["columns"].items()}
            yield Model(relation, node["description"], owner, described, made)


def write_lineage_page(lineage: Lineage, plan: TrackingPlan, out: Path) -> Path:
    """Written beside and renamed."""
    beside = out.with_name(out.name + ".new")
    beside.write_text(render(lineage, plan), encoding="utf-8")
    beside.replace(out)
    return out


def said(lineage: Lineage) -> str:
    """What was traced, in one line."""
    count, lost = len(lineage.traces), len(lineage.lost)
    rest = (
        "of every one it is known where it comes from"
        if not lost
        else f"of {lost:,} it is not known where they come from"
    )
    return f"{count:,} columns of {len(lineage.models):,} models: {rest}"


def render(lineage: Lineage, plan: TrackingPlan) -> str:
    """The page as text."""
    book = _Book(lineage, plan)
    schemas = sorted({model.relation.partition(".")[0] for model in lineage.models}, key=_place)
    links = " ".join(f'<a href="#{name}">{name}</a>' for name in [*schemas, "sources"])
    parts = "\n".join(book.schema(name) for name in schemas)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>zantara, column lineage</title>
<style>
{CSS}{_CSS}</style>
</head>
<body>
<main>
<h1>Where every column comes from</h1>
<p class="sub">{escape(said(lineage))}.</p>
<p>For each column: what its model makes it from, and where that begins: properties of events (as the tracking plan calls
them), ledgers, the catalogue. Values are followed; a column that only decides which rows are there is no origin.
"made of no column" is a constant or a count of rows. Tables that dbt does not make (recommendations, read-outs of experiments,
the catalogue and history of segments) are not here.</p>
<p class="find"><label>Find <input type="search" placeholder="a model, a column, an event" autocomplete="off"></label>
<span>{links}</span></p>
{_lost(lineage)}
{parts}
{book.sources()}
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _place(schema: str) -> tuple[int, str]:
    return (_ORDER.index(schema) if schema in _ORDER else len(_ORDER), schema)


def _lost(lineage: Lineage) -> str:
    if not lineage.lost:
        return ""
    items = "".join(
        f"<li><code>{escape(column.relation)}.{escape(column.name)}</code>: {escape(why)}</li>"
        for column, why in sorted(lineage.lost.items())
    )
    return f'<section><h2 class="bad">Not known: {len(lineage.lost):,}</h2><ul>{items}</ul></section>'


class _Book:
    """The parts of the page, with what they share."""

    def __init__(self, lineage: Lineage, plan: TrackingPlan) -> None:
        self.lineage, self.plan = lineage, plan
        self.events = [f"lake.{event}" for event in plan.events]

    def schema(self, name: str) -> str:
        found = [model for model in self.lineage.models if model.relation.startswith(f"{name}.")]
        models = "\n".join(self._model(model) for model in sorted(found, key=lambda model: model.relation))
        return f'<section id="{name}"><h2>{name}</h2>\n{models}\n</section>'

    def _model(self, model: Model) -> str:
        names = self.lineage.columns[model.relation]
        rows = "".join(self._row(Column(model.relation, name), model.columns.get(name, "")) for name in names)
        lost = sum(Column(model.relation, name) in self.lineage.lost for name in names)
        mark = f' <b class="bad">{lost} not known</b>' if lost else ""
        owner = f", {escape(model.owner)}" if model.owner else ""
        heads = "".join(f"<th>{head}</th>" for head in ("column", "made from", "begins at", "consent", "personal"))
        return (
            f'<details class="model" id="{escape(model.relation)}"><summary><code>{escape(model.relation.partition(".")[2])}'
            f"</code> {len(names)} columns{owner}{mark}</summary><p>{escape(model.description)}</p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></details>"
        )

    def _row(self, column: Column, description: str) -> str:
        one, begins = self.lineage.traces[column], self.lineage.origins[column]
        if column in self.lineage.lost:
            made = f'<b class="bad">not known</b>: {escape(self.lineage.lost[column])}'
        elif not one.direct:
            made = "made of no column"
        else:
            made = _list(one.direct, _named, everywhere=self.events)
        if one.expression:
            made += f'<div class="how"><code>{escape(one.expression)}</code></div>'
        cells = {
            "column": f"<code>{escape(column.name)}</code>"
            + (f"<div>{escape(description)}</div>" if description else ""),
            "made from": made,
            "begins at": _list(begins, self._told, everywhere=self.events) + self._owners(begins),
            "consent": ", ".join(sorted({purpose for source in begins if (purpose := self._purpose(source))})),
            "personal": ", ".join(sorted({kind for source in begins if (kind := self._pii(source)) != "none"})),
        }
        return "<tr>" + "".join(f'<td data-head="{head}">{cell}</td>' for head, cell in cells.items()) + "</tr>"

    def _owners(self, sources: Collection[Column]) -> str:
        events = {source.relation.partition(".")[2] for source in sources if source.relation in self.events}
        owners = sorted({owner for event in events if (owner := self.plan.events[event].owner)})
        return f"<div>{escape(', '.join(owners))}</div>" if owners else ""

    def _told(self, relation: str) -> str:
        schema, _, table = relation.partition(".")
        if relation in self.events:
            return f'<a href="#{escape(relation)}">{escape(table)}</a>'
        return escape(_PLACES.get(relation, f"{schema}.{table}"))

    def _purpose(self, source: Column) -> str | None:
        return self.plan.category(source.relation.partition(".")[2]) if source.relation in self.events else None

    def _pii(self, source: Column) -> str:
        """What the plan says of a property; ids of the envelope are pseudonyms."""
        if source.relation not in self.events:
            return "pseudonym" if source.name in _IDS else "none"
        event = self.plan.events[source.relation.partition(".")[2]]
        prop = event.properties.get(source.name)
        return prop.pii if prop is not None else "pseudonym" if source.name in _IDS else "none"

    def sources(self) -> str:
        """The way back: of every event's columns the models that use them."""
        used: dict[Column, set[str]] = defaultdict(set)
        for column, begins in self.lineage.origins.items():
            if not column.relation.startswith("staging."):
                for source in begins:
                    used[source].add(column.relation)
        parts = "\n".join(self._event(name, used) for name in self.plan.events)
        return (
            '<section id="sources"><h2>sources</h2><p>Events of the tracking plan, and the models that the values of each of '
            f"their columns go into (staging left out).</p>\n{parts}\n</section>"
        )

    def _event(self, name: str, used: Mapping[Column, set[str]]) -> str:
        event, relation = self.plan.events[name], f"lake.{name}"
        rows = "".join(
            f'<tr><td data-head="column"><code>{escape(column)}</code></td>'
            f'<td data-head="personal">{self._pii(Column(relation, column))}</td>'
            f'<td data-head="goes into">{", ".join(map(_link, sorted(used[Column(relation, column)]))) or "no model"}</td></tr>'
            for column in self.lineage.columns.get(relation, [])
        )
        told = f"{escape(event.owner or '')}; consent to {escape(event.consent_category or 'nothing that is declared')}"
        return (
            f'<details class="model" id="{relation}"><summary><code>{name}</code> {told}</summary>'
            f"<p>{escape(event.description or '')}</p><table><thead><tr><th>column</th><th>personal</th><th>goes into</th></tr>"
            f"</thead><tbody>{rows}</tbody></table></details>"
        )


def _list(columns: Iterable[Column], told: Callable[[str], str], everywhere: Collection[str] = ()) -> str:
    """Columns by the relations that have them: `price, quantity of purchase, refund`; many relations are counted."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for column in sorted(columns):
        by_name[column.name].append(column.relation)
    by_relations: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, relations in by_name.items():
        by_relations[tuple(relations)].append(name)
    items = []
    for relations_, names in by_relations.items():
        said_ = ", ".join(f"<code>{escape(name)}</code>" for name in names)
        items.append(f"<li>{said_} of {_relations(relations_, told, everywhere)}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _relations(relations: Sequence[str], told: Callable[[str], str], everywhere: Collection[str]) -> str:
    if len(relations) <= _MANY:
        return ", ".join(map(told, relations))
    events = [relation for relation in relations if relation in everywhere]
    others = [told(relation) for relation in relations if relation not in everywhere]
    names = escape(", ".join(relation.partition(".")[2] for relation in events))
    every = "all " if len(events) == len(everywhere) else ""
    return ", ".join([*others, *([f'<span title="{names}">{every}{len(events)} events</span>'] if events else [])])


def _named(relation: str) -> str:
    return _link(relation) if not relation.startswith("state.") else escape(_PLACES.get(relation, relation))


def _link(relation: str) -> str:
    return f'<a href="#{escape(relation)}">{escape(relation.partition(".")[2])}</a>'


_CSS = """\
.find { position: sticky; top: 0; background: var(--page); padding: .5rem 0; margin: 0; max-width: none; z-index: 1; }
.find input { font: inherit; width: min(20rem, 60vw); padding: .25rem .5rem; border: 1px solid var(--line);
  border-radius: 6px; background: var(--card); color: var(--ink); }
.find span a { margin-left: .6rem; white-space: nowrap; }
a { color: var(--model); text-decoration: none; } a:hover { text-decoration: underline; }
details.model { scroll-margin-top: 3.4rem; border-top: 1px solid var(--line); margin: 0; padding: .35rem 0; }
section { scroll-margin-top: 3rem; }
details.model > summary code { color: var(--ink); font-size: .95rem; overflow-wrap: anywhere; }
details.model table { table-layout: fixed; }
details.model td { overflow-wrap: anywhere; } details.model td:first-child code { white-space: normal; }
details.model td div { color: var(--muted); font-size: .92em; }
details.model ul { margin: 0; padding: 0; list-style: none; }
.how code { display: block; max-height: 7.5em; overflow: auto; white-space: pre-wrap; }
@media (min-width: 721px) {
  details.model th:nth-child(1) { width: 21%; } details.model th:nth-child(2) { width: 32%; }
  details.model th:nth-child(4) { width: 14%; } details.model th:nth-child(5) { width: 12%; }
  #sources details.model th:nth-child(2) { width: 14%; } #sources details.model th:nth-child(3) { width: 65%; }
}
@media (max-width: 720px) {
  details.model thead { display: none; }
  details.model tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  details.model td { display: block; border: 0; padding: .1rem 0; }
  details.model td:empty { display: none; }
  details.model td + td::before { content: attr(data-head) ": "; color: var(--muted); }
  details.model { scroll-margin-top: 6rem; }
  .find span { display: block; margin-top: .3rem; } .find span a { margin: 0 .6rem 0 0; }
}
"""

# Opens what is asked for: by the address, or by typing; a model matches with its name, its columns or what they begin at.
_SCRIPT = """
const models = [...document.querySelectorAll('details.model')];
const open = () => { const one = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (one && one.tagName === 'DETAILS') { one.open = true; one.scrollIntoView(); } };
addEventListener('hashchange', open); open();
document.querySelector('input').addEventListener('input', event => {
  const asked = event.target.value.trim().toLowerCase();
  for (const model of models) {
    const names = asked && model.textContent.toLowerCase().includes(asked);
    model.hidden = Boolean(asked) && !names;
    model.open = asked.length > 2 && names;
  }
});
"""
