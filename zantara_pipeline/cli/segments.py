"""`zantara segments`: what segments there are, who is in them and why, and what a draft would be.

Belongs here: arguments and printing. Does not belong here: reading and deciding (segments/).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from zantara_pipeline.cli.table import print_table
from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.engine import published
from zantara_pipeline.storage.home import Home

app = typer.Typer(help="Segments: who is in them, and why.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Restricted = Annotated[
    bool, typer.Option("--restricted", help="Read the restricted store, which has small and restricted segments, too.")
]
Name = Annotated[str, typer.Argument(help="Name of a segment, like seg_recent_buyers.")]

_COLUMNS = ("segment", "size", "ttl_days", "owner", "purpose", "legal_basis", "entity", "access_level", "min_size",
            "refreshed_at")  # fmt: skip
_SHOWN = 4  # what fits 80 columns; --json has the rest


@app.callback()
def _group() -> None:
    """Segments: who is in them, and why."""


@app.command("list")
def list_segments(restricted: Restricted = False, as_json: AsJson = False) -> None:
    """All segments with size, owner, purpose and TTL, as of the last run.

    Example: zantara segments list --json
    """
    rows = _read(restricted, f"SELECT {', '.join(_COLUMNS)} FROM segments.catalog ORDER BY segment")
    if as_json:
        _print_json(rows)
        return
    print_table(_COLUMNS[:_SHOWN], (_row(row) for row in rows), whole=("segment",))


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    size = "hidden" if told["size"] is None else f"{told['size']:,}"
    return told["segment"], size, str(told["ttl_days"]), told["owner"]


@app.command("show")
def show(name: Name, restricted: Restricted = False, as_json: AsJson = False) -> None:
    """One segment: what it says of itself, whom it shares with others, its SELECT.

    Example: zantara segments show seg_recent_buyers
    """
    told = _segment(name, restricted)
    told["overlap"] = _read(restricted, _OVERLAP_SQL, name=name)
    if as_json:
        _print_json(told)
        return
    for key, value in told.items():
        if key not in ("sql", "overlap"):
            said = "hidden: too few members, or restricted" if key == "size" and value is None else value
            print(f"{key:13} {said}")
    for other in told["overlap"]:
        print(f"{'shares':13} {other['shared']:,} of {other['size']:,} with {other['segment']}")
    print(f"\n{told['sql']}")


_OVERLAP_SQL = """
    SELECT CASE WHEN segment_a = $name THEN segment_b ELSE segment_a END AS segment, shared,
        CASE WHEN segment_a = $name THEN size_b ELSE size_a END AS size, jaccard
    FROM segments.overlap WHERE $name IN (segment_a, segment_b) ORDER BY shared DESC, segment
"""


@app.command("members")
def members(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    restricted: Restricted = False,
    as_json: AsJson = False,
) -> None:
    """Members of a segment, those who stay longest first; nobody whose time is over.

    Example: zantara segments members seg_cart_abandoners --limit 5
    """
    told = _segment(name, restricted)
    if told["size"] is None:
        raise InputError(
            f"{name} is readable in the restricted store only (access: {told['access_level']}, at least "
            f"{told['min_size']} members)", None, "those who may read it give --restricted",
        )  # fmt: skip
    rows = _read(
        restricted, f"SELECT * FROM segments.{told['segment']} ORDER BY expires_at DESC, entity_id LIMIT {limit}"
    )
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        others = [
            f"{key} {value}" for key, value in row.items() if key not in ("entity_id", "entered_at", "expires_at")
        ]
        print(
            f"{row['entity_id']}  {row['entered_at']:%Y-%m-%d} to {row['expires_at']:%Y-%m-%d}  {', '.join(others)}".rstrip()
        )


@app.command("why")
def why(
    user: Annotated[str, typer.Argument(help="Id of a person (or of another entity, with --entity).")],
    entity: Annotated[str, typer.Option(help="user, device, organisation or session.")] = "user",
    as_json: AsJson = False,
) -> None:
    """In which segments somebody is, and which rows of which events put them there, as of the last run.

    Reads the warehouse, which is restricted, and closed while a run writes.

    Example: zantara segments why u-17
    """
    from zantara_pipeline.segments.why import reading_warehouse
    from zantara_pipeline.segments.why import why as answer

    kinds = ("user", "device", "organisation", "session")
    if entity not in kinds:
        raise InputError("there is no such kind of entity", "--entity", f"one of {', '.join(kinds)}")
    with reading_warehouse(Home(load_settings().home)) as con:
        found = answer(con, user, entity)
    if as_json:
        _print_json({"now": [asdict(one) for one in found.now], "left": list(found.left)})
        return
    for one in found.now:
        says = "".join(f", {key} {value}" for key, value in one.says.items())
        print(f"{one.segment}: since {one.entered_at:%Y-%m-%d}, until {one.expires_at:%Y-%m-%d}{says}")
        for event in one.evidence:
            print(f"  {_told(event, entity)}")
    if not found.now:
        print("in no segment")
    for row in found.left:
        print(f"left {row['segment']} on {row['exited_at']:%Y-%m-%d}: {row['exit_reason']}")


def _told(event: dict[str, Any], entity: str) -> str:
    where = f"{event['source']} line {event['line_no']}" if "source" in event else ""
    apart = {"event", "occurred_at", "received_at", "event_id", "source", "line_no", f"{entity}_id"}
    said = " ".join(f"{key}={value}" for key, value in event.items() if key not in apart)
    return f"{event['occurred_at']:%Y-%m-%d %H:%M} {event['event']} {said} (event {event['event_id']}, {where})"


@app.command("preview")
def preview(
    file: Annotated[Path, typer.Argument(help="A draft: one SELECT; its meta in a YAML of the same folder.")],
    as_json: AsJson = False,
) -> None:
    """What a draft would be at the clock of the last run: size, overlap, and what its meta lacks. Writes nothing.

    Exits with 1 if `zantara run` would refuse it.

    Example: zantara segments preview drafts/seg_window_shoppers.sql
    """
    from zantara_pipeline.orchestration.dbt import compile_draft
    from zantara_pipeline.orchestration.pipeline import Pipeline
    from zantara_pipeline.segments.preview import preview as ask
    from zantara_pipeline.segments.preview import read_draft
    from zantara_pipeline.segments.why import reading_warehouse

    pipeline = Pipeline(load_settings())
    draft = read_draft(file, pipeline.plan.purposes)
    with reading_warehouse(pipeline.home):
        pass  # whether there is one is said before dbt takes its seconds
    sql = compile_draft(pipeline, draft.sql, draft.tried_with)
    with reading_warehouse(pipeline.home) as con:
        found = ask(con, sql, draft.tried_with["entity"])
    if as_json:
        _print_json({**asdict(found), "tried_with": draft.tried_with, "faults": list(draft.faults)})
    else:
        tried = ", ".join(f"{key} {value}" for key, value in draft.tried_with.items())
        print(f"{found.size:,} members ({tried})")
        for other in sorted(found.shared, key=lambda other: (-other.shared, other.segment)):
            print(f"  shares {other.shared:,} of {other.size:,} with {other.segment}")
        for fault in draft.faults:
            print(f"to mend: {fault}")
    if draft.faults:
        raise typer.Exit(1)


export_app = typer.Typer(help="Segments that are handed to others, by pseudonym.", no_args_is_help=True)
app.add_typer(export_app, name="export")
Destination = Annotated[str, typer.Argument(help="Name of a destination of privacy.yaml.", metavar="DEST")]


@export_app.command("list")
def export_list(as_json: AsJson = False) -> None:
    """Destinations of privacy.yaml: who receives which segments, how many members, and since when.

    Example: zantara segments export list
    """
    found = _exports()
    if as_json:
        _print_json(found)
        return
    for one in found:
        sizes = ", ".join(f"{s['segment']} {_count(s['shown_now'])}" for s in one["handed_out"]) or ", ".join(
            one["segments"]
        )
        print(f"{one['name']}: {one['state']}. {one['recipient']}. {sizes}")
    if not found:
        print("no destinations; docs/how-to-export-segments.md says how to add one")


@export_app.command("show")
def export_show(name: Destination, as_json: AsJson = False) -> None:
    """One destination: who receives what and for which purposes, the file, its key and its segments. Names nobody.

    Example: zantara segments export show ad_network
    """
    one = next((one for one in _exports() if one["name"] == name), None)
    if one is None:
        raise InputError("there is no destination of this name", name, "see `zantara segments export list`")
    if as_json:
        _print_json(one)
        return
    for key in ("name", "state", "description", "recipient", "owner", "purposes", "file", "key_id", "as_of"):
        said = ", ".join(one[key]) if key == "purposes" else one[key]
        print(f"{key:13} {'none yet' if said is None else said}")
    for segment in one["handed_out"]:
        print(f"{'segment':13} {segment['segment']}: {_count(segment['shown_now'])} ({segment['entity']}, {segment['purpose']}, "
              f"{segment['ttl_days']} days, at least {segment['min_size']})")  # fmt: skip


def _count(members: int) -> str:
    return f"{members:,}" if members else "too few to hand out"


def _exports() -> list[dict[str, Any]]:
    """Every destination as the contract has it, with what its file says; a file of no destination is told, too."""
    from zantara_pipeline.segments.exports import files, told
    from zantara_pipeline.tracking.plan import load_plan

    settings = load_settings()
    home, declared = Home(settings.home), load_plan(settings.contract_dirs).privacy.destinations
    written = {name: told(path) | {"file": str(path)} for name, path in files(home).items()}
    found = []
    for destination in declared:
        file = written.pop(destination.name, {})
        off = "off, and its file goes with the next run" if file else "off"
        state = off if not destination.enabled else "written" if file else "not written yet"
        found.append(_export(destination.model_dump(exclude={"enabled"}), state, file))
    for name, file in written.items():
        kept = {key: file[key] for key in ("description", "recipient", "purposes")}
        said = {"name": name, **kept, "owner": None, "segments": [s["segment"] for s in file["segments"]]}
        found.append(_export(said, "gone from privacy.yaml, and its file goes with the next run", file))
    return found


def _export(said: dict[str, Any], state: str, file: dict[str, Any]) -> dict[str, Any]:
    kept = {key: file.get(key) for key in ("file", "key_id", "as_of")}
    return {**said, "state": state, **kept, "handed_out": file.get("segments", [])}


def _segment(name: str, restricted: bool) -> dict[str, Any]:
    rows = _read(restricted, "SELECT * FROM segments.catalog WHERE segment = $name", name=name)
    if not rows:
        raise InputError("there is no segment of this name", name, "see `zantara segments list`")
    return rows[0]


def _read(restricted: bool, query: str, **parameters: str) -> list[dict[str, Any]]:
    home = Home(load_settings().home)
    with published(home, home.restricted_segments if restricted else None) as con:
        done = con.execute(query, parameters)
        names = [column[0] for column in done.description or ()]
        return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=str, indent=2))
