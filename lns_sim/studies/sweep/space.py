"""What a sweep varies: names and values, and the recipe that a choice of values makes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from lns_sim.checks import check_choice
from lns_sim.datapath import ALIGNMENTS, BINS, OVERFLOWS, PRODUCT_UNDERFLOWS, Datapath
from lns_sim.datapaths import AnyDatapath
from lns_sim.format import LNSFormat
from lns_sim.log_datapath import ORDERS, LogDatapath
from lns_sim.log_tables import LogTables
from lns_sim.quantizers import LNS
from lns_sim.recipes import PASSES, ModelRecipe, Recipe, map_recipes
from lns_sim.recipes.presets import gamma_in_blocks

Value = int | str
AnyRecipe = Recipe | ModelRecipe | None
Space = dict[str, list[Value]]
Point = dict[str, Value]

FIELDS = tuple(f.name for f in fields(Datapath) if f.name != "format")
# Those of a LogDatapath, which make a datapath one; overflow has one value.
LOG_FIELDS = {f"log_{f.name}": f.name for f in fields(LogDatapath) if f.name not in ("format", "overflow")}
# Of one number or word.
SWEPT = (*(n for n in FIELDS if n not in ("lut_constants", "product_range", "keep_fraction")), *LOG_FIELDS)
_TENSORS = ("activation", "weight", "error", "gradient")
KEYS = (
    "bits",
    "gamma",
    "update_bits",
    *(f"{tensor}.bits" for tensor in _TENSORS),
    *SWEPT,
    *(f"{name}.{field}" for name in PASSES for field in SWEPT),
)


_WORDS = {
    "rounding": ALIGNMENTS,
    "overflow": OVERFLOWS,
    "bin_overflow": OVERFLOWS,
    "product_underflow": PRODUCT_UNDERFLOWS,
    "bins": BINS,
    "log_order": ORDERS,
    "log_underflow": PRODUCT_UNDERFLOWS,
}


def parse(texts: list[str]) -> Space:
    """``["acc_bits=16:24:4", "forward.lut_entries=1,2,8"]``: values in a list, or from:to[:step], both ends included.

    Raises:
        ValueError: an unknown key (the message names the nearest), one given twice, or values that are no such list.
    """
    space: Space = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise ValueError(f"a dimension is NAME=VALUES, as in acc_bits=16:24:4 or lut_entries=1,2,8, got {text!r}")
        check_choice("a dimension", key, KEYS)
        if key in space:
            raise ValueError(f"{key} is given twice")
        space[key] = _values(key, values)
    if not space:
        raise ValueError("a sweep needs at least one dimension, e.g. acc_bits=16:24:4")
    return space


def _values(key: str, text: str) -> list[Value]:
    words = _WORDS.get(key.rpartition(".")[2])
    found: list[Value] = []
    for part in text.split(","):
        if words is not None:
            check_choice(key, part, words)
            found.append(part)
            continue
        if key.rpartition(".")[2] == "log_tables":
            LogTables.of(part)
            found.append(part)
            continue
        try:
            ends = [int(n) for n in part.split(":")]
        except ValueError:
            raise ValueError(f"{key} takes integers, got {part!r}") from None
        if len(ends) > 3 or (len(ends) == 3 and ends[2] < 1) or (len(ends) > 1 and ends[1] < ends[0]):
            raise ValueError(f"{key}: a range is from:to or from:to:step, got {part!r}")
        found += range(ends[0], ends[1] + 1, ends[2] if len(ends) == 3 else 1) if len(ends) > 1 else ends
    return list(dict.fromkeys(found))


def points(space: Space) -> list[Point]:
    """All choices."""
    return [dict(zip(space, values)) for values in itertools.product(*space.values())]


def size(space: Space) -> int:
    """How many choices there are."""
    return math.prod(map(len, space.values()))


def applies(key: str, recipe: Recipe) -> bool:
    """Does a recipe have what a key of :data:`KEYS` or :data:`FIELDS` sets?"""
    what, _, field = key.rpartition(".")
    if field in ("bits", "gamma"):
        return any(_is_lns(getattr(recipe, tensor)) for tensor in ([what] if what else _TENSORS))
    if field == "update_bits":
        return recipe.coded_weights
    return any(getattr(recipe, name) is not None for name in ([what] if what else PASSES))


def _is_lns(tensor: object) -> bool:
    return isinstance(tensor, (LNS, LNSFormat))


def check_applies(keys: Iterable[str], *recipes: AnyRecipe, called: Callable[[str], str] = str) -> None:
    """Raises ValueError that names the keys which set nothing in any of the recipes."""
    parts: list[Recipe] = []
    for recipe in recipes:
        inner = [recipe.default, *(r for _, r in recipe.overrides)] if isinstance(recipe, ModelRecipe) else [recipe]
        parts += [r for r in inner if r is not None]
    idle = [called(key) for key in keys if not any(applies(key, part) for part in parts)]
    if idle:
        names = " and ".join(dict.fromkeys("fp32" if r is None else r.name for r in recipes))
        raise ValueError(f"{', '.join(idle)} would change nothing in {names}: there is no such format or datapath")


def changed(
    recipes: Sequence[AnyRecipe], point: Mapping[str, Any], called: Callable[[str], str] = str
) -> list[AnyRecipe]:
    """Recipes with a choice of values, each with those that it has a place for.

    Args:
        recipes: of models or of modules; None stays.
        point: values by key, of :data:`KEYS` and :data:`FIELDS`.
        called: how messages call a key.

    Raises:
        TypeError, ValueError: a value changes nothing in any of them, or values do not fit together.
    """
    check_applies(point, *recipes, called=called)

    def change(recipe: Recipe) -> Recipe:
        return recipe_of({key: value for key, value in point.items() if applies(key, recipe)}, recipe)

    return [recipe and map_recipes(recipe, change) for recipe in recipes]


def recipe_of(point: Point, base: Recipe) -> Recipe:
    """The base recipe with a choice of values: a key without a pass or tensor holds for all of them.

    Where a key changes formats, a datapath's is the smallest that holds its operands'; the LUT has gamma entries where
    the base's has and no key says otherwise; the update format keeps the weight format's octaves. With block scales
    gamma follows from bits, and the update format stays, as in :func:`lns_sim.recipes.lns_madam_blocks`.

    Raises:
        TypeError, ValueError: values that do not fit together.
    """

    def format_of(tensor: str, own: LNSFormat) -> LNSFormat:
        bits = point.get(f"{tensor}.bits", point.get("bits", own.bits))
        gamma = own.gamma if base.block is None or bits == own.bits else gamma_in_blocks(bits)
        return LNSFormat(bits, point.get("gamma", gamma))

    changes = {}
    for tensor in _TENSORS:
        own = getattr(base, tensor)
        if not _is_lns(own):
            continue
        changes[tensor] = (
            format_of(tensor, own) if tensor == "weight" else replace(own, format=format_of(tensor, own.format))
        )
    of_update = {"update_bits"} if base.block is not None else {"bits", "weight.bits", "gamma", "update_bits"}
    if base.coded_weights and of_update & point.keys():
        weight, bits = changes["weight"], point.get("update_bits", base.update.bits)
        if bits < weight.bits:
            raise ValueError(f"update_bits must be at least the weight's {weight.bits}, got {bits}")
        changes["update"] = LNSFormat(bits, weight.gamma << (bits - weight.bits))
    reformatted = any(key.rpartition(".")[2] in ("bits", "gamma") for key in point)
    for name, operands in PASSES.items():
        own = getattr(base, name)
        if own is not None:
            formats = [changes[tensor] if tensor == "weight" else changes[tensor].format for tensor in operands]
            format = LNSFormat.holding(*formats) if reformatted else own.format
            changes[name] = _datapath(own, name, format, point)
    return replace(base, **changes)


def _datapath(own: AnyDatapath, name: str, format: LNSFormat, point: Point) -> AnyDatapath:
    """One with a choice's values; those of a LogDatapath make one of a linear one."""
    own_keys = sorted((key for key in point if key.rpartition(".")[0] in ("", name)), key=lambda key: "." in key)
    linear, log = ([key for key in own_keys if key.rpartition(".")[2] in names] for names in (FIELDS, LOG_FIELDS))
    if linear and log:
        raise ValueError(
            f"{', '.join(linear)} and {', '.join(log)} cannot go together: a datapath is linear, or adds logarithms"
        )
    if linear and isinstance(own, LogDatapath):
        raise ValueError(
            f"{', '.join(linear)} would change nothing in the {name.replace('_', ' ')}: its datapath adds logarithms, "
            "whose values begin with log_"
        )
    if log or isinstance(own, LogDatapath):
        base = own if isinstance(own, LogDatapath) else LogDatapath(format)
        changes: dict[str, Any] = {LOG_FIELDS[key.rpartition(".")[2]]: point[key] for key in log}
        return replace(base, format=format, **changes)
    fields = {field: point.get(f"{name}.{field}", point.get(field, getattr(own, field))) for field in FIELDS}
    if own.lut_entries == own.format.gamma and not {"lut_entries", f"{name}.lut_entries"} & point.keys():
        fields["lut_entries"] = None
    return replace(own, format=format, **fields)
