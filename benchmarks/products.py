"""Products on the datapath against torch float32 in the same run: sizes, datapaths, and ResNet-18's CIFAR layers.

Run: ``python benchmarks/products.py [--json FILE]``. Ratios are float32's median time over ours: 1 is as fast.
"""

from __future__ import annotations

import argparse
import json

import torch
import torch.nn.functional as F

import lns_sim
from lns_sim import Datapath, LNSFormat
from lns_sim.cli.bench import seconds
from lns_sim.training.report import environment

FORMAT = LNSFormat()
# (channels in, out, image size, stride) of the 3 x 3 layers, batch 32.
LAYERS = [(3, 64, 32, 1), (64, 64, 32, 1), (64, 128, 32, 2), (128, 128, 16, 1), (128, 256, 16, 2), (256, 256, 8, 1),
          (256, 512, 8, 2), (512, 512, 4, 1)]  # fmt: skip


def random_codes(shape, fmt: LNSFormat, zeros: float = 0.0) -> lns_sim.LNSTensor:
    codes = torch.randint(0, 1 << fmt.bits, shape)
    codes[torch.rand(shape) < zeros] = 0
    return lns_sim.LNSTensor(codes.to(fmt.dtype), torch.ones(()), fmt)


def matmul(name: str, m: int, k: int, n: int, datapath: Datapath = Datapath(), batch: int = 0, zeros: float = 0.0):
    """One row: uniform random codes, ``zeros`` of the left ones zero."""
    lead = (batch,) if batch else ()
    a, b = random_codes((*lead, m, k), datapath.format, zeros), random_codes((*lead, k, n), datapath.format)
    x, y = torch.randn(*lead, m, k), torch.randn(*lead, k, n)
    times = seconds(lambda: lns_sim.matmul(a, b, datapath)), seconds(lambda: x @ y)
    return row(name, datapath.path(m, n), max(batch, 1) * m * k * n, *times)


def row(name: str, path: str, macs: int, ours: float, float32: float) -> dict:
    result = {"work": name, "path": path, "ns per MAC": ours / macs * 1e9, "of float32": float32 / ours}
    print(f"{name:48} {path:10} {result['ns per MAC']:8.4f} {result['of float32']:8.2f}", flush=True)
    return result


def convolution(c: int, o: int, size: int, stride: int, batch: int = 32):
    """Three rows: the passes of a layer, on quantized normal data."""
    x, w = torch.randn(batch, c, size, size), torch.randn(o, c, 3, 3)
    y = F.conv2d(x, w, stride=stride, padding=1)
    dy = torch.randn_like(y)
    qx, qw, qd = (lns_sim.quantize(t) for t in (x, w, dy))
    tail = ([stride] * 2, [1, 1], [1, 1], 1, Datapath().encode(), False, False)
    ops, grad, macs = torch.ops.lns_sim, torch.nn.grad, y.numel() * c * 9
    passes = {
        "forward": (lambda: lns_sim.conv2d(qx, qw, stride, 1), lambda: F.conv2d(x, w, stride=stride, padding=1)),
        "input gradient": (
            lambda: ops.conv2d_input_gradient(qd.codes, qd.scale, qw.codes, qw.scale, 8, 8, list(x.shape), *tail),
            lambda: grad.conv2d_input(x.shape, w, dy, stride, 1),
        ),
        "weight gradient": (
            lambda: ops.conv2d_weight_gradient(qd.codes, qd.scale, qx.codes, qx.scale, 8, 8, [3, 3], *tail),
            lambda: grad.conv2d_weight(x, w.shape, dy, stride, 1),
        ),
    }
    for name, (ours, float32) in passes.items():
        yield row(f"conv {c} -> {o}, {size} x {size} / {stride}, {name}", "rows", macs, seconds(ours), seconds(float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    print(f"{'work':48} {'path':10} {'ns/MAC':>8} {'ratio':>8}")
    rows = [
        matmul("matmul 1024^3", 1024, 1024, 1024),
        matmul("matmul 1024^3, half of the left zero", 1024, 1024, 1024, zeros=0.5),
        matmul("matmul 64 x 512 x 512", 64, 512, 512),
        matmul("matmul 512 x 64 x 2048", 512, 64, 2048),
        matmul("matmul 96 of 128 x 64 x 128", 128, 64, 128, batch=96),
    ]
    variants = {
        "lut_entries=1": Datapath(lut_entries=1), "nearest, wrap": Datapath(rounding="nearest", overflow="wrap"),
        "acc_bits=16": Datapath(acc_bits=16), "acc_bits=32": Datapath(acc_bits=32), "vector_size=64": Datapath(vector_size=64),
        "4 bits, gamma 4": Datapath(LNSFormat(4, 4)), "10 bits, gamma 32": Datapath(LNSFormat(10, 32)),
        "12 bits, gamma 128": Datapath(LNSFormat(12, 128)),
    }  # fmt: skip
    rows += [matmul(f"matmul 512^3, {name}", 512, 512, 512, d) for name, d in variants.items()]
    for layer in LAYERS:
        rows += convolution(*layer)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"environment": environment(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
