"""The console: as wide as the terminal, or wide enough for the tables where there is none."""

from rich.console import Console


def make_console(width: int = 120) -> Console:
    """A console on stdout; ``width`` where there is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=width)
