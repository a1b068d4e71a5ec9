"""`zantara privacy`: what is done to stored data for the sake of the people in it.

Belongs here: arguments and printing. Does not belong here: how it is done (privacy/, tracking/key_rotation.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from zantara_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from zantara_pipeline.privacy.erasure import Receipt
    from zantara_pipeline.storage.home import Home
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.plan import TrackingPlan

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

app = typer.Typer(help="Stored data and the people in it.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Stored data and the people in it."""


@app.command("rotate-keys")
def rotate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written again; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Turn stored hashes of direct identifiers into those of the last key. May be repeated; killed, run it again.

    Add the new key at the end of the keyring first, and keep the old ones. Values that were stored before their property
    was declared `pii: direct` are hashed too. The next `zantara run` rebuilds the tables from the first date that changed.

    Example: zantara privacy rotate-keys --dry-run
    """
    from zantara_pipeline.errors import InputError
    from zantara_pipeline.privacy.keyed_hash import load_keyring
    from zantara_pipeline.storage.home import Home, home_lock
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.key_rotation import rotate_keys
    from zantara_pipeline.tracking.migrations import refuse_unread_types
    from zantara_pipeline.tracking.plan import load_plan

    settings = load_settings()
    keyring = load_keyring(settings.pii_keys_file, settings.pii_keys_text)
    if keyring is None:
        raise InputError("no key is set", "setting ZANTARA_PII_KEYS_FILE", "name the file of the keys")
    plan = load_plan(settings.contract_dirs)
    home = Home(settings.home).existing().create()
    with home_lock(home, "zantara privacy"):
        refuse_unread_types(home, plan, settings.contract_dirs)
        done = rotate_keys(home, Ledger(home.state / "ledger.db"), plan, keyring, dry_run=dry_run)
    if as_json:
        print(json.dumps(dataclasses.asdict(done) | {"dry_run": dry_run}, indent=2, default=str))
        return
    are = "would be" if dry_run else "are"
    print(f"{done.accepted_rows:,} accepted rows in {done.accepted_files:,} files and {done.quarantine_lines:,} quarantined "
          f"lines in {done.quarantine_files:,} files {are} hashed up to key '{done.key}'")  # fmt: skip
    if done.first_date and not dry_run:
        print(f"run `zantara run` to rebuild the tables from {done.first_date}")


class _Opened(NamedTuple):
    settings: Settings
    home: Home
    ledger: Ledger
    plan: TrackingPlan


@contextmanager
def _opened(*, write: bool) -> Iterator[_Opened]:
    """A home that exists, held against other writers where something is written."""
    from zantara_pipeline.errors import InputError
    from zantara_pipeline.storage.home import Home, home_lock
    from zantara_pipeline.storage.ledger import Ledger
    from zantara_pipeline.tracking.plan import load_plan

    settings = load_settings()
    home, plan = Home(settings.home), load_plan(settings.contract_dirs)
    if not (home.state / "ledger.db").exists():
        raise InputError("there is no home here yet", home.root, "set ZANTARA_HOME, or run `zantara run` first")
    if not write:
        yield _Opened(settings, home, Ledger(home.state / "ledger.db"), plan)
        return
    with home_lock(home, "zantara privacy"):
        yield _Opened(settings, home, Ledger(home.state / "ledger.db"), plan)


@app.command("erase")
def erase(
    user: Annotated[str | None, typer.Argument(help="User id of the person.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="File of user ids, one a line: one erasure for all of them.", metavar="<file>")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say where the person is found; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a person from every store of the home, and prove it: found before by decoding every file, nowhere after.

    With the person go the anonymous ids and devices that were theirs alone. What lands later of them is counted and not
    stored. The tables are rebuilt by the next `zantara run`. Killed, it is finished by the next erasure or run. The receipt
    (data/receipts) names nobody. Exit code 1: nobody here has the id, or something is left.

    Example: zantara privacy erase u-17 --dry-run
    """
    from zantara_pipeline.orchestration.erasure import hands
    from zantara_pipeline.privacy import erasure as engine

    users = _users(user, file)
    with _opened(write=True) as opened:
        settings, home, ledger, plan = opened
        work = hands(settings, home, ledger, plan)
        if not dry_run:
            engine.finish_open(home, ledger, work)
        looked = (engine.look if dry_run else engine.look_to_erase)(home, ledger, work, users)
        if not looked.people.users:
            _nobody(len(users), looked.unknown, as_json)
            return
        receipt = engine.preview(looked, work) if dry_run else engine.erase(home, ledger, work, looked)
    _tell(receipt, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    problem = _problem(receipt)
    if problem:
        print(f"zantara: {problem}", file=sys.stderr)
        raise typer.Exit(1)


def _users(user: str | None, file: Path | None) -> set[str]:
    from zantara_pipeline.errors import InputError

    if (user is None) == (file is None):
        raise InputError("give one user id, or --file with one a line", "zantara privacy erase", "see --help")
    if file is None:
        users = {user or ""}
    else:
        try:
            users = {line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()} - {""}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot be read ({type(error).__name__})", file, "give a text file, one id a line"
            ) from None
        if not users:
            raise InputError("no ids in the file", file, "one id a line")
    return _sensible(users)


def _sensible(users: set[str]) -> set[str]:
    from zantara_pipeline.errors import InputError
    from zantara_pipeline.privacy.people import is_known

    if not all(map(is_known, users)):
        raise InputError(
            "this is no id of a person but a word that stands for none", "user id", "give the user's own id"
        )
    return users


def _nobody(asked: int, unknown: int, as_json: bool) -> None:
    """Nobody who was asked for is here: not yet (exit code 1), or not any more."""
    if as_json:
        print(
            json.dumps(
                {"status": "unknown" if unknown else "erased before", "asked": asked, "unknown": unknown}, indent=2
            )
        )
    elif not unknown:
        print("erased before: nothing is left of them")
    if unknown:
        print(f"zantara: nothing here names {unknown:,} of {asked:,} user ids; nothing was changed", file=sys.stderr)
        raise typer.Exit(1)


def _problem(receipt: Receipt) -> str | None:
    from zantara_pipeline.privacy.erasure import not_complete

    if receipt.status == "incomplete":
        return f"{not_complete(receipt)}; see data/receipts/{receipt.erasure_id}.json, mend it and run it again"
    if receipt.status == "unproved":
        places = ", ".join(f"{store.unreadable:,} in {store.store}" for store in receipt.stores if store.unreadable)
        return f"nothing that can be read names them, but files cannot be read ({places}); land or restore them, erase again"
    return None


def _tell(receipt: Receipt, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(receipt) | {"dry_run": dry_run}, indent=2))
        return
    print(f"{receipt.people:,} people, with {receipt.anonymous_ids:,} anonymous ids and {receipt.devices:,} devices that are theirs "
          f"alone{f'; {receipt.unknown:,} user ids are unknown here' if receipt.unknown else ''}")  # fmt: skip
    if receipt.in_fields_only:
        print(
            f"{receipt.in_fields_only:,} of their ids name something else here, too: sought where fields hold ids of people only"
        )
    for store in receipt.stores:
        if store.hits_before or store.hits_after or store.unreadable:
            after = "" if dry_run else f", after {store.hits_after:,} in {store.files_after:,}"
            print(
                f"  {store.store:30} {store.how:10} before {store.hits_before:,} values in {store.files_before:,} files{after}"
            )
    if dry_run:
        print("nothing was changed")
        return
    for place in receipt.out_of_reach:
        print(f"not reached: {place}")
    if receipt.models_marked:
        print(f"{receipt.models_marked:,} model versions are marked; to be replaced by {receipt.retrain_by}")
    print(
        f"receipt: data/receipts/{receipt.erasure_id}.json ({receipt.status}); run `zantara run` to rebuild the tables"
    )


@app.command("export")
def export(
    user: Annotated[str, typer.Argument(help="User id of the person.")],
    folder: Annotated[Path, typer.Argument(help="New or empty folder for the files.", metavar="DIR")],
    as_json: AsJson = False,
) -> None:
    """Write what is kept of a person as JSON files into one folder, for an access request.

    Events, lines that failed or were set apart, landed lines, consent, segments and recommendations, by the same ids that
    `erase` would take. Exit code 1: nobody here has the id.

    Example: zantara privacy export u-17 /tmp/u-17
    """
    from zantara_pipeline.orchestration.erasure import kept_of
    from zantara_pipeline.privacy.access import write_folder

    [user] = _sensible({user})
    with _opened(write=True) as opened:
        parts = kept_of(*opened, user)
    if parts is None:
        _nobody(1, 1, as_json)
    written = write_folder(folder, parts or {})
    if as_json:
        print(json.dumps({"folder": str(folder), "entries": written}, indent=2))
        return
    for name, entries in written.items():
        print(f"  {name:26} {entries:,}")
    print(f"written to {folder}; it names the person: hand it over safely, then remove it")


@app.command("consent")
def consent(user: Annotated[str, typer.Argument(help="User id of the person.")], as_json: AsJson = False) -> None:
    """What a person allows at the clock of the pipeline, and which record says so. Nothing said is denied.

    Example: zantara privacy consent u-17 --json
    """
    from zantara_pipeline.orchestration.erasure import clock_of
    from zantara_pipeline.privacy.access import VOICES, standing, was_erased

    with _opened(write=False) as opened:
        as_of = clock_of(opened.settings, opened.ledger)
        erased = was_erased(opened.ledger, user)
        found = standing(opened.ledger, user, opened.plan.purposes, as_of)
    if as_json:
        said = [dataclasses.asdict(entry) for entry in found]
        print(json.dumps({"as_of": as_of.isoformat(), "erased": erased, "purposes": said}, indent=2))
        return
    if erased:
        print("this person was erased: nothing of them is taken in")
    print(f"as of {as_of:%Y-%m-%d %H:%M} UTC")
    for entry in found:
        print(f"{entry.purpose}: {entry.status}, {entry.why}")
        for word in entry.records:
            mark = "*" if word in entry.because else " " if word.in_force else ">"
            print(
                f"  {mark} {word.effective_from} {word.status:8} {VOICES[word.origin]}{'' if word.in_force else ' (not in force yet)'}"
            )


@app.command("register")
def register(as_json: AsJson = False) -> None:
    """The record of processing: purposes, legal bases, stores, owners, recipients, retention, erasure.

    Example: zantara privacy register --json
    """
    from zantara_pipeline.orchestration.erasure import register_of

    settings = load_settings()
    found = register_of(settings)
    if as_json:
        print(json.dumps(found, indent=2, default=str))
        return
    for purpose in found["purposes"]:
        print(
            f"{purpose['purpose']}: {purpose['description']} Legal basis: {purpose['legal_basis']}. Events: {', '.join(purpose['events'])}"
        )
    for segment in found["segments"]:
        print(
            f"segment {segment['segment']}: {segment['purpose']}; {segment['legal_basis']}, {segment['ttl_days']} days, {segment['owner']}"
        )
    for to in found["destinations"]:
        print(
            f"destination {to['name']}: {to['recipient']}. {to['description']} For {', '.join(to['purposes'])}: "
            f"{', '.join(to['segments'])}; {to['data']}. {to['owner']}"
        )
    for store in found["stores"]:
        print(f"\n{store['name']} ({store['access']}; {store['owner']})\n  holds: {store['holds']}")
        for key in ("legal_basis", "recipients", "retention", "erasure"):
            print(f"  {key.replace('_', ' ')}: {store[key] or 'no data about people'}")
