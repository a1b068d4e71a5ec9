"""`zantara run`: the whole pipeline once."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import EventFormat, Settings, load_settings
from zantara_pipeline.storage.home import Home


def run(
    events: Annotated[
        Path | None, typer.Option(help="Folder or file of events (.jsonl, .csv, .tsv, also .gz), read in place.")
    ] = None,
    format: Annotated[
        EventFormat | None, typer.Option(help="Format of the event files; default: found by their first lines.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Catalogue CSV with a column product_id.")] = None,
    consent: Annotated[
        Path | None, typer.Option(help="Consent ledger CSV: user_id,purpose,status,effective_from.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Clock of the run, like 2026-03-02T00:00:00Z; default: latest received_at.")
    ] = None,
    simulated_shop: Annotated[
        bool, typer.Option("--simulated-shop", help="If nothing has landed yet, simulate a shop first.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON; nothing else goes to stdout.")
    ] = False,
) -> None:
    """Run the whole pipeline on what has landed.

    Example: zantara run --events exports/ --items items.csv --consent ledger.csv
    """
    paths = {"landing": events, "items": items, "consent": consent}
    for option, path in paths.items():
        if path is not None and not path.exists():
            raise InputError(
                "no such file or folder", f"--{'events' if option == 'landing' else option} {path}", "correct the path"
            )
    settings = load_settings(
        as_of=as_of, format=format, **{name: p.resolve() if p else None for name, p in paths.items()}
    )
    _contracts_are_sound(settings)
    home = Home(settings.home).create()
    # the stream itself, because steps run with sys.stdout turned to the log
    console = Console(file=sys.stderr if as_json else sys.stdout)
    _something_to_run_on(settings, home, simulated_shop, console)
    _execute(settings, console)
    _tell(home, console, as_json)
    _something_was_usable(settings, home)
    _unreadable(home)
    _something_was_taken(settings, home)


def _contracts_are_sound(settings: Settings) -> None:
    """Before anything is simulated, taken or written; the run's own process checks again for other launchers."""
    from zantara_pipeline.orchestration.preflight import check_contracts

    check_contracts(settings)


def _something_to_run_on(settings: Settings, home: Home, simulated_shop: bool, console: Console) -> None:
    from zantara_pipeline.tracking.reader import landed_paths

    truth = home.landing / "truth.json"
    if truth.exists() and (settings.landing or settings.items or settings.consent):
        raise InputError(
            "this home holds the simulated shop; two shops must not be mixed",
            home.root,
            "set ZANTARA_HOME to another folder",
        )
    landing = settings.landing or home.landing / "events"
    if landed_paths(landing) or _known_files(home):
        return
    if not simulated_shop or settings.landing is not None:
        todo = "put .jsonl or .jsonl.gz files there, or run `zantara simulate`"
        raise InputError("no event files have landed (.jsonl, .jsonl.gz)", landing, todo)
    from zantara_pipeline.cli.simulate import simulate_into

    simulate_into(home.landing, 100_000, 7, console)


def _known_files(home: Home) -> int:
    from zantara_pipeline.storage.ledger import Ledger

    with Ledger(home.state / "ledger.db").read() as db:
        return int(db.execute("SELECT count(*) FROM ingested_files").fetchone()[0])


def _execute(settings: Settings, console: Console) -> None:
    from zantara_pipeline.definitions import build_definitions
    from zantara_pipeline.orchestration.launch import RunFailed, run_pipeline

    began: dict[str, float] = {}
    with console.status("starting") as status:

        def say(kind: str, text: str) -> None:
            if kind == "start":
                began[text] = time.monotonic()
                status.update(f"{text} ...")
                if not console.is_terminal:
                    console.print(f"  [dim]start[/] {text}", highlight=False)
            elif kind == "note":
                console.print(f"  [yellow]note[/]  {text}", highlight=False)
            else:
                colour = "green" if kind == "done" else "red"
                seconds = time.monotonic() - began.get(text, time.monotonic())
                console.print(f"  [{colour}]{kind:5}[/] {text} [dim]{seconds:.1f} s[/]", highlight=False)

        try:
            run_pipeline(settings, say, build_definitions)
        except RunFailed as error:
            print(f"zantara: the run failed: {error}", file=sys.stderr)
            raise typer.Exit(1) from None


def _tell(home: Home, console: Console, as_json: bool) -> None:
    from zantara_pipeline.report import render_terminal, summary

    told = summary(home.published)
    if as_json:
        print(json.dumps(dataclasses.asdict(told), default=str, indent=2))
    else:
        render_terminal(told, console, home.reports / "index.html")


def _something_was_usable(settings: Settings, home: Home) -> None:
    """A home whose every line so far is no JSON (or that has no line) ran on nothing: that is an input error."""
    from zantara_pipeline.storage.ledger import Ledger

    with Ledger(home.state / "ledger.db").read() as db:
        files, rows, unparsable = db.execute(
            "SELECT count(*), coalesce(sum(rows_in), 0), coalesce(sum(unparsable), 0) FROM ingested_files"
        ).fetchone()
    if files and rows == unparsable:
        what = f"none of the {rows:,} landed lines is a JSON object" if rows else "every landed file is empty"
        raise InputError(
            what, settings.landing or home.landing / "events", "land JSON Lines: one event, one JSON object a line"
        )


def _unreadable(home: Home) -> None:
    """Files that were refused are said last, in one line; everything else went through."""
    from zantara_pipeline.alerts import AlertLedger

    refused = [a for a in AlertLedger(home.state / "alerts.db").alerts(open_only=True) if a.kind == "unreadable_file"]
    if refused:
        others = f" ({len(refused) - 1} more like it: `zantara alerts list`)" if len(refused) > 1 else ""
        print(f"zantara: {refused[0].message}{others}", file=sys.stderr)
        raise typer.Exit(2)


def _something_was_taken(settings: Settings, home: Home) -> None:
    """A folder with nothing but a catalogue or a consent ledger in it holds no events."""
    if not _known_files(home):
        landing = settings.landing or home.landing / "events"
        raise InputError("no event files have landed", landing, "the notes above say what the files there are")
