"""What a command shows: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


def make_console(width: int = 120) -> Console:
    """A console on stdout; ``width`` where there is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


class Output:
    """Where a command's words go.

    Args:
        quiet: nothing but errors is shown.
        as_json: stdout gets the result as JSON, and no tables.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False):
        self.as_json, self.quiet = as_json, quiet
        self._hidden = quiet or as_json
        self.errors = Console(stderr=True, quiet=quiet, soft_wrap=True)

    def show(self, *parts: RenderableType, width: int = 120, plain: bool = False) -> None:
        """Prints tables and sentences, ``width`` wide where there is no terminal; ``plain``: as the text is."""
        if not self._hidden:
            console = make_console(width)
            for part in parts:
                console.print(part, markup=not plain, highlight=not plain, soft_wrap=isinstance(part, str))

    def table(
        self,
        title: str,
        caption: str,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        width: int = 120,
        left: Sequence[str] = (),
        spare: Sequence[str] = (),
        marked: Collection[int] = (),
    ) -> None:
        """Prints a table whose cells stand whole.

        Args:
            title, caption: above and below it.
            header, rows: words in a heading may stand below each other.
            width: where there is no terminal.
            left: columns of words.
            spare: columns that a narrow terminal has no room for, the first to go first; the caption names them.
            marked: numbers of rows in red.
        """
        available = make_console(width).width
        needed = {
            name: 3 + max(len(word) for word in [*name.split(), *(row[i] for row in rows)])
            for i, name in enumerate(header)
        }
        gone = []
        for name in spare:
            if name in needed and 1 + sum(needed.values()) > available:
                gone.append(name)
                del needed[name]
        if gone:
            caption += f"; no room for: {', '.join(gone)}"
        shown = Table(title=title, caption=caption)
        whole = sum(max(size, 3 + len(name)) for name, size in needed.items()) < available
        for name, size in needed.items():
            # Headings break where they must, cells nowhere.
            shown.add_column(name, justify="left" if name in left else "right", width=None if whole else size - 3)
        for number, row in enumerate(rows):
            cells = [cell for name, cell in zip(header, row, strict=True) if name in needed]
            shown.add_row(*cells, style="red" if number in marked else None)
        self.show(shown, width=width)

    def result(self, record: object) -> None:
        """The result as plain data, shown where one asked for it."""
        if self.as_json:
            json.dump(record, sys.stdout, indent=1)
            print(flush=True)

    def tell(self, text: str) -> None:
        """Says what goes on, on stderr."""
        self.errors.print(text, highlight=False, markup=False)
        self.errors.file.flush()

    def progress(self, unit: str) -> Progress:
        """A bar of so many units, on a terminal."""
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        return Progress(*columns, console=self.errors, disable=not self.errors.is_terminal or self.errors.quiet)
