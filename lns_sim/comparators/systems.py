"""The optimizers that other systems' recipes name, made from a training run's settings."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lns_sim.checks import check_choice
from lns_sim.comparators.halp import HALP
from lns_sim.comparators.madam import IntegerMadam, Madam, PublishedLNSMadam
from lns_sim.recipes import OPTIMIZERS

# Bits of a weight where an optimizer stores fewer than float32's: a sign and one of 4,096 levels; a place on the fixed grid.
WEIGHT_BITS = {"integer-madam": 13, "lp-svrg": 8, "lp-sgd": 8}


def make_optimizer(name: str, params: Iterable[torch.nn.Parameter], lr: float, float_lr: float, p_scale: float,
                   float_optimizer: str, float_kwargs: dict) -> torch.optim.Optimizer:  # fmt: skip
    """An optimizer by name.

    Args:
        name: one of ``lns_sim.recipes.OPTIMIZERS``.
        params: of the model.
        lr: of multiplicative updates, per unit of normalized gradient: octaves, for Madam e-folds.
        float_lr: of additive ones: HALP's and its kin's, and of parameters that are no weights.
        p_scale, float_optimizer, float_kwargs: as of :class:`lns_sim.comparators.madam.Madam`.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    if name in ("halp", "svrg", "lp-svrg", "lp-sgd"):
        return HALP(params, lr=float_lr, method=name)
    rest = dict(p_scale=p_scale, float_optimizer=float_optimizer, float_lr=float_lr, float_kwargs=float_kwargs)
    if name == "madam":
        return Madam(params, lr=lr, **rest)
    if name == "lns-madam-published":
        return PublishedLNSMadam(params, lr=lr, **rest)
    optimizer = IntegerMadam(params, **rest)
    for group in optimizer.param_groups:
        if group["own"]:
            group["lr"] = lr / group["base_lr"]
    return optimizer
