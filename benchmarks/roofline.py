"""The roofs over the kernels, and the picture of measured speeds under them.

What the inner loops execute (csrc/cpu), and how much of it a core with 512-bit vectors does in a cycle, be it as four
256-bit pipes (AMD Zen 4) or as two 512-bit ports (Intel since Ice Lake):

- permute8, three windows: 11 vector instructions for 64 products (subtract, sign, shift, merge, constant's permute, and
  three permutes with three dot products), two instructions a cycle: 64 / 5.5 = 11.6 products a cycle.
- permute16, two windows: 9 instructions for 32 products: 7.1 products a cycle.
- rows: a 64-byte row for 16 products out of L2, 32 bytes a cycle: 8 products a cycle, building the rows aside.
- lookup32, lookup64: one table entry a product, two loads a cycle: 2 products a cycle.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

import torch

from benchmarks.harness import Measurement, seconds
from lns_sim.studies.pictures import pyplot, save

PER_CYCLE = {"permute8": 64 / 5.5, "permute16": 32 / 4.5, "rows": 8.0, "lookup32": 2.0, "lookup64": 2.0}
# A palette that survives colour blindness, one hue a path.
COLORS = {
    "permute8": "#2a78d6",
    "permute16": "#eda100",
    "rows": "#1baf7a",
    "lookup32": "#e34948",
    "lookup64": "#e34948",
}
CHAIN = """
extern "C" void chain(long n) {
  long x = 0;
  for (long i = 0; i < n; ++i) {
    for (int j = 0; j < 16; ++j) { x += 1; __asm__ volatile("" : "+r"(x)); }
  }
}
"""


def clock_hz() -> float:
    """Cycles a second of one core while it runs: a chain of dependent additions takes one cycle each."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "chain.cpp", Path(folder) / "chain.so"
        source.write_text(CHAIN)
        subprocess.run(["c++", "-O2", "-funroll-loops", "-shared", "-fPIC", source, "-o", library], check=True)
        chain = ctypes.CDLL(str(library)).chain
        chain.argtypes = [ctypes.c_long]
        n = 2_000_000
        return max(16 * n / seconds(lambda: chain(n), 0.05) for _ in range(5))


def bandwidth() -> float:
    """Bytes a second of a float32 copy, reads and writes counted, far outside the caches."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / min(seconds(lambda: target.copy_(source), 0.1) for _ in range(3))


def limits() -> dict[str, float]:
    """Products a second of every path on all threads."""
    cycles = clock_hz() * torch.get_num_threads()
    return {path: per_cycle * cycles for path, per_cycle in PER_CYCLE.items()}


def draw(rows: list[Measurement], roofs: dict[str, float], bytes_per_second: float, path: str) -> None:
    """Products a second over products per byte of operands and result: points are works, lines are limits."""
    points = [r for r in rows if r.intensity]
    figure, axes = pyplot().subplots(figsize=(9, 5.2), layout="constrained")
    low, high = 1.0, max(r.intensity for r in points) * 6
    for name in dict.fromkeys(r.path for r in points):
        if name not in roofs:
            continue
        edge = roofs[name] / bytes_per_second
        axes.plot(
            [low, edge, high],
            [low * bytes_per_second / 1e9, roofs[name] / 1e9, roofs[name] / 1e9],
            lw=1.5,
            color=COLORS[name],
            zorder=1,
        )
        axes.annotate(
            f"{name}: {roofs[name] / 1e9:.0f} G products/s",
            (high, roofs[name] / 1e9),
            ha="right",
            va="bottom",
            color="#333333",
            fontsize=9,
        )
        mine = [r for r in points if r.path == name]
        for marker, chosen, kind in (
            ("o", [r for r in mine if "conv" not in r.section], "GEMM"),
            ("^", [r for r in mine if "conv" in r.section], "convolution"),
        ):
            if chosen:
                axes.scatter(
                    [r.intensity for r in chosen],
                    [r.macs / r.seconds / 1e9 for r in chosen],
                    s=34,
                    marker=marker,
                    color=COLORS[name],
                    edgecolors="white",
                    linewidths=0.8,
                    label=f"{kind}, {name}",
                    zorder=2,
                )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(low, high),
        xlabel="products per byte of operands and result",
        ylabel="G products a second",
    )
    speeds = [s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if axes.get_ylim()[0] <= s <= axes.get_ylim()[1]]
    axes.set_yticks(speeds, [str(s) for s in speeds])
    axes.yaxis.minorticks_off()
    axes.set_title(
        f"CPU kernels under their limits, {torch.get_num_threads()} threads "
        f"(copy bandwidth {bytes_per_second / 1e9:.0f} GB/s)",
        loc="left",
        fontsize=11,
    )
    axes.grid(which="major", color="#e6e6e6", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    save(figure, Path(path))
