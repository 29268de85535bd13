"""HALP (arXiv 1803.03383): variance reduction with an offset in few bits on a grid that shrinks with the gradient, and
its rivals.

One optimizer class has SGD, LP-SGD, SVRG, LP-SVRG and HALP. All but the SGDs alternate: `outer` takes the full gradient
at the current weights, then `step` runs on single batches. `least_squares_in_integers` is HALP for linear models with
the products in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lns_sim.checks import check_choice, check_int, check_number
from lns_sim.optim.closure import ClosureOptimizer, Diverged
from lns_sim.optim.groups import check_known, number
from lns_sim.random import draw, random_state

METHODS = ("sgd", "lp-sgd", "svrg", "lp-svrg", "halp")
GROWTH, PATIENCE = (
    5.0,
    3,
)  # of the full gradient over the first one, and for how many in a row, until a run counts as diverging


def on_grid(x: Tensor, delta: float, bits: int, u: Tensor) -> Tensor:
    """Integers n of ``delta n``, the unbiased rounding of x to ``{-2^(bits-1) .. 2^(bits-1) - 1}``, saturating; u in
    [0, 1).
    """
    low = -(1 << (bits - 1))
    return torch.floor(x / delta + u).clamp_(low, -low - 1)


def grid(norm: float, mu: float, bits: int) -> float:
    """HALP's spacing for a full gradient of that norm: ``norm / (mu (2^(bits-1) - 1))``."""
    return norm / (mu * ((1 << (bits - 1)) - 1))


class HALP(ClosureOptimizer):
    """SVRG whose offset z is quantized, and re-centered at each full gradient (arXiv 1803.03383, algorithm 2).

    ``outer``: ``w += z``, ``g`` the full gradient, ``delta = ||g|| / (mu (2^(bits-1) - 1))``, ``z = 0``. ``step``:
    ``z = Q(z - lr (grad f_i(w + z) - grad f_i(w) + g))``, Q stochastic on the grid. The parameters always hold ``w +
    z``.

    Args:
        params: parameters or groups.
        lr: step size.
        method: "halp"; "svrg" (z in full precision); "lp-svrg" and "lp-sgd" (the weights themselves quantized on a
            fixed grid); "sgd".
        bits: of z, or of the weights, 2 to 24.
        mu: HALP's bound of the strong convexity: the grid reaches ``||g|| / mu``. Too large, and z stands at the
            grid's end (:attr:`saturated`); too small, and the grid is too coarse to get anywhere.
        delta: spacing of the fixed grid of "lp-svrg" and "lp-sgd".
        seed: of the stochastic rounding.

    Raises:
        ValueError: an argument is out of range, or a group has an option that it does not know.
    """

    def __init__(
        self,
        params,
        lr: float,
        method: str = "halp",
        bits: int = 8,
        mu: float = 3.0,
        delta: float = 1 / 64,
        seed: int = 0,
    ):
        self._check(dict(lr=lr, delta=delta))
        check_choice("method", method, METHODS)
        check_int("bits", bits, 2, 24)
        check_number("mu", mu, 0.0, low_open=True)
        check_int("seed", seed, 0, (1 << 64) - 1)
        super().__init__(params, dict(lr=lr, steps=0, first=None, grown=0, delta=delta))
        self.method, self.bits, self.mu, self.seed = method, bits, mu, seed
        self.saturated = 0.0  # share of z's numbers at an end of the grid after the last step

    @staticmethod
    def _check(options: dict) -> None:
        check_number("lr", number(options["lr"]), 0.0, low_open=True)
        check_number("delta", options["delta"], 0.0, low_open=True)

    def add_param_group(self, param_group: dict) -> None:
        """Adds parameters, with lr and delta of their own where the group gives them.

        Raises:
            TypeError, ValueError: as at construction, or an option that a group does not know.
        """
        check_known(param_group, self.defaults)
        self._check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __getstate__(self) -> dict:
        own = {name: getattr(self, name) for name in ("method", "bits", "mu", "seed", "saturated")}
        return {**super().__getstate__(), **own}

    @property
    def two_gradients(self) -> bool:
        """Does a step need the gradient at w, too, and `outer` before?"""
        return self.method in ("svrg", "lp-svrg", "halp")

    def _each(self):
        return [(p, self.state[p], group) for group in self.param_groups for p in group["params"] if p.requires_grad]

    def outer(self, closure: Callable[[], object]) -> float:
        """Re-centers.

        Args:
            closure: computes the gradient of the whole objective by backward; gradients are zeroed before.

        Returns:
            The norm of that gradient.

        Raises:
            Diverged: it is not finite, or for the third time in a row five times the first one.
        """
        each = self._each()
        _, gradients = self._gradients(closure, each)
        with torch.no_grad():
            for (p, state, _), g in zip(each, gradients):
                state["w"], state["g"], state["z"] = p.detach().clone(), g, torch.zeros_like(p)
        norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
        for group in self.param_groups:
            if group["first"] is None:
                group["first"] = norm
            group["grown"] = 0 if norm <= GROWTH * group["first"] else group["grown"] + 1
            if not math.isfinite(norm) or group["grown"] == PATIENCE:
                raise Diverged(
                    f"the full gradient has grown from {group['first']:.3g} to {norm:.3g}: mu = {self.mu:g} "
                    "is too small "
                    "(the grid is too coarse), or the learning rate too large"
                )
            if self.method == "halp":
                group["delta"] = grid(norm, self.mu, self.bits)
        return norm

    def begin_epoch(self, full_gradient: Callable[[], object]) -> None:
        self.outer(full_gradient)

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One step; ``closure`` computes a batch's loss and gradients, and is called again at w where the method needs
        that.

        Raises:
            RuntimeError: the method needs `outer` first.
        """
        each = self._each()
        if self.two_gradients and not all("w" in state for _, state, _ in each):
            raise RuntimeError(f"{self.method} needs outer(closure), the full gradient, before its steps")
        loss, direction = self._gradients(closure, each)
        if self.two_gradients:
            now = [p.detach().clone() for p, _, _ in each]
            self._put([state["w"] for _, state, _ in each], each)
            _, at_w = self._gradients(closure, each)
            self._put(now, each)
            direction = [a - b + state["g"] for a, b, (_, state, _) in zip(direction, at_w, each)]
        with torch.no_grad():
            self._move(each, direction)
        return loss

    @staticmethod
    @torch.no_grad()
    def _put(values, each) -> None:
        for (p, _, _), value in zip(each, values):
            p.copy_(value)

    def _gradients(self, closure, each):
        self.zero_grad()
        with torch.enable_grad():
            loss = closure()
        found = [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p, _, _ in each]
        return loss.detach() if isinstance(loss, Tensor) else loss, found

    def _move(self, each, direction) -> None:
        for group in self.param_groups:
            group["steps"] += 1
        at_end = count = 0
        for i, ((p, state, group), d) in enumerate(zip(each, direction)):
            lr = number(group["lr"])
            if self.method in ("sgd", "svrg"):
                p.sub_(lr * d)
                continue
            u = draw(p, random_state(self.seed, group["steps"], i, p.device)).to(p.dtype)
            if self.method != "halp":
                p.copy_(group["delta"] * on_grid(p - lr * d, group["delta"], self.bits, u))
            elif group["delta"] > 0:  # a full gradient of 0 stops
                n = on_grid(state["z"] - lr * d, group["delta"], self.bits, u)
                state["z"] = group["delta"] * n
                p.copy_(state["w"] + state["z"])
                at_end += (n.abs() >= (1 << (self.bits - 1)) - 1).sum().item()
                count += n.numel()
        self.saturated = at_end / count if count else 0.0


def least_squares_in_integers(
    x: Tensor, y: Tensor, lr: float, epochs: int, bits: int = 8, mu: float = 3.0, seed: int = 0
) -> list[float]:
    """HALP on ``mean (x_i w - y_i)^2 / 2`` with data and offset in integers of so many bits, and their product on an
    integer grid.

    The data are ``s X`` with X integers, z is ``delta Z``. A step needs ``x_i (x_i z)``, which is ``s^2 delta X_i (X_i
    Z)``: integers of
    at most ``4 bits + log2 d`` bits, exactly. Full gradients are taken on the same rounded data, in the precision of x.

    Args:
        x: (n, d); y: (n,).
        lr, bits, mu, seed: as of :class:`HALP`.
        epochs: full gradients; n steps follow each.

    Returns:
        Norms of the full gradients, the last after all steps.
    """
    check_int("bits", bits, 2, 12)
    generator = torch.Generator().manual_seed(seed)
    top = (1 << (bits - 1)) - 1
    s = (x.abs().max() / top).item()
    data = torch.round(x / s).to(torch.int64)
    x = s * data.to(x.dtype)
    w, norms = torch.zeros(x.shape[1], dtype=x.dtype), []
    for _ in range(epochs):
        g = x.T @ (x @ w - y) / len(x)
        norms.append(g.norm().item())
        delta = grid(norms[-1], mu, bits)
        if delta == 0:
            break
        z = torch.zeros(x.shape[1], dtype=torch.int64)
        for i in torch.randint(len(x), (len(x),), generator=generator).tolist():
            row = data[i]
            product = row * int(row @ z)  # on the grid s^2 delta
            moved = delta * z.to(x.dtype) - lr * (s * s * delta * product.to(x.dtype) + g)
            z = on_grid(moved, delta, bits, torch.rand(z.shape, generator=generator, dtype=x.dtype)).to(torch.int64)
        w = w + delta * z.to(x.dtype)
    norms.append((x.T @ (x @ w - y) / len(x)).norm().item())
    return norms
