"""What a converted model computes on the datapath, layer by layer and pass by pass, and what it leaves in float32."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lns_sim.checks import check_module
from lns_sim.format import LNSFormat
from lns_sim.quantizers import Quantizer
from lns_sim.tensor import LNSTensor
from lns_sim.watching.layers import running_layers
from lns_sim.watching.listener import Listener
from lns_sim.watching.passes import Pass


@dataclass
class Summary:
    """What :func:`summary` found.

    Attributes:
        passes: in the order of the forward pass.
        float_products: (layer, operator, how often) of matrix products, convolutions and other sums of products left in
            float32 in the forward pass.
        float_gradients: (operator, how often) of those in the backward pass.
        float_operators: how often each other operator of torch ran in float32 in the forward pass.
        float_parameters: (name, shape) of parameters of two or more dimensions that stay in float32.
        weight_bytes: of all parameters as they are stored.
    """

    passes: list[Pass] = field(default_factory=list)
    float_products: list[tuple[str, str, int]] = field(default_factory=list)
    float_gradients: list[tuple[str, int]] = field(default_factory=list)
    float_operators: dict[str, int] = field(default_factory=dict)
    float_parameters: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    weight_bytes: int = 0

    @property
    def macs(self) -> dict[str, int]:
        """Products of numbers by pass."""
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
        if self.float_gradients:
            gradients = ", ".join(f"{name} x {n}" for name, n in self.float_gradients)
            lines.append(f"products of gradients left in float32: {gradients}")
        if self.float_parameters:
            parameters = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in self.float_parameters)
            lines.append(f"parameters left in float32: {parameters}")
        others = ", ".join(f"{name} x {n}" for name, n in sorted(self.float_operators.items()))
        return "\n".join([*lines, f"other work in float32: {others or 'none'}"])


def _cells(p: Pass) -> tuple[str, ...]:
    operands = " x ".join(_label(q) for q in p.operands)
    return p.layer or "(model)", p.kind, p.name.replace("_", " "), operands, _datapath(p), f"{p.macs:,}", f"{p.bytes:,}"


def _label(f: LNSFormat | Quantizer | None) -> str:
    if isinstance(f, LNSFormat):
        return f"{f.bits}-bit gamma {f.gamma}"
    return "float32" if f is None else f"{f.bits}-bit {type(f).__name__}"


def _datapath(p: Pass) -> str:
    if p.kind == "embedding":
        return "look-up"
    return "float32" if p.datapath is None else p.datapath.label


def summary(model: nn.Module, *args, **kwargs) -> Summary:
    """Runs a model's forward and backward once and reports every product: ``print(lns_sim.summary(model, x))``.

    Simulated gradient passes are worked out from the forward pass: every pass that a backward from all outputs would
    run. The backward pass is run for what it leaves in float32; gradients stay as they were.

    Args:
        model: converted, or not (then all products stand under ``float_products``).
        args, kwargs: what its forward takes; tensors that require a gradient are counted as such.

    Returns:
        A :class:`Summary`; printing it gives a table.

    Raises:
        TypeError: model is no module.
    """
    check_module(model)
    with running_layers(model) as running, torch.enable_grad():
        with Listener(running) as forward:
            out = model(*args, **kwargs)
        gradients = _backward(model, out)
    found = Summary(forward.passes)
    found.float_products = [(*key, n) for key, n in Counter(forward.float_products).items()]
    found.float_gradients = list(Counter(name for _, name in gradients).items())
    found.float_operators = dict(Counter(forward.float_operators))
    for name, p in model.named_parameters():
        if isinstance(p, LNSTensor):
            found.weight_bytes += p.codes.nbytes + p.scale.nbytes
            continue
        found.weight_bytes += p.nbytes
        if p.dim() > 1:
            found.float_parameters.append((name, tuple(p.shape)))
    return found


def _backward(model: nn.Module, out) -> list[tuple[str, str]]:
    """Products that the backward pass of a model's outputs leaves in float32."""
    roots = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.requires_grad]
    if not roots:
        return []
    kept = {p: p.grad for p in model.parameters()}
    with Listener([]) as listener:
        torch.autograd.backward(roots, [torch.ones_like(t) for t in roots])
    for p, grad in kept.items():
        p.grad = grad
    return listener.float_products
