"""Errors that a user can mend become one sentence and exit status 1."""

from __future__ import annotations

from contextlib import contextmanager

import typer

from lns_sim.training.trainer import Diverged

MENDABLE = (ValueError, TypeError, OSError, ImportError, Diverged)


@contextmanager
def user_errors():
    """Prints a mendable error to stderr and exits with status 1."""
    try:
        yield
    except MENDABLE as error:
        typer.echo(f"lns-sim: {error}", err=True)
        raise typer.Exit(1) from None
