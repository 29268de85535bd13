"""Errors that a user can mend become one sentence and exit status 1."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import torch
import typer

from lns_sim.cli.console import Output
from lns_sim.distributed import started
from lns_sim.optim import Diverged

MENDABLE = (ValueError, TypeError, OSError, ImportError, Diverged)


def _out_of_memory(error: Exception) -> bool:
    """Torch's CPU allocator has no exception class of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


@contextmanager
def interruptible(output: Output, kept: str):
    """On Ctrl-C says what was kept, and how to go on, and exits with a shell's status of such an end."""
    try:
        yield
    except KeyboardInterrupt:
        output.tell(f"Interrupted; {kept}")
        raise typer.Exit(128 + signal.SIGINT) from None


@contextmanager
def user_errors(debug: bool = False):
    """Prints a mendable error to stderr and exits with status 1; others pass, and with ``debug`` all do."""
    try:
        yield
    except BrokenPipeError:  # `lns-sim train | head`: click ends the command without a word
        raise
    except Exception as error:
        if debug:
            raise
        if _out_of_memory(error):
            text = (
                "out of memory; use a smaller batch, model or count "
                f"({str(error).splitlines()[0] if str(error) else 'MemoryError'})"
            )
        elif isinstance(error, OSError) and error.filename is not None:
            where_a_folder_is_to_be = isinstance(error, FileExistsError)
            text = f"{error.filename}: {'a file, but no folder' if where_a_folder_is_to_be else error.strerror}"
        elif isinstance(error, MENDABLE):
            text = str(error)
        else:
            raise
        who = f"lns-sim, process {os.environ['RANK']}" if started() > 1 else "lns-sim"
        typer.echo(f"{who}: {text}", err=True)
        raise typer.Exit(1) from None
