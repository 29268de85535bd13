"""Data-parallel training in two processes: DDP accepts the parameters, and all ranks keep the same codes."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lns_sim


def worker(rank: int, world: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(rank)  # different weights, until DDP makes them those of rank 0
    model = lns_sim.convert(nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)), "lns-madam")
    parallel = DistributedDataParallel(model)
    optimizer = lns_sim.optim.LNSMadam(parallel.parameters(), lr=1 / 16)
    for step in range(3):
        generator = torch.Generator().manual_seed(100 * step + rank)
        optimizer.zero_grad()
        parallel(torch.randn(8, 12, generator=generator)).square().mean().backward()
        optimizer.step()
    torch.save(model.state_dict(), os.path.join(out, f"{rank}.pt"))
    dist.destroy_process_group()


def test_two_ranks_hold_the_same_codes(tmp_path):
    mp.spawn(worker, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    for name in a:
        x, y = a[name], b[name]
        assert torch.equal(getattr(x, "codes", x), getattr(y, "codes", y)), name
    moved = a["0.weight"].dequantize() / start[0].weight
    assert (moved > 0).all() and 0.5 < moved.median() < 2 and not torch.allclose(moved, torch.ones_like(moved), rtol=1e-3)
