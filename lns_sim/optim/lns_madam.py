"""LNS-Madam: multiplicative updates as integer steps on weight codes."""

from __future__ import annotations

import math

import torch

from lns_sim.checks import check_choice, check_int, check_number
from lns_sim.contract import FIRST_ELEMENT, MADAM, STEP, in_order
from lns_sim.distributed import first_element, local, sum_over_shards
from lns_sim.nn.weight import LNSWeight
from lns_sim.optim.groups import number
from lns_sim.optim.signs import smallest_exponent, turn_signs
from lns_sim.optim.split import SplitOptimizer
from lns_sim.random import STREAMS, random_state, stream_of


def check_madam(options: dict) -> None:
    """Checks the numbers of Madam in all its forms.

    Raises:
        TypeError, ValueError: one is no number, or is not finite or out of range.
    """
    check_number("beta", options["beta"], 0.0, 1.0, high_open=True)
    check_number("g_bound", options["g_bound"], 0.0, low_open=True)
    check_number("p_scale", options["p_scale"], 0.0, low_open=True)


class LNSMadam(SplitOptimizer):
    """LNS-Madam (spec section 5; LNS-Madam, algorithm 1) on LNSWeights, an ordinary optimizer on float parameters.

    A weight's exponent moves by ``round(lr * gamma_update * ghat)`` codes, against its gradient's sign; signs never
    flip and zeros stay zero. Biases and normalization parameters, which multiplicative updates could not move through
    zero, go to the named torch optimizer. A group holds both kinds freely: how ``lr`` and ``float_lr`` go together, and
    which of a group's options act on which kind, is told at :class:`lns_sim.optim.SplitOptimizer`.

    Each step moves the random state of every weight in the groups on, whether the weight had a gradient or not.

    Args:
        params: parameters, pairs of names and parameters, or parameter groups, e.g. ``model.parameters()``.
        lr: octaves per unit of normalized gradient.
        beta: decay of the second moment, in [0, 1).
        g_bound: clamp of the normalized gradient.
        p_scale: weights are kept below ``p_scale`` times the root mean square of their initial values
            (:func:`weight_cap`), and below the largest number of their format at their scale.
        turn_below: a weight that falls so many octaves below that root mean square stays there and takes the other
            sign: ours. None: signs never flip, as in the paper.
        beta1: a running mean of the gradients, of this decay in [0, 1), takes the gradient's place, as in Adam's first
            moment: ours, float32 in the optimizer's state. 0: the gradient itself, as in the paper.
        rounding: "nearest" (half to even) or "stochastic" steps.
        seed: of the stochastic steps, where a weight's recipe draws no random bits itself, in [0, 2^64).
        float_optimizer: "sgd", "adam" or "adamw", for all parameters that are not LNSWeights.
        float_lr: its learning rate.
        float_kwargs: its other arguments, e.g. ``{"momentum": 0.9}``.

    Raises:
        TypeError: an option of the wrong type.
        ValueError: a non-finite or out-of-range option, one that a group does not know or that has no effect there, or
            an unknown optimizer name.
    """

    own_kind = "weights that exist as codes"
    advice = "; convert the model first (lns_sim.convert)"

    def __init__(
        self,
        params,
        lr: float = 1 / 128,
        beta: float = 0.999,
        g_bound: float = 10.0,
        p_scale: float = 3.0,
        turn_below: float | None = None,
        beta1: float = 0.0,
        rounding: str = "nearest",
        seed: int = 0,
        float_optimizer: str = "sgd",
        float_lr: float = 0.1,
        float_kwargs: dict | None = None,
    ):
        defaults = dict(lr=lr, beta=beta, g_bound=g_bound, p_scale=p_scale, turn_below=turn_below)
        defaults |= dict(beta1=beta1, rounding=rounding, seed=seed)
        super().__init__(params, defaults, float_optimizer, float_lr, float_kwargs)

    def takes(self, p: torch.Tensor) -> bool:
        return isinstance(local(p), LNSWeight)

    def _check(self, options: dict) -> None:
        super()._check(options)
        check_madam(options)
        if options["turn_below"] is not None:
            check_number("turn_below", options["turn_below"], 0.0, low_open=True)
        check_number("beta1", options["beta1"], 0.0, 1.0, high_open=True)
        check_choice("rounding", options["rounding"], ("nearest", "stochastic"))
        check_int("seed", options["seed"], 0, (1 << 64) - 1)

    def _step_own(self, group: dict, weights: list[torch.Tensor], index: int) -> None:
        stochastic, turns = group["rounding"] == "stochastic", group["turn_below"] is not None
        hyper = {}  # by device and number of updates, which most weights share
        for position, p in enumerate(weights):
            w = local(p)
            if p.grad is not None:
                state = self.state[p]
                if not state:
                    state.update(t=0, moment=torch.zeros_like(p), cap=weight_cap(p, group["p_scale"]))
                if turns and "smallest" not in state:
                    state["smallest"] = smallest_exponent(w.format, initial_size(p), group["turn_below"])
                state["t"] += 1
                key = w.device, w.format.gamma, state["t"]
                if key not in hyper:
                    hyper[key] = self._hyper(group, w.format.gamma, state["t"]).to(w.device, non_blocking=True)
                torch.ops.lns_sim.madam_step(
                    w.codes,
                    local(state["moment"]),
                    self._gradient(group, p),
                    w.scale,
                    state["cap"],
                    hyper[key],
                    w.format.bits,
                    w.format.gamma,
                    stochastic,
                    self._random(group, p, index, position) if stochastic else None,
                )
                if turns:
                    turn_signs(w, state["smallest"])
            if w.rng is not None:
                w.rng[STEP] += 1

    def _gradient(self, group: dict, p: torch.Tensor) -> torch.Tensor:
        """A weight's gradient, or its running mean; one rounding per operation, so that every device finds the same."""
        gradient, beta1 = local(p.grad), group["beta1"]
        if not beta1:
            return gradient
        state = self.state[p]
        if "mean" not in state:
            state["mean"] = torch.zeros_like(p)
        return local(state["mean"]).mul_(beta1).add_(gradient * (1 - beta1))

    @staticmethod
    def _hyper(group: dict, gamma: int, t: int) -> torch.Tensor:
        beta = group["beta"]
        values = dict(
            beta=beta,
            one_minus_beta=1 - beta,
            bias_correction=1 - beta**t,
            bound=group["g_bound"],
            codes_per_unit=number(group["lr"]) * gamma,
        )
        return torch.tensor(in_order(MADAM, values), dtype=torch.float64).to(torch.float32)

    @staticmethod
    def _random(group: dict, p: torch.Tensor, index: int, position: int) -> torch.Tensor:
        own = local(p)
        if own.rng is not None:
            rng = stream_of(own.rng, "update", own.codes)
        else:
            tensor_id = len(STREAMS) * ((index << 20) + position) + STREAMS["update"]
            rng = random_state(group["seed"], group["step"], tensor_id)
        rng[FIRST_ELEMENT].fill_(first_element(p))
        return rng.to(p.device, non_blocking=True)


def initial_size(weight: torch.Tensor) -> float:
    """The root mean square of an LNSTensor's values, of a sharded one's all, in units of its scale. Infinite where
    nothing is larger than the smallest code: such a weight's initial values tell no size.

    Exponents are counted and their squares summed exactly, so every device and any number of ranks find the same
    number.
    """
    shard = local(weight)
    format = shard.format
    exponents = (shard.codes.to(torch.int64) & format.e_max).reshape(-1)
    counts = torch.bincount(exponents, minlength=format.e_max + 1)
    counts = sum_over_shards(counts, weight).tolist()
    if not any(counts[2:]):
        return math.inf
    squares = math.fsum(n * 4.0 ** (e / format.gamma) for e, n in enumerate(counts) if e and n)
    return math.sqrt(squares / max(weight.numel(), 1))


def weight_cap(weight: torch.Tensor, p_scale: float) -> torch.Tensor:
    """``p_scale`` times :func:`initial_size`, as a magnitude: float32 shaped like the scale."""
    scale = local(weight).scale
    return torch.full_like(scale, p_scale * initial_size(weight)) * scale
