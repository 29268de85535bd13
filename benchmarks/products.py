"""GEMMs and convolutions against torch float32: sizes, datapaths, ResNet-18's CIFAR layers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

import lns_sim
from benchmarks.harness import Measurement, paired
from lns_sim import Datapath, LNSFormat
from lns_sim.cli.bench import conv_passes

# (channels in, out, image size, stride) of ResNet-18's 3 x 3 layers on CIFAR, batch 32.
LAYERS = [
    (3, 64, 32, 1),
    (64, 64, 32, 1),
    (64, 128, 32, 2),
    (128, 128, 16, 1),
    (128, 256, 16, 2),
    (256, 256, 8, 1),
    (256, 512, 8, 2),
    (512, 512, 4, 1),
]
BOUND = {
    "permute8": "vector ports: byte permutes and dot products",
    "permute16": "vector ports: word permutes and dot products",
    "rows": "cache: a table row per product from L2",
    "row_planes": "cache: two table rows per product from L2",
    "lookup32": "loads: one table entry per product",
    "lookup64": "loads: one table entry per product",
}


def random_codes(shape, fmt: LNSFormat = LNSFormat(), zeros: float = 0.0, device: str = "cpu") -> lns_sim.LNSTensor:
    """Uniform random codes, a share of them zero."""
    codes = torch.randint(0, 1 << fmt.bits, shape, device=device)
    if zeros:
        codes[torch.rand(shape, device=device) < zeros] = 0
    return lns_sim.LNSTensor(codes.to(fmt.dtype), torch.ones((), device=device), fmt)


def matmul(work, m, k, n, target, datapath=Datapath(), batch=0, zeros=0.0, section="matmul") -> Measurement:
    """Uniform random codes against float32 of the same shape."""
    lead = (batch,) if batch else ()
    a, b = random_codes((*lead, m, k), datapath.format, zeros), random_codes((*lead, k, n), datapath.format)
    x, y = torch.randn(*lead, m, k), torch.randn(*lead, k, n)
    ratio, ours, theirs = paired(lambda: lns_sim.matmul(a, b, datapath), lambda: x @ y)
    path, count = datapath.path(m, n), max(batch, 1)
    size = a.codes.element_size()
    bytes_moved = count * (size * (m * k + k * n) + 4 * m * n)
    macs = count * m * k * n
    return Measurement(
        section,
        work,
        ratio,
        target,
        seconds=ours,
        peer_seconds=theirs,
        macs=macs,
        path=path,
        intensity=macs / bytes_moved,
        bound_by=BOUND[path],
    )


def sizes() -> Iterator[Measurement]:
    """The default datapath at sizes of training."""
    yield matmul("1024 x 1024 x 1024", 1024, 1024, 1024, 0.50)
    yield matmul("the same, half of the left operand zero", 1024, 1024, 1024, 0.75, zeros=0.5)
    yield matmul("64 x 512 x 512", 64, 512, 512, 0.25)
    yield matmul("512 x 64 x 2048", 512, 64, 2048, 0.25)
    yield matmul("96 of 128 x 64 x 128", 128, 64, 128, 0.25, batch=96)


VARIANTS = {
    "lut_entries 1": dict(lut_entries=1),
    "lut_entries 2": dict(lut_entries=2),
    "lut_entries 4": dict(lut_entries=4),
    "acc_bits 16": dict(acc_bits=16),
    "acc_bits 20": dict(acc_bits=20),
    "acc_bits 28": dict(acc_bits=28),
    "acc_bits 32": dict(acc_bits=32),
    "vector_size 16": dict(vector_size=16),
    "vector_size 64": dict(vector_size=64),
    "nearest": dict(rounding="nearest"),
    "wrap": dict(overflow="wrap"),
    "lut_bits 10": dict(lut_bits=10),
}
FORMATS = [(4, 2), (5, 4), (6, 4), (6, 8), (7, 8), (8, 1), (8, 4), (8, 16), (8, 32), (8, 128)]
WIDE = [(9, 16), (10, 32), (11, 64), (12, 128)]


def datapaths() -> Iterator[Measurement]:
    """Other datapaths as a share of the default's speed (0.7 asked), and wider formats against float32 (0.08 asked)."""
    n, default = 768, Datapath()
    a, b = random_codes((n, n), default.format), random_codes((n, n), default.format)
    others = {name: Datapath(**options) for name, options in VARIANTS.items()}
    others |= {f"{bits} bits, gamma {gamma}": Datapath(LNSFormat(bits, gamma)) for bits, gamma in FORMATS}
    for name, d in others.items():
        x, y = random_codes((n, n), d.format), random_codes((n, n), d.format)
        ratio, ours, theirs = paired(lambda: lns_sim.matmul(x, y, d), lambda: lns_sim.matmul(a, b, default))
        path = d.path(n, n)
        yield Measurement(
            "other datapaths, 768^3",
            name,
            ratio,
            0.7,
            unit="x default",
            seconds=ours,
            peer_seconds=theirs,
            macs=n**3,
            path=path,
            bound_by=BOUND[path],
        )
    section = "wider formats, 768^3"
    for bits, gamma in WIDE:
        yield matmul(f"{bits} bits, gamma {gamma}", n, n, n, 0.08, Datapath(LNSFormat(bits, gamma)), section=section)
    yield matmul("12 bits, acc_bits 32", n, n, n, 0.08, Datapath(LNSFormat(12, 128), acc_bits=32), section=section)
    yield matmul("10 bits, lut_entries 1", n, n, n, 0.08, Datapath(LNSFormat(10, 32), lut_entries=1), section=section)


def convolution(c: int, o: int, size: int, stride: int, batch: int = 32) -> Iterator[Measurement]:
    """The passes of a layer, on quantized normal data."""
    x, w = torch.randn(batch, c, size, size), torch.randn(o, c, 3, 3)
    y = F.conv2d(x, w, stride=stride, padding=1)
    dy = torch.randn_like(y)
    grad, macs = torch.nn.grad, y.numel() * c * 9
    positions = batch * y.shape[2] * y.shape[3]
    # Of each pass: rows and columns of its GEMM, elements of its result, the same in float32.
    float32 = {
        "forward": ((positions, o), y.numel(), lambda: F.conv2d(x, w, stride=stride, padding=1)),
        "input gradient": ((positions, c), x.numel(), lambda: grad.conv2d_input(x.shape, w, dy, stride, 1)),
        "weight gradient": ((o, c * 9), w.numel(), lambda: grad.conv2d_weight(x, w.shape, dy, stride, 1)),
    }
    for name, ours in conv_passes(*(lns_sim.quantize(t) for t in (x, w, dy)), stride).items():
        gemm, outputs, theirs = float32[name]
        ratio, t, peer = paired(ours, theirs, rounds=5)
        path = Datapath().path(*gemm)
        bytes_moved = x.numel() + w.numel() + dy.numel() + 3 * outputs  # two operands of a byte, a result of four
        yield Measurement(
            "conv2d, ResNet-18 on CIFAR, batch 32",
            f"{c} -> {o}, {size} x {size} / {stride}, {name}",
            ratio,
            0.35,
            seconds=t,
            peer_seconds=peer,
            macs=macs,
            path=path,
            intensity=macs / bytes_moved,
            bound_by=BOUND[path],
        )


def convolutions() -> Iterator[Measurement]:
    """All layers, all passes."""
    for layer in LAYERS:
        yield from convolution(*layer)
