"""Madam (arXiv 2006.14560) in float32, its integer form, and LNS-Madam's optimizer as its authors published it.

Multiplicative updates move weights (parameters of two dimensions or more); the others, which start at zero or one and
could not cross it, go to an ordinary optimizer. The authors' codes (jxbz/madam, jiaweizzhao/lns-madam-optimizer) update
all parameters instead: ``parameters="all"``, for networks that :func:`prepare` changes as theirs are.
"""

from __future__ import annotations

import torch
from torch import nn

from lns_sim.checks import check_bool, check_choice, check_int, check_number
from lns_sim.optim.groups import number
from lns_sim.optim.lns_madam import check_madam
from lns_sim.optim.split import SplitOptimizer

LEVEL = 0.001  # e-folds of one of integer Madam's levels
BIAS_DEVIATION = 0.01


def prepare(model: nn.Module, options: dict) -> None:
    """Where all parameters are updated, makes a network as the authors' are, in place: norms without affine parameters,
    biases drawn from N(0, 0.01), of that deviation, so that no update has to cross zero.
    """
    if options.get("parameters") != "all":
        return
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
            module.weight = module.bias = None
            if isinstance(module, nn.LayerNorm):
                module.elementwise_affine = False
            else:
                module.affine = False
    for name, p in model.named_parameters():
        if p.dim() < 2 and name.rpartition(".")[2].startswith("bias"):
            nn.init.normal_(p, std=BIAS_DEVIATION)


class _Normalized(SplitOptimizer):
    """What the three share: ``v = beta v + (1 - beta) g^2``, ``ghat = clamp(g / sqrt(v / (1 - beta^t)), +-g_bound)``,
    0/0 being 0.
    """

    def __init__(self, params, defaults: dict, parameters: str = "weights", **float_options):
        check_choice("parameters", parameters, ("weights", "all"))
        self.parameters = parameters
        super().__init__(params, defaults, **float_options)

    def takes(self, p: torch.Tensor) -> bool:
        return self.parameters == "all" or p.dim() >= 2

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "parameters": self.parameters}

    def _check(self, options: dict) -> None:
        super()._check(options)
        check_madam(options)

    def _step_own(self, group: dict, weights: list[torch.Tensor], index: int) -> None:
        for p in weights:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state.update(t=0, moment=torch.zeros_like(p), cap=group["p_scale"] * p.square().mean().sqrt())
                self._begin(p, state, group)
            state["t"] += 1
            correction = 1 - group["beta"] ** state["t"]
            v = state["moment"].mul_(group["beta"]).addcmul_(p.grad, p.grad, value=1 - group["beta"])
            ghat = (p.grad / (v / correction).sqrt()).nan_to_num_(nan=0.0).clamp_(-group["g_bound"], group["g_bound"])
            self._move(p, ghat, state, group)

    def _begin(self, p: torch.Tensor, state: dict, group: dict) -> None:
        """Before a weight's first step."""

    def _move(self, p: torch.Tensor, ghat: torch.Tensor, state: dict, group: dict) -> None:
        raise NotImplementedError


class Madam(_Normalized):
    """Madam: ``w *= exp(-lr ghat sign(w))``, then clamped to ``+-p_scale rms(w_init)`` (arXiv 2006.14560, algorithm 1).

    Signs never flip, zeros stay zero; the first step is exactly ``+-lr`` in the logarithm.

    Args:
        params: parameters or groups.
        lr: e-folds per unit of normalized gradient.
        beta: decay of the second moment, in [0, 1).
        g_bound: clamp of the normalized gradient.
        p_scale: weights are kept below so many root mean squares of their initial values.
        parameters: "weights", those of two dimensions or more, or "all".
        float_optimizer, float_lr, float_kwargs: of the other parameters, as in :class:`lns_sim.optim.LNSMadam`.

    Raises:
        TypeError, ValueError: as of :class:`lns_sim.optim.LNSMadam`.
    """

    def __init__(
        self, params, lr: float = 0.01, beta: float = 0.999, g_bound: float = 10.0, p_scale: float = 3.0, **options
    ):
        super().__init__(params, dict(lr=lr, beta=beta, g_bound=g_bound, p_scale=p_scale), **options)

    def _move(self, p, ghat, state, group) -> None:
        p.mul_(self._factor(ghat, p.sign(), group))
        torch.minimum(torch.maximum(p, -state["cap"], out=p), state["cap"], out=p)

    @staticmethod
    def _factor(ghat, sign, group) -> torch.Tensor:
        return torch.exp(ghat.mul_(-number(group["lr"])).mul_(sign))


class PublishedLNSMadam(Madam):
    """LNS-Madam's optimizer as its authors published it: Madam in base 2 with ``ghat`` rounded to integers (half to
    even).

    ``w *= 2^(-lr round(ghat) sign(w))``. With lr = 1 / gamma_U that is whole codes of an update format:
    :class:`lns_sim.optim.LNSMadam` at gamma_U = 128 takes the same steps. With weight decay its base is e:
    ``w *= exp(-lr round(ghat) sign(w) - lr wd)``.

    Args:
        wd: weight decay of its own parameters; None: none, in base 2.
        others: as of :class:`Madam`.
    """

    def __init__(
        self,
        params,
        lr: float = 1 / 128,
        beta: float = 0.999,
        g_bound: float = 10.0,
        p_scale: float = 3.0,
        wd: float | None = None,
        **options,
    ):
        own = dict(lr=lr, beta=beta, g_bound=g_bound, p_scale=p_scale, wd=wd)
        _Normalized.__init__(self, params, own, **options)

    def _check(self, options: dict) -> None:
        super()._check(options)
        if options["wd"] is not None:
            check_number("wd", options["wd"], 0.0)

    @staticmethod
    def _factor(ghat, sign, group) -> torch.Tensor:
        lr, wd = number(group["lr"]), group["wd"]
        exponent = ghat.round_().mul_(-lr).mul_(sign)
        return torch.exp2(exponent) if wd is None else torch.exp(exponent.sub_(lr * wd))


class IntegerMadam(_Normalized):
    """Integer Madam: ``|w| = max exp(-base_lr I)``; ``I += round(lr ghat) sign(w)``, kept in ``[0, levels - 1]`` (arXiv
    2006.14560).

    ``max`` is ``p_scale rms(w_init)``. A weight is its sign and I; the float32 parameter is only their value.

    Args:
        lr: levels per unit of normalized gradient.
        levels: how many there are.
        base_lr: e-folds of a level.
        randomize: I of initial weights drawn uniformly, as in the published code; False: the level nearest to each
            weight.
        smallest_lr: what lr does not fall below, whatever a schedule says; 1 as in the published code.
        others: as of :class:`Madam`.

    Raises:
        TypeError, ValueError: as of :class:`lns_sim.optim.LNSMadam`.
    """

    def __init__(
        self,
        params,
        lr: float = 10.0,
        beta: float = 0.999,
        g_bound: float = 10.0,
        p_scale: float = 3.0,
        levels: int = 4096,
        base_lr: float = LEVEL,
        randomize: bool = False,
        smallest_lr: float = 0.0,
        **options,
    ):
        own = dict(levels=levels, base_lr=base_lr, randomize=randomize, smallest_lr=smallest_lr)
        super().__init__(params, dict(lr=lr, beta=beta, g_bound=g_bound, p_scale=p_scale, **own), **options)

    def _check(self, options: dict) -> None:
        super()._check(options)
        check_int("levels", options["levels"], 2, 1 << 15)
        check_number("base_lr", options["base_lr"], 0.0, low_open=True)
        check_bool("randomize", options["randomize"])
        check_number("smallest_lr", options["smallest_lr"], 0.0)

    def _begin(self, p, state, group) -> None:
        top = group["levels"] - 1
        if group["randomize"]:
            level = torch.randint(top + 1, p.shape).to(p.device)
        else:
            level = (torch.log(state["cap"] / p.abs()) / group["base_lr"]).round_().clamp_(0, top)
        state["level"] = level.to(torch.int16)
        state["sign"] = p.sign().to(torch.int8)
        self._show(p, state, group)

    def _move(self, p, ghat, state, group) -> None:
        steps = ghat.mul_(max(number(group["lr"]), group["smallest_lr"])).round_().mul_(state["sign"])
        state["level"] = (state["level"] + steps).clamp_(0, group["levels"] - 1).to(torch.int16)
        self._show(p, state, group)

    @staticmethod
    def _show(p, state, group) -> None:
        p.copy_(state["sign"] * state["cap"] * torch.exp(-group["base_lr"] * state["level"].to(p.dtype)))
