"""Which of torch's functions multiply, and what becomes of them where an LNSWeight or a simulation is about."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.distributed import local
from lns_sim.functional import conv_geometry, transposed_geometry
from lns_sim.nn import contraction
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor

_HANDLERS: dict[Callable, Callable] = {}


class Simulation(Protocol):
    """What a product of computed tensors needs of the simulation around it (:class:`lns_sim.simulate`)."""

    recipe: Recipe | None

    def next_rng(self) -> Tensor | None: ...


def handles(*functions):
    """Registers ``handler(simulation, *args, **kwargs)``, which returns NotImplemented to leave a call to torch."""

    def register(handler):
        _HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


def simulated(simulation: Simulation | None, func, args, kwargs):
    """The result of a function of torch on the datapath, or NotImplemented where it does not multiply."""
    handler = _HANDLERS.get(func)
    return NotImplemented if handler is None else handler(simulation, *args, **kwargs)


# ---- Whose arithmetic, and on what.


def _is_weight(x) -> bool:
    return isinstance(x, LNSTensor) and hasattr(x, "recipe")


def _arithmetic(simulation, weight=None) -> tuple[Recipe | None, Tensor | None]:
    """The recipe of a product and its random state: an LNSWeight's own, else the simulation's."""
    if _is_weight(weight):
        return weight.recipe, weight.rng
    return (
        (None, None) if simulation is None or simulation.recipe is None else (simulation.recipe, simulation.next_rng())
    )


def _autocasts(x: Tensor) -> bool:
    """Does autocast rule on x's device? The meta device has none."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def _float32(x: Tensor, name: str) -> Tensor:
    """A computed operand; autocast's narrower ones are widened, and a weight in its place gives its values.

    Raises:
        TypeError: it is no float32 tensor.
        NotImplementedError: it is a DTensor.
    """
    if local(x) is not x:
        raise NotImplementedError(
            f"the {name} of a simulated product is a DTensor, as of tensor parallelism, which is not simulated; ranks "
            "train by DDP or FSDP2"
        )
    if _is_weight(x):
        return x.dequantize()
    if isinstance(x, LNSTensor):
        raise TypeError(f"the {name} of a simulated product must be float32, got codes; dequantize() them")
    if x.dtype != torch.float32:
        if x.is_floating_point() and _autocasts(x):
            return x.float()
        raise TypeError(f"the {name} of a simulated product must be float32, got {x.dtype}")
    return x


def _refuse_transforms() -> None:
    """Raises NotImplementedError in torch.func's grad, vjp, jvp and what is made of them; in vmap a product is many."""
    if torch.compiler.is_compiling():
        return
    stack = torch._C._functorch.get_interpreter_stack() or ()
    if any(level.key() != torch._C._functorch.TransformType.Vmap for level in stack):
        raise NotImplementedError(
            "torch.func has no gradients of simulated products (grad, vjp, jvp, jacrev); call backward() on the loss, "
            "for the gradients of single samples in a loop over them"
        )


def _linear_op(x: Tensor, weight: Tensor, recipe: Recipe, rng: Tensor | None) -> Tensor:
    _refuse_transforms()
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"the input's last dimension must be {weight.shape[1]}, got shape {tuple(x.shape)}")
    with torch._C.DisableTorchFunctionSubclass():
        return torch.ops.lns_sim.linear(x, weight, rng, recipe.encode())[0]


# ---- Linear layers and embeddings


@handles(F.linear)
def _linear(simulation, input, weight, bias=None):
    recipe, rng = _arithmetic(simulation, weight)
    if recipe is None:
        return F.linear(input.dequantize(), weight, bias) if _is_weight(input) else NotImplemented
    x = _float32(input, "input")
    y = _linear_op(x, weight if _is_weight(weight) else _float32(weight, "weight"), recipe, rng)
    return y if bias is None else y + bias


@handles(F.embedding)
def _embedding(
    simulation, input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    if not _is_weight(weight):
        return NotImplemented
    if max_norm is not None or sparse:
        raise ValueError("a converted embedding takes neither max_norm nor sparse gradients")
    _refuse_transforms()
    padding_idx = -1 if padding_idx is None else padding_idx % weight.shape[0]
    with torch._C.DisableTorchFunctionSubclass():
        return torch.ops.lns_sim.embedding(
            weight, input, weight.rng, padding_idx, scale_grad_by_freq, weight.recipe.encode()
        )


# ---- Matrix products


def product(a: Tensor, b: Tensor, recipe: Recipe, rng: Tensor | None) -> Tensor:
    """a (..., M, K) x b (..., K, N) of two computed tensors; batch dimensions broadcast."""
    _refuse_transforms()
    if _autocasts(a):
        a, b = a.float(), b.float()
    if a.dtype != torch.float32 or b.dtype != torch.float32:  # no TypeError: Python's @ would hide it
        raise ValueError(f"both operands of a simulated product must be float32, got {a.dtype} and {b.dtype}")
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"a's last dimension must be b's last but one, got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    out = [*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]]
    if b.shape[:-2].numel() == 1:  # b is shared: one product of all rows
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(b.shape[-2:])
    else:
        a, b = a.expand(*out[:-2], *a.shape[-2:]), b.expand(*out[:-2], *b.shape[-2:])
    return torch.ops.lns_sim.product(a, b, rng, recipe.encode())[0].reshape(out)


@handles(
    torch.matmul,
    torch.linalg.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    torch.mm,
    Tensor.mm,
    torch.bmm,
    Tensor.bmm,
    torch.mv,
    Tensor.mv,
)
def _matmul(simulation, a, b, *, out=None):
    if out is not None:
        raise ValueError("a simulated product takes no out")
    if _is_weight(b) and b.dim() == 1:
        return _matmul(simulation, a, b.unsqueeze(1)).squeeze(-1)
    if _is_weight(b) and b.dim() == 2:
        return _linear_op(_float32(a, "input"), b.t(), b.recipe, b.rng)
    if _is_weight(a) and a.dim() == 1:
        return _matmul(simulation, a.unsqueeze(0), b).squeeze(0 if b.dim() == 1 else -2)
    if _is_weight(a) and a.dim() == 2:
        x = _float32(b, "input")
        y = _linear_op(x if b.dim() == 1 else x.mT, a, a.recipe, a.rng)
        return y if b.dim() == 1 else y.mT
    stack = b if _is_weight(b) else a  # a weight of more dimensions is an operand like others, by its own recipe
    recipe = stack.recipe if _is_weight(stack) else simulation and simulation.recipe
    if recipe is None or not (a.is_floating_point() and b.is_floating_point()):
        return NotImplemented
    left, right = a if a.dim() > 1 else a[None], b if b.dim() > 1 else b[:, None]
    if left.shape[-1] <= 1:  # nothing is summed: an outer product, as of positions and frequencies
        return NotImplemented
    recipe, rng = _arithmetic(simulation, stack)
    left, right = (x.dequantize() if _is_weight(x) else x for x in (left, right))
    y = product(left, right, recipe, rng)
    y = y if b.dim() > 1 else y[..., 0]
    return y if a.dim() > 1 else y[..., 0, :] if b.dim() > 1 else y[..., 0]


@handles(Tensor.__rmatmul__)
def _rmatmul(simulation, a, b):
    return _matmul(simulation, b, a)


@handles(torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm, torch.addmv, Tensor.addmv)
def _addmm(simulation, input, a, b, *, beta=1, alpha=1):
    y = _matmul(simulation, a, b)
    return NotImplemented if y is NotImplemented else beta * input + alpha * y


def _simulated(simulation, operands) -> bool:
    return (simulation is not None and simulation.recipe is not None) or any(map(_is_weight, operands))


@handles(torch.einsum)
def _einsum(simulation, equation, *operands):
    operands = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    if not _simulated(simulation, operands):
        return NotImplemented

    def multiply(a, b):
        y = _matmul(simulation, a, b)
        return a @ b if y is NotImplemented else y

    return contraction.einsum(equation, operands, multiply)


@handles(torch.tensordot)
def _tensordot(simulation, a, b, dims=2, out=None):
    if not _simulated(simulation, (a, b)):
        return NotImplemented
    return _einsum(simulation, contraction.tensordot_equation(a.dim(), b.dim(), dims), a, b)


def _refused(name, simulation, *args, **kwargs):
    if not _simulated(simulation, args):
        return NotImplemented
    raise NotImplementedError(
        f"{name} has no simulated form; write it with matmul or einsum, or skip its module in lns_sim.convert"
    )


for _function in (
    F.bilinear,
    torch.chain_matmul,
    torch.linalg.multi_dot,
    torch.addbmm,
    Tensor.addbmm,
    torch.inner,
    Tensor.inner,
    torch.dot,
    Tensor.dot,
    torch.vdot,
    Tensor.vdot,
    torch.linalg.vecdot,
    Tensor.addmm_,
    Tensor.baddbmm_,
    Tensor.addbmm_,
    Tensor.addmv_,
    torch._int_mm,
    torch._scaled_mm,
    *filter(None, [getattr(torch, "_grouped_mm", None), getattr(F, "grouped_mm", None)]),
):
    handles(_function)(partial(_refused, _function.__name__))


# ---- Convolutions


def _several(value, n: int) -> list:
    return list(value) * (n if len(value) == 1 else 1) if isinstance(value, (tuple, list)) else [value] * n


def _same_padding(weight, dilation) -> list[int]:
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
    if any(t % 2 for t in total):
        raise ValueError("padding='same' needs an odd dilated kernel size here; pad the input explicitly")
    return [t // 2 for t in total]


def _convolution(simulation, n, input, weight, bias, stride, padding, dilation, groups, output_padding=None):
    """n spatial dimensions, transposed with an output padding; one dimension is two with a first one of size 1."""
    recipe, rng = _arithmetic(simulation, weight)
    if recipe is None:
        return NotImplemented
    _refuse_transforms()
    x = _float32(input, "input")
    weight = weight if _is_weight(weight) else _float32(weight, "weight")
    x = x if x.dim() == n + 2 else x.unsqueeze(0)
    stride, dilation = _several(stride, n), _several(dilation, n)
    if isinstance(padding, str):
        padding = [0] * n if padding == "valid" else _same_padding(weight, dilation)
    padding = _several(padding, n)
    transposed = output_padding is not None
    if transposed:
        output_padding = _several(output_padding, n)
        transposed_geometry(x.shape, weight.shape, stride, padding, output_padding, dilation, groups)
    else:
        conv_geometry(x.shape, weight.shape, stride, padding, dilation, groups)
    if n == 1:
        x, weight = x.unsqueeze(-2), weight.unsqueeze(2)
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
        output_padding = [0, *output_padding] if transposed else None
    with torch._C.DisableTorchFunctionSubclass():
        y = torch.ops.lns_sim.convolution(
            x,
            weight,
            rng,
            stride,
            padding,
            dilation,
            transposed,
            output_padding or [0] * len(stride),
            groups,
            recipe.encode(),
        )[0]
    y = y.squeeze(-2) if n == 1 else y
    y = y if bias is None else y + bias.view(-1, *[1] * n)
    return y if input.dim() == n + 2 else y.squeeze(0)


def _register_convolutions():
    for n, plain, transposed in (
        (1, (F.conv1d, torch.conv1d), (F.conv_transpose1d, torch.conv_transpose1d)),
        (2, (F.conv2d, torch.conv2d), (F.conv_transpose2d, torch.conv_transpose2d)),
        (3, (F.conv3d, torch.conv3d), (F.conv_transpose3d, torch.conv_transpose3d)),
    ):

        def conv(simulation, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, n=n):
            return _convolution(simulation, n, input, weight, bias, stride, padding, dilation, groups)

        def conv_transpose(
            simulation, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, n=n
        ):
            return _convolution(simulation, n, input, weight, bias, stride, padding, dilation, groups, output_padding)

        handles(*plain)(conv)
        handles(*transposed)(conv_transpose)


_register_convolutions()
