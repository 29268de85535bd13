"""Two dozen architectures that nobody here wrote: converted, on the datapath throughout, trained, copied and saved."""

import copy
import io
import warnings

import many
import pytest
import torch

import lns_sim
from lns_sim import LNSWeight

# Relative error of untrained logits, where it is more than of most. Swin v2 multiplies its cosines by ten and
# normalizes each branch to the size of the residual; 8-bit operands multiplied in float32 are off as far.
ERRORS = dict.fromkeys(("swin_v2", "detr", "mamba2"), 0.2)
# What stays in float32: sums of elementwise products, as gradients of what was broadcast.
GRADIENTS = {"mamba": {"mul and sum"}}
FALLS = {"segformer": 0.02}  # of float32's, with small weights behind batch norms at rest
BIASES = ("experts.gate_up_proj_bias", "experts.down_proj_bias")  # zeros, one for each expert


def train(model, inputs, optimizer, steps=10):
    """The losses before each step and after the last."""
    losses = []
    for _ in range(steps):
        loss = many.loss(many.logits(model(**inputs)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, many.loss(many.logits(model(**inputs))).item()]


def converted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", lns_sim.nn.ZeroWeightsWarning)
        return lns_sim.convert(model, "lns-madam")


@pytest.mark.parametrize("name", many.MAKERS)
def test_models_of_many_kinds(name):
    torch.manual_seed(0)
    plain, inputs = many.MAKERS[name]()
    plain.eval()
    model = converted(copy.deepcopy(plain))
    with torch.no_grad():
        expected, y = many.logits(plain(**inputs)), many.logits(model(**inputs))
    assert (y - expected).norm() < ERRORS.get(name, 0.15) * expected.norm()
    # Nothing multiplies outside the datapath.
    report = lns_sim.summary(model, **inputs)
    assert report.float_products == [] and {n for n, _ in report.float_gradients} == GRADIENTS.get(name, set())
    assert all(parameter.endswith(BIASES) for parameter, _ in report.float_parameters)
    # Copies and states hold every bit.
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = converted(many.MAKERS[name]()[0]).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert all(torch.equal(many.logits(m(**inputs)), y) for m in (fresh, copy.deepcopy(model)))
    # It learns what float32 learns.
    of_float = train(plain, inputs, torch.optim.AdamW(plain.parameters(), lr=3e-3))
    before = {n: p.codes.clone() for n, p in model.named_parameters() if isinstance(p, LNSWeight)}
    losses = train(model, inputs, lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16, float_lr=3e-3))
    assert of_float[-1] < of_float[0]
    assert losses[0] == pytest.approx(of_float[0], rel=0.15)
    assert losses[0] - losses[-1] > FALLS.get(name, 0.2) * (of_float[0] - of_float[-1])
    for n, p in plain.named_parameters():
        own = model.get_parameter(n)
        assert (p.grad is None) == (own.grad is None), n
        assert n not in before or own.grad is None or not own.grad.any() or not torch.equal(own.codes, before[n]), n


MIXTURES = ("mixtral", "qwen2_moe", "deepseek_v3", "gpt_oss")


@pytest.mark.parametrize("experts", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_multiply_alike_however_their_experts_run(name, experts):
    torch.manual_seed(0)
    plain, inputs = many.MAKERS[name]()
    plain.set_experts_implementation(experts)
    expected = many.logits(plain.eval()(**inputs))
    model = converted(plain)
    report = lns_sim.summary(model, **inputs)
    assert report.float_products == []
    assert (many.logits(model(**inputs)) - expected).norm() < 0.15 * expected.norm()
    if experts != "grouped_mm":
        plain.set_experts_implementation("grouped_mm")
        assert lns_sim.summary(model, **inputs).macs == report.macs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "segformer"])
def test_what_runs_otherwise_where_it_is_compiled_has_the_same_bits(name):
    torch.manual_seed(0)
    model, inputs = many.MAKERS[name]()
    model = converted(model).eval()
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager")(**inputs)
        assert torch.equal(many.logits(compiled), many.logits(model(**inputs)))


@pytest.mark.parametrize("name", ["opt", "mamba2", "whisper"])
def test_models_in_other_precisions_are_refused(name):
    with pytest.raises(TypeError, match="must be float32, got torch.bfloat16"):
        lns_sim.convert(many.MAKERS[name]()[0].bfloat16(), "lns-madam")


@pytest.mark.slow
def test_flex_attention_is_refused():
    model, inputs = many.opt()
    model.set_attn_implementation("flex_attention")
    # transformers compiles it, and the compiler has errors of its own around ours
    with torch.no_grad(), pytest.raises(Exception, match="flex_attention has no simulated form"):
        converted(model)(**inputs)


@pytest.mark.parametrize("name", ["t5", "qwen2", "deepseek_v3", "whisper", "mamba", "mamba2"])
def test_they_generate(name):
    torch.manual_seed(0)
    model, inputs = many.MAKERS[name]()
    model = converted(model).eval()
    inputs = {key: value for key, value in inputs.items() if key in ("input_ids", "input_features")}
    options = dict(max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    with lns_sim.count() as totals:
        tokens = model.generate(**inputs, **options)
    assert tokens.shape[1] >= 3 and totals["forward"].macs > 0
