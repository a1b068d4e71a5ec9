"""Patterns that every engine reads alike: DuckDB's RE2, polars' and jsonschema-rs' Rust, JavaScript, and Python.

A pattern outside of what they share is worse than an error: `a++` ends an ingest (RE2 refuses it), `[a&&b]` is a list of
three characters to one engine and an empty intersection to another, `{,3}` is a count to Python, three characters to RE2 and
an error to Rust. So what is allowed is listed, and everything else is refused when the plan loads; so is what is too large
for one of them.

Belongs here: that list. Does not belong here: what a pattern means for a value (sql_checks.py, codegen/).
"""

from __future__ import annotations

import re
import warnings

# \< and \> are ends of words to Rust and the characters themselves to RE2; \a, \0 and \u are not known to all.
_ESCAPED = r"\\(?:[nrtfv]|x[0-9A-Fa-f]{2}|[ !-/:;=?@\[-`{-~])"
_ONE = rf"(?:{_ESCAPED}|[^\\\[\]-])"
_TOKENS = re.compile(
    rf"""
      (?P<atom>{_ESCAPED} | \[ \^? (?!\]-) (?:\]|(?=[^\]])) -? (?:{_ONE}(?:-{_ONE})?)* -? \] | [^\\\[(){{*+?^$|])
    | (?P<times>[*+?] | \{{(?P<least>[0-9]+)(?:,(?P<most>[0-9]*))?\}})
    | (?P<open>\( (?:\?:)? (?!\?))
    | (?P<close>\))
    | (?P<mark>[\^$|])
    """,
    re.VERBOSE | re.DOTALL,
)
# Rust reads these between characters of a class as operations on sets.
_SET_OPERATIONS = ("&&", "~~")
_MOST_TIMES = 1000
"""RE2 repeats nothing more often, counts inside of one another multiplied."""
# .{1000} is a third of a megabyte to Rust, and weighs 1,000; what weighs less than four of them is not tried out.
_SURE_WEIGHT, _SURE_DEPTH = 4_000, 50


def pattern_problem(pattern: str) -> str | None:
    """Why a pattern may not stand in a plan; None where it may."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what is refused below
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    anchored = pattern.startswith("^") and pattern.endswith("$") and not re.search(r"(?<!\\)(?:\\\\)*\\\$\Z", pattern)
    tokens = _tokens(pattern)
    if tokens is None or not anchored:
        return "write the pattern anchored (^...$), with character classes, without look-around or back references"
    if any(operation in token[0] for token in tokens if token["atom"] for operation in _SET_OPERATIONS):
        return "'&&' and '~~' in a character class are operations to some engines; write each character once"
    if _repeats_a_repetition(tokens):
        return (
            "a repetition of a repetition (a++, a{2}{3}) is refused by some engines; put the first in a group, (?:...)"
        )
    if _times(tokens) > _MOST_TIMES:
        return f"a part of it is repeated more than {_MOST_TIMES:,} times; use max_length for lengths"
    if _has_open_alternative(tokens):
        return f"of '{pattern}' each alternative is anchored at one end only; write ^(?:...|...)$"
    if not _surely_fits(tokens) and not _engines_hold(pattern):
        return "it is too large for some engines once it is compiled; use max_length for lengths"
    return None


def _tokens(pattern: str) -> list[re.Match[str]] | None:
    """All parts of a pattern; None where one is none that every engine reads alike."""
    found, at = [], 0
    while at < len(pattern):
        token = _TOKENS.match(pattern, at)
        if token is None:
            return None
        found.append(token)
        at = token.end()
    return found


def _repeats_a_repetition(tokens: list[re.Match[str]]) -> bool:
    """A single ? after a repetition makes it lazy, which all engines know."""
    run = 0
    for token in tokens:
        run = run + 1 if token["times"] else 0
        if run > 2 or (run == 2 and token[0] != "?"):
            return True
    return False


def _times(tokens: list[re.Match[str]]) -> int:
    """How often the most repeated part is repeated by counts."""
    levels, last = [1], 1
    for token in tokens:
        if token["open"]:
            levels.append(1)
        elif token["close"]:
            last = levels.pop()
            levels[-1] = max(levels[-1], last)
        elif token["least"]:
            levels[-1] = max(levels[-1], last * max(int(token["least"]), int(token["most"] or 0)))
        elif not token["times"]:
            last = 1
    return max(levels)


def _surely_fits(tokens: list[re.Match[str]]) -> bool:
    """Whether a pattern is far from any engine's limit, which holds for all but odd ones: its parts by their length and how
    often they are repeated, and how deep groups lie in groups."""
    levels, deepest = [[0, 0]], 0  # of each open group: what it weighs, its last part
    for token in tokens:
        weight, last = levels[-1]
        if token["open"]:
            levels.append([0, 0])
            deepest = max(deepest, len(levels))
        elif token["close"]:
            levels.pop()
            levels[-1] = [levels[-1][0] + weight, weight]
        elif token["least"]:
            times = max(int(token["least"]), int(token["most"] or 0), 1)
            levels[-1] = [weight + last * (times - 1), last * times]
        elif not token["times"]:
            levels[-1] = [weight + len(token[0]), len(token[0])]
    return levels[0][0] <= _SURE_WEIGHT and deepest <= _SURE_DEPTH


def _engines_hold(pattern: str) -> bool:
    """Ask those with a limit: 10 MB for Rust, 250 groups in one another; 8 MB for RE2, which would end an ingest."""
    import duckdb
    import polars as pl

    try:
        pl.Series(["a"]).str.contains(pattern)
        with duckdb.connect() as con:
            con.execute("SELECT regexp_full_match(text, ?) FROM (VALUES ('a')) AS given(text)", [pattern]).fetchall()
    except (pl.exceptions.PolarsError, duckdb.Error):
        return False
    return True


def _has_open_alternative(tokens: list[re.Match[str]]) -> bool:
    """Whether a | stands outside of any group: engines that look for the whole text and those that search differ on it."""
    depth = 0
    for token in tokens:
        depth += bool(token["open"]) - bool(token["close"])
        if token[0] == "|" and depth == 0:
            return True
    return False
