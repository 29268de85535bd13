"""The systems that LNS-Madam is compared with: their quantizers, optimizers and layers, and each paper's headline."""

import copy
import json
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import everywhere, same
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

import lns_sim
from benchmarks.papers import headlines
from lns_sim import LNSFormat, recipes, reference
from lns_sim.command.app import app
from lns_sim.nn.l1norm import C, L1BatchNorm, L1LayerNorm, replace_norms
from lns_sim.optim.halp import HALP, Diverged, grid, least_squares_in_integers, on_grid
from lns_sim.optim.madam import IntegerMadam, Madam, PublishedLNSMadam
from lns_sim.quantizers.fp8 import FP8, widen
from lns_sim.quantizers.integer import Integer
from lns_sim.quantizers.luq import LUQ, SAWB, logarithmic, maximum_in_hindsight
from lns_sim.quantizers.shiftquant import ShiftQuant, optimal_grouping
from lns_sim.random import random_state
from lns_sim.recipes import files as recipe_files
from lns_sim.registry import QUANTIZERS, RECIPES
from lns_sim.studies import models
from lns_sim.studies.contest import Contest, bits_of, format_of
from lns_sim.studies.training import data
from lns_sim.studies.training.trainer import Settings, Trainer

EXAMPLES = [
    FP8(),
    FP8("e5m2"),
    Integer(),
    Integer(4, "stochastic"),
    SAWB(),
    LUQ(),
    LUQ(6, below="flush"),
    LUQ(3, above="nearest"),
    ShiftQuant(),
    ShiftQuant(6, 2),
]


SYSTEMS = [name for name in RECIPES if name not in ("fp32", "lns-madam", "lns-madam-fake-quant")]


def quantized(q, x, seed=0, dim=-1):
    return everywhere(q.quantize, x, random_state(seed) if q.stochastic else None, dim)


# ---- Random numbers and quantizers


def test_uniform_numbers_are_the_specifications():
    state = torch.tensor([7, 3, 5, 100])
    u = everywhere(torch.ops.lns_sim.uniform, torch.empty(3, 700), state)
    words = [reference.philox(7, 3, 5, 100 + i) >> 8 for i in range(2100)]
    assert u.flatten().tolist() == [w * 2.0**-24 for w in words]


@pytest.mark.parametrize("q", EXAMPLES, ids=repr)
def test_codes_times_scale_are_near_the_values(q):
    torch.manual_seed(0)
    x = torch.randn(40, 30)
    codes, scale = quantized(q, x)
    assert codes.dtype == q.dtype and codes.shape == x.shape and scale.dim() == 0 and 2 <= q.bits <= 8
    assert codes.dtype != torch.float32 or scale == 1
    value = codes.float() * scale
    assert (value - x).norm() < 0.6 * x.norm() and value.abs().max() <= 1.01 * x.abs().max()
    again, _ = quantized(q, x)
    assert torch.equal(codes.float(), again.float()) and (
        not q.stochastic or (quantized(q, x, seed=1)[0].float() != codes.float()).any()
    )
    zero, one = quantized(q, torch.zeros(3, 4))
    assert not zero.float().any() and one.isfinite()
    for bad in (math.nan, math.inf):
        spoilt, scale = quantized(q, torch.tensor([[1.0, bad, 2.0]]))
        assert not (spoilt.float() * scale).isfinite().all()
    assert type(q) is QUANTIZERS[type(q).__name__]


def test_fp8_is_torchs_own():
    x = torch.randn(1000)
    codes, scale = FP8().quantize(x, None, -1)
    assert codes.float().abs().max() == 448 and scale == x.abs().max() / 448
    assert torch.equal(codes.float(), (x / scale).to(torch.float8_e4m3fn).float())
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        every = torch.arange(256, dtype=torch.uint8).view(dtype)
        every = every[every.float().isfinite()]
        assert len(every) >= 248 and same(everywhere(widen, every), every.float())


def test_integers_and_sawb_by_hand():
    x = torch.tensor([0.0, 1.0, -2.0, 12.7, -0.04])
    codes, scale = Integer().quantize(x, None, -1)
    assert codes.tolist() == [0, 10, -20, 127, 0] and scale.item() == pytest.approx(0.1)
    x = torch.cat([torch.randn(4096), torch.tensor([100.0])])  # an outlier is clipped
    clip = 12.1 * x.square().mean().sqrt() - 12.2 * x.abs().mean()
    codes, scale = SAWB().quantize(x, None, -1)
    assert 0 < clip < 100 and scale.item() == pytest.approx(clip.item() / 7) and codes[-1] == 7
    flat = torch.ones(16)  # rms is the mean: the clip is negative, and the largest number stands in
    assert SAWB().quantize(flat, None, -1)[1].item() == pytest.approx(1 / 7)


@pytest.mark.parametrize("layer", ["linear", "convolution", "convolution that libraries transform"])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_integer_products_are_exact(layer, precision, device, request):
    """All three passes against sums in float64: activations and weights of 8 bits, errors shifted by ShiftQuant; also
    where the user lets torch multiply float32 by parts of it."""
    request.addfinalizer(lambda: torch.set_float32_matmul_precision("highest"))
    torch.set_float32_matmul_precision(precision)
    torch.manual_seed(0)
    if layer == "linear":
        module, x = nn.Linear(300, 20, bias=False), torch.randn(50, 300, device=device, requires_grad=True)
    else:
        c, stride, size = (6, 2, 9) if layer == "convolution" else (64, 1, 32)
        module = nn.Conv2d(c, c + 2, 3, padding=1, stride=stride, bias=False)
        x = torch.randn(4, c, size, size, device=device, requires_grad=True)
    lns_sim.convert(module, replace(recipes.get("int8"), error=ShiftQuant(6, 4))).to(device)
    seen = {}

    class Watch(lns_sim.ops.observer.Observer):
        def product(self, product):
            seen[product.name] = product

    with lns_sim.ops.observer.observe(Watch()):
        y = module(x)
        spread = torch.exp2(-torch.arange(y.shape[1], device=device) % 20).view(1, -1, *[1] * (y.dim() - 2))
        y.backward(torch.randn_like(y) * spread)
    for name, product in seen.items():
        a, b = (o.codes.cpu().to(torch.float64) for o in product.operands)
        if layer == "linear":
            exact = a @ b
        elif name == "forward":
            exact = F.conv2d(a, b, padding=1, stride=stride)
        elif name == "input_gradient":
            exact = torch.nn.grad.conv2d_input(x.shape, b, a, padding=1, stride=stride)
        else:
            exact = torch.nn.grad.conv2d_weight(b, module.weight.shape, a, padding=1, stride=stride)
        assert (exact == exact.round()).all() and exact.abs().max() < 2**40
        scale = (product.operands[0].scale * product.operands[1].scale).double().cpu()
        assert torch.equal(product.out.cpu(), (exact * scale).float()), name
    error = seen["input_gradient"].operands[0].codes
    assert error.dtype == torch.int16 and error.abs().max() > 127  # shifted


@pytest.mark.parametrize(
    "shape", [(5, 1, 37, 37), (16, 1, 20, 20), (16, 1, 14, 14), (2, 1, 80, 80), (2, 1, 140, 140), (4000, 7), (1041, 7)]
)
def test_long_sums_of_integers_are_exact(shape, device):
    """Of the largest numbers, whose sums leave 2^24 by a little or by much: in parts, or in float64."""
    module = nn.Linear(7, 3, bias=False) if len(shape) == 2 else nn.Conv2d(1, 2, 3, bias=False)
    x = torch.ones(shape, device=device)
    x[0, 0] = 0.993  # 126
    lns_sim.convert(module, replace(recipes.get("int8"), error=Integer())).to(device)
    y = module(x)
    error = torch.ones_like(y)
    error.flatten()[1] = 0.993
    y.backward(error)
    a, e = ((t.cpu() * 127).round().double() for t in (x, error))
    exact = e.T @ a if len(shape) == 2 else torch.nn.grad.conv2d_weight(a, module.weight.shape, e)
    scale = torch.tensor(1.0) / 127
    assert torch.equal(module.weight.grad.cpu(), (exact * (scale * scale).double()).float())


def test_long_sums_where_roles_are_exchanged(device):
    """A transposed convolution's weight gradient: the activations stand where a convolution's errors do."""
    module = nn.ConvTranspose2d(1, 2, 3, bias=False)
    x, error = torch.ones(32, 1, 70, 70, device=device), torch.ones(32, 2, 72, 72, device=device)
    x[0], error[0] = 6 / 7, 126 / 127
    lns_sim.convert(module, replace(recipes.get("int8"), activation=Integer(4), error=Integer())).to(device)(
        x
    ).backward(error)
    w = torch.zeros(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    F.conv_transpose2d((x.cpu() * 7).round().double(), w).backward((error.cpu() * 127).round().double())
    scale = torch.tensor(1.0) / 7 * (torch.tensor(1.0) / 127)
    assert torch.equal(module.weight.grad.cpu(), (w.grad * scale.double()).float())


def test_recipes_are_written_and_read():
    for name in SYSTEMS:
        recipe = recipes.get(name)
        assert recipes.Recipe.decode(recipe.encode()) == recipe
        assert recipe_files.parse(recipe_files.dump(recipe)).default == recipe
    changed = recipe_files.parse(
        'preset = "fp8"\nerror = { quantizer = "ShiftQuant", bits = 6 }\nactivation = { kind = "e5m2" }'
    ).default
    assert changed.error == ShiftQuant(6) and changed.activation == FP8("e5m2")
    for text, message in [
        ('preset = "fp8"\nerror = { bits = 3 }', "bits is no key"),
        ('error = { quantizer = "FP9" }', "must be one of 'FP8'"),
        ('error = { quantizer = "LUQ", samples = 0 }', "samples must be"),
        ('error = { quantizer = "LUQ", hindsight = 1 }', "must be true"),
        ('optimizer = "adam"', "optimizer must be one of"),
        ('optimizer = "madam"', "updates float32 weights"),
    ]:
        with pytest.raises(ValueError, match=message):
            recipe_files.parse(text)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.slow
def test_every_system_trains_and_resumes_to_the_same_numbers(name):
    digits = data.load("digits")

    def trainer():
        return Trainer(digits, recipes.get(name), 0, Settings(model="cnn", epochs=3))

    whole, part = trainer(), trainer()
    for _ in range(3):
        whole.run_epoch()
    assert whole.result.test[-1] > 88
    part.run_epoch()
    resumed = trainer()
    resumed.load_state_dict(json_free_copy(part.state_dict()))
    for _ in range(2):
        resumed.run_epoch()
    assert resumed.result.test == whole.result.test and resumed.result.loss == whole.result.loss


@pytest.mark.slow
def test_fine_tuning_in_high_precision():
    digits = data.load("digits")
    trainer = Trainer(digits, recipes.get("luq"), 0, Settings(model="mlp", epochs=2, fine_tune=1))
    trainer.run_epoch()
    x = digits.x_test[:8]

    def plain(x):
        h = x.flatten(1)
        for layer in trainer.model:
            h = layer(h) if not isinstance(layer, nn.Linear) else h @ layer.weight.T + layer.bias
        return h

    assert not torch.allclose(trainer.model(x), plain(x), atol=1e-3)
    trainer.run_epoch()
    assert torch.allclose(trainer.model(x), plain(x), atol=1e-4)
    with pytest.raises(ValueError, match="exist only as codes"):
        Trainer(digits, recipes.get("lns-madam"), 0, Settings(model="mlp", epochs=2, fine_tune=1))
    with pytest.raises(ValueError, match="fine_tune must be between 0 and 2"):
        Settings(epochs=2, fine_tune=3)


@pytest.mark.slow
def test_the_maximum_in_hindsight(tmp_path):
    """Each product's errors are cut at what the steps before showed; a resumed run remembers."""
    torch.manual_seed(0)
    recipe = replace(recipes.get("luq"), activation=None, weight=None, error=LUQ(hindsight=True))
    layer = lns_sim.convert(nn.Sequential(nn.Linear(4, 4, bias=False)), recipe)
    tops = []
    for size in (1.0, 8.0, 8.0, 0.5):
        x = torch.eye(4).requires_grad_()
        y = layer(x)
        y.backward(torch.diag(torch.tensor([size, 0.3, 0.2, 0.1])))
        tops.append(torch.linalg.lstsq(layer[0].weight.T, x.grad.T).solution.abs().max().item())
    assert (
        tops[:3] == pytest.approx([1, 1, 0.9 * 8 + 0.1], rel=1e-3) and tops[3] <= 1.0001
    )  # its own first, then the ones before

    def trainer():
        own = replace(recipes.get("luq"), error=LUQ(hindsight=True, samples=2))
        return Trainer(data.load("digits"), own, 0, Settings(model="cnn", epochs=2))

    with lns_sim.simulate(recipe, random_state(0)), pytest.raises(RuntimeError, match="converted model"):
        torch.ones(2, 4, requires_grad=True) @ torch.ones(4, 2)
    with pytest.raises(Exception, match="without torch.compile"):
        torch.compile(layer, backend="aot_eager", fullgraph=True)(torch.eye(4))
    with pytest.raises(ValueError, match="needs float32 weights"):
        replace(recipes.get("lns-madam"), error=LUQ(hindsight=True), input_gradient=None, weight_gradient=None)

    whole, part, resumed = trainer(), trainer(), trainer()
    whole.run_epoch()
    whole.run_epoch()
    part.run_epoch()
    resumed.load_state_dict(json_free_copy(part.state_dict()))
    resumed.run_epoch()
    assert resumed.result.loss == whole.result.loss and whole.result.test[-1] > 85


@pytest.mark.parametrize("name", ["luq", "shiftquant", "fp8", "int8"])
def test_compiled_models_compute_the_same(name):
    torch.manual_seed(0)
    model = lns_sim.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8)), name)
    x, found = torch.randn(2, 3, 4, 4), []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        model.zero_grad()
        y = run(x)
        y.square().sum().backward()
        found.append([y, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_quantizer_defined_anew_takes_its_own_place():
    def define(place):
        return type("Halved", (FP8,), {"__module__": "notebook", "__qualname__": place})

    first, again = define("Halved"), define("Halved")
    assert first is not again and QUANTIZERS["Halved"] is again
    with pytest.raises(ValueError, match="there is a quantizer 'Halved' already"):
        define("Other.Halved")
    del QUANTIZERS._entries["Halved"]


@pytest.mark.parametrize("name", ["lns-madam", "luq", "shiftquant", "fp8", "int8"])
def test_operators_give_the_strides_that_they_tell_compilers(name):
    encoded = recipes.get(name).encode()
    x, rng = torch.randn(2, 4, 3), lns_sim.random.random_state(0)
    calls = {
        "linear": (x.mT, torch.randn(4, 5).mT, rng, encoded),
        "product": (x.mT, x, rng, encoded),
        "outer_product": (torch.randn(3, 2, 1).transpose(0, 1), torch.randn(3, 2, 1).permute(1, 2, 0), rng, encoded),
        "convolution": (
            *(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last) for _ in range(2)),
            *(rng, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, encoded),
        ),
    }
    for operator, arguments in calls.items():
        run = getattr(torch.ops.lns_sim, operator)
        with FakeTensorMode() as mode:
            told = run(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments))
        assert [y.stride() for y in run(*arguments)] == [y.stride() for y in told], operator


def json_free_copy(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# ---- LUQ


def test_luq_is_unbiased_and_its_parts_alone_are_not():
    assert headlines.z_scores(LUQ()).square().mean().sqrt().item() == pytest.approx(1, abs=0.05)
    for biased in (LUQ(below="flush"), LUQ(above="nearest"), LUQ(below="flush", above="nearest")):
        assert headlines.z_scores(biased).square().mean().sqrt() > 2


def test_luq_by_hand():
    x = torch.tensor([8.0, -3.0, 0.5, 0.0, -0.25, 1.5])  # alpha = 1 with 3 octaves
    nearest = LUQ(3, "flush", "nearest")
    assert logarithmic(torch.cat([x, torch.tensor([0.51, 3.01])]), x.max(), nearest, None).tolist() == [
        8,
        -2,
        0,
        0,
        0,
        1,
        1,
        4,
    ]
    assert logarithmic(x, torch.tensor(4.0), LUQ(2), random_state(0))[0] == 4.0  # an estimate below the largest clips
    x = torch.randn(5000) * torch.exp(4 * torch.rand(5000) - 3)
    alpha, u = x.abs().max() / 2**5, torch.ops.lns_sim.uniform(x, random_state(3))
    ratio = x.abs() / alpha
    lower = torch.exp2(torch.floor(torch.log2(ratio)))
    size = torch.where(ratio < 1, (ratio > u).float(), torch.where((ratio - lower) / lower > u, 2 * lower, lower))
    assert torch.equal(everywhere(logarithmic, x, x.abs().max(), LUQ(5), random_state(3)), x.sign() * alpha * size)
    assert (LUQ(7).bits, LUQ(6).bits, LUQ(2).bits) == (5, 4, 3)
    memory = {}
    assert [
        maximum_in_hindsight(torch.tensor([v]), memory, momentum=0.1).item() for v in (4.0, 8.0, 2.0)
    ] == pytest.approx([4, 4, 0.9 * 8 + 0.1 * 4])


def test_samples_average_out():
    errors = headlines.gradient_errors([1, 2, 8, 32])
    for n in (2, 8, 32):
        assert errors[n] == pytest.approx(errors[1] / n**0.5, rel=0.2)
    assert errors[32] < errors[0] / 3  # rounding to nearest stays where it is
    dy = torch.randn(64, 32)
    variance = {
        n: torch.stack(
            [
                sum(LUQ().quantize(dy, random_state(100 * n + 10 * i + j), -1)[0] for j in range(n)) / n
                for i in range(300)
            ]
        )
        .var(0)
        .mean()
        for n in (1, 2)
    }
    assert variance[2] / variance[1] == pytest.approx(0.5, rel=0.1)
    # The recipe's own way: the weight gradient sees the mean of both samples, the input gradient one of them.
    torch.manual_seed(0)
    layer = lns_sim.convert(
        nn.Linear(6, 5, bias=False), replace(recipes.get("luq"), activation=None, weight=None, error=LUQ(samples=2))
    )
    x = torch.eye(6).requires_grad_()
    y = layer(x)
    y.backward(torch.randn(6, 5))
    used = torch.linalg.lstsq(layer.weight.T, x.grad.T).solution.T  # the errors that the input gradient saw
    assert (layer.weight.grad.T - used).abs().max() > 1e-3


@pytest.mark.slow
def test_ablation_order():
    mean = {name: statistics.mean(found) for name, found in headlines.luq_ablation(range(3)).items()}
    assert mean["full"] > 85 and mean["stochastic pruning only"] > 85
    assert mean["full"] > mean["stochastic rounding only"] + 10 and mean["stochastic pruning only"] > mean["naive"] + 10


# ---- ShiftQuant and L1 normalization


def test_shiftquant_is_shifts_in_an_integer_product():
    torch.manual_seed(0)
    x = torch.randn(20, 16) * torch.exp2(-torch.arange(16) / 2)
    q, w = ShiftQuant(4, 4), torch.randint(-127, 128, (16, 9))
    codes, scale = q.quantize(x, random_state(0), -1)
    k = q.shifts(q.ranges(x, -1))
    ranges = x.abs().amax(0)
    assert k.flatten().tolist() == [min(3, int(torch.floor(torch.log2(ranges.max() / r)))) for r in ranges]
    narrow = codes.to(torch.int64) >> (3 - k)  # what is stored: 4 bits
    assert narrow.abs().max() <= 7 and torch.equal(narrow << (3 - k), codes.to(torch.int64))
    shifted = sum((narrow[:, c : c + 1] * w[c : c + 1]) << (3 - int(k[0, c])) for c in range(16))  # in the accumulator
    assert torch.equal(shifted, codes.to(torch.int64) @ w)
    assert scale == x.abs().max() / 7 / 8
    one, s = ShiftQuant(4, 1).quantize(x, random_state(0), -1)
    same, t = Integer(4, "stochastic").quantize(x, random_state(0), -1)
    assert torch.equal(one.float() * s, same.float() * t)


def test_shiftquants_variance():
    found = headlines.shiftquant_variances([1, 2, 4])
    assert found[1][0] > found[2][0] > found[4][0]
    assert all(measured <= bound and best <= bound * (1 + 1e-6) for measured, bound, best in found.values())
    assert optimal_grouping([1.0, 8.0, 7.9, 0.9], 2, 4) == [1 / 7, 8 / 7, 8 / 7, 1 / 7]
    assert optimal_grouping([1.0, 8.0], 5, 4) == [1 / 7, 8 / 7]


@pytest.mark.slow
def test_shiftquants_headline():
    found = {name: statistics.mean(values) for name, values in headlines.shiftquant_accuracies(range(3)).items()}
    assert found["ShiftQuant, 4 groups"] > 85 and found["float32"] > 92
    assert found["per tensor"] < found["ShiftQuant, 4 groups"] - 5


@pytest.mark.parametrize(
    "norm, shape",
    [
        (L1BatchNorm(3, bits=None), (5, 3)),
        (L1BatchNorm(3, bits=None), (4, 3, 2, 5)),
        (L1LayerNorm(6, bits=None), (4, 6)),
        (L1LayerNorm((2, 5), bits=None), (3, 2, 5)),
    ],
)
def test_l1_norms_have_their_exact_gradient(norm, shape):
    torch.manual_seed(0)
    norm = norm.double()
    with torch.no_grad():
        norm.weight.normal_()
    assert torch.autograd.gradcheck(norm, torch.randn(shape, dtype=torch.float64, requires_grad=True))


def test_l1_norms_by_hand_and_in_evaluation():
    x = torch.randn(20_000, 4) * torch.tensor([1.0, 3.0, 0.5, 2.0]) + 7
    norm = L1BatchNorm(4, bits=None, momentum=1.0)
    y = norm(x)
    s = C * (x - x.mean(0)).abs().mean(0) + 1e-5
    assert torch.allclose(y, (x - x.mean(0)) / s, atol=1e-6) and torch.allclose(
        s, x.std(0), rtol=0.03
    )  # of a Gaussian the deviation
    assert torch.allclose(norm.running_s, s) and torch.allclose(norm.running_mean, x.mean(0))
    assert torch.allclose(norm.eval()(x), y, atol=1e-5)
    quantized = L1BatchNorm(4)(x).detach()
    assert len(quantized[:, 0].unique()) <= 255
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LayerNorm(8 * 36))
    model[1].weight.data.fill_(2.0)
    replace_norms(model)
    assert isinstance(model[1], L1BatchNorm) and isinstance(model[3], L1LayerNorm) and model[1].weight[0] == 2
    assert model(torch.randn(4, 3, 8, 8)).isfinite().all()
    with pytest.raises(ValueError, match="must have 4 channels"):
        norm(torch.randn(3, 5))


def test_l1_forms_keep_what_a_norm_is():
    shared = nn.BatchNorm1d(4, affine=False)
    plain = nn.Sequential(shared, nn.LayerNorm(4, bias=False), shared)
    plain(torch.randn(2000, 4) * 3 + 1)  # running statistics
    model = replace_norms(copy.deepcopy(plain).eval())
    assert model[0] is model[2] and not any(norm.training for norm in model)
    assert [p.requires_grad for norm in (model[0], model[1]) for p in (norm.weight, norm.bias)] == [
        False,
        False,
        True,
        False,
    ]
    x = torch.randn(50, 4) * 3 + 1
    assert torch.allclose(model[0](x), shared.eval()(x), atol=0.1)  # 8 bits
    with torch.device("meta"):
        assert lns_sim.convert(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), "shiftquant")(torch.zeros(2, 4)).is_meta


def normed():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)))


def kinds(model):
    return [type(model[1]), type(model[2][0])]


def test_l1_norms_follow_the_plan():
    both, none = [L1BatchNorm, L1LayerNorm], [nn.BatchNorm1d, nn.LayerNorm]
    l1, plain = recipes.get("shiftquant"), recipes.get("fp8")
    for arguments, expected in (
        ((l1,), both),
        ((l1, "2"), [L1BatchNorm, nn.LayerNorm]),
        ((l1, None, "2"), [nn.BatchNorm1d, L1LayerNorm]),
        ((plain,), none),
        ((recipes.ModelRecipe(l1, (("2.0", None),)),), [L1BatchNorm, nn.LayerNorm]),
        ((recipes.ModelRecipe(l1, (("1", plain),)),), [nn.BatchNorm1d, L1LayerNorm]),
        ((recipes.ModelRecipe(plain, (("2", l1),)),), [nn.BatchNorm1d, L1LayerNorm]),
    ):
        assert kinds(lns_sim.convert(normed(), *arguments)) == expected
    refused = normed()
    refused[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        lns_sim.convert(refused, l1)
    assert kinds(refused) == none


@pytest.mark.parametrize(
    "norm, message",
    [
        (nn.BatchNorm1d(4, momentum=None), "1 has no L1 form: .*cumulative"),
        (nn.BatchNorm1d(4, track_running_stats=False), "1 has no L1 form: .*no running statistics"),
        (type("Own", (nn.LayerNorm,), {})(4), "1 has no L1 form: a Own may do more"),
    ],
)
def test_norms_without_an_l1_form(norm, message):
    model = normed()
    model[1] = norm
    with pytest.raises(ValueError, match=message):
        lns_sim.convert(model, "shiftquant")
    assert kinds(model) == [type(norm), nn.LayerNorm] and type(model[0].weight) is nn.Parameter
    lns_sim.convert(model, "shiftquant", skip="1")
    assert model[1] is norm and kinds(model)[1] is L1LayerNorm


def test_norms_that_cannot_be_replaced_where_they_are():
    with pytest.raises(ValueError, match="the model itself"):
        lns_sim.convert(nn.LayerNorm(4), "shiftquant")
    shared = nn.LayerNorm(4)
    with pytest.raises(ValueError, match="0 and 1 are one norm"):
        lns_sim.convert(nn.Sequential(shared, shared), "shiftquant", skip="1")


def test_l1_forms_keep_hooks():
    model, seen = normed(), []
    model[1].register_forward_hook(lambda module, args, y: seen.append(type(module)))
    model[1].register_full_backward_hook(lambda module, dx, dy: seen.append("backward"))
    lns_sim.convert(model, "shiftquant")(torch.randn(3, 4)).sum().backward()
    assert seen == [L1BatchNorm, "backward"]


# ---- Madam and its kin


def weight(values):
    p = nn.Parameter(torch.tensor(values).reshape(1, -1))
    return p


def step(optimizer, p, grad):
    p.grad = torch.tensor(grad).reshape(1, -1)
    optimizer.step()


def test_madam_by_hand():
    p = weight([0.5, -0.5, 0.0, 0.25])
    cap = 3 * p.detach().square().mean().sqrt()
    optimizer = Madam([p], lr=0.01)
    step(optimizer, p, [2.0, -0.3, 1.0, 0.0])
    # The first step is exactly +-lr in the logarithm; a zero gradient moves nothing, a zero weight stays.
    assert p.detach().flatten().tolist() == pytest.approx(
        [0.5 * math.exp(-0.01), -0.5 * math.exp(-0.01), 0.0, 0.25], rel=1e-6
    )
    v = 0.999 * 0.001 * 4 + 0.001 * 0.25
    ghat = 0.5 / math.sqrt(v / (1 - 0.999**2))
    before = p[0, 0].item()
    step(optimizer, p, [0.5, 0.0, 0.0, 0.0])
    assert p[0, 0].item() == pytest.approx(before * math.exp(-0.01 * ghat), rel=1e-5)
    for _ in range(2000):
        step(optimizer, p, [-1.0, -1.0, -1.0, -1.0])
    assert p[0, 0] == cap and p[0, 1] < 0 and p[0, 2] == 0  # clamped; signs never flip


def test_integer_madam_by_hand():
    p = weight([0.5, -0.25, 0.125, 0.4])
    cap = 3 * p.detach().square().mean().sqrt()
    optimizer = IntegerMadam([p])
    step(optimizer, p, [1.0, -1.0, 0.0, -5.0])
    level = optimizer.state[p]["level"]
    start = (torch.log(cap / torch.tensor([0.5, 0.25, 0.125, 0.4])) / 0.001).round()
    assert (level.flatten() - start).tolist() == [10, 10, 0, -10]
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert torch.allclose(p.detach().flatten(), signs * cap * torch.exp(-0.001 * level.flatten()))
    for _ in range(1500):
        step(optimizer, p, [1.0, 1.0, -1.0, -1.0])
    assert optimizer.state[p]["level"].flatten().tolist() == [4095, 0, 0, 0]
    torch.manual_seed(0)
    drawn = weight([0.5] * 4096)
    random = IntegerMadam([drawn], randomize=True)
    step(random, drawn, [0.0] * 4096)
    level = random.state[drawn]["level"].float()
    assert level.min() < 20 and level.max() > 4075 and level.mean() == pytest.approx(2048, rel=0.05)


def test_the_published_optimizer_is_the_code_update_at_gamma_128():
    """The same integer steps as LNSMadam on codes of gamma_U = 128, weights on that grid."""
    torch.manual_seed(0)
    recipe = recipes.lns_madam(update_bits=12)
    assert recipe.update == LNSFormat(12, 128)
    coded = nn.Parameter(lns_sim.LNSWeight.from_float(torch.randn(8, 16), recipe))
    plain = nn.Parameter(coded.dequantize().detach().clone())
    ours, theirs = lns_sim.optim.LNSMadam([coded], lr=1 / 128), PublishedLNSMadam([plain], lr=1 / 128)
    start = coded.codes.to(torch.int64) & 2047
    logs = plain.detach().abs().log2()
    for _ in range(30):
        coded.grad = plain.grad = torch.randn(8, 16) * torch.exp(torch.randn(8, 16))
        ours.step()
        theirs.step()
    moved = (coded.codes.to(torch.int64) & 2047) - start
    steps = (128 * (plain.detach().abs().log2() - logs)).round().to(torch.int64)
    inside = plain.detach().abs() < 0.99 * theirs.state[plain]["cap"]
    assert moved.abs().max() > 15 and torch.equal(moved[inside], steps[inside])


# ---- HALP


@pytest.mark.slow
def test_halps_headline():
    norms = {m: headlines.gradient_norms(m) for m in ("halp", "lp-svrg", "lp-sgd")}
    assert norms["halp"][0] == pytest.approx(5.6, abs=0.5)
    assert norms["halp"][-1] < 1e-11 and norms["lp-svrg"][-1] > 0.3 and norms["lp-sgd"][-1] > 0.3
    x, y = headlines.least_squares()
    found = least_squares_in_integers(x, y, 0.002, 30)
    assert found[0] == pytest.approx(5.8, abs=0.2) and found[-1] < 1e-11


def test_halps_grid_and_errors():
    assert grid(3.0, 0.5, 8) == 3 / (0.5 * 127)
    n = on_grid(torch.tensor([0.26, -9.0, 9.0, -0.24]), 0.5, 4, torch.tensor([0.5, 0.0, 0.0, 0.4]))
    assert n.tolist() == [1, -8, 7, -1]
    draws = torch.stack([on_grid(torch.tensor([0.3]), 1.0, 4, torch.rand(1)) for _ in range(4000)])
    assert draws.mean().item() == pytest.approx(0.3, abs=0.03)
    with pytest.raises(ValueError, match="bits must be between 2 and 24"):
        HALP([weight([1.0])], 0.1, bits=1)
    with pytest.raises(RuntimeError, match="needs outer"):
        HALP([weight([1.0])], 0.1).step(lambda: None)
    with pytest.raises(Diverged, match="mu = 0.1 is too small"):
        headlines.gradient_norms("halp", mu=0.1)
    p = weight([1.0, 2.0])
    stopped = HALP([p], 0.1)
    assert stopped.outer(lambda: (0 * p).sum().backward()) == 0
    stopped.step(lambda: (0 * p).sum().backward())
    assert p.detach().flatten().tolist() == [1.0, 2.0]


def test_halp_steps_as_written():
    """Against the recursion in plain Python, with the specification's random bits: seed, step, parameter, element."""
    p = weight([1.0, -2.0])
    optimizer = HALP([p], lr=0.1, bits=6, mu=0.5, seed=3)

    def closure(scale=1.0):
        loss = (scale * p * p * torch.tensor([[1.0, 3.0]])).sum() / 2
        loss.backward()
        return loss

    norm = optimizer.outer(closure)
    g = torch.tensor([1.0, -6.0])
    assert norm == pytest.approx(g.norm().item())
    delta, w, z = norm / (0.5 * 31), torch.tensor([1.0, -2.0]), torch.zeros(2)
    for i in range(1, 4):
        optimizer.step(lambda: closure(2.0))
        u = torch.tensor([(reference.philox(3, i, 0, e) >> 8) * 2.0**-24 for e in range(2)])
        slope = 2 * torch.tensor([1.0, 3.0])
        d = slope * (w + z) - slope * w + g
        z = delta * torch.floor((z - 0.1 * d) / delta + u).clamp(-32, 31)
        assert torch.allclose(p.detach()[0], w + z, atol=1e-6)
    assert 0 <= optimizer.saturated <= 1


# ---- All of them together


def test_the_summary_names_other_systems_codes():
    model = lns_sim.convert(models.build("mlp", (1, 8, 8), 10), "luq")
    text = str(lns_sim.summary(model, torch.zeros(2, 1, 8, 8)))
    assert (
        "4-bit SAWB x 4-bit SAWB" in text
        and "5-bit LUQ x 4-bit SAWB" in text
        and "products left in float32: none" in text
    )
    first = lns_sim.summary(model, torch.zeros(2, 1, 8, 8)).passes[0]
    assert first.bytes == 2 * 64 + 64 * 256 + 4 * 2 * 256  # a byte a code


def test_what_a_table_says_of_recipes():
    assert bits_of(None) == dict.fromkeys(("activation", "weight", "error", "gradient"), "32")
    assert bits_of(recipes.get("lns-madam")) == {"activation": "8", "weight": "8 (16)", "error": "8", "gradient": "8"}
    assert bits_of(recipes.get("luq")) == {"activation": "4", "weight": "4", "error": "5", "gradient": "32"}
    assert [bits_of(recipes.get(name))["weight"] for name in ("madam", "integer-madam", "lp-sgd")] == ["32", "13", "8"]
    formats = {name: format_of(recipes.get(name)) for name in RECIPES}
    assert formats == {
        "fp32": "FP32",
        "lns-madam": "LNS",
        "lns-madam-fake-quant": "LNS",
        "lns-madam-block32": None,
        "lns-madam-block32-4bit": None,
        "lns-madam-block32-5bit": None,
        "lns-madam-block32-6bit": None,
        "fp8": "FP8",
        "int8": "INT8",
        "luq": None,
        "luq-smp2": None,
        "shiftquant": None,
        "madam": "FP32",
        "integer-madam": "FP32",
        "lns-madam-published": "LNS",
        "halp": "FP32",
        "svrg": "FP32",
        "lp-svrg": "FP32",
        "lp-sgd": "FP32",
    }


@pytest.mark.slow
def test_the_command_tunes_trains_and_goes_on(tmp_path):
    args = [
        "compare-recipes",
        "fp32",
        "int8",
        "madam",
        "--model",
        "mlp",
        "--epochs",
        "2",
        "--seeds",
        "2",
        "--search",
        "0.5,1",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    assert "uJ a sample" in result.stdout and (tmp_path / "recipes.png").stat().st_size > 10_000
    written = json.loads((tmp_path / "recipes.json").read_text())
    assert [e["name"] for e in written["entries"]] == ["fp32", "int8", "madam"]
    for entry in written["entries"]:
        assert str(entry["lr"]) in entry["tuned"] and entry["tuned"][str(entry["lr"])] == max(entry["tuned"].values())
        assert set(entry["results"]) == {"0", "1"}
    assert written["energies"]["fp32"] > written["energies"]["int8"] > 0
    before = (tmp_path / "runs.json").read_text()
    again = CliRunner().invoke(app, args)
    assert again.exit_code == 0 and (tmp_path / "runs.json").read_text() == before
    other = CliRunner().invoke(app, [*args, "--epochs", "3"])
    assert other.exit_code == 1 and "other settings" in other.stderr


def test_a_system_that_diverges_is_said_to(tmp_path):
    settings = Settings(model="mlp", epochs=1, float_lr=1e6, counters=False)
    contest = Contest(data.load("digits"), ["fp8"], settings, [1.0, 2.0], [0], tmp_path / "runs.json")
    entry = contest.run()[0]
    assert entry.lr is None and entry.results == {0: None} and set(entry.tuned.values()) == {None}


def test_systems_on_attention_and_text():
    """Products of computed tensors, too, and a language model."""
    torch.manual_seed(0)
    model = lns_sim.convert(models.GPT(50, 16, width=32, layers=1, heads=2), "luq")
    tokens = torch.randint(50, (2, 16))
    with lns_sim.ops.observer.observe(lns_sim.ops.observer.Observer()):
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert np.isfinite(loss.item())
