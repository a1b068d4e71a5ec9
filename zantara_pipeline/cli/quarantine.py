"""`zantara quarantine`: what failed, why, and the ways out of it.

Belongs here: arguments and printing. Does not belong here: reading (tracking/quarantine.py) or judging (tracking/replay.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from zantara_pipeline.settings import load_settings

app = typer.Typer(help="Lines that failed, and the ways out.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Fingerprints = Annotated[
    list[str] | None, typer.Argument(help="Kinds of failure, by the first letters of their fingerprints; none: all.")
]


FixesFile = Annotated[
    Path | None, typer.Option("--fixes", help="YAML of fixes to do to the lines first.", metavar="<file>")
]


@app.callback()
def _group() -> None:
    """Lines that failed, and the ways out."""


@app.command("list")
def list_kinds(as_json: AsJson = False) -> None:
    """Every kind of failure with its lines: same event, same reasons, one fingerprint; and what expired.

    Example: zantara quarantine list
    """
    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.quarantine import expired_kinds, kinds

    home = Home(load_settings().home).existing()
    path = home.state / "ledger.db"
    found, expired = kinds(home), expired_kinds(Ledger(path)) if path.exists() else []
    if as_json:
        _print_json([asdict(kind) for kind in [*found, *expired]])
        return
    for kind in found:
        seen = (
            f"{kind.first_seen:%Y-%m-%d} to {kind.last_seen:%Y-%m-%d}"
            if kind.first_seen and kind.last_seen
            else "no time"
        )
        print(f"{kind.fingerprint}  {kind.rows:>8,}  {kind.event or '(unreadable name)'}: {kind.reasons}  ({seen})")
    print(f"{sum(kind.rows for kind in found):,} lines in quarantine, {len(found)} kinds of failure")
    for kind in expired:
        print(f"{kind.fingerprint}  {kind.rows:>8,}  {kind.event or '(unreadable name)'}: {kind.reasons}  (expired)")


@app.command("show")
def show(
    fingerprint: Annotated[str, typer.Argument(help="A kind of failure, by the first letters of its fingerprint.")],
    payloads: Annotated[int, typer.Option(min=0, help="Print so many lines whole; they hold what people did.")] = 0,
    as_json: AsJson = False,
) -> None:
    """One kind of failure: what was expected, what was there, in which files.

    Example: zantara quarantine show 0f3a --payloads 1
    """
    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.tracking import quarantine

    home = Home(load_settings().home).existing()
    found = quarantine.detail(home, fingerprint)
    lines = quarantine.payloads(home, fingerprint, payloads) if payloads else iter(())
    if as_json:
        _print_json_with(asdict(found), "payloads", lines)
        return
    print(
        f"{found.kind.rows:,} lines of {found.kind.event or '(unreadable name)'}, judged {found.kind.attempts} times at most"
    )
    for reason in found.reasons:
        print(
            f"  {reason['code']} {reason['path']}: expected {reason['expected']}, is {reason['actual_type']} ({reason['rows']:,})"
        )
    _say_hashed(found.hashed)
    for source, rows, first in found.places:
        print(f"  {source}: {rows:,} lines, the first is line {first}")
    for line in lines:
        print(line)


@app.command("diff")
def diff(fingerprints: Fingerprints = None, fixes: FixesFile = None, as_json: AsJson = False) -> None:
    """The verdicts that stand beside those of the plan as it is now. Nothing is written.

    Example: zantara quarantine diff
    """
    from zantara_pipeline.tracking import replay as engine

    found = _with_home(
        lambda home, ledger, rules: engine.diff(
            home, ledger, rules, fingerprints=_whole(home, fingerprints), fixes=_fixes(home, rules.plan, fixes)
        ),
        judging=True,
    )
    if as_json:
        _print_json([asdict(change) for change in found])
        return
    for change in found:
        if change.was != change.now:
            name = change.event or "(unreadable name)"
            print(f"{change.fingerprint}  {change.rows:>8,}  {name}: {change.was} -> {change.now}")
    same = sum(change.rows for change in found if change.was == change.now)
    print(f"{sum(change.rows for change in found):,} lines judged again, {same:,} with the same verdict")
    _say_hashed(sum(change.hashed for change in found))


@app.command("replay")
def replay(
    fingerprints: Fingerprints = None,
    fixes: FixesFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would become of them; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge quarantined lines by the plan as it is now; those that pass go where they belonged. May be repeated.

    The next `zantara run` rebuilds the tables from the first received date that changed.

    Example: zantara quarantine replay --dry-run
    """
    from zantara_pipeline.tracking import replay as engine

    done = _with_home(
        lambda home, ledger, rules: engine.replay(
            home,
            ledger,
            rules,
            fingerprints=_whole(home, fingerprints),
            fixes=_fixes(home, rules.plan, fixes),
            dry_run=dry_run,
        ),
        judging=True,
    )
    touched, copies = sorted(done.touched_dates), sorted(done.duplicate_dates)
    if as_json:
        dates = {"touched_dates": touched, "duplicate_dates": copies, "quarantine_dates": sorted(done.quarantine_dates)}
        _print_json(asdict(done) | dates | {"dry_run": dry_run})
        return
    would = "would be" if dry_run else "are"
    print(f"{done.rows:,} lines judged: {done.accepted:,} {would} accepted, {done.quarantined:,} fail again, "
          f"{done.suppressed:,} have no consent any more and {would} dropped")  # fmt: skip
    _say_hashed(done.hashed)
    if touched:
        print(f"received dates with new rows: {', '.join(map(str, touched))}")
        print(f"dates that may hold copies of them: {', '.join(map(str, copies)) or 'none'}")
        if not dry_run:
            print("run `zantara run` to rebuild the tables from there")


def _say_hashed(lines: int) -> None:
    if lines:
        print(
            f"  {lines:,} of them hold a direct identifier that failed and was hashed then: no change of the plan lets such a "
            "line pass; drop the identifier by a fix, discard the lines, or have them sent again"
        )


@app.command("discard")
def discard(
    fingerprint: Annotated[str, typer.Argument(help="A kind of failure, by the first letters of its fingerprint.")],
    reason: Annotated[str, typer.Option(help="Why these lines are given up; it is recorded.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many lines would go, and remove none.")] = False,
) -> None:
    """Remove the lines of one kind of failure for good. Counts stay; who reads them later finds the reason.

    Example: zantara quarantine discard 0f3a --reason "test traffic of the new app"
    """
    from zantara_pipeline.errors import InputError
    from zantara_pipeline.tracking import replay as engine

    if not reason.strip():
        raise InputError("the reason is empty", "--reason", "say why these lines are given up; it is recorded")
    rows = _with_home(
        lambda home, ledger, rules: engine.discard(
            home, ledger, _whole(home, [fingerprint])[0], reason, dry_run=dry_run
        )
    )
    print(f"{rows:,} lines {'would be removed; nothing was written' if dry_run else 'removed'}")


@app.command("erase")
def erase(
    users: Annotated[
        Path,
        typer.Option(
            help="File of user, anonymous or device ids, or e-mail addresses and the like; one a line.",
            metavar="<file>",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Remove every line that names one of these people, wherever it does, also by an identifier that is hashed there. Counts stay; whose lines went is not kept.

    Only the quarantine is reached; storage/inventory.py lists the other stores.

    Example: zantara quarantine erase --users ids.txt
    """
    from zantara_pipeline.tracking.quarantine_erasure import erase_quarantined

    ids = _ids(users)
    rows = _with_home(lambda home, ledger, rules: erase_quarantined(home, ledger, ids, rules.keyring))
    if as_json:
        _print_json({"ids": len(ids), "lines_removed": rows})
    else:
        print(f"{rows:,} lines of {len(ids):,} ids removed from quarantine")


def _ids(file: Path) -> set[str]:
    from zantara_pipeline.errors import InputError

    try:
        ids = {line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({type(error).__name__})", file, "give a text file, one id a line") from None
    if not ids:
        raise InputError("no ids in the file", file, "one id a line")
    return ids


def _whole(home: Any, prefixes: list[str] | None) -> Any:
    from zantara_pipeline.tracking.quarantine import fingerprints_of

    return fingerprints_of(home, prefixes) if prefixes else None


def _fixes(home: Any, plan: Any, file: Path | None) -> Any:
    from zantara_pipeline.tracking.fixes import load_fixes
    from zantara_pipeline.tracking.quarantine import settled

    return None if file is None else settled(home, plan, load_fixes(file), file)


def _with_home(work: Callable[[Any, Any, Any], Any], *, judging: bool = False) -> Any:
    """Do something to the home while nobody else does."""
    from zantara_pipeline.privacy.keyed_hash import load_keyring
    from zantara_pipeline.storage.home import Home, home_lock
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.direct import refuse_missing_keys
    from zantara_pipeline.tracking.migrations import refuse_unread_types
    from zantara_pipeline.tracking.plan import load_plan
    from zantara_pipeline.tracking.verdict import Rules

    settings = load_settings()
    rules = Rules(
        load_plan(settings.contract_dirs),
        settings.late_after_hours,
        settings.max_lateness_days,
        keyring=load_keyring(settings.pii_keys_file, settings.pii_keys_text),
    )
    if judging:
        refuse_missing_keys(rules.plan, rules.keyring, settings.contract_dirs)
    home = Home(settings.home).existing().create()
    with home_lock(home, "zantara quarantine"):
        refuse_unread_types(home, rules.plan, settings.contract_dirs)  # a replay writes the plan's types into the lake
        return work(home, Ledger(home.state / "ledger.db"), rules)


def _print_json(value: Any) -> None:
    print(_json(value))


def _print_json_with(value: dict[str, Any], key: str, texts: Iterator[str]) -> None:
    """An object with one more member, a list of texts, which are printed as they come: together they may fill the memory."""
    print(_json(value).removesuffix("\n}"), end=f',\n  "{key}": [')
    between = ""
    for text in texts:
        print(between, json.dumps(text), sep="\n    ", end="")
        between = ","
    print("\n  ]\n}" if between else "]\n}")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=lambda v: v.isoformat() if isinstance(v, datetime) else str(v))
