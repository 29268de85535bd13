"""The command ``lns-sim`` as a user runs it, and what torchrun starts in several processes."""

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


def torchrun(processes, *args):
    """A script, or ``-m`` a module, in so many processes, which must end well. NVLink's multicast stays off, which a
    host whose GPUs others use may not bear.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *args]
    environment = {"NCCL_NVLS_ENABLE": "0", **os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "140"}
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, env=environment)
    assert run.returncode == 0, run.stderr
    return run
