"""Data-parallel training in two processes: DDP accepts the parameters, and all ranks keep the same codes at every step."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lns_sim
from data_parallel import build
from helpers import HAVE_CUDA

two_gpus = pytest.mark.skipif(not HAVE_CUDA or torch.cuda.device_count() < 2, reason="NCCL gives every rank a GPU of its own")


@pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=two_gpus)])
@pytest.mark.parametrize("model", ["cnn", "gpt"])
def test_two_ranks_hold_the_same_codes_at_every_step(backend, model, tmp_path):
    out = tmp_path / "weights.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               Path(__file__).with_name("data_parallel.py"), backend, model, out]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr[-3000:]
    saved = torch.load(out, weights_only=True)
    assert saved["ranks"] == 2
    torch.manual_seed(0)  # as rank 0 began
    first = next(p for p in build(model).parameters() if p.dim() > 1)
    start = lns_sim.quantize(first.detach(), lns_sim.LNSFormat(16, 2048)).codes
    moved = (saved["weights"][0].int() & 32767) - (start.int() & 32767)
    assert (moved != 0).any() and moved.abs().max() <= 4 * 10 * 128  # lr 1/16 of 2048 codes, at most 10 a step
