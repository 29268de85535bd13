"""LNS-Madam: multiplicative updates as integer steps on weight codes."""

from __future__ import annotations

import math

import torch

from lns_sim.checks import check_choice, check_number
from lns_sim.contract import FIRST_ELEMENT, MADAM, STEP, in_order
from lns_sim.distributed import first_element, local, sum_over_shards
from lns_sim.nn.weight import LNSWeight
from lns_sim.optim.split import SplitOptimizer
from lns_sim.random import STREAMS, stream_of


def check_madam(lr: float, beta: float, g_bound: float, p_scale: float) -> None:
    """Of Madam in all its forms. Raises ValueError for a number that is not finite or out of range."""
    check_number("lr", lr, 0.0)
    check_number("beta", beta, 0.0, math.nextafter(1.0, 0.0))
    check_number("g_bound", g_bound, 0.0, low_open=True)
    check_number("p_scale", p_scale, 0.0, low_open=True)


class LNSMadam(SplitOptimizer):
    """LNS-Madam (spec section 5; LNS-Madam, algorithm 1) on LNSWeights, an ordinary optimizer on float parameters.

    A weight's exponent moves by ``round(lr * gamma_update * ghat)`` codes, against its gradient's sign; signs never
    flip and zeros stay zero. Biases and normalization parameters, which multiplicative updates could not move through
    zero, go to the named torch optimizer. Both kinds are groups of this one object: schedulers and ``state_dict`` see
    them alike.

    Args:
        params: parameters or parameter groups, e.g. ``model.parameters()``. A group holds weights of both kinds freely.
        lr: octaves per unit of normalized gradient.
        beta: decay of the second moment, in [0, 1).
        g_bound: clamp of the normalized gradient.
        p_scale: weights are kept below ``p_scale`` times the root mean square of their initial values, and below
            the largest
            number of their format at the scale that their initial values gave them.
        rounding: "nearest" (half to even) or "stochastic" steps.
        seed: of the stochastic steps, where a weight's recipe draws no random bits itself.
        float_optimizer: "sgd", "adam" or "adamw", for all parameters that are not LNSWeights.
        float_lr: its learning rate.
        float_kwargs: its other arguments, e.g. ``{"momentum": 0.9}``.

    Raises:
        ValueError: a non-finite or out-of-range argument, or an unknown optimizer name.
    """

    def __init__(
        self,
        params,
        lr: float = 1 / 128,
        beta: float = 0.999,
        g_bound: float = 10.0,
        p_scale: float = 3.0,
        rounding: str = "nearest",
        seed: int = 0,
        float_optimizer: str = "sgd",
        float_lr: float = 0.1,
        float_kwargs: dict | None = None,
    ):
        check_madam(lr, beta, g_bound, p_scale)
        check_choice("rounding", rounding, ("nearest", "stochastic"))
        defaults = dict(lr=lr, beta=beta, g_bound=g_bound, p_scale=p_scale, rounding=rounding, seed=seed, step=0)
        super().__init__(params, defaults, float_optimizer, float_lr, float_kwargs)

    def takes(self, p: torch.Tensor) -> bool:
        return isinstance(local(p), LNSWeight)

    def _step_own(self, group: dict, index: int) -> None:
        check_number("lr", float(group["lr"]), 0.0)
        group["step"] += 1
        hyper = {}  # per device
        for position, p in enumerate(group["params"]):
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["moment"] = torch.zeros_like(p)
                state["cap"] = weight_cap(p, group["p_scale"])
            w = local(p)
            if w.device not in hyper:
                hyper[w.device] = self._hyper(group, w).to(w.device, non_blocking=True)
            stochastic = group["rounding"] == "stochastic"
            rng = self._random(group, p, index, position) if stochastic else None
            torch.ops.lns_sim.madam_step(
                w.codes,
                local(state["moment"]),
                local(p.grad),
                w.scale,
                state["cap"],
                hyper[w.device],
                w.format.bits,
                w.format.gamma,
                stochastic,
                rng,
            )
            if w.rng is not None:
                w.rng[STEP] += 1

    @staticmethod
    def _hyper(group: dict, p: LNSWeight) -> torch.Tensor:
        beta = group["beta"]
        values = dict(
            beta=beta,
            one_minus_beta=1 - beta,
            bias_correction=1 - beta ** group["step"],
            bound=group["g_bound"],
            codes_per_unit=float(group["lr"]) * p.format.gamma,
        )
        return torch.tensor(in_order(MADAM, values), dtype=torch.float64).to(torch.float32)

    @staticmethod
    def _random(group: dict, p: torch.Tensor, index: int, position: int) -> torch.Tensor:
        first, own = first_element(p), local(p).rng
        if own is not None:
            rng = stream_of(own, "update")
            rng[FIRST_ELEMENT].fill_(first)
            return rng
        tensor_id = len(STREAMS) * ((index << 20) + position) + STREAMS["update"]
        state = torch.tensor([group["seed"], group["step"], tensor_id, first], dtype=torch.int64)
        return state.to(p.device, non_blocking=True)


def weight_cap(weight: torch.Tensor, p_scale: float) -> torch.Tensor:
    """``p_scale`` times the root mean square of an LNSTensor's values, float32 shaped like its scale; of a sharded
    one's all.

    Exponents are counted and their squares summed exactly, so every device and any number of ranks find the same
    number.
    """
    shard = local(weight)
    format = shard.format
    exponents = (shard.codes.to(torch.int64) & format.e_max).reshape(-1)
    counts = torch.bincount(exponents.cpu(), minlength=format.e_max + 1)  # there it is deterministic
    counts = sum_over_shards(counts.to(shard.device), weight).tolist()
    squares = math.fsum(n * 4.0 ** (e / format.gamma) for e, n in enumerate(counts) if e and n)
    root = p_scale * math.sqrt(squares / max(weight.numel(), 1))
    return torch.full_like(shard.scale, root) * shard.scale
