"""Grouped matrix products, as of a mixture's experts: each group's rows with its own matrix, one product a group."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim._compile import never
from lns_sim.nn import functions
from lns_sim.nn.calling import call


def _grouped_mm(simulation, input, mat2, offs=None, bias=None, out_dtype=None, **options):
    """``offs`` says where each group ends: among the rows of a (T, K) with b (G, K, N), the columns of b (K, T) with a
    (G, M, K), or along K of both; without it both are (G, ...).
    """
    if not functions.simulates(simulation, (input, mat2)):
        return NotImplemented
    if bias is not None or out_dtype is not None or options:
        raise ValueError("a simulated grouped product takes no bias, out_dtype or other options")

    if offs is None:
        return torch.stack([_multiplied(simulation, a, b) for a, b in zip(input, mat2)])
    if input.dim() == 2 and mat2.dim() == 3 and input.shape[1] > 1 and not functions.is_weight(input):
        return _rows_by_groups(simulation, input, mat2, offs)
    return _by_groups(simulation, input, mat2, offs)


def _rows_by_groups(simulation, input: Tensor, mat2: Tensor, offs: Tensor) -> Tensor:
    if input.shape[1] != mat2.shape[1] or offs.shape != mat2.shape[:1]:
        shapes = f"{tuple(input.shape)}, {tuple(mat2.shape)} and {tuple(offs.shape)}"
        raise ValueError(f"a grouped product takes rows (T, K), matrices (G, K, N) and ends (G,), got {shapes}")
    coded = functions.is_weight(mat2)
    recipe, rng = functions.arithmetic(simulation, mat2)
    if not coded:
        simulation.count += len(offs) - 1  # each group is a product of its own
    x, w = functions.float32(input, "first operand"), mat2 if coded else functions.float32(mat2, "second operand")
    return call(torch.ops.lns_sim.grouped_product, x, w, rng, offs, coded, recipe)[0]


def _multiplied(simulation, a: Tensor, b: Tensor) -> Tensor:
    y = functions.multiplied(simulation, a, b)
    return a @ b if y is NotImplemented else y


@never  # where groups end is data: a compiler would make a graph of every group
def _by_groups(simulation, input: Tensor, mat2: Tensor, offs: Tensor) -> Tensor:
    ends = offs.tolist()
    groups = [slice(begin, end) for begin, end in zip([0, *ends], ends)]
    if input.dim() == 2 and mat2.dim() == 3:  # an outer product for each group
        ys = [_multiplied(simulation, input[rows], b) for rows, b in zip(groups, mat2)]
        return torch.cat([*ys, input.new_zeros(len(input) - ends[-1], mat2.shape[-1])])
    if input.dim() == 3:
        return torch.cat([_multiplied(simulation, a, mat2[:, columns]) for columns, a in zip(groups, input)], -1)
    return torch.stack([_multiplied(simulation, input[:, part], mat2[part]) for part in groups])


def know_others() -> None:
    """Other libraries' operators that are grouped products: transformers' own, which it takes where its experts are
    compiled.
    """
    if hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        packet = torch.ops.transformers.grouped_mm_fallback
        functions.handles(packet, packet.default)(_fallback)


def _fallback(simulation, input, weight, offs):
    return _grouped_mm(simulation, input, weight, offs)


for _function in (getattr(torch, "_grouped_mm", None), getattr(F, "grouped_mm", None)):
    if _function is not None:
        functions.handles(_function)(_grouped_mm)
