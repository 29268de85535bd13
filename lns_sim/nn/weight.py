"""LNSWeight: a parameter that exists only as update-format codes, and multiplies by its recipe."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lns_sim.functional import conv_geometry, quantize
from lns_sim.ops import layers
from lns_sim.policies import random_state
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor, implements


class LNSWeight(LNSTensor):
    """A weight of a converted layer (spec section 5): codes of ``recipe.update``, one scale, and its recipe.

    ``F.linear``, ``F.conv1d`` and ``F.conv2d`` with an LNSWeight run on the recipe's datapaths, wherever they are
    called; gradients are plain float32 tensors. Everything else is as for :class:`lns_sim.LNSTensor`.

    Args:
        codes, scale: as for LNSTensor, in the format ``recipe.update``; the scale is 0-d.
        recipe: the layer's arithmetic.
        rng: int64 [seed, step, tensor id] where a quantizer of the recipe is stochastic, else None. The optimizer
            advances the step.
    """

    @staticmethod
    def __new__(cls, codes, scale, recipe, rng=None):
        return LNSTensor.__new__(cls, codes, scale, recipe.update)

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, recipe: Recipe, rng: torch.Tensor | None = None):
        LNSTensor.__init__(self, codes, scale, recipe.update)
        self.recipe = recipe
        self.rng = rng

    @classmethod
    def from_float(cls, weight: torch.Tensor, recipe: Recipe, tensor_id: int = 0) -> LNSWeight:
        """The nearest update-format codes of a float32 weight. ``tensor_id`` keeps weights' random streams apart.

        Raises:
            ValueError: the weight holds NaN or Inf.
        """
        w = quantize(weight.detach(), recipe.update)
        if bool(w.scale.isnan()):
            raise ValueError("a weight holds NaN or Inf and has no codes")
        rng = None
        if recipe.stochastic:
            rng = random_state(recipe.seed, tensor_id=len(layers.STREAMS) * tensor_id, device=weight.device)
        return cls(w.codes, w.scale, recipe, rng)

    def forward_codes(self) -> LNSTensor:
        """The codes that the products see, in ``recipe.weight``'s format (Q_W)."""
        return LNSTensor(*layers.forward_codes(self.codes, self.scale, self.recipe), self.recipe.weight)

    def with_inner(self, codes, scale):
        return LNSWeight(codes, scale, self.recipe, self.rng)

    def map_inner(self, function, on_codes=None):
        rng = None if self.rng is None else function(self.rng)
        return LNSWeight((on_codes or function)(self.codes), function(self.scale), self.recipe, rng)

    def __tensor_flatten__(self):
        inner = ["codes", "scale"] + (["rng"] if self.rng is not None else [])
        return inner, (self.recipe,)

    @classmethod
    def __tensor_unflatten__(cls, inner, context, outer_size, outer_stride):
        return cls(inner["codes"], inner["scale"], *context, inner.get("rng"))

    def _stable_hash_for_caching(self) -> str:
        return f"{self.recipe.encode()} {self.rng is not None}"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        product = _PRODUCTS.get(func)
        if product is not None:
            return product(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def _check(x: torch.Tensor, weight: torch.Tensor) -> None:
    if not isinstance(weight, LNSWeight):
        raise TypeError("an LNSWeight can only be the weight of F.linear or a convolution, not its input")
    if x.dtype != torch.float32:
        raise TypeError(f"the input of a converted layer must be float32, got {x.dtype}")


def _linear(input, weight, bias=None):
    _check(input, weight)
    if input.shape[-1] != weight.shape[1]:
        raise ValueError(f"the input's last dimension must be {weight.shape[1]}, got shape {tuple(input.shape)}")
    with torch._C.DisableTorchFunctionSubclass():
        y = torch.ops.lns_sim.linear(input, weight, weight.rng, weight.recipe.encode())[0]
    return y if bias is None else y + bias


def _same_padding(weight, dilation) -> list[int]:
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
    if any(t % 2 for t in total):
        raise ValueError("padding='same' needs an odd dilated kernel size here; pad the input explicitly")
    return [t // 2 for t in total]


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    _check(input, weight)
    x = input if input.dim() == 4 else input.unsqueeze(0)
    if isinstance(padding, str):
        d = dilation if isinstance(dilation, (tuple, list)) else (dilation, dilation)
        padding = 0 if padding == "valid" else _same_padding(weight, d)
    stride, padding, dilation = conv_geometry(x.shape, weight.shape, stride, padding, dilation, groups)
    with torch._C.DisableTorchFunctionSubclass():
        y = torch.ops.lns_sim.conv2d_layer(
            x, weight, weight.rng, stride, padding, dilation, groups, weight.recipe.encode()
        )[0]
    y = y if bias is None else y + bias.view(-1, 1, 1)
    return y if input.dim() == 4 else y.squeeze(0)


def _single(value):
    return value[0] if isinstance(value, (tuple, list)) else value


def _conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    _check(input, weight)
    padding = padding if isinstance(padding, str) else (0, _single(padding))
    y = _conv2d(
        input.unsqueeze(-2), weight.unsqueeze(2), bias, (1, _single(stride)), padding, (1, _single(dilation)), groups
    )
    return y.squeeze(-2)


_PRODUCTS = {F.linear: _linear, F.conv2d: _conv2d, torch.conv2d: _conv2d, F.conv1d: _conv1d, torch.conv1d: _conv1d}


@implements(torch.ops.lns_sim.linear.default)
def _(func, args, kwargs):
    x, weight, rng, recipe = args
    r = Recipe.decode(recipe)
    return layers.linear_forward(x, *layers.forward_codes(weight.codes, weight.scale, r), rng, r)


@implements(torch.ops.lns_sim.conv2d_layer.default)
def _(func, args, kwargs):
    x, weight, rng, stride, padding, dilation, groups, recipe = args
    r = Recipe.decode(recipe)
    codes = layers.forward_codes(weight.codes, weight.scale, r)
    return layers.conv2d_forward(x, *codes, rng, stride, padding, dilation, groups, r)


torch.serialization.add_safe_globals([LNSWeight])
