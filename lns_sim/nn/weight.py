"""LNSWeight: a parameter that exists only as update-format codes, and multiplies by its recipe."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lns_sim import contract
from lns_sim.checks import check_choice
from lns_sim.functional import quantize
from lns_sim.nn import functions
from lns_sim.nn.zeros import ZEROS, smallest_codes
from lns_sim.ops import convolution, embedding, linear
from lns_sim.ops.quantize import weight_operand
from lns_sim.random import STREAMS, random_state
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor, implements


class LNSWeight(LNSTensor):
    """A weight of a converted layer (spec section 5): codes of ``recipe.update``, one scale, and its recipe.

    ``F.linear``, ``matmul``, convolutions and ``F.embedding`` with an LNSWeight run on the recipe's datapaths, wherever
    they are called; gradients are plain float32 tensors. Everything else is as for :class:`lns_sim.LNSTensor`.

    Args:
        codes, scale: as for LNSTensor, in the format ``recipe.update``; the scale is 0-d.
        recipe: the layer's arithmetic.
        rng: int64 [seed, step, tensor id, first element] where a quantizer of the recipe is stochastic, else None. The
            optimizer advances the step.
    """

    @staticmethod
    def __new__(cls, codes, scale, recipe, rng=None):
        return LNSTensor.__new__(cls, codes, scale, recipe.update)

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, recipe: Recipe, rng: torch.Tensor | None = None):
        LNSTensor.__init__(self, codes, scale, recipe.update)
        self.recipe = recipe
        self.rng = rng

    @classmethod
    def from_float(cls, weight: torch.Tensor, recipe: Recipe, tensor_id: int = 0, zeros: str = "keep") -> LNSWeight:
        """The nearest update-format codes of a float32 weight.

        Args:
            weight: any shape.
            recipe: the layer's arithmetic.
            tensor_id: keeps weights' random streams apart.
            zeros: "keep", or "smallest": zeros become the smallest code, with signs drawn by ``recipe.seed``; a weight
                of nothing else gets the scale of one whose largest magnitude is 1.

        Raises:
            ValueError: the weight holds NaN or Inf, or zeros is neither.
        """
        check_choice("zeros", zeros, ZEROS)
        w = quantize(weight.detach(), recipe.update)
        if not weight.is_meta and bool(w.scale.isnan()):
            raise ValueError("a weight holds NaN or Inf and has no codes")
        if zeros == "smallest":
            w = smallest_codes(w, recipe.seed, len(STREAMS) * tensor_id)
        rng = None
        if recipe.stochastic:
            rng = random_state(recipe.seed, tensor_id=len(STREAMS) * tensor_id, device=weight.device)
        return cls(w.codes, w.scale, recipe, rng)

    def forward_codes(self) -> LNSTensor:
        """The codes that the products see, in ``recipe.weight``'s format (Q_W)."""
        operand = weight_operand(self, self.recipe)
        return LNSTensor(operand.codes, operand.scale, operand.format)

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
        # Backward passes that torch keeps hold encoded datapaths: those of other contracts must not be found.
        return f"{self.recipe.encode()} {self.rng is not None} {contract.VERSION} {contract.DATAPATH}"

    # ---- Sharded training (FSDP2): a rank holds some rows of codes; scale, recipe and random state are the same
    # everywhere.

    def fsdp_pre_all_gather(self, mesh, outer_size, outer_stride, module, mp_policy):
        """What FSDP2 gathers: this shard's codes, padded to the first one's rows, as a type that every backend
        moves.
        """
        rows = -(-outer_size[0] // mesh.size())
        codes = F.pad(self.codes, (*[0, 0] * (self.dim() - 1), 0, rows - self.codes.shape[0]))
        return (codes if codes.dtype == torch.uint8 else codes.view(torch.bfloat16),), None

    def fsdp_post_all_gather(self, gathered, metadata, param_dtype, *, out=None):
        """The whole weight of gathered codes; they come back in the same memory each time, so ``out`` has them
        already.
        """
        if out is not None:
            return None
        return LNSWeight(gathered[0].view(self.format.dtype), self.scale, self.recipe, self.rng), ()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = functions.simulated(None, func, args, kwargs or {})
        if out is not NotImplemented:
            return out
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


# The operators know an LNSWeight's codes.
@implements(torch.ops.lns_sim.linear.default)
def _(func, args, kwargs):
    return linear.linear_forward(*args, **kwargs)


@implements(torch.ops.lns_sim.convolution.default)
def _(func, args, kwargs):
    return convolution.convolution_forward(*args, **kwargs)


@implements(torch.ops.lns_sim.embedding.default)
def _(func, args, kwargs):
    weight, indices, *_, recipe = args
    return embedding.embedding_forward(weight, indices, recipe)


torch.serialization.add_safe_globals([LNSWeight])
