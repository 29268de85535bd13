"""Bit-centered layers (HALP, arXiv 1803.03383, and its authors' HazyResearch/halp): forward and backward passes that
compute, in few bits, how far a network at ``w + z`` is from the one at ``w``.

Every layer splits its input into that of the network at w, ``xo``, and a difference ``xd``. A layer that multiplies by
``wo + z`` has the difference ``f(xd, wo) + f(xo + xd, z)``, any other ``f(xo + xd) - f(xo)``; errors ``go + gd`` pass
backward in the same way. z is on its optimizer's grid; all else that is multiplied are integers of so many bits at a
scale of each tensor's own, or sums of two. Differences shrink with z, and what rounding does to them with it, but where
the rounded xo leaves a ReLU or a maximum undecided. The network at w is computed anew for each batch, in float32 (the
authors' code calls this on-site compute; their low precision is float16).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lns_sim.quantizers.integer import nearest_values

# What has no parameters, and gives the same for the same input.
_PLAIN = (
    *(nn.ReLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
_MULTIPLYING = (nn.Linear, nn.Conv2d)

Parameters = dict[str, Tensor]  # of a layer, by name


class Offset(NamedTuple):
    """A parameter's center and how far it is from there."""

    w: Tensor
    z: Tensor


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a chain, in their order.

    Raises:
        ValueError: there is something else in it than Linear, Conv2d, and layers without parameters or random numbers.
    """
    if isinstance(model, nn.Sequential):
        return [layer for child in model for layer in layers_of(child)]
    if not isinstance(model, (*_PLAIN, *_MULTIPLYING)):
        names = ", ".join(kind.__name__ for kind in (*_MULTIPLYING, *_PLAIN))
        raise ValueError(f"bit-centered layers are those of an nn.Sequential of {names}, not {type(model).__name__}")
    return [model]


def gradient_difference(
    model: nn.Module, x: Tensor, criterion: Callable[[Tensor], Tensor], offsets: dict[Tensor, Offset], bits: int | None
) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """The loss at ``w + z``, and by parameter its gradient there less that at ``w``.

    Args:
        model: a chain, see :func:`layers_of`; the values of its parameters are not read.
        x: a batch of inputs, float32.
        criterion: from the last layer's output to a loss.
        offsets: of every parameter.
        bits: of the integers, 2 to 8; None: nothing is rounded.
    """

    def low(t: Tensor) -> Tensor:
        return t if bits is None else nearest_values(t, bits)

    layers = layers_of(model)
    own = [dict(layer.named_parameters()) for layer in layers]
    w = [{name: offsets[p].w for name, p in parameters.items()} for parameters in own]
    z = [{name: offsets[p].z for name, p in parameters.items()} for parameters in own]
    activations, errors = _at_center(layers, w, x, criterion)
    xo, go = [low(t) for t in activations], [low(t) for t in errors]
    w = [{name: low(t) for name, t in parameters.items()} for parameters in w]
    xd = [torch.zeros_like(x)]  # the difference of each layer's input, at last of the output
    for layer, wo, step, at in zip(layers, w, z, xo):
        if wo:
            moved = _run(layer, _without_bias(wo), xd[-1]) + _run(layer, step, at + xd[-1])
        else:
            moved = _run(layer, {}, at + xd[-1]) - _run(layer, {}, at)
        xd.append(low(moved))
    loss = criterion(xo[-1] + xd[-1])
    gd = low(_pull(criterion, xo[-1] + xd[-1]) - _pull(criterion, xo[-1]))
    found: dict[Tensor, Tensor] = {}
    for i in reversed(range(len(layers))):
        layer, wo, step, x_now = layers[i], w[i], z[i], xo[i] + xd[i]
        if not wo:
            run = partial(_run, layer, {})
            gd = low(_pull(run, x_now, go[i] + gd) - _pull(run, xo[i], go[i]))
            continue
        for name, p in own[i].items():
            part = _pull(_by(layer, step, name, x_now), step[name], gd)
            if name == "weight":
                part += _pull(_by(layer, step, name, xd[i]), step[name], go[i])
            found[p] = found[p] + part if p in found else part
        now = {name: wo[name] + step[name] for name in wo}
        gd = low(_pull(partial(_run, layer, now), x_now, gd) + _pull(partial(_run, layer, step), x_now, go[i]))
    return loss.detach(), found


def _at_center(layers, w: list[Parameters], x: Tensor, criterion) -> tuple[list[Tensor], list[Tensor]]:
    """Each layer's input and at last the output, and the gradient of each layer's output."""
    with torch.enable_grad():
        activations = [x.detach().requires_grad_()]
        for layer, parameters in zip(layers, w):
            activations.append(_run(layer, parameters, activations[-1]))
        errors = torch.autograd.grad(criterion(activations[-1]), activations[1:])
    return [t.detach() for t in activations], list(errors)


def _run(layer: nn.Module, parameters: Parameters, x: Tensor) -> Tensor:
    return functional_call(layer, parameters, (x,))


def _by(layer: nn.Module, parameters: Parameters, name: str, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A layer's output as a function of one of its parameters."""
    return lambda t: _run(layer, {**parameters, name: t}, x)


def _without_bias(parameters: Parameters) -> Parameters:
    return {name: t if name == "weight" else torch.zeros_like(t) for name, t in parameters.items()}


def _pull(f: Callable[[Tensor], Tensor], at: Tensor, error: Tensor | None = None) -> Tensor:
    """The gradient at a place, for an error of the result (a number's is 1)."""
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        return torch.autograd.grad(f(at), at, error)[0]
