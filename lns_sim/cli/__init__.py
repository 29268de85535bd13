"""The subcommands of ``lns-sim``, a file each; :mod:`lns_sim_command` finds them."""

from lns_sim_command import main

__all__ = ["main"]
