"""dbt inside Dagster: the manifest, names and owners of its assets, and one build per run.

Belongs here: translating dbt nodes into assets and calling dbt. Does not belong here: SQL.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
from packaging.version import Version

from zantara_pipeline.errors import InputError
from zantara_pipeline.orchestration.broken_columns import naming_columns
from zantara_pipeline.orchestration.dagster_dbt_alone import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtCliResource,
    DbtProject,
    dbt_assets,
)
from zantara_pipeline.orchestration.dbt_child import PARSED
from zantara_pipeline.orchestration.pipeline import Pipeline
from zantara_pipeline.segments.contract import PREFIX, SegmentMeta
from zantara_pipeline.tracking.sources import fingerprint, mark_staged, prepare

_SOURCE_KEYS = {
    ("lake", "items"): ["lake", "items"],
    ("state", "consent"): ["privacy", "consent_ledger"],
}


class Translator(DagsterDbtTranslator):  # type: ignore[misc]
    """Asset key = schema/name; group = schema; owner = meta.owner, else that of the dbt group. All sources over the lake are
    one asset. What a segment's meta says becomes tags, words of its description, and how fresh it has to be."""

    def __init__(self) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        props = dbt_resource_props
        if props["resource_type"] == "source":
            return dg.AssetKey(_SOURCE_KEYS.get((props["source_name"], props["name"]), ["lake", "accepted"]))
        return dg.AssetKey([props["schema"], props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        return str(dbt_resource_props["schema"])

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> list[str]:
        owner = dbt_resource_props.get("config", {}).get("meta", {}).get("owner")
        group = dbt_resource_props.get("group")
        if not owner and isinstance(group, dict):  # dagster-dbt puts the whole group here, where there is one
            owner = group["owner"].get("email")
        return [owner] if owner else []

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        description, meta = str(dbt_resource_props.get("description", "")), segment_meta(dbt_resource_props)
        return f"{description}\n\n{words_of(meta)}" if meta else description

    def get_tags(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, str]:
        meta = segment_meta(dbt_resource_props)
        said = {f"segment/{key}": str(getattr(meta, key)) for key in _TAGS} if meta else {}
        return {**super().get_tags(dbt_resource_props), **said}

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        spec: dg.AssetSpec = super().get_asset_spec(manifest, unique_id, project)
        meta = segment_meta(self.get_resource_props(manifest, unique_id))
        spec = spec.replace_attributes(freshness_policy=freshness(meta)) if meta else spec
        return spec


_TAGS = ("purpose", "legal_basis", "entity", "ttl_days", "access_level", "min_size")


def segment_meta(dbt_resource_props: Mapping[str, Any]) -> SegmentMeta | None:
    """The meta of a segment; None for every other node."""
    if dbt_resource_props["resource_type"] != "model" or not dbt_resource_props["name"].startswith(PREFIX):
        return None
    return SegmentMeta.model_validate(dbt_resource_props["config"]["meta"])


def freshness(meta: SegmentMeta) -> dg.FreshnessPolicy:
    """Built so long ago, everybody in a segment has expired: it fails then, and warns after half of that time."""
    whole = timedelta(days=meta.ttl_days)
    return dg.FreshnessPolicy.time_window(fail_window=whole, warn_window=whole / 2)


def words_of(meta: SegmentMeta) -> str:
    """What a segment's meta says, for people."""
    return (
        f"Grain: one {meta.entity}. For {meta.purpose}, by {meta.legal_basis}. A member leaves after {meta.ttl_days} days "
        f"unless qualified again. Access: {meta.access_level}; below {meta.min_size} members in the restricted store only."
    )


def dbt_environment(pipeline: Pipeline) -> dict[str, str]:
    """Variables that the profile reads; dbt's own telemetry is off."""
    return {
        "ZANTARA_WAREHOUSE": str(pipeline.home.warehouse),
        "ZANTARA_SCRATCH": str(pipeline.home.scratch),
        "ZANTARA_MEMORY_LIMIT": pipeline.settings.memory_limit,
        "ZANTARA_THREADS": str(pipeline.settings.threads),
        "DBT_LOG_PATH": str(pipeline.home.dbt / "logs"),
        "DBT_PROFILES_DIR": str(pipeline.dbt_project),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }


def model_files(pipeline: Pipeline) -> list[Path]:
    """Everything of the dbt project that decides what is built."""
    kinds = (".sql", ".yml")
    return sorted(p for p in pipeline.dbt_project.rglob("*") if p.suffix in kinds and "target" not in p.parts)


def ensure_manifest(pipeline: Pipeline) -> Path:
    """The manifest of the project as it is now; parsed only when a file of it or dbt changed since the last time.

    Beside it lies what dbt itself reads (`pipeline.parsed`): the same in dbt's own format.
    """
    mark, current = pipeline.manifest.with_name("manifest.hash"), _project_digest(pipeline)
    whole = pipeline.manifest.exists() and pipeline.parsed.exists() and mark.exists()
    if whole and mark.read_text() == current:
        return pipeline.manifest
    target = pipeline.home.dbt / f"parse-{os.getpid()}"
    command = [
        sys.executable,
        "-m",
        "zantara_pipeline.orchestration.dbt_child",
        "parse",
        "--project-dir",
        str(pipeline.dbt_project),
    ]
    done = subprocess.run(
        [*command, "--target-path", str(target), "--quiet"],
        env=os.environ | dbt_environment(pipeline), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        problem = " ".join((done.stdout + done.stderr).split())[-600:]
        raise InputError(
            f"the dbt project does not parse: {problem}", pipeline.dbt_project, "mend the model or YAML named"
        )
    pipeline.manifest.parent.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)  # killed between the two, both are made again
    for kept in (pipeline.parsed, pipeline.manifest):
        (target / kept.name).replace(kept)
    mark.write_text(current)
    for path in target.iterdir():
        path.unlink()
    target.rmdir()
    return pipeline.manifest


def _project_digest(pipeline: Pipeline) -> str:
    digest = hashlib.sha256(version("dbt-core").encode())
    for path in model_files(pipeline):
        digest.update(path.relative_to(pipeline.dbt_project).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compile_draft(pipeline: Pipeline, sql: str, meta: Mapping[str, Any]) -> str:
    """The members that a draft of a segment would have, as SQL for the warehouse; nothing is built or kept.

    Raises
    ------
    InputError : dbt cannot compile it.
    """
    ensure_manifest(pipeline)
    wrapped = (
        f"{{{{ config(meta={dict(meta)!r}) }}}}{{% set select_sql %}}{sql}{{% endset %}}"
        f"{{{{ members_of(select_sql, {dict(meta)!r}) }}}}"
    )
    with tempfile.TemporaryDirectory(dir=pipeline.home.scratch) as target:
        command = [sys.executable, "-m", "zantara_pipeline.orchestration.dbt_child", PARSED, str(pipeline.parsed),
                   "compile", "--inline", wrapped, "--project-dir", str(pipeline.dbt_project), "--target-path", target,
                   "--output", "json", "--quiet", "--no-introspect", "--no-populate-cache"]  # fmt: skip
        done = subprocess.run(command, env=os.environ | dbt_environment(pipeline), capture_output=True, text=True)
    if done.returncode != 0:
        problem = " ".join((done.stdout + done.stderr).split())[-400:]
        raise InputError(f"the draft does not compile: {problem}", None, "mend the SELECT")
    return str(json.loads(done.stdout)["compiled"])


def column_descriptions(manifest: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(schema, table) -> column -> description, of every model."""
    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    return {
        (node["schema"], node["name"]): {name: column["description"] for name, column in node["columns"].items()}
        for node in nodes
        if node["resource_type"] == "model"
    }


# What a build prints is in the run's log. The same once more in a file, with every statement, is 3 MB and a tenth of its CPU;
# the manifest is there already, and rewriting it in place could leave half of it behind a kill.
_SAY_LESS = ["--log-level-file", "none", "--no-write-json"]


class Dbt(DbtCliResource):  # type: ignore[misc]
    """dagster-dbt's resource without what nothing here asks for: before every build it would start dbt twice more, once for
    its version and once in this process, for row counts and columns read through an adapter (2.4 CPU seconds)."""

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> None:
        return None

    @property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))


def dbt_resource(pipeline: Pipeline) -> Dbt:
    return Dbt(
        project_dir=str(pipeline.dbt_project),
        profiles_dir=str(pipeline.dbt_project),
        dbt_executable=str(Path(sys.executable).parent / "zantara-dbt"),
        global_config_flags=[PARSED, str(pipeline.parsed), *_SAY_LESS],
    )


def build_dbt_assets(pipeline: Pipeline) -> dg.AssetsDefinition:
    """All models as one step: dbt's start costs 3 CPU seconds, so there is one `dbt build` a run."""

    @dbt_assets(
        manifest=ensure_manifest(pipeline), dagster_dbt_translator=Translator(), name="dbt_models", pool="warehouse"
    )
    def dbt_models(
        context: dg.AssetExecutionContext, dbt: DbtCliResource, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[Any]:
        ensure_manifest(
            pipeline
        )  # models may have changed since this process loaded the graph, and dbt does not look itself
        build = fingerprint(pipeline.plan, model_files(pipeline))
        with pipeline.warehouse() as con:
            prepared = prepare(
                con, pipeline.home, pipeline.ledger, pipeline.plan, build=build, as_of=pipeline.as_of(context),
                max_lateness_days=pipeline.settings.max_lateness_days,
            )  # fmt: skip
        os.environ.update(dbt_environment(pipeline))
        arguments = ["build", *(["--full-refresh"] if prepared.full else [])]
        target = pipeline.home.dbt / "target"
        events = dbt.cli(arguments, context=context, target_path=target).stream()
        yield from naming_columns(events, target / "compiled", pipeline.warehouse)
        with pipeline.warehouse() as con:
            mark_staged(con, build)

    return dbt_models  # type: ignore[no-any-return]
