"""A training step's forward and backward pass as a CUDA graph: the same kernels without the launches' cost, which is
most of a small network's step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lns_sim.ops import memory
from lns_sim.optim import ClosureOptimizer
from lns_sim.random import Draws
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies import models
from lns_sim.studies.training import ranks
from lns_sim.watching.counting import Totals

Compute = Callable[[tuple[Tensor, ...]], Tensor]
EAGER_STEPS = 3  # before the capture: tables, algorithms and the optimizer's state are made in them


def kept_between_steps(recipe: Recipe | ModelRecipe | None) -> str:
    """What quantizers of a recipe keep from step to step, as "FP8's history"; empty where none does."""
    parts = [recipe.default, *(r for _, r in recipe.overrides)] if isinstance(recipe, ModelRecipe) else [recipe]
    return next((f"{type(q).__name__}'s {q.keeps}" for r in parts if (q := memory.keeper(r))), "")


def why_eager(recipe: Recipe | ModelRecipe | None, model: str, optimizer: torch.optim.Optimizer) -> str:
    """Why a run's steps cannot be replayed; empty where they can.

    Args:
        recipe: of the model.
        model: its name; what is not of :mod:`lns_sim.studies.models` may do on the host what no graph repeats.
        optimizer: of the run.
    """
    if isinstance(optimizer, ClosureOptimizer):
        return f"{type(optimizer).__name__} computes gradients itself"
    if model not in models.NAMES:
        return "a model of one's own may do on the host what a graph would not repeat"
    if kept := kept_between_steps(recipe):
        return f"{kept} changes from step to step"
    if ranks.count() > 1:
        return "FSDP2 gathers weights as they are needed"
    return ""


class GraphedGradients:
    """Loss and gradients of batches of one size, computed eagerly at first and replayed from then on.

    Args:
        parameters: whose gradients they are.
        size: of a whole batch; others are computed eagerly.
        totals: counts the datapath, if anything does.
        why_eager: nothing is captured, and this is why. A capture that fails leaves its reason here.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], size: int, totals: Totals | None, why_eager: str = ""):
        self.parameters, self.size, self.totals, self.why_eager = parameters, size, totals, why_eager
        self.forget()

    def forget(self) -> None:
        """The next batches are computed eagerly, and captured anew: the model multiplies otherwise than before."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._seen = 0

    def __call__(self, compute: Compute, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss, detached; the parameters have its gradients.

        Args:
            compute: from a batch to its loss, whose gradients it adds; the same each time.
            batch: tensors on the GPU, a sample each in their first dimension.
        """
        whole = len(batch[0]) == self.size and not self.why_eager
        if whole and self._graph is None and self._seen >= EAGER_STEPS:
            self._capture(compute, batch)
        if whole and self._graph is not None:
            return self._replayed(batch)
        self._seen += whole
        for p in self.parameters:
            p.grad = None
        return compute(batch).detach()

    def _capture(self, compute: Compute, batch: tuple[Tensor, ...]) -> None:
        for p in self.parameters:
            p.grad = None
        self._batch, device = tuple(x.clone() for x in batch), batch[0].device
        self._draws = Draws(device)
        graph, before = torch.cuda.CUDAGraph(), {} if self.totals is None else self.totals.macs()
        stream = torch.cuda.Stream(device)  # torch's own for captures is of the GPU that was captured on first
        try:
            with torch.cuda.device(device), self._draws, torch.cuda.graph(graph, stream=stream):
                self._loss = compute(self._batch).detach()
        except RuntimeError as error:
            self.why_eager = f"a capture fails: {str(error).splitlines()[0]}"
            return
        finally:  # nothing has run yet
            if self.totals is not None:
                self._macs = {key: n - before.get(key, 0) for key, n in self.totals.macs().items()}
                self.totals.add_macs(self._macs, -1)
        self._graph, self._gradients = graph, [p.grad for p in self.parameters]

    def _replayed(self, batch: tuple[Tensor, ...]) -> Tensor:
        assert self._graph is not None
        for own, given in zip(self._batch, batch):
            own.copy_(given)
        self._draws.draw()
        self._graph.replay()
        for p, gradient in zip(self.parameters, self._gradients):
            if p.grad is not gradient:  # another batch was computed eagerly
                p.grad = gradient
        if self.totals is not None:
            self.totals.add_macs(self._macs)
        return self._loss.clone()
