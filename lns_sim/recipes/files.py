"""Recipes as TOML files: a preset or all of a recipe's fields, and overrides by name pattern."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from lns_sim.checks import check_choice, nearest
from lns_sim.datapath import Datapath
from lns_sim.datapaths import KINDS
from lns_sim.format import LNSFormat
from lns_sim.log_datapath import LogDatapath
from lns_sim.log_tables import LogTables
from lns_sim.quantizers import LNS, Quantizer
from lns_sim.recipes.presets import lns_madam
from lns_sim.recipes.recipe import ModelRecipe, Recipe
from lns_sim.registry import QUANTIZERS, RECIPES

# What a recipe's tables hold; all other fields are plain values.
_TABLES = {
    "activation": LNS,
    "error": LNS,
    "gradient": LNS,
    "weight": LNSFormat,
    "update": LNSFormat,
    "forward": Datapath,
    "input_gradient": Datapath,
    "weight_gradient": Datapath,
}
_FIELDS = [f.name for f in dataclasses.fields(Recipe)]


def load(path: str | Path) -> ModelRecipe:
    """Reads a recipe file (docs/recipes.md).

    Raises:
        FileNotFoundError: no such file.
        ValueError: no TOML, or an unknown key or a wrong value; the message names file and key.
    """
    path = Path(path)
    try:
        return parse(path.read_text("utf-8"), path.stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(text: str, name: str | None = None) -> ModelRecipe:
    """The recipe of a file's text, called ``name`` unless the text says; raises as :func:`load`."""
    try:
        table = tomlkit.parse(text).unwrap()
    except (TOMLKitError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if name is not None and table.get("preset") != "fp32":
        table.setdefault("name", name)
    overrides = table.pop("override", [])
    if not isinstance(overrides, list) or not all(isinstance(o, dict) for o in overrides):
        raise ValueError("override must be an array of tables: [[override]]")
    preset = table.pop("preset", "lns-madam")
    if not isinstance(preset, str) or preset.endswith(".toml"):
        raise ValueError(f"preset must be a preset's name, got {preset!r}")
    try:
        default = RECIPES[preset]()
    except ValueError as error:
        raise ValueError(f"preset: {error}") from None
    if default is None and table:
        raise ValueError(f"preset fp32 takes no {next(iter(table))}")
    default = default and _changed(default, table, "")
    rules = []
    for i, override in enumerate(overrides):
        where = f"override[{i}]."
        layers = override.pop("layers", None)
        layers = [layers] if isinstance(layers, str) else layers
        if not isinstance(layers, list) or not layers or not all(isinstance(p, str) for p in layers):
            raise ValueError(f"{where}layers must be a name pattern or a list of them")
        float32 = override.pop("float32", False)
        if not isinstance(float32, bool):
            raise ValueError(f"{where}float32 must be true or false, got {float32!r}")
        if float32 and override:
            raise ValueError(f"{where}float32 takes no {next(iter(override))} beside it")
        recipe = None if float32 else _changed(default or lns_madam(), override, where)
        rules += [(pattern, recipe) for pattern in layers]
    return ModelRecipe(default, tuple(rules))


def _unknown(key: str, where: str, known) -> ValueError:
    near = nearest(key, known)
    hint = f"did you mean {near}?" if near else f"keys are {', '.join(known)}"
    return ValueError(f"{where}{key} is no key here; {hint}")


def _changed(recipe: Recipe, table: dict, where: str) -> Recipe:
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _FIELDS:
            raise _unknown(key, where, [*_FIELDS, *(("layers", "float32") if where else ("override", "preset"))])
        if key == "optimizer_options":
            if not isinstance(value, dict):
                raise ValueError(f"{where}{key} must be a table, got {value!r}")
            same = table.get("optimizer", recipe.optimizer) == recipe.optimizer
            changes[key] = {**dict(recipe.optimizer_options if same else ()), **value}
        elif key not in _TABLES:
            changes[key] = None if key == "block" and value == "none" else value
        elif value == "float32" and key != "update":
            changes[key] = None  # a pass multiplied in float32, or a tensor left unquantized
        else:
            quantizes = key in ("activation", "weight", "error", "gradient")
            changes[key] = _table(_TABLES[key], getattr(recipe, key), value, f"{where}{key}", quantizes)
    if changes.get("optimizer", recipe.optimizer) != recipe.optimizer:
        changes.setdefault("optimizer_options", ())  # they were another's
    return _made(lambda: dataclasses.replace(recipe, **changes), where[:-1] or "recipe")


def _table(kind: type, known, table, where: str, quantizes: bool = False):
    """A dataclass with some fields changed; one that ``quantizes`` may become another quantizer."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table, got {table!r}")
    if quantizes and "quantizer" in table:  # another system's
        table = dict(table)
        name = table.pop("quantizer")
        kind, known = _made(lambda: QUANTIZERS[name], where), None
    elif kind is Datapath and "datapath" in table:  # of the other kind, with the same operands
        table = dict(table)
        name = table.pop("datapath")
        _made(lambda: check_choice("datapath", name, KINDS), where)
        kind = KINDS[name]
        if type(known) is not kind:
            known = kind() if known is None else kind(known.format)
    elif isinstance(known, (Quantizer, LogDatapath)):
        kind = type(known)
    elif quantizes and kind is LNSFormat and "format" in table:  # a quantizer of float32 weights
        kind, known = LNS, None
    allowed = [f.name for f in dataclasses.fields(kind)]
    for key in table:
        if key not in allowed:
            raise _unknown(key, f"{where}.", allowed)
    changes = {key: None if value == "none" else value for key, value in table.items()}  # TOML has no None
    if "format" in changes:
        changes["format"] = _table(LNSFormat, known and known.format, changes["format"], f"{where}.format")
    if known is None:
        return _made(lambda: kind(**changes), where)
    if changes.get("acc_lsb") == "headroom":  # from headroom_bits
        changes["acc_lsb"] = None
    if kind is Datapath and "format" in changes:
        changes.setdefault("lut_entries", None)  # follows gamma
    return _made(lambda: dataclasses.replace(known, **changes), where)


def _made(make, where: str):
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def dump(recipe: Recipe | ModelRecipe) -> str:
    """A file's text that :func:`parse` reads back as the same recipe: what differs from the preset lns-madam."""
    recipe = ModelRecipe(recipe) if isinstance(recipe, Recipe) else recipe
    document = tomlkit.document()
    preset = lns_madam()
    document["preset"] = "fp32" if recipe.default is None else "lns-madam"
    document.update(_difference(recipe.default, preset) if recipe.default is not None else {})
    if recipe.overrides:
        document["override"] = [
            {"layers": pattern, **({"float32": True} if r is None else _difference(r, recipe.default or preset))}
            for pattern, r in recipe.overrides
        ]
    return tomlkit.dumps(document)


def _difference(value, known) -> dict:
    """The fields of a dataclass that differ from a known one's, as plain values."""
    changes = {}
    for f in dataclasses.fields(value):
        new, old = getattr(value, f.name), getattr(known, f.name)
        if new == old and not (f.name == "lut_entries" and value.format != known.format):
            continue
        if new is None:
            without = f.name == "block" or isinstance(value, (Datapath, LogDatapath, Quantizer))
            new = "headroom" if f.name == "acc_lsb" else "none" if without else "float32"
        elif f.name == "optimizer_options":
            new = dict(new)
        elif isinstance(new, Quantizer) and not isinstance(new, LNS):
            new = {"quantizer": type(new).__name__, **_all(new)}
        elif type(new).__name__ in KINDS and isinstance(new, LogDatapath) != isinstance(old, LogDatapath):
            new = {"datapath": type(new).__name__, **_all(new)}
        elif dataclasses.is_dataclass(new):
            same = type(new) is type(old) and not isinstance(
                new, LogTables
            )  # tables of one kind take no other's fields
            new = _difference(new, old) if same else _all(new)
        changes[f.name] = new
    return changes


def _all(value):
    """A dataclass with all its fields, which no known one gives."""
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {k: _all(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items() if v is not None}
