"""The passes of products: shapes, operands and bytes, from the arguments of the operators that run them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lns_sim.datapaths import AnyDatapath
from lns_sim.format import LNSFormat
from lns_sim.quantizers import Quantizer
from lns_sim.recipes import Recipe

_ops = torch.ops.lns_sim


@dataclass(frozen=True)
class Shape:
    """The dot products of a pass, as matrices: every row of one operand with every row of the other.

    Attributes:
        rows: of the pass' first operand (activations, or errors).
        columns: rows of its second one (weights, or in the weight gradient activations).
        depth: numbers of a dot product that are one run of channels (or samples).
        taps: such runs in a dot product: a convolution's kernel positions.
        repeats: how many such products there are: groups, or batch.
    """

    rows: int
    columns: int
    depth: int
    taps: int = 1
    repeats: int = 1

    @property
    def macs(self) -> int:
        """Products of numbers."""
        return self.rows * self.columns * self.depth * self.taps * self.repeats


@dataclass(frozen=True)
class Pass:
    """One pass of one product.

    Attributes:
        layer: name of the module that multiplies ("" for the model itself).
        kind: "linear", "product" (of two computed tensors), "grouped" (rows by groups with a weight each),
            "convolution" or "embedding".
        name: "forward", "input_gradient" or "weight_gradient".
        operands: formats of both operands, of other systems their quantizers, None of a float32 one; one for a look-up.
        datapath: None: the codes' values are multiplied in float32 (fake-quant), or nothing is multiplied.
        shape: of its dot products; None of a look-up.
        useful: products of codes that are not zeros inserted between the positions of a strided convolution.
        bytes: of both operands' codes, and of the float32 result.
        numbers: of both operands, and of the result; of a look-up, what it reads and gives.
        result: what makes codes of the result where it is an operand later, as ``operands``.
    """

    layer: str
    kind: str
    name: str
    operands: tuple[LNSFormat | Quantizer | None, ...]
    datapath: AnyDatapath | None
    shape: Shape | None
    useful: int
    bytes: int
    numbers: tuple[int, ...]
    result: LNSFormat | Quantizer | None

    @property
    def macs(self) -> int:
        """Products of codes, as the datapath computes them."""
        return self.shape.macs if self.shape else 0


def _codes(q: Quantizer | None) -> LNSFormat | Quantizer | None:
    """What knows bits and dtype of an operand's codes."""
    return q if q is None or q.format is None else q.format


def _passes(
    layer, kind, r: Recipe, names, shapes: dict[str, Shape], a: Tensor, b: Tensor, out: Tensor, useful: int
) -> list[Pass]:
    """Every pass reads two of the three operands as codes and makes a float32 result of the third's size."""
    tensors = {"a": (a, r.activation), "b": (b, r.quantizer("weight")), "out": (out, r.error)}
    results = {"forward": r.activation, "input_gradient": r.error, "weight_gradient": r.gradient}
    if kind == "product":  # of two computed tensors
        results["weight_gradient"] = r.error
    parts = {"forward": ("a", "b", "out"), "input_gradient": ("out", "b", "a"), "weight_gradient": ("out", "a", "b")}
    rows = []
    for name in names:
        (x, qx), (y, qy), (result, _) = (tensors[part] for part in parts[name])
        size = _bytes(x, qx) + _bytes(y, qy) + 4 * result.numel()
        numbers = (x.numel(), y.numel(), result.numel())
        operands, made = (_codes(qx), _codes(qy)), _codes(results[name])
        rows.append(Pass(layer, kind, name, operands, getattr(r, name), shapes[name], useful, size, numbers, made))
    return rows


def _bytes(x: Tensor, q: Quantizer | None) -> int:
    return x.numel() * (4 if q is None else q.dtype.itemsize)


def _wanted(a: Tensor, b: Tensor) -> list[str]:
    """Passes that training runs."""
    return ["forward", *["input_gradient"] * a.requires_grad, *["weight_gradient"] * b.requires_grad]


def _matmul_shapes(m: int, n: int, k: int, repeats: int = 1) -> dict[str, Shape]:
    """The shapes of the passes of (M, K) x (K, N)."""
    return {
        "forward": Shape(m, n, k, repeats=repeats),
        "input_gradient": Shape(m, k, n, repeats=repeats),
        "weight_gradient": Shape(n, k, m, repeats=repeats),
    }


def _linear(layer, out, x, weight, rng, recipe):
    shapes = _matmul_shapes(x.numel() // x.shape[-1], weight.shape[0], x.shape[-1])
    return _passes(
        layer, "linear", Recipe.decode(recipe), _wanted(x, weight), shapes, x, weight, out[0], shapes["forward"].macs
    )


def _product(layer, out, a, b, rng, recipe):
    shapes = _matmul_shapes(a.shape[-2], b.shape[-1], a.shape[-1], out[0].shape[:-2].numel())
    return _passes(layer, "product", Recipe.decode(recipe), _wanted(a, b), shapes, a, b, out[0], shapes["forward"].macs)


def _grouped_product(layer, out, a, b, rng, ends, coded, recipe):
    """Every row of a is in one group; where they end is not known. Matrices that are not ``coded`` are computed."""
    shapes = {
        "forward": Shape(len(a), b.shape[2], b.shape[1]),
        "input_gradient": Shape(len(a), b.shape[1], b.shape[2]),
        "weight_gradient": Shape(b.shape[2], b.shape[1], len(a)),
    }
    useful = shapes["forward"].macs
    kind = "grouped" if coded else "product"
    return _passes(layer, kind, Recipe.decode(recipe), _wanted(a, b), shapes, a, b, out[0], useful)


def _outer_product(layer, out, a, b, rng, recipe):
    """Its forward pass sums nothing."""
    return [p for p in _product(layer, out, a, b, rng, recipe) if p.name != "forward"]


def _convolution(layer, out, x, weight, rng, stride, padding, dilation, transposed, output_padding, groups, recipe):
    y, taps = out[0], math.prod(weight.shape[2:])
    # As the convolution from `big` to `small` that a transposed one runs backwards.
    big, small = (y, x) if transposed else (x, y)
    outer, inner = weight.shape[0] // groups, weight.shape[1]  # channels of a group: of small, of big
    down = Shape(small[:, 0].numel(), outer, inner, taps, groups)
    up = Shape(big[:, 0].numel(), inner, outer, taps, groups)
    gradient = Shape(outer, inner * taps, small[:, 0].numel(), repeats=groups)
    shapes = {
        "forward": up if transposed else down,
        "input_gradient": down if transposed else up,
        "weight_gradient": gradient,
    }
    return _passes(layer, "convolution", Recipe.decode(recipe), _wanted(x, weight), shapes, x, weight, y, down.macs)


def _embedding(layer, out, weight, indices, rng, padding_idx, scale_grad_by_freq, recipe):
    q = Recipe.decode(recipe).quantizer("weight")
    n = out.numel()
    return [Pass(layer, "embedding", "forward", (_codes(q),), None, None, 0, n * (q.dtype.itemsize + 4), (n, n), None)]


# From the layer's name, an operator's results and its arguments to passes.
DESCRIPTIONS = {
    _ops.linear.default: _linear,
    _ops.product.default: _product,
    _ops.outer_product.default: _outer_product,
    _ops.grouped_product.default: _grouped_product,
    _ops.convolution.default: _convolution,
    _ops.embedding.default: _embedding,
}
