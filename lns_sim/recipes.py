"""Recipes: which format and which datapath each tensor and each pass of training uses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from lns_sim._compile import constant_result
from lns_sim.checks import check_bool, check_choice, check_int
from lns_sim.comparators import fp8, integer, luq, shiftquant
from lns_sim.comparators.quantizer import KINDS, ValueQuantizer
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.policies import ROUNDINGS, UNDERFLOWS, check_thresholds


@dataclass(frozen=True)
class Quantizer:
    """How one kind of tensor becomes codes: see :func:`lns_sim.quantize` for the meaning of the fields.

    Raises:
        TypeError, ValueError: a field is of the wrong type or not among the allowed values.
    """

    format: LNSFormat = LNSFormat()
    rounding: str = "nearest"
    underflow: str = "clamp"
    thresholds: tuple[int, ...] | None = None

    def __post_init__(self):
        if not isinstance(self.format, LNSFormat):
            raise TypeError(f"format must be an LNSFormat, got {self.format!r}")
        object.__setattr__(self, "thresholds", check_thresholds(self.thresholds, self.format, self.rounding))
        check_choice("rounding", self.rounding, ROUNDINGS)
        check_choice("underflow", self.underflow, UNDERFLOWS)

    @property
    def stochastic(self) -> bool:
        """Does it draw random bits?"""
        return "stochastic" in (self.rounding, self.underflow)


def codes_of(q: Quantizer | LNSFormat | ValueQuantizer | None) -> LNSFormat | ValueQuantizer | None:
    """What knows bits and dtype of a tensor kind's codes: their LNS format, or another system's quantizer; None: float32."""
    return q.format if isinstance(q, Quantizer) else q


# The passes of training, and what each multiplies.
PASSES = {
    "forward": ("activation", "weight"), "input_gradient": ("error", "weight"), "weight_gradient": ("error", "activation"),
}  # fmt: skip


# Of float32 weights, beside torch's own (lns_sim.comparators.systems).
OPTIMIZERS = ("madam", "integer-madam", "lns-madam-published", "halp", "svrg", "lp-svrg", "lp-sgd")


@dataclass(frozen=True)
class Recipe:
    """The arithmetic of a layer's training (spec sections 4 and 5; LNS-Madam, table of quantizers).

    Any of the first four may be another system's :class:`lns_sim.comparators.quantizer.ValueQuantizer`.

    Attributes:
        name: how tables call it.
        activation: Q_A, the layer's input, in forward and weight gradient; None leaves it float32.
        weight: Q_W, the format of forward codes, derived from the update codes; a quantizer of float32 weights; None leaves them
            as they are.
        error: Q_E, the gradient of the layer's output, in both gradients; None leaves it float32.
        gradient: Q_G, the weight gradient after its product; None leaves it float32.
        update: Q_U, the format in which weights exist; its gamma is a multiple of ``weight``'s.
        forward, input_gradient, weight_gradient: the datapath of each pass; None multiplies the same codes'
            values in float32 (fake-quant), as it must be where an operand is float32.
        seed: of the random bits, where a quantizer is stochastic.
        optimizer: of float32 weights: one of :data:`OPTIMIZERS`; None: an ordinary one.
        l1_norms: batch and layer norms are replaced by quantized L1 norms (:mod:`lns_sim.comparators.l1norm`).

    Raises:
        ValueError: formats that do not fit together; the message names the pass.
    """

    name: str = "lns-madam"
    activation: Quantizer | ValueQuantizer | None = Quantizer()
    weight: LNSFormat | Quantizer | ValueQuantizer | None = LNSFormat()
    error: Quantizer | ValueQuantizer | None = Quantizer()
    gradient: Quantizer | ValueQuantizer | None = Quantizer()
    update: LNSFormat = LNSFormat(16, 2048)
    forward: Datapath | None = Datapath()
    input_gradient: Datapath | None = Datapath()
    weight_gradient: Datapath | None = Datapath()
    seed: int = 0
    optimizer: str | None = None
    l1_norms: bool = False

    def __post_init__(self):
        check_int("seed", self.seed, 0, (1 << 64) - 1)
        check_bool("l1_norms", self.l1_norms)
        if self.coded_weights and self.update.gamma % self.weight.gamma:
            raise ValueError(
                f"update must have a gamma of at least the weight's: {self.update.gamma} < {self.weight.gamma}"
            )
        if self.optimizer is not None:
            check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.optimizer is not None and self.coded_weights:
            raise ValueError(f"optimizer {self.optimizer!r} updates float32 weights, but weights are to exist as LNS codes")
        if self.coded_weights and isinstance(self.error, luq.LUQ) and self.error.hindsight:
            raise ValueError("LUQ's maximum in hindsight needs float32 weights, but weights are to exist as LNS codes")
        formats = {"activation": self.activation_format, "weight": self.weight_format, "error": self.error_format}
        for name, operands in PASSES.items():
            datapath = getattr(self, name)
            for operand in operands if datapath is not None else ():
                f = formats[operand]
                if f is None:
                    what = "is left in float32" if getattr(self, operand) is None else f"is quantized by {getattr(self, operand)!r}"
                    raise ValueError(f"the {name} datapath takes codes, but the {operand} {what}")
                if f.gamma != datapath.format.gamma or f.bits > datapath.format.bits:
                    raise ValueError(f"the {name} datapath takes {datapath.format!r}, but an operand has {f!r}")
        # Made here, once: a compiler reads it as a constant.
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        object.__setattr__(self, "_text", json.dumps(plain, sort_keys=True))

    @property
    def coded_weights(self) -> bool:
        """Do weights exist as codes of ``update`` only?"""
        return isinstance(self.weight, LNSFormat)

    @property
    def weight_format(self) -> LNSFormat | None:
        """Of the weights' codes in products."""
        return self.weight if self.weight is None or self.coded_weights else self.weight.format

    @property
    def activation_format(self) -> LNSFormat | None:
        """Of the activations' codes."""
        return self.activation and self.activation.format

    @property
    def error_format(self) -> LNSFormat | None:
        """Of the errors' codes."""
        return self.error and self.error.format

    @property
    def stochastic(self) -> bool:
        """Does any quantizer draw random bits?"""
        return any(q is not None and q.stochastic for q in (self.activation, self.error, self.gradient))

    def code_dtype(self, operand: str) -> torch.dtype:
        """Of the "activation" or "weight" as products take it."""
        codes = codes_of(getattr(self, operand))
        return torch.float32 if codes is None else codes.dtype

    def encode(self) -> str:
        """A canonical JSON text, by which the operators know a recipe."""
        return self._text

    @staticmethod
    @constant_result
    def decode(text: str) -> Recipe:
        """The recipe of :meth:`encode`."""
        return _decode(text)


@dataclass(frozen=True)
class ModelRecipe:
    """A recipe for a whole model, with others for some of its modules.

    Attributes:
        default: for all modules that no override names; None: float32.
        overrides: pairs of a name pattern (as in ``fnmatch``) and the recipe, None for float32, of the modules it matches
            and all inside them; a deeper match wins over an outer one, a later pattern over an earlier one.
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
        return self.default and self.default.optimizer

    @property
    def l1_norms(self) -> bool:
        """The default's."""
        return self.default is not None and self.default.l1_norms

    def encode(self) -> str:
        """A canonical JSON text."""
        parts = [["", self.default], *self.overrides]
        return json.dumps([[pattern, r and json.loads(r.encode())] for pattern, r in parts])


@lru_cache(maxsize=None)
def _decode(text: str) -> Recipe:
    fields = json.loads(text)

    def other(d):
        return KINDS[d["kind"]](**d["fields"])

    def quantizer(d):
        return d and (other(d) if "kind" in d else Quantizer(**{**d, "format": LNSFormat(**d["format"])}))

    def datapath(d):
        return d and Datapath(**{**d, "format": LNSFormat(**d["format"])})

    for name in ("activation", "error", "gradient"):
        fields[name] = quantizer(fields[name])
    weight = fields["weight"]
    fields["weight"] = LNSFormat(**weight) if weight and "gamma" in weight else quantizer(weight)
    fields["update"] = LNSFormat(**fields["update"])
    for name in ("forward", "input_gradient", "weight_gradient"):
        fields[name] = datapath(fields[name])
    return Recipe(**fields)


def _plain(value):
    """A field as JSON has it; another system's quantizer by its kind."""
    if isinstance(value, ValueQuantizer):
        return {"kind": type(value).__name__, "fields": dataclasses.asdict(value)}
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def lns_madam(
    bits: int = 8,
    gamma: int = 8,
    update_bits: int = 16,
    datapath: Datapath | None = None,
    stochastic_gradients: bool = False,
    seed: int = 0,
) -> Recipe:
    """Bit-exact LNS-Madam: one format for all operands, one datapath for all three passes.

    Args:
        bits, gamma: format of activations, weights, errors and weight gradients.
        update_bits: width of the update format; its octaves are the operands', its steps finer by the extra bits.
        datapath: None for the default datapath of the format.
        stochastic_gradients: stochastic rounding of errors and weight gradients.
        seed: of the random bits.

    Raises:
        TypeError, ValueError: a format or the datapath does not fit.
    """
    fmt = LNSFormat(bits, gamma)
    check_int("update_bits", update_bits, bits, 16)
    update = LNSFormat(update_bits, gamma << (update_bits - bits))
    pe = Datapath(fmt) if datapath is None else datapath
    error = Quantizer(fmt, rounding="stochastic" if stochastic_gradients else "nearest")
    return Recipe("lns-madam", Quantizer(fmt), fmt, error, error, update, pe, pe, pe, seed=seed)


def lns_madam_fake_quant(**kwargs) -> Recipe:
    """The codes of :func:`lns_madam` with every product in float32: what differs is the datapath alone."""
    return fake_quant(lns_madam(**kwargs))


def fake_quant(recipe: Recipe | ModelRecipe) -> Recipe | ModelRecipe:
    """The same recipe with every datapath replaced by a float32 product."""
    return map_recipes(recipe, lambda r: dataclasses.replace(
        r, name=f"{r.name}-fake-quant", forward=None, input_gradient=None, weight_gradient=None
    ))  # fmt: skip


def float32(recipe: Recipe | ModelRecipe) -> Recipe | ModelRecipe:
    """The same products without quantizers or datapaths: what a recipe is compared with, observed in the same places."""
    return map_recipes(recipe, lambda r: dataclasses.replace(
        r, name="float32", activation=None, weight=None, error=None, gradient=None, forward=None, input_gradient=None,
        weight_gradient=None,
    ))  # fmt: skip


def map_recipes(recipe: Recipe | ModelRecipe, change: Callable[[Recipe], Recipe]) -> Recipe | ModelRecipe:
    """A recipe changed, or all of a model's."""
    if isinstance(recipe, Recipe):
        return change(recipe)
    return ModelRecipe(recipe.default and change(recipe.default), tuple((p, r and change(r)) for p, r in recipe.overrides))


def _values(name: str, activation=None, weight=None, error=None, **others) -> Recipe:
    """Another system's: its quantizers' values multiplied without a datapath, float32 weights."""
    return Recipe(name, activation, weight, error, None, forward=None, input_gradient=None, weight_gradient=None, **others)


# Other systems (docs/comparators.md); the formats that the options of LNS-Madam choose are not theirs.
COMPARATORS = {
    "fp8": lambda **_: _values("fp8", fp8.FP8(), fp8.FP8(), fp8.FP8("e5m2")),
    "int8": lambda **_: _values("int8", integer.Integer(), integer.Integer(), integer.Integer(rounding="stochastic")),
    "luq": lambda **_: _values("luq", luq.SAWB(), luq.SAWB(), luq.LUQ()),
    "luq-smp2": lambda **_: _values("luq-smp2", luq.SAWB(), luq.SAWB(), luq.LUQ(samples=2)),
    "shiftquant": lambda **_: _values("shiftquant", integer.Integer(6), integer.Integer(6), shiftquant.ShiftQuant(6), l1_norms=True),
    "lns-madam-published": lambda **_: _values("lns-madam-published", *[Quantizer()] * 3, optimizer="lns-madam-published"),
    **{name: lambda name=name, **_: _values(name, optimizer=name) for name in OPTIMIZERS if name != "lns-madam-published"},
}
PRESETS = {"fp32": lambda **_: None, "lns-madam": lns_madam, "lns-madam-fake-quant": lns_madam_fake_quant, **COMPARATORS}


def get(name: str, **kwargs) -> Recipe | ModelRecipe | None:
    """A preset by name: "fp32" (None: nothing is converted), "lns-madam", "lns-madam-fake-quant" or one of another system; or a TOML file.

    Args:
        name: the preset's name, or the path of a file that ends in .toml (see :func:`lns_sim.recipe_files.load`).
        kwargs: of the preset; a file takes none.

    Raises:
        ValueError: unknown name (the message gives the nearest one), or a mistake in the file (it names the key).
        FileNotFoundError: no such file.
    """
    if name.endswith(".toml"):
        from lns_sim import recipe_files  # which knows the presets

        return recipe_files.load(name)
    check_choice("recipe", name, PRESETS)
    return PRESETS[name](**kwargs)


torch.serialization.add_safe_globals([Quantizer, Recipe, Datapath, *KINDS.values()])
