"""Recipes as plain data, for checkpoints and records, and in words, for reports and captions."""

from __future__ import annotations

import json
from typing import Any

from lns_sim.recipes.recipe import PASSES, ModelRecipe, Recipe

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


def describe(recipe: Recipe | ModelRecipe | None) -> str:
    """Formats and datapaths in a line."""
    if isinstance(recipe, ModelRecipe):
        others = dict.fromkeys(r for _, r in recipe.overrides)
        parts = [f"; {', '.join(p for p, r in recipe.overrides if r == other)}: {describe(other)}" for other in others]
        return describe(recipe.default) + "".join(parts)
    if recipe is None:
        return "float32"
    kinds = ("activation", "weight", "error", "gradient")
    labels = {kind: "float32" if (q := recipe.quantizer(kind)) is None else q.label for kind in kinds}
    text = _grouped(labels, "all tensors")
    if recipe.coded_weights:
        text += f"; weights kept in {recipe.update.bits} bits, gamma {recipe.update.gamma}"
    paths = {name.replace("_", " "): getattr(recipe, name) for name in PASSES}
    return f"{text}; " + _grouped(
        {name: "float32 products" if d is None else d.label for name, d in paths.items()}, "all passes"
    )


def _grouped(labels: dict[str, str], everything: str) -> str:
    """Labels with the names that have them."""
    if len(set(labels.values())) == 1:
        return f"{everything}: {next(iter(labels.values()))}"
    return "; ".join(
        f"{', '.join(key for key, other in labels.items() if other == label)}: {label}"
        for label in dict.fromkeys(labels.values())
    )
