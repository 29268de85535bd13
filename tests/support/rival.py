"""A system that nobody published, in one file: its codes, errors, memory, optimizer and recipe, as another package
brings them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lns_sim.optim import ClosureOptimizer
from lns_sim.quantizers import Operand, Quantizer
from lns_sim.random import draw
from lns_sim.recipes import PASSES, Recipe
from lns_sim.registry import OPTIMIZERS, RECIPES, OptimizerChoice


@dataclass(frozen=True)
class Ladder(Quantizer):
    """Levels -7 to 7 of a fixed step, stored as bytes with 100 in the middle, so that only this class can read them."""

    stochastic: ClassVar[bool] = True
    bits: ClassVar[int] = 4
    dtype: ClassVar[torch.dtype] = torch.uint8
    slack: float = 1.0

    @property
    def keeps(self) -> str | None:
        return "running top" if self.slack > 1 else None

    def _codes(self, x: Tensor, top: Tensor, rng: Tensor) -> tuple[Tensor, Tensor]:
        scale = torch.where(top > 0, top / 7, 1.0)
        return ((x / scale + draw(x, rng)).floor().clamp(-7, 7) + 100).to(torch.uint8), scale

    def quantize(self, x: Tensor, rng: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        return self._codes(x, x.abs().amax(), rng)

    def value(self, codes: Tensor, scale: Tensor) -> Tensor:
        return (codes.float() - 100) * scale

    def error_operands(
        self, x: Tensor, rng: Tensor | None, dim: int, memory: dict[str, Tensor]
    ) -> tuple[Operand, Operand]:
        """Two draws, under a top that remembers the steps before."""
        top = x.abs().amax()
        if self.keeps:
            top = torch.maximum(top, memory.get("top", top) / self.slack)
            memory["top"] = top
        fresh = rng.clone()
        fresh[3] += x.numel()
        return Operand(*self._codes(x, top, rng), self), Operand(*self._codes(x, top, fresh), self)


@dataclass(frozen=True)
class NearestLadder(Ladder):
    """The same levels, the nearest."""

    stochastic: ClassVar[bool] = False

    def _codes(self, x: Tensor, top: Tensor, rng: Tensor | None) -> tuple[Tensor, Tensor]:
        scale = torch.where(top > 0, top / 7, 1.0)
        return ((x / scale).round() + 100).to(torch.uint8), scale


class Extragradient(ClosureOptimizer):
    """A step by the gradient at where a first step would lead; counts the epochs that it was told of."""

    def __init__(self, params, lr: float):
        super().__init__(params, dict(lr=lr, epochs=0))

    def begin_epoch(self, full_gradient) -> None:
        self.zero_grad()
        full_gradient()
        assert all(p.grad is not None for group in self.param_groups for p in group["params"])
        for group in self.param_groups:
            group["epochs"] += 1

    def step(self, closure):
        self.zero_grad()
        loss = closure()
        with torch.no_grad():
            before = [(p, p.clone(), group["lr"]) for group in self.param_groups for p in group["params"]]
            for p, _, lr in before:
                p.sub_(lr * p.grad)
        self.zero_grad()
        closure()
        with torch.no_grad():
            for p, old, lr in before:
                p.copy_(old - lr * p.grad)
        return loss.detach()


OPTIMIZERS.register(
    "extragradient", OptimizerChoice(lambda params, s: Extragradient(params, s.float_lr), weight_bits=4)
)
RECIPES.register(
    "ladder",
    lambda: Recipe(
        "ladder",
        NearestLadder(),
        NearestLadder(),
        Ladder(slack=1.5),
        None,
        **dict.fromkeys(PASSES),
        optimizer="extragradient",
    ),
)
