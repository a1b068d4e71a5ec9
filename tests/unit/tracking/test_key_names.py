"""Which undeclared names are shown: those that a programmer may have written, and never what may be a person's."""

from __future__ import annotations

import duckdb
import pytest

from zantara_pipeline.tracking.key_names import UNREADABLE, shown_event_sql, shown_keys_sql

CODE = (
    "colour", "x", "n_items", "zz", "_ga", "discount_code", "discount-code", "discountCode", "DiscountCode", "CURRENCY_CODE",
    "userID", "isVIP", "eCommerceType", "address2", "line_1", "ga4_id", "utf8Name", "https", "ip_address", "__typename",
    "internationalization", "email",
)  # fmt: skip
VALUES = (
    "", " ", "12345", "user_12345", "user_12", "u-17", "u1", "u-1", "a1b2", "joe@example.com", "joe.bloggs", "Joe Bloggs",
    "+49151234567", "0151 234567", "550e8400-e29b-41d4-a716-446655440000", "d41d8cd98f00b204e9800998ecf8427e", "deadbeef",
    "abcdefab-cdef-abcd-abcd-abcdefabcdef", "DE89370400440532013000", "192.168.0.1", "2026-03-01", "xkqwbtzr",
    "QwErTyUiOpAsDfGh", "MFRGGZDFMZTWQ2LKN", "Jos\u00e9", "na\nme", "a" * 41, "x'y", '"', "a b", "$.properties", "k\u0131nd",
)  # fmt: skip


def shown(sql: str, value: object) -> object:
    with duckdb.connect() as con:
        return con.execute(f"SELECT {sql} FROM (SELECT $v AS given)", {"v": value}).fetchall()[0][0]


@pytest.mark.parametrize("name", CODE)
def test_what_a_programmer_writes_is_shown(name: str) -> None:
    assert shown(shown_keys_sql("given"), [name]) == [name]


@pytest.mark.parametrize("name", VALUES, ids=ascii)
def test_what_may_be_a_value_is_not_shown(name: str) -> None:
    assert shown(shown_keys_sql("given"), [name]) == [UNREADABLE]


def test_every_name_is_told_once_and_in_order() -> None:
    assert shown(shown_keys_sql("given"), ["b", "12", "a", "34", "b"]) == [UNREADABLE, "a", "b"]
    assert shown(shown_keys_sql("given"), []) == []


def test_many_undeclared_keys_are_a_map_of_values() -> None:
    names = [f"{a}nna_{b}" for a in "hjsv" for b in "abcdef"]
    assert shown(shown_keys_sql("given"), names[:20]) == sorted(names[:20])
    assert shown(shown_keys_sql("given"), names[:21]) == [UNREADABLE]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Product Viewed", "Product Viewed"),
        ("checkout step 2", "checkout step 2"),
        ("wishlist_opened", "wishlist_opened"),
        ("joe@example.com", None),
        ("user 12345 bought", None),
        ("", None),
        (None, None),
    ],
)
def test_an_undeclared_event_may_have_spaces_in_its_name(name: str | None, said: str | None) -> None:
    assert shown(shown_event_sql("given"), name) == said
