"""Whole models, ours and transformers': converted, run, trained a step, compiled, and used as models are used."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from tools import require_module
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import lns_sim
from lns_sim import LNSWeight, recipes

transformers = require_module("transformers")

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])


def bert():
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **SMALL)
    mask = torch.ones_like(IDS)
    mask[1, 4:] = 0
    return transformers.BertModel(config), dict(input_ids=IDS, attention_mask=mask)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config), dict(input_ids=IDS)


def llama():
    config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, max_position_embeddings=16, **SMALL)
    return transformers.LlamaForCausalLM(config), dict(input_ids=IDS)


def vit():
    config = transformers.ViTConfig(image_size=16, patch_size=4, **SMALL)
    torch.manual_seed(1)
    return transformers.ViTForImageClassification(config), dict(pixel_values=torch.randn(2, 3, 16, 16))


ATTENTION_MACS = {
    "bert": 2 * 2 * 2 * 7 * 7 * 32,
    "gpt2": 2 * 2 * 2 * 7 * 7 * 32,
    "llama": 2 * 2 * 2 * 7 * 7 * 32,
    "vit": 2 * 2 * 2 * 17 * 17 * 32,
}


@pytest.mark.parametrize("make", [bert, gpt2, llama, vit], ids=lambda f: f.__name__)
def test_models_that_nobody_here_wrote(make, device):
    torch.manual_seed(0)
    plain, inputs = make()
    plain, inputs = plain.to(device).eval(), {k: v.to(device) for k, v in inputs.items()}
    model = lns_sim.convert(copy.deepcopy(plain), "lns-madam")
    # Weights: all matrices are codes, next to what they were; everything else is untouched.
    for (name, old), (_, new) in zip(plain.named_parameters(), model.named_parameters()):
        if isinstance(new, LNSWeight):
            assert ((new.dequantize() - old).abs() <= old.abs() * 2e-4 + 2e-4 * old.abs().max()).all(), name
        else:
            assert torch.equal(old, new) and (old.dim() < 2 or name.endswith(("cls_token", "position_embeddings"))), (
                name
            )
    expected = plain(**inputs)[0]
    with lns_sim.count() as totals:
        outputs = model(**inputs)
        sum(t.square().mean() for t in outputs.values() if isinstance(t, torch.Tensor)).backward()
    assert (outputs[0] - expected).norm() < 0.25 * expected.norm()  # untrained logits nearly cancel
    # Nothing multiplies outside the datapath, and the report knows all that the datapath did.
    report = lns_sim.summary(model, **inputs)
    assert report.float_products == [] and "_softmax" in report.float_operators
    assert report.macs == {name: c.macs for name, c in totals.items()}
    assert (
        sum(p.macs for p in report.passes if p.kind == "product" and p.name == "forward")
        == ATTENTION_MACS[make.__name__]
    )
    before = [p.codes.clone() for p in model.parameters() if isinstance(p, LNSWeight) and p.grad is not None]
    lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16).step()
    after = [p.codes for p in model.parameters() if isinstance(p, LNSWeight) and p.grad is not None]
    assert len(after) >= 10 and all(not torch.equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize("make", [bert, gpt2, llama, vit], ids=lambda f: f.__name__)
@pytest.mark.slow
def test_they_compile_whole(make):
    torch.manual_seed(0)
    model, inputs = make()
    model = lns_sim.convert(model, "lns-madam").eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**inputs)[0], model(**inputs)[0])


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return x + self.out(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)[:, 0])


class Decoder(nn.Module):
    """Tied embeddings, attention, and activations recomputed on demand."""

    def __init__(self, recompute=False):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(11, 8), nn.ModuleList([Block(8), Block(8)])
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.recompute = recompute

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        return self.head(x)


@pytest.fixture(params=[False, True], ids=["nearest", "stochastic"])
def decoder(request):
    torch.manual_seed(0)
    return lns_sim.convert(Decoder(), recipes.lns_madam(stochastic_gradients=request.param, seed=3))


TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])


def loss(model, ids=TOKENS):
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def test_recomputed_activations_give_the_same_bits(decoder):
    other = copy.deepcopy(decoder)
    other.recompute = True
    for model in (decoder, other):
        loss(model).backward()
    assert all(torch.equal(*pair) for pair in zip(gradients(decoder), gradients(other)))


def test_accumulated_and_clipped_gradients(decoder):
    loss(decoder).backward()
    once = gradients(decoder)
    loss(decoder).backward()
    assert all(torch.equal(2 * a, b) for a, b in zip(once, gradients(decoder)))
    norm = nn.utils.clip_grad_norm_(decoder.parameters(), 1e-3)
    assert norm > 1e-3 and torch.stack([g.norm() for g in gradients(decoder)]).norm() <= 1.001e-3


def test_functional_call_and_autocast(decoder):
    expected = decoder(TOKENS)
    other = {n: p.detach().clone() for n, p in decoder.named_parameters()}
    assert torch.equal(torch.func.functional_call(decoder, other, (TOKENS,)), expected)
    other["embed.weight"] = copy.deepcopy(other["embed.weight"])
    other["embed.weight"].codes[:] = 5
    assert not torch.equal(torch.func.functional_call(decoder, other, (TOKENS,)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decoder(TOKENS), expected)  # what is simulated is not narrowed
        narrow = torch.randn(2, 8, dtype=torch.bfloat16)
        assert torch.equal(decoder.blocks[0].out(narrow), decoder.blocks[0].out(narrow.float()))


def test_copies_pickles_and_states(decoder):
    expected = decoder(TOKENS)
    file = io.BytesIO()
    torch.save(decoder.state_dict(), file)
    file.seek(0)
    fresh = lns_sim.convert(Decoder(), decoder.embed.weight.recipe)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (fresh, copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        assert torch.equal(other(TOKENS), expected) and other.head.weight is other.embed.weight


def test_running_averages_are_float32(decoder):
    averaged = AveragedModel(lns_sim.nn.to_float(decoder), multi_avg_fn=get_ema_multi_avg_fn(0.5))
    assert averaged.module.head.weight is averaged.module.embed.weight
    averaged.update_parameters(lns_sim.nn.to_float(decoder))
    first = decoder.head.weight.dequantize()
    optimizer = lns_sim.optim.LNSMadam(decoder.parameters(), lr=1 / 4)
    loss(decoder).backward()
    optimizer.step()
    averaged.update_parameters(lns_sim.nn.to_float(decoder))
    assert torch.allclose(averaged.module.head.weight, (first + decoder.head.weight.dequantize()) / 2)
    with lns_sim.count() as totals:
        averaged.module(TOKENS)
    assert totals == {}  # plain float32


def test_a_failing_forward_leaves_no_simulation_behind(decoder):
    with pytest.raises(IndexError):
        decoder(torch.tensor([[11]]))
    a = torch.randn(4, 4)
    with lns_sim.count() as totals:
        a @ a
    assert totals == {}


def test_overrides_follow_names():
    attention, first = recipes.lns_madam(stochastic_gradients=True), recipes.lns_madam(bits=6, gamma=4)
    plan = recipes.ModelRecipe(
        recipes.lns_madam(), (("embed", None), ("head", None), ("blocks.*", attention), ("blocks.0", first))
    )
    model = lns_sim.convert(Decoder(), plan)
    kinds = {n: getattr(p, "recipe", None) for n, p in model.named_parameters() if p.dim() > 1}
    assert kinds == {
        "embed.weight": None,
        "blocks.0.qkv.weight": attention,
        "blocks.0.out.weight": attention,
        "blocks.1.qkv.weight": attention,
        "blocks.1.out.weight": attention,
    }
    products = {p.layer: p.operands[0] for p in lns_sim.summary(model, TOKENS).passes if p.kind == "product"}
    assert products == {"blocks.0": first.activation.format, "blocks.1": attention.activation.format}
    assert [(layer, n) for layer, _, n in lns_sim.summary(model, TOKENS).float_products] == [("head", 1)]
    with pytest.raises(ValueError, match="head and embed share a weight"):
        lns_sim.convert(Decoder(), "lns-madam", skip="head")


def test_the_summary_of_a_model_that_is_not_converted():
    report = lns_sim.summary(Decoder(), TOKENS)
    assert report.passes == [] and {layer for layer, *_ in report.float_products} >= {
        "blocks.0.qkv",
        "blocks.1.out",
        "head",
    }
    assert "products left in float32: " in str(report) and report.weight_bytes == 4 * sum(
        p.numel() for p in Decoder().parameters()
    )
