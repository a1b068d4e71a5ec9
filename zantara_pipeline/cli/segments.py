"""`zantara segments`: what segments there are."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.engine import published
from zantara_pipeline.storage.home import Home

app = typer.Typer(help="Segments.", no_args_is_help=True)

_COLUMNS = ("segment", "size", "ttl_days", "owner", "purpose", "legal_basis", "entity", "access_level", "refreshed_at")
_SHOWN = 4  # what fits 80 columns; --json has the rest


@app.callback()
def _group() -> None:
    """Segments."""


@app.command("list")
def list_segments(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """All segments with size, owner, purpose and TTL, as of the last run.

    Example: zantara segments list --json
    """
    with published(Home(load_settings().home)) as con:
        rows = con.execute(f"SELECT {', '.join(_COLUMNS)} FROM segments.catalog ORDER BY segment").fetchall()
    if as_json:
        print(json.dumps([dict(zip(_COLUMNS, row, strict=True)) for row in rows], default=str, indent=2))
        return
    table = Table(*_COLUMNS[:_SHOWN], box=None)
    for row in rows:
        table.add_row(*(str(value) for value in row[:_SHOWN]))
    Console().print(table)
