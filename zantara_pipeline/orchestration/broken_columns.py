"""Naming the columns that a failed check of dbt is about. dbt counts the rows of a check and says the number only, and a
`sound_columns` looks at all columns of a model at once.

Belongs here: asking the check once more when dbt has ended (it holds the warehouse until then), and saying what it found:
names of columns and numbers, nothing that stands in them. Does not belong here: what a column promises (dbt_project).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from zantara_pipeline.orchestration.dagster_dbt_alone import DagsterDbtCliRuntimeError

PREFIX = "sound_columns_"


def naming_columns(
    events: Iterable[Any], compiled: Path, warehouse: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]
) -> Iterator[Any]:
    """The events of a dbt build; failed checks come last, and they and the error that ends the build name the columns.

    Parameters
    ----------
    compiled : the folder in which dbt writes the SQL that it sends.
    """
    failed: list[dg.AssetCheckResult] = []
    error = None
    try:
        for event in events:
            if isinstance(event, dg.AssetCheckResult) and not event.passed:
                failed.append(event)
            else:
                yield event
    except DagsterDbtCliRuntimeError as seen:
        error = seen
    said = []
    for check in failed:
        broken = _broken(check, compiled, warehouse)
        said.append(f"{_name(check)} ({'; '.join(broken)})" if broken else _name(check))
        told = {"broken": dg.MetadataValue.json(broken)} if broken else {}
        yield check._replace(metadata={**check.metadata, **told})
    if error is not None:
        begins = f"checks that do not hold: {', '.join(said)}. " if said else ""
        raise DagsterDbtCliRuntimeError(description=begins + str(error.description)) from error.__cause__


def _name(check: dg.AssetCheckResult) -> str:
    return f"{check.check_name} of {check.asset_key.to_user_string() if check.asset_key else 'no table'}"


def _broken(
    check: dg.AssetCheckResult,
    compiled: Path,
    warehouse: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]],
) -> list[str]:
    """The promises about columns that do not hold, one text each; empty for checks of another kind."""
    name = check.check_name or ""
    found = sorted(compiled.rglob(f"{name}.sql")) if name.startswith(PREFIX) else []
    if not found:
        return []
    try:
        with warehouse() as con:
            rows = con.execute(found[0].read_text(encoding="utf-8")).fetchall()
    except duckdb.Error:  # the check itself could not run, and dbt's own error says why
        return []
    return [f"{column} {fault}: {times:,}" for column, fault, times in rows]
