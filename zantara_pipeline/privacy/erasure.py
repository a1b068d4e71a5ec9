"""Erasure of people from a whole home, proved.

In order: who they are; a control, which finds them by decoding every file (decoding.py); the request is written down, so
that whatever is killed from here on is finished by the next erasure or run; tombstones, so that nothing of them is taken
in any more; every store in turn; the same search again, which has to find nothing; a receipt; the request is removed.

An erasure does not trust itself. Where a store's own query finds the person and the control does not, the control is blind
there, and nothing is erased. Where the search finds them afterwards, the erasure is not complete: the request stays open,
and no run goes on before somebody has looked.

Belongs here: that order, the request, the receipt. Does not belong here: how a store is erased: the lake and landed files
(tracking/), models (recommend/) are handed in; tables are in erased_tables.py.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import utc_text
from zantara_pipeline.privacy.decoding import Found, scan
from zantara_pipeline.privacy.erased_tables import drop_warehouse, erase_from_ledger, erase_published
from zantara_pipeline.privacy.people import People
from zantara_pipeline.privacy.tombstones import load_tombstones, make_key, write_tombstones
from zantara_pipeline.storage.engine import clear_scratch
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.inventory import STORES, store_of
from zantara_pipeline.storage.ledger import Ledger

Status = Literal["complete", "unproved", "incomplete"]


@dataclass(frozen=True)
class Hands:
    """What higher rooms do for an erasure.

    whose : the ids that are these users' alone.
    held : store -> how much of these people its own query finds there; asks nothing that the proof asks.
    landed, lake : take them out of landed files; out of the lake and the restricted stores.
    models : mark and clean stored models, to be replaced by a time; returns how many.
    exports : take them out of files that are handed out, by their pseudonyms.
    retrain_days : how long a model may serve that was trained on somebody who was erased.
    out_of_reach : places that feed this home and do not belong to it, in words.
    """

    whose: Callable[[Collection[str]], People]
    held: Callable[[People], dict[str, int]]
    landed: Callable[[People], object]
    lake: Callable[[People], object]
    models: Callable[[People, datetime], int]
    exports: Callable[[People], object]
    retrain_days: int
    out_of_reach: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreResult:
    """One store: files and values that named somebody, before and after; files that nobody can read."""

    store: str
    how: str
    files_before: int
    hits_before: int
    files_after: int = 0
    hits_after: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Receipt:
    """What an erasure did; names nobody.

    people : those who were found; unknown : those of whom nothing was here.
    in_fields_only : how many of their ids name something else here, too, and were sought in fields of people only.
    """

    erasure_id: str
    requested_at: str
    finished_at: str | None
    status: Status
    people: int
    unknown: int
    anonymous_ids: int
    devices: int
    stores: list[StoreResult]
    models_marked: int = 0
    retrain_by: str | None = None
    out_of_reach: list[str] = field(default_factory=list)
    in_fields_only: int = 0

    @property
    def hits_before(self) -> int:
        return sum(store.hits_before for store in self.stores)

    @property
    def hits_after(self) -> int:
        return sum(store.hits_after for store in self.stores)


@dataclass(frozen=True)
class Looked:
    """Before anything is done. known_before : users who were erased here already and of whom nothing is left."""

    people: People
    unknown: int
    known_before: int
    found: dict[str, Found]


def look(home: Home, ledger: Ledger, hands: Hands, users: Collection[str]) -> Looked:
    """Resolve identities and run the control; nothing is written.

    Raises
    ------
    InputError : the control finds nobody in a store that holds somebody: it cannot prove anything there.
    """
    people = hands.whose(users)
    matcher = people.matcher
    found = scan(home, people, besides=_under_way(home))
    for store, held in hands.held(people).items():
        if held and not found.get(store, Found()).hits:
            what = (
                f"the control search finds nothing in the store '{store}', which holds {held:,} values of these people"
            )
            raise InputError(what, home.root, "nothing was erased; tell those who look after the pipeline")
    gone = [user for user in people.users if user not in matcher.found]
    tombstones = load_tombstones(ledger)
    before = len(tombstones.covered("user", gone)) if tombstones else 0
    return Looked(_only(people, matcher.found), len(gone) - before, before, found)


def look_to_erase(home: Home, ledger: Ledger, hands: Hands, users: Collection[str]) -> Looked:
    """`look`, for somebody who asked for an erasure: killed meanwhile, `finish_open` looks again and erases.

    To look takes as long as to read the home. Whoever asked and is not there, or can't be looked for, is forgotten again.
    """
    _write(asked_file(home), {"users": sorted(users)})
    try:
        looked = look(home, ledger, hands, users)
    except Exception:
        asked_file(home).unlink()
        raise
    if not looked.people.users:
        asked_file(home).unlink()
    return looked


def _only(people: People, found: Collection[str]) -> People:
    known = people.users & frozenset(found)
    return replace(people, users=known) if known else People(frozenset())


def erase(home: Home, ledger: Ledger, hands: Hands, looked: Looked) -> Receipt:
    """Erase those who were looked for; killed, `finish_open` ends it."""
    request = _Request.new(looked, hands)
    request.save(home)
    asked_file(home).unlink(missing_ok=True)
    return _carry_out(home, ledger, hands, request)


def preview(looked: Looked, hands: Hands) -> Receipt:
    """What an erasure would find, as a receipt that was never finished."""
    request = _Request.new(looked, hands)
    return _receipt(request, "incomplete", None, {}, hands)


def finish_open(home: Home, ledger: Ledger, hands: Hands) -> Receipt | None:
    """End an erasure that was killed, or try again one that was not complete; None where there is none, or nobody is found.

    Raises
    ------
    InputError : it is not complete now either.
    """
    request, asked = _Request.open(home), _asked(home)
    if request is not None:
        receipt = _carry_out(home, ledger, hands, request)
    elif asked:
        looked = look(home, ledger, hands, asked)
        if not looked.people.users:
            asked_file(home).unlink()
            return None
        receipt = erase(home, ledger, hands, looked)
    else:
        return None
    if receipt.status == "incomplete":
        raise InputError(not_complete(receipt), receipt_file(home, receipt.erasure_id), "mend it, then run it again")
    return receipt


def not_complete(receipt: Receipt) -> str:
    """One line about what is left; names stores and nobody."""
    left = [f"{store.hits_after:,} in {store.store}" for store in receipt.stores if store.hits_after]
    return f"an erasure is not complete: values that name somebody are left ({', '.join(left)})"


def receipt_file(home: Home, erasure_id: str) -> Path:
    return home.receipts / f"{erasure_id}.json"


def request_file(home: Home) -> Path:
    """Holds the ids of an erasure while it is under way, and no longer."""
    return home.state / "erasure.open.json"


def asked_file(home: Home) -> Path:
    """Holds the ids of whom an erasure was asked for while they are looked for."""
    return home.state / "erasure.asked.json"


def _under_way(home: Home) -> set[Path]:
    return {request_file(home), asked_file(home)}


def _asked(home: Home) -> list[str]:
    path = asked_file(home)
    if not path.exists():
        return []
    try:
        return [str(user) for user in json.loads(path.read_text(encoding="utf-8"))["users"]]
    except (OSError, ValueError, KeyError, TypeError):
        what = "the erasure that was asked for cannot be read"
        raise InputError(what, path, "remove it and ask for the erasure again") from None


@dataclass(frozen=True)
class _Request:
    erasure_id: str
    requested_at: str
    people: People
    unknown: int
    before: dict[str, StoreResult]
    retrain_by: datetime

    @classmethod
    def new(cls, looked: Looked, hands: Hands) -> _Request:
        now = datetime.now(UTC)
        before = {
            name: StoreResult(name, _how(name), len(found.files), found.hits, unreadable=len(found.unreadable))
            for name, found in sorted(looked.found.items())
        }
        due = now + timedelta(days=hands.retrain_days)
        return cls(uuid.uuid4().hex[:16], utc_text(now), looked.people, looked.unknown, before, due)

    @classmethod
    def open(cls, home: Home) -> _Request | None:
        path = request_file(home)
        if not path.exists():
            return None
        try:
            # of earlier versions without any
            kept = {"pseudonyms": [], "elsewhere": [], "fields": [], **json.loads(path.read_text(encoding="utf-8"))}
            ids = ("users", "anonymous", "devices", "pseudonyms", "elsewhere", "fields")
            people = People(*(frozenset(kept[name]) for name in ids))
            before = {name: StoreResult(**values) for name, values in kept["before"].items()}
            due = datetime.fromisoformat(kept["retrain_by"])
            return cls(kept["erasure_id"], kept["requested_at"], people, kept["unknown"], before, due)
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                "the open erasure cannot be read", path, "remove it and ask for the erasure again"
            ) from None

    def save(self, home: Home) -> None:
        kept: dict[str, Any] = {
            "erasure_id": self.erasure_id, "requested_at": self.requested_at, "users": sorted(self.people.users),
            "anonymous": sorted(self.people.anonymous), "devices": sorted(self.people.devices), "unknown": self.unknown,
            # so that a killed erasure needs no key to be finished
            "pseudonyms": sorted(self.people.pseudonyms), "elsewhere": sorted(self.people.elsewhere),
            "fields": sorted(self.people.fields),
            "before": {name: asdict(result) for name, result in self.before.items()}, "retrain_by": self.retrain_by.isoformat(),
        }  # fmt: skip
        _write(request_file(home), kept)


def _carry_out(home: Home, ledger: Ledger, hands: Hands, request: _Request) -> Receipt:
    """Every step may be done again; the first thing that is certain is that nothing of them comes in any more."""
    people, now = request.people, utc_text(datetime.now(UTC))
    key = make_key(ledger)
    with ledger.transaction() as db:
        write_tombstones(db, key, people, request.erasure_id, request.requested_at)
    hands.landed(people)
    hands.lake(people)
    marked = hands.models(people, request.retrain_by)
    erase_from_ledger(ledger, people, now)
    erase_published(home, people.matcher)
    hands.exports(people)
    drop_warehouse(home)
    clear_scratch(home)
    _remove_rebuilt(home, people)
    after = scan(home, people, besides=_under_way(home))
    left = sum(found.hits for found in after.values())
    unreadable = sum(len(found.unreadable) for found in after.values())
    status: Status = "incomplete" if left else "unproved" if unreadable else "complete"
    receipt = _receipt(request, status, now, after, hands, marked)
    _write(receipt_file(home, request.erasure_id), asdict(receipt))
    if status != "incomplete":
        for path in _under_way(home):
            path.unlink(missing_ok=True)
    return receipt


def _remove_rebuilt(home: Home, people: People) -> None:
    """Files that the next run makes again go whole where they name somebody."""
    from zantara_pipeline.privacy.decoding import hits_in

    for store in STORES:
        if store.on_erasure != "removed":
            continue
        for path in _files_of(home, store.name):
            if hits_in(path, people.matcher):
                path.unlink(missing_ok=True)


def _files_of(home: Home, store: str) -> list[Path]:
    found = [path for path in home.data.rglob("*") if path.is_file() and not path.is_symlink()]
    owners = ((path, store_of(path.relative_to(home.root).as_posix())) for path in found)
    return sorted(path for path, owner in owners if owner is not None and owner.name == store)


def _receipt(
    request: _Request, status: Status, finished: str | None, after: dict[str, Found], hands: Hands, marked: int = 0
) -> Receipt:
    stores = []
    for name in sorted(request.before.keys() | after.keys()):
        was, found = request.before.get(name, StoreResult(name, _how(name), 0, 0)), after.get(name, Found())
        unreadable = len(found.unreadable) if after else was.unreadable
        stores.append(
            StoreResult(name, was.how, was.files_before, was.hits_before, len(found.files), found.hits, unreadable)
        )
    return Receipt(
        request.erasure_id,
        request.requested_at,
        finished,
        status,
        len(request.people.users),
        request.unknown,
        len(request.people.anonymous),
        len(request.people.devices),
        stores,
        marked,
        request.retrain_by.date().isoformat() if marked else None,
        list(hands.out_of_reach),
        len(request.people.elsewhere & request.people.ids),
    )


def _how(store: str) -> str:
    return next((entry.on_erasure for entry in STORES if entry.name == store), "unexplained")


def _write(path: Path, content: Any) -> None:
    """Beside, then renamed; readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=1)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(path)
