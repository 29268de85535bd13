"""Recipes by name, or from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lns_sim.recipes import files
from lns_sim.recipes.recipe import ModelRecipe, Recipe
from lns_sim.registry import RECIPES


def get(name: str) -> Recipe | ModelRecipe | None:
    """A recipe by name: "fp32" (None: nothing is converted), "lns-madam", "lns-madam-fake-quant" or another system's;
    or a file.

    Args:
        name: the recipe's name, or the path of a file that ends in .toml (see :func:`lns_sim.recipes.files.load`).
            For other formats and datapaths see :func:`lns_sim.recipes.lns_madam`.

    Raises:
        TypeError: name is no string.
        ValueError: unknown name (the message gives the nearest one), or a mistake in the file (it names the key).
        FileNotFoundError: no such file.
    """
    if not isinstance(name, str):
        raise TypeError(f"a recipe's name must be a string, got {name!r}")
    return files.load(name) if name.endswith(".toml") else RECIPES[name]()


def check_names(recipes: Iterable[Recipe | ModelRecipe | None]) -> None:
    """Raises ValueError where two have one name, under which tables would take them for one."""
    for name, count in Counter("fp32" if recipe is None else recipe.name for recipe in recipes).items():
        if count > 1:
            raise ValueError(f"two recipes are called {name!r}; a recipe file's `name` tells them apart")
