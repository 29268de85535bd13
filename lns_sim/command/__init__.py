"""The command ``lns-sim``: knows its subcommands by name, and imports one, and torch with it, only to run it.

Importing lns_sim imports torch, which takes seconds; so this folder is installed as a package of its own beside it,
``lns_sim_command``, too, which is what the program imports.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec


def missing(*modules: str) -> list[str]:
    """Those that are not installed."""
    return [name for name in modules if find_spec(name) is None]


def main() -> None:
    """Entry point."""
    if lacking := missing("typer", "rich"):
        sys.exit(f"lns-sim needs {' and '.join(lacking)}: pip install {' '.join(lacking)}")
    # Several workers of one machine would wait for each other's threads at full speed; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.argv[0] = "lns-sim"  # as records tell it, however it was started
    from .app import app

    app(prog_name="lns-sim")
