"""``python -m lns_sim`` is ``lns-sim``."""

from lns_sim_command import main

main()
