"""What every segment must say about itself, read from the dbt project's YAML before any SQL runs.

Belongs here: the model of `meta`, and finding every fault of every segment with file, line and key. Does not belong
here: who qualifies (dbt models), and what becomes of members (lifecycle.py).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from zantara_pipeline.contracts_io import LineOf, load_yaml
from zantara_pipeline.errors import InputError, InputErrors
from zantara_pipeline.segments.following import claim_faults
from zantara_pipeline.tracking.plan import Contract, LawfulBasis

PREFIX = "seg_"
MODELS = Path("models/segments")


class SegmentMeta(Contract):
    """`meta` of a segment model; all of it is required but `incremental`.

    incremental : whether an entity is a member depends on its own events, on consent and on the clock alone; then a build
        asks only the entities of which something of that changed (dbt_project/macros/following.sql).
    """

    owner: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    purpose: str = Field(min_length=1)
    legal_basis: LawfulBasis
    entity: Literal["user", "session", "device", "organisation"]
    ttl_days: int = Field(ge=1, le=1100, strict=True)
    access_level: Literal["restricted", "internal", "export"]
    min_size: int = Field(ge=1, strict=True)
    incremental: bool = Field(default=False, strict=True)


# What to write, for whom pydantic's words say too little.
_TODO = {
    "owner": "name who answers for it, as an e-mail address",
    "purpose": "name a purpose of contracts/privacy.yaml",
    "legal_basis": "name the ground of GDPR article 6(1), such as consent",
    "entity": "say what a member is: user, session, device or organisation",
    "ttl_days": "say after how many days nobody stays without qualifying again, from 1 to 1100",
    "access_level": "say who may read it: restricted, internal or export",
    "min_size": "say below which size nobody may read it, 1 or more",
    "incremental": "say true or false, or leave it out (false)",
}


@dataclass(frozen=True)
class Segment:
    """One segment as the build's manifest declares it."""

    name: str
    description: str
    sql: str
    meta: SegmentMeta

    @property
    def table(self) -> str:
        return f"segments.{self.name}"


def segments_of(manifest: Path) -> list[Segment]:
    """All segments of a dbt manifest, by name. `check_segments` has said before what is wrong with any of them."""
    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    found = [
        Segment(
            node["name"],
            node["description"],
            node["raw_code"].strip(),
            SegmentMeta.model_validate(node["config"]["meta"]),
        )
        for node in nodes
        if node["resource_type"] == "model" and node["name"].startswith(PREFIX)
    ]
    return sorted(found, key=lambda segment: segment.name)


def check_segments(project: Path, purposes: Collection[str]) -> dict[str, SegmentMeta]:
    """Refuse a dbt project whose segments do not say what they must; nothing is built, and no SQL runs, before.

    Returns what each segment says of itself, by name.

    Parameters
    ----------
    project : folder of the dbt project.
    purposes : names of the purposes in contracts/privacy.yaml.

    Raises
    ------
    InputErrors : every fault of every segment, one line each, with file, line, key and what to do.
    """
    metas: dict[str, SegmentMeta] = {}
    faults = list(_faults(project, purposes, metas))
    if faults:
        raise InputErrors(faults)
    return metas


def _faults(project: Path, purposes: Collection[str], metas: dict[str, SegmentMeta]) -> Iterator[InputError]:
    """Everything that is wrong; fills `metas` where nothing is."""
    declared: dict[str, Path] = {}
    files = sorted(path for path in project.glob("models/**/*.y*ml") if "target" not in path.parts)
    for path in files:
        if PREFIX not in path.read_text(encoding="utf-8", errors="replace"):
            continue  # the YAML of events is long, and says nothing of segments
        data, line_of = load_yaml(path)
        models = data.get("models") if isinstance(data, dict) else None
        for index, model in enumerate(models if isinstance(models, list) else []):
            if isinstance(model, dict) and str(model.get("name", "")).startswith(PREFIX):
                declared[str(model["name"])] = path
                faults = list(_model_faults(model, path, line_of, index, purposes))
                yield from faults
                if not faults:
                    metas[str(model["name"])] = SegmentMeta.model_validate(model["config"]["meta"])
    yield from _file_faults(project, declared, metas)


def _model_faults(
    model: Mapping[str, Any], path: Path, line_of: LineOf, index: int, purposes: Collection[str]
) -> Iterator[InputError]:
    name, at = str(model["name"]), ("models", index)
    config = model.get("config")
    if not str(model.get("description") or "").strip():
        yield InputError(f"{name}: key 'description' is missing", f"{path}:{line_of(*at)}", "say who is in it")
    if "meta" in model:
        todo = "write it below config: meta:"
        yield InputError(
            f"{name}: key 'meta' stands where dbt no longer reads it", f"{path}:{line_of(*at, 'meta')}", todo
        )
        return
    meta = config.get("meta") if isinstance(config, dict) else None
    yield from meta_faults(name, meta, purposes, lambda *keys: f"{path}:{line_of(*at, 'config', 'meta', *keys)}")


def meta_faults(name: str, meta: Any, purposes: Collection[str], where: Any) -> Iterator[InputError]:
    """Faults of one segment's meta.

    Parameters
    ----------
    where : keys below meta -> the place to name ("file:line").
    """
    if meta is not None and not isinstance(meta, dict):
        yield InputError(f"{name}: key 'meta' is no mapping", where(), f"give it {', '.join(_TODO)}")
        return
    try:
        parsed = SegmentMeta.model_validate(meta or {})
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            key = str(problem["loc"][0])
            yield InputError(f"{name}: meta key '{key}': {_said(problem)}", where(key), _advice(problem, key))
        parsed = None
    purpose = parsed.purpose if parsed else (meta or {}).get("purpose")
    if isinstance(purpose, str) and purpose and purpose not in purposes:
        what = f"{name}: meta key 'purpose': '{purpose}' is not among the purposes ({', '.join(sorted(purposes))})"
        yield InputError(what, where("purpose"), "name one of them, or declare it in contracts/privacy.yaml first")


def _said(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown key"
    if problem["type"] == "missing":
        return "missing"
    return str(problem["msg"])


def _advice(problem: Any, key: str) -> str:
    if problem["type"] != "extra_forbidden":
        return _TODO[key]
    near = difflib.get_close_matches(key, _TODO, n=1)
    return f"did you mean '{near[0]}'?" if near else "remove it"


_CONFIG = re.compile(r"\{\{-?\s*config\s*\((?P<inside>.*?)\)\s*-?\}\}", re.DOTALL)
_MATERIALIZED = re.compile(r"\bmaterialized\s*=|\bmeta\s*=")


# A segment reads what it may through macros/allowed.sql and measures time from the run's clock: then the past can be built anew.
_FORBIDDEN = {
    re.compile(r"\b(ref|source)\s*\("): (
        "it reads '{}' and not what is allowed at the clock of the run",
        "read allowed_events, allowed_activity, allowed_device_activity or allowed_sessions",
    ),
    re.compile(r"\b(now\s*\(|current_(date|time|timestamp)\b|today\s*\(|get_current_\w+|random\s*\()", re.IGNORECASE): (
        "it asks '{}', which is another one every day",
        "measure from the clock of the run: within_days, as_of",
    ),
}
_COMMENT = re.compile(r"--[^\n]*|\{#.*?#\}|/\*.*?\*/", re.DOTALL)


def sql_faults(sql: str, meta: SegmentMeta | None = None) -> Iterator[tuple[str, str, int]]:
    """(what is wrong, what to do, position) of a segment's SELECT; comments may say anything. meta : where it is sound."""
    code = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), sql)
    for pattern, (what, todo) in _FORBIDDEN.items():
        for found in pattern.finditer(code):
            yield what.format(found[0].rstrip("( ")), todo, found.start()
    if meta is not None and meta.incremental:
        yield from claim_faults(code, meta.entity)


def _file_faults(project: Path, declared: Mapping[str, Path], metas: Mapping[str, SegmentMeta]) -> Iterator[InputError]:
    """SQL without YAML, YAML without SQL, and SQL that steps around the rules."""
    files = {path.stem: path for path in sorted(project.glob("models/**/*.sql")) if path.stem.startswith(PREFIX)}
    for name, path in files.items():
        if path.parent != project / MODELS:
            yield InputError(f"{name}: a segment lies in {MODELS}", path, "move it there")
        if name not in declared:
            todo = f"add an entry with a description and config: meta: to {MODELS / '_segments.yml'}"
            yield InputError(f"{name}: no YAML says whose it is and what it is for", f"{path}:1", todo)
        sql = path.read_text(encoding="utf-8")
        for what, todo, position in sql_faults(sql, metas.get(name)):
            yield InputError(f"{name}: {what}", f"{path}:{sql[:position].count(chr(10)) + 1}", todo)
        for found in _CONFIG.finditer(sql):
            if _MATERIALIZED.search(found["inside"]):
                line = sql[: found.start()].count("\n") + 1
                todo = "remove it: the folder says how a segment is made, and the YAML holds its meta"
                yield InputError(f"{name}: key 'config' sets what only the project may", f"{path}:{line}", todo)
    for name in sorted(set(declared) - set(files)):
        path = declared[name]
        yield InputError(f"{name}: there is no model of this name", path, f"add {MODELS / f'{name}.sql'} or remove it")
