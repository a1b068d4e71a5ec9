"""Where a simulation is written: beside its place first, then renamed into it, never over somebody else's files.

Belongs here: folders, file names, compression, digests. Does not belong here: what is in the files.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

from zantara_pipeline.errors import InputError
from zantara_pipeline.simulate.truth import VERSION, Truth

TRUTH = "truth.json"
GZIP_EVERY = 7


def earlier_simulation(out: Path, parameters: dict[str, int | str]) -> Truth | None:
    """The truth of an identical simulation that already fills `out`, or None when `out` is free.

    Raises InputError when anything else is there: other parameters, a changed, missing or additional file.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise InputError("is not a folder", where=out, todo="name a folder that is empty or does not exist")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    if not found and not any(out.iterdir()):
        return None
    refusal = InputError(
        "the folder is not empty and holds no simulation with these same arguments",
        where=out,
        todo="choose another folder or empty this one",
    )
    try:
        truth = Truth.from_json((out / TRUTH).read_bytes())
    except (OSError, ValueError):
        raise refusal from None
    if truth.version != VERSION or truth.parameters != parameters or found != {TRUTH, *truth.digests}:
        raise refusal
    try:
        same = all(digest(out / name) == value for name, value in truth.digests.items())
    except OSError:
        same = False
    if not same:
        raise refusal
    return truth


def begin(out: Path) -> Path:
    """An empty folder beside `out` to write in; what a killed simulation left there is removed."""
    beside = out.with_name(f".{out.name}.unfinished")
    try:
        if beside.exists():
            shutil.rmtree(beside)
        (beside / "events").mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"cannot write: {error.strerror}", where=out.parent, todo="choose a folder to write to"
        ) from None
    return beside


def finish(beside: Path, out: Path) -> None:
    """Rename into place; `out` is absent or empty (`earlier_simulation` has looked)."""
    if out.exists():
        out.rmdir()
    beside.rename(out)


def write_events(folder: Path, day: int, day_name: str, lines: list[bytes]) -> str:
    """One received day's file; every seventh is gzipped without a time stamp, so that equal content is equal bytes.

    Returns its name.
    """
    text = b"\n".join(lines) + b"\n"
    name = f"events-{day_name}.jsonl"
    if day % GZIP_EVERY == GZIP_EVERY - 1:
        name, text = f"{name}.gz", gzip.compress(text, 6, mtime=0)
    (folder / "events" / name).write_bytes(text)
    return name


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the truth itself, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != TRUTH)
    return {path.relative_to(folder).as_posix(): digest(path) for path in paths}
