"""Attention a block of queries at a time: the bits of whole matrices, which whoever counts gets, in less memory."""

import copy
import weakref
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from helpers import same_bits
from torch import nn
from torch.utils.checkpoint import checkpoint

import lns_sim
from lns_sim import Datapath, LNSFormat, LogDatapath, recipes
from lns_sim.ops import attention, attention_values
from lns_sim.quantizers import LNS

R = recipes.lns_madam()
FAKE = recipes.fake_quant(R)
FLUSHED = recipes.Recipe("flushed", LNS(underflow="flush"), LNSFormat(), LNS(underflow="flush"))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for name, value in (("QUERIES", 64), ("KEYS", 64), ("STEP", 8)):
        monkeypatch.setattr(attention, name, value)


def attend(recipe, q, k, v, whole, device="cpu", **options):
    """The result and the three gradients; counted, that is on whole matrices, or not."""
    q, k, v = (x.detach().to(device).requires_grad_() for x in (q, k, v))
    options = {key: x.to(device) if isinstance(x, torch.Tensor) else x for key, x in options.items()}
    with lns_sim.simulate(recipe), lns_sim.count() if whole else nullcontext():
        y = F.scaled_dot_product_attention(q, k, v, **options)
        torch.manual_seed(1)
        y.backward(torch.randn(y.shape).to(device) ** 3 * 1e-3)
    return [x.detach().cpu() for x in (y, q.grad, k.grad, v.grad)]


def operands(heads, key_heads, queries, keys, width=8):
    torch.manual_seed(0)
    shapes = (heads, queries, width), (key_heads, keys, width), (key_heads, keys, width - 2)
    return [torch.randn(2, *shape) * size for shape, size in zip(shapes, (3, 1, 1))]


def options_of(mask, queries, keys):
    added = 5 * torch.randn(queries, keys)
    added[3] = -torch.inf  # sees nothing
    return {
        "causal": dict(is_causal=True),
        "none": dict(scale=0.3),
        "boolean": dict(attn_mask=torch.rand(2, 1, queries, keys) > 0.8),  # some see nothing
        "added": dict(attn_mask=added),
    }[mask]


def same_but_for_the_order(found, expected):
    """Of float32 sums."""
    size = float(expected.nan_to_num().abs().max())
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-6 * size, equal_nan=True)


def same_in_blocks(recipe, queries, keys, mask, device):
    given = operands(4, 2, queries, keys)
    options = dict(options_of(mask, queries, keys), enable_gqa=True)
    blocks, whole = (attend(recipe, *given, counted, device, **options) for counted in (False, True))
    return all(map(same_bits, blocks, whole))


@pytest.mark.parametrize("queries, keys", [(40, 40), (32, 45), (50, 21)])
@pytest.mark.parametrize("mask", ["causal", "none", "boolean", "added"])
def test_blocks_have_the_bits_of_whole_matrices(queries, keys, mask, device):
    assert same_in_blocks(R, queries, keys, mask, device)


@pytest.mark.parametrize(
    "recipe",
    [
        FLUSHED,
        recipes.lns_madam(bits=10),
        recipes.lns_madam(datapath=Datapath(vector_size=7, acc_bits=12)),
        recipes.lns_madam(datapath=LogDatapath()),
        recipes.lns_madam(datapath=LogDatapath(order="tree", vector_size=12, acc_bits=12, underflow="saturate")),
    ],
    ids=["flushed", "10 bits", "vectors of 7", "log domain, sequential", "log domain, trees"],
)
@pytest.mark.parametrize("mask", ["causal", "boolean"])
def test_blocks_of_other_formats_and_datapaths(recipe, mask, device):
    assert same_in_blocks(recipe, 40, 40, mask, device)


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
@pytest.mark.parametrize(
    "recipe, same", [(R, same_bits), (FAKE, same_but_for_the_order)], ids=["bit-exact", "fake-quant"]
)
def test_zeros_and_numbers_that_are_none(value, recipe, same):
    q, k, v = operands(2, 2, 40, 40)
    for x in (q, v):
        x[0, 0, 17] = value
    if value == 0.0:
        q.zero_()
        v.zero_()
    blocks, whole = (attend(recipe, q, k, v, counted, is_causal=True) for counted in (False, True))
    for found, expected in zip(blocks, whole):
        assert same(found.detach(), expected.detach())


@pytest.mark.parametrize("recipe", [R, FAKE], ids=["bit-exact", "fake-quant"])
def test_a_score_that_is_no_number_leaves_no_block_its_numbers(recipe):
    q, k, v = operands(2, 2, 40, 40)
    for x in (q, k):
        x[0, 0, 35] = 1e30
    blocks, whole = (attend(recipe, q, k, v, counted, is_causal=True) for counted in (False, True))
    for found, expected in zip(blocks, whole):
        assert same_but_for_the_order(found, expected)
    assert recipe is R or blocks[0].isnan().all()


@pytest.mark.parametrize("queries, keys", [(40, 40), (32, 45), (50, 21)])
def test_fake_quantization_sums_in_another_order(queries, keys):
    q, k, v = operands(4, 2, queries, keys)
    blocks, whole = (attend(FAKE, q, k, v, counted, is_causal=True, enable_gqa=True) for counted in (False, True))
    assert all(map(same_but_for_the_order, blocks, whole))


@pytest.mark.parametrize("options", [dict(dropout_p=0.5), dict(attn_mask=torch.zeros(40, 40, requires_grad=True))])
def test_what_needs_whole_matrices_gets_them(options):
    q, k, v = operands(2, 2, 40, 40)
    torch.manual_seed(3)
    with lns_sim.simulate(R):
        found = F.scaled_dot_product_attention(q, k, v, **options)
        torch.manual_seed(3)
        scores = q @ k.mT * 8**-0.5 + options.get("attn_mask", 0.0)
        expected = F.dropout(torch.softmax(scores, -1), options.get("dropout_p", 0.0)) @ v
    assert same_bits(found.detach(), expected.detach())
    assert found.requires_grad == ("attn_mask" in options)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("q, k", [((4, 9, 8), (2, 9, 8)), ((4, 9, 0), (4, 9, 0))])
def test_shapes_that_torch_refuses_are_refused(q, k, whole):
    """Heads are shared by enable_gqa only."""
    q, k = torch.randn(q), torch.randn(k)
    with pytest.raises(ValueError, match="do not broadcast.*enable_gqa|not empty"):
        attend(R, q, k, k, whole)


@pytest.mark.parametrize("heads, key_heads", [(1, 4), (4, 1)])
def test_heads_broadcast_as_torchs(heads, key_heads):
    q, k, v = operands(heads, key_heads, 20, 20)
    y = attend(R, q, k, v, False, is_causal=True)[0]
    wide = [x.expand(2, 4, *x.shape[2:]) for x in (q, k, v)]
    assert same_bits(y, attend(R, *wide, True, is_causal=True)[0])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(8, 24)
        self.recompute = False

    def attend(self, x):
        q, k, v = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def forward(self, x):
        return checkpoint(self.attend, x, use_reentrant=False) if self.recompute else self.attend(x)


def gradients(model, x):
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    found = [x.grad, *(p.grad for p in model.parameters())]
    model.zero_grad()
    return found


@pytest.mark.parametrize("stochastic", [False, True])
def test_recomputed_and_compiled_attention_has_the_same_bits(stochastic):
    torch._dynamo.reset()
    model = lns_sim.convert(Attention(), recipes.lns_madam(stochastic_gradients=stochastic))
    x = torch.randn(2, 40, 8)
    expected = gradients(model, x)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    model.recompute = True
    for other in (model, compiled):
        assert all(map(same_bits, gradients(other, x), expected))


def test_counters_are_of_all_products_whenever_they_are_asked_for():
    q, k, v = (x.requires_grad_() for x in operands(2, 2, 40, 40))
    with lns_sim.simulate(R):
        with lns_sim.count() as of_both:
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        with lns_sim.count() as of_backward:
            y.sum().backward()
    assert set(of_backward) == {"input_gradient", "weight_gradient"}
    assert of_both == {**of_backward, "forward": of_both["forward"]}
    assert of_both["forward"].macs == 2 * 2 * 40 * 40 * (8 + 6)


def test_nothing_of_both_lengths_is_kept_in_float32():
    q, k, v = (x.requires_grad_() for x in operands(4, 4, 256, 256))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x), lns_sim.simulate(R):
        F.scaled_dot_product_attention(q, k, v, is_causal=True)
    codes = sum(x.numel() for x in (q, k, v))
    assert sum(x.numel() * x.element_size() for x in kept) < codes + 64  # and scales


def test_fake_quantization_holds_the_probabilities_of_one_block(monkeypatch):
    found, become = [], attention_values.causal_softmax.become_probabilities

    def watched(products, *rest):
        assert not any(known() is not None for known in found)
        found.append(weakref.ref(products))
        become(products, *rest)

    monkeypatch.setattr(attention_values.causal_softmax, "become_probabilities", watched)
    attend(FAKE, *operands(2, 2, 40, 40), False, is_causal=True)
    assert len(found) > 1
