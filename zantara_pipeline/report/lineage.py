"""Column lineage: of every column of every model the columns it is made from, up to what no model makes (events, ledgers).

The SQL is that which dbt compiled, read by sqlglot. What is followed is values: a column that only decides which rows are
there (WHERE, JOIN, GROUP BY) is no origin of another. What sqlglot cannot follow is said and not guessed.

Belongs here: tracing. Does not belong here: the page (lineage_page.py), running dbt (cli/serve.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.lineage import Node

DATABASE = "warehouse"
Columns = Mapping[str, Sequence[str]]
"""Relation (schema.table) -> its columns, in order."""


class Column(NamedTuple):
    """A column of a relation (schema.table)."""

    relation: str
    name: str


@dataclass(frozen=True)
class Trace:
    """Where one column of a model comes from.

    direct : columns that its SELECT makes it from; none where it is made of no column (a constant, a count of rows).
    expression : how, as SQL; empty where it is taken as it is.
    problem : why nobody can say; None where it is known.
    """

    direct: tuple[Column, ...] = ()
    expression: str = ""
    problem: str | None = None


def trace(models: Mapping[str, str], columns: Columns) -> dict[Column, Trace]:
    """Every column of every model.

    Parameters
    ----------
    models : relation -> its SELECT.
    columns : of all relations, those that no model makes, too.
    """
    from sqlglot import MappingSchema

    tree: dict[str, dict[str, dict[str, str]]] = {}
    for relation, names in columns.items():
        schema, _, table = relation.partition(".")
        tree.setdefault(schema, {})[table] = dict.fromkeys(names, "unknown")
    known = MappingSchema({DATABASE: tree}, dialect="duckdb")
    found: dict[Column, Trace] = {}
    for relation, sql in models.items():
        found |= {Column(relation, name): one for name, one in _of_model(relation, sql, columns, known).items()}
    return found


def _of_model(relation: str, sql: str, columns: Columns, schema: Any) -> dict[str, Trace]:
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    names = list(columns.get(relation, ()))
    try:
        nodes = lineage(None, _aligned(sql, columns), schema=schema, dialect="duckdb", trim_selects=False)
    except (SqlglotError, ValueError, KeyError, RecursionError) as error:
        said = f"its SQL cannot be followed ({type(error).__name__})"
        return {name: Trace(problem=said) for name in names}
    return {
        name: _traced(nodes[name], relation, columns) if name in nodes else Trace(problem="its SELECT does not name it")
        for name in names
    }


def _traced(node: Node, relation: str, columns: Columns) -> Trace:
    """What the leaves of a column's tree say."""
    from sqlglot import exp

    direct, lost = set(), []
    for leaf in (one for one in node.walk() if not one.downstream):
        made = leaf.expression
        if isinstance(made, exp.Table):
            column = Column(_relation(made), leaf.name.rpartition(".")[2].strip('"'))
            if column.name not in columns.get(column.relation, ()):
                lost.append(f"nobody knows {column.relation}.{column.name}")
            elif column.relation != relation:  # what is there already, of an incremental model
                direct.add(column)
        elif isinstance(made, (exp.Placeholder, exp.Query)) or made.find(exp.Column):
            lost.append("a column whose table is not known")
    if lost:
        return Trace(tuple(sorted(direct)), _said(node), sorted(set(lost))[0])
    return Trace(tuple(sorted(direct)), _said(node))


def _said(node: Node) -> str:
    """How the column is made, where it is more than another's value."""
    from sqlglot import exp

    made = node.expression.unalias()
    while isinstance(made, exp.Column) and len(node.downstream) == 1 and node.downstream[0].downstream:
        [node] = node.downstream  # taken as it is from a part of the SELECT that may have made it
        made = node.expression.unalias()
    if isinstance(made, exp.Column):
        return ""
    said = _NO_NAME.sub("", made.sql(dialect="duckdb", comments=False))
    return said.replace(_CLOCK, "as_of")


_NO_NAME = re.compile(r"\b_\d+\.")  # what sqlglot calls a part of the SELECT that has no name
_CLOCK = "(SELECT run_clock.as_of AS as_of FROM state.run_clock AS run_clock)"


def _relation(table: exp.Table) -> str:
    return ".".join(part for part in (table.db, table.name) if part)


def _aligned(sql: str, columns: Columns) -> exp.Expr:
    """The SELECT with every UNION BY NAME written by position, for sqlglot follows those only."""
    from sqlglot import exp, parse_one

    tree = parse_one(sql, dialect="duckdb").unnest()
    for union in list(tree.find_all(exp.SetOperation)):
        parent = union.parent
        if union.args.get("by_name") and not (isinstance(parent, exp.SetOperation) and parent.args.get("by_name")):
            branches = list(_branches(union))
            named = [_spelt(branch, columns) for branch in branches]
            wanted = list(dict.fromkeys(name for one in named for name in one))
            for branch, one in zip(branches, named, strict=True):
                branch.set("expressions", [one.get(n) or exp.alias_(exp.Null(), n) for n in wanted])
            for part in (union, *union.find_all(exp.SetOperation)):
                part.set("by_name", None)
    return tree


def _branches(union: exp.SetOperation) -> Iterator[exp.Select]:
    from sqlglot import exp

    for side in (union.left, union.right):
        inner = side.unnest()
        if isinstance(inner, exp.SetOperation):
            yield from _branches(inner)
        elif isinstance(inner, exp.Select):
            yield inner
        else:
            raise ValueError("a part of a union that is no SELECT")


def _spelt(select: exp.Select, columns: Columns) -> dict[str, exp.Expr]:
    """Name -> expression of a SELECT; a star over one table is spelt out."""
    from sqlglot import exp

    found: dict[str, exp.Expr] = {}
    for one in select.expressions:
        if not one.is_star:
            found[one.alias_or_name] = one.copy()
            continue
        source = select.args["from_"].this
        if not isinstance(source, exp.Table) or select.args.get("joins") or _relation(source) not in columns:
            raise ValueError("a star over more than one table, or one that nobody knows")
        for name in columns[_relation(source)]:
            found[name] = exp.column(name, table=source.alias_or_name)
    return found


def origins(found: Mapping[Column, Trace]) -> dict[Column, frozenset[Column]]:
    """Every column of every model -> the columns of relations that no model makes, through all models between.

    A column that cannot be traced has the origins that are known; `untraced` says that they may not be all.
    """
    models = {column.relation for column in found}
    done: dict[Column, frozenset[Column]] = {}

    def of(column: Column, above: frozenset[Column]) -> frozenset[Column]:
        if column.relation not in models:
            return frozenset([column])
        if column in done:
            return done[column]
        if column in above or column not in found:
            return frozenset()
        inner = (of(one, above | {column}) for one in found[column].direct)
        done[column] = frozenset().union(*inner)
        return done[column]

    return {column: of(column, frozenset()) for column in found}


def untraced(found: Mapping[Column, Trace]) -> dict[Column, str]:
    """Columns whose lineage is not known, or not whole because that of one before them is not -> why."""
    models = {column.relation for column in found}
    why = {column: one.problem for column, one in found.items() if one.problem}
    more = True
    while more:
        more = False
        for column, one in found.items():
            lost = next((d for d in one.direct if d in why or (d.relation in models and d not in found)), None)
            if lost is not None and column not in why:
                why[column] = f"{lost.relation}.{lost.name} is not known"
                more = True
    return why
