"""LNS-Madam's own recipes, and that of no recipe; other systems' are in lns_sim/systems.py."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lns_sim.checks import check_int
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.format import LNSFormat
from lns_sim.quantizers import LNS
from lns_sim.recipes.recipe import Recipe, fake_quant
from lns_sim.registry import RECIPES


def lns_madam(
    bits: int = LNSFormat.bits,
    gamma: int = LNSFormat.gamma,
    update_bits: int = Recipe.update.bits,
    datapath: AnyDatapath | None = None,
    stochastic_gradients: bool = False,
    underflow: str = "clamp",
    seed: int = 0,
) -> Recipe:
    """Bit-exact LNS-Madam: one format for all operands, one datapath for all three passes.

    Args:
        bits, gamma: format of activations, weights, errors and weight gradients.
        update_bits: width of the update format; its octaves are the operands', its steps finer by the extra bits.
        datapath: None for the default datapath of the format.
        stochastic_gradients: stochastic rounding of errors and weight gradients.
        underflow: of errors below the smallest code: "clamp" to it, "flush" to zero, or
            "stochastic", either of the two. A softmax over thousands of tokens has thousands of such errors of one sign
            in every row; clamped, they add up to what no token has earned (docs/results.md).
        seed: of the random bits.

    Raises:
        TypeError, ValueError: a format or the datapath does not fit.
    """
    fmt = LNSFormat(bits, gamma)
    check_int("update_bits", update_bits, bits, 16)
    update = LNSFormat(update_bits, gamma << (update_bits - bits))
    pe = Datapath(fmt) if datapath is None else datapath
    gradient = LNS(fmt, rounding="stochastic" if stochastic_gradients else "nearest")
    error = replace(gradient, underflow=underflow)
    name = "lns-madam" if underflow == "clamp" else f"lns-madam-{underflow}"
    return Recipe(name, LNS(fmt), fmt, error, gradient, update, pe, pe, pe, seed=seed)


def lns_madam_fake_quant(**kwargs) -> Recipe:
    """The codes of :func:`lns_madam` with every product in float32: what differs is the datapath alone."""
    return fake_quant(lns_madam(**kwargs))


def gamma_in_blocks(bits: int) -> int:
    """The gamma of formats with block scales, where nobody says another."""
    return {4: 1, 5: 2, 6: 4}.get(bits, LNSFormat.gamma)


def lns_madam_blocks(bits: int = LNSFormat.bits, gamma: int | None = None, block: int = 32, **kwargs) -> Recipe:
    """:func:`lns_madam` with a scale for every ``block`` elements along each pass' K (spec section 8).

    Args:
        bits, gamma: as of :func:`lns_madam`; gamma None: 8, of 4 to 6 bits what leaves 7 or 7.5 octaves.
        block: elements that share a scale.
        kwargs: of :func:`lns_madam`. The update format is the default recipe's, 16 octaves, unless update_bits says
            otherwise: blocks reach further down than their format.

    Raises:
        TypeError, ValueError: as :func:`lns_madam`, or blocks that hold no whole vectors.
    """
    gamma = gamma_in_blocks(bits) if gamma is None else gamma
    own = lns_madam(bits, gamma, **kwargs)
    update = own.update if "update_bits" in kwargs else Recipe.update
    few = "" if bits == LNSFormat.bits else f"-{bits}bit"
    return replace(own, name=f"lns-madam-block{block}{few}", update=update, block=block)


RECIPES.register("fp32", lambda: None)
RECIPES.register("lns-madam", lns_madam)
RECIPES.register("lns-madam-fake-quant", lns_madam_fake_quant)
RECIPES.register("lns-madam-flush", partial(lns_madam, underflow="flush"))
RECIPES.register("lns-madam-flush-fake-quant", partial(lns_madam_fake_quant, underflow="flush"))
RECIPES.register("lns-madam-block32", lns_madam_blocks)
for _bits in (4, 5, 6):
    RECIPES.register(f"lns-madam-block32-{_bits}bit", partial(lns_madam_blocks, _bits))
