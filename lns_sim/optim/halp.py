"""HALP (arXiv 1803.03383): variance reduction with an offset in few bits on a grid that shrinks with the gradient, and
its rivals.

One optimizer class has SGD, LP-SGD, SVRG, LP-SVRG and HALP. All but the SGDs alternate: `outer` takes the full gradient
at the current weights, then `step` runs on single batches. `least_squares_in_integers` is HALP for linear models with
the products in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from lns_sim.checks import check_choice, check_int, check_number
from lns_sim.optim.bit_centered import Offset, gradient_difference
from lns_sim.optim.closure import Batch, ClosureOptimizer, Diverged
from lns_sim.optim.groups import check_known, fill_in, number
from lns_sim.random import draw, random_state

Number = TypeVar("Number", float, Tensor)

METHODS = ("sgd", "lp-sgd", "svrg", "lp-svrg", "halp")
# Of the full gradient over the first one, and for how many in a row, until a run counts as diverging. What diverges
# grows without end; a deep net's first gradient may be small, and grow twentyfold while it learns.
GROWTH, PATIENCE = 100.0, 3


def on_grid(x: Tensor, delta: Tensor | float, bits: int, u: Tensor) -> Tensor:
    """Integers n of ``delta n``, the unbiased rounding of x to ``{-2^(bits-1) .. 2^(bits-1) - 1}``, saturating; u in
    [0, 1).
    """
    low = -(1 << (bits - 1))
    return torch.floor(x / delta + u).clamp_(low, -low - 1)


def grid(norm: Number, mu: float, bits: int) -> Number:
    """HALP's spacing for a full gradient of that norm: ``norm / (mu (2^(bits-1) - 1))``."""
    return norm / (mu * ((1 << (bits - 1)) - 1))


class HALP(ClosureOptimizer):
    """SVRG whose offset z is quantized, and re-centered at each full gradient (arXiv 1803.03383, algorithm 2).

    ``outer``: ``w += z``, ``g`` the full gradient, ``delta = ||g|| / (mu (2^(bits-1) - 1))``, ``z = 0``. ``step``:
    ``z = Q(z - lr (grad f_i(w + z) - grad f_i(w) + g))``, Q stochastic on the grid. The parameters always hold ``w +
    z``. Momentum and weight decay are SGD's, on that direction; of "halp" they are z's, as in the authors' code
    (HazyResearch/torchhalp), whose inner optimizer knows z alone.

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
        scale: "tensor": each parameter tensor has a delta of its own gradient's norm, as in the authors' code for deep
            nets; "model": one delta of the norm of all.
        inner: steps from one full gradient to the next, which :meth:`step` takes itself, by what :meth:`begin_epoch`
            was given; None: one at each :meth:`begin_epoch`.
        momentum, weight_decay: as of SGD.
        layer_bits: forward and backward passes by bit-centered layers (:mod:`lns_sim.optim.bit_centered`) of so many
            bits, 2 to 8, of "halp" alone, whose closures are then a :class:`lns_sim.optim.Batch`; None: in float32.

    Raises:
        ValueError: an argument is out of range or has no effect, or a group has an option that it does not know.
    """

    _OWN = ("method", "bits", "mu", "seed", "scale", "inner", "layer_bits", "_at_end", "_count")

    def __init__(
        self,
        params,
        lr: float,
        method: str = "halp",
        bits: int = 8,
        mu: float = 3.0,
        delta: float = 1 / 64,
        seed: int = 0,
        scale: str = "tensor",
        inner: int | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        layer_bits: int | None = None,
    ):
        options = dict(lr=lr, delta=delta, momentum=momentum, weight_decay=weight_decay)
        self._check(options)
        check_choice("method", method, METHODS)
        check_int("bits", bits, 2, 24)
        check_number("mu", mu, 0.0, low_open=True)
        check_int("seed", seed, 0, (1 << 64) - 1)
        check_choice("scale", scale, ("tensor", "model"))
        if inner is not None:
            check_int("inner", inner, 1, None)
        if layer_bits is not None:
            check_int("layer_bits", layer_bits, 2, 8)
            if method != "halp":
                raise ValueError(f"layer_bits has no effect on {method}")
        super().__init__(params, dict(options, steps=0, first=None, grown=0, since=0))
        self.method, self.bits, self.mu, self.seed, self.scale, self.inner = method, bits, mu, seed, scale, inner
        self.layer_bits = layer_bits
        self._full: Callable[[], object] | None = None
        self._at_end: Tensor | int = 0  # of z's numbers after the last step, at an end of the grid, and in all
        self._count = 0

    @staticmethod
    def _check(options: dict) -> None:
        check_number("lr", number(options["lr"]), 0.0, low_open=True)
        check_number("delta", options["delta"], 0.0, low_open=True)
        check_number("momentum", options["momentum"], 0.0, 1.0)
        check_number("weight_decay", options["weight_decay"], 0.0)

    def add_param_group(self, param_group: dict) -> None:
        """Adds parameters, with lr, delta, momentum and weight_decay of their own where the group gives them.

        Raises:
            TypeError, ValueError: as at construction, or an option that a group does not know.
        """
        check_known(param_group, self.defaults)
        self._check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self._OWN}, "_full": None}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        fill_in(self.param_groups, self.defaults)

    @property
    def saturated(self) -> float:
        """Share of z's numbers at an end of the grid after the last step."""
        return float(self._at_end) / self._count if self._count else 0.0

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
            Diverged: it is not finite, or for the third time in a row a hundred times the first one.
        """
        each = self._each()
        _, gradients = self._gradients(closure, each)
        norms = torch.stack([g.double().norm() for g in gradients])
        norm = norms.norm().item()
        with torch.no_grad():
            for (p, state, _), g, own in zip(each, gradients, norms):
                state["w"], state["g"], state["z"] = p.detach().clone(), g, torch.zeros_like(p)
                if self.method == "halp":
                    state["delta"] = grid(own if self.scale == "tensor" else norms.norm(), self.mu, self.bits)
        for group in self.param_groups:
            group["since"] = 0
            if group["first"] is None:
                group["first"] = norm
            group["grown"] = 0 if norm <= GROWTH * group["first"] else group["grown"] + 1
            if not math.isfinite(norm) or group["grown"] == PATIENCE:
                coarse = f"mu = {self.mu:g} is too small (the grid is too coarse), or " if self.method == "halp" else ""
                raise Diverged(
                    f"the full gradient has grown from {group['first']:.3g} to {norm:.3g}: {coarse}the learning rate "
                    "is too large"
                )
        return norm

    def begin_epoch(self, full_gradient: Callable[[], object]) -> None:
        self._full = full_gradient
        if self.inner is None:
            self.outer(full_gradient)

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One step; ``closure`` computes a batch's loss and gradients, and is called again at w where the method needs
        that.

        Raises:
            RuntimeError: the method needs `outer` first.
            TypeError: bit-centered layers need to know what the closure is made of.
            ValueError: there are none of the model, see :func:`lns_sim.optim.bit_centered.layers_of`.
        """
        each = self._each()
        if self.two_gradients:
            known = all("w" in state for _, state, _ in each)
            if self._full is not None and self.inner is not None:
                if not known or self.param_groups[0]["since"] >= self.inner:
                    self.outer(self._full)
            elif not known:
                raise RuntimeError(f"{self.method} needs outer(closure), the full gradient, before its steps")
        if self.layer_bits is not None:
            loss, direction = self._bit_centered(closure, each)
            with torch.no_grad():
                self._move(each, direction)
            return loss
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

    def _bit_centered(self, closure, each):
        if not isinstance(closure, Batch):
            raise TypeError(f"bit-centered layers need an lns_sim.optim.Batch as closure, got {type(closure).__name__}")
        offsets = {p: Offset(state["w"], state["z"]) for p, state, _ in each}
        loss, found = gradient_difference(closure.model, closure.x, closure.criterion, offsets, self.layer_bits)
        return loss, [found[p] + state["g"] for p, state, _ in each]

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
            group["since"] += 1
        self._at_end = self._count = 0
        for i, ((p, state, group), d) in enumerate(zip(each, direction)):
            lr, moved = number(group["lr"]), state["z"] if self.method == "halp" else p
            if group["weight_decay"]:
                d = d + group["weight_decay"] * moved
            if group["momentum"]:
                d = state["momentum"] = d + group["momentum"] * state.get("momentum", torch.zeros_like(d))
            if self.method in ("sgd", "svrg"):
                p.sub_(lr * d)
                continue
            u = draw(p, random_state(self.seed, group["steps"], i, p.device)).to(p.dtype)
            if self.method != "halp":
                p.copy_(group["delta"] * on_grid(p - lr * d, group["delta"], self.bits, u))
                continue
            stands = state["delta"] == 0  # a full gradient of 0 stops
            n = on_grid(state["z"] - lr * d, torch.where(stands, 1.0, state["delta"]), self.bits, u)
            n.masked_fill_(stands, 0)
            state["z"] = state["delta"] * n
            p.copy_(state["w"] + state["z"])
            self._at_end = self._at_end + (n.abs() >= (1 << (self.bits - 1)) - 1).sum()
            self._count += n.numel()


def least_squares_in_integers(
    x: Tensor, y: Tensor, lr: float, epochs: int, bits: int = 8, mu: float = 3.0, seed: int = 0
) -> list[float]:
    """HALP on ``mean (x_i w - y_i)^2 / 2`` with data and offset in integers of so many bits, and their product on an
    integer grid.

    The data are ``s X`` with X integers, z is ``delta Z``. A step needs ``x_i (x_i z)``, which is
    ``s^2 delta X_i (X_i Z)``: integers of at most ``3 bits + log2 d`` bits, exactly. Full gradients are taken on the
    same rounded data, in the precision of x.

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
