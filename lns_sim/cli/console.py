"""What a command shows: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Collection, Sequence
from functools import partial

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


def make_console(width: int = 120) -> Console:
    """A console on stdout; ``width`` where there is neither a terminal nor COLUMNS."""
    console = Console(markup=False)
    return console if _has_width(console) else Console(width=width, markup=False)


def _has_width(console: Console) -> bool:
    return console.is_terminal or "COLUMNS" in os.environ


def counted(n: int, noun: str) -> str:
    """How many there are, "1 trial" or "1,200 trials"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


class Output:
    """Where a command's words go.

    Args:
        quiet: nothing but errors is shown.
        as_json: stdout gets the result as JSON, and no tables.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False):
        self.as_json, self.quiet = as_json, quiet
        self.hidden = quiet or as_json
        self.errors = Console(stderr=True, quiet=quiet, soft_wrap=True)

    def show(self, *parts: RenderableType, width: int = 120, plain: bool = False) -> None:
        """Prints tables and sentences, ``width`` wide where there is no terminal; ``plain``: as the text stands.

        Sentences break between words, or nowhere where no width is known.
        """
        if not self.hidden:
            console = make_console(width)
            for part in parts:
                if isinstance(part, str) and not plain and _has_width(console):
                    wrap = partial(textwrap.fill, width=console.width, break_long_words=False, break_on_hyphens=False)
                    part = "\n".join(map(wrap, part.splitlines()))
                console.print(part, highlight=not plain, soft_wrap=isinstance(part, str))

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
        sections: Collection[int] = (),
    ) -> None:
        """Prints a table whose cells stand whole.

        Args:
            title, caption: above and below it.
            header, rows: words in a heading may stand below each other.
            width: where there is no terminal.
            left: columns of words, which in a narrow terminal may stand below each other, too.
            spare: columns that a narrow terminal has no room for, the first to go first; the caption names them.
            marked: numbers of rows in red.
            sections: numbers of rows with a line below.
        """
        available = make_console(width).width

        def needed(name: str, broken: bool) -> int:
            i = header.index(name)
            cells = [word for row in rows for word in (row[i].split() if broken and name in left else [row[i]])]
            return 3 + max(map(len, [*name.split(), *cells]), default=0)

        sizes = {name: needed(name, False) for name in header}
        if 1 + sum(sizes.values()) > available:
            sizes = {name: needed(name, True) for name in header}
        gone = []
        for name in spare:
            if name in sizes and 1 + sum(sizes.values()) > available:
                gone.append(name)
                del sizes[name]
        if gone:
            caption += f"{'; ' * bool(caption)}no room for: {', '.join(gone)}"
        room = available - 1 - sum(sizes.values())
        for name in sizes:  # what is left goes to headings and words, from the left
            more = min(max(needed(name, False), 3 + len(name)) - sizes[name], max(room, 0))
            sizes[name], room = sizes[name] + more, room - more
        shown = Table(title=title, caption=caption)
        for name, size in sizes.items():
            shown.add_column(name, justify="left" if name in left else "right", width=size - 3)
        for number, row in enumerate(rows):
            cells = [cell for name, cell in zip(header, row, strict=True) if name in sizes]
            shown.add_row(*cells, style="red" if number in marked else None, end_section=number in sections)
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
        shown = self.errors.is_terminal and not self.errors.quiet
        # A bar that is not shown would still end with an empty line.
        return Progress(*columns, console=self.errors if shown else Console(quiet=True), disable=not shown)
