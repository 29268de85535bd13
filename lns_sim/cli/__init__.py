"""The subcommands of ``lns-sim``, a file each; :mod:`lns_sim.command` finds them."""
