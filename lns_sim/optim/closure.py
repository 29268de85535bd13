"""Optimizers that ask for gradients themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


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
