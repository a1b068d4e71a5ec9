"""Tables on the terminal, and the same in a pipe.

Belongs here: how a table is printed. Does not belong here: what stands in it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDEST = 1_000_000
"""Columns of what is no terminal: whoever reads a pipe by the line wants each row whole."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Collection[str] = ()) -> None:
    """One row a line in a pipe; folded to its width on a terminal.

    Parameters
    ----------
    whole : columns that are never folded: names that somebody will copy.

    Notes
    -----
    Cells are text and never markup: names from contracts and data may hold square brackets.
    """
    table = Table(box=None)
    for column in columns:
        table.add_column(Text(column), no_wrap=column in whole, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDEST).print(table)
