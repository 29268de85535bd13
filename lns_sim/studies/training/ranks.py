"""The processes that train one model together, as torchrun starts them: weights in shards (FSDP2), gradients added up
in the order of the ranks.

Everything here holds in a process alone, too, which is rank 0 of 1.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lns_sim.distributed import local, started, whole

T = TypeVar("T")


def join(device: str) -> str:
    """Meets the other processes, and gives this one's device: of GPUs the one of its local rank.

    Args:
        device: "cpu" or "cuda", as the user says it.

    Raises:
        ValueError: one GPU is named for all, or there are fewer than processes.
    """
    if started() == 1:
        return device
    asked = torch.device(device)
    if asked.type == "cpu":
        dist.init_process_group("gloo")
        return device
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if asked.index is not None:
        raise ValueError(f"device is {device}, but each of {started()} processes takes a GPU of its own: say cuda")
    if torch.cuda.device_count() < here:
        raise ValueError(f"{here} processes need as many GPUs, but torch finds {torch.cuda.device_count()}")
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    dist.init_process_group("nccl", device_id=own)
    return str(own)


def leave() -> None:
    """Ends what :func:`join` began, when all have come so far and hold no trainer any more."""
    if count() > 1:
        gc.collect()  # a model keeps gloo's threads alive: one that frees a tensor while Python ends aborts the process
        dist.barrier()
        dist.destroy_process_group()


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one."""
    return dist.get_rank() if count() > 1 else 0


def first() -> bool:
    """Is it this process that writes files and prints?"""
    return rank() == 0


def gathered(value: T) -> list[T]:
    """Every rank's value, in their order: plain data, or tensors on the CPU."""
    values: list[Any] = [value]
    if count() > 1:
        values = [None] * count()
        dist.all_gather_object(values, value)
    return values


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, for all."""
    made: list[Any] = [make() if first() else None]
    if count() > 1:
        dist.broadcast_object_list(made, src=0)
    return made[0]


class SumInOrder:
    """FSDP2's reduce-scatter as an exchange and a sum in the order of the ranks, so that N ranks add gradients up as
    one process adds N micro-batches'. It sends as many bytes as a ring, whose order differs from element to element.
    """

    def allocate(self, size, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group, op, async_op: bool = False) -> None:
        shares = torch.empty_like(input_tensor)
        dist.all_to_all_single(shares, input_tensor, group=group)
        own, *others = shares.view(group.size(), -1)
        output_tensor.copy_(own)
        for other in others:
            output_tensor.add_(other)


def shard(model: nn.Module, device: torch.device) -> None:
    """Distributes a model's parameters over all ranks, in place. The blocks of its outermost ModuleLists are gathered
    one at a time.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = dist.DeviceMesh.from_group(dist.group.WORLD, device.type)
    lists: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
            lists[name] = module
    for part in [*(block for blocks in lists.values() for block in blocks), model]:
        sharded = fully_shard(part, mesh=mesh)
        sharded.set_custom_reduce_scatter(SumInOrder())
        sharded.set_force_sum_reduction_for_comms(True)  # torch divides what it has added up


def share_buffers(model: nn.Module) -> None:
    """Gives all ranks the first one's buffers, as DDP does: running statistics are those of its share of the data."""
    if count() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def whole_state(state: Any) -> Any:
    """A state_dict with whole tensors on the CPU in the place of shards; every rank must ask for it."""
    if count() == 1:
        return state
    return torch.utils._pytree.tree_map_only(Tensor, lambda x: whole(x).detach().cpu(), state)


def sharded_as(values: Mapping[str, Any], like: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """Whole tensors as this rank's shards, laid out as those of the same name; one of another shape is every rank's."""
    if count() == 1:
        return values
    from torch.distributed.tensor import distribute_tensor

    def sharded(x: Any, to: Any) -> Any:
        if not isinstance(x, Tensor) or local(to) is to or x.shape != to.shape:
            return x
        return distribute_tensor(x.to(to.device), to.device_mesh, to.placements, src_data_rank=None)

    return {name: sharded(x, like.get(name)) for name, x in values.items()}
