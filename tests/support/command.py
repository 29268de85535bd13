"""The command ``lns-sim`` as a user runs it."""

import os
import subprocess
import sys

from helpers import ROOT

# The command as the program imports it: without lns_sim.
LOAD = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lns_sim_command", {str(ROOT / "lns_sim/command/__init__.py")!r})
command = sys.modules["lns_sim_command"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(command)
"""


def lns_sim(*args, cwd=None):
    command = [sys.executable, "-c", f"{LOAD}command.main()", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "140"})
