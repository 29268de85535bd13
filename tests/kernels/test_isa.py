"""LNS_SIM_ISA forces an instruction set; an impossible one, or a missing extension, is an error, never a fallback."""

import os
import subprocess
import sys

import pytest
from helpers import ISAS

SHOW = "import lns_sim; print(lns_sim._extension.load().isa())"


def run(code, **env):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})


@pytest.mark.parametrize("isa", ISAS)
def test_forced(isa):
    assert run(SHOW, LNS_SIM_ISA=isa).stdout.strip() == isa


def test_the_best_is_the_default():
    assert run(SHOW, LNS_SIM_ISA="").stdout.strip() == ISAS[-1]


def test_impossible():
    result = run(SHOW, LNS_SIM_ISA="neon512")
    assert result.returncode != 0
    assert "LNS_SIM_ISA asks for 'neon512', but this machine runs scalar" in result.stderr


HIDE = "import sys; sys.modules['lns_sim._C'] = None\nimport lns_sim"
OLD = "import torch; torch.__version__ = '2.9.1'\nimport lns_sim"
FOREIGN = """
import types, sys
m = types.ModuleType("lns_sim._C")
m.__version__ = "0.0.9"
sys.modules["lns_sim._C"] = m
import lns_sim
"""


# The extension with other names: loaded once, changed, and loaded again.
CHANGED = "import lns_sim._extension as e\nfrom lns_sim import _C\n{}\ne.load.cache_clear()\ne.load()"
OTHER = CHANGED.format("_C.contract = {**_C.contract, 'counters': _C.contract['counters'][::-1]}")
UNKNOWN = CHANGED.format("del _C.contract")


@pytest.mark.parametrize(
    "code, message",
    [
        (HIDE, "pip install --no-build-isolation -e ."),
        (OLD, "needs torch >= 2.10, found 2.9.1"),
        (FOREIGN, "Rebuild with"),
        (OTHER, "it takes counters as ('cancelled', "),
        (UNKNOWN, "it takes version as None, not 1"),
    ],
)
def test_a_missing_or_mismatched_extension_says_what_to_run(code, message):
    result = run(code)
    assert result.returncode != 0 and "ImportError: " in result.stderr and message in result.stderr


@pytest.mark.slow
def test_import_is_quick():
    """By the processor's time, which is the same on a busy machine."""
    code = "import time, torch, numpy\nt = time.process_time()\nimport lns_sim\nprint(time.process_time() - t)"
    assert min(float(run(code).stdout) for _ in range(3)) < 1.0
