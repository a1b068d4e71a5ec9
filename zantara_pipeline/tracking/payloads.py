"""Payloads of failed lines without direct identifiers: each value that may be one is replaced by its token.

What fails is what a sender got wrong, so an identifier is sought by its name at every depth and in every spelling that
differs in capitals, underscores and hyphens only (`email`, `eMail`, `E-Mail`), under earlier names of the property, and
in lines of other and of unknown events too, unless the event itself declares that very name as something else. All
other bytes of the line stay, so that a line which is mended and replayed gives the row that it would have given at first.

Lines are read as tokens, one at a time, and not as a tree: no depth and no key that stands twice hides a value, and no line
needs more memory than it is long.

Belongs here: that replacement. Does not belong here: the columns of accepted rows (batch.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from zantara_pipeline.privacy.keyed_hash import HASHED, STORED, UNCHECKED, Keyring
from zantara_pipeline.tracking.direct import direct_properties
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, EventPlan, Property, TrackingPlan
from zantara_pipeline.tracking.shapes import ENVELOPE

# Possessive (`*+`, `++`): what it took, it keeps. Otherwise each character or escape of a text leaves a place to come back to,
# which is 2 GB for 50 MB of escapes.
_STRING = r'"(?:[^"\\]++|\\.)*+"'
# A key with its colon, what opens and closes, other texts (passed over as a whole). Numbers, words and commas are between.
_TOKEN = re.compile(rf"(?P<key>{_STRING})\s*+:\s*+|[{{\[]|[}}\]]|{_STRING}", re.DOTALL)
_SCALAR = re.compile(rf'{_STRING}|[^\s"{{}}\[\],:]+', re.DOTALL)
_STORED_TEXT = re.compile(f'"{STORED.pattern}"')
Names = dict[str, list[Property]]
"""Folded name -> the properties whose checks a value of that name has to pass."""


class Payloads:
    """Replaces direct identifiers in lines of JSON.

    Parameters
    ----------
    stored : lines come from our own store, where a token is a token. In landed lines what looks like one is a value:
        nobody else can say whose hash it is.
    """

    def __init__(self, plan: TrackingPlan, keyring: Keyring, *, stored: bool) -> None:
        self.plan, self.keyring, self.stored = plan, keyring, stored
        self._anywhere = _merged([_names(event) for event in plan.events.values()])
        self._by_event = {
            name: (self._anywhere | _names(event), _declared_otherwise(event)) for name, event in plan.events.items()
        }

    def without_identifiers(self, event: str | None, line: str) -> str:
        """The line with a token in place of each direct identifier, all else as it came."""
        names, spared = self._by_event.get(event or "", (self._anywhere, frozenset[str]()))
        if not names:
            return line
        pieces, copied = [], 0
        for start, end, rules in self._places(line, names, spared):
            pieces += [line[copied:start], json.dumps(self._token(line[start:end], rules))]
            copied = end
        return "".join([*pieces, line[copied:]])

    def renewed(self, line: str) -> str:
        """The line with every token of an earlier key folded on, wherever it stands."""
        return _STORED_TEXT.sub(lambda found: f'"{self.keyring.renewed(found[0][1:-1])}"', line)

    def _places(self, line: str, names: Names, spared: frozenset[str]) -> Iterator[tuple[int, int, list[Property]]]:
        """Start and end of each value to replace, and the properties it may belong to."""
        top, depth, after = "", 0, 0
        for token in _TOKEN.finditer(line):
            first = line[token.start()]
            if first in "{[":
                depth += 1
            elif first in "}]":
                depth = max(depth - 1, 0)
            elif token["key"] is not None and token.start() >= after and token.end() < len(line):
                key = _text(token["key"])
                top = key if depth == 1 else top
                rules = self._wanted(key, top, depth, line[token.end()], names, spared)
                if rules is not None and (end := _value_end(line, token.end())) is not None:
                    yield token.end(), end, rules
                    after = end

    def _wanted(
        self, key: str, top: str, depth: int, value: str, names: Names, spared: frozenset[str]
    ) -> list[Property] | None:
        if depth == 1 and key == "properties":  # in a list or a text, values have no names by which to find them
            return None if value == "{" else []
        if (depth == 1 and key in ENVELOPE) or key in spared:
            return None
        if (top == "consent" and key in self.plan.purposes) or (top == "context" and key in CONTEXT_KEYS):
            return None
        return names.get(_folded(key))

    def _token(self, value: str, rules: Sequence[Property]) -> str:
        if not value.startswith('"'):
            return self.keyring.token(value, UNCHECKED)
        text = _text(value)
        if self.stored and STORED.fullmatch(text):
            return self.keyring.renewed(text)
        right = bool(rules) and all(_passes(text, prop) for prop in rules)
        return self.keyring.token(text, HASHED if right else UNCHECKED)


def _value_end(line: str, start: int) -> int | None:
    """Where the value that begins at `start` ends; None for null, and where there is none."""
    if line[start] not in "{[":
        scalar = _SCALAR.match(line, start)
        return None if scalar is None or scalar[0] == "null" else scalar.end()
    depth = 0
    for token in _TOKEN.finditer(line, start):
        depth += (line[token.start()] in "{[") - (line[token.start()] in "}]")
        if depth == 0:
            return token.end()
    return len(line)  # never of a line that is JSON; if it were, nothing survives


def _names(event: EventPlan) -> Names:
    """Direct identifiers of one event, under all names that they had."""
    return _merged(
        [
            {_folded(known): [event.properties[name]]}
            for name in direct_properties(event)
            for known in (name, *event.names_before(name))
        ]
    )


def _merged(parts: Sequence[Names]) -> Names:
    found: Names = {}
    for part in parts:
        for name, rules in part.items():
            found.setdefault(name, []).extend(rules)
    return found


def _declared_otherwise(event: EventPlan) -> frozenset[str]:
    return frozenset(event.properties) - frozenset(direct_properties(event))


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _text(token: str) -> str:
    return str(json.loads(token, strict=False)) if token.startswith('"') else token


def _passes(text: str, prop: Property) -> bool:
    """The checks of sql_checks.py on one text."""
    return (
        (prop.enum is None or text in prop.enum)
        and (prop.pattern is None or re.fullmatch(prop.pattern, text) is not None)
        and (prop.max_length is None or len(text) <= prop.max_length)
    )
