"""The measurements' own claims: verdicts, files, and that no convolution builds its patch matrix."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT

from benchmarks import roofline
from benchmarks.harness import Measurement
from benchmarks.memory import MEASURABLE


@pytest.mark.parametrize(
    "ratio, target, at_most, verdict",
    [
        (0.5, 0.5, False, "ok"),
        (0.49, 0.5, False, "short"),
        (2.0, 2.0, True, "ok"),
        (2.1, 2.0, True, "short"),
        (1.0, None, False, "-"),
    ],
)
def test_verdict(ratio, target, at_most, verdict):
    assert Measurement("section", "work", ratio, target, at_most).verdict == verdict


@pytest.mark.skipif(not MEASURABLE, reason="only Linux tells a process its own peak memory (/proc/self/clear_refs)")
def test_a_convolution_takes_less_than_an_eighth_of_its_patch_matrix():
    """In a process of its own, where no other test's threads allocate, and so large that the kernel's count of pages,
    which may lag by some hundred, does not matter."""
    code = """if True:
        import torch, lns_sim
        from benchmarks.memory import extra_bytes
        x, w = lns_sim.quantize(torch.randn(64, 64, 32, 32)), lns_sim.quantize(torch.randn(64, 64, 3, 3))
        codes = 9 * x.numel()  # of the patch matrix, a byte each, which the meter does see
        assert extra_bytes(lambda: lns_sim.conv2d(x, w, 1, 1)) < codes / 8
        assert extra_bytes(lambda: torch.zeros(codes, dtype=torch.uint8)[:1].clone()) > 0.9 * codes
    """
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_the_command_writes_what_it_measured(tmp_path):
    out = tmp_path / "measured.json"
    command = [sys.executable, "-m", "benchmarks", "--only", "memory", "--json", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "targets met" in run.stdout, run.stdout + run.stderr
    rows = json.loads(out.read_text())["rows"]
    assert all(row["verdict"] in ("ok", "short") for row in rows)
    refused = subprocess.run([*command[:5], "--plot", "x.png"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "--plot draws products" in refused.stderr


def test_the_picture(tmp_path):
    rows = [Measurement("sizes", "a product", 0.5, seconds=1e-3, macs=10**7, path="permute8", intensity=20.0)]
    roofline.draw(rows, {"permute8": 8e10}, 3e10, str(tmp_path / "roofline.png"))
    assert (tmp_path / "roofline.png").stat().st_size > 10_000 and "permute8" in (tmp_path / "roofline.svg").read_text()
