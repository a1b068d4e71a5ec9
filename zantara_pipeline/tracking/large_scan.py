"""One pass over the bytes of one object of a large line: is it strict JSON, and where do its members stand?

The engine's JSON functions build a tree of a line, several times: 50 MB of it need 256 MB and more, each time. This pass
needs a bit per level of nesting, whatever the line holds, and does not recurse.

Belongs here: bytes to places. Does not belong here: which members matter (large_lines.py), plain lines (scan.py).
"""

# numba looks at annotations as they are written, so they stay out of the compiled functions.
from __future__ import annotations

import numpy as np

from zantara_pipeline.tracking.scan import (
    ARRAY,
    INTEGER,
    NUMBER,
    OBJECT,
    STRING,
    compiled,
    number_end,
    past_blanks,
    word,
)

KEY_START, KEY_END, VALUE_START, VALUE_END, TYPE = range(5)
"""Columns of the places of members: keys without their quotes, values with them; types as in scan.py."""

NOT_STRICT = -1
_MEMBERS = 4096


def room_for(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory for a pass over a line of so many bytes: a bit per level that it can nest (is it an object?), and places."""
    return np.zeros(size // 8 + 1, dtype=np.uint8), np.empty((_MEMBERS, TYPE + 1), dtype=np.int64)


@compiled
def _hex(octets, p, end):  # type: ignore[no-untyped-def]
    """The number of four hexadecimal digits at p; -1 if they are none."""
    if p + 4 > end:
        return -1
    number = 0
    for q in range(p, p + 4):
        c = octets[q]
        if 48 <= c <= 57:
            number = number * 16 + (c - 48)
        elif 65 <= c <= 70:
            number = number * 16 + (c - 55)
        elif 97 <= c <= 102:
            number = number * 16 + (c - 87)
        else:
            return -1
    return number


@compiled
def _escape_end(octets, p, end):  # type: ignore[no-untyped-def]
    """Where the escape whose backslash stands at p ends; -1 if it is none.

    Half of a surrogate pair is no character: the engine refuses it, and so does this.
    """
    if p + 1 >= end:
        return -1
    c = octets[p + 1]
    if c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116:
        return p + 2
    number = _hex(octets, p + 2, end) if c == 117 else -1
    if number < 0 or 0xDC00 <= number <= 0xDFFF:
        return -1
    if not 0xD800 <= number <= 0xDBFF:
        return p + 6
    if p + 12 > end or octets[p + 6] != 92 or octets[p + 7] != 117:
        return -1
    return p + 12 if 0xDC00 <= _hex(octets, p + 8, end) <= 0xDFFF else -1


@compiled
def _string_end(octets, p, end):  # type: ignore[no-untyped-def]
    """Position of the closing quote of the string whose opening one stands at p; -1 if it is none."""
    if p >= end or octets[p] != 34:
        return -1
    p += 1
    while 0 <= p < end:
        c = octets[p]
        if c == 34:
            return p
        if c < 32:
            return -1
        p = _escape_end(octets, p, end) if c == 92 else p + 1
    return -1


@compiled
def _scalar(octets, p, end):  # type: ignore[no-untyped-def]
    """Where a scalar at p ends (-1 if it is none), and its type."""
    c = octets[p]
    if c == 34:
        close = _string_end(octets, p, end)
        return (close + 1 if close >= 0 else -1), STRING
    if c == 45 or 48 <= c <= 57:
        close, whole, _ = number_end(octets, p, end)
        return close, (INTEGER if close == whole else NUMBER)
    kind, length = word(octets, p, end)
    return (p + length if length > 0 else -1), kind


@compiled
def _value(octets, p, end, objects):  # type: ignore[no-untyped-def]
    """Where the value at p ends (-1 if it is not strict), and its type."""
    if octets[p] != 123 and octets[p] != 91:
        return _scalar(octets, p, end)
    outermost, depth = (OBJECT if octets[p] == 123 else ARRAY), 0
    while True:  # at a value
        opened = octets[p] == 123 or octets[p] == 91
        if opened:
            depth += 1
            bit = np.uint8(1 << (depth & 7))
            if octets[p] == 123:
                objects[depth >> 3] |= bit
            else:
                objects[depth >> 3] &= ~bit
            p += 1
        else:
            p = _scalar(octets, p, end)[0]
            if p < 0:
                return -1, outermost
        while True:  # after a value, or after an opening
            p = past_blanks(octets, p, end)
            if p >= end:
                return -1, outermost
            in_object = (objects[depth >> 3] >> (depth & 7)) & 1 == 1
            if octets[p] == (125 if in_object else 93):
                depth -= 1
                p += 1
                opened = False
                if depth == 0:
                    return p, outermost
                continue
            if not opened:
                if octets[p] != 44:
                    return -1, outermost
                p = past_blanks(octets, p + 1, end)
            if in_object:
                p = _after_key(octets, _string_end(octets, p, end), end)
            if p < 0 or p >= end:
                return -1, outermost
            break


@compiled
def _after_key(octets, close, end):  # type: ignore[no-untyped-def]
    """Where the value stands whose key closes at `close`; -1 if there is no key or no value."""
    p = past_blanks(octets, close + 1, end)
    if close < 0 or p >= end or octets[p] != 58:
        return -1
    p = past_blanks(octets, p + 1, end)
    return p if p < end else -1


@compiled
def next_members(octets, p, end, objects, places):  # type: ignore[no-untyped-def]
    """Members of an object from p on, as many as `places` has room for.

    p : behind the object's opening bracket, or where the last call ended.

    Returns how many there were (NOT_STRICT if it is no object) and how far it came: as many as there is room for, and it has
    to be called again; fewer, and it is behind the closing bracket.
    """
    n = 0
    opened = octets[p - 1] == 123
    while True:
        p = past_blanks(octets, p, end)
        if p >= end:
            return NOT_STRICT, p
        if n == places.shape[0]:
            return n, p
        if octets[p] == 125:
            return n, p + 1
        if not opened:
            if octets[p] != 44:
                return NOT_STRICT, p
            p = past_blanks(octets, p + 1, end)
        close = _string_end(octets, p, end)
        start = _after_key(octets, close, end)
        if start < 0:
            return NOT_STRICT, p
        places[n, KEY_START], places[n, KEY_END], places[n, VALUE_START] = p + 1, close, start
        p, kind = _value(octets, start, end, objects)
        if p < 0:
            return NOT_STRICT, start
        places[n, VALUE_END], places[n, TYPE] = p, kind
        n += 1
        opened = False
