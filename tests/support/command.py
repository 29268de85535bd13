"""The command ``lns-sim`` as a user runs it, and what torchrun starts in several processes."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT
from typer.testing import CliRunner

from lns_sim.command.app import app

# The command as the program imports it: without lns_sim.
LOAD = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lns_sim_command", {str(ROOT / "lns_sim/command/__init__.py")!r})
command = sys.modules["lns_sim_command"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(command)
"""
WIDE = {"COLUMNS": "140"}


def lns_sim(*args, cwd=None) -> subprocess.CompletedProcess:
    """In this process, which has imported what takes a process of its own seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lns-sim", *map(str, args)])  # as records tell it
        if cwd is not None:
            patch.chdir(cwd)
            patch.syspath_prepend(cwd)
        run = CliRunner().invoke(app, sys.argv[1:], prog_name="lns-sim", env=WIDE)
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    return subprocess.CompletedProcess(args, run.exit_code, run.stdout, run.stderr)


def lns_sim_process(*args) -> subprocess.CompletedProcess:
    """In a process of its own."""
    command = [sys.executable, "-c", f"{LOAD}command.main()", *args]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **WIDE})


def torchrun(processes, *args):
    """A script, or ``-m`` a module, in so many processes, which must end well. NVLink's multicast stays off, which a
    host whose GPUs others use may not bear.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *args]
    environment = {"NCCL_NVLS_ENABLE": "0", **os.environ, **WIDE, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, env=environment)
    assert run.returncode == 0, run.stderr
    return run
