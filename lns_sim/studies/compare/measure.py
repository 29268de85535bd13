"""compare: runs one batch three times and measures how far its products are apart."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from lns_sim import recipes
from lns_sim.checks import check_module
from lns_sim.datapaths import Counters
from lns_sim.nn import LNSWeight, convert
from lns_sim.ops.observer import Observer, Product, Quantized, observe
from lns_sim.recipes import PASSES, ModelRecipe, Recipe
from lns_sim.tensor import LNSTensor
from lns_sim.watching.layers import running_layers

RUNS = ("float32", "fake-quant", "bit-exact")
# Half a step from where a code would round the other way is no underflow and no clipping: update codes round halves up.
_HALF = 1e-6


@dataclass(frozen=True)
class Codes:
    """What became of one tensor in the bit-exact run; shares of its elements.

    Attributes:
        tensor: "activation", "weight", "error" or "gradient".
        clipped: above the largest code by more than half a step.
        underflowed: not zero, but below the smallest code by more than half a step.
        zeros: zero codes.
        octaves: between the largest magnitude and the smallest that is not zero, before quantization.
    """

    tensor: str
    clipped: float
    underflowed: float
    zeros: float
    octaves: float


@dataclass(frozen=True)
class Row:
    """One pass of one product; signal-to-noise ratios in decibels, infinite where nothing differs.

    Attributes:
        layer: the module that multiplies, with a number where it does so more than once.
        name: "forward", "input_gradient" or "weight_gradient".
        macs: products of numbers.
        fake_quant, bit_exact: signal-to-noise ratio of each run's result against the float32 run's: all that happened
            before is in it.
        datapath: of the bit-exact result against the float32 product of the very same codes: this pass' datapath alone;
            None where no datapath ran.
        difference_fake_quant, difference_bit_exact, difference_datapath: the largest absolute difference of each
            kind, as a share of the float32 (the datapath's: of its own reference's) largest magnitude; None as above.
        saturated: share of accumulations and bins (``Counters.narrowed``); vanished: share of products.
            None where no datapath ran.
        operands: what became of both operands.
    """

    layer: str
    name: str
    macs: int
    fake_quant: float
    bit_exact: float
    datapath: float | None
    difference_fake_quant: float
    difference_bit_exact: float
    difference_datapath: float | None
    saturated: float | None
    vanished: float | None
    operands: tuple[Codes, ...] = ()

    @property
    def margin(self) -> float:
        """Decibels by which the datapath's noise lies below that of quantization; negative where it is louder."""
        silent = self.datapath is None or not math.isfinite(self.fake_quant)
        return math.inf if silent else self.datapath - self.fake_quant


@dataclass(repr=False)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        rows: in the order of execution: forward passes, then both gradients from the last layer to the first.
        codes: by layer, what became of each quantized tensor.
        losses: by run; the bit-exact one is there where any product is simulated.
        recipe: its name.
        formats: its formats and datapaths, in words.
        kinds: by layer, the class of its module.
    """

    recipe: str
    formats: str
    rows: list[Row] = field(default_factory=list)
    codes: dict[str, list[Codes]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Comparison({self.recipe!r}, {len(self.rows)} passes: {self.verdict()})"

    def _repr_html_(self) -> str:
        """In notebooks: the verdict and the table of passes."""
        from lns_sim.studies.compare.page import table  # which knows this module

        return table(self)

    @property
    def simulated(self) -> bool:
        """Did any product run on a datapath? Else bit-exact is fake-quant, and nothing is said of a datapath."""
        return any(row.datapath is not None for row in self.rows)

    @property
    def loudest(self) -> Row | None:
        """The pass in which quantization makes most noise."""
        return min(self.rows, key=lambda row: row.fake_quant, default=None)

    @property
    def first(self) -> Row | None:
        """Where the datapath first matters: the first pass in which it adds more noise than quantization has made so
        far.
        """
        return next((row for row in self.rows if row.margin < 0), None)

    @property
    def first_saturated(self) -> Row | None:
        """The first pass in which an accumulator saturated or wrapped."""
        return next((row for row in self.rows if row.saturated), None)

    @property
    def closest(self) -> Row | None:
        """The pass with the smallest margin."""
        return min(self.rows, key=lambda row: row.margin, default=None)

    def verdict(self) -> str:
        """Says in a sentence or two where the datapath first matters, and where an accumulator first left its range."""
        text = "The model has no simulated product."
        if self.first:
            r = self.first
            text = (
                f"The datapath first matters in the {_pass(r)} of {r.layer}: it adds more noise than quantization has "
                f"(signal-to-noise {r.datapath:.1f} dB against {r.fake_quant:.1f} dB)."
            )
        elif self.closest and math.isfinite(self.closest.margin):
            r = self.closest
            text = (
                f"The datapath's own noise stays below that of quantization everywhere; it comes closest, by "
                f"{r.margin:.1f} dB, in the {_pass(r)} of {r.layer}."
            )
        elif self.simulated:
            text = "The datapath adds no noise."
        elif self.loudest:
            r = self.loudest
            text = (
                f"No product runs on a simulated datapath: what differs is quantization, most in the {_pass(r)} of "
                f"{r.layer} (signal-to-noise {r.fake_quant:.1f} dB)."
            )
        if self.first_saturated:
            r = self.first_saturated
            text += f" Accumulators first leave their range in the {_pass(r)} of {r.layer} ({100 * r.saturated:.2g} %)."
        return text

    def to_dict(self) -> dict:
        """Plain data; infinite ratios are None."""

        def plain(value):
            if isinstance(value, dict):
                return {k: plain(v) for k, v in value.items()}
            if isinstance(value, (list, tuple)):
                return [plain(v) for v in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return plain({**asdict(self), "verdict": self.verdict()})


def _pass(row: Row) -> str:
    return row.name.replace("_", " ") + (" pass" if row.name == "forward" else "")


def signal_to_noise(x: Tensor, reference: Tensor) -> float:
    """The ratio in decibels of x against a reference of the same shape; infinite where they are equal."""
    reference = reference.double()
    noise = (x.double() - reference).square().sum().item()
    signal = reference.square().sum().item()
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _difference(x: Tensor, reference: Tensor) -> float:
    largest = reference.abs().max().item() if reference.numel() else 0.0
    return (x - reference).abs().max().item() / largest if largest else 0.0


def _codes(q: Quantized) -> Codes:
    source = q.source.dequantize() if isinstance(q.source, LNSTensor) else q.source
    magnitude, f = source.detach().abs().double() / q.operand.scales.double(), q.operand.format
    nonzero = magnitude[magnitude > 0]
    smallest, largest = 2 ** (0.5 / f.gamma) * (1 - _HALF), 2 ** min((f.e_max + 0.5) / f.gamma, 1023) * (1 + _HALF)
    n = max(source.numel(), 1)
    return Codes(
        q.name,
        (magnitude > largest).sum().item() / n,
        (nonzero < smallest).sum().item() / n,
        (q.operand.value == 0).sum().item() / n,
        math.log2(nonzero.max() / nonzero.min()) if len(nonzero) else 0.0,
    )


class _Recorder(Observer):
    """One of the three runs: results by (layer, pass)."""

    counts = True

    def __init__(self, before: list[_Recorder]):
        self.before = before
        self.results: dict[tuple[str, str], Tensor] = {}
        self.rows: list[Row] = []
        self.codes: dict[str, dict[str, Codes]] = defaultdict(dict)
        self._running: list[str] = []
        self._labels: dict[int, str] = {}
        self._sites: dict[str, int] = defaultdict(int)

    def run(self, loss: Callable[[nn.Module], Tensor], model: nn.Module) -> float:
        """Forward, and backward where the loss has one; the loss."""
        with running_layers(model) as self._running, torch.random.fork_rng(), observe(self):
            torch.manual_seed(0)  # dropout alike in all runs
            value = loss(model)
            if value.dim():
                raise ValueError(f"loss must return a scalar, got shape {tuple(value.shape)}")
            if value.requires_grad:
                value.backward()
        return value.item()

    def _label(self, site: int) -> str:
        if site not in self._labels:
            layer = (self._running[-1] if self._running else "") or "(model)"
            self._sites[layer] += 1
            count = self._sites[layer]
            self._labels[site] = layer if count == 1 else f"{layer} [{count}]"
        return self._labels[site]

    def quantized(self, quantized: Quantized) -> None:
        if len(self.before) == 2 and quantized.operand.format is not None:
            self.codes[self._label(quantized.site)][quantized.name] = _codes(quantized)

    def product(self, product: Product) -> None:
        key = (self._label(product.site), product.name)
        out = product.out.detach()
        if len(self.before) == 2:
            self.rows.append(self._row(key, product, out))
        else:
            self.results[key] = out

    def _row(self, key: tuple[str, str], product: Product, out: Tensor) -> Row:
        plain, fake = (recorder.results.pop(key) for recorder in self.before)
        alone, difference_alone, shares = None, None, (None, None)
        if product.counters is not None:
            same_codes = product.in_float32()
            alone, difference_alone = signal_to_noise(out, same_codes), _difference(out, same_codes)
            c = Counters.from_tensor(product.macs, product.counters, getattr(product.recipe, product.name))
            shares = (c.saturations / max(c.narrowed, 1), c.vanished / max(c.macs, 1))
        codes = self.codes[key[0]]
        operands = tuple(codes[name] for name in PASSES[product.name] if name in codes)
        return Row(
            *key,
            product.macs,
            signal_to_noise(fake, plain),
            signal_to_noise(out, plain),
            alone,
            _difference(fake, plain),
            _difference(out, plain),
            difference_alone,
            *shares,
            operands,
        )


def compare(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], recipe: Recipe | ModelRecipe | str = "lns-madam"
) -> Comparison:
    """Runs a batch through a model in float32, by the recipe's codes with float32 products, and bit-exact.

    ``comparison = lns_sim.compare(model, lambda m: F.cross_entropy(m(x), y)); print(comparison.verdict())``

    Args:
        model: float32; it stays as it is (each run has a copy).
        loss: runs a model on the batch and returns a scalar; without a gradient only forward passes are compared.
        recipe: see :func:`lns_sim.convert`.

    Raises:
        TypeError: model is no module, or loss no function.
        ValueError: a converted model, a recipe that simulates nothing, or a loss that is no scalar.
    """
    check_module(model)
    if not callable(loss):
        raise TypeError(f"loss must be a function of the model, e.g. lambda m: m(x).sum(), got {loss!r}")
    if any(isinstance(p, LNSWeight) for p in model.parameters()):
        raise ValueError("compare takes a float32 model; lns_sim.nn.to_float makes one of a converted model")
    exact = recipes.get(recipe) if isinstance(recipe, str) else recipe
    if exact is None:
        raise ValueError("compare needs a recipe that simulates products, got fp32")
    found = Comparison(exact.name, recipes.describe(exact))
    recorders: list[_Recorder] = []
    for run, chosen in zip(RUNS, (recipes.float32(exact), recipes.fake_quant(exact), exact)):
        own = convert(copy.deepcopy(model), chosen)
        recorders.append(_Recorder(recorders[:]))
        found.losses[run] = recorders[-1].run(loss, own)
    found.rows = recorders[-1].rows
    modules = {name or "(model)": type(module).__name__ for name, module in model.named_modules()}
    found.kinds = {row.layer: modules[row.layer.partition(" [")[0]] for row in found.rows}
    if not found.simulated:
        del found.losses["bit-exact"]
    found.codes = {layer: list(codes.values()) for layer, codes in recorders[-1].codes.items()}
    return found
