"""What a converted model computes on the datapath, layer by layer and pass by pass, and what it leaves in float32."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lns_sim.datapath import Datapath
from lns_sim.quantizers import Quantizer
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor
from lns_sim.watching.layers import running_layers

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
        kind: "linear", "product" (of two computed tensors), "convolution" or "embedding".
        name: "forward", "input_gradient" or "weight_gradient".
        operands: quantizers of both operands, None of a float32 one; one for a look-up.
        datapath: None: the codes' values are multiplied in float32 (fake-quant), or nothing is multiplied.
        shape: of its dot products; None of a look-up.
        useful: products of codes that are not zeros inserted between the positions of a strided convolution.
        bytes: of both operands' codes, and of the float32 result.
    """

    layer: str
    kind: str
    name: str
    operands: tuple[Quantizer | None, ...]
    datapath: Datapath | None
    shape: Shape | None
    useful: int
    bytes: int

    @property
    def macs(self) -> int:
        """Products of codes, as the datapath computes them."""
        return self.shape.macs if self.shape else 0


@dataclass
class Summary:
    """What :func:`summary` found.

    Attributes:
        passes: in the order of the forward pass.
        float_products: (layer, operator, how often) of matrix products and convolutions left in float32.
        float_operators: how often each other operator of torch ran in float32.
        weight_bytes: of all parameters as they are stored.
    """

    passes: list[Pass] = field(default_factory=list)
    float_products: list[tuple[str, str, int]] = field(default_factory=list)
    float_operators: dict[str, int] = field(default_factory=dict)
    weight_bytes: int = 0

    @property
    def macs(self) -> dict[str, int]:
        """By pass."""
        totals: Counter[str] = Counter()
        for p in self.passes:
            totals[p.name] += p.macs
        return dict(totals)

    def __str__(self) -> str:
        header = ("layer", "product", "pass", "operands", "datapath", "MACs", "bytes")
        rows = [header] + [_cells(p) for p in self.passes]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        numbers = len(header) - 2  # the last two columns
        lines = []
        for row in rows:
            cells = [c.ljust(w) if i < numbers else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
            lines.append("  ".join(cells).rstrip())
        lines.insert(1, "  ".join("-" * w for w in widths))
        lines += [
            "",
            "MACs: " + (", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in self.macs.items()) or "none"),
            f"parameters: {self.weight_bytes:,} bytes",
        ]
        left = [
            f"{name} in {layer or '(model)'}" + (f" x {n}" if n > 1 else "") for layer, name, n in self.float_products
        ]
        products = ", ".join(left)
        lines.append(f"products left in float32: {products or 'none'}")
        others = ", ".join(f"{name} x {n}" for name, n in sorted(self.float_operators.items()))
        return "\n".join([*lines, f"other work in float32: {others or 'none'}"])


def _cells(p: Pass) -> tuple[str, ...]:
    operands = " x ".join(_label(q) for q in p.operands)
    return p.layer or "(model)", p.kind, p.name.replace("_", " "), operands, _datapath(p), f"{p.macs:,}", f"{p.bytes:,}"


def _label(q: Quantizer | None) -> str:
    return "float32" if q is None else q.label


def _datapath(p: Pass) -> str:
    if p.kind == "embedding":
        return "look-up"
    d = p.datapath
    return "float32" if d is None else f"{d.vector_size} lanes, LUT {d.lut_entries}, {d.acc_bits}-bit {d.overflow}"


def summary(model: nn.Module, *args, **kwargs) -> Summary:
    """Runs a model's forward once and reports every product: ``print(lns_sim.summary(model, x))``.

    Gradient passes are worked out from the forward pass: every pass that a backward from all outputs would run.

    Args:
        model: converted, or not (then all products stand under ``float_products``).
        args, kwargs: what its forward takes; tensors that require a gradient are counted as such.

    Returns:
        A :class:`Summary`; printing it gives a table.
    """
    found = Summary()
    with running_layers(model) as running, torch.enable_grad(), _Listener(found, running):
        model(*args, **kwargs)
    products = Counter((layer, name) for layer, name, _ in found.float_products)
    found.float_products = [(*key, n) for key, n in products.items()]
    for p in model.parameters():
        found.weight_bytes += (
            sum(getattr(p, n).nbytes for n in ("codes", "scale")) if isinstance(p, LNSTensor) else p.nbytes
        )
    return found


_FLOAT_PRODUCTS = {
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "mv",
    "addmv",
    "dot",
    "convolution",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_thnn_fused_lstm_cell",
    "mkldnn_rnn_layer",
    "_cudnn_rnn",
}


class _Listener(TorchDispatchMode):
    """Sees every operator below autograd; what runs inside ours stays unseen."""

    def __init__(self, found: Summary, running: list[str]):
        super().__init__()
        self.found, self.running = found, running

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        layer = self.running[-1] if self.running else ""
        describe = _DESCRIPTIONS.get(func)
        if describe is not None:
            self.found.passes += describe(layer, out, *args)
            return out
        name = func._schema.name.partition("::")[2]
        results = out if isinstance(out, (tuple, list)) else [out]
        computed = any(
            isinstance(t, Tensor) and t.is_floating_point() and not isinstance(t, LNSTensor) for t in results
        )
        if name in _FLOAT_PRODUCTS and _inner(name, args) != 1:  # an outer product is no sum of products
            self.found.float_products.append((layer, name, 1))
        elif computed and not _moves_only(func, name):
            self.found.float_operators[name] = self.found.float_operators.get(name, 0) + 1
        return out


def _inner(name: str, args) -> int | None:
    """K of a matrix product."""
    at = {"mm": 0, "bmm": 0, "mv": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}.get(name)
    return None if at is None else args[at].shape[-1]


_MOVES = {
    "clone",
    "copy_",
    "_to_copy",
    "detach",
    "cat",
    "stack",
    "empty",
    "empty_like",
    "new_empty",
    "zeros",
    "zeros_like",
    "ones",
    "ones_like",
    "full",
    "full_like",
    "arange",
    "index_select",
    "index",
    "constant_pad_nd",
    "_unsafe_view",
    "embedding",
    "repeat",
    "scalar_tensor",
    "fill_",
    "masked_fill",
    "where",
    "tril",
    "triu",
    "lift_fresh",
}


def _moves_only(func, name: str) -> bool:
    return name in _MOVES or func.is_view


def _passes(
    layer, kind, r: Recipe, names, shapes: dict[str, Shape], a: Tensor, b: Tensor, out: Tensor, useful: int
) -> list[Pass]:
    """Every pass reads two of the three operands as codes and makes a float32 result of the third's size."""
    tensors = {"a": (a, r.activation), "b": (b, r.quantizer("weight")), "out": (out, r.error)}
    parts = {"forward": ("a", "b", "out"), "input_gradient": ("out", "b", "a"), "weight_gradient": ("out", "a", "b")}
    rows = []
    for name in names:
        (x, qx), (y, qy), (result, _) = (tensors[part] for part in parts[name])
        size = _bytes(x, qx) + _bytes(y, qy) + 4 * result.numel()
        rows.append(Pass(layer, kind, name, (qx, qy), getattr(r, name), shapes[name], useful, size))
    return rows


def _bytes(x: Tensor, q: Quantizer | None) -> int:
    return x.numel() * (4 if q is None else q.dtype.itemsize)


def _wanted(a: Tensor, b: Tensor) -> list[str]:
    """Passes that training runs."""
    return ["forward", *["input_gradient"] * a.requires_grad, *["weight_gradient"] * b.requires_grad]


def _matmul_shapes(m: int, n: int, k: int, repeats: int = 1) -> dict[str, Shape]:
    """Of the passes of (M, K) x (K, N)."""
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
    return [Pass(layer, "embedding", "forward", (q,), None, None, 0, out.numel() * (q.dtype.itemsize + 4))]


_DESCRIPTIONS = {
    _ops.linear.default: _linear,
    _ops.product.default: _product,
    _ops.convolution.default: _convolution,
    _ops.embedding.default: _embedding,
}
