"""What recipes call by name: quantizers, optimizers and whole recipes, registered here or by other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Generic, TypeVar

import torch

from lns_sim.checks import check_choice

ENTRY_POINTS = "lns_sim.systems"

_Entry = TypeVar("_Entry")


class Registry(Generic[_Entry]):
    """Entries by name, those of installed packages included.

    Another package registers its own when the modules are imported that it lists as entry points of the group
    ``lns_sim.systems``; that happens the first time anything is looked up.

    Args:
        kind: what an entry is, as error messages call it.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, _Entry] = {}
        self.registrations = 0

    def register(self, name: str, entry: _Entry) -> _Entry:
        """Adds an entry and returns it; a class or function defined anew, as in a notebook, takes its own place.

        Raises:
            ValueError: the name is taken by something else.
        """
        if name in self._entries and not _again(self._entries[name], entry):
            raise ValueError(f"there is a {self.kind} {name!r} already")
        self._entries[name] = entry
        self.registrations += 1
        return entry

    def __getitem__(self, name: str) -> _Entry:
        """The entry of that name.

        Raises:
            ValueError: there is none; the message gives the nearest name.
            ImportError: an installed package's systems cannot be imported.
        """
        if name not in self._entries:
            check_choice(self.kind, name, self)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        load_packages()
        return iter(self._entries)


def _again(old: object, new: object) -> bool:
    """Are both the same definition, run twice?"""
    places = [(getattr(x, "__module__", None), getattr(x, "__qualname__", None)) for x in (old, new)]
    return None not in places[0] and places[0] == places[1]


@dataclass(frozen=True)
class OptimizerSettings:
    """What a training run tells an optimizer that it makes by name.

    Attributes:
        lr: of multiplicative updates, per unit of normalized gradient: octaves, for Madam e-folds.
        float_lr: of additive updates, and of parameters that are no weights.
        p_scale: how far weights may grow by multiplicative updates, in root mean squares of the initial ones.
        float_optimizer, float_kwargs: name and arguments of the ordinary optimizer of the other parameters.
        steps_per_epoch: of the run.
        options: the recipe's ``optimizer_options``.
    """

    lr: float = 1 / 128
    float_lr: float = 0.1
    p_scale: float = 3.0
    float_optimizer: str = "sgd"
    float_kwargs: dict = field(default_factory=dict)
    steps_per_epoch: int = 1
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerChoice:
    """An optimizer that recipes can name.

    Attributes:
        make: from parameters and settings to the optimizer.
        learns_by: the setting that its weights learn by, "lr" or "float_lr".
        weight_bits: bits of a weight as the optimizer stores it with the recipe's options, where they are fewer than
            float32's.
        product_bits: bits of the operands of products, where the optimizer computes gradients in few, by the recipe's
            options; None: as the recipe says.
        options: what a recipe's ``optimizer_options`` may name.
        prepare: changes a model, with the options, before it is trained, where the optimizer's authors do.
    """

    make: Callable[[Iterable[torch.nn.Parameter], OptimizerSettings], torch.optim.Optimizer]
    learns_by: str = "float_lr"
    weight_bits: int | Callable[[dict], int] | None = None
    product_bits: Callable[[dict], int | None] | None = None
    options: tuple[str, ...] = ()
    prepare: Callable[[torch.nn.Module, dict], None] | None = None


QUANTIZERS: Registry[type] = Registry("quantizer")
"""Classes of quantizers by their names."""
OPTIMIZERS: Registry[OptimizerChoice] = Registry("optimizer")
"""Optimizers that recipes name."""
RECIPES: Registry[Callable] = Registry("recipe")
"""Functions that make recipes, by the recipes' names."""

_loaded = False


def load_packages() -> None:
    """Imports the systems of installed packages, once.

    Raises:
        ImportError: one of them cannot be imported; the message names it.
    """
    global _loaded
    if _loaded:
        return
    _loaded = True
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise ImportError(
                f"the systems {point.name!r} ({point.value}) of an installed package cannot be imported: {error}"
            ) from error
