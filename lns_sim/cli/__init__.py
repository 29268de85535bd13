"""The command ``lns-sim``: train, bench, info."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point. Errors a user can mend are one sentence and exit status 1; interruption is 130."""
    try:
        import matplotlib  # noqa: F401
        import rich  # noqa: F401
        import sklearn  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(f"lns-sim needs {error.name}: pip install --no-build-isolation -e '.[cli]'")
    try:
        from lns_sim.cli.app import app
    except (ImportError, ValueError) as error:  # no extension, or an impossible LNS_SIM_ISA
        sys.exit(f"lns-sim: {error}")
    app()
