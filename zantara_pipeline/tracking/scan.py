"""One pass over the bytes of plain JSON lines: which declared keys are there, of which type, with which value.

Plain is what nearly every line is: strict JSON without escapes, each declared key at most once, numbers and times in
their usual spelling. A line that is anything else is left alone (shape -1), and the engine's own JSON functions read
it (verdict.py). So this code never decides that a line is wrong; it only takes those that it is sure of.

The functions are compiled by numba, without bounds checks and without the interpreter's lock; they know arrays and not
the plan. They are one file on purpose: what the compiler keeps of a function is thrown away when this file changes, and not
when another one does that it calls. Belongs here: bytes to arrays. Does not belong here: what the arrays mean (plain_lines.py).
"""

# numba looks at annotations as they are written, so they stay out of the compiled functions.
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

ABSENT, NULL, BOOLEAN, INTEGER, NUMBER, STRING, OBJECT, ARRAY = range(8)
"""JSON types of a shape, as they stand in `Shapes.types`."""

TOP, PROPERTIES, CONTEXT, CONSENT, EVENTS = range(5)
"""Where a name of `Names` is looked for: the levels of a line, and the names of events."""

_SLOTS = 2048
_MOST_DEPTH = 60
_MICROSECONDS_A_DAY = 86_400_000_000
_MOST_DIGITS = 15
_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES, _BLANKS = _ONES * np.uint64(34), _ONES * np.uint64(92), _ONES * np.uint64(32)
_POWERS_OF_TEN = np.array([10.0**k for k in range(_MOST_DIGITS + 1)])


class Names(NamedTuple):
    """A hash table of the names that are looked for: keys of each level, and events.

    slots : row of a name in `entries`, -1 where none is.
    entries : a row a name: where its octets begin, how many they are, its level, and its meaning (a path's number, an
        event's number).
    """

    slots: np.ndarray
    entries: np.ndarray
    octets: np.ndarray


class Shapes(NamedTuple):
    """Distinct shapes met so far, met[0] of them: types[k] holds the type of each path, then the event, and whether `consent` names a
    purpose that nobody declared."""

    types: np.ndarray
    hashes: np.ndarray
    slots: np.ndarray
    met: np.ndarray


def no_shapes(most: int, width: int) -> Shapes:
    """Room for so many shapes of so many numbers."""
    slots = 1 << (4 * most - 1).bit_length()
    return Shapes(
        np.zeros((most, width), np.int16), np.zeros(most, np.int64), np.full(slots, -1, np.int32), np.zeros(1, np.int64)
    )


class Columns(NamedTuple):
    """What a block of lines holds; first index the column, second the line.

    shape : -1 for a line that is not plain.
    start, length : of texts in the block; length -1 for null.
    values : times (microseconds since 1970), integers, money (ten-thousandths), booleans; there: is it there.
    numbers : doubles; has_number: is it there.
    """

    shape: np.ndarray
    event: np.ndarray
    start: np.ndarray
    length: np.ndarray
    values: np.ndarray
    there: np.ndarray
    numbers: np.ndarray
    has_number: np.ndarray


def columns_for(lines: int, texts: int, values: int, numbers: int) -> Columns:
    """Room for the columns of so many lines; `read_lines` empties what it needs of it."""
    return Columns(
        shape=np.empty(lines, np.int32),
        event=np.empty(lines, np.int32),
        start=np.empty((texts, lines), np.int32),
        length=np.empty((texts, lines), np.int32),
        values=np.empty((values, lines), np.int64),
        there=np.empty((values, lines), np.bool_),
        numbers=np.empty((numbers, lines)),
        has_number=np.empty((numbers, lines), np.bool_),
    )


INSIDE, TO_TEXT, TO_TIME, TO_NUMBER, TO_INTEGER, TO_MONEY, TO_BOOLEAN = range(7)
"""Rows of `targets`, whose columns are paths: the level that a path opens (0: none), else the column that a value of
that kind goes to (-1: none): TO_TEXT in start and length, TO_NUMBER in numbers, the others in values."""


def names_table(names: list[tuple[int, str, int]]) -> Names:
    """The table of (level, name, meaning)."""
    if len(names) * 4 > _SLOTS:
        raise ValueError(f"{len(names)} names are more than the table was made for")
    encoded = [name.encode() for _, name, _ in names]
    octets = np.frombuffer(b"".join(encoded) + bytes(8), dtype=np.uint8)
    length = np.array([len(name) for name in encoded], dtype=np.int64)
    levels, meanings = np.array([level for level, _, _ in names]), np.array([meaning for *_, meaning in names])
    entries = np.stack((np.cumsum(length) - length, length, levels, meanings), axis=1).astype(np.int32)
    return Names(_filled(entries, octets), entries, octets)


def compiled(function: Any) -> Any:
    """For what the kept functions call: it makes no arrays, and so needs not count who uses them.

    That counting, two locked instructions an array and call, was 57 % of the pass.
    """
    return njit(nogil=True, boundscheck=False, _nrt=False)(function)  # type: ignore[call-overload]


def _kept(function: Any) -> Any:
    """Compiled once a machine (about 8 s in all) and kept beside this file; it contains what it calls.

    Where neither this folder nor the user's cache can be written, every process compiles anew.
    """
    try:
        return njit(cache=True, nogil=True, boundscheck=False)(function)
    except RuntimeError:  # numba found no place to keep it
        return njit(nogil=True, boundscheck=False)(function)


def _reading(typingctx, octets, p):  # type: ignore[no-untyped-def]
    """Eight octets at p as one number, wherever p is; nothing checks that they are there."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = _place_of_eight(context, builder, signature, arguments)
        return builder.load(place, align=1)

    return types.uint64(octets, p), code


def _writing(typingctx, octets, p, word):  # type: ignore[no-untyped-def]
    """The opposite: writes eight octets."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[2], _place_of_eight(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(octets, p, types.uint64), code


def _place_of_eight(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    word = ir.IntType(64)
    position = context.cast(builder, arguments[1], signature.args[1], types.int64)
    return builder.bitcast(builder.gep(array.data, [position]), word.as_pointer())


_eight: Any = intrinsic(_reading)
_put_eight: Any = intrinsic(_writing)


@compiled
def _hash(octets, start, end, level):  # type: ignore[no-untyped-def]
    """FNV-1a, begun with the level."""
    h = np.int64(-3750763034362895579) ^ np.int64(level)
    for p in range(start, end):
        h = (h ^ np.int64(octets[p])) * np.int64(1099511628211)
    return h


@compiled
def _slot(h):  # type: ignore[no-untyped-def]
    return (h ^ (h >> 29)) & (_SLOTS - 1)


@_kept
def _filled(entries, octets):  # type: ignore[no-untyped-def]
    """Slots of a table of names."""
    slots = np.full(_SLOTS, -1, dtype=np.int32)
    for k in range(entries.shape[0]):
        slot = _slot(_hash(octets, entries[k, 0], entries[k, 0] + entries[k, 1], entries[k, 2]))
        while slots[slot] >= 0:
            slot = (slot + 1) & (_SLOTS - 1)
        slots[slot] = k
    return slots


@compiled
def _same(octets, start, known, first, length):  # type: ignore[no-untyped-def]
    """Whether octets[start : start + length] are known[first : first + length], which eight more octets follow."""
    if start + length + 8 > octets.shape[0]:
        for j in range(length):  # noqa: SIM110 (a generator does not compile)
            if known[first + j] != octets[start + j]:
                return False
        return True
    j = 0
    while j + 8 <= length:
        if _eight(octets, start + j) != _eight(known, first + j):
            return False
        j += 8
    rest = (np.uint64(1) << np.uint64(8 * (length - j))) - np.uint64(1)
    return (_eight(octets, start + j) ^ _eight(known, first + j)) & rest == 0


@compiled
def _find(slots, entries, known, octets, start, end, level):  # type: ignore[no-untyped-def]
    """Row of the name octets[start:end] at a level, -1 where nobody declared it."""
    slot = _slot(_hash(octets, start, end, level))
    while slots[slot] >= 0:
        k = slots[slot]
        if (
            entries[k, 2] == level
            and entries[k, 1] == end - start
            and _same(octets, start, known, entries[k, 0], end - start)
        ):
            return k
        slot = (slot + 1) & (_SLOTS - 1)
    return np.int32(-1)


@compiled
def _stands(entries, known, k, octets, start, end, level):  # type: ignore[no-untyped-def]
    """Whether name k of a level, and then a quote, stands at `start`."""
    if k < 0 or entries[k, 2] != level or start + entries[k, 1] >= end or octets[start + entries[k, 1]] != 34:
        return False
    return _same(octets, start, known, entries[k, 0], entries[k, 1])


@compiled
def past_blanks(octets, p, end):  # type: ignore[no-untyped-def]
    while p < end and (octets[p] == 32 or octets[p] == 9 or octets[p] == 13 or octets[p] == 10):
        p += 1
    return p


@compiled
def _string_end(octets, p, end):  # type: ignore[no-untyped-def]
    """Position of the closing quote of a string whose text begins at p; -1 if it has escapes or does not end.

    Eight octets at a time while none of them is a quote, a backslash or a control character: (w - 0x01..) & ~w has a high
    bit where an octet of w is zero, (w - 0x20..) & ~w where one is below a blank, and neither ever misses one.
    """
    while p + 8 <= end:
        w = _eight(octets, p)
        quote, escape = w ^ _QUOTES, w ^ _BACKSLASHES
        if (((quote - _ONES) & ~quote) | ((escape - _ONES) & ~escape) | ((w - _BLANKS) & ~w)) & _HIGHS:
            break
        p += 8
    while p < end:
        c = octets[p]
        if c == 34:
            return p
        if c == 92 or c < 32:
            return -1
        p += 1
    return -1


@compiled
def _digits_end(octets, p, end):  # type: ignore[no-untyped-def]
    while p < end and 48 <= octets[p] <= 57:
        p += 1
    return p


@compiled
def number_end(octets, p, end):  # type: ignore[no-untyped-def]
    """Where a JSON number at p ends, where its whole part ends, and whether it has an exponent; -1 if it is none."""
    if octets[p] == 45:
        p += 1
    whole = _digits_end(octets, p, end)
    if whole == p or (octets[p] == 48 and whole - p > 1):
        return -1, -1, False
    p = whole
    if p < end and octets[p] == 46:
        p = _digits_end(octets, p + 1, end)
        if p == whole + 1:
            return -1, -1, False
    exponent = p < end and (octets[p] == 101 or octets[p] == 69)
    if exponent:
        p += 1
        if p < end and (octets[p] == 43 or octets[p] == 45):
            p += 1
        first = p
        p = _digits_end(octets, p, end)
        if p == first:
            return -1, -1, False
    return p, whole, exponent


@compiled
def word(octets, p, end):  # type: ignore[no-untyped-def]
    """true, false or null at p: its type and its length, length 0 if it is none of them."""
    c = octets[p]
    if c == 116 and p + 4 <= end and octets[p + 1] == 114 and octets[p + 2] == 117 and octets[p + 3] == 101:
        return BOOLEAN, 4
    if c == 110 and p + 4 <= end and octets[p + 1] == 117 and octets[p + 2] == 108 and octets[p + 3] == 108:
        return NULL, 4
    if (
        c == 102 and p + 5 <= end
        and octets[p + 1] == 97 and octets[p + 2] == 108 and octets[p + 3] == 115 and octets[p + 4] == 101
    ):  # fmt: skip
        return BOOLEAN, 5
    return NULL, 0


@compiled
def _value_after_key(octets, p, end):  # type: ignore[no-untyped-def]
    """Where the value of the member whose key begins at p stands; -1 if the key is not plain."""
    if octets[p] != 34:
        return -1
    p = _string_end(octets, p + 1, end)
    if p < 0:
        return -1
    p = past_blanks(octets, p + 1, end)
    if p >= end or octets[p] != 58:
        return -1
    p = past_blanks(octets, p + 1, end)
    return p if p < end else -1


@compiled
def _scalar_end(octets, p, end):  # type: ignore[no-untyped-def]
    """Where a string, number or word at p ends; -1 if it is none or not plain."""
    c = octets[p]
    if c == 34:
        close = _string_end(octets, p + 1, end)
        return close + 1 if close >= 0 else -1
    if c == 45 or 48 <= c <= 57:
        return number_end(octets, p, end)[0]
    length = word(octets, p, end)[1]
    return p + length if length > 0 else -1


@compiled
def _nested_end(octets, p, end):  # type: ignore[no-untyped-def]
    """Where a plain object or array at p ends; -1 if it is not plain or nested too deep to be sure."""
    objects, depth = np.int64(0), 0  # a bit per depth: is it an object
    while True:  # at a value
        opened = octets[p] == 123 or octets[p] == 91
        if opened:
            depth += 1
            if depth > _MOST_DEPTH:
                return -1
            bit = np.int64(1) << depth
            objects = (objects | bit) if octets[p] == 123 else (objects & ~bit)
            p += 1
        else:
            p = _scalar_end(octets, p, end)
            if p < 0:
                return -1
        while True:  # after a value, or after an opening
            p = past_blanks(octets, p, end)
            if p >= end:
                return -1
            in_object = (objects >> depth) & 1 == 1
            if octets[p] == (125 if in_object else 93):
                depth -= 1
                p += 1
                opened = False
                if depth == 0:
                    return p
                continue
            if not opened:
                if octets[p] != 44:
                    return -1
                p = past_blanks(octets, p + 1, end)
                if p >= end:
                    return -1
            if in_object:
                p = _value_after_key(octets, p, end)
                if p < 0:
                    return -1
            break


@compiled
def _two(octets, p):  # type: ignore[no-untyped-def]
    """The number of two digits at p; -1 if they are none."""
    a, b = octets[p] - 48, octets[p + 1] - 48
    return a * 10 + b if 0 <= a <= 9 and 0 <= b <= 9 else -1


@compiled
def _days(year, month, day):  # type: ignore[no-untyped-def]
    """Days since 1970-01-01 in the proleptic Gregorian calendar (years begun in March, so that leap days come last)."""
    y = year - 1 if month <= 2 else year
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@compiled
def _month_length(year, month):  # type: ignore[no-untyped-def]
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@compiled
def _time(octets, start, length):  # type: ignore[no-untyped-def]
    """Microseconds since 1970 of YYYY-MM-DDTHH:MM:SS[.f{1,6}](Z|+HH:MM|-HH:MM), and whether it is one.

    Any other spelling is left to the engine, and so are the first and last years that a calendar knows.
    """
    nothing = np.int64(0)
    if length < 20:
        return nothing, False
    if (
        octets[start + 4] != 45 or octets[start + 7] != 45 or octets[start + 10] != 84
        or octets[start + 13] != 58 or octets[start + 16] != 58
    ):  # fmt: skip
        return nothing, False
    century, years = _two(octets, start), _two(octets, start + 2)
    month, day = _two(octets, start + 5), _two(octets, start + 8)
    hour, minute, second = _two(octets, start + 11), _two(octets, start + 14), _two(octets, start + 17)
    year = century * 100 + years
    if century < 0 or years < 0 or year < 2 or year > 9998 or month < 1 or month > 12:
        return nothing, False
    if day < 1 or day > _month_length(year, month) or hour < 0 or hour > 23 or minute < 0 or minute > 59:
        return nothing, False
    if second < 0 or second > 59:
        return nothing, False
    p, end, micros = start + 19, start + length, np.int64(0)
    if octets[p] == 46:
        first = p + 1
        p = _digits_end(octets, first, end)
        if p == first or p - first > 6:
            return nothing, False
        for q in range(first, first + 6):
            micros = micros * 10 + (np.int64(octets[q]) - 48 if q < p else 0)
    seconds = np.int64(hour * 3600 + minute * 60 + second)
    if end - p == 6 and (octets[p] == 43 or octets[p] == 45) and octets[p + 3] == 58:
        hours, minutes = _two(octets, p + 1), _two(octets, p + 4)
        if hours < 0 or hours > 14 or minutes < 0 or minutes > 59:
            return nothing, False
        seconds -= (hours * 3600 + minutes * 60) * (1 if octets[p] == 43 else -1)
    elif not (end - p == 1 and octets[p] == 90):
        return nothing, False
    return np.int64(_days(year, month, day)) * _MICROSECONDS_A_DAY + seconds * 1_000_000 + micros, True


@compiled
def _put_number(octets, p, end, whole, path, line, targets, values, there, numbers, has_number):  # type: ignore[no-untyped-def]
    """Keep a number without exponent in every column of its path; False where that is not exact beyond doubt.

    Up to 15 digits are exact in a double, and so is the power of ten that they are divided by (10^22 and less): one
    division is then the correctly rounded value (Clinger 1990, the fast path).
    """
    negative = octets[p] == 45
    first = p + 1 if negative else p
    decimals = end - whole - 1 if end > whole else 0
    digits = end - first - (1 if end > whole else 0)
    if digits > _MOST_DIGITS:
        return False
    mantissa = np.int64(0)
    for q in range(first, end):
        if octets[q] != 46:
            mantissa = mantissa * 10 + (np.int64(octets[q]) - 48)
    if negative:
        if mantissa == 0:
            return False
        mantissa = -mantissa
    column = targets[TO_NUMBER, path]
    if column >= 0:
        numbers[column, line] = np.float64(mantissa) / _POWERS_OF_TEN[decimals]
        has_number[column, line] = True
    column = targets[TO_INTEGER, path]
    if column >= 0 and decimals == 0:
        values[column, line] = mantissa
        there[column, line] = True
    column = targets[TO_MONEY, path]
    if column >= 0:
        if decimals > 4 or digits - decimals > 13:
            return False
        for _ in range(4 - decimals):
            mantissa *= 10
        values[column, line] = mantissa
        there[column, line] = True
    return True


@compiled
def _shape_number(known, hashes, slots, count, types):  # type: ignore[no-untyped-def]
    """Number of a shape, a new one if it was not met before; -1 if there is no room for it."""
    h = np.int64(-3750763034362895579)
    for k in range(types.shape[0]):
        h = (h ^ np.int64(types[k])) * np.int64(1099511628211)
    slot = (h ^ (h >> 29)) & (slots.shape[0] - 1)
    while slots[slot] >= 0:
        number = slots[slot]
        if hashes[number] == h:
            same = True
            for k in range(types.shape[0]):
                if known[number, k] != types[k]:
                    same = False
                    break
            if same:
                return number
        slot = (slot + 1) & (slots.shape[0] - 1)
    number = np.int32(count[0])
    if number == hashes.shape[0]:
        return np.int32(-1)
    for k in range(types.shape[0]):
        known[number, k] = types[k]
    hashes[number] = h
    slots[slot] = number
    count[0] = number + 1
    return number


@compiled
def _read_line(  # type: ignore[no-untyped-def]
    octets, p, end, line, slots, entries, known, followers, targets, types, starts, lengths, values, there, numbers,
    has_number,
):  # fmt: skip
    """Fill the columns of one line and the types of its paths; False if it is not plain.

    followers : the name that followed each name last time. Collectors write their keys in one order, so it nearly
    always does again, and comparing it is cheaper than hashing.
    """
    if p >= end or octets[p] != 123:
        return False
    p += 1
    level, opened, unknown_purposes, last = TOP, True, 0, followers.shape[0] - 1
    while True:  # at a key, or at the end of an empty object
        p = past_blanks(octets, p, end)
        if p >= end:
            return False
        if not (opened and octets[p] == 125):
            if octets[p] != 34:
                return False
            key = p + 1
            k = followers[last]
            if _stands(entries, known, k, octets, key, end, level):
                close = key + entries[k, 1]
            else:
                close = _string_end(octets, key, end)
                if close < 0:
                    return False
                k = _find(slots, entries, known, octets, key, close, level)
                followers[last] = k
            if k >= 0:
                last = k
            path = entries[k, 3] if k >= 0 else np.int32(-1)
            p = past_blanks(octets, close + 1, end)
            if p >= end or octets[p] != 58:
                return False
            p = past_blanks(octets, p + 1, end)
            if p >= end:
                return False
            if path >= 0:
                if types[path] != ABSENT:
                    return False
            elif level == CONSENT:
                unknown_purposes += 1
                types[types.shape[0] - 1] = 1
                if unknown_purposes > 1:
                    return False
            elif level != CONTEXT:
                return False
            begin = p
            c = octets[p]
            if c == 34:
                begin += 1
                p = _string_end(octets, begin, end)
                if p < 0:
                    return False
                if path >= 0:
                    types[path] = STRING
                    column = targets[TO_TEXT, path]
                    if column >= 0:
                        starts[column, line] = begin
                        lengths[column, line] = p - begin
                    column = targets[TO_TIME, path]
                    if column >= 0:
                        moment, plain = _time(octets, begin, p - begin)
                        if not plain:
                            return False
                        values[column, line] = moment
                        there[column, line] = True
                p += 1
            elif c == 45 or 48 <= c <= 57:
                p, whole, exponent = number_end(octets, p, end)
                if p < 0:
                    return False
                if path >= 0:
                    types[path] = INTEGER if p == whole else NUMBER
                    if exponent or not _put_number(
                        octets, begin, p, whole, path, line, targets, values, there, numbers, has_number
                    ):
                        return False
            elif c == 123 and path >= 0 and targets[INSIDE, path] > 0:
                types[path] = OBJECT
                level, opened = targets[INSIDE, path], True
                p += 1
                continue
            elif c == 123 or c == 91:
                if path >= 0 or level != CONTEXT:
                    return False
                p = _nested_end(octets, p, end)
                if p < 0:
                    return False
            else:
                kind, length = word(octets, p, end)
                if length == 0:
                    return False
                p += length
                if path >= 0:
                    types[path] = kind
                    column = targets[TO_BOOLEAN, path]
                    if column >= 0 and kind == BOOLEAN:
                        values[column, line] = length == 4
                        there[column, line] = True
            p = past_blanks(octets, p, end)
            if p >= end:
                return False
        opened = False
        while octets[p] == 125:
            p += 1
            if level == TOP:
                return past_blanks(octets, p, end) == end
            level = TOP
            p = past_blanks(octets, p, end)
            if p >= end:
                return False
        if octets[p] != 44:
            return False
        p += 1


@compiled
def _cut_octets(octets, begin, end, ends, beyond, found, above):  # type: ignore[no-untyped-def]
    """What _cut does, for octets[begin:end], one by one: `found` lines ended before; above: of the line that is open."""
    for p in range(begin, end):
        above |= octets[p] > 127
        if octets[p] == 10:
            found += 1
            if found < ends.shape[0]:
                ends[found], beyond[found - 1] = p + 1, above
            above = False
    return found, above


@compiled
def _mark_groups(words, newline, above):  # type: ignore[no-untyped-def]
    """For each _GROUP of words: may a newline be in it, is an octet above ASCII in it.

    (w - 0x01..) & ~w has a high bit where an octet of w is zero, and w is zero where a newline was. Nothing else is done in
    this loop, so that the compiler does several words at a time.
    """
    newlines = _ONES * np.uint64(10)
    for group in range(newline.shape[0]):
        zero, high = np.uint64(0), np.uint64(0)
        for i in range(group * _GROUP, group * _GROUP + _GROUP):
            w = words[i] ^ newlines
            zero |= (w - _ONES) & ~w
            high |= words[i]
        newline[group], above[group] = zero & _HIGHS != 0, high & _HIGHS != 0


@_kept
def _cut(words, octets, ends, beyond):  # type: ignore[no-untyped-def]
    """Fill ends[1:] with the position behind each newline, as far as there is room; returns how many there are.

    beyond : of each line, whether an octet above ASCII is in it.
    """
    newlines, found, above = _ONES * np.uint64(10), 0, False
    groups = words.shape[0] // _GROUP
    has_newline, has_above = np.empty(groups, np.bool_), np.empty(groups, np.bool_)
    _mark_groups(words, has_newline, has_above)
    for group in range(groups):
        if not has_newline[group]:
            above |= has_above[group]
            continue
        for i in range(group * _GROUP, group * _GROUP + _GROUP):
            w = words[i] ^ newlines
            if (w - _ONES) & ~w & _HIGHS == 0:
                above |= words[i] & _HIGHS != 0
            else:
                found, above = _cut_octets(octets, i * 8, i * 8 + 8, ends, beyond, found, above)
    return _cut_octets(octets, groups * _GROUP * 8, octets.shape[0], ends, beyond, found, above)[0]


_GROUP = 8
_USUAL_LINE = 200


def line_ends(octets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0, then the position behind each newline of a block (int32), and which lines have octets above ASCII.

    A fraction of what comparing every octet costs.
    """
    words = octets[: len(octets) // 8 * 8].view(np.uint64)
    ends, beyond = _room_for(len(octets) // _USUAL_LINE + 1)
    found = _cut(words, octets, ends, beyond)
    if found >= len(ends):
        ends, beyond = _room_for(found)
        _cut(words, octets, ends, beyond)
    return ends[: found + 1], beyond[:found]


def _room_for(lines: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(lines + 1, dtype=np.int32), np.zeros(lines, dtype=np.bool_)


@_kept
def read_lines(octets, offsets, usable, event_path, names, targets, shapes, columns):  # type: ignore[no-untyped-def]
    """Read the lines octets[offsets[i] : offsets[i + 1]] for which `usable`; fills `columns`, adds to `shapes`.

    The tuples are taken apart once: an array that is fetched from one in the loop costs more than its line.
    """
    slots, entries, known = names.slots, names.entries, names.octets
    shape_types, shape_hashes, shape_slots, shape_count = shapes.types, shapes.hashes, shapes.slots, shapes.met
    starts, lengths, values, there = columns.start, columns.length, columns.values, columns.there
    numbers, has_number, shape, events = columns.numbers, columns.has_number, columns.shape, columns.event
    paths = targets.shape[1]
    types = np.zeros(paths + 2, dtype=np.int16)
    followers = np.full(entries.shape[0] + 1, -1, dtype=np.int32)
    event_column = targets[TO_TEXT, event_path]
    lines = offsets.shape[0] - 1
    lengths[:, :lines] = -1
    there[:, :lines] = False
    has_number[:, :lines] = False
    for line in range(lines):
        shape[line] = -1
        if not usable[line]:
            continue
        types[:] = ABSENT
        plain = _read_line(
            octets, np.int64(offsets[line]), np.int64(offsets[line + 1]), line, slots, entries, known, followers, targets, types,
            starts, lengths, values, there, numbers, has_number,
        )  # fmt: skip
        if not plain or types[event_path] != STRING:
            continue
        start = np.int64(starts[event_column, line])
        k = _find(slots, entries, known, octets, start, start + lengths[event_column, line], EVENTS)
        if k < 0:
            continue
        events[line] = entries[k, 3]
        types[paths] = entries[k, 3]
        shape[line] = _shape_number(shape_types, shape_hashes, shape_slots, shape_count, types)


_ALIGNMENT = 64  # octets: where Arrow likes its buffers to begin


@compiled
def _bit(bitmap, column, k):  # type: ignore[no-untyped-def]
    bitmap[column, k >> 3] |= np.uint8(1 << (k & 7))


@_kept
def texts_of(octets, rows, columns, start, length):  # type: ignore[no-untyped-def]
    """Texts of some columns for some lines, as Arrow keeps them; nulls are empty. First index of all but `texts`: the column.

    Returns offsets (int32, rows + 1, from the column's own begin), bitmaps of what is there, counts of nulls, where each
    column's texts begin and end in `texts` (columns, 2), and `texts`.
    """
    count = rows.shape[0]
    offsets = np.empty((columns.shape[0], count + 1), dtype=np.int32)
    there = np.zeros((columns.shape[0], _bitmap_size(count)), dtype=np.uint8)
    nulls = np.zeros(columns.shape[0], dtype=np.int64)
    places = np.zeros((columns.shape[0], 2), dtype=np.int64)
    begin = 0
    for c in range(columns.shape[0]):
        column, total = columns[c], 0
        for k in range(count):
            offsets[c, k] = total
            if length[column, rows[k]] >= 0:
                total += length[column, rows[k]]
                _bit(there, c, k)
            else:
                nulls[c] += 1
        offsets[c, count] = total
        places[c, 0], places[c, 1] = begin, begin + total
        begin = (begin + total + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    texts = np.empty(begin + 8, dtype=np.uint8)
    for c in range(columns.shape[0]):
        if nulls[c] < count:
            _copy_texts(octets, rows, columns[c], start, c, offsets, texts, places[c, 0])
    return offsets, there, nulls, places, texts


@compiled
def _copy_texts(octets, rows, column, start, c, offsets, texts, begin):  # type: ignore[no-untyped-def]
    """One column's texts, eight octets at a time: what is written too much is written over by the next text."""
    for k in range(rows.shape[0]):
        first, at = np.int64(start[column, rows[k]]), begin + np.int64(offsets[c, k])
        left = np.int64(offsets[c, k + 1]) - np.int64(offsets[c, k])
        if first + left + 8 <= octets.shape[0]:
            for j in range(0, left, 8):
                _put_eight(texts, at + j, _eight(octets, first + j))
        else:
            for j in range(left):
                texts[at + j] = octets[first + j]


@_kept
def numbers_of(rows, values, there):  # type: ignore[no-untyped-def]
    """Whole numbers of all columns for some lines; first index the column.

    Returns values (zero where none is), bitmaps of what is there and of what is there and not zero, and counts of nulls.
    """
    count = rows.shape[0]
    taken = np.empty((values.shape[0], count), dtype=np.int64)
    known = np.zeros((values.shape[0], _bitmap_size(count)), dtype=np.uint8)
    true = np.zeros((values.shape[0], _bitmap_size(count)), dtype=np.uint8)
    nulls = np.zeros(values.shape[0], dtype=np.int64)
    for c in range(values.shape[0]):
        for k in range(count):
            if there[c, rows[k]]:
                value = values[c, rows[k]]
                taken[c, k] = value
                _bit(known, c, k)
                if value != 0:
                    _bit(true, c, k)
            else:
                taken[c, k] = 0
                nulls[c] += 1
    return taken, known, true, nulls


@compiled
def _bitmap_size(count):  # type: ignore[no-untyped-def]
    """Octets of a bitmap of so many bits, whose next begins where Arrow likes it."""
    return (count + 8 * _ALIGNMENT - 1) // (8 * _ALIGNMENT) * _ALIGNMENT
