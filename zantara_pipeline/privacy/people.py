"""Whom an erasure or an access request is about, and whether a stored value names them.

An id like `u-1f3` or an address can stand anywhere, also within a text, and means nobody else: it is sought in every
value. A mere number or word (`17`, `anna`) is also a price, a product and a name: it counts where a field holds ids of
people (by its name), and nowhere else. So does an id that names something else in this home, too: shops that number people
and products apart and put one prefix before both have a user `ml:17` and a film `ml:17`. Of JSON every key and value is
looked at, decoded; so is text with its escapes, and of JSON that breaks off every pair that is still whole. A line as it
came that fits no format has no fields: whoever fills one of its cells may be meant.

Belongs here: the ids, and that comparison. Does not belong here: reading stores (decoding.py), which ids are a person's
(tracking/whose.py), what follows from a hit (erasure.py).
"""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

PLACEHOLDERS = frozenset(
    ("", "null", "none", "nan", "undefined", "unknown", "guest", "anonymous", "(not set)", "00000000-0000-0000-0000-000000000000")
)  # fmt: skip
"""What clients send where they have no id; the variable placeholder_ids of dbt_project.yml, which a test compares."""
KINDS = ("user", "anonymous", "device")
_LEAST = 3  # characters: two occur in any text
_WORD = re.compile(r"[\w-]+")
_WORD_BYTES = re.compile(rb"[\w-]+")
_ENTITY = re.compile(rb"&(#\w+|\w+);")
_MANY = 5_000
_STRING = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_PAIR = re.compile(r'"((?:[^"\\]++|\\.)*+)"\s*+:\s*+(?:"((?:[^"\\]++|\\.)*+)"|(-?\d[\w.+-]*+))', re.DOTALL)
_BETWEEN_CELLS = re.compile(r"[,;|\t]")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_AROUND_A_CELL = " '\"\r\n"
_NUMBER_OF_A_FRAME = re.compile(r"(\d+)\.0")  # what a data frame makes of the id 17 where others are missing
# Folded names that end like ids of people and are not.
_OTHER_IDS = (
    "productid", "itemid", "eventid", "sessionid", "orderid", "experimentid", "organisationid", "modelid", "runid",
    "listid", "variantid", "categoryid", "brandid", "buildid", "transactionid", "valid", "paid", "erasureid", "alertid",
    "clickid", "txnid", "appid", "commitid", "replayid", "discardid", "expiryid", "rotationid", "keyid", "uniqueid", "assetid", "providerid",
)  # fmt: skip
_ENDINGS = _OTHER_IDS + tuple(f"{name}s" for name in _OTHER_IDS)
_NO_PEOPLE = ("items", "features", "products", "item", "product")
_FIELD = re.compile(r"(user|person|people|uid|uids|users)$|(id|ids)$")


def is_field_of_people(field: str) -> bool:
    """Whether a column or key holds ids of people, by its name: `user_id`, `userId`, `users.id`, not `product_id`."""
    folded = [re.sub(r"[^a-z0-9]", "", part) for part in field.lower().split(".")]
    last = folded[-1]
    if last in ("id", "ids"):
        return len(folded) > 1 and folded[-2] not in _NO_PEOPLE
    return _FIELD.search(last) is not None and not last.endswith(_ENDINGS)


def is_field_of_others(field: str) -> bool:
    """Whether a column or key holds ids of something else, by its name: `product_id`, `orderId`, `items.id`."""
    folded = [re.sub(r"[^a-z0-9]", "", part) for part in field.lower().split(".")]
    if folded[-1] in ("id", "ids"):
        return len(folded) > 1 and folded[-2] in _NO_PEOPLE
    return folded[-1].endswith(("id", "ids")) and folded[-1].endswith(_ENDINGS)


def names_columns(cells: Collection[str], fields: Collection[str] = ()) -> bool:
    """Is the first row of a table its header? One cell, or one that holds a number, is none unless it names a field of people."""
    people = any(cell in fields or is_field_of_people(cell) for cell in cells)
    return people or (len(cells) > 1 and not any(_NUMBER.fullmatch(cell.strip()) for cell in cells))


def is_known(text: str | None) -> bool:
    """Is it an id, and none of the words that clients send instead of one?"""
    return text is not None and text.strip().lower() not in PLACEHOLDERS


@dataclass(frozen=True, repr=False)
class People:
    """Ids of those whom a request is about; prints no id.

    anonymous, devices : those that belong to these people alone.
    pseudonyms : what they are called in files that are handed out.
    elsewhere : those of the ids that name something else here, too: people only where a field holds ids of people.
    fields : names of columns that hold ids of people by the contract of adapters, whatever they are called.
    """

    users: frozenset[str]
    anonymous: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    pseudonyms: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"People({len(self.users)} users, {len(self.anonymous)} anonymous ids, {len(self.devices)} devices)"

    @property
    def ids(self) -> frozenset[str]:
        return self.users | self.anonymous | self.devices

    def of_kind(self, kind: str) -> frozenset[str]:
        return {"user": self.users, "anonymous": self.anonymous, "device": self.devices}[kind]

    @cached_property
    def matcher(self) -> Matcher:
        return Matcher(self.ids, self.elsewhere, self.fields)

    @cached_property
    def pseudonym_matcher(self) -> Matcher:
        return WholeValues(self.pseudonyms)


def is_distinctive(text: str) -> bool:
    """Can this text mean nobody and nothing else wherever it stands? It mixes letters with digits or signs."""
    letters = any(c.isalpha() for c in text)
    return len(text) >= _LEAST and letters and any(not c.isalpha() for c in text)


class Matcher:
    """Finds ids in values, and remembers in `found` which ones.

    ids : as texts. elsewhere : those that name something else, too. fields : as of `People`.
    distinctive : those that mean a person wherever they stand.
    """

    def __init__(self, ids: Collection[str], elsewhere: Collection[str] = (), fields: Collection[str] = ()) -> None:
        self.ids = frozenset(ids)
        self.fields = frozenset(fields)
        self.found: set[str] = set()
        self.distinctive = frozenset(filter(is_distinctive, self.ids)) - frozenset(elsewhere)
        self._words = frozenset(text for text in self.distinctive if _WORD.fullmatch(text))
        self._quick_words = frozenset(text.encode() for text in self.ids if _WORD_BYTES.fullmatch(text.encode()))
        others = sorted(re.escape(text.encode()) for text in self.ids if text.encode() not in self._quick_words)
        self._quick_phrases = re.compile(b"|".join(others)) if others else None
        phrases = sorted(self.distinctive - self._words)
        self._phrases = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, phrases))})(?![\w-])") if phrases else None

    @cached_property
    def prefilter(self) -> str:
        """A regular expression (RE2) that every value matches which may name one of them, and most others do not."""
        return "|".join([r"\\", "&", *(_re2(text) for text in sorted(self.ids))])

    def may_be_in(self, line: bytes) -> bool:
        """A quick look at the bytes of a line; what it refuses names nobody.

        By words and not by one expression of all ids: with 150 ids that took a hundred times as long.
        """
        if b"\\" in line or _ENTITY.search(line):
            return True
        if not self._quick_words.isdisjoint(_WORD_BYTES.findall(line)):
            return True
        return self._quick_phrases is not None and self._quick_phrases.search(line) is not None

    def values_in(self, field: str, column: pa.ChunkedArray | pa.Array) -> list[str]:
        """The distinct values of a column of text that name one of them."""
        column = column.cast(pa.string())
        if len(column) > _MANY:  # making the expression takes as long as looking at so many values
            column = column.filter(pc.match_substring_regex(column, self.prefilter))
        return [value for value in pc.unique(column.drop_null()).to_pylist() if self.in_field(field, value)]

    @cached_property
    def bounded(self) -> str:
        """As RE2: a distinctive id with no letter, digit, _ or - beside it; matches nothing where there is none."""
        texts = sorted(self.distinctive)
        return rf"(?:^|[^\w-])(?:{'|'.join(map(_re2, texts))})(?:$|[^\w-])" if texts else "[^\\s\\S]"

    def in_field(self, field: str, value: str) -> bool:
        """Does the value of a field name one of them? JSON in it is decoded; a field `line` holds lines as they came."""
        return self._is_one(field, value) or (
            self.in_line(value) if field.rpartition(".")[2] == "line" else self.in_text(value)
        )

    def in_text(self, text: str) -> bool:
        """Does a text name one of them: a line of JSON, a page, a sentence?"""
        whole = _decoded(text)
        if whole is not None:
            return sum(self._in_leaf(key, leaf) for key, leaf in leaves(whole)) > 0  # all of them, for `found`
        return self._in_pairs(text) | self._in_words(text)

    def in_line(self, text: str) -> bool:
        """May a line as it came name one of them? Of one that is no JSON, any cell may be the id."""
        if self.in_text(text):
            return True
        if _decoded(text) is not None:
            return False
        cells = {_plain(cell.strip(_AROUND_A_CELL)) for cell in _BETWEEN_CELLS.split(text)}
        self.found |= self.ids & cells
        return not self.ids.isdisjoint(cells)

    def _in_leaf(self, key: str, leaf: str) -> bool:
        return self._is_one(key, leaf) or self._in_words(leaf)

    def _is_one(self, field: str, value: str) -> bool:
        one = _plain(value)
        if one not in self.ids or not (field in self.fields or is_field_of_people(field)):
            return False
        self.found.add(one)
        return True

    def _in_pairs(self, text: str) -> bool:
        """Of JSON that breaks off, or begins in the middle: what is left of it in pairs."""
        if '"' not in text or self.ids == self.distinctive:
            return False
        pairs = ((_string(key), _string(value) if value else number) for key, value, number in _PAIR.findall(text))
        return sum(self._is_one(key, value) for key, value in pairs) > 0

    def _in_words(self, text: str) -> bool:
        if self._in_plain(text):
            return True
        if "\\" in text and any(self._in_plain(part) for part in _unescaped(text)):
            return True
        return "&" in text and self._in_plain(html.unescape(text))

    def _in_plain(self, text: str) -> bool:
        # an id of words and hyphens is bounded by anything else, so it is a whole run of such characters
        named = self._words.intersection(_WORD.findall(text)) if self._words else frozenset[str]()
        if self._phrases is not None:
            named |= set(self._phrases.findall(text))
        self.found |= named
        return bool(named)


class WholeValues(Matcher):
    """Finds ids that fill a whole value of a column: thousands of 64 digits each make no expression that an engine takes."""

    def values_in(self, field: str, column: pa.ChunkedArray | pa.Array) -> list[str]:
        column = column.cast(pa.string())
        named = column.filter(pc.is_in(column, value_set=pa.array(sorted(self.ids), pa.string())))
        found = [str(value) for value in pc.unique(named).to_pylist()]
        self.found.update(found)
        return found


class Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as they stand, twice where they stand twice."""


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every (nearest key, text or number as text) of decoded JSON, and every key as a text of no field."""
    if isinstance(node, (Pairs, dict)):
        for name, value in node.items() if isinstance(node, dict) else node:
            yield "", name
            yield from leaves(value, name if name.lower() != "id" else f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from leaves(value, key)
    elif isinstance(node, str):
        yield key, node
        if node[:1] in "{[":  # JSON within JSON
            with contextlib.suppress(ValueError, RecursionError):
                yield from leaves(json.loads(node, object_pairs_hook=Pairs), key)
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield key, str(node)


def _re2(text: str) -> str:
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _plain(text: str) -> str:
    return found[1] if (found := _NUMBER_OF_A_FRAME.fullmatch(text)) else text


def _decoded(text: str) -> Any:
    """A JSON object or list, keys as they stand; None where the text is neither."""
    if text[:1] in "{[" or text[:1].isspace():
        with contextlib.suppress(ValueError, RecursionError):
            whole = json.loads(text, object_pairs_hook=Pairs)
            return whole if isinstance(whole, list) else None
    return None


def _unescaped(text: str) -> Iterator[str]:
    return (_string(token) for token in _STRING.findall(text) if "\\" in token)


def _string(token: str) -> str:
    """What stands between the quotes of a string of JSON, decoded where it can be."""
    try:
        return str(json.loads(f'"{token}"', strict=False)) if "\\" in token else token
    except ValueError:
        return token
