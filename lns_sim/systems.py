"""The systems that LNS-Madam is compared with, by name: their optimizers and recipes (docs/comparators.md)."""

from __future__ import annotations

from typing import Any

from lns_sim.checks import check_number
from lns_sim.optim.halp import HALP
from lns_sim.optim.madam import LEVEL, IntegerMadam, Madam, PublishedLNSMadam, prepare
from lns_sim.quantizers import FP4, FP8, LNS, LUQ, SAWB, Integer, Quantizer, ShiftQuant
from lns_sim.recipes import PASSES, Recipe
from lns_sim.registry import OPTIMIZERS, RECIPES, OptimizerChoice, OptimizerSettings

_NO_DATAPATHS: dict[str, Any] = dict.fromkeys(PASSES)


def _optimizer(name: str, make, learns_by: str, **choice: Any) -> None:
    OPTIMIZERS.register(name, OptimizerChoice(make, learns_by, **choice))


def _recipe(
    name: str,
    activation: Quantizer | None = None,
    weight: Quantizer | None = None,
    error: Quantizer | None = None,
    **others,
) -> None:
    """A recipe of float32 weights whose quantizers' values are multiplied without a datapath."""
    RECIPES.register(name, lambda: Recipe(name, activation, weight, error, None, **_NO_DATAPATHS, **others))


def _rest(s: OptimizerSettings) -> dict:
    own = dict(p_scale=s.p_scale, float_optimizer=s.float_optimizer, float_lr=s.float_lr, float_kwargs=s.float_kwargs)
    return {**own, **s.options}


def _all(optimizer: str, **options) -> dict:
    """A Madam as its authors run it, on all parameters."""
    return dict(optimizer=optimizer, optimizer_options=dict(parameters="all", **options))


def _integer_madam(params, s: OptimizerSettings) -> IntegerMadam:
    return IntegerMadam(params, s.lr / s.options.get("base_lr", LEVEL), **_rest(s))


def _halp(method: str):
    """HALP and its rivals: the recipe's "period" is the epochs from one full gradient to the next."""

    def make(params, s: OptimizerSettings) -> HALP:
        own = dict(s.options)
        check_number("period", period := own.pop("period", 1.0), 0.0, low_open=True)
        own["inner"] = max(round(period * s.steps_per_epoch), 1)
        return HALP(params, s.float_lr, method, weight_decay=s.float_kwargs.get("weight_decay", 0.0), **own)

    return make


_recipe("fp8", FP8(), FP8(), FP8("e5m2"))
_recipe("fp8-delayed", FP8(history=1024), FP8(history=1024), FP8("e5m2", history=1024))
_recipe("mxfp4", FP4(), FP4(), FP4(), block=32)
_recipe("mxfp4-stochastic", FP4(), FP4(), FP4("stochastic"), block=32)
_recipe("int8", Integer(), Integer(), Integer(rounding="stochastic"))
_recipe("luq", SAWB(grid="activations"), SAWB(grid="weights"), LUQ())
_recipe("luq-smp2", SAWB(grid="activations"), SAWB(grid="weights"), LUQ(samples=2))
for _bits in (4, 6):  # on ResNets, on transformers
    _whole = Integer(_bits, zero_point=True)
    _recipe(f"shiftquant{_bits}", _whole, _whole, ShiftQuant(_bits, zero_point=True), l1_norms=True)

_MADAM = ("beta", "g_bound", "parameters")
_optimizer("lns-madam-published", lambda ps, s: PublishedLNSMadam(ps, s.lr, **_rest(s)), "lr", options=(*_MADAM, "wd"))
_recipe("lns-madam-published", LNS(), LNS(), LNS(), **_all("lns-madam-published"))
_optimizer("madam", lambda ps, s: Madam(ps, s.lr, **_rest(s)), "lr", options=_MADAM, prepare=prepare)
_optimizer(
    "integer-madam",
    _integer_madam,
    "lr",
    weight_bits=lambda options: 1 + (options.get("levels", 4096) - 1).bit_length(),  # a sign and a level
    options=(*_MADAM, "levels", "base_lr", "randomize", "smallest_lr"),
    prepare=prepare,
)
_recipe("madam", optimizer="madam")
_recipe("madam-published", **_all("madam"))
_recipe("integer-madam", optimizer="integer-madam")
_recipe("integer-madam-published", **_all("integer-madam", randomize=True, smallest_lr=1.0))

_DEEP = ("momentum", "seed")
_DEEP_INNER = (*_DEEP, "period")
# As the authors ran a deep net: CIFAR-10 by ResNet-18, with a learning rate of 0.1 and a weight decay of 5e-4.
_optimizer(
    "halp",
    _halp("halp"),
    "float_lr",
    product_bits=lambda options: options.get("layer_bits"),
    options=(*_DEEP_INNER, "bits", "mu", "scale", "layer_bits"),
)
_recipe("halp", optimizer="halp", optimizer_options=dict(mu=20.0, period=0.5))
_optimizer("svrg", _halp("svrg"), "float_lr", options=_DEEP_INNER)
_recipe("svrg", optimizer="svrg", optimizer_options=dict(period=0.5))
# Their weights are places on a fixed grid.
_ON_GRID = dict(weight_bits=lambda options: options.get("bits", 8))
_optimizer("lp-svrg", _halp("lp-svrg"), "float_lr", options=(*_DEEP_INNER, "bits", "delta"), **_ON_GRID)
_recipe("lp-svrg", optimizer="lp-svrg", optimizer_options=dict(period=0.5))
_optimizer("lp-sgd", _halp("lp-sgd"), "float_lr", options=(*_DEEP, "bits", "delta"), **_ON_GRID)
_recipe("lp-sgd", optimizer="lp-sgd")
