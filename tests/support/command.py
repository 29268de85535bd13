"""The command ``lns-sim`` as a user runs it."""

import os
import subprocess
import sys


def lns_sim(*args, cwd=None):
    command = [sys.executable, "-c", "from lns_sim_command import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "140"})
