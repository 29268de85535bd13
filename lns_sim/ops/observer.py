"""Products as they are computed: operators report each one to the observers that are open, if there are any."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from lns_sim.quantizers import Operand
from lns_sim.recipes import Recipe

Site = int | tuple[int, int]


class Product(NamedTuple):
    """One product of one pass.

    Attributes:
        site: a number for the layer's run in a forward pass, and which product where it has several; its gradients'
            products have the same.
        name: "forward", "input_gradient" or "weight_gradient".
        recipe: whose pass it is.
        operands: both, as codes or in float32.
        macs: products of numbers.
        out: the result, float32.
        counters: the operators' counters, where a datapath ran and an observer wants them.
        in_float32: computes it once more from the operands' values, in float32.
    """

    site: Site
    name: str
    recipe: Recipe
    operands: tuple[Operand, Operand]
    macs: int
    out: Tensor
    counters: Tensor | None
    in_float32: Callable[[], Tensor]


class Quantized(NamedTuple):
    """One tensor made into codes: "activation", "weight" (the second operand of a product), "error" or "gradient"."""

    site: Site
    name: str
    source: Tensor
    operand: Operand


class Observer:
    """Sees every product and quantized tensor while :func:`observe` is open, in the thread that computes it."""

    counts = False  # does it want the datapaths' counters?

    def product(self, product: Product) -> None:
        """Called after each product."""

    def quantized(self, quantized: Quantized) -> None:
        """Called after each tensor."""


_observers: list[Observer] = []
_sites = itertools.count()
_at = threading.local()  # a GPU's backward pass runs in a thread of its own


@contextmanager
def observe(observer: Observer):
    """``with observe(observer): ...``."""
    _observers.append(observer)
    try:
        yield observer
    finally:
        _observers.remove(observer)


def enter() -> None:
    """A layer's forward pass begins."""
    if _observers:
        _at.site = next(_sites)


def enter_part(number: int) -> None:
    """One of several products of the run under way begins, in its forward or its backward pass."""
    at = site()
    if at is not None:
        _at.site = (at[0] if isinstance(at, tuple) else at, number)


def site() -> Site | None:
    """The layer's run that is under way in this thread; None where nobody watches."""
    return getattr(_at, "site", None) if _observers else None


def go_on(at: Site | None) -> None:
    """A layer's backward pass begins; ``at`` is what :func:`site` gave in its forward pass."""
    _at.site = at


def watching() -> bool:
    """Is any observer open?"""
    return bool(_observers)


def counting() -> bool:
    """Does any observer want counters?"""
    return any(observer.counts for observer in _observers)


def report_codes(name: str, source: Tensor, operand: Operand) -> Operand:
    """Tells the observers of a quantized tensor, and passes it on."""
    for observer in _observers:
        observer.quantized(Quantized(site(), name, source, operand))
    return operand


def report(name: str, recipe, operands, macs: int, out: Tensor, counters: Tensor | None, in_float32) -> Tensor:
    """Tells the observers of a product, and passes its result on."""
    if type(out) is not Tensor:  # a compiler is tracing
        return unobserved(out)
    for observer in _observers:
        observer.product(Product(site(), name, recipe, operands, macs, out, counters, in_float32))
    return out


@torch.library.custom_op("lns_sim::unobserved", mutates_args=())
def unobserved(out: Tensor) -> Tensor:
    """A product's result in compiled code, which reports nothing: an error where somebody watches when it runs."""
    if _observers:
        raise RuntimeError(
            "products of compiled code are neither counted nor observed; run the model without torch.compile"
        )
    return out.clone()


@unobserved.register_fake
def _(out):
    if _observers:
        raise RuntimeError("products are counted and observed in eager execution; run the model without torch.compile")
    return torch.empty_like(out)
