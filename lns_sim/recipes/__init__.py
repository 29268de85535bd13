"""Recipes: the arithmetic of each tensor and each pass of training; by name, in Python and in files
(docs/recipes.md).
"""

from lns_sim.recipes.by_name import check_names, get
from lns_sim.recipes.files import dump, load
from lns_sim.recipes.plain import from_plain, to_plain
from lns_sim.recipes.presets import lns_madam, lns_madam_blocks, lns_madam_fake_quant
from lns_sim.recipes.recipe import PASSES, ModelRecipe, Recipe, describe, fake_quant, float32, map_recipes

__all__ = [
    "PASSES",
    "ModelRecipe",
    "Recipe",
    "check_names",
    "describe",
    "dump",
    "fake_quant",
    "float32",
    "from_plain",
    "get",
    "lns_madam",
    "lns_madam_blocks",
    "lns_madam_fake_quant",
    "load",
    "map_recipes",
    "to_plain",
]
