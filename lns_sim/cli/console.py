"""What a command shows: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
        self.as_json = as_json
        self._hidden = quiet or as_json
        self.errors = Console(stderr=True, quiet=quiet, soft_wrap=True)

    def show(self, *parts: RenderableType, width: int = 120, plain: bool = False) -> None:
        """Prints tables and sentences, ``width`` wide where there is no terminal; ``plain``: as the text is."""
        if not self._hidden:
            console = make_console(width)
            for part in parts:
                console.print(part, markup=not plain, highlight=not plain, soft_wrap=isinstance(part, str))

    @property
    def width(self) -> int:
        """Of the terminal; without one, of the widest table."""
        console = Console()
        return console.width if console.is_terminal else 1000

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
