"""`zantara simulate`: a shop with planted truths, as landing files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.home import Home


def simulate_shop(
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: the landing folder of ZANTARA_HOME.")
    ] = None,
    events: Annotated[int, typer.Option(help="About how many lines, from 2,000 on.")] = 100_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print the planted truths as JSON.")] = False,
) -> None:
    """Write a simulated shop with planted faults and effects, and truth.json that says exactly which.

    Example: zantara simulate --events 20000 --seed 1 --out /tmp/shop
    """
    target = out if out is not None else Home(load_settings().home).create().landing
    truth = simulate_into(target, events, seed, Console(stderr=True))
    if as_json:
        print(json.dumps(dataclasses.asdict(truth), default=str, indent=2))


def simulate_into(target: Path, events: int, seed: int, console: Console) -> Any:
    """Simulate into a folder (an empty landing folder counts as empty) and say so."""
    from zantara_pipeline.simulate import simulate

    _drop_empty(target)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("simulating a shop", total=None)
        truth = simulate(
            target,
            events=events,
            seed=seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(f"simulated {truth.lines:,} lines in {target} (planted facts: truth.json)", highlight=False)
    return truth


def _drop_empty(folder: Path) -> None:
    """Landing folders are made empty with the home; the simulator wants a place of its own."""
    for path in [folder / "events", folder / "items", folder / "consent"]:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
