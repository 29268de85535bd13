"""The command ``lns-sim``; its subcommands are a file each."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Entry point."""
    missing = [name for name in ("typer", "rich", "matplotlib", "sklearn", "jinja2") if find_spec(name) is None]
    if missing:
        sys.exit(f"lns-sim needs {', '.join(missing)}: pip install --no-build-isolation -e '.[cli]'")
    from lns_sim.cli.app import app

    app()
