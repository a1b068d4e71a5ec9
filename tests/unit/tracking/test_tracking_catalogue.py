"""The catalogue: what a landed items file becomes, and what is said of one that cannot be read."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.catalogue import items_files, load_catalogue


def load(tmp_path: Path, *contents: str | bytes) -> list[dict[str, Any]]:
    home = Home(tmp_path / "home").create()
    files = []
    for number, content in enumerate(contents):
        files.append(tmp_path / f"items-{number}.csv")
        files[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = load_catalogue(home, files, threads=1, memory_limit="500MB")
    found = products(home)
    assert rows == len(found)
    return found


def products(home: Home) -> list[dict[str, Any]]:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    cursor = con.execute(f"SELECT * FROM '{home.catalogue}' ORDER BY product_id")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_known_columns_are_typed_and_others_ignored(tmp_path: Path) -> None:
    (row,) = load(tmp_path, "colour,product_id,price,available_from,title\nred,007,19.99,2026-03-01T00:00:00Z,A \n")
    assert row["product_id"] == "007" and row["title"] == "A "
    assert row["price"] == Decimal("19.99")
    assert row["available_from"].isoformat() == "2026-03-01T00:00:00+00:00"
    assert row["brand"] is None and "colour" not in row


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("category_code", "category"),
        ("genres", "category"),
        ("seller", "provider"),
        ("vendor", "provider"),
        ("brand", "brand"),
    ],
)
def test_what_shops_call_it(tmp_path: Path, header: str, column: str) -> None:
    (row,) = load(tmp_path, f"product_id,{header}\np,x\n")
    assert row[column] == "x"


def test_the_plain_name_wins_over_its_aliases(tmp_path: Path) -> None:
    (row,) = load(tmp_path, "genres,category,product_id\nc,a,p\n")
    assert row["category"] == "a"


def test_the_last_file_wins_and_within_a_file_the_last_line(tmp_path: Path) -> None:
    rows = load(tmp_path, "product_id,title\np,old\nq,only\n", "product_id,title,brand\np,new,b\np,newest,c\n")
    assert [(row["product_id"], row["title"], row["brand"]) for row in rows] == [
        ("p", "newest", "c"),
        ("q", "only", None),
    ]


def test_values_that_are_none_of_their_type_become_null(tmp_path: Path) -> None:
    (row,) = load(tmp_path, "product_id,price,available_from\np,free,soon\n")
    assert (row["price"], row["available_from"]) == (None, None)


def test_rows_without_an_id_are_left_out(tmp_path: Path) -> None:
    assert [row["product_id"] for row in load(tmp_path, "product_id,title\n,a\np,b\n")] == ["p"]


def test_quotes_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    rows = load(tmp_path, '\ufeffproduct_id,title\r\np,"a ""b"", c"\r\nq,"x\ny"\r\n')
    assert [row["title"] for row in rows] == ['a "b", c', "x\ny"]


def test_only_a_header_is_an_empty_catalogue(tmp_path: Path) -> None:
    assert load(tmp_path, "product_id,title\n") == []


def test_no_file_leaves_the_catalogue_as_it_was(tmp_path: Path) -> None:
    load(tmp_path, "product_id,title\np,a\n")
    home = Home(tmp_path / "home")
    assert load_catalogue(home, [], threads=1, memory_limit="500MB") == 0
    assert len(products(home)) == 1


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    content = "product_id,title\n" + "".join(f"p{n % 700},t{n}\n" for n in range(3000))
    load(tmp_path, content)
    before = Home(tmp_path / "home").catalogue.read_bytes()
    load(tmp_path, content)
    assert Home(tmp_path / "home").catalogue.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no column product_id"),
        ("id,title\np,a\n", "no column product_id; name the column of the items' ids product_id"),
        ("product_id;title\np;a\n", "no column product_id"),
        (b"\x89PNG\r\n\x1a\n\x00\xff" * 50, "not a readable CSV file"),
        (b"product_id,title\np,a\nq,b\xff\n", "items-0.csv:3: not a readable CSV file"),
        (b"product_id,title\n" + b"p,a\n" * 40_000 + b"q,\xff\n", "items-0.csv:40002: not a readable CSV file"),
    ],
    ids=["empty", "no product_id", "semicolons", "a picture", "bad byte", "bad byte far down"],
)
def test_a_file_that_is_no_catalogue_is_named_and_the_old_one_stays(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    load(tmp_path, "product_id,title\nkept,a\n")
    with pytest.raises(InputError) as error:
        load(tmp_path, content)
    assert said in str(error.value) and "items-0.csv" in str(error.value) and "\n" not in str(error.value)
    assert [row["product_id"] for row in products(Home(tmp_path / "home"))] == ["kept"]


def test_files_of_a_folder_in_name_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", "notes.txt", "c.csv.bak"):
        (tmp_path / name).write_bytes(gzip.compress(b"product_id\np\n"))
    assert [path.name for path in items_files(tmp_path)] == ["a.csv.gz", "b.csv"]
    assert items_files(tmp_path / "b.csv") == [tmp_path / "b.csv"]
    assert items_files(tmp_path / "nowhere") == []
