"""What models promise of their columns: each promise is broken alone, in every model, and is found and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
import yaml
from core_shop import PROJECT, Recorded

Promise = tuple[str, str, str]  # model, column, what may not be


def declared() -> dict[str, dict[str, Any]]:
    """Model -> its columns, its schema (its folder) and the arguments of its check, read off the YAML."""
    found = {}
    for path in sorted((PROJECT / "models").glob("*/_*.yml")):
        for model in yaml.safe_load(path.read_text(encoding="utf-8")).get("models", []):
            for check in model.get("data_tests", []):
                if isinstance(check, dict) and "sound_columns" in check:
                    assert (
                        check["sound_columns"]["name"] == f"sound_columns_{model['name']}"
                    )  # what people see in Dagster
                    columns = [column["name"] for column in model["columns"]]
                    found[model["name"]] = {
                        "schema": path.parent.name,
                        "columns": columns,
                        **check["sound_columns"]["arguments"],
                    }
    return found


MODELS = declared()
PROMISES: list[Promise] = [
    (model, column, kind)
    for model, said in MODELS.items()
    for kind in ("not_null", "unique", "accepted_values")
    for column in said.get(kind, [])
]


def sound_rows(model: str, rows: int = 3) -> list[dict[str, str | None]]:
    """Rows that hold every promise; what nothing is promised of is null."""
    said = MODELS[model]
    values = said.get("accepted_values", {})
    promised = {*said.get("not_null", []), *said.get("unique", []), *values}
    return [
        {
            column: (values[column][n % len(values[column])] if column in values else f"{column} {n}")
            if column in promised
            else None
            for column in said["columns"]
        }
        for n in range(rows)
    ]


def naively(model: str, rows: list[dict[str, str | None]]) -> list[tuple[str, str, int]]:
    """The promises that rows break, counted in Python."""
    said, found = MODELS[model], []
    for column in said.get("not_null", []):
        found.append((column, "is null", sum(row[column] is None for row in rows)))
    for column, values in said.get("accepted_values", {}).items():
        others = [row for row in rows if row[column] is not None and row[column] not in values]
        found.append((column, "is none of its values", len(others)))
    for column in said.get("unique", []):
        times = Counter(row[column] for row in rows if row[column] is not None)
        found.append((column, "stands more than once", sum(count > 1 for count in times.values())))
    return sorted(one for one in found if one[2])


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("ATTACH ':memory:' AS warehouse; USE warehouse")
        yield con


def answer(
    con: duckdb.DuckDBPyConnection, model: str, rows: list[dict[str, str | None]], check: str
) -> list[tuple[str, str, int]]:
    said = MODELS[model]
    table = f"warehouse.{said['schema']}.{model}"
    con.execute(f"CREATE SCHEMA IF NOT EXISTS warehouse.{said['schema']}")
    con.execute(f"CREATE OR REPLACE TABLE {table} ({', '.join(f'{column} VARCHAR' for column in said['columns'])})")
    for row in rows:
        con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", list(row.values()))
    return sorted(con.execute(check).fetchall())


def test_every_check_of_columns_is_there(recorded: Recorded) -> None:
    assert set(recorded.column_checks) == set(MODELS)
    assert {"users", "sessions", "identities", "interactions", "exposures", "consent_history"} < set(MODELS)


@pytest.mark.parametrize("model", list(MODELS))
def test_sound_rows_pass_and_so_does_an_empty_table(
    recorded: Recorded, con: duckdb.DuckDBPyConnection, model: str
) -> None:
    for rows in (sound_rows(model), []):
        assert answer(con, model, rows, recorded.column_checks[model]) == naively(model, rows) == []


@pytest.mark.parametrize(("model", "column", "kind"), PROMISES, ids=[".".join(promise) for promise in PROMISES])
def test_a_broken_promise_is_named_with_its_column(
    recorded: Recorded, con: duckdb.DuckDBPyConnection, model: str, column: str, kind: str
) -> None:
    rows = sound_rows(model)
    if kind == "unique":
        rows[2][column] = rows[0][column]
    else:
        rows[1][column] = None if kind == "not_null" else "something else"
    found = answer(con, model, rows, recorded.column_checks[model])
    assert found == naively(model, rows)
    assert [name for name, _, times in found if times] == [column]
