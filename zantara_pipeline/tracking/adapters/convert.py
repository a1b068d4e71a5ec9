"""Writing one file of another tool as a file of envelope lines.

Belongs here: the output file (written beside, then renamed). Does not belong here: adapting (stream.py), printing.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.adapters.detect import Intake
from zantara_pipeline.tracking.adapters.stream import Report


def adapt_file(path: Path, out: Path, intake: Intake) -> Report:
    """Write the envelope lines of a file, one a record; `out` is compressed where its name ends with .gz.

    Raises
    ------
    InputError : no such file, damaged, of another format than given, or no other format at all; `out` is then untouched.
    """
    if not path.is_file():
        raise InputError("it is a folder" if path.is_dir() else "no such file", path, "name one file of events")
    if out.is_dir():
        raise InputError("the output is a folder", out, "give the name of a file as --out")
    if out.exists() and out.samefile(path):
        raise InputError("the output would replace the input", out, "give another --out")
    if not out.parent.is_dir():
        raise InputError("no such folder", out.parent, "create it or give another --out")
    adaptation = intake.look(path)
    if adaptation is None:
        raise intake.nothing_to_adapt(path)
    beside = out.with_name(f".{out.name}.part")
    try:
        with _opened(path) as source, _created(beside, compressed=out.name.endswith(".gz")) as target:
            for line in adaptation.lines(source):
                target.write(line)
        if not adaptation.report.records:
            raise InputError("there is no event in it", path, "nothing was written; name a file of events")
        beside.replace(out)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = f"the gzip file is truncated or damaged ({type(error).__name__})"
        raise InputError(what, path, "get it again; nothing was written") from None
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", out, "give another --out, or make room") from None
    finally:
        beside.unlink(missing_ok=True)
    return adaptation.report


def default_out(path: Path) -> Path:
    """<name>.envelope.jsonl in the working folder."""
    name = path.name.removesuffix(".gz")
    return Path(f"{name.rpartition('.')[0] or name}.envelope.jsonl")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as handle:
        yield cast(BinaryIO, handle)


@contextmanager
def _created(path: Path, *, compressed: bool) -> Iterator[BinaryIO]:
    """The file, compressed without a time in it, so that the same input gives the same bytes."""
    with path.open("wb") as plain:
        if not compressed:
            yield plain
            return
        with gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as packed:
            yield cast(BinaryIO, packed)
