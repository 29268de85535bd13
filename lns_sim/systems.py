"""The systems that LNS-Madam is compared with, by name: their optimizers and recipes (docs/comparators.md)."""

from __future__ import annotations

from typing import Any

from lns_sim.optim.halp import HALP
from lns_sim.optim.madam import LEVEL, IntegerMadam, Madam, PublishedLNSMadam
from lns_sim.quantizers import FP8, LNS, LUQ, SAWB, Integer, Quantizer, ShiftQuant
from lns_sim.recipes import PASSES, Recipe
from lns_sim.registry import OPTIMIZERS, RECIPES, OptimizerChoice, OptimizerSettings

_NO_DATAPATHS: dict[str, Any] = dict.fromkeys(PASSES)


def _optimizer(name: str, make, learns_by: str, weight_bits: int | None = None) -> None:
    """An optimizer, and the recipe of float32 products that it trains by."""
    OPTIMIZERS.register(name, OptimizerChoice(make, learns_by, weight_bits))
    _recipe(name, optimizer=name)


def _recipe(
    name: str,
    activation: Quantizer | None = None,
    weight: Quantizer | None = None,
    error: Quantizer | None = None,
    **others,
) -> None:
    """A recipe of float32 weights whose quantizers' values are multiplied without a datapath; LNS-Madam's options are
    not its own.
    """
    RECIPES.register(name, lambda **_: Recipe(name, activation, weight, error, None, **_NO_DATAPATHS, **others))


def _rest(s: OptimizerSettings) -> dict:
    return dict(p_scale=s.p_scale, float_optimizer=s.float_optimizer, float_lr=s.float_lr, float_kwargs=s.float_kwargs)


_recipe("fp8", FP8(), FP8(), FP8("e5m2"))
_recipe("int8", Integer(), Integer(), Integer(rounding="stochastic"))
_recipe("luq", SAWB(grid="activations"), SAWB(grid="weights"), LUQ())
_recipe("luq-smp2", SAWB(grid="activations"), SAWB(grid="weights"), LUQ(samples=2))
_recipe("shiftquant", Integer(6), Integer(6), ShiftQuant(6), l1_norms=True)

OPTIMIZERS.register("lns-madam-published", OptimizerChoice(lambda ps, s: PublishedLNSMadam(ps, s.lr, **_rest(s)), "lr"))
_recipe("lns-madam-published", LNS(), LNS(), LNS(), optimizer="lns-madam-published")
_optimizer("madam", lambda ps, s: Madam(ps, s.lr, **_rest(s)), "lr")
# A weight is its sign and one of 4,096 levels.
_optimizer("integer-madam", lambda ps, s: IntegerMadam(ps, s.lr / LEVEL, **_rest(s)), "lr", weight_bits=13)

_optimizer("halp", lambda ps, s: HALP(ps, s.float_lr, "halp"), "float_lr")
_optimizer("svrg", lambda ps, s: HALP(ps, s.float_lr, "svrg"), "float_lr")
# A weight is a place on a fixed grid.
_optimizer("lp-svrg", lambda ps, s: HALP(ps, s.float_lr, "lp-svrg"), "float_lr", weight_bits=8)
_optimizer("lp-sgd", lambda ps, s: HALP(ps, s.float_lr, "lp-sgd"), "float_lr", weight_bits=8)
