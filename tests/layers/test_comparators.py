"""The systems that LNS-Madam is compared with: their quantizers, optimizers and layers, and each paper's headline."""

import copy
import importlib
import io
import json
import math
import statistics
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import everywhere, same
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from typer.testing import CliRunner

import lns_sim
from lns_sim import LNSFormat, recipes, reference
from lns_sim.command.app import app
from lns_sim.nn.convert import weights_alone
from lns_sim.nn.l1norm import C, L1BatchNorm, L1LayerNorm, L1Norm, _Normalize, replace_norms
from lns_sim.ops import int8
from lns_sim.optim import bit_centered
from lns_sim.optim.bit_centered import Offset, gradient_difference
from lns_sim.optim.halp import HALP, Diverged, grid, least_squares_in_integers, on_grid
from lns_sim.optim.madam import IntegerMadam, Madam, PublishedLNSMadam
from lns_sim.quantizers.fp4 import FP4
from lns_sim.quantizers.fp8 import FP8
from lns_sim.quantizers.integer import Integer, nearest_values
from lns_sim.quantizers.luq import LUQ, SAWB, logarithmic, maximum_in_hindsight
from lns_sim.quantizers.shiftquant import ShiftQuant, optimal_grouping
from lns_sim.random import random_state
from lns_sim.recipes import Recipe
from lns_sim.recipes import files as recipe_files
from lns_sim.registry import QUANTIZERS, RECIPES
from lns_sim.studies import models
from lns_sim.studies.contest import Contest, bits_of, format_of
from lns_sim.studies.papers import halp, luq, shiftquant, spread
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.presets import PRESETS
from lns_sim.studies.training import data
from lns_sim.studies.training.trainer import Settings, Trainer, lr_factor

EXAMPLES = [
    FP4(),
    FP4("stochastic"),
    FP8(),
    FP8("e5m2"),
    Integer(),
    Integer(4, "stochastic"),
    Integer(4, zero_point=True),
    Integer(8, "stochastic", zero_point=True),
    SAWB(),
    SAWB(grid="weights"),
    SAWB(grid="activations"),
    LUQ(),
    LUQ(7, below="flush"),
    LUQ(3, above="nearest"),
    ShiftQuant(),
    ShiftQuant(6, 2),
    ShiftQuant(4, 4, zero_point=True),
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
    value, slack = codes.float() * scale, scale * (8 if q == EXAMPLES[-1] else 0.5)  # a step of the widest channels
    assert (value - x).norm() < 0.6 * x.norm() and value.abs().max() <= 1.01 * x.abs().max() + slack
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


def integers_in_torch(x, dim, top, groups, zero_point, u):
    """Codes and scale of :class:`Integer` and :class:`ShiftQuant`, operation by operation."""
    others = [d for d in range(x.dim()) if d != dim]
    high, low = x.amax(others, keepdim=True).clamp(min=0), x.amin(others, keepdim=True).clamp(max=0)
    ranges = high / 2 - low / 2 if zero_point else torch.maximum(high, -low)
    widest = ranges.amax()
    most = (2.0**128 - 2.0**105) / top
    step = (widest / (top / 2 if zero_point else top)).clamp(2.0**-126, most) if widest > 0 else torch.tensor(1.0)
    octaves = torch.where(ranges > 0, torch.frexp(widest / ranges)[1] - 1, groups - 1).clamp(0, groups - 1)
    steps = x / step * torch.exp2(octaves.float())
    q = steps.round() if u is None else (steps + u).floor()
    lowest = (low / step * torch.exp2(octaves.float())).round() if zero_point else -top
    q = q.clamp(lowest, lowest + top) if zero_point else q.clamp(-top, top)
    return q * torch.exp2(groups - 1.0 - octaves), step * 2.0 ** (1 - groups)


SPREAD = [
    torch.randn(40, 30),
    torch.randn(7, 5, 6, 8) * torch.exp2(-2.0 * torch.arange(5)).view(1, 5, 1, 1),
    torch.randn(3, 2, 60, 60),  # long runs
    -torch.rand(90, 3),
    torch.zeros(3, 4),
    torch.tensor([[3e38, -3.3e38], [1.0, 0.0]]),
    torch.tensor([[1e-42, -2e-39], [0.0, -0.0]]),
    torch.randn(100, 3) * 1e-38,
]


@pytest.mark.parametrize("q", [q for q in EXAMPLES if isinstance(q, (Integer, ShiftQuant))], ids=repr)
def test_integers_are_those_of_torchs_operations(q):
    for x in SPREAD:
        codes, scale = quantized(q, x, dim=1)
        u = torch.ops.lns_sim.uniform(x, random_state(0)) if q.stochastic else None
        if isinstance(q, ShiftQuant):
            expected, step = integers_in_torch(x, 1, q.top, q.groups, q.zero_point, u)
        else:
            whole, step = integers_in_torch(
                x.flatten()[:, None], 1, q.largest, 1, q.zero_point, None if u is None else u.flatten()[:, None]
            )
            expected = whole.view(x.shape)
        assert torch.equal(codes.float(), expected) and scale == step
        if isinstance(q, Integer) and not q.zero_point:
            values = everywhere(nearest_values, x, q.bits)
            assert same(
                values, integers_in_torch(x.flatten()[:, None], 1, q.largest, 1, False, None)[0].view(x.shape) * step
            )


def test_fp8_is_torchs_own():
    x = torch.randn(1000)
    codes, scale = FP8().quantize(x, None, -1)
    assert codes.float().abs().max() == 448 and scale == x.abs().max() / 448
    assert torch.equal(codes.float(), (x / scale).to(torch.float8_e4m3fn).float())
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        every = torch.arange(256, dtype=torch.uint8).view(dtype)
        every = every[every.float().isfinite()]
        q = FP8("e5m2" if dtype == torch.float8_e5m2 else "e4m3")
        assert len(every) >= 248 and same(everywhere(q.value, every, torch.tensor(1.0)), every.float())
        # Between neighbours, and below the smallest: rounded as torch does.
        exact = torch.cat([torch.linspace(-1, 1, 4001), every.float() * 1.0625, 2.0 ** torch.arange(-20.0, 0)])
        exact = torch.cat([exact, torch.tensor([torch.finfo(dtype).max])])  # at scale 1
        codes, scale = everywhere(q.quantize, exact.clamp(-exact[-1], exact[-1]), None, -1)
        assert scale == 1 and torch.equal(
            codes.view(torch.uint8), exact.clamp(-exact[-1], exact[-1]).to(dtype).view(torch.uint8)
        )


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


def test_sawbs_published_grids_by_hand():
    x = torch.cat([torch.randn(4096), torch.tensor([100.0])])
    positive = x.abs()
    clip = (12.1 * x.square().mean().sqrt() - 12.2 * x.abs().mean()).item()
    for tensor, name, steps, lowest, highest in (
        (x, "weights", 16, -8, 8),
        (x, "activations", 23, -8, 15),
        (positive, "activations", 15, 0, 15),
    ):
        codes, scale = quantized(SAWB(grid=name), tensor)
        assert scale.item() == pytest.approx(2 * clip / steps) and codes[-1] == highest == SAWB(grid=name).largest
        assert codes.tolist() == [max(lowest, min(highest, round(v / scale.item()))) for v in tensor.tolist()]
    few = torch.tensor([1.0, 0.0, 0.0, 0.0])
    codes, scale = SAWB(grid="weights").quantize(few, None, -1)
    assert scale * 8 > 1 and codes.max() < 8  # the clip is above the largest number, and stays there
    for name, huge in (("activations", torch.full((4,), 3.4e38)), ("weights", torch.tensor([3e38, 0.0, 0.0]))):
        codes, scale = SAWB(grid=name).quantize(huge, None, -1)
        assert (codes.float() * scale).isfinite().all() and scale > 0
    with pytest.raises(ValueError, match="bits must be between 2 and 7"):
        SAWB(8, grid="weights")


def test_the_published_grids_lose_less():
    """Squared error to squares, at the numbers of a fine and even cut of each distribution."""
    p = (torch.arange(1 << 18, dtype=torch.float64) + 0.5) / (1 << 18)
    normal = torch.special.ndtri(p).float()
    laplace = (-(p - 0.5).sign() * torch.log1p(-2 * (p - 0.5).abs())).float()
    for x, name, published, ours in (
        (normal.relu(), "activations", 0.0201, 0.0232),
        (normal, "weights", 0.0109, 0.0131),
        (laplace, "weights", 0.0228, 0.0274),
    ):
        for q, expected in ((SAWB(grid=name), published), (SAWB(), ours)):
            codes, scale = q.quantize(x, None, -1)
            error = (codes.float() * scale - x).square().sum() / x.square().sum()
            assert error.item() == pytest.approx(expected, abs=1.1e-4), (q, error)


@pytest.fixture(params=["floats", "int8"])
def integer_units(request, monkeypatch):
    """By which units integer products are computed: a GPU's int8 tensor cores, whose operators a CPU has, too."""
    monkeypatch.setattr(int8, "multiplies", lambda x: request.param == "int8")


@pytest.mark.parametrize("layer", ["linear", "convolution", "convolution that libraries transform"])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_integer_products_are_exact(layer, precision, integer_units, device, request):
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
def test_long_sums_of_integers_are_exact(shape, integer_units, device):
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


def test_long_sums_where_roles_are_exchanged(integer_units, device):
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
    some = recipe_files.parse('preset = "halp"\noptimizer_options = { bits = 4 }').default
    assert dict(some.optimizer_options) == {"bits": 4, "mu": 20.0, "period": 0.5}  # the preset's, and one more
    assert recipe_files.parse('preset = "halp"\noptimizer = "madam"').default.optimizer_options == ()
    for text, message in [
        ('preset = "fp8"\nerror = { bits = 3 }', "bits is no key"),
        ('error = { quantizer = "FP9" }', "must be one of 'FP4', 'FP8'"),
        ('error = { quantizer = "LUQ", samples = 0 }', "samples must be"),
        ('error = { quantizer = "LUQ", hindsight = 1 }', "must be true"),
        ('optimizer = "adam"', "optimizer must be one of"),
        ('preset = "madam"\noptimizer_options = { mu = 3 }', "an option of the optimizer 'madam' must be one of"),
        ('preset = "halp"\noptimizer_options = 3', "optimizer_options must be a table"),
        ('preset = "fp8"\noptimizer_options = { mu = 3 }', "mu has no effect without an optimizer"),
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

    whole, resumed = trainer(), trainer()
    whole.run_epoch()
    kept = json_free_copy(whole.state_dict())
    for _ in range(2):
        whole.run_epoch()
    assert whole.result.test[-1] > 88
    resumed.load_state_dict(kept)
    for _ in range(2):
        resumed.run_epoch()
    assert resumed.result.test == whole.result.test and resumed.result.loss == whole.result.loss


def test_fine_tuning_quantizes_weights_alone_and_tests_all():
    """LUQ's last epochs: activations and errors in float32, weights and whatever a test multiplies in codes; learning
    rates rise to half of these steps, and fall again."""
    digits = data.load("digits")
    settings = Settings(model="mlp", epochs=4, fine_tune=2, fine_tune_lr=0.05, batch_size=512, counters=False)
    trainer = Trainer(digits, recipes.get("luq"), 0, settings)
    seen = {}

    class Watch(lns_sim.ops.observer.Observer):
        def product(self, product):
            phase = trainer.epoch, trainer.model.training
            kinds = tuple(None if o.quantizer is None else type(o.quantizer).__name__ for o in product.operands)
            seen.setdefault(phase, set()).add((product.name, kinds))

    steps, rates = trainer.steps_per_epoch, []
    with lns_sim.ops.observer.observe(Watch()):
        while trainer.epoch < 4:
            trainer.run_epoch(lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    quantized = {
        ("forward", ("SAWB", "SAWB")),
        ("input_gradient", ("LUQ", "SAWB")),
        ("weight_gradient", ("LUQ", "SAWB")),
    }
    fine = {("forward", (None, "SAWB")), ("input_gradient", (None, "SAWB")), ("weight_gradient", (None, None))}
    assert [seen[epoch, True] for epoch in range(4)] == [quantized, quantized, fine, fine]
    assert all(products == {("forward", ("SAWB", "SAWB"))} for (_, trains), products in seen.items() if not trains)
    last = torch.tensor([lr_factor(trainer.settings, steps, step) for step in range(2 * steps, 4 * steps)])
    assert torch.allclose(last, 0.05 * (1 - (2 * torch.arange(0.5, 2 * steps) / (2 * steps) - 1).abs()))
    assert rates[2 * steps] == pytest.approx(0.1 * last[1].item()) and last.argmax() in (steps - 1, steps)
    with pytest.raises(ValueError, match="exist only as codes"):
        Trainer(digits, recipes.get("lns-madam"), 0, Settings(model="mlp", epochs=2, fine_tune=1))
    with pytest.raises(ValueError, match="fine_tune must be between 0 and 2"):
        Settings(epochs=2, fine_tune=3)
    with pytest.raises(ValueError, match="no effect without fine_tune"):
        Settings(fine_tune_lr=0.1)


@pytest.mark.parametrize("inner", [None, 2])
def test_full_gradients_are_float32_as_their_steps_are(inner):
    """And not TF32, which cuDNN multiplies in unless it is told otherwise."""
    settings = Settings(model="mlp", epochs=1, batch_size=512)
    trainer = Trainer(data.load("digits"), recipes.get("svrg"), 0, settings)
    trainer.optimizer.inner = inner
    allowed = []
    trainer.model.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    with torch.backends.cudnn.flags(allow_tf32=True):
        trainer.run()
    assert len(allowed) > 2 * trainer.steps_per_epoch and not any(allowed)


def test_fine_tuning_leaves_l1_norms_unrounded():
    model = lns_sim.convert(normed(), "shiftquant6")
    with weights_alone(model):
        assert [norm.bits for norm in model.modules() if isinstance(norm, L1Norm)] == [None, None]
    assert [norm.bits for norm in model.modules() if isinstance(norm, L1Norm)] == [8, 8]


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


def delayed(history=2, margin=0):
    e4m3 = FP8(history=history, margin=margin)
    return replace(recipes.get("fp8-delayed"), activation=e4m3, weight=e4m3, error=FP8("e5m2", history=history))


def test_delayed_scaling_has_a_history_of_maxima():
    """Scales of all three tensors of a product by the largest of the last two steps, 1 at first; evaluation leaves no
    trace; what is larger saturates; NaN stays NaN and out of the history."""
    layer = lns_sim.convert(nn.Sequential(nn.Linear(4, 4, bias=False)), delayed())
    scales, seen = {"activation": [], "error": []}, {}

    class Watch(lns_sim.ops.observer.Observer):
        def product(self, product):
            seen[product.name] = product.operands

    def run(size, error):
        with lns_sim.ops.observer.observe(Watch()):
            y = layer(torch.eye(4) * size)
            if error is not None:
                y.backward(torch.eye(4) * error)

    for size, error in ((3.0, 0.5), (1.0, 4.0), (0.5, 1.0), (8.0, 1.0), (2.0, 1.0), (2.0, 1.0)):
        with torch.no_grad():
            run(100.0, None)
        run(size, error)
        scales["activation"].append(seen["forward"][0].scale.item() * 448)
        scales["error"].append(seen["weight_gradient"][0].scale.item() * 57344)
        if size == 8.0:
            assert seen["forward"][0].value.max() == 1.0  # the largest of the two steps before
    assert scales["activation"] == pytest.approx([448, 3, 3, 1, 8, 8])
    assert scales["error"] == pytest.approx([57344, 0.5, 4, 4, 1, 1])
    kept = layer[0].weight.abs().max().item()
    assert seen["forward"][1].scale.item() * 448 == pytest.approx(kept)
    bad = torch.eye(4)
    bad[0, 0] = torch.nan
    assert layer(bad).isnan().any()
    run(1.0, None)
    assert seen["forward"][0].scale.isfinite() and seen["forward"][0].scale.item() * 448 == pytest.approx(2)
    once = lns_sim.convert(nn.Linear(4, 4), delayed(margin=3))
    for _ in range(2):
        with lns_sim.ops.observer.observe(Watch()):
            once(torch.eye(4))
    assert seen["forward"][0].scale.item() * 448 == pytest.approx(8)
    x = torch.randn(50)
    assert FP8(margin=3).quantize(x, None, -1)[1] == 8 * FP8().quantize(x, None, -1)[1]


def test_what_is_kept_goes_from_model_to_model(tmp_path):
    """By a state_dict, a weight file and torch's distributed checkpoints, to the numbers of a run that went on."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(5, 4, generator=generator) * size for size in (3.0, 0.1)]
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4))
    model, by_state, by_file, by_torch = (lns_sim.convert(copy.deepcopy(plain), delayed()) for _ in range(4))
    model(batches[0]).sum().backward()
    by_state.load_state_dict(json_free_copy(model.state_dict()))
    lns_sim.weights.save(model, tmp_path / "weights.safetensors")
    lns_sim.weights.load(by_file, tmp_path / "weights.safetensors")
    set_model_state_dict(by_torch, get_model_state_dict(model))
    found = []
    for each in (model, by_state, by_file, by_torch, lns_sim.convert(copy.deepcopy(plain), delayed())):
        y = each(batches[1])
        grads = torch.autograd.grad(y.square().sum(), each.parameters())
        found.append((y.detach(), *grads))
    assert all(same(found[0], other) for other in found[1:4]) and not same(found[0], found[4])
    assert not any("_extra_state" in name for name in lns_sim.convert(plain, "fp8").state_dict())


def test_what_is_kept_is_missed_by_name():
    """In a state_dict without it, which loads; and where it is something else, which does not."""
    model = lns_sim.convert(nn.Sequential(nn.Linear(4, 4)), delayed())
    model(torch.eye(4)).sum().backward()
    state = model.state_dict()
    kept = state.pop("0._extra_state")
    before = model(torch.eye(4))
    with pytest.warns(UserWarning, match="nothing of what fp8-delayed's quantizers keep between steps") as told:
        model.load_state_dict(state)
    assert told[0].filename == __file__ and torch.equal(model(torch.eye(4)), before)
    torch.save({"0": 3}, buffer := io.BytesIO())
    foreign = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    for other in (kept[:-9], kept.half(), {"maxima": 3}, foreign):
        with pytest.raises(RuntimeError, match="0._extra_state is not what lns_sim's quantizers keep between steps$"):
            model.load_state_dict({**state, "0._extra_state": other})
    own = type("Own", (nn.Linear,), {"get_extra_state": lambda self: 1})(4, 4)
    plain = nn.Sequential(nn.Linear(4, 4), own)
    with pytest.raises(TypeError, match=r"1 \(Own\) has a get_extra_state of its own, .* leave it in float32 by skip"):
        lns_sim.convert(plain, "fp8-delayed")
    assert type(plain[0]) is nn.Linear  # nothing is converted then
    assert type(lns_sim.convert(plain, "fp8-delayed", skip="1")[1]) is type(own)


def test_a_weight_file_of_another_extra_state_changes_nothing(tmp_path):
    model, other = lns_sim.convert(nn.Sequential(nn.Linear(4, 4)), delayed()), nn.Sequential(nn.Linear(4, 4))
    other[0].register_buffer("_extra_state", torch.zeros(4, dtype=torch.uint8))
    lns_sim.weights.save(other, tmp_path / "weights.safetensors")
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match="weights.safetensors: 0._extra_state is not what lns_sim's quantizers keep"):
        lns_sim.weights.load(model, tmp_path / "weights.safetensors")
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_history_of_another_length_becomes_the_recipes(steps):
    """Cut to the last steps, or filled step by step."""
    old, new = (lns_sim.convert(nn.Linear(4, 4), delayed(history=n)) for n in (steps, 2))
    for size in (7.0, 3.0, 1.0):
        old(torch.eye(4) * size)
    new.load_state_dict(old.state_dict())
    found = []

    class Watch(lns_sim.ops.observer.Observer):
        def product(self, product):
            found.append(product.operands[0].scale.item() * 448)

    with lns_sim.ops.observer.observe(Watch()):
        for _ in range(3):
            new(torch.eye(4) * 0.5)
    assert found == pytest.approx([3 if steps == 3 else 1, 1, 0.5])


class Twice(nn.Module):
    """Two layers, whose first part a checkpoint may compute again."""

    def __init__(self, checkpoint=None):
        super().__init__()
        self.first, self.second, self.checkpoint = nn.Linear(6, 6), nn.Linear(6, 3), checkpoint

    def hidden(self, x):
        return torch.relu(self.first(x)) @ x.mT @ x

    def forward(self, x):
        h = self.hidden(x) if self.checkpoint is None else self.checkpoint(self.hidden, x)
        return self.second(h)


def test_delayed_scaling_with_checkpointing_and_where_it_is_refused(device):
    """What is computed again has the scales of the first time; whoever keeps no history says so."""
    found = []
    ways = [partial(checkpoint, use_reentrant=reentrant) for reentrant in (False, True)]
    for whole, inside in [(None, None), *((way, None) for way in ways), *((None, way) for way in ways)]:
        torch.manual_seed(0)
        model = lns_sim.convert(Twice(inside), delayed()).to(device)
        for size in (1.0, 5.0, 0.2):
            x = (torch.randn(8, 6, generator=torch.Generator().manual_seed(1)) * size).to(device).requires_grad_()
            model.zero_grad()
            y = model(x) if whole is None else whole(model, x)
            y.square().sum().backward()
            with torch.no_grad():
                model((9 * x).requires_grad_())  # leaves nothing
        found.append([y, x.grad, *(p.grad for p in model.parameters())])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    with (
        lns_sim.simulate(delayed(), random_state(0)),
        pytest.raises(RuntimeError, match="history of maxima is kept by"),
    ):
        torch.ones(2, 4) @ torch.ones(4, 2)
    with pytest.raises(Exception, match="without torch.compile"):
        torch.compile(lns_sim.convert(nn.Linear(6, 3), delayed()), backend="aot_eager", fullgraph=True)(x.cpu())
    with pytest.raises(Exception, match="without torch.compile"):
        torch.export.export(lns_sim.convert(nn.Linear(6, 3), delayed()), (x.cpu().detach(),), strict=False)
    with pytest.raises(ValueError, match="gradient: FP8's history of maxima has no effect"):
        replace(recipes.get("fp8"), gradient=FP8(history=2))
    with pytest.raises(ValueError, match="activation: LUQ's maximum in hindsight has no effect"):
        replace(recipes.get("luq"), activation=LUQ(hindsight=True))


@pytest.mark.parametrize("name", ["luq", "shiftquant6", "fp8", "int8"])
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


@pytest.mark.slow
def test_compiled_code_is_of_the_sources_that_are(tmp_path, monkeypatch):
    """Not what torch's cache on the disk holds of a derivative that has changed; with the same sources it serves."""
    from torch._dynamo.utils import counters
    from torch._inductor.utils import fresh_cache

    monkeypatch.syspath_prepend(tmp_path)
    source = (
        "from dataclasses import dataclass\n\nfrom lns_sim.quantizers.fp8 import FP8\n\n\n@dataclass(frozen=True)\n"
        "class Scaled(FP8):\n    def error_operands(self, x, rng, dim, memory):\n"
        "        return super().error_operands(FACTOR * x, rng, dim, memory)\n\n\nFACTOR = "
    )
    found = []
    with fresh_cache():
        for name, factor in (("scaled", 1), ("scaled", 1), ("scaled", 20)):
            (tmp_path / f"{name}.py").write_text(f"{source}{factor}\n")
            sys.modules.pop(name, None)
            importlib.invalidate_caches()
            own = importlib.import_module(name)
            torch._dynamo.reset()
            hits = counters["aot_autograd"]["autograd_cache_hit"]
            torch.manual_seed(0)
            layer = lns_sim.convert(nn.Linear(6, 3), replace(recipes.get("fp8"), error=own.Scaled()))
            torch.compile(layer)(torch.ones(2, 6)).sum().backward()
            found.append(
                (
                    layer.bias.grad.sum().item(),
                    layer.weight.grad.sum().item(),
                    counters["aot_autograd"]["autograd_cache_hit"] - hits,
                )
            )
    del QUANTIZERS._entries["Scaled"]
    assert found[0][1] == found[1][1] == found[2][1] / 20 and [hits for *_, hits in found] == [0, 1, 0]


def test_a_quantizer_defined_anew_takes_its_own_place():
    def define(place):
        return type("Halved", (FP8,), {"__module__": "notebook", "__qualname__": place})

    first = define("Halved")
    recipe = replace(recipes.get("fp8"), activation=first())
    assert type(Recipe.decode(recipe.encode()).activation) is first
    again = define("Halved")
    assert first is not again and QUANTIZERS["Halved"] is again
    assert type(Recipe.decode(recipe.encode()).activation) is again  # as operators read it
    with pytest.raises(ValueError, match="there is a quantizer 'Halved' already"):
        define("Other.Halved")
    del QUANTIZERS._entries["Halved"]


@pytest.mark.parametrize("name", ["lns-madam", "luq", "shiftquant6", "fp8", "int8"])
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
    assert luq.rounding(LUQ(), 4000)["z"] == pytest.approx(1, abs=0.05)
    for biased in (LUQ(below="flush"), LUQ(above="nearest"), LUQ(below="flush", above="nearest")):
        assert luq.rounding(biased, 4000)["z"] > 2


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
    errors = {n: luq.gradient_error(n) for n in (0, 1, 2, 8, 32)}
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


def spread_means(study):
    """Accuracy of each quantizer, of three seeds and six epochs on digits."""
    bench = Bench({"images": "digits"})
    task = replace(PRESETS["small"].network, epochs=3)
    cells = study.cells(replace(PRESETS["small"], network=task))
    return {
        cell.labels["gradients"]: statistics.mean(run.function(bench, **run.arguments) for run in cell.runs[:3])
        for cell in cells
    }


@pytest.mark.slow
def test_ablation_order():
    mean = spread_means(spread.Roundings())
    assert mean["LUQ"] > 85 and mean["stochastic pruning only"] > 85
    assert (
        mean["LUQ"] > mean["stochastic rounding only"] + 10 and mean["stochastic pruning only"] > mean["neither"] + 10
    )


# ---- ShiftQuant and L1 normalization


def test_shiftquant_is_shifts_in_an_integer_product():
    torch.manual_seed(0)
    x = torch.randn(20, 16) * torch.exp2(-torch.arange(16) / 2)
    q, w = ShiftQuant(4, 4), torch.randint(-127, 128, (16, 9))
    codes, scale = q.quantize(x, random_state(0), -1)
    k = q.octaves(x, -1)
    ranges = x.abs().amax(0)
    assert k.tolist() == [min(3, int(torch.floor(torch.log2(ranges.max() / r)))) for r in ranges]
    narrow = codes.to(torch.int64) >> (3 - k)  # what is stored: 4 bits
    assert narrow.abs().max() <= 7 and torch.equal(narrow << (3 - k), codes.to(torch.int64))
    shifted = sum((narrow[:, c : c + 1] * w[c : c + 1]) << (3 - int(k[c])) for c in range(16))  # in the accumulator
    assert torch.equal(shifted, codes.to(torch.int64) @ w)
    assert scale == x.abs().max() / 7 / 8
    one, s = ShiftQuant(4, 1).quantize(x, random_state(0), -1)
    same, t = Integer(4, "stochastic").quantize(x, random_state(0), -1)
    assert torch.equal(one.float() * s, same.float() * t)


def test_zero_points_by_hand():
    x = torch.tensor([[3.0, -1.0], [0.0, 0.25], [2.2, 0.5]])
    codes, scale = Integer(3, zero_point=True).quantize(x, None, -1)  # 7 steps from -1 to 3, the zero point at 2
    assert scale.item() == pytest.approx(4 / 7) and codes.tolist() == [[5, -2], [0, 0], [4, 1]]
    positive = torch.rand(1000)
    codes, scale = Integer(4, zero_point=True).quantize(positive, None, -1)
    assert set(codes.tolist()) == set(range(16)) and scale.item() == pytest.approx(positive.max().item() / 15)
    assert Integer(8, zero_point=True).quantize(positive, None, -1)[0].max() == 255
    torch.manual_seed(0)
    x = torch.randn(400, 8) * torch.exp2(-torch.arange(8) / 2) + torch.linspace(-1, 1, 8)
    q = ShiftQuant(4, 4, zero_point=True)
    codes, scale = q.quantize(x, random_state(0), -1)
    low, high = x.amin(0).clamp(max=0), x.amax(0).clamp(min=0)
    k = torch.floor(torch.log2((high - low).max() / (high - low))).clamp(max=3).int()
    assert q.octaves(x, -1).tolist() == k.tolist()
    steps = 8 * scale * torch.exp2(-k.float())
    assert scale.item() * 8 == pytest.approx((high - low).max().item() / 15)
    stored = (codes.int() >> (3 - k)) + (-low / steps).round().int()
    assert stored.min() == 0 and stored.max() in (14, 15) and (codes.int() == codes.int() >> (3 - k) << (3 - k)).all()
    assert ((codes * scale - x).abs() <= 1.01 * steps).all()
    drawn = torch.stack([q.quantize(x[:4], random_state(i), -1)[0].float() for i in range(4000)]).mean(0)
    inside = (x[:4] > x[:4].amin(0)) & (x[:4] < x[:4].amax(0))
    assert torch.allclose((drawn * q.quantize(x[:4], random_state(0), -1)[1])[inside], x[:4][inside], atol=0.02)


@pytest.mark.parametrize("layer", [nn.Linear(6, 5, bias=False), nn.Conv2d(6, 5, 3, bias=False)])
def test_products_of_zero_points_are_exact(layer):
    torch.manual_seed(0)
    recipe = replace(recipes.get("shiftquant4"), l1_norms=False)
    x = torch.randn(7, 6) + 1 if isinstance(layer, nn.Linear) else torch.randn(2, 6, 5, 5) + 1
    seen = []

    class Watch(lns_sim.ops.observer.Observer):
        def product(self, product):
            seen.append(product)

    with lns_sim.ops.observer.observe(Watch()):
        layer = lns_sim.convert(layer, recipe)
        layer(x.requires_grad_()).square().sum().backward()
    forward = seen[0]
    a, b = (o.codes.double() for o in forward.operands)
    exact = a @ b if a.dim() == 2 else F.conv2d(a, b)
    assert torch.equal(forward.out, (exact * (forward.operands[0].scale * forward.operands[1].scale).double()).float())
    assert len(seen) == 3 and all(o.largest in (15, 15 << 3) for p in seen for o in p.operands)


def test_shiftquants_variance():
    found = {n: list(shiftquant.variances(n).values()) for n in (1, 2, 4)}
    assert found[1][0] > found[2][0] > found[4][0]
    assert all(measured <= bound and best <= bound * (1 + 1e-6) for measured, bound, best in found.values())
    assert optimal_grouping([1.0, 8.0, 7.9, 0.9], 2, 4) == [1 / 7, 8 / 7, 8 / 7, 1 / 7]
    assert optimal_grouping([1.0, 8.0], 5, 4) == [1 / 7, 8 / 7]


@pytest.mark.slow
def test_shiftquants_headline():
    found = spread_means(spread.Channels())
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
    coarse = L1BatchNorm(4, bits=3)
    with torch.no_grad():
        coarse.weight.copy_(torch.tensor([1.0, 0.7, 0.2, -0.9]))
    quantized = coarse(x)
    assert all(len(column.unique()) <= 7 for column in quantized.T)
    plain, _ = _Normalize.apply(x, [0], coarse.eps, 3)
    assert torch.allclose(quantized, plain * torch.tensor([1.0, 2 / 3, 1 / 3, -1.0]))  # gains of 3 bits
    quantized.square().sum().backward()
    assert torch.allclose(coarse.weight.grad, (2 * quantized * plain).sum(0).detach(), rtol=1e-4)
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
        assert lns_sim.convert(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), "shiftquant6")(
            torch.zeros(2, 4)
        ).is_meta


def normed():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)))


def kinds(model):
    return [type(model[1]), type(model[2][0])]


def test_l1_norms_follow_the_plan():
    both, none = [L1BatchNorm, L1LayerNorm], [nn.BatchNorm1d, nn.LayerNorm]
    l1, plain = recipes.get("shiftquant6"), recipes.get("fp8")
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
        lns_sim.convert(model, "shiftquant6")
    assert kinds(model) == [type(norm), nn.LayerNorm] and type(model[0].weight) is nn.Parameter
    lns_sim.convert(model, "shiftquant6", skip="1")
    assert model[1] is norm and kinds(model)[1] is L1LayerNorm


def test_norms_that_cannot_be_replaced_where_they_are():
    with pytest.raises(ValueError, match="the model itself"):
        lns_sim.convert(nn.LayerNorm(4), "shiftquant6")
    shared = nn.LayerNorm(4)
    with pytest.raises(ValueError, match="0 and 1 are one norm"):
        lns_sim.convert(nn.Sequential(shared, shared), "shiftquant6", skip="1")


def test_l1_forms_keep_hooks():
    model, seen = normed(), []
    model[1].register_forward_hook(lambda module, args, y: seen.append(type(module)))
    model[1].register_full_backward_hook(lambda module, dx, dy: seen.append("backward"))
    lns_sim.convert(model, "shiftquant6")(torch.randn(3, 4)).sum().backward()
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


def tiny(**options):
    return data.Data(
        "tiny", torch.randn(64, 6), torch.arange(64) % 3, torch.randn(8, 6), torch.arange(8) % 3, **options
    )


def made(recipe, epochs=3, batch_size=8, **settings):
    """A trainer of a small network with a norm."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    settings = Settings(epochs=epochs, batch_size=batch_size, warmup=0.0, counters=False, **settings)
    return Trainer(tiny(), recipe, 0, settings, model=model)


def test_madam_as_its_authors_run_it():
    """All parameters by multiplication; no affine norms; biases drawn; levels drawn; lr_factor 16, 4, 1."""
    recipe = recipes.get("integer-madam-published")
    trainer = made(recipe, lr=0.016, schedule="step", decay=0.25)
    norm, *layers = trainer.model[1], trainer.model[0], trainer.model[3]
    assert norm.weight is norm.bias is None and not norm.affine
    drawn = torch.cat([layer.bias.detach() for layer in layers])
    assert 0.003 < drawn.std() < 0.02 and (drawn != 0).all()
    rates = []
    for _ in range(3):
        trainer.run_epoch(lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    assert sorted(set(rates), reverse=True) == pytest.approx([16, 4, 1])
    assert all("level" in trainer.optimizer.state[p] for p in trainer.model.parameters())
    for name in ("madam-published", "lns-madam-published"):
        one = made(recipes.get(name))
        before = [p.detach().clone() for p in one.model.parameters()]
        one.run_epoch()
        assert len(one.optimizer.state) == len(before) and all("moment" in s for s in one.optimizer.state.values())
        assert all((p.sign() == b.sign()).all() for p, b in zip(one.model.parameters(), before, strict=True))
    plain = made(recipes.get("madam"))
    assert plain.model[1].affine and not plain.optimizer.takes(plain.model[0].bias)
    ten = replace(recipe, optimizer_options={**dict(recipe.optimizer_options), "levels": 1024, "base_lr": 0.005})
    (group,) = made(ten, lr=0.01).optimizer.param_groups
    assert (group["levels"], group["base_lr"], group["lr"]) == (1024, 0.005, pytest.approx(2))
    p = weight([0.5])
    floor = IntegerMadam([p], lr=0.01, smallest_lr=1.0)
    step(floor, p, [1.0])
    assert floor.state[p]["level"] == round(math.log(3) / 0.001) + 1
    with pytest.raises(ValueError, match="decay = 0.25 has no effect"):
        Settings(decay=0.25)


def test_the_published_optimizers_weight_decay():
    p, q = weight([0.5, -0.5]), weight([0.5, -0.5])
    step(PublishedLNSMadam([p], lr=0.1, wd=0.3), p, [2.0, 1.0])
    assert p.detach().flatten().tolist() == pytest.approx([0.5 * math.exp(-0.13), -0.5 * math.exp(0.1 - 0.03)])
    step(PublishedLNSMadam([q], lr=0.1), q, [2.0, 1.0])
    assert q.detach().flatten().tolist() == pytest.approx([0.5 * 2**-0.1, -0.5 * 2**0.1])


# ---- HALP


def test_halps_scales_are_each_layers_own():
    """``||g_layer|| / (mu (2^(bits-1) - 1))`` of a net of two layers whose gradients differ a hundred times; with one
    scale for all the smaller one's offset has no grid."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Linear(7, 2, bias=False))
    x = torch.randn(40, 5)

    def closure():
        loss = (net[0](x).square().mean() / 100) + net[1](x @ torch.ones(5, 7)).square().mean()
        loss.backward()
        return loss

    for scale in ("tensor", "model"):
        optimizer = HALP(net.parameters(), 0.001, bits=6, mu=2.0, scale=scale)
        total = optimizer.outer(closure)
        gradients = [optimizer.state[layer.weight]["g"] for layer in net]
        norms = [g.norm().item() for g in gradients]
        assert norms[1] > 100 * norms[0] and total == pytest.approx(math.hypot(*norms))
        expected = [n / (2.0 * 31) for n in norms] if scale == "tensor" else [total / (2.0 * 31)] * 2
        assert [optimizer.state[layer.weight]["delta"].item() for layer in net] == pytest.approx(expected)
        optimizer.step(closure)
        for layer, delta in zip(net, expected):
            steps = optimizer.state[layer.weight]["z"] / delta
            assert torch.allclose(steps, steps.round(), atol=1e-3) and steps.abs().max() <= 32


@pytest.mark.parametrize("period, expected", [(0.5, [0, 4, 8, 12, 16, 20]), (1.0, [0, 8, 16]), (3.0, [0])])
def test_halps_period_in_epochs(period, expected, monkeypatch):
    recipe = replace(recipes.get("halp"), optimizer_options=dict(period=period, mu=20.0, bits=4))
    trainer = made(recipe, float_lr=0.01)
    optimizer, outer, found = trainer.optimizer, trainer.optimizer.outer, []
    assert (optimizer.bits, optimizer.mu, optimizer.scale) == (4, 20.0, "tensor")
    assert optimizer.param_groups[0]["weight_decay"] == Settings.weight_decay
    monkeypatch.setattr(optimizer, "outer", lambda c: (found.append(optimizer.param_groups[0]["steps"]), outer(c))[1])
    for _ in range(3):
        trainer.run_epoch()
    assert found == expected and optimizer.saturated <= 1


def test_halps_momentum_and_weight_decay():
    """SGD's, in float32: of z in HALP, as in the authors' code, of the weights in the others."""
    for method in ("sgd", "svrg", "halp"):
        p = weight([1.0, -2.0])
        options = dict(bits=24, mu=0.001) if method == "halp" else {}
        optimizer = HALP([p], 0.1, method, momentum=0.9, weight_decay=0.5, **options)

        def closure(p=p):
            loss = p.square().sum() / 2
            loss.backward()
            return loss

        if optimizer.two_gradients:
            optimizer.outer(closure)
        start = p.detach().clone()
        x, v = start.clone(), torch.zeros_like(start)
        for _ in range(4):
            optimizer.step(closure)
            decayed = x - start if method == "halp" else x
            v = 0.9 * v + x + 0.5 * decayed
            x = x - 0.1 * v
        assert torch.allclose(p.detach(), x, atol=1e-3), method
        again = copy.deepcopy(optimizer)
        again.load_state_dict(optimizer.state_dict())
        assert again.param_groups[0]["momentum"] == 0.9 and again.saturated == optimizer.saturated


@pytest.mark.slow
def test_halps_headline():
    norms = {m: halp.gradient_norms(m) for m in ("halp", "lp-svrg", "lp-sgd")}
    assert norms["halp"][0] == pytest.approx(5.6, abs=0.5)
    assert norms["halp"][-1] < 1e-11 and norms["lp-svrg"][-1] > 0.3 and norms["lp-sgd"][-1] > 0.3
    x, y = halp.least_squares()
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
        halp.gradient_norms("halp", mu=0.1)
    grows = HALP([p := weight([1.0])], 0.1, "svrg")
    for norm in (1.0, 20.0, 20.0, 20.0, 200.0, 200.0):  # a deep net's grows as it begins to learn
        assert grows.outer(lambda: (norm * p).sum().backward()) == norm
    with pytest.raises(Diverged, match="from 1 to 200: the learning rate is too large"):
        grows.outer(lambda: (200 * p).sum().backward())
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


def lenet_like(smooth):
    kinds = (nn.Tanh(), nn.AvgPool2d(2)) if smooth else (nn.ReLU(), nn.MaxPool2d(2))
    convolution = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), *kinds)
    return nn.Sequential(convolution, nn.Flatten(), nn.Linear(48, 10), nn.Tanh(), nn.Linear(10, 4))


def differences(size, bits, smooth, dtype=torch.float64):
    """How far an offset of that size moves the gradient: by bit-centered layers, and exactly."""
    torch.manual_seed(0)
    net, x, y = lenet_like(smooth).to(dtype), torch.randn(16, 1, 8, 8, dtype=dtype), torch.arange(16) % 4
    offsets = {p: Offset(p.detach().clone(), size * torch.randn_like(p)) for p in net.parameters()}

    def gradient(place):
        with torch.no_grad():
            for p, offset in offsets.items():
                p.copy_(place(offset))
        loss = F.cross_entropy(net(x), y)
        return loss, torch.autograd.grad(loss, list(offsets))

    _, at_w = gradient(lambda offset: offset.w)
    loss, now = gradient(lambda offset: offset.w + offset.z)
    found_loss, found = gradient_difference(net, x, lambda out: F.cross_entropy(out, y), offsets, bits)
    exact = torch.cat([(a - b).flatten() for a, b in zip(now, at_w)])
    return (
        torch.cat([found[p].flatten() for p in offsets]),
        exact,
        found_loss - loss,
        torch.cat([a.flatten() for a in at_w]),
    )


def test_bit_centered_layers_give_the_difference_of_two_gradients():
    found, exact, loss, _ = differences(0.05, None, smooth=False)
    assert torch.allclose(found, exact, atol=1e-12) and loss.abs() < 1e-12
    with pytest.raises(ValueError, match="not BatchNorm1d"):
        bit_centered.layers_of(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))


def test_rounding_shrinks_with_the_offset():
    """In 8 bits the difference is good to some per cent, whatever its size: its error falls with z, where that of a
    gradient whose operands are rounded stays."""
    errors = {}
    for size in (0.03, 0.0003):
        found, exact, _, at_w = differences(size, 8, smooth=True)
        errors[size] = ((found - exact).norm() / at_w.norm()).item()
        assert (found - exact).norm() < 0.15 * exact.norm()
    assert errors[0.0003] < errors[0.03] / 50


@pytest.mark.slow
def test_halp_trains_in_bit_centered_layers():
    recipe = replace(recipes.get("halp"), optimizer_options=dict(layer_bits=8, mu=5.0, period=1.0, momentum=0.5))
    assert bits_of(recipe) == {"activation": "8", "weight": "32", "error": "8", "gradient": "32"}
    assert format_of(recipe) is None
    settings = Settings(model="mlp", epochs=3, float_lr=0.1, batch_size=64, counters=False)
    trainer = Trainer(data.load("digits"), recipe, 0, settings)
    trainer.run()
    assert trainer.result.test[-1] > 85 and trainer.result.loss[1] < trainer.result.loss[0]
    with pytest.raises(ValueError, match="bit-centered layers are those of an nn.Sequential"):
        Trainer(data.load("digits"), recipe, 0, Settings(model="cnn", epochs=1)).run()
    with pytest.raises(TypeError, match="need an lns_sim.optim.Batch"):
        p = weight([1.0])
        optimizer = HALP([p], 0.1, layer_bits=4)
        optimizer.outer(lambda: p.sum().backward())
        optimizer.step(lambda: p.sum().backward())
    with pytest.raises(ValueError, match="layer_bits has no effect on svrg"):
        HALP([p], 0.1, "svrg", layer_bits=4)


# ---- All of them together


def test_the_summary_names_other_systems_codes():
    model = lns_sim.convert(models.build("mlp", (1, 8, 8), 10), "luq")
    text = str(lns_sim.summary(model, torch.zeros(2, 1, 8, 8)))
    assert (
        "4-bit SAWB x 4-bit SAWB" in text
        and "4-bit LUQ x 4-bit SAWB" in text
        and "products left in float32: none" in text
    )
    first = lns_sim.summary(model, torch.zeros(2, 1, 8, 8)).passes[0]
    assert first.bytes == 2 * 64 + 64 * 256 + 4 * 2 * 256  # a byte a code


def test_what_a_table_says_of_recipes():
    assert bits_of(None) == dict.fromkeys(("activation", "weight", "error", "gradient"), "32")
    assert bits_of(recipes.get("lns-madam")) == {"activation": "8", "weight": "8 (16)", "error": "8", "gradient": "8"}
    assert bits_of(recipes.get("luq")) == {"activation": "4", "weight": "4", "error": "4", "gradient": "32"}
    assert [bits_of(recipes.get(name))["weight"] for name in ("madam", "integer-madam", "lp-sgd")] == ["32", "13", "8"]
    few = replace(recipes.get("integer-madam"), optimizer_options=dict(levels=256, base_lr=0.01))
    assert bits_of(few)["weight"] == "9"  # 8 bits and a sign
    formats = {name: format_of(recipes.get(name)) for name in RECIPES}
    assert formats == {
        "fp32": "FP32",
        "lns-madam": "LNS",
        "lns-madam-fake-quant": "LNS",
        "lns-madam-flush": "LNS",
        "lns-madam-flush-fake-quant": "LNS",
        "lns-madam-block32": None,
        "lns-madam-block32-4bit": None,
        "lns-madam-block32-5bit": None,
        "lns-madam-block32-6bit": None,
        "fp8": "FP8",
        "fp8-delayed": "FP8",
        "mxfp4": None,
        "mxfp4-stochastic": None,
        "int8": "INT8",
        "luq": None,
        "luq-smp2": None,
        "shiftquant4": None,
        "shiftquant6": None,
        "madam": "FP32",
        "madam-published": "FP32",
        "integer-madam": "FP32",
        "integer-madam-published": "FP32",
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
        "--extend",
        "1",
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


def test_energies_where_there_is_no_such_hardware(tmp_path):
    passes = ("forward", "input_gradient", "weight_gradient")
    log = tmp_path / "log.toml"
    log.write_text("".join(f'[{name}]\ndatapath = "LogDatapath"\nvector_size = 32\n' for name in passes))
    names = [str(log), "lns-madam-block32", "lns-madam", "int8", "fp32"]
    contest = Contest(data.load("digits"), names, Settings(model="mlp"), [1.0], [0], tmp_path / "runs.json")
    log, blocks, linear, int8, full = contest.energies().values()
    assert log is None and blocks is None and 0 < linear < int8 < full
    log, blocks, linear, int8, full = contest.energies("measured").values()
    assert blocks is None and full is None and int8 > 0 and 0 < linear < log / 5  # exact tables of 16 bits


def test_a_factor_alone_is_of_the_learning_rate_that_trains(tmp_path):
    settings = Settings(model="mlp", epochs=1, float_lr=0.125, counters=False)
    (entry,) = Contest(data.load("digits"), ["fp32"], settings, [0.5], [0], tmp_path / "runs.json").run()
    assert (
        entry.lr == 0.0625
        and not entry.tuned
        and set(json.loads((tmp_path / "runs.json").read_text())["runs"]) == {"fp32|0.0625|0|test"}
    )
    for factor in (float("nan"), -1.0, 0.0):
        with pytest.raises(ValueError, match="a factor of the search must be a finite number above 0"):
            Contest(data.load("digits"), ["fp32"], settings, [factor], [0], tmp_path / "other.json")


def test_a_system_that_diverges_is_said_to(tmp_path):
    settings = Settings(model="mlp", epochs=1, float_lr=1e6, counters=False)
    contest = Contest(data.load("digits"), ["fp8"], settings, [1.0, 2.0], [0], tmp_path / "runs.json")
    entry = contest.run()[0]
    assert entry.lr is None and entry.results == {0: None} and set(entry.tuned.values()) == {None}
    assert len(entry.tuned) == 8 and min(entry.tuned) == 1e6 / 2**6  # smaller ones were tried


@pytest.mark.parametrize(
    "score, extend, tried, best, end",
    [
        (lambda lr: -abs(math.log2(lr) - 4), 6, 5, 16.0, None),  # beyond the largest: 0.25, 1, 4 go on
        (lambda lr: -abs(math.log2(lr) + 6), 6, 6, 2.0**-6, None),
        (lambda lr: -abs(math.log2(lr)), 6, 3, 1.0, None),
        (lambda lr: lr if lr < 100 else None, 9, 6, 64.0, None),  # what diverges ends it, too
        (lambda lr: lr, 2, 5, 64.0, "largest"),
        (lambda lr: -lr, 1, 4, 1 / 16, "smallest"),
        (lambda lr: 5.0, 6, 3, 1.0, None),  # of equals one inside
    ],
)
def test_the_search_goes_on_until_the_best_lies_inside(score, extend, tried, best, end, tmp_path, monkeypatch):
    settings = Settings(model="mlp", epochs=1, float_lr=1.0)
    contest = Contest(data.load("digits"), ["fp32"], settings, [4, 0.25, 1], [0], tmp_path / "j", extend=extend)

    def one(name, lr, seed, tuning, *_):
        contest._runs[contest._key(name, lr, seed, tuning)] = None
        return None if score(lr) is None else {"test": [score(lr)]}

    monkeypatch.setattr(contest, "_one", one)
    assert contest.runs == 4
    entry = contest.run()[0]
    assert (len(entry.tuned), entry.lr, entry.end) == (tried, best, end) and list(entry.tuned) == sorted(entry.tuned)
    assert contest.runs == contest.finished == tried + 1


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
