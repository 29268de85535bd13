"""``python -m lns_sim`` is ``lns-sim``."""

from lns_sim.command import main

main()
