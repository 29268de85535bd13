"""Every operator that a model ends in: passes of simulated products, products left in float32, other work."""

from __future__ import annotations

import weakref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lns_sim.ops.float_products import float_product, is_ours, name_of, ours_is_running
from lns_sim.tensor import LNSTensor
from lns_sim.watching.passes import DESCRIPTIONS, Pass


class Listener(TorchDispatchMode):
    """Sees every operator below autograd; what runs inside this package's own stays unseen.

    Args:
        running: names of the modules that run, the inmost last.
    """

    supports_higher_order_operators = True

    def __init__(self, running: list[str]):
        super().__init__()
        self.running = running
        self.passes: list[Pass] = []
        self.float_products: list[tuple[str, str]] = []  # layer and operator
        self.float_operators: list[str] = []
        # Results of elementwise products of different shapes, and in which dimensions both operands vary.
        self._scaled: dict[int, tuple[weakref.ref, set[int]]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        layer = self.running[-1] if self.running else ""
        if func in DESCRIPTIONS:
            self.passes += DESCRIPTIONS[func](layer, out, *args)
        elif not is_ours(func) and not ours_is_running():
            self._note(layer, func, args, out)
        return out

    def _note(self, layer: str, func, args, out) -> None:
        name = name_of(func)
        product = float_product(func, args) or self._multiplied_and_summed(name, args, out)
        if product:
            self.float_products.append((layer, product))
        elif _computes(out) and not (name in _MOVES or getattr(func, "is_view", False)):
            self.float_operators.append(name)

    def _multiplied_and_summed(self, name: str, args, out) -> str | None:
        """A sum over what an elementwise product with broadcasting has just made is a product of matrices, too, where
        both of its operands vary along the sum.
        """
        if name == "mul" and all(isinstance(x, Tensor) and x.is_floating_point() for x in args[:2]):
            if args[0].shape != args[1].shape and min(args[0].numel(), args[1].numel()) > 1:
                self._scaled[id(out)] = weakref.ref(out), _varying(out, args[0]) & _varying(out, args[1])
        elif name in ("sum", "mean"):
            made, both = self._scaled.get(id(args[0]), (lambda: None, set()))
            if made() is args[0] and both & _summed(*args):
                return f"mul and {name}"
        return None


def _varying(out: Tensor, x: Tensor) -> set[int]:
    """The dimensions of a result along which an operand is more than one number."""
    first = out.dim() - x.dim()
    return {first + d for d, n in enumerate(x.shape) if n > 1}


def _summed(x: Tensor, dims=None, *_) -> set[int]:
    """The dimensions that a sum is over."""
    return {d % x.dim() for d in dims} if dims else set(range(x.dim()))


def _computes(out) -> bool:
    results = out if isinstance(out, (tuple, list)) else [out]
    return any(isinstance(t, Tensor) and t.is_floating_point() and not isinstance(t, LNSTensor) for t in results)


# Operators that compute nothing.
_MOVES = frozenset(
    """
    clone copy_ _to_copy detach cat stack empty empty_like new_empty zeros zeros_like ones ones_like full
    full_like arange index_select index constant_pad_nd _unsafe_view embedding repeat scalar_tensor fill_
    masked_fill where tril triu lift_fresh
    """.split()
)
