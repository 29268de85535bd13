"""One rank of a training run, started by torchrun; what test_distributed.py compares.

Arguments: backend (gloo or nccl), a way to distribute (ddp or fsdp), a model (cnn, gpt, or bare, which trains on global
batches), and the file to which rank 0 writes all weights and optimizer moments.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lns_sim
from lns_sim.distributed import global_batch, local, whole
from lns_sim.quantizers import LNS
from lns_sim.studies import models

ERROR = LNS(rounding="stochastic", underflow="stochastic")
RECIPE = replace(lns_sim.recipes.lns_madam(stochastic_gradients=True), error=ERROR)


class Bare(nn.Module):
    """Products only, of weights and of computed tensors: every sum of its training is made by a datapath."""

    def __init__(self):
        super().__init__()
        self.filters, self.out = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 5, bias=False)

    def forward(self, x):
        x = self.filters(x).relu().flatten(2).mT
        return self.out(torch.softmax(x @ x.mT, -1) @ x)


def build(name: str) -> nn.Module:
    """A small network; the decoder's head is its embedding."""
    if name == "bare":
        return Bare()
    if name == "cnn":
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    net = models.GPT(11, 6, width=16, layers=1, heads=2)
    net.head.weight = net.tokens.weight
    return net


def inputs(name: str, step: int, rank: int) -> torch.Tensor:
    """A rank's batch, of another size than other ranks' would be by chance."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    if name == "gpt":
        return torch.randint(11, (8, 6), generator=generator)
    return torch.randn(8, 3, 8, 8, generator=generator) * (1 + rank)


def train(name: str, model: nn.Module, parameters, batches, after_step=lambda step: None) -> torch.optim.Optimizer:
    """Four steps; returns the optimizer."""
    optimizer = lns_sim.optim.LNSMadam(parameters, lr=1 / 16, rounding="stochastic")
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        with global_batch() if name == "bare" and dist.is_initialized() else contextlib.nullcontext():
            model(batch).square().mean().backward()
        optimizer.step()
        after_step(step)
    return optimizer


def record(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """All codes, float parameters and moments, whole, by name."""
    found = {}
    for name, p in model.named_parameters():
        value = whole(p.detach())
        found[name] = (value.codes if isinstance(value, lns_sim.LNSWeight) else value).cpu()
        if "moment" in optimizer.state[p]:
            found[f"{name}.moment"] = whole(optimizer.state[p]["moment"]).cpu()
    return found


def check_codes_are_equal(model: nn.Module) -> None:
    for name, p in model.named_parameters():
        if isinstance(p, lns_sim.LNSWeight):
            codes = p.codes.to(torch.int32)
            gathered = [torch.empty_like(codes) for _ in range(dist.get_world_size())]
            dist.all_gather(gathered, codes)
            assert all(torch.equal(g, codes) for g in gathered), f"{name}: codes differ between ranks"


def check_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
    """torch.distributed.checkpoint writes sharded codes and moments, and reads them back."""
    before = record(model, optimizer)
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=folder)
    with torch.no_grad():
        for p in model.parameters():
            shard = local(p)
            (shard.codes if isinstance(shard, lns_sim.LNSWeight) else shard).zero_()
            if "moment" in optimizer.state[p]:
                local(optimizer.state[p]["moment"]).zero_()
    weights, moments = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
    after = record(model, optimizer)
    assert all(torch.equal(after[name], value) for name, value in before.items()), "the checkpoint changed something"


def check_after_step(model, step):
    check_codes_are_equal(model)


def main(backend: str, way: str, name: str, out: str) -> None:
    rank = int(os.environ["RANK"])
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    dist.init_process_group(backend)
    torch.manual_seed(rank if way == "ddp" else 0)  # DDP makes all weights those of rank 0
    model = lns_sim.convert(build(name), RECIPE).to(device)
    batches = (inputs(name, step, rank).to(device) for step in range(4))
    if way == "ddp":
        parallel = DistributedDataParallel(model, device_ids=[device] if backend == "nccl" else None)
        optimizer = train(name, parallel, parallel.parameters(), batches, partial(check_after_step, model))
        del parallel  # before its process group
    else:
        mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
        for block in getattr(model, "blocks", []):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = train(name, model, model.parameters(), batches)
        folder = [tempfile.mkdtemp()] if rank == 0 else [None]
        dist.broadcast_object_list(folder, device=device)
        check_checkpoint(model, optimizer, folder[0])
        if name == "bare" and importlib.util.find_spec("safetensors"):
            lns_sim.weights.save(model, Path(out).with_suffix(".safetensors"))
    found = record(model, optimizer)
    if rank == 0:
        torch.save({"found": found, "ranks": dist.get_world_size()}, out)
    del model, optimizer
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # torch's caches keep a mesh's gloo threads alive past destroy_process_group; one that frees a tensor while Python
    # finalizes aborts the process.
    os._exit(0)
