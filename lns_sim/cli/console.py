"""The console: as wide as the terminal, or wide enough for the tables where there is none."""

from rich.console import Console


def make_console() -> Console:
    """A console on stdout."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
