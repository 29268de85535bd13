"""Peak memory of convolutions beyond their operands and result, against the patch (im2col) matrix that they never make.

Linux with glibc: the peak is the resident set's, reset by /proc/self/clear_refs, after the heap's free pages have gone
back to the system.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import torch

import lns_sim
from benchmarks.harness import Measurement
from benchmarks.products import LAYERS
from lns_sim.cli.bench import conv_passes

MEASURABLE = Path("/proc/self/clear_refs").exists()


def _status(key: str) -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(key))
    return int(line.split()[1]) * 1024


def extra_bytes(f) -> int:
    """Peak resident bytes during f() above those before, less the result of f; the least of three, as other threads add
    to it.
    """
    f()
    found = []
    for _ in range(3):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        result = f()
        peak = _status("VmHWM") - before
        result = result[0] if isinstance(result, tuple) else result
        found.append(max(0, peak - result.numel() * result.element_size()))
    return min(found)


def memory() -> Iterator[Measurement]:
    """Each pass of ResNet-18's CIFAR layers at batch 32."""
    if not MEASURABLE:
        print("peak memory: not measured, only Linux tells a process its own (/proc/self/clear_refs)")
        return
    for c, o, size, stride in LAYERS:
        x, w = lns_sim.quantize(torch.randn(32, c, size, size)), lns_sim.quantize(torch.randn(o, c, 3, 3))
        dy = lns_sim.quantize(torch.randn(32, o, size // stride, size // stride))
        passes = conv_passes(x, w, dy, stride)
        float32_matrix = 4 * 9 * c * dy.numel() // o
        extra = {name: extra_bytes(f) for name, f in passes.items()}
        name = max(extra, key=extra.get)
        yield Measurement(
            "peak extra memory, conv2d, batch 32",
            f"{c} -> {o}, {size} x {size} / {stride}",
            extra[name] / float32_matrix,
            1 / 8,
            at_most=True,
            unit="of float32 im2col",
            bound_by=f"a fixed scratch for each thread: {extra[name] / 1e6:.2f} MB ({name})",
        )
