"""Two ranks that load, broadcast and refuse weights, started by torchrun; what test_distributed.py runs."""

import copy
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import lns_sim
from lns_sim.distributed import local

RECIPE = lns_sim.recipes.lns_madam(stochastic_gradients=True)
X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def net(bias=True) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5, bias), nn.ReLU(), nn.Linear(5, 4, bias))


def trained(make) -> nn.Module:
    """A model whose scales are not those that its values would be given."""
    torch.manual_seed(0)
    model = lns_sim.convert(make(), RECIPE)
    for p in model.parameters():
        if isinstance(p, lns_sim.LNSWeight):
            p.scale.mul_(8)
            p.codes.sub_(3 * 2048)
    return model


def check_ddp(rank: int) -> None:
    """Its first broadcast: a weight alone in its bucket, and several with other parameters."""
    for make in (lambda: nn.Linear(6, 4, bias=False), lambda: net(bias=False), net):
        torch.manual_seed(rank)
        source = trained(make)
        model = source if rank == 0 else lns_sim.convert(make(), RECIPE)
        DistributedDataParallel(model)
        for p, q in zip(model.parameters(), source.parameters(), strict=True):
            pairs = zip(p.__tensor_flatten__()[0], q.__tensor_flatten__()[0]) if hasattr(p, "codes") else []
            assert all(torch.equal(getattr(p, a), getattr(q, b)) for a, b in pairs)
            assert torch.equal(p.detach().flatten()[0], q.detach().flatten()[0])


def sharded_on_meta(mesh) -> nn.Module:
    with torch.device("meta"):
        model = net()
    lns_sim.convert(model, RECIPE)
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def check_fsdp(mesh) -> None:
    """From the meta device: codes and float32 values, copied and assigned."""
    source = trained(net)
    codes, values = source.state_dict(), lns_sim.nn.to_float(source).state_dict()
    whole = StateDictOptions(full_state_dict=True)
    expected = source(X)
    fresh = lns_sim.convert(net(), RECIPE)
    fresh.load_state_dict(values)
    for state, y in ((codes, expected), (values, fresh(X))):
        model = sharded_on_meta(mesh).to_empty(device="cpu")
        set_model_state_dict(model, copy.deepcopy(state), options=whole)
        assert torch.equal(model(X), y)
        model = sharded_on_meta(mesh)
        parts = {n: distribute_tensor(state[n], p.device_mesh, p.placements) for n, p in model.named_parameters()}
        model.load_state_dict(parts, assign=True)
        assert torch.equal(model(X), y)
        model(X).sum().backward()
        lns_sim.optim.LNSMadam(model.parameters()).step()
        assert sum(isinstance(local(p), lns_sim.LNSWeight) for p in model.parameters()) == 2


def refused(message: str, run) -> None:
    try:
        run()
    except (NotImplementedError, TypeError, ValueError) as error:
        assert message in str(error), error
    else:
        raise AssertionError(f"not refused: {message}")


def check_refusals(mesh) -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    refused("param_dtype None", lambda: fully_shard(trained(net), mesh=mesh, mp_policy=policy)(X))
    columns = {"0": ColwiseParallel()}
    refused("tensor parallelism", lambda: parallelize_module(trained(net), mesh, columns)(X))
    refused("convert the model before", lambda: lns_sim.convert(parallelize_module(net(), mesh, columns), RECIPE))
    refused("docs/recipes.md", lambda: dist.all_reduce(trained(net)[0].weight.detach()))
    shard = local(next(fully_shard(trained(net), mesh=mesh).parameters()))
    refused("before fully_shard", lambda: shard.detach().copy_(torch.ones(shard.shape)))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    devices = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    check_ddp(dist.get_rank())
    check_fsdp(devices)
    check_refusals(devices)
    dist.barrier()
    os._exit(0)  # as in ranks.py
