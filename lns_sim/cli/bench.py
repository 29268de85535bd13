"""lns-sim bench: kernel microbenchmarks against torch float32 and fake quantization in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

from lns_sim import _extension
from lns_sim.checks import check_device
from lns_sim.cli.bench_steps import WAYS, Cost, costs
from lns_sim.cli.command import command
from lns_sim.cli.console import Output, counted
from lns_sim.cli.options import Device
from lns_sim.datapath import Datapath
from lns_sim.environment import provenance
from lns_sim.functional import conv2d, matmul, quantize
from lns_sim.tensor import LNSTensor


@dataclass
class Case:
    """One row: our kernel, the float32 operation it stands for, and the fake-quant way to it; MACs or elements."""

    name: str
    work: int
    unit: str
    ours: Callable
    float32: Callable
    fake_quant: Callable


def torch_quantize(x: torch.Tensor) -> torch.Tensor:
    """What fake-quant frameworks do: scale, log2, round, clamp, exp2 in torch operations."""
    magnitude = x.abs()
    scale = torch.exp2(torch.ceil((torch.log2(magnitude.max()) * 8 - 127) / 8))
    e = torch.clamp(torch.round(torch.log2(magnitude / scale) * 8), 1, 127)
    return torch.sign(x) * torch.exp2(e / 8) * scale


def _quantize(n: int) -> Case:
    x = torch.randn(n)
    return Case(
        f"quantize {n:,} floats", n, "element", lambda: quantize(x), lambda: x.clone(), lambda: torch_quantize(x)
    )


def _matmul(m: int, k: int, n: int) -> Case:
    a, b = torch.randn(m, k), torch.randn(k, n)
    qa, qb = quantize(a), quantize(b)
    return Case(
        f"matmul {m} x {k} x {n}",
        m * k * n,
        "MAC",
        lambda: matmul(qa, qb),
        lambda: a @ b,
        lambda: torch_quantize(a) @ torch_quantize(b),
    )


def conv_passes(x: LNSTensor, w: LNSTensor, dy: LNSTensor, stride: int) -> dict[str, Callable]:
    """The three passes of a convolution with a square kernel and half of it as padding, by name: x (N, C, H, W),
    w (O, C, K, K) and dy of the output's shape, codes of the default format.
    """
    ops, kernel = torch.ops.lns_sim, w.shape[-1]
    tail = ([stride] * 2, [kernel // 2] * 2, [1, 1], 1, Datapath().encode(), False, False)
    return {
        "forward": lambda: conv2d(x, w, stride, kernel // 2),
        "input gradient": lambda: ops.conv2d_input_gradient(
            dy.codes, dy.scale, w.codes, w.scale, 8, 8, list(x.shape), *tail
        ),
        "weight gradient": lambda: ops.conv2d_weight_gradient(
            dy.codes, dy.scale, x.codes, x.scale, 8, 8, [kernel, kernel], *tail
        ),
    }


def _convolutions(n: int, channels: int, size: int) -> list[Case]:
    x, w = torch.randn(n, channels, size, size), torch.randn(channels, channels, 3, 3)
    dy = torch.randn(n, channels, size, size)
    ours = conv_passes(*(quantize(t) for t in (x, w, dy)), stride=1)
    grad, q = torch.nn.grad, torch_quantize
    macs = x.numel() * channels * 9
    shape = f"{n} x {channels} x {size} x {size}, 3 x 3"
    return [
        Case(
            f"conv2d {shape}, forward",
            macs,
            "MAC",
            ours["forward"],
            lambda: F.conv2d(x, w, padding=1),
            lambda: F.conv2d(q(x), q(w), padding=1),
        ),
        Case(
            "  input gradient",
            macs,
            "MAC",
            ours["input gradient"],
            lambda: grad.conv2d_input(x.shape, w, dy, padding=1),
            lambda: grad.conv2d_input(x.shape, q(w), q(dy), padding=1),
        ),
        Case(
            "  weight gradient",
            macs,
            "MAC",
            ours["weight gradient"],
            lambda: grad.conv2d_weight(x, w.shape, dy, padding=1),
            lambda: grad.conv2d_weight(q(x), w.shape, q(dy), padding=1),
        ),
    ]


def cases() -> list[Case]:
    """The rows of the table."""
    return [
        _quantize(1 << 20),
        _matmul(1024, 1024, 1024),
        _matmul(256, 256, 256),
        _matmul(64, 512, 512),
        *_convolutions(32, 64, 32),
    ]


def seconds(f: Callable) -> float:
    """Median time of one call."""
    f()
    return (
        Timer("f()", globals={"f": f}, num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=0.3).median
    )


@command
def bench(device: Device = "cpu", *, output: Output) -> None:
    """Time quantize, matmul and the passes of conv2d against torch float32 and fake-quant in the same run, and on a GPU
    training steps, beside TF32 and bf16 autocast, with their memory.
    """
    check_device(device)
    where = f"{_extension.load().isa()}, {counted(torch.get_num_threads(), 'thread')}"
    if torch.device(device).type == "cuda":
        where = torch.cuda.get_device_name(device)
    rows = []
    record = []
    with torch.device(device):
        works = cases()
    for case in works:
        ours, plain, fake = (seconds(f) for f in (case.ours, case.float32, case.fake_quant))
        each = [f"{t / case.work * 1e9:.3g}" for t in (ours, plain, fake)]
        rows.append([case.name, *each, f"{plain / ours:.2f}", f"{fake / ours:.2f}"])
        times = {"seconds": ours, "float32": plain, "fake-quant": fake}
        record.append({"work": case.name.strip(), "count": case.work, "unit": case.unit, **times})
    output.table(
        "ns of one MAC, of quantize of one element",
        f"x: our speed as a multiple of theirs; {where}; medians",
        ["work", "LNS ns", "float32 ns", "fake-quant ns", "x float32", "x fake-quant"],
        rows,
        left=["work"],
    )
    steps = {}
    if torch.device(device).type == "cuda":
        steps = dict(costs(device))
        _show_steps(steps, where, output)
    output.result(provenance(device=device, cases=record, steps=_plain(steps)))


def _show_steps(steps: dict[str, dict[str, Cost]], where: str, output: Output) -> None:
    output.table(
        "ms of a training step, and GB at its peak",
        f"{where}; medians",
        ["work", *WAYS],
        [
            [name, *(f"{1000 * c.seconds:.1f}; {c.peak / 1e9:.1f}" for c in ways.values())]
            for name, ways in steps.items()
        ],
        left=["work"],
    )


def _plain(steps: dict[str, dict[str, Cost]]) -> list[dict]:
    return [{"work": name, **{way: c._asdict() for way, c in ways.items()}} for name, ways in steps.items()]
