"""The command with all its subcommands, to run it within a process."""

from lns_sim_command.app import app

__all__ = ["app"]
