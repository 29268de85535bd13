"""Optimizers that ask for gradients themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A closure that computes a batch's loss and adds its gradients, for optimizers that also ask what it is made of.

    Attributes:
        model: from x to what the criterion takes.
        x: inputs.
        criterion: from the model's output to the mean loss.
        context: what the loss is computed in, such as autocast.
    """

    model: torch.nn.Module
    x: Tensor
    criterion: Callable[[Tensor], Tensor]
    context: Callable[[], AbstractContextManager] = nullcontext

    def loss(self) -> Tensor:
        """The mean loss over the batch, 0-d, with its graph."""
        with self.context():
            return self.criterion(self.model(self.x))

    def __call__(self) -> Tensor:
        value = self.loss()
        value.backward()
        return value


class Diverged(RuntimeError):
    """Training left the numbers, or is on its way there."""


class ClosureOptimizer(torch.optim.Optimizer):
    """An optimizer whose steps compute gradients as often as they need, by a closure.

    A training loop calls :meth:`begin_epoch` before each epoch and ``step(closure)`` instead of its own backward pass.
    """

    @abstractmethod
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One step; ``closure`` computes a batch's loss and adds its gradients. Returns the loss."""

    def begin_epoch(self, full_gradient: Callable[[], object]) -> None:
        """Before an epoch's steps.

        Args:
            full_gradient: adds the gradient of the mean loss over the training set to the parameters' gradients.
        """
