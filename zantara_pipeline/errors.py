"""The one exception type for input that a person can mend.

Belongs here: the type and how it reads. Does not belong here: catching it (the `zantara` command does that, once).
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
