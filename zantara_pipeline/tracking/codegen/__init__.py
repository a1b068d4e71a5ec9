"""What is made from the tracking plan: schemas, dbt files, pages, clients. One module an output; each returns texts, writes nothing.

Belongs here: the list of outputs, and writing their files. Does not belong here: reading or judging plans.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOTDIR
from os import strerror
from pathlib import Path

from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.codegen.dbt_files import dbt_files
from zantara_pipeline.tracking.codegen.json_schema import json_schema_files
from zantara_pipeline.tracking.codegen.plan_page import plan_page_files
from zantara_pipeline.tracking.codegen.python_client import python_client_files
from zantara_pipeline.tracking.codegen.typescript_client import typescript_client_files
from zantara_pipeline.tracking.plan import TrackingPlan

Files = dict[str, str]
"""Relative path -> text."""

OUTPUTS: dict[str, Callable[[TrackingPlan], Files]] = {
    "json-schema": json_schema_files,
    "dbt": dbt_files,
    "page": plan_page_files,
    "python": python_client_files,
    "typescript": typescript_client_files,
}


def write_output(files: Files, folder: Path, *, dry_run: bool = False) -> list[Path]:
    """Write the files below a folder, each beside its place and then renamed; returns those whose text changed.

    dry_run : return what would change, and write nothing.

    Raises
    ------
    InputError : the folder cannot be written into (it is a file, or belongs to somebody else).
    """
    changed = []
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(ENOTDIR, strerror(ENOTDIR))
        for name, text in files.items():
            path = folder / name
            if path.is_file() and path.read_bytes() == text.encode():
                continue
            changed.append(path)
            if not dry_run:
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = path.with_name(path.name + ".new")
                beside.write_text(text, encoding="utf-8")
                beside.replace(path)
    except OSError as error:
        what = f"cannot be written into ({error.strerror})"
        raise InputError(what, folder, "give another --out, or change its permissions") from None
    return changed
