"""Whom a line may be about whose `user_id` is not one text: a number, a list, an object, or the key twice.

Such a line fails its shape, and would be kept in quarantine with its payload. If any person whom it may name denied in
the ledger, it is not kept: judged as if it were theirs. And what it denies itself is heard of everybody whom it names by an
id (`ids_named`); what it grants is heard of nobody.

Belongs here: the ids in such a line. Does not belong here: what follows from them (verdict.py).
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from zantara_pipeline.privacy.consent import MOST_ID_LENGTH

_MOST_DIGITS = 40  # 1e999999 is a number too, and its digits would fill the memory
TEXT_OR_NUMBER = re.compile(r'"((?:[^"\\]++|\\.)*+)"|(-?[0-9][0-9.eE+-]*)', re.DOTALL)
"""Texts (with their escapes) and numbers of a line that is no JSON, or too deep to be read as such."""


class _Number(str):
    __slots__ = ()


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys as they stand, twice where they stand twice."""


def users_named(line: str) -> set[str]:
    """Every text and number below any `user_id` of a line; numbers as they are written and, if whole, as integers.

    A line that is nested deeper than Python reads may name anybody in it: all its texts and numbers.
    """
    values = _user_ids(line)
    if values is None:
        tokens = TEXT_OR_NUMBER.findall(line)
        return {text for text, _ in tokens if text} | {n for _, number in tokens if number for n in _spellings(number)}
    return _named(values, ids_only=False)


def ids_named(line: str) -> set[str]:
    """Of those, the ones that stand as an id: `user_id` itself, one of several of that key, or in a list.

    What stands in an object may be anything of a person (an e-mail address), and is not to be kept; nor are the texts of a
    line of which nobody knows what is an id. A number of more than 40 characters is nobody's (a large line has it shortened).
    """
    return {user for user in _named(_user_ids(line) or [], ids_only=True) if len(user) <= MOST_ID_LENGTH}


def _user_ids(line: str) -> list[Any] | None:
    """Every `user_id` of a line; None where it is nested too deep to tell."""
    try:
        whole = json.loads(line, object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError):
        return None
    return [value for key, value in whole if key == "user_id"] if isinstance(whole, _Pairs) else []


def _named(values: list[Any], *, ids_only: bool) -> set[str]:
    found, left = set[str](), values
    while left:
        value = left.pop()
        if isinstance(value, _Pairs):
            left += [] if ids_only else [part for pair in value for part in pair]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, _Number):
            found |= set() if ids_only and len(value) > _MOST_DIGITS else _spellings(value)
        elif isinstance(value, str):
            found.add(value)
    return found


def _spellings(number: str) -> set[str]:
    try:
        value = Decimal(number)
    except ArithmeticError:
        return {str(number)}
    whole = value.is_finite() and value.adjusted() < _MOST_DIGITS and value == value.to_integral_value()
    return {str(number), str(int(value))} if whole else {str(number)}
