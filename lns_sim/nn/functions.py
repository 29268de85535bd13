"""Which of torch's functions multiply, and what becomes of them where an LNSWeight or a simulation is about."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.masked import MaskedTensor

from lns_sim._compile import show
from lns_sim.distributed import local
from lns_sim.nn import contraction
from lns_sim.nn.calling import call
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
        show(functions)
        return handler

    return register


def simulated(simulation: Simulation | None, func, args, kwargs):
    """The result of a function of torch on the datapath, or NotImplemented where it does not multiply."""
    handler = _HANDLERS.get(func)
    return NotImplemented if handler is None else handler(simulation, *args, **kwargs)


def is_handled(func) -> bool:
    """Does what becomes of a function depend on its arguments?"""
    return func in _HANDLERS


def names() -> set[str]:
    """What torch calls the functions that multiply."""
    return {func.__name__ for func in _HANDLERS if hasattr(func, "__name__")} - {"embedding"}


# ---- Whose arithmetic, and on what.


def is_weight(x) -> bool:
    """Is it an LNSWeight?"""
    return isinstance(x, LNSTensor) and hasattr(x, "recipe_text")


def arithmetic(simulation, weight=None) -> tuple[str | None, Tensor | None]:
    """The recipe of a product, as operators know it, and its random state: an LNSWeight's own, or the simulation's."""
    if is_weight(weight):
        return weight.recipe_text, weight.rng
    if simulation is None or simulation.recipe is None:
        return None, None
    return simulation.recipe.encode(), simulation.next_rng()


def _autocasts(x: Tensor) -> bool:
    """Does autocast rule on x's device? The meta device has none."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def float32(x: Tensor, name: str) -> Tensor:
    """A computed operand; autocast's narrower ones are widened, and a weight in its place gives its values.

    Raises:
        ValueError: it is no float32 tensor. (A TypeError would be hidden by Python's @.)
        NotImplementedError: it is a DTensor, or a nested, masked or sparse tensor.
    """
    if local(x) is not x:
        raise NotImplementedError(
            f"the {name} of a simulated product is a DTensor, as of tensor parallelism, which is not simulated; ranks "
            "train by DDP or FSDP2"
        )
    if is_weight(x):
        return x.dequantize()
    if x.is_nested:
        raise NotImplementedError(f"the {name} of a simulated product is a nested tensor; pad it, and mask the rest")
    if isinstance(x, LNSTensor):
        raise ValueError(f"the {name} of a simulated product must be float32, got codes; dequantize() them")
    if isinstance(x, MaskedTensor):
        raise NotImplementedError(
            f"the {name} of a simulated product is a MaskedTensor; give x.to_tensor(0.0), in which what is masked adds "
            "nothing"
        )
    if x.layout != torch.strided:
        raise NotImplementedError(f"the {name} of a simulated product is a sparse tensor; give x.to_dense()")
    if x.dtype in (torch.bfloat16, torch.float16) and _autocasts(x):
        return x.float()
    if x.dtype != torch.float32:
        raise ValueError(f"the {name} of a simulated product must be float32, got {x.dtype}")
    return x


def _linear_op(x: Tensor, weight: Tensor, recipe: str, rng: Tensor | None) -> Tensor:
    shape = weight.shape  # each look is a call of __torch_function__
    if len(shape) != 2:
        raise ValueError(f"the weight must have 2 dimensions, got shape {tuple(shape)}")
    if x.shape[-1:] != shape[1:]:
        raise ValueError(f"the input's last dimension must be {shape[1]}, got shape {tuple(x.shape)}")
    return call(torch.ops.lns_sim.linear, x, weight, rng, recipe)[0]


# ---- Linear layers and embeddings


@handles(F.linear)
def _linear(simulation, input, weight, bias=None):
    recipe, rng = arithmetic(simulation, weight)
    if recipe is None:
        return F.linear(input.dequantize(), weight, bias) if is_weight(input) else NotImplemented
    x = float32(input, "input")
    y = _linear_op(x, weight if is_weight(weight) else float32(weight, "weight"), recipe, rng)
    return y if bias is None else y + bias.expand(y.shape)


def linear_by_rows(simulation, input: Tensor, weight: Tensor, rows: slice, bias: Tensor | None) -> Tensor:
    """``F.linear(input, weight[rows], bias)``, the recipe being the whole weight's, where a compiler can read it."""
    recipe, rng = arithmetic(simulation, weight)
    if recipe is None:
        return F.linear(input, weight[rows], bias)
    y = _linear_op(float32(input, "input"), weight[rows], recipe, rng)
    return y if bias is None else y + bias


@handles(F.embedding)
def _embedding(
    simulation, input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    if not is_weight(weight):
        return NotImplemented
    if max_norm is not None or sparse:
        raise ValueError("a converted embedding takes neither max_norm nor sparse gradients")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise ValueError(f"padding_idx must be within the {rows} embeddings, got {padding_idx}")
    padding_idx = -1 if padding_idx is None else padding_idx % rows
    recipe = weight.recipe_text
    return call(torch.ops.lns_sim.embedding, weight, input, weight.rng, padding_idx, scale_grad_by_freq, recipe)


# ---- Matrix products


def product(a: Tensor, b: Tensor, recipe: str, rng: Tensor | None) -> Tensor:
    """a (..., M, K) x b (..., K, N) of two computed tensors; batch dimensions broadcast. With K = 1 only the gradients
    are simulated, as the product itself sums nothing.
    """
    a, b = float32(a, "first operand"), float32(b, "second operand")
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"a's last dimension must be b's last but one, got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    batch = a.shape[:-2] if a.shape[:-2] == b.shape[:-2] else torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = [*batch, a.shape[-2], b.shape[-1]]
    if b.shape[:-2].numel() == 1:  # b is shared: one product of all rows
        a, b = a.reshape(a.shape[:-1].numel(), a.shape[-1]), b.reshape(b.shape[-2:])
    else:
        a, b = a.expand(*out[:-2], *a.shape[-2:]), b.expand(*out[:-2], *b.shape[-2:])
    op = torch.ops.lns_sim.outer_product if a.shape[-1] == 1 else torch.ops.lns_sim.product
    return call(op, a, b, rng, recipe)[0].reshape(out)


def multiplied(simulation, a, b):
    """``a @ b``, or NotImplemented where torch multiplies."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return NotImplemented
    if is_weight(b) and b.dim() == 1:
        return multiplied(simulation, a, b.unsqueeze(1)).squeeze(-1)
    if is_weight(b) and b.dim() == 2:
        return _linear_op(float32(a, "input"), b.t(), b.recipe_text, b.rng)
    if is_weight(a) and a.dim() == 1:
        return multiplied(simulation, a.unsqueeze(0), b).squeeze(0 if b.dim() == 1 else -2)
    if is_weight(a) and a.dim() == 2:
        x = float32(b, "input")
        y = _linear_op(x if b.dim() == 1 else x.mT, a, a.recipe_text, a.rng)
        return y if b.dim() == 1 else y.mT
    if simulates(simulation, (a, b)) and any(x.is_nested for x in (a, b) if not isinstance(x, LNSTensor)):
        raise without_simulated_form("a product of nested tensors")
    if simulates(simulation, (a, b)) and (a.is_complex() or b.is_complex()):
        raise without_simulated_form("a product of complex numbers")
    stack = b if is_weight(b) else a  # a weight of more dimensions is an operand like others, by its own recipe
    if not simulates(simulation, (stack,)) or not (a.is_floating_point() and b.is_floating_point()):
        return NotImplemented
    if 0 in (a.dim(), b.dim()):  # an error of torch
        return NotImplemented
    left, right = a if a.dim() > 1 else a[None], b if b.dim() > 1 else b[:, None]
    if left.shape[-1] <= 1 and not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
        return NotImplemented  # nothing is summed, as of positions and frequencies
    if left.layout != torch.strided or right.layout != torch.strided:  # refused, as nobody handles it
        return NotImplemented
    recipe, rng = arithmetic(simulation, stack)
    left, right = (x.dequantize() if is_weight(x) else x for x in (left, right))
    y = product(left, right, recipe, rng)
    y = y if b.dim() > 1 else y[..., 0]
    return y if a.dim() > 1 else y[..., 0, :] if b.dim() > 1 else y[..., 0]


def _outer(simulation, a, b):
    """``a @ b`` that sums nothing, of weights by their values, as elementwise products are; or NotImplemented."""
    return multiplied(simulation, *(x.dequantize() if is_weight(x) else x for x in (a, b)))


class _Form(NamedTuple):
    """How a matrix product is written: torch's names of its operands, and their ranks where they are prescribed."""

    operands: tuple[str, str]
    ranks: tuple[int, int] | None = None

    def bind(self, args, kwargs) -> tuple[Tensor, Tensor, dict]:
        """Both operands, and the keywords that are left."""
        if len(args) > 2:
            raise TypeError(f"a simulated product takes {' and '.join(self.operands)}, got {len(args)} operands")
        rest = {**kwargs, **dict(zip(self.operands, args))}
        try:
            return rest.pop(self.operands[0]), rest.pop(self.operands[1]), rest
        except KeyError as missing:
            raise TypeError(f"a simulated product needs {missing}") from None

    def fits(self, a: Tensor, b: Tensor) -> bool:
        """Are ranks and batches those that torch asks for?"""
        if self.ranks is None:
            return True
        return (a.dim(), b.dim()) == self.ranks and (a.dim() < 3 or a.shape[0] == b.shape[0])

    def multiplied(self, simulation, a, b):
        """As :func:`multiplied`; what does not fit is left to torch's own error."""
        if not simulates(simulation, (a, b)) or not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            return NotImplemented
        if not self.fits(a, b):
            if is_weight(a) or is_weight(b):
                raise ValueError(f"the operands must have {self.ranks} dimensions, got {(a.dim(), b.dim())}")
            return NotImplemented
        return _outer(simulation, a[:, None], b[None]) if self.ranks == (1, 1) else multiplied(simulation, a, b)


def _no_options(options: dict) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"a simulated product takes no {given[0]}")


def _register_products():
    plain = _Form(("input", "other"))
    for functions, form in (
        ((torch.matmul, torch.linalg.matmul, Tensor.matmul, Tensor.__matmul__), plain),
        ((torch.mm, Tensor.mm), _Form(("input", "mat2"), (2, 2))),
        ((torch.bmm, Tensor.bmm), _Form(("input", "mat2"), (3, 3))),
        ((torch.mv, Tensor.mv), _Form(("input", "vec"), (2, 1))),
        ((torch.outer, Tensor.outer, torch.ger, Tensor.ger), _Form(("input", "vec2"), (1, 1))),
    ):

        def multiply(simulation, *args, form=form, **kwargs):
            a, b, options = form.bind(args, kwargs)
            y = form.multiplied(simulation, a, b)
            if y is not NotImplemented:
                _no_options(options)
            return y

        handles(*functions)(multiply)
    for functions, form in (
        ((torch.addmm, Tensor.addmm), _Form(("mat1", "mat2"), (2, 2))),
        ((torch.baddbmm, Tensor.baddbmm), _Form(("batch1", "batch2"), (3, 3))),
        ((torch.addmv, Tensor.addmv), _Form(("mat", "vec"), (2, 1))),
        ((torch.addr, Tensor.addr), _Form(("vec1", "vec2"), (1, 1))),
    ):

        def add(simulation, input, *args, beta=1, alpha=1, form=form, **kwargs):
            a, b, options = form.bind(args, kwargs)
            y = form.multiplied(simulation, a, b)
            if y is NotImplemented:
                return y
            _no_options(options)
            return _times(float32(input, "input").expand(y.shape), beta) + _times(y, alpha)

        handles(*functions)(add)


def _times(x: Tensor, factor) -> Tensor:
    """``factor * x``, where a zero makes zeros of NaN and Inf, too, as in torch's sums."""
    if isinstance(factor, (int, float)) and factor == 1:  # a pass over x, and another in the backward pass
        return x
    return factor * x if factor != 0 else x.masked_fill(torch.ones_like(x, dtype=torch.bool), 0.0)


_register_products()


@handles(Tensor.addr_)
def _addr_(simulation, input, vec1, vec2, **kwargs):
    if simulates(simulation, ()) and torch.is_grad_enabled() and (vec1.requires_grad or vec2.requires_grad):
        raise without_simulated_form("addr_")
    return NotImplemented


@handles(Tensor.__rmatmul__)
def _rmatmul(simulation, input, other):
    return multiplied(simulation, other, input)


def simulates(simulation, operands) -> bool:
    """Is a product of these one of ours?"""
    return (simulation is not None and simulation.recipe is not None) or any(map(is_weight, operands))


@handles(torch.einsum)
def _einsum(simulation, *args):
    equation, operands = contraction.arguments(*args)
    if not simulates(simulation, operands) or not any(x.is_floating_point() for x in operands):
        return NotImplemented

    def multiply(a, b):
        y = multiplied(simulation, a, b)
        return a @ b if y is NotImplemented else y

    def outer(a, b):
        y = _outer(simulation, a, b)
        return a * b if y is NotImplemented else y

    return contraction.einsum(equation, operands, multiply, outer)


@handles(torch.tensordot)
def _tensordot(simulation, a, b, dims=2, out=None):
    if not simulates(simulation, (a, b)):
        return NotImplemented
    _no_options({"out": out})
    return _einsum(simulation, contraction.tensordot_equation(a, b, dims), a, b)


def _refused(name, simulation, *args, **kwargs):
    if not simulates(simulation, (*args, *kwargs.values())):
        return NotImplemented
    raise without_simulated_form(name)


def without_simulated_form(name: str) -> NotImplementedError:
    """The error of a function of torch that multiplies, but that nobody simulates."""
    return NotImplementedError(
        f"{name} has no simulated form; write it with matmul or einsum, skip its module in lns_sim.convert, or leave it"
        " in float32 inside `with lns_sim.simulate(None):`"
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
):
    handles(_function)(partial(_refused, _function.__name__))
