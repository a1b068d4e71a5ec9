"""The exception types for input that a person can mend.

Belongs here: the types and how they read. Does not belong here: catching it (the `zantara` command does that, once).
"""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: says what is wrong, where, and what to do, in one line.

    Parameters
    ----------
    what : what is wrong, without personal values.
    where : file, line or key (optional).
    todo : what the reader should do next (optional).
    """

    def __init__(self, what: str, where: object | None = None, todo: str | None = None) -> None:
        self.what, self.where, self.todo = what, where, todo
        text = what if where is None else f"{where}: {what}"
        super().__init__(" ".join((text if todo is None else f"{text}; {todo}").split()))


class InputErrors(InputError):
    """Several faults of one input, each in its own line, so that a person mends them all at once.

    Parameters
    ----------
    faults : at least one.
    """

    def __init__(self, faults: list[InputError]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)
