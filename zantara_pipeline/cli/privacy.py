"""`zantara privacy`: what is done to stored data for the sake of the people in it.

Belongs here: arguments and printing. Does not belong here: how it is done (tracking/key_rotation.py).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from zantara_pipeline.settings import load_settings

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
    home = Home(settings.home).create()
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
