"""What a draft of a segment would be: its size, whom it shares with others, and what its meta still lacks.

Belongs here: asking a draft that was compiled already, on the warehouse of the last run, without writing anything. Does
not belong here: compiling (orchestration/dbt.py), printing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from zantara_pipeline.contracts_io import load_yaml
from zantara_pipeline.errors import InputError
from zantara_pipeline.segments.contract import SegmentMeta, meta_faults, sql_faults

# What a draft that says nothing yet is tried with.
ASSUMED = {"purpose": "personalization", "entity": "user", "ttl_days": 30}


@dataclass(frozen=True)
class Draft:
    """A file with a SELECT, and what a YAML beside it says."""

    path: Path
    sql: str
    meta: Mapping[str, Any]
    faults: tuple[str, ...]

    @property
    def tried_with(self) -> dict[str, Any]:
        """The meta that a preview needs, assumed where the draft does not say it soundly."""
        kinds = {"purpose": str, "entity": str, "ttl_days": int}
        return {
            key: self.meta[key] if isinstance(self.meta.get(key), kinds[key]) else value
            for key, value in ASSUMED.items()
        }


@dataclass(frozen=True)
class Shared:
    """An existing segment over the same kind of entity, and how many members the draft has of it."""

    segment: str
    size: int
    shared: int
    jaccard: float | None


@dataclass(frozen=True)
class Preview:
    """What a draft would be at the clock of the last run."""

    size: int
    first_expires_at: Any
    last_expires_at: Any
    shared: tuple[Shared, ...]


def read_draft(path: Path, purposes: Collection[str]) -> Draft:
    """The draft and everything that `zantara run` would refuse in it.

    Raises
    ------
    InputError : the file cannot be read, or holds no SELECT.
    """
    try:
        sql = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError("no draft can be read there", path, "give a file with one SELECT") from None
    if "select" not in sql.lower():
        raise InputError("the draft holds no SELECT", path, "give a file with one SELECT")
    name = path.stem
    meta, place = _meta_of(name, path.parent)
    of_meta = [str(fault) for fault in meta_faults(name, meta, purposes, place)]
    sound = SegmentMeta.model_validate(meta) if not of_meta else None
    faults = [
        str(InputError(what, f"{path}:{sql[:at].count(chr(10)) + 1}", todo))
        for what, todo, at in sql_faults(sql, sound)
    ]
    if not name.startswith("seg_"):
        faults.append(str(InputError("a segment is named seg_<name>", path, f"name the file seg_{name}.sql")))
    faults += of_meta
    return Draft(path, sql, meta if isinstance(meta, dict) else {}, tuple(faults))


def _meta_of(name: str, folder: Path) -> tuple[Any, Any]:
    """The meta of a model of this name in any YAML of a folder, and where each of its keys stands."""
    for path in sorted(folder.glob("*.y*ml")):
        data, line_of = load_yaml(path)
        for index, model in enumerate((data.get("models") if isinstance(data, dict) else None) or []):
            if isinstance(model, dict) and model.get("name") == name:
                meta = (model.get("config") or {}).get("meta")

                def place(*keys: Any, at: int = index, lines: Any = line_of, of: Path = path) -> str:
                    return f"{of}:{lines('models', at, 'config', 'meta', *keys)}"

                return meta, place
    return None, lambda *keys: f"{folder / '_segments.yml'} (no entry for {name})"


def preview(con: duckdb.DuckDBPyConnection, sql: str, entity: str) -> Preview:
    """Ask a compiled draft.

    Parameters
    ----------
    con : the warehouse, from `why.reading_warehouse`.
    sql : its members, as the materialization would select them.

    Raises
    ------
    InputError : the engine refuses the SELECT.
    """
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE draft AS {sql}")
        size, first, last = con.execute("SELECT count(*), min(expires_at), max(expires_at) FROM draft").fetchall()[0]
        twice = con.execute("SELECT count(*) - count(DISTINCT entity_id) FROM draft").fetchall()[0][0]
    except duckdb.Error as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"the draft does not run: {said}", None, "mend the SELECT") from None
    if twice:
        raise InputError(f"the draft has {twice:,} rows too many: one row a member", None, "group by the entity")
    names = con.execute("SELECT segment FROM segments.catalog WHERE entity = ? ORDER BY segment", [entity]).fetchall()
    return Preview(size, first, last, tuple(_shared(con, name, size) for (name,) in names))


def _shared(con: duckdb.DuckDBPyConnection, name: str, size: int) -> Shared:
    other, both = con.execute(
        f"SELECT count(*), count(*) FILTER (WHERE entity_id IN (SELECT entity_id FROM draft)) FROM segments.{name}"
    ).fetchall()[0]
    either = size + other - both
    return Shared(name, other, both, both / either if either else None)
