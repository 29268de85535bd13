"""One GPU against its targets: products in TMAC/s and against float32 (TF32 off), elementwise against a copy,
the step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch

import lns_sim
from benchmarks.harness import Measurement, median_seconds, paired, step_against
from benchmarks.log_domain import on_gpu as log_domain
from benchmarks.products import FORMATS, LAYERS, VARIANTS, WIDE, random_codes
from benchmarks.steps import OTHER_SYSTEMS, eager_fake_quant, training_step
from benchmarks.trainer_steps import trainer_steps
from benchmarks.wide import wide
from lns_sim import Counters, Datapath, LNSFormat, recipes
from lns_sim.checks import check_device
from lns_sim.cli.bench import conv_passes
from lns_sim.optim import LNSMadam
from lns_sim.quantizers.luq import LUQ
from lns_sim.studies import models

# ResNet-50's ImageNet convolutions at 224 x 224: inputs, outputs, input size, stride, kernel, how often.
IMAGENET = [
    (3, 64, 224, 2, 7, 1),
    (64, 64, 56, 1, 1, 1),
    (64, 64, 56, 1, 3, 3),
    (64, 256, 56, 1, 1, 4),
    (256, 64, 56, 1, 1, 2),
    (256, 128, 56, 1, 1, 1),
    (128, 128, 56, 2, 3, 1),
    (128, 512, 28, 1, 1, 4),
    (256, 512, 56, 2, 1, 1),
    (512, 128, 28, 1, 1, 3),
    (128, 128, 28, 1, 3, 3),
    (512, 256, 28, 1, 1, 1),
    (256, 256, 28, 2, 3, 1),
    (256, 1024, 14, 1, 1, 6),
    (512, 1024, 28, 2, 1, 1),
    (1024, 256, 14, 1, 1, 5),
    (256, 256, 14, 1, 3, 5),
    (1024, 512, 14, 1, 1, 1),
    (512, 512, 14, 2, 3, 1),
    (512, 2048, 7, 1, 1, 3),
    (1024, 2048, 14, 2, 1, 1),
    (2048, 512, 7, 1, 1, 2),
    (512, 512, 7, 1, 3, 2),
]
# ResNet-20's on CIFAR: narrow, so that a product has few rows or columns.
RESNET20 = [
    (3, 16, 32, 1, 3, 1),
    (16, 16, 32, 1, 3, 6),
    (16, 32, 32, 2, 3, 1),
    (16, 32, 32, 2, 1, 1),
    (32, 32, 16, 1, 3, 5),
    (32, 64, 16, 2, 3, 1),
    (32, 64, 16, 2, 1, 1),
    (64, 64, 8, 1, 3, 5),
]
CIFAR_COUNT = {(64, 64, 32, 1): 4, (128, 128, 16, 1): 3, (256, 256, 8, 1): 3, (512, 512, 4, 1): 3}


codes = partial(random_codes, device="cuda")


def rate(section: str, work: str, macs: int, ours: Callable, target: float | None) -> Measurement:
    """Products a second, median of several timings."""
    t = median_seconds(ours)
    return Measurement(section, work, macs / t / 1e12, target, unit="TMAC/s", seconds=t, macs=macs)


def matmuls() -> Iterator[Measurement]:
    """The sizes of the targets."""
    section = "GPU, matmul"
    a, b = codes((4096, 4096)), codes((4096, 4096))
    x, y = torch.randn(2, 4096, 4096, device="cuda")
    yield rate(section, "4096 x 4096 x 4096", 4096**3, lambda: lns_sim.matmul(a, b), 6.0)
    ratio, t, peer = paired(lambda: lns_sim.matmul(a, b), lambda: x @ y)
    yield Measurement(section, "the same", ratio, 0.24, seconds=t, peer_seconds=peer, macs=4096**3)
    for batch, m, k, n in [((), 4096, 1024, 1024), ((), 8192, 768, 3072), ((192,), 512, 64, 512)]:
        a, b = codes((*batch, m, k)), codes((*batch, k, n))
        name = f"{m} x {k} x {n}" + (f", batch {batch[0]}" if batch else "")
        macs = m * k * n * (batch[0] if batch else 1)
        yield rate(section, name, macs, lambda: lns_sim.matmul(a, b), 4.5)


def datapaths() -> Iterator[Measurement]:
    """Other datapaths as a share of the default's speed, 2048^3."""
    n, default = 2048, Datapath()
    a, b = codes((n, n)), codes((n, n))
    others = {name: Datapath(**options) for name, options in VARIANTS.items()}
    others |= {f"{bits} bits, gamma {gamma}": Datapath(LNSFormat(bits, gamma)) for bits, gamma in FORMATS + WIDE}
    for name, d in others.items():
        x, y = codes((n, n), d.format), codes((n, n), d.format)
        ratio, t, peer = paired(lambda: lns_sim.matmul(x, y, d), lambda: lns_sim.matmul(a, b, default), rounds=3)
        target = None if d.format.bits > 8 else 0.7
        yield Measurement(
            "GPU, other datapaths", name, ratio, target, unit="x default", seconds=t, peer_seconds=peer, macs=n**3
        )


def layers(section: str, batch: int, shapes, target: float | None = 4.0) -> Iterator[Measurement]:
    """Every pass of every layer, and the sum over all."""
    total_macs, total_seconds = 0, 0.0
    for c, o, size, stride, kernel, count in shapes:
        out = (size + 2 * (kernel // 2) - kernel) // stride + 1
        shapes_of = ((batch, c, size, size), (o, c, kernel, kernel), (batch, o, out, out))
        x, w, dy = (lns_sim.quantize(torch.randn(shape, device="cuda")) for shape in shapes_of)
        macs = dy.numel() * c * kernel * kernel
        for name, ours in conv_passes(x, w, dy, stride).items():
            if c == 3 and name == "input gradient":
                continue  # the first layer needs none
            m = rate(section, f"{c} -> {o}, {size} x {size} / {stride}, {kernel} x {kernel}, {name}", macs, ours, None)
            total_macs += count * macs
            total_seconds += count * m.seconds
            yield m
    yield Measurement(
        section,
        "sum of all layers and passes",
        total_macs / total_seconds / 1e12,
        target,
        unit="TMAC/s",
        seconds=total_seconds,
        macs=total_macs,
    )


def convolutions() -> Iterator[Measurement]:
    """ResNet-18 and ResNet-20 on CIFAR at batch 256, ResNet-50 on ImageNet at batch 64."""
    cifar = [(c, o, size, stride, 3, CIFAR_COUNT.get((c, o, size, stride), 1)) for c, o, size, stride in LAYERS]
    cifar += [(c, 2 * c, size, 2, 1, 1) for c, size in ((64, 32), (128, 16), (256, 8))]
    yield from layers("GPU, conv2d, ResNet-18 on CIFAR, batch 256", 256, cifar)
    yield from layers("GPU, conv2d, ResNet-20 on CIFAR, batch 256", 256, RESNET20, None)
    yield from layers("GPU, conv2d, ResNet-50 on ImageNet, batch 64", 64, IMAGENET)
    yield from first_weight_gradients()


def first_weight_gradients() -> Iterator[Measurement]:
    """Of ResNet-18's first layers, on normal inputs and errors: with one error 64 times as large as the others, as in
    training errors are far below their largest, and without, where accumulators come near the ends of their range.
    """
    section = "GPU, weight gradients of ResNet-18's first layers on CIFAR, batch 256"
    for c, o, stride in ((3, 64, 1), (64, 64, 1), (64, 128, 2)):
        x, w = (lns_sim.quantize(torch.randn(shape, device="cuda")) for shape in ((256, c, 32, 32), (o, c, 3, 3)))
        for data, outlier, target in (("one large error", 64.0, 4.0), ("normal data", 1.0, None)):
            errors = torch.randn((256, o, 32 // stride, 32 // stride), device="cuda")
            errors[0, 0, 0, 0] = outlier
            dy = lns_sim.quantize(errors)
            options = ([stride] * 2, [1, 1], [1, 1], 1, Datapath().encode(), False, True)
            _, counted = torch.ops.lns_sim.conv2d_weight_gradient(
                dy.codes, dy.scale, x.codes, x.scale, 8, 8, [3, 3], *options
            )
            macs = errors.numel() * c * 9
            counters = Counters.from_tensor(macs, counted, Datapath())
            work = f"{c} -> {o}, {data}: {counters.saturations} of {counters.vectors} accumulations saturate"
            yield rate(section, work, macs, conv_passes(x, w, dy, stride)["weight gradient"], target)


def elementwise() -> Iterator[Measurement]:
    """Bytes a second as a share of a copy's, over tensors much larger than the caches."""
    n = 1 << 28
    x, y = torch.randn(2, n, device="cuda")
    copy_bytes = 8 * n / median_seconds(lambda: y.copy_(x))
    q16 = lns_sim.quantize(x, LNSFormat(16, 2048))
    q = lns_sim.quantize(x)
    moment, hyper, one = (
        x.abs(),
        torch.tensor([0.9, 0.1, 0.5, 10.0, 16.0], device="cuda"),
        torch.ones((), device="cuda"),
    )
    rng = torch.tensor([1, 2, 3, 0], device="cuda")
    ops = torch.ops.lns_sim
    works = {  # bytes read and written of an element, twice read where the scale comes first
        "quantize, scale included": (9, 0.6, lambda: lns_sim.quantize(x)),
        "quantize, stochastic": (9, None, lambda: ops.quantize(x, 8, 8, None, 1, 0, rng)),
        "LUQ's gradients, maximum included": (12, None, lambda: LUQ().quantize(x, rng, -1)),
        "dequantize": (5, None, q.dequantize),
        "forward codes": (3, None, lambda: ops.forward_codes(q16.codes, q16.scale, 16, 2048, 8, 8)),
        "LNS-Madam step": (
            16,
            0.6,
            lambda: ops.madam_step(q16.codes, moment, x, q16.scale, one, hyper, 16, 2048, False, None),
        ),
        "LNS-Madam step, stochastic": (
            16,
            None,
            lambda: ops.madam_step(q16.codes, moment, x, q16.scale, one, hyper, 16, 2048, True, rng),
        ),
    }
    for name, (size, target, work) in works.items():
        t = median_seconds(work)
        yield Measurement(
            "GPU, elementwise, 268 M elements",
            name,
            size * n / t / copy_bytes,
            target,
            unit=f"of a copy's {copy_bytes / 1e12:.2f} TB/s",
            seconds=t,
        )


def steps() -> Iterator[Measurement]:
    """A training step of ResNet-18 on CIFAR shapes, batch 256: bit-exact against its peers, other systems against
    float32.
    """
    torch.manual_seed(0)
    shape = (256, 3, 32, 32)
    plain = models.build("resnet18", shape[1:], 10).cuda()
    exact, fake = lns_sim.convert(copy.deepcopy(plain), recipes.lns_madam()), eager_fake_quant(plain)
    own_fake = lns_sim.convert(copy.deepcopy(plain), recipes.lns_madam_fake_quant())
    sgd = {"lr": 0.01, "momentum": 0.9}
    ours = training_step(exact, LNSMadam(exact.parameters()), shape, 10, "cuda")
    peers = {
        "float32": (training_step(plain, torch.optim.SGD(plain.parameters(), **sgd), shape, 10, "cuda"), 4.0),
        "eager fake-quant": (training_step(fake, torch.optim.SGD(fake.parameters(), **sgd), shape, 10, "cuda"), 2.0),
        "lns_sim's fake-quant": (training_step(own_fake, LNSMadam(own_fake.parameters()), shape, 10, "cuda"), None),
    }
    section, work = "GPU, training step", "ResNet-18, batch 256"
    for peer, (step, target) in peers.items():
        yield step_against(section, work, ours, peer, step, target, rounds=5)
    for name in OTHER_SYSTEMS:
        other = lns_sim.convert(copy.deepcopy(plain), name)
        step = training_step(other, torch.optim.SGD(other.parameters(), **sgd), shape, 10, "cuda")
        yield step_against(section, f"{work}, {name}", step, "float32", peers["float32"][0], rounds=5)


def wider_operands() -> Iterator[Measurement]:
    """Spec section 8."""
    yield from wide("cuda")


def gpu() -> Iterator[Measurement]:
    """All of it. Raises ValueError where there is no GPU or no kernels for it."""
    check_device("cuda")
    cudnn = torch.backends.cudnn
    with cudnn.flags(cudnn.enabled, True, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False):
        for part in (matmuls, convolutions, datapaths, wider_operands, log_domain, elementwise, steps, trainer_steps):
            for measurement in part():
                print(f"  {measurement.work}: {measurement.ratio:.2f} {measurement.unit}", flush=True)
                yield measurement
            torch.cuda.empty_cache()
