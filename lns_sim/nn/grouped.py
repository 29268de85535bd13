"""Grouped matrix products, as of a mixture's experts: each group's rows with its own matrix, one product a group."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.nn import functions


def _grouped_mm(simulation, input, mat2, offs=None, bias=None, out_dtype=None, **options):
    """``offs`` says where each group ends: among the rows of a (T, K) with b (G, K, N), the columns of b (K, T) with a
    (G, M, K), or along K of both; without it both are (G, ...).
    """
    if not functions.simulates(simulation, (input, mat2)):
        return NotImplemented
    if bias is not None or out_dtype is not None or options:
        raise ValueError("a simulated grouped product takes no bias, out_dtype or other options")

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        y = functions.multiplied(simulation, a, b)
        return a @ b if y is NotImplemented else y

    if offs is None:
        return torch.stack([multiply(a, b) for a, b in zip(input, mat2)])
    ends = offs.tolist()
    groups = [slice(begin, end) for begin, end in zip([0, *ends], ends)]
    if input.dim() == 2 and mat2.dim() == 3:
        ys = [multiply(input[rows], b) for rows, b in zip(groups, mat2)]
        return torch.cat([*ys, input.new_zeros(len(input) - ends[-1], mat2.shape[-1])])
    if input.dim() == 3:
        return torch.cat([multiply(a, mat2[:, columns]) for columns, a in zip(groups, input)], -1)
    return torch.stack([multiply(input[:, part], mat2[part]) for part in groups])


for _function in (getattr(torch, "_grouped_mm", None), getattr(F, "grouped_mm", None)):
    if _function is not None:
        functions.handles(_function)(_grouped_mm)
