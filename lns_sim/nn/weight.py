"""LNSWeight: a parameter that exists only as update-format codes, and multiplies by its recipe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from lns_sim import contract
from lns_sim._compile import never_alone
from lns_sim.checks import check_choice
from lns_sim.functional import quantize
from lns_sim.nn import functions
from lns_sim.nn.zeros import ZEROS, smallest_codes
from lns_sim.ops import convolution, embedding, grouped, linear
from lns_sim.ops.float_products import is_foreign
from lns_sim.ops.quantize import weight_operand
from lns_sim.random import STREAMS, random_state
from lns_sim.recipes import Recipe
from lns_sim.tensor import LNSTensor, decode, implements

aten = torch.ops.aten


class LNSWeight(LNSTensor):
    """A weight of a converted layer (spec section 5): codes of ``recipe.update``, one scale, and its recipe.

    ``F.linear``, ``matmul``, convolutions and ``F.embedding`` with an LNSWeight, or with a view or choice of its codes,
    run on the recipe's datapaths, wherever they are called; gradients are plain float32 tensors. All else that is
    computed from it takes its float32 values, whose gradient is the weight's; what writes to it is quantized to codes.

    Args:
        codes, scale: as for LNSTensor, in the format ``recipe.update``; the scale is 0-d. An LNSWeight alone, as
            nn.Parameter takes a tensor, stands for its codes and all else.
        recipe: the layer's arithmetic.
        rng: int64 [seed, step, tensor id, first element] where a quantizer of the recipe is stochastic, else None. The
            optimizer advances the step.
        requires_grad: as of nn.Parameter.
    """

    finite = True

    @staticmethod
    def __new__(cls, codes, scale=None, recipe=None, rng=None, *, requires_grad=False):
        if scale is None and not isinstance(codes, LNSWeight):
            raise TypeError(
                "an LNSWeight is made of codes; load_state_dict makes them of float32 values, as lns_sim.convert does"
            )
        return LNSTensor.__new__(cls, *((codes.codes, codes.scale) if scale is None else (codes, scale)), None)

    def __init__(
        self,
        codes: torch.Tensor,
        scale: torch.Tensor | None = None,
        recipe: Recipe | None = None,
        rng: torch.Tensor | None = None,
        *,
        requires_grad: bool = False,
    ):
        if isinstance(codes, LNSWeight):
            codes, scale, recipe, rng = codes.codes, codes.scale, codes.recipe, codes.rng
        LNSTensor.__init__(self, codes, scale, recipe.update)
        self.recipe, self.recipe_text = recipe, recipe.encode()
        self.rng = rng
        self.requires_grad_(requires_grad)

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
            device = None if weight.is_meta else weight.device  # random states have numbers even there
            rng = random_state(recipe.seed, tensor_id=len(STREAMS) * tensor_id, device=device)
        return cls(w.codes, w.scale, recipe, rng)

    def forward_codes(self) -> LNSTensor:
        """The codes that the products see, in ``recipe.weight``'s format (Q_W), shaped like the weight, with one scale.

        Raises:
            ValueError: the recipe has block scales, along each pass' own dimension.
        """
        if self.recipe.block is not None:
            raise ValueError("with block scales a weight has codes for each pass: there are no forward codes of all")
        operand = weight_operand(self, self.recipe)
        return LNSTensor(operand.codes, operand.scale, operand.format)

    def with_inner(self, codes, scale):
        return LNSWeight(codes, scale, self.recipe, self.rng)

    def map_inner(self, function, on_codes=None):
        rng = None if self.rng is None else function(self.rng)
        if rng is not None and rng.is_meta:
            rng = self.rng
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

        Raises:
            TypeError: for mixed precision.
        """
        if mp_policy.param_dtype not in (None, torch.float32):
            raise TypeError(
                f"a weight's codes have no {mp_policy.param_dtype} form, which FSDP2's mp_policy asks for; leave its "
                "param_dtype None"
            )
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

    @classmethod
    def leave(cls, func, args, kwargs):
        """An operator that codes do not know, on their values; what it writes becomes codes again.

        Raises:
            NotImplementedError: it multiplies matrices, which must not happen in float32 unnoticed, or may, being
                another library's; or it sends tensors to other ranks.
        """
        if func in _PRODUCTS or func.namespace in ("c10d", "_c10d_functional") or is_foreign(func):
            raise NotImplementedError(
                f"{func} has no form on codes: docs/recipes.md says what multiplies, and ranks train by "
                "DDP or FSDP2; call .dequantize() for float32 values"
            )
        values = {}  # of each tensor once, by its id: one that is written to may be read as well

        def value(x):
            if id(x) not in values:
                values[id(x)] = decode(x)
            return values[id(x)]

        given = tree_map_only(LNSTensor, value, (args, kwargs))
        out = func(*given[0], **given[1])
        weights = {id(values[id(x)]): x for x in tree_leaves((args, kwargs)) if id(x) in values}
        if func._schema.is_mutable:
            named = {a.name: x for a, x in zip(func._schema.arguments, args)} | kwargs
            written = [named[a.name] for a in func._schema.arguments if a.is_write and a.name in named]
            for x in filter(lambda x: id(x) in values, tree_leaves(written)):
                x.copy_(values[id(x)])
        return tree_map(lambda x: weights.get(id(x), x), out)


never_alone(LNSWeight.__torch_function__.__func__)  # as simulate's

# What multiplies matrices; torch.matmul and its like (lns_sim/nn/functions.py) never come to these with a weight.
_PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.mv.default,
    aten.addmv.default,
    aten.dot.default,
    aten.vdot.default,
    aten.convolution.default,
    aten.embedding.default,
    aten._trilinear.default,
}


# The operators know an LNSWeight's codes.
@implements(torch.ops.lns_sim.linear.default)
def _(func, args, kwargs):
    return linear.linear_forward(*args, **kwargs)


@implements(torch.ops.lns_sim.convolution.default)
def _(func, args, kwargs):
    return convolution.convolution_forward(*args, **kwargs)


@implements(torch.ops.lns_sim.grouped_product.default)
def _(func, args, kwargs):
    return grouped.grouped_forward(*args, **kwargs)


@implements(torch.ops.lns_sim.embedding.default)
def _(func, args, kwargs):
    return embedding.embedding_forward(*args, **kwargs)


torch.serialization.add_safe_globals([LNSWeight])
