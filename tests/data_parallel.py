"""One rank of data-parallel training, started by torchrun: after every step all ranks must hold the same codes.

Arguments: backend (gloo or nccl), model (cnn or gpt), and the file to which rank 0 writes the last weights.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lns_sim
from lns_sim import models


def build(name: str) -> nn.Module:
    """A small network; the decoder's head is its embedding."""
    if name == "cnn":
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    net = models.GPT(11, 6, width=16, layers=1, heads=2)
    net.head.weight = net.tokens.weight
    return net


def inputs(name: str, generator: torch.Generator) -> torch.Tensor:
    if name == "cnn":
        return torch.randn(8, 3, 8, 8, generator=generator)
    return torch.randint(11, (8, 6), generator=generator)


def main(backend: str, name: str, out: str) -> None:
    rank = int(os.environ["RANK"])
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    dist.init_process_group(backend)
    torch.manual_seed(rank)  # different weights, until DDP makes them those of rank 0
    model = lns_sim.convert(build(name), lns_sim.recipes.lns_madam(stochastic_gradients=True)).to(device)
    parallel = DistributedDataParallel(model, device_ids=[device] if backend == "nccl" else None)
    optimizer = lns_sim.optim.LNSMadam(parallel.parameters(), lr=1 / 16)
    weights = [p for p in model.parameters() if isinstance(p, lns_sim.LNSWeight)]
    for step in range(4):
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(100 * step + rank)
        parallel(inputs(name, generator).to(device)).square().mean().backward()
        optimizer.step()
        for weight in weights:
            codes = weight.codes.to(torch.int32)
            gathered = [torch.empty_like(codes) for _ in range(dist.get_world_size())]
            dist.all_gather(gathered, codes)
            assert all(torch.equal(g, codes) for g in gathered), f"codes differ between ranks after step {step}"
    if rank == 0:
        torch.save({"weights": [w.codes.cpu() for w in weights], "ranks": dist.get_world_size()}, out)
    del parallel  # before its process group
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
