"""Two dozen architectures that nobody here wrote: converted, on the datapath throughout, trained, copied and saved."""

import copy

import many
import pytest
import torch
from trials import check_compiled, check_copies, check_numbers, check_summary, check_training, converted, logits

import lns_sim

# Relative error of untrained logits, where it is more than of most. Swin v2 multiplies its cosines by ten and
# normalizes each branch to the size of the residual; 8-bit operands multiplied in float32 are off as far.
ERRORS = dict.fromkeys(("swin_v2", "detr", "mamba2"), 0.2)
# What stays in float32: sums of elementwise products, as gradients of what was broadcast.
GRADIENTS = {"mamba": {"mul and sum"}}
FALLS = {"segformer": 0.02}  # of float32's, with small weights behind batch norms at rest
BIASES = ("experts.gate_up_proj_bias", "experts.down_proj_bias")  # zeros, one for each expert


@pytest.mark.parametrize("name", many.MAKERS)
def test_models_of_many_kinds(name):
    torch.manual_seed(0)
    plain, inputs = many.MAKERS[name]()
    plain.eval()
    model = converted(copy.deepcopy(plain))
    check_numbers(plain, model, inputs, ERRORS.get(name, 0.15))
    report = check_summary(model, inputs, GRADIENTS.get(name, set()))
    assert all(parameter.endswith(BIASES) for parameter, _ in report.float_parameters)
    check_copies(lambda: many.MAKERS[name]()[0], model, inputs)
    check_training(plain, model, inputs, falls=FALLS.get(name, 0.2))


@pytest.mark.slow
@pytest.mark.parametrize("name", many.MAKERS)
def test_models_of_many_kinds_compile(name):
    torch.manual_seed(0)
    plain, inputs = many.MAKERS[name]()
    plain.eval()
    check_compiled(plain, converted(copy.deepcopy(plain)), inputs)


MIXTURES = ("mixtral", "qwen2_moe", "deepseek_v3", "gpt_oss")


@pytest.mark.parametrize("experts", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_multiply_alike_however_their_experts_run(name, experts):
    torch.manual_seed(0)
    plain, inputs = many.MAKERS[name]()
    plain.set_experts_implementation(experts)
    expected = logits(plain.eval()(**inputs))
    model = converted(plain)
    report = lns_sim.summary(model, **inputs)
    assert report.float_products == []
    assert (logits(model(**inputs)) - expected).norm() < 0.15 * expected.norm()
    if experts != "grouped_mm":
        plain.set_experts_implementation("grouped_mm")
        assert lns_sim.summary(model, **inputs).macs == report.macs


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
