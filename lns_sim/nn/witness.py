"""What nobody handles must not multiply: the first call of each of torch's functions in a simulation is watched."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode

from lns_sim.nn import functions
from lns_sim.ops.float_products import float_product

_harmless: set[Callable] = set()


class _Witness(TorchDispatchMode):
    """Sees every operator of torch that a function ends in; inside this package's own it sees nothing."""

    supports_higher_order_operators = True

    def __init__(self):
        super().__init__()
        self.found: str | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found = self.found or float_product(func, args)
        return func(*args, **(kwargs or {}))


def watched(func: Callable, args, kwargs):
    """The result of a function that no handler takes.

    Raises:
        NotImplementedError: it multiplies in float32.
    """
    if func in _harmless:
        return func(*args, **kwargs)
    with _Witness() as witness:
        out = func(*args, **kwargs)
    if witness.found:
        raise functions.without_simulated_form(f"{getattr(func, '__name__', func)} (torch's operator {witness.found})")
    if not functions.is_handled(func):  # whose arguments decide
        _harmless.add(func)
    return out
