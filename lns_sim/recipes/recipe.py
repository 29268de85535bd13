"""Recipes: which quantizer and which datapath each tensor and each pass of training uses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, TypeVar

import torch

from lns_sim._compile import constant_result
from lns_sim.checks import check_bool, check_choice, check_int
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath, from_fields
from lns_sim.format import LNSFormat
from lns_sim.html import html_table
from lns_sim.log_datapath import LogDatapath
from lns_sim.log_tables import LogTables
from lns_sim.quantizers import LNS, Quantizer
from lns_sim.registry import OPTIMIZERS, QUANTIZERS

PASSES = {
    "forward": ("activation", "weight"),
    "input_gradient": ("error", "weight"),
    "weight_gradient": ("error", "activation"),
}
"""The passes of training, and what each multiplies."""


@dataclass(frozen=True, repr=False)
class Recipe:
    """The arithmetic of a layer's training (spec sections 4 and 5; LNS-Madam, table of quantizers).

    Attributes:
        name: how tables call it.
        activation: Q_A, the layer's input, in forward and weight gradient; None leaves it float32.
        weight: Q_W, the format of forward codes, derived from the update codes; a quantizer of float32 weights;
            None leaves them as they are.
        error: Q_E, the gradient of the layer's output, in both gradients; None leaves it float32.
        gradient: Q_G, the weight gradient after its product; None leaves it float32.
        update: Q_U, the format in which weights exist; its gamma is a multiple of ``weight``'s.
        forward, input_gradient, weight_gradient: the datapath of each pass; None multiplies the same codes'
            values in float32 (fake-quant), as it must be where an operand has no LNS codes.
        seed: of the random bits, where a quantizer is stochastic.
        optimizer: of float32 weights, by name (``lns_sim.registry.OPTIMIZERS``); None: an ordinary one.
        optimizer_options: its options by name, as a dict or pairs; kept as pairs, in order.
        block: elements along K that share a scale, in activations, weights and errors, in each pass along its own K
            (spec section 8): a multiple of the datapaths' vector sizes; None: one scale a tensor.
        l1_norms: batch and layer norms are replaced by quantized L1 norms (:mod:`lns_sim.nn.l1norm`).

    Raises:
        ValueError: an unknown optimizer or option of it, or formats that do not fit together; the message names the
            pass.
    """

    name: str = "lns-madam"
    activation: Quantizer | None = LNS()
    weight: LNSFormat | Quantizer | None = LNSFormat()
    error: Quantizer | None = LNS()
    gradient: Quantizer | None = LNS()
    update: LNSFormat = LNSFormat(16, 2048)
    forward: AnyDatapath | None = Datapath()
    input_gradient: AnyDatapath | None = Datapath()
    weight_gradient: AnyDatapath | None = Datapath()
    seed: int = 0
    optimizer: str | None = None
    optimizer_options: tuple[tuple[str, Any], ...] = ()
    l1_norms: bool = False
    block: int | None = None
    # Made of the fields, once:
    _text: ClassVar[str]
    keeper: ClassVar[Quantizer | None] = None  # a quantizer that keeps something between steps

    def __post_init__(self):
        self._check_types()
        check_int("seed", self.seed, 0, (1 << 64) - 1)
        check_bool("l1_norms", self.l1_norms)
        if self.optimizer is not None:
            check_choice("optimizer", self.optimizer, OPTIMIZERS)
        object.__setattr__(self, "optimizer_options", tuple(sorted(dict(self.optimizer_options).items())))
        self._check_options()
        kept = [q for q in self._quantizers.values() if q is not None and q.keeps is not None]
        object.__setattr__(self, "keeper", kept[0] if kept else None)
        self._check_keepers()
        if isinstance(self.weight, LNSFormat):
            self._check_coded_weights(self.weight)
        for name in PASSES:
            self._check_pass(name)
        if self.block is not None:
            self._check_blocks(self.block)
        # Made here, once: a compiler reads it as a constant.
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        object.__setattr__(self, "_text", json.dumps(plain, sort_keys=True))

    def _check_types(self) -> None:
        for kind, q in self._quantizers.items():
            if q is not None and not isinstance(q, Quantizer):
                coded = "an LNSFormat, " if kind == "weight" else ""
                raise TypeError(f"{kind} must be {coded}a quantizer (lns_sim.quantizers) or None, got {q!r}")
        if not isinstance(self.update, LNSFormat):
            raise TypeError(f"update must be an LNSFormat, got {self.update!r}")
        for name in PASSES:
            datapath = getattr(self, name)
            if datapath is not None and not isinstance(datapath, (Datapath, LogDatapath)):
                raise TypeError(f"{name} must be a Datapath, a LogDatapath or None, got {datapath!r}")

    def _check_options(self) -> None:
        for name, value in self.optimizer_options:
            if self.optimizer is None:
                raise ValueError(f"optimizer_options: {name} has no effect without an optimizer")
            check_choice(f"an option of the optimizer {self.optimizer!r}", name, OPTIMIZERS[self.optimizer].options)
            if not isinstance(value, (bool, int, float, str)):
                raise TypeError(f"optimizer_options: {name} must be a number, a truth value or a name, got {value!r}")

    def _check_coded_weights(self, weight: LNSFormat) -> None:
        if self.update.gamma % weight.gamma:
            raise ValueError(f"update must have a gamma of at least the weight's: {self.update.gamma} < {weight.gamma}")
        if self.optimizer is not None:
            raise ValueError(
                f"optimizer {self.optimizer!r} updates float32 weights, but weights are to exist as LNS codes"
            )
        if self.keeper is not None:
            raise ValueError(
                f"{type(self.keeper).__name__}'s {self.keeper.keeps} needs float32 weights, but weights are to exist "
                "as LNS codes"
            )

    def _check_keepers(self) -> None:
        for kind, q in self._quantizers.items():
            if q is None or q.keeps is None or kind == "error":
                continue
            if kind == "gradient" or type(q).remembered is Quantizer.remembered:
                raise ValueError(f"{kind}: {type(q).__name__}'s {q.keeps} has no effect on it")

    def _check_blocks(self, block: int) -> None:
        check_int("block", block, 1, None)
        for kind in ("activation", "weight", "error"):
            q = self.quantizer(kind)
            if q is not None and type(q).quantize_blocks is Quantizer.quantize_blocks:
                raise ValueError(f"the {kind} is quantized by {q!r}, which knows no block scales")
        for name in PASSES:
            datapath = getattr(self, name)
            if isinstance(datapath, LogDatapath):
                raise ValueError(f"the {name} datapath adds logarithms and has no shifts for blocks of {block}")
            if datapath is not None and block % datapath.vector_size:
                raise ValueError(
                    f"blocks of {block} are no multiple of the {name} datapath's vector_size = {datapath.vector_size}"
                )

    def _check_pass(self, name: str) -> None:
        datapath = getattr(self, name)
        for kind in PASSES[name] if datapath is not None else ():
            q = self.quantizer(kind)
            if q is None or q.format is None:
                what = "is left in float32" if q is None else f"is quantized by {q!r}"
                raise ValueError(f"the {name} datapath takes codes, but the {kind} {what}")
            datapath.format.check_holds(f"the {name} pass' {kind}", q.format)

    @property
    def coded_weights(self) -> bool:
        """Do weights exist as codes of ``update`` only?"""
        return isinstance(self.weight, LNSFormat)

    def quantizer(self, kind: str) -> Quantizer | None:
        """The quantizer of a tensor kind, "activation", "weight", "error" or "gradient"; None: float32."""
        return self._quantizers[kind]

    @cached_property
    def _quantizers(self) -> dict[str, Quantizer | None]:
        weight = LNS(self.weight) if isinstance(self.weight, LNSFormat) else self.weight
        return {"activation": self.activation, "weight": weight, "error": self.error, "gradient": self.gradient}

    @property
    def stochastic(self) -> bool:
        """Does any quantizer draw random bits?"""
        return any(q is not None and q.stochastic for q in (self.activation, self.error, self.gradient))

    @property
    def quantizes(self) -> bool:
        """Is any tensor made codes? Else the products are plain ones, in float32."""
        return any(q is not None for q in (self.activation, self.weight, self.error, self.gradient))

    @property
    def in_float32(self) -> bool:
        """Do all passes multiply values in float32?"""
        return self.forward is None and self.input_gradient is None and self.weight_gradient is None

    def __repr__(self) -> str:
        return f"Recipe({self.name!r}: {describe(self)})"

    def _repr_html_(self) -> str:
        """In notebooks: what each tensor becomes, and what each pass runs on."""
        rows = [["tensor or pass", "format or datapath"], *map(list, {**_tensors(self), **_passes(self)}.items())]
        return html_table(rows, self.name)

    def encode(self) -> str:
        """A canonical JSON text, by which the operators know a recipe."""
        return self._text

    @staticmethod
    @constant_result
    def decode(text: str) -> Recipe:
        """The recipe of :meth:`encode`."""
        return _decode(text, QUANTIZERS.registrations)


@dataclass(frozen=True, repr=False)
class ModelRecipe:
    """A recipe for a whole model, with others for some of its modules.

    Attributes:
        default: for all modules that no override names; None: float32.
        overrides: pairs of a name pattern (as in ``fnmatch``) and the recipe, None for float32, of the modules it
            matches and all inside them; a deeper match wins over an outer one, a later pattern over an earlier one.
    """

    default: Recipe | None
    overrides: tuple[tuple[str, Recipe | None], ...] = ()

    def __post_init__(self):
        for recipe in (self.default, *(r for _, r in self.overrides)):
            if recipe is not None and not isinstance(recipe, Recipe):
                raise TypeError(f"a ModelRecipe holds Recipes, got {recipe!r}")

    @property
    def name(self) -> str:
        """How tables call it."""
        return "fp32" if self.default is None else self.default.name

    @property
    def optimizer(self) -> str | None:
        """The default's."""
        return None if self.default is None else self.default.optimizer

    @property
    def optimizer_options(self) -> tuple[tuple[str, Any], ...]:
        """The default's."""
        return () if self.default is None else self.default.optimizer_options

    def __repr__(self) -> str:
        return f"ModelRecipe({self.name!r}: {describe(self)})"

    def encode(self) -> str:
        """A canonical JSON text."""
        parts = [["", self.default], *self.overrides]
        return json.dumps([[pattern, r and json.loads(r.encode())] for pattern, r in parts])


@cache
def _decode(text: str, registrations: int) -> Recipe:
    """Anew where quantizers were registered since: one of them may be defined anew."""
    fields = json.loads(text)

    def quantizer(d):
        if d is None:
            return None
        return QUANTIZERS[d["kind"]](**d["fields"]) if "kind" in d else LNS(**{**d, "format": LNSFormat(**d["format"])})

    for name in ("activation", "error", "gradient"):
        fields[name] = quantizer(fields[name])
    weight = fields["weight"]
    fields["weight"] = LNSFormat(**weight) if weight and "gamma" in weight else quantizer(weight)
    fields["update"] = LNSFormat(**fields["update"])
    for name in PASSES:
        fields[name] = fields[name] and from_fields(fields[name])
    return Recipe(**fields)


def _plain(value):
    """A field as JSON has it; a quantizer that makes no LNS codes by its kind, pairs by name."""
    if isinstance(value, tuple):
        return dict(value)
    if isinstance(value, Quantizer) and not isinstance(value, LNS):
        return {"kind": type(value).__name__, "fields": dataclasses.asdict(value)}
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def check_recipe(recipe) -> None:
    """Raises TypeError for anything but a recipe, such as its name."""
    if not isinstance(recipe, (Recipe, ModelRecipe)):
        raise TypeError(
            f"recipe must be a Recipe or a ModelRecipe, got {recipe!r}; lns_sim.recipes.get finds one by its name"
        )


def describe(recipe: Recipe | ModelRecipe | None) -> str:
    """Formats and datapaths in a line.

    Raises:
        TypeError: it is no recipe.
    """
    if recipe is not None:
        check_recipe(recipe)
    if isinstance(recipe, ModelRecipe):
        others = dict.fromkeys(r for _, r in recipe.overrides)
        parts = [f"; {', '.join(p for p, r in recipe.overrides if r == other)}: {describe(other)}" for other in others]
        return describe(recipe.default) + "".join(parts)
    if recipe is None:
        return "float32"
    text = _grouped(_tensors(recipe), "all tensors")
    if recipe.block is not None:
        text += f", blocks of {recipe.block}"
    if recipe.coded_weights:
        text += f"; weights kept in {recipe.update.bits} bits, gamma {recipe.update.gamma}"
    return f"{text}; " + _grouped(_passes(recipe), "all passes")


def _tensors(recipe: Recipe) -> dict[str, str]:
    kinds = ("activation", "weight", "error", "gradient")
    return {kind: "float32" if (q := recipe.quantizer(kind)) is None else q.label for kind in kinds}


def _passes(recipe: Recipe) -> dict[str, str]:
    datapaths = {name.replace("_", " "): getattr(recipe, name) for name in PASSES}
    return {name: "float32 products" if d is None else d.label for name, d in datapaths.items()}


def _grouped(labels: dict[str, str], everything: str) -> str:
    """Labels with the names that have them."""
    if len(set(labels.values())) == 1:
        return f"{everything}: {next(iter(labels.values()))}"
    return "; ".join(
        f"{', '.join(key for key, other in labels.items() if other == label)}: {label}"
        for label in dict.fromkeys(labels.values())
    )


AnyRecipe = TypeVar("AnyRecipe", Recipe, ModelRecipe)


def fake_quant(recipe: AnyRecipe) -> AnyRecipe:
    """The same recipe with every datapath replaced by a float32 product.

    Raises:
        TypeError: it is no recipe.
    """
    passes: dict[str, Any] = dict.fromkeys(PASSES)
    return map_recipes(recipe, lambda r: dataclasses.replace(r, name=f"{r.name}-fake-quant", **passes))


def float32(recipe: AnyRecipe) -> AnyRecipe:
    """The same products without quantizers or datapaths: what a recipe is compared with, observed in the same
    places.

    Raises:
        TypeError: it is no recipe.
    """
    nothing: dict[str, Any] = dict.fromkeys(("activation", "weight", "error", "gradient", *PASSES))
    return map_recipes(recipe, lambda r: dataclasses.replace(r, name="float32", block=None, **nothing))


def map_recipes(recipe: AnyRecipe, change: Callable[[Recipe], Recipe]) -> AnyRecipe:
    """A recipe changed, or all of a model's.

    Raises:
        TypeError: it is no recipe.
    """
    check_recipe(recipe)
    if isinstance(recipe, ModelRecipe):
        overrides = tuple((pattern, r and change(r)) for pattern, r in recipe.overrides)
        changed: Any = ModelRecipe(recipe.default and change(recipe.default), overrides)
        return changed
    return change(recipe)


# Checkpoints from before quantizers and recipes were packages call two of these otherwise.
_EARLIER = [(Recipe, "lns_sim.recipes.Recipe"), (LNS, "lns_sim.recipes.Quantizer")]
torch.serialization.add_safe_globals([Recipe, Datapath, LogDatapath, LogTables, *_EARLIER])
