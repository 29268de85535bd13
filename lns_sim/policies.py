"""The quantizer's policies by name, in the operators' order, and the random state that the stochastic ones draw from."""

from __future__ import annotations

import torch

from lns_sim import _extension
from lns_sim.checks import check_int, integers
from lns_sim.format import LNSFormat

ROUNDINGS = ("nearest", "stochastic")
UNDERFLOWS = ("clamp", "flush", "stochastic")


def check_thresholds(thresholds, format: LNSFormat, rounding: str) -> tuple[int, ...] | None:
    """Thresholds of a converter (see :func:`lns_sim.quantize`) as a tuple; None stays.

    Raises:
        TypeError, ValueError: they are no integers, not gamma of them, out of range or too near each other, or rounding is
            stochastic.
    """
    found = integers("thresholds", thresholds)
    if found is not None:
        if rounding != "nearest":
            raise ValueError(f"thresholds are for rounding to nearest, got rounding {rounding!r}")
        _extension.load().QuantizerTables(format.gamma, list(found))  # which checks them
    return found


def random_state(seed: int | None, step: int = 0, tensor_id: int = 0, device=None) -> torch.Tensor:
    """The operators' random state [seed, step, tensor id, first element] (spec section 6); no seed: one from torch's generator.

    The first element is 0; of a shard of a tensor it is the index in the whole tensor.

    Raises:
        ValueError: seed is not in [0, 2^64), or step or tensor_id not in [0, 2^32).
    """
    check_int("step", step, 0, (1 << 32) - 1)
    check_int("tensor_id", tensor_id, 0, (1 << 32) - 1)
    if seed is None:  # as a tensor, which a compiler can follow
        drawn = torch.randint(1 << 62, (1,), device="cpu")
        return torch.cat([drawn, torch.tensor([step, tensor_id, 0], device="cpu")]).to(device)
    check_int("seed", seed, 0, (1 << 64) - 1)
    signed = seed - (1 << 64) if seed >> 63 else seed
    return torch.tensor([signed, step, tensor_id, 0], dtype=torch.int64, device=device)
