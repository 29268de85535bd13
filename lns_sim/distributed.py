"""Several ranks: what one of them holds of a sharded parameter, and batches that are quantized as one."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["global_batch"]


def started() -> int:
    """Processes that torchrun started, this one among them; 1 where nobody did."""
    return int(os.environ.get("WORLD_SIZE", 1))


# ---- Sharded parameters: DTensors, as FSDP2 makes them.


def local(x: Tensor) -> Tensor:
    """This rank's shard of a DTensor, or the tensor itself."""
    return getattr(x, "_local_tensor", x)


def whole(x: Tensor) -> Tensor:
    """All of a DTensor, gathered by every rank, or the tensor itself."""
    return x if local(x) is x else x.full_tensor()


def with_local(x: Tensor, shard: Tensor) -> Tensor:
    """A DTensor laid out as x, of which this rank holds another shard."""
    from torch.distributed.tensor import DTensor

    layout = dict(run_check=False, shape=x.shape, stride=x.stride())
    return DTensor.from_local(shard, x.device_mesh, x.placements, **layout)


def first_element(x: Tensor) -> int:
    """The index, in the whole tensor, of this rank's first element.

    Raises:
        ValueError: the shard is no run of elements, as it is cut along another dimension than the first.
    """
    if local(x) is x:
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    if any(placement.is_shard() and placement.dim for placement in x.placements):
        raise ValueError(f"random bits need shards along dimension 0, got {x.placements}")
    _, offset = compute_local_shape_and_global_offset(x.shape, x.device_mesh, x.placements)
    return offset[0] * math.prod(x.shape[1:])


def sum_over_shards(value: Tensor, x: Tensor) -> Tensor:
    """The sum of a plain tensor over the ranks that hold different shards of x, in place."""
    if local(x) is not x:
        for dim, placement in enumerate(x.placements):
            if placement.is_shard():
                dist.all_reduce(value, group=x.device_mesh.get_group(dim))
    return value


def largest_over_shards(x: Tensor) -> Tensor:
    """The largest magnitude of all shards of a DTensor, of shape (1,)."""
    shard = local(x)
    magnitude = shard.abs().amax().reshape(1) if shard.numel() else shard.new_zeros(1)
    for dim, placement in enumerate(x.placements):
        if placement.is_shard():
            dist.all_reduce(magnitude, dist.ReduceOp.MAX, group=x.device_mesh.get_group(dim))
    return magnitude


# ---- Batches as one.

_group = None  # of the open block; backward passes run in threads of their own, so it is the process'


@contextmanager
def global_batch(group: dist.ProcessGroup | None = None):
    """``with lns_sim.distributed.global_batch(): ...`` quantizes the batches of all ranks as the one batch that they
    make.

    Scales of activations and errors become those of the global batch, random bits go by an element's place in it, and
    weight gradients are averaged over the ranks before Q_G instead of after. Training by DDP or FSDP2 then takes the
    codes of one process with the global batch wherever sums are exact: no accumulator saturates or outgrows float32's
    24 bits, and each rank's share of a weight gradient's dot products is a multiple of the datapath's vector size.
    Ranks must hold equal shares, in order, along the first dimension. It costs a small reduction a quantizer and a
    second one of the weight gradients.

    Args:
        group: of the ranks; None: all.

    Raises:
        RuntimeError: torch.distributed is not initialized.
    """
    global _group
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError("global_batch() needs torch.distributed.init_process_group() first")
    outer, _group = _group, group or dist.group.WORLD
    try:
        yield
    finally:
        _group = outer


def batches_are_one() -> bool:
    """Is a :func:`global_batch` block open?"""
    return _group is not None


def offset_of(x: Tensor) -> int:
    """The index, in the global batch, of this rank's first element."""
    return dist.get_rank(_group) * x.numel()


def largest(x: Tensor) -> Tensor:
    """The largest magnitude in the global batch, of shape (1,); Inf where anything is NaN.

    Raises:
        ValueError: this rank's share is empty.
    """
    if not x.numel():
        raise ValueError("in global_batch() ranks hold equal shares of a batch, but this one's is empty")
    magnitude = x.abs().amax().nan_to_num(nan=math.inf, posinf=math.inf).reshape(1)
    dist.all_reduce(magnitude, dist.ReduceOp.MAX, group=_group)
    return magnitude


def mean_over_ranks(gradient: Tensor) -> Tensor:
    """A weight gradient of the global batch."""
    gradient = gradient.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(gradient, group=_group)
    return gradient / dist.get_world_size(_group)
