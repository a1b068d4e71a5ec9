"""Files that hold events and not one a line: another encoding than UTF-8, one JSON array or object, objects over several
lines.

Line by line all of it would be unparsable, or a mess (in UTF-16 a line ends in the middle of a character). Such a file is
told by its beginning and refused whole, with what makes lines of it. Wherever a file is lines that are broken, it is not
refused: a whole line that is an object among the first ones is enough.

Belongs here: telling these. Does not belong here: formats of other tools (detect.py).
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path

from zantara_pipeline.errors import InputError

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # first: it begins as UTF-16 does
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# Eight characters of ASCII, as every JSON object and header begins with; a single NUL is dirt.
_BEGINNING = 16


def refuse_other_layouts(path: Path, block: bytes, lines: Sequence[bytes]) -> None:
    """
    Parameters
    ----------
    block : the file's first bytes, without a byte order mark of UTF-8.
    lines : its first whole lines that are not blank.

    Raises
    ------
    InputError : no lines of text with an event each, plainly.
    """
    if (encoding := _encoding(block)) is not None:
        raise InputError(f"it is {encoding}", path, f"write it as UTF-8 (iconv -f {encoding} -t UTF-8)")
    if _is_array(block, lines):
        raise InputError("it is one JSON array", path, "write one event a line (jq -c '.[]')")
    if len(lines) == 1 and _holds_events(lines[0]):
        raise InputError(
            "it is one JSON object that holds a list of events", path, "write one event a line (jq -c '.<its key>[]')"
        )
    if _is_spread(lines):
        raise InputError("its JSON objects take several lines each", path, "write one event a line (jq -c .)")


def _encoding(block: bytes) -> str | None:
    """The name that iconv knows an encoding of two or four bytes a character by."""
    marked = next((name for mark, name in _MARKS.items() if block.startswith(mark)), None)
    if marked:
        return marked if b"\0" in block else None
    start = block[:_BEGINNING]
    if len(start) < _BEGINNING or b"\0" not in start:
        return None
    for width in (4, 2):
        units = [start[at : at + width] for at in range(0, _BEGINNING, width)]
        for order, text in (("LE", [unit[:1] for unit in units]), ("BE", [unit[-1:] for unit in units])):
            padded = (one.ljust(width, b"\0") if order == "LE" else one.rjust(width, b"\0") for one in text)
            if b"\0" not in text and list(padded) == units:
                return f"UTF-{8 * width}{order}"
    return None


def _is_array(block: bytes, lines: Sequence[bytes]) -> bool:
    """A whole array in its first line alone is dirt if lines follow; its last element may be an object on a line."""
    start = block.lstrip()
    if not start.startswith(b"[") or not start[1:].lstrip().startswith(b"{"):
        return False
    return len(lines) < 2 or (not _is_json(lines[0]) and sum(map(_is_object, lines)) < 2)


def _holds_events(line: bytes) -> bool:
    found = json.loads(line) if _is_object(line) else {}
    lists = [value for value in found.values() if isinstance(value, list) and value] if "event" not in found else []
    return any(all(isinstance(one, dict) and "event" in one for one in value) for value in lists)


def _is_spread(lines: Sequence[bytes]) -> bool:
    if len(lines) < 2 or lines[0].strip() != b"{" or not lines[1].lstrip().startswith(b'"'):
        return False
    return not any(map(_is_object, lines))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_object(line: bytes) -> bool:
    return line.lstrip().startswith(b"{") and _is_json(line)
