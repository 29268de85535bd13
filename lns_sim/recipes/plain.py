"""Recipes as plain data, for checkpoints and records."""

from __future__ import annotations

import json
from typing import Any

from lns_sim.recipes.recipe import ModelRecipe, Recipe

FLOAT32 = "fp32"


def to_plain(recipe: Recipe | ModelRecipe | None) -> Any:
    """What :func:`from_plain` takes, of dicts, lists and numbers."""
    return FLOAT32 if recipe is None else json.loads(recipe.encode())


def from_plain(value: Any) -> Recipe | ModelRecipe | None:
    """The recipe that :func:`to_plain` was given.

    Raises:
        KeyError, TypeError, ValueError: it was given none.
    """
    if isinstance(value, list):
        (_, default), *overrides = ((pattern, r and Recipe.decode(json.dumps(r))) for pattern, r in value)
        return ModelRecipe(default, tuple(overrides))
    return None if value == FLOAT32 else Recipe.decode(json.dumps(value, sort_keys=True))
